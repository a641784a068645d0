//! Where a trace was taken: the host, what could not be watched on it, and which remedies its kernel has.
//!
//! The values are strings and flags, because the live side (or the header of a recording) fills them once and the views only show
//! them. Not for: deciding anything.

use serde::{Deserialize, Serialize};

use crate::foreign_text;

/// Facts about the host of a trace. `None` = unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// `/proc/sys/kernel/hostname`.
    pub hostname: Option<String>,
    /// Release, as `uname -r` has it.
    pub kernel: Option<String>,
    /// `/proc/sys/kernel/random/boot_id`: two traces with the same one share a monotonic clock.
    pub boot_id: Option<String>,
    /// How state transitions were seen: `exact`, `tracepoint` or `classic`.
    pub tier: Option<String>,
    /// What could not be watched.
    pub degraded: Vec<Degradation>,
}

/// Something that a trace does without.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Degradation {
    /// The hook or the fact that is missing, e.g. `tracing of TIME_WAIT`.
    pub what: String,
    /// Why, and what would give it, e.g. `fentry refused: lockdown=integrity`.
    pub why: String,
    /// What the reports cannot say without it.
    pub lost: String,
}

impl Degradation {
    /// `what` is missing because of `why`, and `lost` cannot be said without it. They may quote paths and names: they are cleaned here.
    pub fn new(what: impl Into<String>, why: impl Into<String>, lost: impl Into<String>) -> Self {
        let clean = |text: String| foreign_text::clean(&text).into_owned();
        Self { what: clean(what.into()), why: clean(why.into()), lost: clean(lost.into()) }
    }
}

/// What the host's kernel offers against a lack of ports. Advice never names a knob that is absent here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Knobs {
    /// `net.ipv4.tcp_tw_reuse_delay`.
    pub tw_reuse_delay: bool,
    /// The socket option `IP_LOCAL_PORT_RANGE`.
    pub ip_local_port_range_sockopt: bool,
    /// `net.ipv4.ip_local_port_step_width`.
    pub port_step_width: bool,
    /// Release (`6.18.44`), for the reader of advice that depends on it.
    pub kernel: String,
}
