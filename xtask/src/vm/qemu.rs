//! One virtual machine from power-on to power-off, under a deadline.
//!
//! Software emulation on purpose: it works wherever QEMU does, inside other virtual machines too. The kernel's console goes to a file,
//! what programs print comes to us (see `tests/src/bin/vm-init.rs`). A machine that panics or hangs ends with its last lines.

use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::kernels::Kernel;
use crate::shell::{command, line_of, say};

/// Begins the lines of the machine's first process.
const MARK: &str = "@vm ";
const LAST_LINES: usize = 40;
/// What a kernel says when it cannot be trusted any more.
const TROUBLE: [&str; 6] =
    ["Kernel panic", "BUG: ", "Oops: ", "general protection fault", "kernel BUG at", "WARNING: CPU"];

/// A line of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// The first process is at work; seconds since power-on.
    Up(&'a str),
    Begin(&'a str),
    End {
        step: &'a str,
        seconds: &'a str,
        outcome: &'a str,
    },
    Error(&'a str),
    Done,
    /// What a step printed.
    Own(&'a str),
}

fn parse(line: &str) -> Line<'_> {
    let Some(rest) = line.strip_prefix(MARK) else { return Line::Own(line) };
    let (what, value) = rest.split_once(' ').unwrap_or((rest, ""));
    match what {
        "up" => Line::Up(value),
        "begin" => Line::Begin(value),
        "done" => Line::Done,
        "end" => {
            let mut words = value.splitn(3, ' ');
            let mut word = || words.next().unwrap_or_default();
            Line::End { seconds: word(), step: word(), outcome: word() }
        }
        _ => Line::Error(value),
    }
}

/// Boots the kernel and hands every line to `read` until the machine is off.
pub fn boot(
    kernel: &Kernel,
    initramfs: &Path,
    console: &Path,
    limit: Duration,
    mut read: impl FnMut(Line<'_>),
) -> Result<()> {
    let mut qemu = command("qemu-system-x86_64");
    // One CPU: while the kernel switches a tracepoint on or off on one, another emulated one may run into the breakpoint that stands
    // there for a moment after it has gone ("Oops: int3" on 6.12). Real ones do not.
    qemu.args(["-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "2048"])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs)
        // tsc=reliable: the emulated clocks disagree enough for the kernel to suspect the best one of them.
        .args(["-append", "console=ttyS0 quiet panic=-1 tsc=reliable mitigations=off random.trust_cpu=on rdinit=/init"])
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .args(["-serial", "stdio"]);
    let line = line_of(&qemu);
    say(&format!("vm {}: {line}", kernel.series.name()));
    let machine = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut machine = Machine(machine.context("qemu-system-x86_64 is not there: `cargo xtask setup` installs it")?);
    let lines = lines(machine.0.stdout.take().context("the machine's output")?);
    let ended = watch(&lines, limit, &mut read);
    drop(machine);
    let log = fs::read(console).unwrap_or_default();
    let log = String::from_utf8_lossy(&log).into_owned();
    ended.and_then(|()| healthy(&log)).with_context(|| last_lines(&log))
}

/// Killed and waited for when dropped.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // One that is off already cannot be killed; that is the wanted state.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn watch(lines: &Receiver<String>, limit: Duration, read: &mut impl FnMut(Line<'_>)) -> Result<()> {
    let deadline = Instant::now() + limit;
    let mut done = false;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                let line = parse(&line);
                done |= line == Line::Done;
                if let Line::Error(error) = line {
                    bail!("the machine's first process failed: {error}");
                }
                read(line);
            }
            Err(RecvTimeoutError::Timeout) => bail!("the machine was not done after {} s", limit.as_secs()),
            Err(RecvTimeoutError::Disconnected) => {
                ensure!(done, "the machine went off before it was done");
                return Ok(());
            }
        }
    }
}

fn lines(output: impl Read + Send + 'static) -> Receiver<String> {
    let (to, from) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n') {
            let Ok(line) = line else { return };
            let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            if to.send(line).is_err() {
                return;
            }
        }
    });
    from
}

fn healthy(console: &str) -> Result<()> {
    match console.lines().find(|line| TROUBLE.iter().any(|sign| line.contains(sign))) {
        Some(line) => bail!("the kernel is in trouble: {}", line.trim()),
        None => Ok(()),
    }
}

fn last_lines(console: &str) -> String {
    let lines: Vec<&str> = console.lines().collect();
    let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
    format!("the kernel's last lines:\n{}\n", last.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_first_process_are_told_from_those_of_steps() {
        assert_eq!(parse("@vm up 2.31"), Line::Up("2.31"));
        assert_eq!(parse("@vm begin counts"), Line::Begin("counts"));
        let end = Line::End { seconds: "12.0", step: "counts", outcome: "exit 101" };
        assert_eq!(parse("@vm end 12.0 counts exit 101"), end);
        assert_eq!(parse("@vm done 9"), Line::Done);
        assert_eq!(parse("test a ... ok"), Line::Own("test a ... ok"));
    }

    #[test]
    fn a_machine_that_stops_early_or_never_is_an_error() {
        let machine = |lines: &[&str], keep: bool| {
            let (to, from) = mpsc::channel();
            for line in lines {
                to.send((*line).to_owned()).expect("sent");
            }
            let held = keep.then_some(to);
            let ended = watch(&from, Duration::from_millis(50), &mut |_| {});
            drop(held);
            ended.map_err(|error| error.to_string())
        };
        assert_eq!(machine(&["@vm up 1", "x", "@vm done 2"], false), Ok(()));
        assert!(machine(&["@vm up 1"], false).is_err_and(|error| error.contains("went off")));
        assert!(machine(&["@vm up 1"], true).is_err_and(|error| error.contains("not done after")));
        assert!(machine(&["@vm error no plan"], false).is_err_and(|error| error.contains("no plan")));
    }

    #[test]
    fn a_kernel_in_trouble_is_not_healthy() {
        assert!(healthy("[    1.0] all is well\n").is_ok());
        assert!(healthy("[    1.0] Kernel panic - not syncing: x\n").is_err());
        assert!(healthy("[    1.0] WARNING: CPU: 0 PID: 1 at kernel/bpf/verifier.c:1\n").is_err());
    }
}
