//! What a recording says about itself before its first event.
//!
//! Written once, as JSON, into the metadata of the file's schema. These are types of the file, not of the program: a field of the
//! program may be renamed, one of these may not. Not for: anything that changes while recording; that is an event.

use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::event::Ktime;

/// The first message of a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Header {
    /// `portchurn 0.1.0`.
    pub tool: String,
    pub anchor: Anchor,
    /// `CLOCK_MONOTONIC` nanoseconds when observation began.
    pub begin_ns: u64,
    pub host: Host,
    pub watch: Watch,
    /// True of a file that starts in the middle of a trace: a later one of a rotation, or a flight recorder's.
    pub continued: bool,
}

/// This `CLOCK_MONOTONIC` was that wall time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Anchor {
    pub ktime_ns: u64,
    pub unix_ns: i64,
}

/// Where it was recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Host {
    pub hostname: Option<String>,
    pub kernel: Option<String>,
    pub boot_id: Option<String>,
    pub tier: Option<String>,
    pub degraded: Vec<Degraded>,
}

/// What could not be watched there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Degraded {
    pub what: String,
    pub why: String,
    pub lost: String,
}

/// How the live run looked at the events; a replay looks the same way unless asked otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Watch {
    /// What made processes one workload: a value of `--by`.
    pub by: String,
    pub time_wait_observed: bool,
    pub calls_observed: bool,
    pub searches_observed: bool,
    pub knobs: Knobs,
}

/// Remedies that the recorded kernel had.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Knobs {
    pub tw_reuse_delay: bool,
    pub ip_local_port_range_sockopt: bool,
    pub port_step_width: bool,
    pub kernel: String,
}

impl Header {
    pub fn clock(&self) -> Clock {
        Clock::new(Ktime(self.anchor.ktime_ns), self.anchor.unix_ns)
    }

    /// What has to be added to a `CLOCK_MONOTONIC` reading to get nanoseconds since 1970.
    pub fn offset(&self) -> i64 {
        self.anchor.unix_ns.wrapping_sub_unsigned(self.anchor.ktime_ns)
    }
}
