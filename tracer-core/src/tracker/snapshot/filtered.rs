//! What a filter has left out of a snapshot.

use std::sync::Arc;

use serde::Serialize;

/// The filter that a snapshot is inside of, and what is outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AppliedFilter {
    /// As the user typed it.
    pub text: Arc<str>,
    /// What was left out.
    pub outside: Outside,
    /// Sentences on names in the filter that nothing in the whole trace has.
    pub not_seen: Vec<String>,
}

/// How much a filter leaves out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outside {
    /// Findings about something outside.
    pub findings: u64,
    /// Workloads that do nothing inside.
    pub workloads: u64,
    /// Destinations that nothing inside connects to.
    pub destinations: u64,
    /// Attempts to connect.
    pub connects: u64,
    /// Of these, failed for any reason.
    pub failed: u64,
    /// Of these, failed for lack of a port.
    pub failed_without_port: u64,
}
