//! One process of the demo, as its parent sees it: started, instructed, listened to, and always killed and reaped.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{self, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use super::protocol::{DemoCounts, Line};
use super::roles::ROLE;

/// Lines of a child that wait to be read. A child writes a few per second, and waits while the channel is full.
const WAITING_LINES: usize = 256;

pub(super) struct Child {
    name: String,
    process: process::Child,
    stdin: ChildStdin,
    lines: Receiver<Result<Line>>,
    counts: DemoCounts,
    done: bool,
}

impl Child {
    /// Starts `executable` again as `name demo-role ROLE...`.
    pub(super) fn spawn(executable: &Path, name: &str, role: &[&str]) -> Result<Self> {
        let mut process = Command::new(executable)
            .arg0(name)
            .arg(ROLE)
            .args(role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {} as {name}", executable.display()))?;
        let (Some(stdin), Some(stdout)) = (process.stdin.take(), process.stdout.take()) else {
            // Both were asked for, so this does not happen. If it did, nothing else would reap the process.
            let _ = process.kill();
            let _ = process.wait();
            bail!("{name} was started without pipes");
        };
        let (sender, lines) = sync_channel(WAITING_LINES);
        // Ends when the child closes its end of the pipe, or when the receiver of the channel is dropped.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                let line = line.map_err(anyhow::Error::from).and_then(|line| line.parse());
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let name = format!("{name} {}", role.join(" "));
        Ok(Self { name, process, stdin, lines, counts: DemoCounts::default(), done: false })
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(super) fn counts(&self) -> DemoCounts {
        self.counts
    }

    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    pub(super) fn tell(&mut self, line: &str) -> Result<()> {
        writeln!(self.stdin, "{line}").with_context(|| format!("telling {} to {line}", self.name))
    }

    /// Waits until the child says that the last instruction is done.
    pub(super) fn ready(&mut self, deadline: Instant) -> Result<()> {
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => match line.with_context(|| format!("listening to {}", self.name))? {
                    Line::Ready => return Ok(()),
                    other => self.take(other),
                },
                Err(RecvTimeoutError::Timeout) => {
                    bail!("{} does not get ready; is this machine overloaded?", self.name)
                }
                Err(RecvTimeoutError::Disconnected) => return self.ended(),
            }
        }
    }

    /// Reads the lines that the child has written since the last call. Does not wait.
    pub(super) fn update(&mut self) -> Result<()> {
        loop {
            match self.lines.try_recv() {
                Ok(line) => {
                    let line = line.with_context(|| format!("listening to {}", self.name))?;
                    self.take(line);
                }
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return self.ended(),
            }
        }
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::Ready => {}
            Line::Counts(counts) => self.counts = counts,
            Line::Done => self.done = true,
        }
    }

    fn ended(&mut self) -> Result<()> {
        let status = self.process.wait().with_context(|| format!("waiting for {}", self.name))?;
        bail!("{} ended early ({status}); what it said is above", self.name)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Both fail only for a process that was reaped already; std remembers that, so no other process is hit.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// `true` and `cat` in place of our executable: they ignore or refuse the role.
    fn spawn(program: &str) -> Child {
        Child::spawn(Path::new(program), "stand-in", &[]).expect("a program of coreutils")
    }

    #[test]
    fn a_child_that_ends_early_is_an_error_and_not_a_hang() {
        let error =
            spawn("/bin/false").ready(Instant::now() + Duration::from_secs(10)).expect_err("it never gets ready");
        assert!(error.to_string().contains("ended early"), "{error}");
    }

    #[test]
    fn dropping_kills_and_reaps() {
        // Finds no file called like the role, but reads on; `yes` writes lines that no role writes.
        let mut child = spawn("/usr/bin/yes");
        let pid = child.pid();
        assert!(child.ready(Instant::now() + Duration::from_secs(10)).is_err());
        drop(child);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
