//! The first process of the virtual machines that `cargo xtask e2e vm` boots: it mounts the file systems of a Linux
//! system, loads kernel modules, runs the steps of the [`MachinePlan`] one after the other, and switches the machine
//! off.
//!
//! With it the machine needs no distribution: it holds the kernel, this program and the programs under test. Only the
//! kernel writes to the first serial port. The output of the programs goes to the second one, between the
//! [`MachineLine`]s of this process, so that no kernel message splits a line. xtask decides whether the outcome of a
//! step is good.

#![forbid(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use e2e_protocol::{MACHINE_PLAN_PATH, MachineLine, MachinePlan, MachineStep};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::{Pid, getpid, sethostname, sync};

/// The second serial port, which xtask reads.
const PORT: &str = "/dev/ttyS1";

const MOUNTS: [(&str, &str, &str); 7] = [
    ("devtmpfs", "/dev", "mode=0755"),
    ("devpts", "/dev/pts", "mode=0620"),
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("cgroup2", "/sys/fs/cgroup", ""),
    ("securityfs", "/sys/kernel/security", ""),
    ("tracefs", "/sys/kernel/tracing", ""),
];

fn main() {
    if getpid() == Pid::from_raw(1) {
        if let Err(error) = first_process() {
            // There is no caller to report to; the kernel's console ends up in the log of the run.
            let _ = fs::write("/dev/console", format!("{}\n", MachineLine::Error(&format!("{error:#}"))));
        }
        sync();
        let _ = reboot(RebootMode::RB_POWER_OFF);
        return;
    }
    if let Err(error) = run() {
        say(MachineLine::Error(&format!("{error:#}")));
    }
}

/// Starts the worker and reaps orphans, as a first process must, until the worker has ended.
fn first_process() -> Result<()> {
    for (kind, place, options) in MOUNTS {
        fs::create_dir_all(place).with_context(|| format!("creating {place}"))?;
        mount(Some(kind), place, Some(kind), MsFlags::empty(), Some(options))
            .with_context(|| format!("mounting {place}"))?;
    }
    let port = OpenOptions::new().write(true).open(PORT).with_context(|| format!("opening {PORT}"))?;
    let worker = Command::new("/proc/self/exe")
        .arg("run")
        .stdin(Stdio::null())
        .stdout(port.try_clone().context("duplicating the port")?)
        .stderr(port)
        .spawn()
        .context("starting the worker")?;
    let worker = Pid::from_raw(i32::try_from(worker.id()).context("a process id")?);
    loop {
        match wait().context("waiting for children")? {
            WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) if pid == worker => return Ok(()),
            _ => {}
        }
    }
}

fn run() -> Result<()> {
    sethostname("vm").context("the host name")?;
    let plan = fs::read(MACHINE_PLAN_PATH).with_context(|| format!("reading {MACHINE_PLAN_PATH}"))?;
    let plan: MachinePlan = serde_json::from_slice(&plan).context(MACHINE_PLAN_PATH)?;
    for module in &plan.modules {
        let file = File::open(module).with_context(|| format!("opening {}", module.display()))?;
        finit_module(&file, c"", ModuleInitFlags::empty()).with_context(|| format!("loading {}", module.display()))?;
    }
    say(MachineLine::Up(&uptime()));
    for step in &plan.steps {
        say(MachineLine::Begin(&step.name));
        let begun = Instant::now();
        let outcome = run_step(step).unwrap_or_else(|error| format!("{error:#}"));
        let seconds = format!("{:.1}", begun.elapsed().as_secs_f64());
        say(MachineLine::End { step: &step.name, seconds: &seconds, outcome: &outcome });
    }
    say(MachineLine::Done(&uptime()));
    Ok(())
}

/// Runs one step; returns `ok`, or how the program failed.
///
/// # Errors
/// The program cannot be started, or is killed because it takes longer than the step allows.
fn run_step(step: &MachineStep) -> Result<String> {
    let mut child = Command::new(&step.program)
        .args(&step.arguments)
        .current_dir(&step.directory)
        .env_clear()
        .envs(&step.environment)
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("starting {}", step.program.display()))?;
    let deadline = Instant::now() + Duration::from_secs(step.limit_seconds);
    loop {
        if let Some(status) = child.try_wait().context("waiting")? {
            return Ok(match (status.code(), status.signal()) {
                (Some(0), _) => "ok".to_owned(),
                (Some(code), _) => format!("exit {code}"),
                (None, signal) => format!("signal {}", signal.unwrap_or_default()),
            });
        }
        if Instant::now() > deadline {
            child.kill().context("killing")?;
            child.wait().context("waiting")?;
            bail!("killed after {} s", step.limit_seconds);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Seconds since power-on by the kernel's own count.
fn uptime() -> String {
    let text = fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// Writes a line with one system call, so that no program's output gets into it.
fn say(line: MachineLine<'_>) {
    // Without the port there is nowhere to report the failure.
    let _ = std::io::stdout().write_all(format!("{line}\n").as_bytes());
}
