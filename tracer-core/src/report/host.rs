//! Where a trace was taken and what could not be watched there.
//!
//! Plain strings, because they are filled once by whoever knows the host (or by a recording of another one) and are only
//! ever shown. Not for: deciding anything.

use serde::{Deserialize, Serialize};

/// Facts about the host of a trace. `None` = unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    pub hostname: Option<String>,
    /// Release, as `uname -r` has it.
    pub kernel: Option<String>,
    /// `/proc/sys/kernel/random/boot_id`: two traces with the same one share a monotonic clock.
    pub boot_id: Option<String>,
    /// `exact` or `tracepoint`.
    pub tier: Option<String>,
    pub degraded: Vec<Degradation>,
}

/// Something that this host did not allow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Degradation {
    /// What is missing, e.g. `TIME_WAIT hooks`.
    pub what: String,
    /// Why, e.g. `fentry refused: lockdown=integrity`.
    pub why: String,
    /// What cannot be known without it.
    pub lost: String,
}
