//! Child processes that are killed when their guard is dropped, and polling for conditions with a deadline.
//!
//! A process is signalled only by the id of a child that has not been reaped, so that the id cannot belong to another
//! process.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Pause between two checks of a condition.
const POLL: Duration = Duration::from_millis(5);

/// Calls `look` until it returns a value. Fails after `limit`, with `what` in the message.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("waited {limit:?} in vain for {what}");
        }
        std::thread::sleep(POLL);
    }
}

/// Waits until a process that is not our child has ended. A zombie counts as ended.
pub fn gone(pid: u32, limit: Duration) -> Result<()> {
    let stat = PathBuf::from(format!("/proc/{pid}/stat"));
    until(&format!("the end of process {pid}"), limit, || {
        // The state comes after the name, which may contain any character.
        let stat = fs::read_to_string(&stat).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        Ok(state.is_none_or(|state| matches!(state, 'Z' | 'X')).then_some(()))
    })
}

/// `CLOCK_MONOTONIC`, the clock of the kernel's records.
///
/// # Panics
///
/// Never: every kernel has this clock.
pub fn ktime_ns() -> u64 {
    let now = nix::time::ClockId::CLOCK_MONOTONIC.now().expect("CLOCK_MONOTONIC exists");
    u64::try_from(Duration::from(now).as_nanos()).expect("584 years")
}

/// A child process, killed and reaped when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    name: String,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Running {
    /// Starts `command` with its output in files of `dir`, so that it never blocks on a full pipe.
    pub fn start(mut command: Command, dir: &Path, name: &str) -> Result<Self> {
        let stdout = dir.join(format!("{name}.out"));
        let stderr = dir.join(format!("{name}.err"));
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).context("output file")?)
            .stderr(File::create(&stderr).context("output file")?)
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        Ok(Self { child, name: name.into(), stdout, stderr })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if self.child.try_wait()?.is_some() {
            bail!("{} has ended already: {}", self.name, self.stderr());
        }
        let pid = Pid::from_raw(i32::try_from(self.child.id()).context("a process id")?);
        kill(pid, signal).with_context(|| format!("{signal} to {}", self.name))
    }

    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.name);
        until(&what, limit, || Ok(self.child.try_wait()?)).with_context(|| self.stderr())
    }

    /// Waits for the end of the process; fails unless it succeeded.
    pub fn succeed(&mut self, limit: Duration) -> Result<()> {
        let status = self.wait(limit)?;
        if !status.success() {
            bail!("{}: {status}: {}", self.name, self.stderr());
        }
        Ok(())
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap_or_default()).into_owned()
    }

    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stderr).unwrap_or_default()).into_owned()
    }

    pub fn stdout_path(&self) -> &Path {
        &self.stdout
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Killing fails only if the child has ended, which is the wanted state.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a short command to its end and returns its standard output.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_never_holds_is_named() {
        let error = until("a miracle", Duration::from_millis(20), || Ok(None::<()>)).expect_err("a deadline");
        assert!(error.to_string().contains("a miracle"), "{error}");
    }

    #[test]
    fn the_process_is_gone_with_its_guard_even_after_a_panic() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut command = Command::new("sleep");
        command.arg("1000");
        let running = Running::start(command, dir.path(), "sleep").expect("started");
        let pid = running.pid();
        let moved = std::panic::AssertUnwindSafe(running);
        let panic = std::panic::catch_unwind(|| {
            let _running = moved;
            std::panic::resume_unwind(Box::new("a failed test"));
        });
        assert!(panic.is_err());
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
