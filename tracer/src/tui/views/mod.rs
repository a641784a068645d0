//! One module per page, and what surrounds and covers a page. They draw what the app holds and change nothing in it.
//!
//! Not for: which rows a table has (`rows`), what their cells say (`columns`).

pub mod destination;
pub mod failures;
pub mod findings;
pub mod flow;
pub mod header;
pub mod overlay;
pub mod overview;
mod table;
pub mod workload;
