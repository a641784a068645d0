//! Conclusions from the numbers of a snapshot, and what would help.
//!
//! Pure: one snapshot in, findings out, no clock and no memory. Each finding has a stable id, one sentence with the numbers in it, the
//! facts behind it for machines, and advice that names only settings that this kernel has and that are not set yet. [`FindingId`]
//! lists what can be found.
//!
//! Not for: measuring. Where a [`Snapshot`] lacks a number, the findings that need it are left out.

mod advice;
mod behaviour;
mod exhaustion;
mod limits;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::snapshot::{Finding, FindingId, FindingSubject, Namespace, Severity, Snapshot};
use super::timing::TIME_WAIT;
use crate::event::{Addr, Endpoint, Ktime, Netns};
use crate::host::Knobs;

/// Findings of one id in one snapshot. A host that fails towards a thousand destinations has one problem, not a thousand: the
/// worst are listed, and the last of them says how many more there are.
const MAX_PER_ID: usize = 5;
/// How long an entry stays in `TIME_WAIT`.
const TIME_WAIT_SECONDS: f64 = TIME_WAIT.as_secs_f64();

/// The numbers from which on something is a finding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// Ports that run out within this many seconds: a quarter of an hour is time enough to look and act.
    pub soon_seconds: f64,
    /// Ports that run out within this many seconds are critical: no port in `TIME_WAIT` becomes free before.
    pub soon_critical_seconds: f64,
    /// Milliseconds of a slow port search: five times what one costs while ports are plenty. Ranges of some thousand ports stay below.
    pub search_slow_ms: f64,
    /// A search is slow if it takes this many times the quickest: at half of the range the cost rises by ten and more.
    pub search_slow_factor: f64,
    /// Share of the capacity that one workload keeps in `TIME_WAIT`: four such workloads fill it.
    pub churn_share: f64,
    /// The same as a warning: from half of the range on every connect() searches all even ports first, at ten times the cost.
    pub churn_warning_share: f64,
    /// Median lifetime of short connections, milliseconds: those that carry one request are shorter, pooled ones are not.
    pub short_lifetime_ms: f64,
    /// Age of a pooled connection, seconds: a single request does not take that long.
    pub long_lived_seconds: f64,
    /// Short connections per second beside a pool: below one, a pool that renews its connections looks the same.
    pub bypass_per_second: f64,
    /// Sockets in `CLOSE_WAIT` of one workload: a few are normal while programs react to the end of a connection.
    pub close_wait_count: u64,
    /// Age of the oldest of them, seconds: no program takes a minute to react.
    pub close_wait_seconds: f64,
    /// Ports in `FIN_WAIT2` towards one destination; fewer do not matter.
    pub fin_wait2_count: u32,
    /// Their share of the ports in use towards that destination.
    pub fin_wait2_share: f64,
    /// Half-open connections at one listener: the accept backlog that most programs ask for.
    pub syn_recv_count: u32,
    /// Share of the range that bind() and listen() take away from every destination.
    pub blocked_share: f64,
    /// Share of the connection-tracking table in use: the fifth that is left is one burst of new connections.
    pub conntrack_warning: f64,
    /// The same as critical: the next burst drops packets.
    pub conntrack_critical: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            soon_seconds: 900.0,
            soon_critical_seconds: 60.0,
            search_slow_ms: 0.25,
            search_slow_factor: 4.0,
            churn_share: 0.25,
            churn_warning_share: 0.5,
            short_lifetime_ms: 1_000.0,
            long_lived_seconds: 30.0,
            bypass_per_second: 1.0,
            close_wait_count: 16,
            close_wait_seconds: 60.0,
            fin_wait2_count: 100,
            fin_wait2_share: 0.2,
            syn_recv_count: 128,
            blocked_share: 0.1,
            conntrack_warning: 0.8,
            conntrack_critical: 0.95,
        }
    }
}

/// What every rule reads.
#[derive(Clone, Copy)]
struct Context<'a> {
    snapshot: &'a Snapshot,
    knobs: &'a Knobs,
    thresholds: &'a Thresholds,
}

impl Context<'_> {
    /// Seconds observed; never 0, so that rates are finite.
    fn window(&self) -> f64 {
        self.snapshot.now.seconds_since(self.snapshot.start).max(1.0)
    }

    fn namespace(&self, netns: Netns) -> Option<&Namespace> {
        self.snapshot.namespaces.iter().find(|namespace| namespace.netns == netns)
    }

    /// The instant `seconds` ago, not before the first one observed.
    fn ago(&self, seconds: f64) -> Ktime {
        let age = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let nanos = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        Ktime(self.snapshot.now.0.saturating_sub(nanos))
    }
}

/// All findings in `snapshot`, most severe first.
pub fn findings(snapshot: &Snapshot, knobs: &Knobs, thresholds: &Thresholds) -> Vec<Finding> {
    let context = Context { snapshot, knobs, thresholds };
    let rules: [fn(Context<'_>) -> Vec<Finding>; 12] = [
        exhaustion::exhausted,
        exhaustion::bind_exhausted,
        exhaustion::soon,
        exhaustion::search_slow,
        behaviour::time_wait_churn,
        behaviour::pool_bypass,
        behaviour::close_wait_leak,
        behaviour::fin_wait2_orphans,
        limits::bind_before_connect,
        limits::syn_recv_pile_up,
        limits::conntrack_pressure,
        limits::listener_in_ephemeral_range,
    ];
    let mut all: Vec<Finding> = rules.into_iter().flat_map(|rule| bounded(rule(context))).collect();
    // Stable: findings of one severity keep the order of the rules.
    all.sort_by_key(|finding| finding.severity);
    all
}

fn bounded(mut found: Vec<Finding>) -> Vec<Finding> {
    let others = found.len().saturating_sub(MAX_PER_ID);
    if others > 0 {
        found.sort_by_key(|finding| finding.severity);
        found.truncate(MAX_PER_ID);
        if let Some(last) = found.last_mut() {
            last.summary = format!("{} {others} more like this.", last.summary);
            last.evidence.insert("others", others.into());
        }
    }
    found
}

fn finding(id: FindingId, subject: FindingSubject, severity: Severity, summary: String) -> Finding {
    Finding { id, subject, severity, summary, since: None, evidence: BTreeMap::new(), advice: Vec::new() }
}

/// Fills `evidence`, one line per fact.
macro_rules! evidence {
    ($($name:literal: $value:expr),+ $(,)?) => {
        std::collections::BTreeMap::from([$(($name, serde_json::json!($value))),+])
    };
}
use evidence;

fn endpoint(addr: Addr, port: u16) -> Endpoint {
    Endpoint { addr, port }
}
