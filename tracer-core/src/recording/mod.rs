//! Evidence that survives: what the tracker was fed, in the order in which it was fed, in a file.
//!
//! Facts only. Conclusions are drawn again by the tracker that reads the file, so a better tracker makes old recordings better,
//! and the report from a recording is the report that the live run printed. The file is an Arrow IPC file with zstd
//! buffers (`FORMAT.md` next to this module describes it for analysts), readable by pandas, polars and DuckDB as it is.
//!
//! Each message carries a checksum and each batch stands for itself: a file that was cut off or damaged is read up to the damage,
//! and the reader says what is missing. Nothing is believed before its checksum was right, and no length is allocated before it was
//! compared with a bound.
//!
//! Not for: deciding what to record or when (`run`), speed and positions of a replay (`source::replay`), other formats (`export`).

mod batches;
mod column_builders;
mod column_readers;
mod decode;
mod detail;
mod encode;
pub mod enums;
mod frame;
pub mod header;
mod message;
mod reader;
mod schema;
#[cfg(test)]
mod tests;
pub mod writer;

pub use batches::BatchBuilder;
pub use header::RecordingHeader;
pub use reader::{BatchPosition, Damage, ReadError, Reader};
#[cfg(any(test, feature = "testing"))]
pub use writer::seal_for_tests;
pub use writer::{WriteError, Writer, Written, create};

use crate::event::{Event, Ktime};

/// The format version that is written. Every version ever released is read.
pub const VERSION: u32 = 3;

/// Rows of a batch that is read, at the most: what versions 1 and 2 wrote.
const MAX_ROWS: usize = 1 << 16;
/// Rows of a batch that is written: enough for zstd to find what repeats, few enough for the CPU's cache to hold a column.
const BATCH_ROWS: usize = 1 << 14;
/// Text of a batch (command lines, lists of reserved ports) at which it is cut early.
const MAX_TEXT: usize = 4 << 20;
/// Different addresses of one file, for each side. A writer remembers 50 bytes of each and a reader 30; whoever serves more clients
/// than this has their addresses in `detail`.
const MAX_ADDRESSES: usize = 1 << 18;
/// Sockets of one namespace in one list. A row of it takes 72 bytes: two million are the half of what a reader may use in all.
const MAX_SOCKETS: u64 = 2 << 20;

/// One thing that the tracker was fed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordedStep {
    Event(Event),
    /// So many records could not be decoded.
    Skipped(u64),
    /// The clock was moved on.
    Advance(Ktime),
}

impl RecordedStep {
    /// When it happened; `None` for what has no time of its own.
    pub fn ktime(&self) -> Option<Ktime> {
        Some(match self {
            Self::Advance(now) => *now,
            Self::Skipped(_) => return None,
            Self::Event(event) => match event {
                Event::Transition(event) => event.ktime,
                Event::TimeWaitStart(event) | Event::TimeWaitEnd(event) => event.ktime,
                Event::CallFailed(event) => event.ktime,
                Event::Accepted(event) | Event::Bound(event) | Event::Released(event) => event.ktime,
                Event::PortSearch(search) => search.ktime,
                Event::Process(facts) => facts.ktime,
                Event::Netns(facts) => facts.ktime,
                Event::ReservedPorts(ktime, ..) => *ktime,
                Event::Baseline(baseline) => baseline.ended,
                Event::Loss(counts) => counts.ktime,
            },
        })
    }
}
