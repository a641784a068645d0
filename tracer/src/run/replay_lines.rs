//! `portchurn replay`: what `stream` would have printed then.

use std::io::{self, IsTerminal as _};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use jiff::tz::TimeZone;

use super::stop::Patience;
use super::{output, signals};
use crate::cli::{ReplayConfig, ReplayLinesConfig};
use crate::stream::{Stream, StreamState};
use tracer_core::event::Ktime;
use tracer_core::input::feed;
use tracer_core::playback;
use tracer_core::replay::{Pacer, Replay};
use tracer_core::step::TrackerStep;
use tracer_core::time_input::TimeReference;

/// Prints the lines of a recording at the speed that is asked for, up to its end or to a signal.
///
/// # Errors
/// The file is no recording that this version reads ([`ReplayError`](tracer_core::replay::ReplayError)), it has no such time, or a
/// line could not be written.
pub fn run(config: &ReplayLinesConfig) -> Result<()> {
    let ReplayLinesConfig { replay: asked, selection, format } = config;
    let stop = signals::watch()?;
    stop.set_patience(Patience::Short);
    let mut replay = Replay::open(&asked.file)?;
    let (from, to) = window(&mut replay, asked)?;
    let mut tracker = playback::tracker(replay.header(), asked.by, selection.wanted());
    if let Some(from) = from {
        replay.seek(from)?;
    }
    let format = output::stream_format(*format);
    let mut lines = Stream::new(io::stdout(), format, *selection, replay.clock(), io::stdout().is_terminal());
    if lines.header().context("writing to stdout")? == StreamState::Closed {
        return Ok(());
    }
    let mut pacer = Pacer::new(asked.speed);
    while let Some(step) = replay.next_step()? {
        let at = step.ktime();
        if at.zip(to).is_some_and(|(at, to)| at > to) {
            break;
        }
        feed(&mut tracker, &step);
        // Lines are printed only where the clock moves, so that they are the same at every speed.
        let TrackerStep::Advance(now) = step else { continue };
        if stop.is_asked() {
            break;
        }
        if from.is_some_and(|from| now < from) {
            tracker.drain_notices();
            continue;
        }
        let clock = Instant::now();
        let due = pacer.due(now, clock);
        if due > clock {
            stop.wait_at_most(due - clock);
        }
        if output::notices(&mut lines, &mut tracker, asked.filter.as_ref()).context("writing to stdout")?
            == StreamState::Closed
        {
            return Ok(());
        }
    }
    if to.is_none() && !stop.is_asked() {
        tracker.finish();
    }
    // Whether somebody still reads does not matter at the end.
    let _ = output::notices(&mut lines, &mut tracker, asked.filter.as_ref()).context("writing to stdout")?;
    output::note_names_not_seen(&tracker, asked.filter.as_ref());
    output::warn(&playback::warnings(&asked.file, &replay));
    Ok(())
}

/// From when to when to replay; `None` is the beginning or the end.
fn window(replay: &mut Replay, config: &ReplayConfig) -> Result<(Option<Ktime>, Option<Ktime>)> {
    if config.from.is_none() && config.to.is_none() {
        return Ok((None, None));
    }
    let clock = replay.clock();
    let Some(span) = replay.span()? else {
        bail!("--from and --to need a file that can be searched and has events in it");
    };
    let about = TimeReference { span, position: None, clock, zone: &TimeZone::system() };
    let (from, to) = (config.from.map(|from| from.ktime(&about)), config.to.map(|to| to.ktime(&about)));
    if from.zip(to).is_some_and(|(from, to)| from > to) {
        bail!("--from is later than --to");
    }
    if from.is_some_and(|from| from > span.last) {
        bail!("--from is later than the end of the recording, {}", clock.rfc3339(span.last));
    }
    Ok((from.filter(|from| *from > span.first), to))
}
