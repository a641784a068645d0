//! What `portchurn` reports, parsed: `portchurn.report/1` and the JSON lines of `stream`.
//!
//! These types are written down a second time on purpose: with the tracer's own types a changed contract would go
//! unnoticed. Unknown fields are ignored, because the contract allows new ones; a missing field fails the test.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

/// Number of failed connects by the name of the failure.
pub type FailedCounts = BTreeMap<String, u64>;

#[derive(Clone, Debug, Deserialize)]
pub struct ParsedReport {
    pub schema: String,
    pub events: ReportedEvents,
    pub workloads: Vec<ReportedWorkload>,
    pub destinations: Vec<ReportedDestination>,
    pub attributions: Vec<ReportedAttribution>,
    pub findings: Vec<ReportedFinding>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ReportedFinding {
    pub id: String,
    pub summary: String,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ReportedEvents {
    pub read: u64,
    pub lost: ReportedLoss,
    pub skipped: u64,
    pub evicted: u64,
    pub repaired: u64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct ReportedLoss {
    pub ring_full: u64,
    pub missed_runs: u64,
    pub other_runs: u64,
    pub recorder: u64,
}

impl ReportedLoss {
    /// Events that are certainly lost. Not `other_runs`, an upper bound: nearly all skipped runs were for timers that
    /// are not TCP's, and a record that is really lost shows in the counts.
    pub fn total(&self) -> u64 {
        self.ring_full + self.missed_runs + self.recorder
    }
}

#[derive(Clone, Debug, Deserialize)]
pub struct ReportedWorkload {
    pub name: String,
    pub comm: Option<String>,
    pub netns: Vec<u32>,
    pub pids: Vec<ReportedProcess>,
    pub connects: u64,
    pub established: u64,
    pub failed: FailedCounts,
    pub accepted: u64,
    pub time_wait: ReportedTimeWait,
    pub close_wait: ReportedCloseWait,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ReportedProcess {
    /// `None` if unknown.
    pub pid: Option<u32>,
    pub cmdline: Option<String>,
    pub connects: u64,
    pub failed: FailedCounts,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ReportedDestination {
    pub netns: u32,
    pub local_addr: IpAddr,
    pub remote_addr: IpAddr,
    pub remote_port: u16,
    pub ports: ReportedPorts,
    pub connects: u64,
    pub established: u64,
    pub failed: FailedCounts,
    pub port_search_ms: ReportedDurations,
    pub port_search_recent_ms: Option<f64>,
    pub port_search_quickest_ms: Option<f64>,
    pub holders: Vec<ReportedHolder>,
    pub victims: Vec<ReportedVictim>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ReportedPorts {
    pub range: Option<(u16, u16)>,
    pub capacity: Option<u32>,
    pub in_use: u32,
    pub peak: u32,
    pub outside_range: u32,
    pub contradictions: u64,
    pub by_state: BTreeMap<String, u32>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ReportedHolder {
    pub workload: String,
    pub ports: u32,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ReportedVictim {
    pub workload: String,
    pub failed: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ReportedAttribution {
    pub workload: String,
    /// `None` if unknown.
    pub pid: Option<u32>,
    pub comm: String,
    pub netns: u32,
    pub local_addr: IpAddr,
    pub remote_addr: IpAddr,
    pub remote_port: u16,
    pub connects: u64,
    pub established: u64,
    pub failed: FailedCounts,
    pub active_closes: u64,
    pub time_wait: ReportedTimeWait,
    pub close_wait: ReportedCloseWait,
    pub lifetime_ms: ReportedDurations,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ReportedTimeWait {
    pub entered: u64,
    pub now: u64,
    pub peak: u64,
    pub reused: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ReportedCloseWait {
    pub now: u64,
    pub peak: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub struct ReportedDurations {
    pub count: u64,
    pub min: Option<f64>,
    pub mean: Option<f64>,
    pub max: Option<f64>,
}

impl ParsedReport {
    /// Asserts that nothing is lost, which exact comparisons need.
    ///
    /// # Panics
    ///
    /// If the tracer lost or skipped an event.
    pub fn assert_complete(&self) {
        assert_eq!(self.schema, "portchurn.report/1");
        assert_eq!(self.events.lost.total(), 0, "{:?}", self.events.lost);
        assert_eq!((self.events.skipped, self.events.evicted), (0, 0), "skipped, evicted");
    }

    /// The attributions of this namespace, with passive sides, which have no connects.
    pub fn attributions(&self, netns: u32) -> impl Iterator<Item = &ReportedAttribution> {
        self.attributions.iter().filter(move |entry| entry.netns == netns)
    }

    /// Occupancy of one destination by state, without zeros.
    pub fn occupancy(&self, netns: u32, remote: SocketAddr) -> BTreeMap<String, u32> {
        let mut states = BTreeMap::new();
        for entry in self.destinations.iter().filter(|entry| {
            entry.netns == netns && entry.remote_addr == remote.ip() && entry.remote_port == remote.port()
        }) {
            for (state, count) in entry.ports.by_state.iter().filter(|(_, count)| **count > 0) {
                *states.entry(state.clone()).or_default() += count;
            }
        }
        states
    }
}

/// One line of `stream --json`. The fields that only some types have are optional.
#[derive(Clone, Debug, Deserialize)]
pub struct StreamLine {
    #[serde(rename = "type")]
    pub kind: String,
    pub ktime_ns: Option<u64>,
    pub netns: Option<u32>,
    pub local_addr: Option<IpAddr>,
    pub local_port: Option<u16>,
    pub remote_addr: Option<IpAddr>,
    pub remote_port: Option<u16>,
    pub pid: Option<u32>,
    pub comm: Option<String>,
    pub workload: Option<String>,
    pub reason: Option<String>,
    pub tid: Option<u32>,
    pub opened: Option<String>,
    pub ended: Option<String>,
    pub lifetime_ms: Option<f64>,
    pub connect_ms: Option<f64>,
    pub time_wait: Option<bool>,
    pub repaired: Option<bool>,
    pub old: Option<String>,
    pub new: Option<String>,
    pub ring_full: Option<u64>,
    pub missed_runs: Option<u64>,
    pub id: Option<String>,
    pub state: Option<String>,
}

impl StreamLine {
    pub fn local(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.local_addr?, self.local_port?))
    }

    pub fn remote(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.remote_addr?, self.remote_port?))
    }
}
