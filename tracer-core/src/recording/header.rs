//! What a recording says about itself before its first event.
//!
//! Written once, as JSON, into the metadata of the file's schema. These are types of the file, not of the program: a field of the
//! program may be renamed, one of these may not. `From` leads from one to the other, both ways. Not for: anything that changes while recording; that is an event.

use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::event::Ktime;
use crate::host::{Degradation, HostFacts, Knobs};
use crate::tracker::Config;

/// The first message of a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordingHeader {
    /// `portchurn 0.1.0`.
    pub tool: String,
    pub anchor: Anchor,
    /// `CLOCK_MONOTONIC` nanoseconds when observation began.
    pub begin_ns: u64,
    pub host: RecordedHost,
    pub watch: RecordedConfig,
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

/// The host that was traced: the file's form of [`HostFacts`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordedHost {
    pub hostname: Option<String>,
    pub kernel: Option<String>,
    pub boot_id: Option<String>,
    pub tier: Option<String>,
    pub degraded: Vec<RecordedDegradation>,
}

impl From<&HostFacts> for RecordedHost {
    fn from(host: &HostFacts) -> Self {
        let HostFacts { hostname, kernel, boot_id, tier, degraded } = host.clone();
        Self { hostname, kernel, boot_id, tier, degraded: degraded.into_iter().map(Into::into).collect() }
    }
}

impl From<&RecordedHost> for HostFacts {
    fn from(host: &RecordedHost) -> Self {
        let RecordedHost { hostname, kernel, boot_id, tier, degraded } = host.clone();
        Self { hostname, kernel, boot_id, tier, degraded: degraded.into_iter().map(Into::into).collect() }
    }
}

/// What could not be watched there: the file's form of [`Degradation`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordedDegradation {
    pub what: String,
    pub why: String,
    pub lost: String,
}

impl From<Degradation> for RecordedDegradation {
    fn from(Degradation { what, why, lost }: Degradation) -> Self {
        Self { what, why, lost }
    }
}

impl From<RecordedDegradation> for Degradation {
    fn from(RecordedDegradation { what, why, lost }: RecordedDegradation) -> Self {
        Self { what, why, lost }
    }
}

/// How the live tracker was set up; a replay sets up its own tracker the same way unless asked otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordedConfig {
    /// What made processes one workload: a value of `--by`.
    pub by: String,
    pub time_wait_observed: bool,
    pub calls_observed: bool,
    pub searches_observed: bool,
    pub knobs: RecordedKnobs,
}

impl From<&Config> for RecordedConfig {
    fn from(config: &Config) -> Self {
        Self {
            by: config.by.name().into(),
            time_wait_observed: config.time_wait_observed,
            calls_observed: config.calls_observed,
            searches_observed: config.searches_observed,
            knobs: RecordedKnobs::from(&config.knobs),
        }
    }
}

/// Thresholds and notices are no part of a recording: the result has the defaults. So has a `by` that this version does not know.
impl From<&RecordedConfig> for Config {
    fn from(recorded: &RecordedConfig) -> Self {
        Self {
            by: recorded.by.parse().unwrap_or_default(),
            knobs: Knobs::from(&recorded.knobs),
            time_wait_observed: recorded.time_wait_observed,
            calls_observed: recorded.calls_observed,
            searches_observed: recorded.searches_observed,
            ..Self::default()
        }
    }
}

/// Remedies that the recorded kernel had: the file's form of [`Knobs`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordedKnobs {
    pub tw_reuse_delay: bool,
    pub ip_local_port_range_sockopt: bool,
    pub port_step_width: bool,
    pub kernel: String,
}

impl From<&Knobs> for RecordedKnobs {
    fn from(knobs: &Knobs) -> Self {
        let Knobs { tw_reuse_delay, ip_local_port_range_sockopt, port_step_width, kernel } = knobs.clone();
        Self { tw_reuse_delay, ip_local_port_range_sockopt, port_step_width, kernel }
    }
}

impl From<&RecordedKnobs> for Knobs {
    fn from(knobs: &RecordedKnobs) -> Self {
        let RecordedKnobs { tw_reuse_delay, ip_local_port_range_sockopt, port_step_width, kernel } = knobs.clone();
        Self { tw_reuse_delay, ip_local_port_range_sockopt, port_step_width, kernel }
    }
}

impl RecordingHeader {
    pub fn clock(&self) -> Clock {
        Clock::new(Ktime(self.anchor.ktime_ns), self.anchor.unix_ns)
    }

    /// What has to be added to a `CLOCK_MONOTONIC` reading to get nanoseconds since 1970.
    pub fn offset(&self) -> i64 {
        self.anchor.unix_ns.wrapping_sub_unsigned(self.anchor.ktime_ns)
    }
}
