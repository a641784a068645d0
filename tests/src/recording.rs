//! Parts that the recording scenarios share: commands run to their end, an incident, and disks that fill up or freeze.

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

/// Runs `portchurn` to its end and returns standard output and standard error; fails unless it succeeded.
pub fn printed(arguments: &[&str]) -> Result<(String, String)> {
    let output = portchurn(arguments)?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{arguments:?}: {}: {stderr}", output.status);
    Ok((String::from_utf8(output.stdout)?, stderr))
}

/// The text of a test's path.
///
/// # Panics
///
/// If the path is not UTF-8.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ours is text")
}

/// Starts a recording of the host, which prints its report when it ends.
pub fn record(lab: &Lab, file: &Path, more: &[&str]) -> Result<Tracer> {
    let mut arguments = vec!["record", "-o", text(file), "--json", "--for", "600s"];
    arguments.extend(more);
    Tracer::start(lab.dir(), "record", &arguments)
}

/// Starts traffic whose log stays in memory until the end, for speed.
pub fn burst(lab: &Lab, name: &str, steps: Vec<ScriptStep>) -> Result<Traffic> {
    lab.start_script(&lab.ns, name, &Script { log: lab.log_path(name), buffered: true, comm: None, steps })
}

/// Starts the server of an incident.
pub fn incident(lab: &Lab) -> Result<Traffic> {
    lab.serve("server", "127.0.0.1:8443", ServerBehaviour::WaitForPeer)
}

/// Makes connections that close, connections that stay, and more of these than there are ports.
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

/// Starts a server whose log stays in memory, for many connections.
pub fn busy_server(lab: &Lab, at: &str) -> Result<Traffic> {
    let mut server =
        burst(lab, "server", vec![ScriptStep::Serve { addr: addr(at), manner: ServerBehaviour::WaitForPeer }])?;
    server.entry(LoggedCall::Listening)?;
    Ok(server)
}

/// A file system for one test, unmounted when the guard is dropped.
#[derive(Debug)]
pub struct TestDisk {
    at: PathBuf,
    frozen: bool,
}

impl TestDisk {
    /// A file system of 256 KiB in memory.
    pub fn small(at: PathBuf) -> Result<Self> {
        fs::create_dir(&at)?;
        output(Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "none"]).arg(&at))?;
        Ok(Self { at, frozen: false })
    }

    /// A file system that can be frozen.
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

    /// Freezes the file system: from now on a process that writes to it blocks and cannot be killed.
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
            // An error here is ignored, because the test has failed already. Blocked processes must not block for ever.
            let _ = self.thaw();
        }
        // The lab removes the directory later, which fails if the mount is still busy.
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}
