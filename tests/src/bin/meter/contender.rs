//! The contenders of the kernel bench, started and stopped in the same way.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use portchurn_tests::load::{ProgramRuns, cpu_nanos, programs};
use portchurn_tests::process::{Running, until};
use portchurn_tests::reported::ParsedReport;
use portchurn_tests::tracer::binary;

/// Limit until the programs are attached. portchurn takes a fraction of a second; bpftrace compiles first.
const READY: Duration = Duration::from_secs(60);
const END: Duration = Duration::from_secs(120);
const SETTLE: Duration = Duration::from_millis(500);

/// A bpftrace program that prints what portchurn's `stream --what transitions` prints: time, process, addresses and
/// transition.
const ONE_LINER: &str = "tracepoint:sock:inet_sock_set_state /args->protocol == 6/ { \
    printf(\"%llu %d %s %s:%d %s:%d %d %d\\n\", nsecs, pid, comm, ntop(args->family, args->saddr), args->sport, \
    ntop(args->family, args->daddr), args->dport, args->oldstate, args->newstate); }";

#[derive(Clone, Debug)]
pub enum Contender {
    Nothing,
    /// The named program of the null tracer.
    NullTracer {
        object: PathBuf,
        program: &'static str,
    },
    Portchurn,
    /// portchurn, writing a recording to this file.
    Recorder(PathBuf),
    Bpftrace,
}

/// Costs of a contender so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// Runs of the program on the hook of the transition (of portchurn's chain the first program), and time of all
    /// programs on it.
    pub hook: ProgramRuns,
    /// Runs and time of the programs on other hooks: timers and system calls.
    pub elsewhere: ProgramRuns,
    pub cpu_nanos: u64,
}

/// A running contender, or none for [`Contender::Nothing`].
pub struct Attached {
    running: Option<(Running, Contender)>,
}

impl Contender {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::NullTracer { program, .. } => program,
            Self::Portchurn => "portchurn",
            Self::Recorder(_) => "recorder",
            Self::Bpftrace => "bpftrace",
        }
    }

    /// Starts the contender and waits until it is attached.
    pub fn attach(&self, dir: &Path) -> Result<Attached> {
        let (command, ready): (Command, &str) = match self {
            Self::Nothing => return Ok(Attached { running: None }),
            Self::NullTracer { object, program } => {
                let mut command = Command::new(std::env::current_exe().context("our own path")?);
                command.arg("null-tracer").arg(object).arg(program);
                (command, "meter: ready")
            }
            Self::Portchurn => {
                let mut command = Command::new(binary()?);
                command.args(["report", "--json", "--for", "3600s"]);
                (command, "portchurn: ready")
            }
            Self::Recorder(file) => {
                let mut command = Command::new(binary()?);
                command.args(["record", "--json", "--force", "-o"]).arg(file);
                (command, "portchurn: ready")
            }
            Self::Bpftrace => (bpftrace(), ""),
        };
        let mut running = Running::start(command, dir, self.name())?;
        until(ready, READY, || {
            if let Some(status) = running.ended()? {
                bail!("{} ended with {status}: {}", self.name(), running.stderr());
            }
            // bpftrace prints no ready line here, because its output goes to /dev/null. Its program is loaded first ...
            let there = || programs(running.pid()).map(|programs| !programs.is_empty());
            let attached = if ready.is_empty() { there()? } else { running.stderr().contains(ready) };
            Ok(attached.then_some(()))
        })?;
        if ready.is_empty() {
            // ... and attached a moment later, which cannot be observed.
            std::thread::sleep(SETTLE);
        }
        Ok(Attached { running: Some((running, self.clone())) })
    }
}

/// tracefs may not be mounted. The mount namespace of the child leaves no mount behind.
fn bpftrace() -> Command {
    let script = "test -d /sys/kernel/tracing/events || mount -t tracefs meter /sys/kernel/tracing; \
                  exec bpftrace -o /dev/null -e \"$0\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, ONE_LINER]);
    command
}

impl Attached {
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|(running, _)| running.pid())
    }

    pub fn spent(&self) -> Result<Spent> {
        let Some(pid) = self.pid() else { return Ok(Spent::default()) };
        let mut spent = Spent { cpu_nanos: cpu_nanos(pid)?, ..Spent::default() };
        for (name, runs) in programs(pid)? {
            match name.as_str() {
                "state_second" | "state_third" => spent.hook.nanos += runs.nanos,
                // bpftrace's only program has the shortened name of its probe.
                "state_first" | "submit_only" | "empty" => add(&mut spent.hook, runs),
                other if other.contains("inet_sock_set") || other.starts_with("tracepoint") => {
                    add(&mut spent.hook, runs);
                }
                _ => add(&mut spent.elsewhere, runs),
            }
        }
        Ok(spent)
    }

    /// Ends the contender. Returns how many of `expected` records on the hook it lost, and the report of portchurn.
    pub fn finish(self, expected: f64) -> Result<(f64, Option<ParsedReport>)> {
        let Some((mut running, contender)) = self.running else { return Ok((0.0, None)) };
        running.signal(if matches!(contender, Contender::Bpftrace) { Signal::SIGINT } else { Signal::SIGTERM })?;
        let status = running.wait(END)?;
        match contender {
            Contender::Nothing | Contender::NullTracer { program: "empty", .. } => Ok((0.0, None)),
            Contender::NullTracer { .. } => {
                ensure!(status.success(), "{status}: {}", running.stderr());
                let read: f64 = running.stdout().trim().parse().context("records read")?;
                Ok(((expected - read).max(0.0), None))
            }
            Contender::Portchurn | Contender::Recorder(_) => {
                ensure!(status.success(), "{status}: {}", running.stderr());
                let report: ParsedReport = serde_json::from_str(&running.stdout()).context("a report")?;
                Ok((report.events.lost.total() as f64, Some(report)))
            }
            Contender::Bpftrace => {
                let lost = |line: &str| line.strip_prefix("Lost ")?.split(' ').next()?.parse::<f64>().ok();
                let said = running.stderr() + &running.stdout();
                Ok((said.lines().filter_map(lost).sum(), None))
            }
        }
    }
}

fn add(sum: &mut ProgramRuns, runs: ProgramRuns) {
    sum.runs += runs.runs;
    sum.nanos += runs.nanos;
    sum.missed += runs.missed;
}

impl Spent {
    pub fn since(self, before: Self) -> Self {
        let less = |now: ProgramRuns, then: ProgramRuns| ProgramRuns {
            runs: now.runs - then.runs,
            nanos: now.nanos - then.nanos,
            missed: now.missed - then.missed,
        };
        Self {
            hook: less(self.hook, before.hook),
            elsewhere: less(self.elsewhere, before.elsewhere),
            cpu_nanos: self.cpu_nanos - before.cpu_nanos,
        }
    }
}
