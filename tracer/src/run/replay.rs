//! `portchurn replay`: what `stream` would have printed then.

use std::io::{self, IsTerminal as _};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use jiff::tz::TimeZone;

use super::output;
use super::times::When;
use crate::cli::ReplayArgs;
use crate::stream::{Stream, StreamFormat, StreamSelection, StreamState};
use tracer_core::event::Ktime;
use tracer_core::filter::Filter;
use tracer_core::input::feed;
use tracer_core::playback;
use tracer_core::recording::RecordedStep;
use tracer_core::replay::{Pacer, Replay};

/// Prints the lines of a recording at the speed that is asked for.
///
/// # Errors
/// It is no recording, or a line could not be written.
pub fn run(args: &ReplayArgs, filter: Option<&Filter>) -> Result<()> {
    let mut replay = Replay::open(&args.file)?;
    let selection: StreamSelection =
        args.what.map_or_else(StreamSelection::default, |what| [what].into_iter().collect());
    let zone = TimeZone::system();
    let (from, to) = window(&mut replay, args.from.as_ref(), args.to.as_ref(), &zone)?;
    let mut tracker = playback::tracker(replay.header(), args.by, selection.wanted());
    if let Some(from) = from {
        replay.seek(from)?;
    }
    let format = if args.json {
        StreamFormat::Json
    } else {
        StreamFormat::Text { colour: output::colour(), width: output::width(), zone }
    };
    let mut lines = Stream::new(io::stdout(), format, selection, replay.clock(), io::stdout().is_terminal());
    if lines.header().context("writing to stdout")? == StreamState::Closed {
        return Ok(());
    }
    let mut pacer = Pacer::new(args.speed);
    while let Some(step) = replay.next_step()? {
        let at = step.ktime();
        if at.zip(to).is_some_and(|(at, to)| at > to) {
            break;
        }
        feed(&mut tracker, &step);
        // The clock moves after everything that came before it: the same places in every replay, whatever its speed.
        let RecordedStep::Advance(now) = step else { continue };
        if from.is_some_and(|from| now < from) {
            tracker.drain_notices();
            continue;
        }
        let clock = Instant::now();
        let due = pacer.due(now, clock);
        if due > clock {
            std::thread::sleep(due - clock);
        }
        if output::notices(&mut lines, &mut tracker, filter).context("writing to stdout")? == StreamState::Closed {
            return Ok(());
        }
    }
    if to.is_none() {
        tracker.finish();
    }
    // What the reader has not seen by now it does not want.
    let _ = output::notices(&mut lines, &mut tracker, filter).context("writing to stdout")?;
    output::warn(&playback::warnings(&args.file, &replay));
    Ok(())
}

/// From when to when to replay.
fn window(
    replay: &mut Replay,
    from: Option<&When>,
    to: Option<&When>,
    zone: &TimeZone,
) -> Result<(Option<Ktime>, Option<Ktime>)> {
    if from.is_none() && to.is_none() {
        return Ok((None, None));
    }
    let clock = replay.clock();
    let Some(span) = replay.span()? else {
        bail!("--from and --to need a file that can be searched and has events in it");
    };
    let at = |when: Option<&When>| when.map(|when| when.ktime(span, clock, zone));
    let (from, to) = (at(from), at(to));
    if from.zip(to).is_some_and(|(from, to)| from > to) {
        bail!("--from is later than --to");
    }
    if from.is_some_and(|from| from > span.last) {
        bail!("--from is later than the end of the recording, {}", clock.rfc3339(span.last));
    }
    Ok((from.filter(|from| *from > span.first), to))
}
