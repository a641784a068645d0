//! Reports: one snapshot as text for people ([`text`]) or as JSON for machines ([`json`]).
//!
//! Text and JSON say the same, because both read the same [`Snapshot`](crate::tracker::snapshot::Snapshot); neither concludes
//! anything that is not in it. Not for: following events as they happen (`stream`), or colours and keys (`tui`).

pub mod check;
pub mod diff;
pub mod json;
pub mod text;

#[cfg(any(test, feature = "testing"))]
pub mod sample;
