//! portchurn as a library: event sources, the tracker, and what reads its snapshots.
//!
//! One direction: kernel records -> [`event`] -> [`tracker`] -> [`tracker::snapshot`] -> views. `cargo xtask layers` checks it.

pub mod clock;
#[cfg(feature = "live")]
pub mod demo;
pub mod event;
pub mod filter;
pub mod names;
#[cfg(feature = "live")]
pub mod probe;
pub mod report;
pub mod source;
#[cfg(feature = "live")]
mod sys;
pub mod tracker;
