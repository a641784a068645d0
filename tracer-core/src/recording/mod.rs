//! Recordings: files that hold what the tracker was fed, in the order in which it was fed.
//!
//! A recording holds facts only. The tracker that reads it draws the conclusions again, so a better tracker makes old
//! recordings better, and the same tracker makes the report that the live run printed. The file is an Arrow IPC file
//! with zstd buffers, which pandas, polars and DuckDB read as it is; `FORMAT.md` next to this module describes it for
//! analysts and says how a column is added.
//!
//! Each message carries a checksum, and no batch needs a later one: a file that was cut off is read up to there, a
//! batch that is damaged is passed over, and the reader says what is missing. The reader uses nothing before its checksum was right and allocates
//! no length before it was compared with a bound.
//!
//! Not for: deciding what to record or when (the binary's `run`), speed and positions of a replay ([`crate::replay`]),
//! or other formats (the binary's `export`).

mod batches;
mod column_builders;
mod column_readers;
mod decode;
mod detail;
mod encode;
pub mod enums;
mod frame;
mod frame_source;
pub mod header;
mod message;
mod reader;
mod schema;
#[cfg(test)]
mod tests;
pub mod writer;

pub use batches::BatchBuilder;
pub use header::RecordingHeader;
pub use reader::{BatchIndex, BatchPosition, ReadError, Reader, UnusedRows};
#[cfg(any(test, feature = "testing"))]
pub use writer::seal_for_tests;
pub use writer::{WriteError, Writer, Written, create};

/// The format version that is written. Every version ever released is read.
pub const VERSION: u32 = 4;

/// Rows of a batch that is read, at the most: what versions 1 and 2 wrote.
const MAX_ROWS: usize = 1 << 16;
/// Rows of a batch that is written: enough for zstd to find what repeats, few enough for the CPU's cache to hold a
/// column.
const BATCH_ROWS: usize = 1 << 14;
/// Bytes of text (command lines, lists of reserved ports) at which a batch ends early.
const MAX_TEXT: usize = 4 << 20;
/// Different addresses in the dictionary of an address column. A writer remembers 50 bytes of each and a reader 30.
/// Further addresses are written into `detail`.
const MAX_ADDRESSES: usize = 1 << 18;
/// Sockets in one list, which is of one namespace. A row takes 104 bytes: two million take 220 MB.
const MAX_SOCKETS: u64 = 2 << 20;
