//! What the tracker needs to know beside events.

use super::findings::Thresholds;
use super::snapshot::NoticeKinds;
use super::workload::By;
use crate::host::Knobs;

/// How the tracker works, and what it may rely on.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// What workloads are named after.
    pub by: By,
    /// From which values on something is a finding.
    pub thresholds: Thresholds,
    /// Settings of the host that advice depends on.
    pub knobs: Knobs,
    /// `TIME_WAIT` begins and ends come as events; otherwise they are inferred.
    pub time_wait_observed: bool,
    /// Failed system calls come as events and confirm or correct what transitions say.
    pub calls_observed: bool,
    /// The end of each port search comes as an event.
    pub searches_observed: bool,
    /// Which notices to produce, and whether to keep the history that [`super::Tracker::details`] shows.
    pub notices: NoticeKinds,
}
