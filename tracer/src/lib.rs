//! portchurn as a library: event sources, the tracker, and what reads its snapshots.
//!
//! One direction: kernel records -> [`event`] -> [`tracker`] -> [`tracker::snapshot`] -> views. `cargo xtask layers` checks it.

pub mod cli;
pub mod clock;
#[cfg(feature = "live")]
pub mod demo;
pub mod event;
pub mod export;
pub mod filter;
mod layout;
pub mod names;
#[cfg(feature = "live")]
pub mod probe;
pub mod recording;
pub mod report;
pub mod run;
pub mod source;
pub mod stream;
#[cfg(feature = "live")]
mod sys;
pub mod tracker;
pub mod tui;
