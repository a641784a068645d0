//! `portchurn record`: a trace into a file, beside the tracker and never in its way.

mod outcome;
pub(super) mod recorder;
mod reservation;
pub(super) mod sink;
pub(super) mod tee;

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};
use std::ops::ControlFlow;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::oneshot;

use self::outcome::RecordingOutcome;
use self::recorder::Recorder;
use self::reservation::OutputReservation;
use self::sink::{RecordingSink, part_path};
use self::tee::{RecorderProgress, RecorderTee};
use super::output;
use super::session::LiveTrace;
use super::tracker_thread::TraceObserver;
use crate::cli::{FlightWindow, RecordConfig, RecordTarget, RotationBounds, Trigger, exit};
use tracer_core::input::TrackerInput;
use tracer_core::layout::human::{self, between};
use tracer_core::tracker::Tracker;
use tracer_core::tracker::snapshot::{Finding, FindingId, Notice, NoticeKinds, Severity};

/// A line of progress this often, on a terminal.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// Forecasts need a snapshot, which costs milliseconds with a large table.
const FORECAST_EVERY: Duration = Duration::from_secs(1);
/// What a shell adds to the number of the signal that ended a command.
const SIGNAL_BASE: u8 = 128;

/// Records until the time is up, a signal comes, or the command has ended. Returns the exit code: the command's if there is one.
///
/// # Errors
/// The trace or the file could not be begun, or the recording had to end before its time.
pub fn run(config: &RecordConfig) -> Result<u8> {
    // Before the trace: a wrong path is told at once.
    let target = reserve(config)?;
    let triggers = match &config.target {
        RecordTarget::Flight { triggers, .. } => &triggers[..],
        RecordTarget::File | RecordTarget::Rotation(_) => &[],
    };
    let flight = (!triggers.is_empty()).then_some(&config.output);
    let notices = NoticeKinds { failures: flight.is_some(), ..NoticeKinds::default() };
    let live = LiveTrace::start(&config.trace, notices)?;
    live.ready();
    // What the command does until the recorder is there waits in the queue of the tracker.
    let mut child = spawn(&config.command)?;
    let (recorder, tee) = match begin(config, &live, target) {
        Ok(begun) => begun,
        Err(error) => {
            if let Some(child) = &mut child {
                // It was to be recorded or not to run.
                let _ = child.kill();
                let _ = child.wait();
            }
            return Err(error);
        }
    };
    let clock = live.clock;
    let (end, asked) = oneshot::channel();
    let mut watcher = RecordWatcher {
        tee: Some(tee),
        unrecorded: 0,
        child,
        status: None,
        end: Some(end),
        progress: Arc::clone(&recorder.progress),
        meter: Meter::new(),
        triggers,
        triggered: false,
        looked: Instant::now(),
    };
    let finished = live.run(config.duration, Some(asked), &mut watcher)?;
    watcher.meter.clear();
    let outcome = recorder.join()?;
    let status = watcher.finish()?;
    conclude(&outcome, &watcher, flight, watcher.unrecorded);
    if let Some(format) = config.report {
        output::report(&finished.tracker.snapshot(), &finished.host, &clock, format)?;
    }
    if let Some(trouble) = outcome.trouble {
        return Err(trouble).context("the recording ended before its time; what was written until then is whole");
    }
    Ok(status)
}

/// A target whose path has been tried.
enum ReservedTarget {
    File(OutputReservation),
    Rotation(OutputReservation, RotationBounds),
    Flight(FlightWindow),
}

fn reserve(config: &RecordConfig) -> Result<ReservedTarget> {
    let parts = matches!(config.target, RecordTarget::Rotation(_));
    let reservation = OutputReservation::new(&config.output, parts, config.force)?;
    Ok(match &config.target {
        RecordTarget::File => ReservedTarget::File(reservation),
        RecordTarget::Rotation(bounds) => ReservedTarget::Rotation(reservation, *bounds),
        // That a file can be made there is known now; it is made when the recorder is triggered.
        RecordTarget::Flight { window, .. } => ReservedTarget::Flight(*window),
    })
}

/// The recorder at work: on one file, on parts, or in memory.
fn begin(config: &RecordConfig, live: &LiveTrace, target: ReservedTarget) -> Result<(Recorder, RecorderTee)> {
    let (path, header) = (&config.output, live.header());
    let sink = match target {
        ReservedTarget::File(reservation) => RecordingSink::one(path, reservation.into_file()?, &header)
            .with_context(|| format!("writing {}", path.display()))?,
        ReservedTarget::Rotation(reservation, bounds) => {
            RecordingSink::rotation(path, reservation.into_file()?, &header, bounds, live.baseline_requests())
                .with_context(|| format!("writing {}", part_path(path, 1).display()))?
        }
        ReservedTarget::Flight(window) => {
            RecordingSink::flight(path, &header, window, config.force, live.baseline_requests())
        }
    };
    Recorder::start(&header, sink)
}

fn spawn(command: &[OsString]) -> Result<Option<Child>> {
    let Some((program, arguments)) = command.split_first() else { return Ok(None) };
    let child = Command::new(program).args(arguments).spawn();
    child.map(Some).with_context(|| format!("starting {}", program.to_string_lossy()))
}

/// Copies the trace for the recorder, waits for what a flight recorder is to be triggered by, and ends the trace with the command.
struct RecordWatcher<'a> {
    /// Gone once the trace has ended.
    tee: Option<RecorderTee>,
    /// Events that the tee had lost when it was closed.
    unrecorded: u64,
    child: Option<Child>,
    status: Option<ExitStatus>,
    end: Option<oneshot::Sender<()>>,
    progress: Arc<RecorderProgress>,
    meter: Meter,
    triggers: &'a [Trigger],
    triggered: bool,
    looked: Instant,
}

impl TraceObserver for RecordWatcher<'_> {
    fn on_input(&mut self, input: &TrackerInput) {
        if let Some(tee) = &mut self.tee {
            tee.observe(input);
        }
    }

    fn unrecorded(&self) -> u64 {
        self.tee.as_ref().map_or(self.unrecorded, RecorderTee::lost)
    }

    fn on_last_input(&mut self) {
        if let Some(tee) = self.tee.take() {
            self.unrecorded = tee.close();
        }
    }

    fn on_fed(&mut self, tracker: &mut Tracker) -> ControlFlow<()> {
        if self.tee.is_some() && !self.triggered && self.trigger_condition_met(tracker) {
            self.triggered = true;
            self.meter.clear();
            eprintln!("portchurn: it happened; what led to it is being written");
            if let Some(tee) = &self.tee {
                tee.trigger();
            }
        }
        self.meter.show(tracker, &self.progress);
        if self.status.is_none()
            && let Some(child) = &mut self.child
            && let Ok(Some(status)) = child.try_wait()
        {
            self.status = Some(status);
        }
        if (self.status.is_some() || self.progress.ended.load(Ordering::Relaxed))
            && let Some(end) = self.end.take()
        {
            // The trace ends in order: what the kernel still has is read, and recorded.
            let _ = end.send(());
        }
        ControlFlow::Continue(())
    }
}

impl RecordWatcher<'_> {
    /// Has one of the things happened that the flight recorder waits for?
    fn trigger_condition_met(&mut self, tracker: &mut Tracker) -> bool {
        if self.triggers.is_empty() {
            return false;
        }
        let exhausted = tracker.drain_notices().any(|notice| {
            matches!(&notice, Notice::FailedConnect(failed)
                if failed.failure.is_without_port())
        });
        if exhausted && self.triggers.contains(&Trigger::Exhaustion) {
            return true;
        }
        if !self.triggers.contains(&Trigger::Forecast) || self.looked.elapsed() < FORECAST_EVERY {
            return false;
        }
        self.looked = Instant::now();
        // It writes once: a guess from a second of traffic is not worth it.
        let sure =
            |finding: &Finding| finding.id == FindingId::PortExhaustionSoon && finding.severity != Severity::Info;
        tracker.snapshot().findings.iter().any(sure)
    }

    /// The command's exit code, once it has ended; it is asked to if it has not.
    fn finish(&mut self) -> Result<u8> {
        let status = match (self.status, &mut self.child) {
            (Some(status), _) => status,
            (None, None) => return Ok(exit::OK),
            (None, Some(child)) => {
                if let Ok(pid) = i32::try_from(child.id()) {
                    // It may have ended just now, which is what is asked of it.
                    let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
                }
                child.wait().context("waiting for the command")?
            }
        };
        let of_signal =
            || status.signal().and_then(|signal| u8::try_from(signal).ok()).map(|signal| SIGNAL_BASE + signal);
        Ok(status.code().and_then(|code| u8::try_from(code).ok()).or_else(of_signal).unwrap_or(exit::FAILED))
    }
}

/// The line of progress on a terminal.
struct Meter {
    terminal: bool,
    began: Instant,
    shown: Instant,
    events: u64,
}

impl Meter {
    fn new() -> Self {
        let now = Instant::now();
        Self { terminal: io::stderr().is_terminal(), began: now, shown: now, events: 0 }
    }

    fn show(&mut self, tracker: &Tracker, progress: &RecorderProgress) {
        let passed = self.shown.elapsed();
        if !self.terminal || passed < PROGRESS_EVERY {
            return;
        }
        let (events, lost) = (tracker.read(), tracker.lost());
        let rate = events.saturating_sub(self.events) as f64 / passed.as_secs_f64();
        (self.shown, self.events) = (Instant::now(), events);
        // A terminal that cannot be written to is no reason to end a recording.
        let _ = write!(
            io::stderr(),
            "\r\x1b[Krecording {} s  {rate:.0} events/s  {} lost  {}",
            self.began.elapsed().as_secs(),
            between(lost.certain(), lost.upper_bound(), |count| count.to_string()),
            human::bytes(progress.bytes.load(Ordering::Relaxed)),
        );
    }

    fn clear(&self) {
        if self.terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

/// The last words on stderr. `flight`: where a flight recorder was to write.
fn conclude(outcome: &RecordingOutcome, watcher: &RecordWatcher<'_>, flight: Option<&PathBuf>, lost: u64) {
    for (path, written) in &outcome.files {
        if let Some(asked) = flight.filter(|asked| *asked != path) {
            eprintln!("portchurn: {} was put there by somebody else meanwhile, and is as it was", asked.display());
        }
        let seconds = written.last.saturating_sub(written.first) as f64 / 1e9;
        eprintln!(
            "portchurn: recorded {} rows, {} in {} ({seconds:.1} s)",
            written.rows,
            human::bytes(written.bytes),
            path.display()
        );
    }
    if flight.is_some() && outcome.files.is_empty() && outcome.trouble.is_none() {
        eprintln!("portchurn: it did not happen, so nothing was written");
    }
    if outcome.cut_short && watcher.triggered {
        eprintln!(
            "portchurn: the flight recorder holds {} and that was less than --before; the oldest events are not in the file",
            human::bytes(sink::FLIGHT_BYTES)
        );
    }
    if lost > 0 {
        eprintln!("portchurn: {lost} events were not recorded because the file could not be written fast enough");
    }
}
