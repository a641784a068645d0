//! What a recording says about itself before its first event.
//!
//! The header is written once, as JSON, into the metadata of the file's schema. These are types of the file, not of the
//! program: a field of the program may be renamed, a field of these may not. `From` converts both ways.
//!
//! Not for: facts that change while recording. These are events.

use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::event::Ktime;
use crate::host::{Degradation, HostFacts, Knobs};
use crate::tracker::Config;

/// The header of a recording.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordingHeader {
    /// The program that wrote the file: `portchurn 0.1.0`.
    pub tool: String,
    /// The anchor of the recording's clock.
    pub anchor: Anchor,
    /// `CLOCK_MONOTONIC` nanoseconds when observation began.
    pub begin_ns: u64,
    /// The host that was traced.
    pub host: RecordedHost,
    /// How the live tracker was set up.
    pub watch: RecordedConfig,
    /// The file starts in the middle of a trace: it is a later file of a rotation, or a flight recorder's.
    pub continued: bool,
    /// The file was cut out of another one: what is recorded before this instant (`CLOCK_MONOTONIC` nanoseconds) tells what was open then,
    /// and is not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_ns: Option<u64>,
    /// What made a flight recorder write the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<RecordedTrigger>,
}

/// What made a flight recorder write a file, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordedTrigger {
    /// A value of `--on`, or `signal`.
    pub what: String,
    /// `CLOCK_MONOTONIC` nanoseconds.
    pub ktime_ns: u64,
}

/// One instant on two clocks, from which all wall times of a recording follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Anchor {
    /// The instant in `CLOCK_MONOTONIC` nanoseconds.
    pub ktime_ns: u64,
    /// The same instant in nanoseconds since 1970.
    pub unix_ns: i64,
}

/// The host that was traced: the file's form of [`HostFacts`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RecordedHost {
    /// [`HostFacts::hostname`].
    pub hostname: Option<String>,
    /// [`HostFacts::kernel`].
    pub kernel: Option<String>,
    /// [`HostFacts::boot_id`].
    pub boot_id: Option<String>,
    /// [`HostFacts::tier`].
    pub tier: Option<String>,
    /// [`HostFacts::degraded`].
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
    /// [`Degradation::what`].
    pub what: String,
    /// [`Degradation::why`].
    pub why: String,
    /// [`Degradation::lost`].
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
    /// [`Config::time_wait_observed`].
    pub time_wait_observed: bool,
    /// [`Config::calls_observed`].
    pub calls_observed: bool,
    /// [`Config::searches_observed`].
    pub searches_observed: bool,
    /// [`Config::knobs`].
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

/// Thresholds and notices are no part of a recording: the result has the defaults. So has a `by` that this version does
/// not know.
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
    /// [`Knobs::tw_reuse_delay`].
    pub tw_reuse_delay: bool,
    /// [`Knobs::ip_local_port_range_sockopt`].
    pub ip_local_port_range_sockopt: bool,
    /// [`Knobs::port_step_width`].
    pub port_step_width: bool,
    /// [`Knobs::kernel`].
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
    /// The clock of the recording.
    pub fn clock(&self) -> Clock {
        Clock::new(Ktime(self.anchor.ktime_ns), self.anchor.unix_ns)
    }

    /// `CLOCK_MONOTONIC` nanoseconds plus this are nanoseconds since 1970.
    pub fn offset(&self) -> i64 {
        self.anchor.unix_ns.wrapping_sub_unsigned(self.anchor.ktime_ns)
    }
}
