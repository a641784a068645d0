//! What the scenarios of recordings share: commands run to their end, an incident, disks that fill up or stand still.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};

use crate::lab::{Lab, Traffic, addr};
use crate::process::output;
use crate::script::{AfterConnect, ConnectMethod, LoggedCall, Script, ScriptStep, ServerBehaviour};
use crate::tracer::{Tracer, binary};

/// Runs `portchurn` to its end.
pub fn portchurn(arguments: &[&str]) -> Result<Output> {
    Command::new(binary()?).args(arguments).output().context("starting portchurn")
}

/// Runs `portchurn` successfully and returns what it printed, and what it complained about.
pub fn printed(arguments: &[&str]) -> Result<(String, String)> {
    let output = portchurn(arguments)?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{arguments:?}: {}: {stderr}", output.status);
    Ok((String::from_utf8(output.stdout)?, stderr))
}

/// A path of a test.
///
/// # Panics
///
/// If it is no text.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ours is text")
}

/// A recording of the host, which prints its report when it is ended.
pub fn record(lab: &Lab, file: &Path, more: &[&str]) -> Result<Tracer> {
    let mut arguments = vec!["record", "-o", text(file), "--json", "--for", "600s"];
    arguments.extend(more);
    Tracer::start(lab.dir(), "record", &arguments)
}

/// Traffic that keeps its log to itself, for speed.
pub fn burst(lab: &Lab, name: &str, steps: Vec<ScriptStep>) -> Result<Traffic> {
    lab.start_script(&lab.ns, name, &Script { log: lab.log_path(name), buffered: true, comm: None, steps })
}

/// The server of an incident.
pub fn incident(lab: &Lab) -> Result<Traffic> {
    lab.serve("server", "127.0.0.1:8443", ServerBehaviour::WaitForPeer)
}

/// Closed ones, held ones, and more than there are ports for.
pub fn exhaust(lab: &Lab) -> Result<()> {
    let to = addr("127.0.0.1:8443");
    lab.run(
        "client",
        vec![
            ScriptStep::connect([to], 40, ConnectMethod::Blocking, AfterConnect::Close),
            ScriptStep::connect([to], 60, ConnectMethod::Blocking, AfterConnect::Hold),
            ScriptStep::connect([to], 80, ConnectMethod::Blocking, AfterConnect::Hold),
        ],
    )
    .map(drop)
}

/// A server that takes as many connections as it gets.
pub fn busy_server(lab: &Lab, at: &str) -> Result<Traffic> {
    let mut server =
        burst(lab, "server", vec![ScriptStep::Serve { addr: addr(at), manner: ServerBehaviour::WaitForPeer }])?;
    server.entry(LoggedCall::Listening)?;
    Ok(server)
}

/// A file system of its own, unmounted with its guard.
#[derive(Debug)]
pub struct TestDisk {
    at: PathBuf,
    frozen: bool,
}

impl TestDisk {
    /// 256 KiB of memory.
    pub fn small(at: PathBuf) -> Result<Self> {
        fs::create_dir(&at)?;
        output(Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "none"]).arg(&at))?;
        Ok(Self { at, frozen: false })
    }

    /// One that can be made to stand still.
    pub fn that_freezes(at: PathBuf) -> Result<Self> {
        fs::create_dir(&at)?;
        let image = at.with_extension("image");
        fs::File::create(&image)?.set_len(128 << 20)?;
        output(Command::new("mkfs.ext4").arg("-q").arg(&image))?;
        output(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&at))?;
        Ok(Self { at, frozen: false })
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.at.join(name)
    }

    /// From now on whoever writes waits, and cannot even be killed.
    pub fn freeze(&mut self) -> Result<()> {
        output(Command::new("fsfreeze").arg("--freeze").arg(&self.at))?;
        self.frozen = true;
        Ok(())
    }

    pub fn thaw(&mut self) -> Result<()> {
        output(Command::new("fsfreeze").arg("--unfreeze").arg(&self.at))?;
        self.frozen = false;
        Ok(())
    }
}

impl Drop for TestDisk {
    fn drop(&mut self) {
        if self.frozen {
            // Whatever failed before matters more; those who wait must not wait for ever.
            let _ = self.thaw();
        }
        // The directory is removed with the lab; a busy mount would be told by that.
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}
