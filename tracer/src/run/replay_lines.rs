//! `portchurn replay`: what `stream` would have printed then.

use std::io::{self, IsTerminal as _};
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::stop::Patience;
use super::{output, recordings, signals};
use crate::cli::ReplayLinesConfig;
use crate::stream::{Stream, StreamState};
use tracer_core::playback;
use tracer_core::replay::Pacer;
use tracer_core::step::TrackerStep;

/// Prints the lines of a recording at the speed that is asked for, up to its end or to a signal.
///
/// # Errors
/// The recording cannot be opened or has no such time (`recordings::open`), or a line could not be written.
pub fn run(config: &ReplayLinesConfig) -> Result<()> {
    let ReplayLinesConfig { replay: asked, selection, format } = config;
    let stop = signals::watch()?;
    stop.set_patience(Patience::Short);
    let (mut series, window) = recordings::open(&asked.input)?;
    let mut tracker = playback::tracker(series.header(), asked.input.by, selection.wanted());
    let format = output::stream_format(*format);
    let mut lines = Stream::new(io::stdout(), format, *selection, series.clock(), io::stdout().is_terminal());
    if lines.header().context("writing to stdout")? == StreamState::Closed {
        return Ok(());
    }
    let (mut pacer, filter) = (Pacer::new(asked.speed), asked.input.filter.as_ref());
    let played: Result<_> = playback::play_into(&mut series, &mut tracker, window, |step, tracker| {
        // Lines are printed only where the clock moves, so that they are the same at every speed.
        let TrackerStep::Advance(now) = step else { return Ok(()) };
        if stop.is_asked() {
            return Err(EndsEarly.into());
        }
        let clock = Instant::now();
        let due = pacer.due(*now, clock);
        if due > clock {
            stop.wait_at_most(due - clock);
        }
        match output::notices(&mut lines, tracker, filter).context("writing to stdout")? {
            StreamState::Open => Ok(()),
            StreamState::Closed => Err(EndsEarly.into()),
        }
    });
    match played {
        // What the tracker has reported until the signal is still printed.
        Err(error) if error.is::<EndsEarly>() => {}
        played => {
            played?;
        }
    }
    if window.to.is_none() && !stop.is_asked() {
        tracker.finish();
    }
    // Whether somebody still reads does not matter at the end.
    let _ = output::notices(&mut lines, &mut tracker, filter).context("writing to stdout")?;
    output::note_names_not_seen(&tracker, filter);
    output::warn(&series.warnings());
    Ok(())
}

/// A signal has come, or the reader of the lines has closed its end of the pipe. Neither is a failure.
#[derive(Debug, thiserror::Error)]
#[error("ended early")]
struct EndsEarly;
