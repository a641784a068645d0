//! Where events come from: the kernel of this host, or (elsewhere) a recording. Whoever consumes them cannot tell which.

#[cfg(feature = "live")]
pub mod baseline;
#[cfg(feature = "live")]
pub mod live;
pub mod replay;
#[cfg(feature = "live")]
pub mod sock_diag;
pub mod synthetic;

use bytes::Bytes;

use crate::event::{Event, Ktime};

/// `CLOCK_MONOTONIC`, the clock of records. It cannot fail on Linux; were it to, time would stand still, which every reader of a
/// batch survives.
#[cfg(feature = "live")]
pub fn now() -> Ktime {
    crate::clock::Clock::ktime_now().unwrap_or_default()
}

/// What one read of a source yields.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The source's clock before the batch was read: everything up to here is in this batch or an earlier one.
    pub now: Ktime,
    /// Records as the kernel wrote them, in ring-buffer order.
    pub records: Bytes,
    /// Facts that user space gathered, to be ingested after the records.
    pub facts: Vec<Event>,
}
