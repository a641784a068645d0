//! `portchurn record`: a trace into a file. The tracker never waits for the file.

mod outcome;
mod progress_line;
pub(super) mod recorder;
mod reservation;
pub(super) mod sink;
pub(super) mod tee;
mod watcher;

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use signal_hook::consts::SIGUSR1;

use self::outcome::RecordingOutcome;
use self::recorder::Recorder;
use self::reservation::OutputReservation;
use self::sink::{RecordingSink, part_path};
use self::tee::RecorderTee;
use self::watcher::RecordWatcher;
use super::session::LiveTrace;
use super::tracker_thread::TraceObserver as _;
use super::{output, privileges, signals};
use crate::cli::{FlightWindow, RecordConfig, RecordTarget, RotationBounds};
use crate::stdio::say;
use tracer_core::layout::human;
use tracer_core::tracker::snapshot::NoticeKinds;

/// Writing what waits for the recorder takes a fraction of a second, unless the disk stands still.
const DISK_LIMIT: Duration = Duration::from_millis(500);

/// What a shell says of a command that is not there, and of one that is not executable.
const COMMAND_NOT_FOUND: u8 = 127;
const COMMAND_NOT_EXECUTABLE: u8 = 126;

/// Records until the time is up, a signal comes, or the command has ended. Returns the exit code: the command's if there is one.
///
/// # Errors
/// The trace could not start ([`super::StartError`]), the file or the command could not be begun, or the recording had to end before its
/// time ([`WriteError`](tracer_core::recording::WriteError)).
pub fn run(config: &RecordConfig) -> Result<u8> {
    // Before the trace starts, so that a wrong path is an error at once.
    let target = reserve(config)?;
    let (triggers, quiet) = match &config.target {
        RecordTarget::Flight { triggers, window, .. } => (&triggers[..], window.after),
        RecordTarget::File | RecordTarget::Rotation(_) => (&[][..], Duration::ZERO),
    };
    let asked = Arc::new(AtomicBool::new(false));
    if !triggers.is_empty() {
        signal_hook::flag::register(SIGUSR1, Arc::clone(&asked)).context("handling USR1")?;
    }
    let flight = (!triggers.is_empty()).then_some(config.output.as_path());
    let notices = NoticeKinds { failures: flight.is_some(), ..NoticeKinds::default() };
    let stop = signals::watch()?;
    let live = LiveTrace::start(&config.trace, notices, &stop)?;
    live.ready();
    // Inputs about the command wait in the tracker's queue until the recorder has started.
    let mut child = match spawn(&config.command) {
        Ok(child) => child,
        Err(error) => {
            let code = match error.downcast_ref::<io::Error>().map(io::Error::kind) {
                Some(io::ErrorKind::NotFound) => COMMAND_NOT_FOUND,
                Some(io::ErrorKind::PermissionDenied) => COMMAND_NOT_EXECUTABLE,
                _ => return Err(error),
            };
            say(format_args!("{error:#}; nothing was recorded"));
            return Ok(code);
        }
    };
    privileges::lock();
    let (recorder, tee) = match begin(config, &live, target) {
        Ok(begun) => begun,
        Err(error) => {
            if let Some(child) = &mut child {
                // A command that cannot be recorded is not to run.
                let _ = child.kill();
                let _ = child.wait();
            }
            return Err(error);
        }
    };
    let clock = live.clock;
    let mut watcher = RecordWatcher::new(tee, Arc::clone(&recorder.progress), child, stop, (triggers, quiet), asked);
    let finished = live.run(config.duration, &mut watcher)?;
    wait_for_disk(&recorder);
    let outcome = recorder.join()?;
    let status = watcher.finish()?;
    conclude(&outcome, &watcher, flight);
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
    Flight(FlightWindow, bool),
}

fn reserve(config: &RecordConfig) -> Result<ReservedTarget> {
    let parts = matches!(config.target, RecordTarget::Rotation(_));
    let reservation = OutputReservation::new(&config.output, parts, config.force)?;
    Ok(match &config.target {
        RecordTarget::File => ReservedTarget::File(reservation),
        RecordTarget::Rotation(bounds) => ReservedTarget::Rotation(reservation, *bounds),
        // That the file can be created is known now. The trigger creates it.
        RecordTarget::Flight { window, rearm, .. } => ReservedTarget::Flight(*window, *rearm),
    })
}

/// Waits for a recorder that has all its inputs, and says once what it waits for.
fn wait_for_disk(recorder: &Recorder) {
    let deadline = Instant::now() + DISK_LIMIT;
    while !recorder.has_ended() {
        if Instant::now() >= deadline {
            say("waiting for the disk; Ctrl-C again gives up, and what was written until then can be read");
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Starts the recorder: on one file, on parts, or in memory.
fn begin(config: &RecordConfig, live: &LiveTrace, target: ReservedTarget) -> Result<(Recorder, RecorderTee)> {
    let (path, header) = (&config.output, live.header());
    let sink = match target {
        ReservedTarget::File(reservation) => RecordingSink::one(path, reservation.into_file()?, &header)
            .with_context(|| format!("writing {}", path.display()))?,
        ReservedTarget::Rotation(reservation, bounds) => {
            RecordingSink::rotation(path, reservation.into_file()?, &header, bounds)
                .with_context(|| format!("writing {}", part_path(path, 1).display()))?
        }
        ReservedTarget::Flight(window, rearm) => RecordingSink::flight(path, &header, window, config.force, rearm),
    };
    Recorder::start(&header, sink)
}

fn spawn(command: &[OsString]) -> Result<Option<Child>> {
    let Some((program, arguments)) = command.split_first() else { return Ok(None) };
    let child = Command::new(program).args(arguments).spawn();
    child.map(Some).with_context(|| format!("starting {}", program.to_string_lossy()))
}

/// Says on stderr what was written and what was not. `flight`: where a flight recorder was to write.
fn conclude(outcome: &RecordingOutcome, watcher: &RecordWatcher<'_>, flight: Option<&Path>) {
    for (number, (path, written)) in outcome.files.iter().enumerate() {
        if let Some(asked) = flight.filter(|asked| *asked != path && number == 0) {
            say(format_args!("{} was put there by somebody else meanwhile, and is as it was", asked.display()));
        }
        let seconds = written.last.saturating_sub(written.first) as f64 / 1e9;
        say(format_args!(
            "recorded {} rows, {} in {} ({seconds:.1} s)",
            written.rows,
            human::bytes(written.bytes),
            path.display()
        ));
    }
    if flight.is_some() && outcome.files.is_empty() && outcome.trouble.is_none() {
        say("it did not happen, so nothing was written");
    }
    if outcome.cut_short && watcher.is_triggered() {
        say(format_args!(
            "the flight recorder holds {} and that was less than --before; the oldest events are not in the file",
            human::bytes(sink::FLIGHT_BYTES)
        ));
    }
    if outcome.made_room > 0 {
        say(format_args!(
            "the disk was full: the oldest {} made room for the latest",
            human::plural(u64::from(outcome.made_room), "part")
        ));
    }
    let lost = watcher.unrecorded();
    if lost > 0 {
        say(format_args!("{lost} events were not recorded because the file could not be written fast enough"));
    }
}
