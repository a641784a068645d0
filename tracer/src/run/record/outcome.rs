//! What a recording has come to.

use std::path::PathBuf;

use tracer_core::recording::{WriteError, Written};

/// What a recorder leaves behind.
#[derive(Debug, Default)]
pub struct RecordingOutcome {
    /// Files that exist, oldest first, and what is in them; empty if a flight recorder had nothing to keep.
    pub files: Vec<(PathBuf, Written)>,
    /// What ended the recording before its time.
    pub trouble: Option<WriteError>,
    /// A flight recorder held less than it was asked to, because its memory was full.
    pub cut_short: bool,
    /// Files of a rotation that were removed before their time, because the disk was full.
    pub made_room: u32,
}
