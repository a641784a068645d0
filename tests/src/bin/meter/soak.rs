//! Floods in turn, for minutes or hours, beside one tracer that watches all of them and one for each turn.
//!
//! Prints a JSON line per sample and per turn. SIGINT and TERM end it in order: the turn that runs is dropped, and nothing is left behind.

use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use portchurn_tests::floods::{ENDS_WITHIN, Flood, FloodSize, cpu_percent, interrupt, recovers, resident, sums};
use portchurn_tests::tracer::Tracer;
use serde_json::{Value, json};

/// Between two samples; the figures of a sample are of its last second.
const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// How long the watcher's CPU is looked at for a sample.
const LOOK: Duration = Duration::from_secs(1);

pub fn run(minutes: u64, seconds_per_turn: u64) -> Result<()> {
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGINT);
    ends.add(Signal::SIGTERM);
    let signals = SignalFd::with_flags(&ends, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).context("signalfd")?;
    let dir = tempfile::tempdir()?;
    // It prints what was lost, and nothing else: no connection is made to port 1.
    let watcher =
        Tracer::start(dir.path(), "watcher", &["stream", "--json", "--what", "failures", "--for", "7d", "dst=:1"])?;
    ends.thread_block().context("blocking signals")?;
    let soak =
        Soak { ends, signals, watcher: watcher.pid(), began: Instant::now(), end: Duration::from_secs(minutes * 60) };
    let size = FloodSize { seconds: seconds_per_turn, ..FloodSize::LONG };
    for (number, flood) in Flood::ALL.iter().cycle().enumerate() {
        if soak.is_over() || !soak.turn(number, *flood, size, dir.path(), &watcher)? {
            break;
        }
    }
    let (ended, _) = interrupt(watcher)?;
    say(
        &json!({ "kind": "end", "seconds": soak.seconds(), "ended_ms": millis(ended), "ends_in_time": ended <= ENDS_WITHIN }),
    );
    Ok(())
}

struct Soak {
    ends: SigSet,
    signals: SignalFd,
    watcher: u32,
    began: Instant,
    end: Duration,
}

impl Soak {
    fn is_over(&self) -> bool {
        self.began.elapsed() >= self.end
    }

    fn seconds(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    /// Waits; true if a signal came.
    fn pause(&self, time: Duration) -> Result<bool> {
        let timeout = PollTimeout::try_from(time).unwrap_or(PollTimeout::MAX);
        let mut waited = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        Ok(poll(&mut waited, timeout).context("poll")? > 0)
    }

    /// One flood with its own tracer. False if a signal ended it.
    fn turn(
        &self,
        number: usize,
        flood: Flood,
        size: FloodSize,
        dir: &std::path::Path,
        watcher: &Tracer,
    ) -> Result<bool> {
        // Children inherit the mask, and must be open to Ctrl-C.
        self.ends.thread_unblock().context("signals of children")?;
        let started = Tracer::report(dir).and_then(|report| Ok((flood.start(dir, size)?, report)));
        self.ends.thread_block().context("blocking signals")?;
        let (mut running, report) = started?;
        let pid = report.pid();
        let (turn_began, mut memory, mut cpu) = (Instant::now(), 0, 0.0_f64);
        loop {
            let used = cpu_percent(self.watcher, LOOK)?;
            let own = resident(pid)?;
            memory = memory.max(own);
            cpu = cpu.max(used);
            say(&json!({
                "kind": "sample", "second": self.seconds(), "turn": flood.name(), "watcher_bytes": resident(self.watcher)?,
                "report_bytes": own, "cpu_percent": used, "lost": lost(watcher)?,
            }));
            if running.wait(Duration::ZERO)? || turn_began.elapsed() >= Duration::from_secs(size.seconds * 2) {
                break;
            }
            if flood == Flood::Connects && turn_began.elapsed() >= Duration::from_secs(size.seconds) {
                break;
            }
            if self.pause(SAMPLE_EVERY.saturating_sub(LOOK))? {
                return Ok(false);
            }
        }
        drop(running);
        let recovered = recovers(self.watcher);
        let (ended, text) = interrupt(report)?;
        let report: Value = serde_json::from_str(&text).context("a report")?;
        let (destinations, workloads) = sums(&report)?;
        say(&json!({
            "kind": "turn", "number": number, "turn": flood.name(), "second": self.seconds(),
            "seconds": turn_began.elapsed().as_secs(), "report_peak_bytes": memory, "peak_cpu_percent": cpu,
            "watcher_bytes": resident(self.watcher)?, "idle_after_ms": recovered.as_ref().ok().map(|time| millis(*time)),
            "ended_ms": millis(ended), "connects": workloads.connects, "failed": workloads.failed,
            "sums_equal": destinations == workloads, "events": report["events"],
        }));
        Ok(!self.pause(Duration::ZERO)?)
    }
}

/// What the watcher has lost for certain so far: its last line about loss.
fn lost(watcher: &Tracer) -> Result<u64> {
    let lines = watcher.lines()?;
    let certain = lines.iter().rev().find_map(|line| Some(line.ring_full? + line.missed_runs?));
    Ok(certain.unwrap_or(0))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[expect(clippy::print_stdout, reason = "a program whose answer is read from stdout")]
fn say(line: &Value) {
    println!("{line}");
}
