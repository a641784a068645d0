//! What commands share when they print: stdout, colours, widths, and a reader that closes the pipe.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::{Context as _, Result};
use jiff::tz::TimeZone;

use crate::cli::OutputFormat;
use crate::stdio::{reader_has_gone, say};
use crate::stream::{Stream, StreamFormat, StreamState};
use tracer_core::clock::Clock;
use tracer_core::filter::{self, Filter};
use tracer_core::host::HostFacts;
use tracer_core::report::json::Report;
use tracer_core::report::text;
use tracer_core::tracker::Tracker;
use tracer_core::tracker::snapshot::Snapshot;

/// Columns of a line where stdout is no terminal.
const PIPE_COLUMNS: usize = 120;

/// Prints a report.
///
/// # Errors
/// stdout could not be written to.
pub fn report(snapshot: &Snapshot, host: &HostFacts, clock: &Clock, format: OutputFormat) -> Result<()> {
    let rendered = match format {
        OutputFormat::Json => Report::new(snapshot, host, clock).to_json().context("serialising the report")?,
        OutputFormat::Text => text::render(snapshot, host, clock, &style()),
    };
    out(&rendered)
}

/// Prints a text. A reader that has closed the pipe is no error.
///
/// # Errors
/// stdout could not be written to.
pub fn out(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if reader_has_gone(&error) => Ok(()),
        result => result.context("writing to stdout"),
    }
}

/// Prints on stderr what of a recording could not be read.
pub fn warn(warnings: &[String]) {
    for warning in warnings {
        say(warning);
    }
}

/// How reports look on this stdout.
pub fn style() -> text::Style {
    text::Style { colour: colour(), unicode: false, zone: TimeZone::system() }
}

/// How lines should look on this stdout.
pub fn stream_format(format: OutputFormat) -> StreamFormat {
    match format {
        OutputFormat::Json => StreamFormat::Json,
        OutputFormat::Text => StreamFormat::Text { colour: colour(), width: width(), zone: TimeZone::system() },
    }
}

/// Are there colours on this stdout? Only on a terminal, and not if `NO_COLOR` is set (<https://no-color.org>).
pub fn colour() -> bool {
    let spared = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    io::stdout().is_terminal() && !spared && !dumb
}

/// Columns of a line: `COLUMNS` of the environment, else those of the terminal.
pub fn width() -> usize {
    let asked = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    asked.or_else(terminal_columns).filter(|&columns| columns > 0).unwrap_or(PIPE_COLUMNS)
}

/// Columns of the terminal that stdout is; `None` if stdout is none or its size is unknown.
fn terminal_columns() -> Option<usize> {
    let size = io::stdout().is_terminal().then(crossterm::terminal::window_size)?.ok()?;
    Some(usize::from(size.columns))
}

/// Says on stderr which names in the filter nothing has that the tracker has seen.
pub fn note_names_not_seen(tracker: &Tracker, filter: Option<&Filter>) {
    let Some(filter) = filter else { return };
    for name in filter.names_not_seen(&tracker.snapshot()) {
        say(name);
    }
}

/// Prints the notices that the tracker has made since the last call.
///
/// # Errors
/// The output could not be written to.
pub fn notices<W: io::Write>(
    lines: &mut Stream<W>,
    tracker: &mut Tracker,
    filter: Option<&Filter>,
) -> io::Result<StreamState> {
    let (now, lost) = (tracker.now(), tracker.lost());
    for notice in filter::notices(tracker, filter) {
        if lines.notice(&notice)? == StreamState::Closed {
            return Ok(StreamState::Closed);
        }
    }
    // Callers come here with every input, at least ten times a second.
    if lines.loss(now, lost)? == StreamState::Closed {
        return Ok(StreamState::Closed);
    }
    lines.flush()
}
