//! The first process of the virtual machines that `cargo xtask e2e vm` boots: mounts what a Linux system has mounted, loads
//! modules, runs the steps of `/plan.json` one after the other, and switches the machine off.
//!
//! It exists so that the machine needs no distribution: everything in it is the kernel, this file and what is under test. The
//! kernel has the first serial port to itself; what programs print goes to the second one, between lines that start with
//! [`MARK`], so that no kernel message can tear a line apart. Whether a step's outcome is good is not decided here.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::{Pid, getpid, sethostname, sync};
use serde::Deserialize;

/// Begins every line that is not a step's own.
const MARK: &str = "@vm";
const PORT: &str = "/dev/ttyS1";

#[derive(Deserialize)]
struct Plan {
    /// Module files in the order in which they depend on one another.
    modules: Vec<PathBuf>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    directory: PathBuf,
    environment: BTreeMap<String, String>,
    limit_seconds: u64,
}

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
            // Nobody to return to; the kernel's console is where its own last words go, too.
            let _ = fs::write("/dev/console", format!("{MARK} error {error:#}\n"));
        }
        sync();
        let _ = reboot(RebootMode::RB_POWER_OFF);
        return;
    }
    if let Err(error) = run() {
        say("error", &format!("{error:#}"));
    }
}

/// Adopts and buries orphans, which is what a first process is for, until the one that does the work has ended.
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
    let plan = fs::read("/plan.json").context("reading /plan.json")?;
    let plan: Plan = serde_json::from_slice(&plan).context("/plan.json")?;
    for module in &plan.modules {
        let file = File::open(module).with_context(|| format!("opening {}", module.display()))?;
        finit_module(&file, c"", ModuleInitFlags::empty()).with_context(|| format!("loading {}", module.display()))?;
    }
    say("up", &uptime());
    for step in &plan.steps {
        say("begin", &step.name);
        let begun = Instant::now();
        let outcome = run_step(step).unwrap_or_else(|error| format!("{error:#}"));
        say("end", &format!("{:.1} {} {outcome}", begun.elapsed().as_secs_f64(), step.name));
    }
    say("done", &uptime());
    Ok(())
}

/// `ok`, or how it went wrong.
fn run_step(step: &Step) -> Result<String> {
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

/// In one write, on a line of its own.
fn say(what: &str, value: &dyn Display) {
    // Without the port there is nobody to tell.
    let _ = std::io::stdout().write_all(format!("{MARK} {what} {value}\n").as_bytes());
}
