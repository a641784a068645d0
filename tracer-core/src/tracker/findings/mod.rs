//! What the numbers mean, and what would help: conclusions for somebody who was woken up.
//!
//! Pure: one snapshot in, findings out, no clock and no memory. Each finding has a stable id, one sentence with the numbers in it, the
//! facts behind it for machines, and advice that names only what this kernel has and what is not yet set. [`FindingId`] lists
//! what can be found.
//!
//! Not for: measuring. What a [`Snapshot`] does not know, no finding claims; a missing number makes a finding silent.

mod advice;
mod behaviour;
mod exhaustion;
mod limits;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::TIME_WAIT;
use super::snapshot::{Finding, FindingId, FindingSubject, Namespace, Severity, Snapshot};
use crate::event::{Addr, Endpoint, Ktime, Netns};
use crate::host::Knobs;

/// Findings of one id in one snapshot. A host that fails towards a thousand destinations has one problem, not a thousand; the
/// worst come first and the last one says how many there are besides.
const MAX_PER_ID: usize = 5;
/// How long an entry stays in `TIME_WAIT`.
const TIME_WAIT_SECONDS: f64 = TIME_WAIT.as_secs_f64();

/// When numbers become findings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Thresholds {
    /// A quarter of an hour: time to be woken up, look, and act.
    pub soon_seconds: f64,
    /// Below a minute there is no time left to look first; also the length of `TIME_WAIT`, so nothing frees ports sooner.
    pub soon_critical_seconds: f64,
    /// Five times what a search costs while ports are plenty; ranges of some thousand ports never get there.
    pub search_slow_ms: f64,
    /// The cliff at half of the range is a factor of ten and more on ranges that matter.
    pub search_slow_factor: f64,
    /// A quarter of the capacity in `TIME_WAIT` by one workload: twice two such workloads would fill it.
    pub churn_share: f64,
    /// From half of the range on every `connect()` searches all even ports first and costs ten times as much.
    pub churn_warning_share: f64,
    /// A second: connections that carry one request are shorter, pooled ones are not.
    pub short_lifetime_ms: f64,
    /// Half a minute: nobody holds a single request open that long.
    pub long_lived_seconds: f64,
    /// Below one short connection a second, a pool that renews its connections looks the same.
    pub bypass_per_second: f64,
    /// A few sockets in `CLOSE_WAIT` are normal while programs react to the end of a connection.
    pub close_wait_count: u64,
    /// No program takes a minute to react.
    pub close_wait_seconds: f64,
    /// Fewer ports than this do not matter to anybody.
    pub fin_wait2_count: u32,
    /// Share of the ports in use towards that destination.
    pub fin_wait2_share: f64,
    /// The accept backlog that most programs ask for.
    pub syn_recv_count: u32,
    /// A tenth of the range taken away from every destination at once.
    pub blocked_share: f64,
    /// A fifth left is one burst of new connections.
    pub conntrack_warning: f64,
    /// The next burst drops packets.
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

/// What every rule looks at.
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

/// Everything worth a sentence in `snapshot`, most severe first.
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
    // Stable: within one severity the order above, which goes from what hurts to what might.
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
