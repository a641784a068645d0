//! Runs a command: threads, bounded channels, signals, privileges.
//!
//! ```text
//! reader (ring buffer) --batches--> tracker (sole owner, also formats) --> stdout
//! baseline (sock_diag) --facts----> reader, which orders them behind the records that came before
//! main: signals and timers (tokio), then stop -> drain -> last word
//! ```

pub mod demo;
pub mod doctor;
pub mod log;
mod privileges;
mod session;
mod signals;
pub mod view;

use std::io::{self, IsTerminal as _, Write as _};
use std::ops::ControlFlow;

use anyhow::{Context as _, Result};
use jiff::tz::TimeZone;

pub use session::{Finished, Live, StartError};

use crate::cli::{ReportArgs, StreamArgs};
use crate::clock::Clock;
use crate::filter::{Filter, Subject};
use crate::report::json::Report;
use crate::report::text;
use crate::stream::{Format, Outcome, Selection, Stream};
use crate::tracker::Tracker;
use crate::tracker::snapshot::{Notice, Snapshot, Wanted};

/// Lines are this wide where the reader is no terminal.
const PIPE_COLUMNS: usize = 120;

/// `portchurn report`: trace until the time is up or a signal comes, then print.
///
/// # Errors
/// The trace could not start ([`StartError`]) or the report not be written.
pub fn report(args: &ReportArgs, filter: Option<&Filter>) -> Result<()> {
    let live = Live::start(&args.trace, Wanted::default())?;
    live.ready();
    if io::stderr().is_terminal() {
        eprintln!("portchurn: tracing for {:?}; Ctrl-C ends it early and prints the report", args.duration);
    }
    let clock = live.clock;
    let finished = live.run(Some(args.duration), |_| ControlFlow::Continue(()))?;
    let mut snapshot = finished.tracker.snapshot();
    if let Some(filter) = filter {
        retain(&mut snapshot, filter);
    }
    print_report(&snapshot, &finished, &clock, args.json)
}

fn print_report(snapshot: &Snapshot, finished: &Finished, clock: &Clock, json: bool) -> Result<()> {
    let rendered = if json {
        Report::new(snapshot, &finished.host, clock).to_json().context("serialising the report")?
    } else {
        text::render(snapshot, &finished.host, clock, &style())
    };
    let mut out = io::stdout().lock();
    match out.write_all(rendered.as_bytes()).and_then(|()| out.flush()) {
        // Whoever read it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("writing the report to stdout"),
    }
}

/// How text should look on this stdout.
fn style() -> text::Style {
    text::Style { colour: colour(), unicode: false, zone: TimeZone::system() }
}

/// Colours on a terminal that has not asked to be spared (<https://no-color.org>).
fn colour() -> bool {
    let spared = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stdout().is_terminal() && !spared && !dumb
}

/// Leaves only what the filter matches.
fn retain(snapshot: &mut Snapshot, filter: &Filter) {
    let workloads = std::mem::take(&mut snapshot.workloads);
    let matches = |subject: Subject<'_>, workload: &str| {
        let known = workloads.iter().find(|found| &*found.name == workload);
        filter.matches(&known.map_or(subject, |found| subject.with_workload(found)))
    };
    snapshot.attributions.retain(|attribution| matches(Subject::from(attribution), &attribution.workload));
    snapshot.destinations.retain(|destination| {
        filter.matches(&Subject::from(destination))
            || snapshot.attributions.iter().any(|attribution| {
                (attribution.netns, attribution.local_addr, attribution.remote_addr, attribution.remote_port)
                    == (destination.netns, destination.local_addr, destination.remote_addr, destination.remote_port)
            })
    });
    let named: Vec<_> = snapshot.attributions.iter().map(|attribution| attribution.workload.clone()).collect();
    snapshot.workloads = workloads
        .into_iter()
        .filter(|workload| {
            named.contains(&workload.name) || filter.matches(&Subject::default().with_workload(workload))
        })
        .collect();
}

/// `portchurn stream`: one line per notice.
///
/// # Errors
/// The trace could not start ([`StartError`]) or a line not be written.
pub fn stream(args: &StreamArgs, filter: Option<&Filter>) -> Result<()> {
    let selection: Selection = args.what.map_or_else(Selection::default, |what| [what].into_iter().collect());
    let live = Live::start(&args.trace, selection.wanted())?;
    let terminal = io::stdout().is_terminal();
    let format = if args.json {
        Format::Json
    } else {
        Format::Text { colour: colour(), width: width(), zone: TimeZone::system() }
    };
    let mut lines = Stream::new(io::stdout(), format, selection, live.clock, terminal);
    let mut failure = lines.header().err();
    live.ready();
    live.run(args.duration, |tracker| {
        let outcome = match &failure {
            None => write_notices(&mut lines, tracker, filter),
            Some(_) => return ControlFlow::Break(()),
        };
        match outcome {
            Ok(Outcome::Open) => ControlFlow::Continue(()),
            Ok(Outcome::Closed) => ControlFlow::Break(()),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    failure.map_or(Ok(()), |error| Err(error).context("writing to stdout"))
}

fn write_notices<W: io::Write>(
    lines: &mut Stream<W>,
    tracker: &mut Tracker,
    filter: Option<&Filter>,
) -> io::Result<Outcome> {
    let (now, lost) = (tracker.now(), tracker.lost());
    for notice in tracker.drain_notices() {
        let subject = match &notice {
            Notice::FlowEnd(end) => Subject::from(end),
            Notice::FailedConnect(failed) => Subject::from(failed),
            Notice::StateChange(change) => Subject::from(change),
        };
        if filter.is_none_or(|filter| filter.matches(&subject)) && lines.notice(&notice)? == Outcome::Closed {
            return Ok(Outcome::Closed);
        }
    }
    // Called with every batch, which is at least every 20 ms.
    if lines.loss(now, lost)? == Outcome::Closed {
        return Ok(Outcome::Closed);
    }
    lines.flush()
}

/// Columns of the terminal, as the shell tells or the terminal itself.
fn width() -> usize {
    let asked = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    asked.or_else(crate::sys::terminal_columns).filter(|&columns| columns > 0).unwrap_or(PIPE_COLUMNS)
}
