//! Transitions that the kernel shows to no tracing program.
//!
//! Some kernels of sandboxed virtual machines run no BPF program and write no perf sample while a process that they
//! protect is current (seen with process 1 of a microVM). A softirq that interrupts that process changes the state of
//! sockets unseen: the kernel calls no program and counts no recursion miss, so no tracer can know. The plain perf
//! counter of the tracepoint still counts these transitions. With it a failed test can prove that no tracer could have
//! seen its events, and only then may it run again.
//!
//! Not an excuse for the tracer: a transition for which the program ran, or was skipped by the recursion guard, is
//! never counted as hidden.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use aya::programs::ProgramFd;
use aya::programs::loaded_programs;
use aya::sys::{Stats, enable_stats};
use perf_event::events::Tracepoint;
use perf_event::{Builder, Counter};

/// First program of the tracer's chain: it runs once per transition.
const PROGRAM: &str = "state_first";
const TRACEPOINT_ID: &str = "/sys/kernel/tracing/events/sock/inet_sock_set_state/id";
/// Attempts to read both counts without a transition in between; one takes some ten microseconds.
const LOOKS: u32 = 1000;

/// Counts transitions that the kernel hides: its own count of the tracepoint, less the runs of one tracer's program on
/// it.
#[derive(Debug)]
pub struct HiddenTransitions {
    counters: Vec<Counter>,
    program: ProgramFd,
    /// Count of the tracepoint and runs of the program at the start.
    before: (u64, u64),
    _run_counts: OwnedFd,
}

impl HiddenTransitions {
    /// Starts counting for the tracer with this process id, which must have attached its programs.
    pub fn start(pid: u32) -> Result<Self> {
        let run_counts = enable_stats(Stats::RunTime).context("enabling run counts")?;
        let program = program_of(pid)?;
        let id = tracepoint()?;
        let cpus = std::thread::available_parallelism().context("CPUs")?.get();
        let mut counters = Vec::new();
        for cpu in 0..cpus {
            let mut counter =
                Builder::new(Tracepoint::with_id(id)).any_pid().one_cpu(cpu).build().context("perf_event_open")?;
            counter.enable().context("enabling the counter")?;
            counters.push(counter);
        }
        let before = at_once(&mut counters, &program)?;
        Ok(Self { counters, program, before, _run_counts: run_counts })
    }

    /// Transitions since the start for which the kernel did not call the program.
    pub fn count(&mut self) -> Result<u64> {
        let (fired, runs) = at_once(&mut self.counters, &self.program)?;
        Ok((fired - self.before.0).saturating_sub(runs - self.before.1))
    }
}

/// Count of the tracepoint and runs of the program, read while neither changes.
fn at_once(counters: &mut [Counter], program: &ProgramFd) -> Result<(u64, u64)> {
    let mut before = runs(program)?;
    for _ in 0..LOOKS {
        let mut fired = 0;
        for counter in &mut *counters {
            fired += counter.read().context("reading the counter")?;
        }
        let after = runs(program)?;
        if before == after {
            return Ok((fired, after));
        }
        before = after;
    }
    anyhow::bail!("transitions without a pause")
}

/// Runs of a program, and calls that the recursion guard skipped.
fn runs(program: &ProgramFd) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_fd().as_raw_fd()))?;
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse::<u64>().ok())
            .with_context(|| format!("{name} of a BPF program"))
    };
    Ok(field("run_cnt")? + field("recursion_misses")?)
}

fn program_of(pid: u32) -> Result<ProgramFd> {
    let mut own = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor that was closed meanwhile is not of a program.
        let text = std::fs::read_to_string(entry?.path()).unwrap_or_default();
        own.extend(text.lines().find_map(|line| line.strip_prefix("prog_id:")?.trim().parse::<u32>().ok()));
    }
    let found = loaded_programs()
        .filter_map(Result::ok)
        .find(|info| own.contains(&info.id()) && info.name_as_str() == Some(PROGRAM));
    found.with_context(|| format!("{PROGRAM} of process {pid}"))?.fd().context("the program")
}

/// tracefs may not be mounted. The mount namespace of a child process leaves no mount behind.
fn tracepoint() -> Result<u64> {
    let script = format!(
        "cat {TRACEPOINT_ID} 2>/dev/null || {{ mount -t tracefs tests /sys/kernel/tracing && cat {TRACEPOINT_ID}; }}"
    );
    let output =
        Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().context("unshare (util-linux)")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().parse().context("the tracepoint's id")
}
