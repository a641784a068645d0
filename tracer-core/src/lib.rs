//! portchurn without a host: what events mean, however they came here.
//!
//! One direction: kernel records -> [`decode`] -> [`event`] -> [`input`] -> [`tracker`] -> [`tracker::snapshot`] -> [`report`].
//! Recordings are read ([`recording`], [`replay`], [`playback`]) and judged with the same code as a live trace.
//!
//! This crate knows no kernel, no terminal and no operating system: it builds and runs anywhere.

#![deny(clippy::print_stderr)]
#![forbid(unsafe_code)]

pub mod clock;
pub mod decode;
pub mod errno;
pub mod event;
pub mod filter;
pub mod host;
pub mod input;
pub mod layout;
pub mod names;
pub mod playback;
pub mod recording;
pub mod replay;
pub mod report;
#[cfg(any(test, feature = "testing"))]
pub mod synthetic;
pub mod time_input;
pub mod tracker;
