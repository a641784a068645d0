//! Where live events come from: the kernel of this host.

pub mod baseline;
pub mod ring_reader;
pub mod sock_diag;

use bytes::Bytes;
use tracer_core::event::{Event, Ktime};

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
