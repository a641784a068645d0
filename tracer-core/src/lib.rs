//! portchurn without a host: events, the tracker, findings, filters, recordings and reports.
//!
//! ```text
//! records of the kernel --decode--> events --input--> tracker --> snapshot --> report (text, JSON), check, diff
//! recording             --replay--> the same steps --^
//! ```
//!
//! Bytes of the kernel become [`event::Event`]s ([`decode`]), a [`tracker::Tracker`] takes events and the time ([`input`]) and
//! yields a [`tracker::snapshot::Snapshot`], and every output is made from snapshots ([`report`]). Recordings hold what a
//! tracker was fed ([`recording`]); reading one ([`replay`], [`playback`]) feeds the same code as a live trace.
//!
//! For example, the worst destination of a recording, which is the first one of its snapshot:
//!
//! ```
//! use std::path::Path;
//!
//! use tracer_core::playback::{PlayWindow, play};
//! use tracer_core::series;
//!
//! let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/recording/samples/v3/clean.arrow");
//! let mut recording = series::open(&[path])?.into_iter().next().ok_or("no recording")?;
//! let played = play(&mut recording, None, PlayWindow::default())?;
//! for warning in &played.warnings {
//!     eprintln!("{warning}");
//! }
//! let snapshot = played.tracker.snapshot();
//! let worst = snapshot.destinations.first().ok_or("nobody connected")?;
//! println!("{}:{} held {} ports at once", worst.remote_addr, worst.remote_port, worst.ports.peak);
//! # assert_eq!((worst.remote_addr.to_string().as_str(), worst.remote_port, worst.ports.peak), ("10.66.0.2", 8443, 50));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! This crate knows no kernel, no terminal and no operating system, and prints nothing: it builds and tests anywhere. The
//! feature `testing` adds samples and generators for the tests and benches of this workspace.

#![deny(clippy::print_stderr)]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod clock;
pub mod damage;
pub mod decode;
pub mod errno;
pub mod event;
pub mod filter;
pub mod foreign_text;
pub mod host;
pub mod input;
pub mod layout;
pub mod model;
pub mod names;
pub mod playback;
pub mod recording;
pub mod replay;
pub mod report;
pub mod series;
pub mod step;
#[cfg(any(test, feature = "testing"))]
pub mod synthetic;
pub mod time_input;
pub mod tracker;
