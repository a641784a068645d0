//! What happens, line by line, while it happens: for a terminal ([`text`]) or for a pipe ([`json`]).
//!
//! A stream ends where its reader does: a closed pipe is an outcome, not an error. Loss is told in the stream itself, when
//! it changes, so that a gap in the lines is never silent. Not for: totals and conclusions (`report`).

pub mod json;
pub mod text;

#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::str::FromStr;
use std::time::Duration;

use jiff::tz::TimeZone;

use tracer_core::clock::Clock;
use tracer_core::event::Ktime;
use tracer_core::tracker::snapshot::{Lost, Notice, NoticeKinds};

/// A pipe's reader should wait no longer than this: whoever drives a [`Stream`] calls [`Stream::flush`] at least as often.
pub const FLUSH_EVERY: Duration = Duration::from_millis(100);

/// Bytes collected before they are written without being asked for: one default pipe buffer.
const BUFFER: usize = 64 * 1024;

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    Transitions,
    Flows,
    Failures,
    All,
}

impl FromStr for StreamKind {
    type Err = UnknownStreamKind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "transitions" => Self::Transitions,
            "flows" => Self::Flows,
            "failures" => Self::Failures,
            "all" => Self::All,
            _ => return Err(UnknownStreamKind(text.to_owned())),
        })
    }
}

/// Not something that a stream can show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot stream {0:?}; choose transitions, flows, failures or all")]
pub struct UnknownStreamKind(String);

/// What was asked for. Loss is always told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamSelection {
    transitions: bool,
    flows: bool,
    failures: bool,
}

impl Default for StreamSelection {
    fn default() -> Self {
        [StreamKind::Flows, StreamKind::Failures].into_iter().collect()
    }
}

impl FromIterator<StreamKind> for StreamSelection {
    fn from_iter<T: IntoIterator<Item = StreamKind>>(wanted: T) -> Self {
        let mut selection = Self { transitions: false, flows: false, failures: false };
        for what in wanted {
            selection.transitions |= matches!(what, StreamKind::Transitions | StreamKind::All);
            selection.flows |= matches!(what, StreamKind::Flows | StreamKind::All);
            selection.failures |= matches!(what, StreamKind::Failures | StreamKind::All);
        }
        selection
    }
}

impl StreamSelection {
    /// The notices that have to be made for this.
    pub fn wanted(self) -> NoticeKinds {
        NoticeKinds { transitions: self.transitions, flows: self.flows, failures: self.failures, history: false }
    }

    pub fn wants(self, notice: &Notice) -> bool {
        match notice {
            Notice::StateChange(_) => self.transitions,
            Notice::FlowEnd(_) => self.flows,
            Notice::FailedConnect(_) => self.failures,
        }
    }
}

/// How lines are written.
#[derive(Clone, Debug)]
pub enum StreamFormat {
    Json,
    Text { colour: bool, width: usize, zone: TimeZone },
}

/// Whether anybody still reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a stream whose reader has gone should end"]
pub enum StreamState {
    Open,
    /// The reader closed its end. Nothing more is written.
    Closed,
}

/// Writes notices as lines.
#[derive(Debug)]
pub struct Stream<W> {
    out: W,
    format: StreamFormat,
    selection: StreamSelection,
    clock: Clock,
    /// Each line is written at once (a terminal), instead of in batches.
    by_line: bool,
    buffer: Vec<u8>,
    lost: Lost,
    closed: bool,
}

impl<W: Write> Stream<W> {
    /// `by_line` is for terminals; otherwise call [`Self::flush`] every [`FLUSH_EVERY`].
    pub fn new(out: W, format: StreamFormat, selection: StreamSelection, clock: Clock, by_line: bool) -> Self {
        let buffer = Vec::with_capacity(BUFFER);
        Self { out, format, selection, clock, by_line, buffer, lost: Lost::default(), closed: false }
    }

    /// The names of the columns; JSON lines have none.
    pub fn header(&mut self) -> io::Result<StreamState> {
        if let StreamFormat::Text { colour, width, .. } = self.format {
            self.put(&text::header(colour, width))
        } else {
            Ok(self.outcome())
        }
    }

    /// Writes `notice` if it was asked for.
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
    pub fn loss(&mut self, ktime: Ktime, lost: Lost) -> io::Result<StreamState> {
        if self.closed || lost == self.lost {
            return Ok(self.outcome());
        }
        self.lost = lost;
        let line = match &self.format {
            StreamFormat::Json => json::loss(ktime, lost, self.clock)?,
            StreamFormat::Text { colour, zone, .. } => text::loss(ktime, lost, self.clock, zone, *colour),
        };
        self.put(&line)
    }

    /// Hands everything to the reader.
    pub fn flush(&mut self) -> io::Result<StreamState> {
        if self.closed {
            return Ok(StreamState::Closed);
        }
        let written = self.out.write_all(&self.buffer).and_then(|()| self.out.flush());
        self.buffer.clear();
        match written {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.closed = true,
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
