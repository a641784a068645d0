//! Runs a command: threads, bounded channels, signals, privileges.
//!
//! ```text
//! reader (ring buffer) --batches--> tracker (sole owner, also formats) --> stdout
//! baseline (sock_diag) --facts----> reader, which orders them behind the records that came before
//! main: signals and timers (tokio), then stop -> drain -> last word
//! ```

pub mod check;
pub mod demo;
pub mod diff;
pub mod doctor;
pub mod export;
mod output;
mod privileges;
pub mod record;
pub mod replay;
mod session;
mod signals;
pub mod stderr_log;
pub mod times;
mod tracker_thread;
pub mod view;

use std::path::{Path, PathBuf};

use anyhow::Result;

pub use session::{FinishedTrace, LiveTrace, StartError};

use crate::cli::ReportArgs;
use tracer_core::filter::Filter;
use tracer_core::tracker::Tracker;

/// `portchurn report`: of a recording, or of a live trace until the time is up or a signal comes.
///
/// # Errors
/// The trace could not start, the recording not be read, or the report not be written.
pub fn report(args: &ReportArgs, file: Option<&Path>, filter: Option<&Filter>) -> Result<()> {
    let (mut snapshot, host, clock) = match file {
        Some(file) => {
            let played = output::play(file, args.trace.by)?;
            (played.tracker.snapshot(), played.host, played.clock)
        }
        None => live_report(args)?,
    };
    if let Some(filter) = filter {
        filter.retain(&mut snapshot);
    }
    output::report(&snapshot, &host, &clock, args.json)
}

type Concluded = (tracer_core::tracker::snapshot::Snapshot, tracer_core::host::HostFacts, tracer_core::clock::Clock);

fn live_report(args: &ReportArgs) -> Result<Concluded> {
    use std::io::{self, IsTerminal as _};
    use std::ops::ControlFlow;

    let live = LiveTrace::start(&args.trace, tracer_core::tracker::snapshot::NoticeKinds::default())?;
    live.ready();
    if io::stderr().is_terminal() {
        eprintln!("portchurn: tracing for {:?}; Ctrl-C ends it early and prints the report", args.duration);
    }
    let clock = live.clock;
    let finished = live.run(Some(args.duration), None, &mut |_: &mut Tracker| ControlFlow::Continue(()))?;
    Ok((finished.tracker.snapshot(), finished.host, clock))
}

/// The recording that the first word may name, and the words of the filter. A word is a file if it is `-`, exists, or holds
/// nothing that a filter would.
pub fn split_file(words: &[String]) -> (Option<PathBuf>, &[String]) {
    let Some((first, rest)) = words.split_first() else { return (None, words) };
    let filter_like = first.contains('=') || first.starts_with('(') || first == "not";
    let named = first == "-" || !filter_like || std::fs::metadata(first).is_ok();
    if named { (Some(first.into()), rest) } else { (None, words) }
}

/// `portchurn stream`: one line per notice.
///
/// # Errors
/// The trace could not start ([`StartError`]) or a line not be written.
pub fn stream(args: &crate::cli::StreamArgs, filter: Option<&Filter>) -> Result<()> {
    use std::io::{self, IsTerminal as _};
    use std::ops::ControlFlow;

    use anyhow::Context as _;

    use crate::stream::{Stream, StreamFormat, StreamSelection, StreamState};

    let selection: StreamSelection =
        args.what.map_or_else(StreamSelection::default, |what| [what].into_iter().collect());
    let live = LiveTrace::start(&args.trace, selection.wanted())?;
    let format = if args.json {
        StreamFormat::Json
    } else {
        StreamFormat::Text { colour: output::colour(), width: output::width(), zone: jiff::tz::TimeZone::system() }
    };
    let mut lines = Stream::new(io::stdout(), format, selection, live.clock, io::stdout().is_terminal());
    let mut failure = lines.header().err();
    live.ready();
    live.run(args.duration, None, &mut |tracker: &mut Tracker| {
        let outcome = match &failure {
            None => output::notices(&mut lines, tracker, filter),
            Some(_) => return ControlFlow::Break(()),
        };
        match outcome {
            Ok(StreamState::Open) => ControlFlow::Continue(()),
            Ok(StreamState::Closed) => ControlFlow::Break(()),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    failure.map_or(Ok(()), |error| Err(error).context("writing to stdout"))
}
