//! Recordings for other programs: Parquet for fleets, JSON lines and CSV for everything else, Arrow for one another.
//!
//! Events are the rows of the recording. Flows are the tracker's conclusions, one row per connection that ended. With
//! [`redact::Redactor`] in between, neither holds an address, a name or a command line, and rows of one flow still have
//! equal values.
//!
//! Not for: choosing what to export or reading recordings (`run::export`).

pub mod flows;
mod lines;
pub mod redact;
pub mod table;
