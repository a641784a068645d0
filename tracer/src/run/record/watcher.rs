//! What `portchurn record` does beside the tracker: it copies inputs for the recorder, triggers a flight recorder, and ends the trace
//! with the command that is being recorded.

use std::io;
use std::ops::ControlFlow;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::progress_line::ProgressLine;
use super::tee::{RecorderProgress, RecorderTee};
use crate::cli::{Trigger, exit};
use crate::run::signals::SIGNAL_BASE;
use crate::run::stop::Stop;
use crate::run::tracker_thread::TraceObserver;
use crate::stdio::say;
use tracer_core::event::Ktime;
use tracer_core::input::TrackerInput;
use tracer_core::recording::header::RecordedTrigger;
use tracer_core::tracker::Tracker;
use tracer_core::tracker::snapshot::{Finding, FindingId, Notice, Severity};

/// A forecast needs a snapshot, which costs milliseconds with a large table.
const FORECAST_EVERY: Duration = Duration::from_secs(1);

/// How long a command may take to end after TERM. It is somebody's work, so it is not killed.
const COMMAND_LIMIT: Duration = Duration::from_millis(500);

/// Observes a trace that is recorded.
pub struct RecordWatcher<'a> {
    /// `None` after the last input.
    tee: Option<RecorderTee>,
    /// Events that the tee had lost when it was closed.
    lost: u64,
    /// The command that is being recorded, and how it ended.
    child: Option<Child>,
    status: Option<ExitStatus>,
    /// Ends the trace.
    stop: Stop,
    progress: Arc<RecorderProgress>,
    line: ProgressLine,
    /// What a flight recorder waits for; otherwise empty.
    triggers: &'a [Trigger],
    /// Without a failure for this long, the next one is another incident.
    quiet: Duration,
    /// USR1 has come.
    asked: Arc<AtomicBool>,
    /// Triggers handed to the recorder.
    triggered: u32,
    /// When the last connect found no port.
    exhausted: Option<Ktime>,
    /// The forecast was that ports will run out, when it was last looked at.
    forecast: bool,
    /// When the forecast was last looked at.
    looked: Instant,
}

impl<'a> RecordWatcher<'a> {
    /// `stop` ends the trace when `child` has ended or the recorder takes no more.
    pub fn new(
        tee: RecorderTee,
        progress: Arc<RecorderProgress>,
        child: Option<Child>,
        stop: Stop,
        (triggers, quiet): (&'a [Trigger], Duration),
        asked: Arc<AtomicBool>,
    ) -> Self {
        Self {
            tee: Some(tee),
            lost: 0,
            child,
            status: None,
            stop,
            progress,
            line: ProgressLine::new(),
            triggers,
            quiet,
            asked,
            triggered: 0,
            exhausted: None,
            forecast: false,
            looked: Instant::now(),
        }
    }

    /// A flight recorder has been triggered.
    pub fn is_triggered(&self) -> bool {
        self.triggered > 0
    }

    /// The trace is over: the command's exit code, after its end. A command that still runs is asked to end, and left alone if it does
    /// not.
    ///
    /// # Errors
    /// The command could not be waited for.
    pub fn finish(&mut self) -> Result<u8> {
        let status = match (self.status, &mut self.child) {
            (Some(status), _) => status,
            (None, None) => return Ok(exit::OK),
            (None, Some(child)) => {
                if let Ok(pid) = i32::try_from(child.id()) {
                    // The command may have ended meanwhile.
                    let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
                    say("the command still runs, and is asked to end (TERM)");
                }
                let Some(status) = wait_at_most(child, COMMAND_LIMIT).context("waiting for the command")? else {
                    say(format_args!("the command does not end; it is left alone, as process {}", child.id()));
                    return Ok(exit::FAILED);
                };
                status
            }
        };
        let of_signal =
            || status.signal().and_then(|signal| u8::try_from(signal).ok()).map(|signal| SIGNAL_BASE + signal);
        Ok(status.code().and_then(|code| u8::try_from(code).ok()).or_else(of_signal).unwrap_or(exit::FAILED))
    }

    /// What happened that the flight recorder waits for: a value of `--on`.
    fn incident(&mut self, tracker: &mut Tracker) -> Option<Trigger> {
        if self.triggers.is_empty() {
            return None;
        }
        let without_port = |notice: Notice| match notice {
            Notice::FailedConnect(failed) if failed.failure.is_without_port() => Some(failed.ktime),
            _ => None,
        };
        // Notices are drained whatever the triggers are, or they would pile up.
        let exhausted = tracker.drain_notices().filter_map(without_port).max();
        let signalled = self.asked.swap(false, Ordering::Relaxed);
        let before = self.exhausted;
        self.exhausted = exhausted.max(before);
        let anew = |at: Ktime| before.is_none_or(|before| Duration::from_nanos(at.since(before)) > self.quiet);
        if self.triggers.contains(&Trigger::Exhaustion) && exhausted.is_some_and(anew) {
            return Some(Trigger::Exhaustion);
        }
        if self.triggers.contains(&Trigger::Forecast) && self.looked.elapsed() >= FORECAST_EVERY {
            self.looked = Instant::now();
            // A guess from a second of traffic is not worth a file.
            let sure = |finding: &Finding| {
                finding.is_active() && finding.id == FindingId::PortExhaustionSoon && finding.severity != Severity::Info
            };
            let forecast = tracker.snapshot().findings.iter().any(sure);
            if forecast && !std::mem::replace(&mut self.forecast, forecast) {
                return Some(Trigger::Forecast);
            }
            self.forecast = forecast;
        }
        signalled.then_some(Trigger::Signal)
    }

    fn command_has_ended(&mut self) -> bool {
        if self.status.is_none()
            && let Some(child) = &mut self.child
        {
            self.status = child.try_wait().ok().flatten();
        }
        self.status.is_some()
    }
}

/// How the process ended; `None` if it still runs after `limit`.
fn wait_at_most(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        let status = child.try_wait()?;
        if status.is_some() || Instant::now() >= deadline {
            return Ok(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

impl TraceObserver for RecordWatcher<'_> {
    fn on_input(&mut self, input: &TrackerInput) {
        if let Some(tee) = &mut self.tee {
            tee.observe(input);
        }
    }

    fn unrecorded(&self) -> u64 {
        self.tee.as_ref().map_or(self.lost, RecorderTee::lost)
    }

    fn on_fed(&mut self, tracker: &mut Tracker) -> ControlFlow<()> {
        if self.tee.is_none() {
            return ControlFlow::Continue(());
        }
        let incident = self.incident(tracker);
        let Some(tee) = &self.tee else { return ControlFlow::Continue(()) };
        tee.open(tracker);
        if let Some(incident) = incident
            && self.triggered == self.progress.windows.load(Ordering::Relaxed)
        {
            self.triggered += 1;
            self.line.clear();
            say(format_args!("it happened ({}); what led to it is being written", incident.as_str()));
            tee.trigger(RecordedTrigger { what: incident.as_str().into(), ktime_ns: tracker.now().0 });
        }
        self.line.show(tracker, &self.progress);
        if self.command_has_ended() || self.progress.ended.load(Ordering::Relaxed) {
            // The trace ends in order: what the kernel still has is read, and recorded.
            self.stop.ask();
        }
        ControlFlow::Continue(())
    }

    fn on_last_input(&mut self) {
        if let Some(tee) = self.tee.take() {
            self.lost = tee.close();
        }
        self.line.clear();
    }
}
