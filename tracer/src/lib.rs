//! portchurn as a library: event sources, the tracker, and what reads its snapshots.
//!
//! One direction: kernel records -> [`event`] -> [`tracker`] -> [`tracker::snapshot`] -> views. `cargo xtask layers` checks it.

pub mod clock;
pub mod event;
pub mod report;
pub mod stream;
pub mod tracker;
