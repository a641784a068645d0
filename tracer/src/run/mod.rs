//! Runs a command: threads, bounded channels, signals, privileges.
//!
//! ```text
//! reader (ring buffer) --inputs--> tracker (sole owner, also formats) --> stdout
//! baseline (sock_diag) --facts---> reader, which orders them behind the records that came before
//! signals (tokio) -> stop; main: waits for it, then drain -> last word
//! ```

pub mod check;
pub mod demo;
pub mod diff;
pub mod doctor;
pub mod export;
pub mod info;
mod knobs;
mod output;
mod privileges;
pub mod record;
mod recordings;
pub mod replay_lines;
pub mod report;
mod session;
mod signals;
mod stop;
pub mod stream;
mod tracker_thread;
pub mod version;
pub mod view;

pub use session::{FinishedTrace, LiveTrace, StartError};
