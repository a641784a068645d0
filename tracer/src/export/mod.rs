//! Recordings for other programs: Parquet for fleets, JSON lines and CSV for everything else, Arrow for one another.
//!
//! Events are the rows of the recording; flows are what the tracker made of them, one row per connection that ended.
//! With [`redact::Redactor`] in between, neither holds an address, a name or a command line, and flows still join.
//!
//! Not for: choosing what to export or reading recordings (`run::export`).

pub mod flows;
mod lines;
pub mod redact;
pub mod table;
