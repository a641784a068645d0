//! One virtual machine from power-on to power-off, under a deadline.
//!
//! QEMU emulates the CPU in software, which works wherever QEMU does, also inside other virtual machines. The kernel's
//! console goes to a file; the output of the programs comes through a second serial port (tests/src/bin/vm-init.rs).
//! When a machine panics or hangs, the error shows the last lines of the console.

use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use e2e_protocol::MachineLine;

use super::kernels::Kernel;
use crate::shell::{command, line_of, say};

/// Lines of the kernel's console that a failure prints.
const LAST_LINES: usize = 40;
/// Parts of kernel messages after which no result of the machine counts.
const TROUBLE: [&str; 6] =
    ["Kernel panic", "BUG: ", "Oops: ", "general protection fault", "kernel BUG at", "WARNING: CPU"];

/// Boots the kernel and passes every line to `read` until the machine is off.
pub fn boot(
    kernel: &Kernel,
    initramfs: &Path,
    console: &Path,
    limit: Duration,
    mut read: impl FnMut(MachineLine<'_>),
) -> Result<()> {
    let mut qemu = command("qemu-system-x86_64");
    // One CPU: while the kernel switches a tracepoint on or off, another emulated CPU may hit the temporary breakpoint
    // after the kernel has removed it ("Oops: int3" on 6.12). Real CPUs do not.
    qemu.args(["-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "2048"])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initramfs)
        // tsc=reliable: the emulated clocks disagree so much that the kernel would otherwise reject the best one.
        .args(["-append", "console=ttyS0 quiet panic=-1 tsc=reliable mitigations=off random.trust_cpu=on rdinit=/init"])
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .args(["-serial", "stdio"]);
    let line = line_of(&qemu);
    say(&format!("vm {}: {line}", kernel.series.name()));
    let machine = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut machine = QemuProcess(machine.context("qemu-system-x86_64 is not there: `cargo xtask setup` installs it")?);
    let lines = lines(machine.0.stdout.take().context("the machine's output")?);
    let ended = watch(&lines, limit, &mut read);
    drop(machine);
    let log = fs::read(console).unwrap_or_default();
    let log = String::from_utf8_lossy(&log).into_owned();
    ended.and_then(|()| healthy(&log)).with_context(|| last_lines(&log))
}

/// A running QEMU, killed and reaped when dropped.
struct QemuProcess(Child);

impl Drop for QemuProcess {
    fn drop(&mut self) {
        // Killing fails if the machine is already off, which is the wanted state.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn watch(lines: &Receiver<String>, limit: Duration, read: &mut impl FnMut(MachineLine<'_>)) -> Result<()> {
    let deadline = Instant::now() + limit;
    let mut done = false;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                let line = MachineLine::parse(&line);
                done |= matches!(line, MachineLine::Done(_));
                if let MachineLine::Error(error) = line {
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
