//! One module per page, and what lies over them. They draw; what a page is and what its tables have is not theirs.

pub mod destination;
pub mod failures;
pub mod findings;
pub mod flow;
pub mod overlay;
pub mod overview;
pub mod workload;
