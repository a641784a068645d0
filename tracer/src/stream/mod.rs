//! Failures, flows and transitions as they happen, one line each: for a terminal ([`text`]) or for a pipe ([`json`]).
//!
//! A reader that closes its end of the pipe ends the stream and is no error. The stream has a line for each change of the loss
//! counters, so that a gap in the lines is never silent. Not for: totals and conclusions (`report`).

pub mod json;
pub mod text;

#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::str::FromStr;
use std::time::Duration;

use jiff::tz::TimeZone;

use crate::stdio::reader_has_gone;
use tracer_core::clock::Clock;
use tracer_core::event::Ktime;
use tracer_core::tracker::snapshot::{Lost, Notice, NoticeKinds};

/// The longest that a line may wait in the buffer: the caller of a [`Stream`] calls [`Stream::flush`] at least this often.
pub const FLUSH_EVERY: Duration = Duration::from_millis(100);

/// Bytes that are collected before they are written without a flush: the size of a pipe's buffer (pipe(7)).
const BUFFER: usize = 64 * 1024;

/// A kind of lines, as the command line names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// Every state transition.
    Transitions,
    /// Flows that ended.
    Flows,
    /// Connects that failed.
    Failures,
    /// Findings that begin and end.
    Findings,
    /// All of these.
    All,
}

impl FromStr for StreamKind {
    type Err = UnknownStreamKind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "transitions" => Self::Transitions,
            "flows" => Self::Flows,
            "failures" => Self::Failures,
            "findings" => Self::Findings,
            "all" => Self::All,
            _ => return Err(UnknownStreamKind(text.to_owned())),
        })
    }
}

/// The text names no kind of lines.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot stream {0:?}; choose transitions, flows, failures, findings or all")]
pub struct UnknownStreamKind(String);

/// The kinds of lines that a stream has. Lines about loss are always among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent choices")]
pub struct StreamSelection {
    transitions: bool,
    flows: bool,
    failures: bool,
    findings: bool,
}

impl Default for StreamSelection {
    fn default() -> Self {
        [StreamKind::Flows, StreamKind::Failures, StreamKind::Findings].into_iter().collect()
    }
}

impl FromIterator<StreamKind> for StreamSelection {
    fn from_iter<T: IntoIterator<Item = StreamKind>>(wanted: T) -> Self {
        let mut selection = Self { transitions: false, flows: false, failures: false, findings: false };
        for what in wanted {
            selection.transitions |= matches!(what, StreamKind::Transitions | StreamKind::All);
            selection.flows |= matches!(what, StreamKind::Flows | StreamKind::All);
            selection.failures |= matches!(what, StreamKind::Failures | StreamKind::All);
            selection.findings |= matches!(what, StreamKind::Findings | StreamKind::All);
        }
        selection
    }
}

impl StreamSelection {
    /// The notices that the tracker has to make for these lines.
    pub fn wanted(self) -> NoticeKinds {
        NoticeKinds {
            transitions: self.transitions,
            flows: self.flows,
            failures: self.failures,
            findings: self.findings,
            history: false,
        }
    }

    /// True if the stream has a line for this notice.
    pub fn wants(self, notice: &Notice) -> bool {
        match notice {
            Notice::StateChange(_) => self.transitions,
            Notice::FlowEnd(_) => self.flows,
            Notice::FailedConnect(_) => self.failures,
            Notice::Finding(_) => self.findings,
        }
    }
}

/// How lines are written.
#[derive(Clone, Debug)]
pub enum StreamFormat {
    /// JSON lines.
    Json,
    /// Aligned lines for a terminal of `width` columns, with times in `zone`.
    Text {
        /// Write colours.
        colour: bool,
        /// Columns of the terminal.
        width: usize,
        /// Time zone of the times.
        zone: TimeZone,
    },
}

/// Whether the reader is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a stream without a reader should end"]
pub enum StreamState {
    /// It is, as far as the writes so far can tell.
    Open,
    /// It closed its end of the pipe. Nothing more is written.
    Closed,
}

/// Writes notices as lines to `W`.
#[derive(Debug)]
pub struct Stream<W> {
    out: W,
    format: StreamFormat,
    selection: StreamSelection,
    clock: Clock,
    /// Each line is written at once, instead of in batches.
    by_line: bool,
    buffer: Vec<u8>,
    /// As of the last line about loss.
    lost: Lost,
    closed: bool,
}

impl<W: Write> Stream<W> {
    /// A stream that has written nothing yet. `by_line` writes each line at once, for a terminal; without it, call
    /// [`Self::flush`] every [`FLUSH_EVERY`].
    pub fn new(out: W, format: StreamFormat, selection: StreamSelection, clock: Clock, by_line: bool) -> Self {
        let buffer = Vec::with_capacity(BUFFER);
        Self { out, format, selection, clock, by_line, buffer, lost: Lost::default(), closed: false }
    }

    /// Writes the names of the columns; JSON lines have none.
    ///
    /// # Errors
    /// Writing failed for another reason than a closed pipe.
    pub fn header(&mut self) -> io::Result<StreamState> {
        if let StreamFormat::Text { colour, width, .. } = self.format {
            self.put(&text::header(colour, width))
        } else {
            Ok(self.outcome())
        }
    }

    /// Writes `notice` if the stream has a line for it.
    ///
    /// # Errors
    /// Writing failed for another reason than a closed pipe.
    pub fn notice(&mut self, notice: &Notice) -> io::Result<StreamState> {
        if self.closed || !self.selection.wants(notice) {
            return Ok(self.outcome());
        }
        let line = match &self.format {
            StreamFormat::Json => json::notice(notice, self.clock)?,
            StreamFormat::Text { colour, width, zone } => text::notice(notice, self.clock, zone, *width, *colour),
        };
        self.put(&line)
    }

    /// Writes what was lost so far, if that has changed.
    ///
    /// # Errors
    /// Writing failed for another reason than a closed pipe.
    pub fn loss(&mut self, ktime: Ktime, lost: Lost) -> io::Result<StreamState> {
        let certain = lost.certain() != self.lost.certain();
        // Skipped runs beside the chain are rarely losses and go on all the time on a busy host: a line each time that they have doubled.
        let doubtful = lost.other_runs >= self.lost.other_runs.saturating_mul(2).max(1) && lost != self.lost;
        if self.closed || !(certain || doubtful) {
            return Ok(self.outcome());
        }
        self.lost = lost;
        let line = match &self.format {
            StreamFormat::Json => json::loss(ktime, lost, self.clock)?,
            StreamFormat::Text { colour, zone, .. } => text::loss(ktime, lost, self.clock, zone, *colour),
        };
        self.put(&line)
    }

    /// Writes all lines that wait in the buffer.
    ///
    /// # Errors
    /// Writing failed for another reason than a closed pipe.
    pub fn flush(&mut self) -> io::Result<StreamState> {
        if self.closed {
            return Ok(StreamState::Closed);
        }
        let written = self.out.write_all(&self.buffer).and_then(|()| self.out.flush());
        self.buffer.clear();
        match written {
            Ok(()) => {}
            Err(error) if reader_has_gone(&error) => self.closed = true,
            Err(error) => return Err(error),
        }
        Ok(self.outcome())
    }

    fn put(&mut self, line: &str) -> io::Result<StreamState> {
        if self.closed {
            return Ok(StreamState::Closed);
        }
        self.buffer.extend_from_slice(line.as_bytes());
        self.buffer.push(b'\n');
        if self.by_line || self.buffer.len() >= BUFFER { self.flush() } else { Ok(StreamState::Open) }
    }

    fn outcome(&self) -> StreamState {
        if self.closed { StreamState::Closed } else { StreamState::Open }
    }
}
