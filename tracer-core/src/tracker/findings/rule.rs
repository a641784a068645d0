//! What the rules share: what they read, and how they make a finding.

use std::collections::BTreeMap;

use super::thresholds::Thresholds;
use crate::event::{Addr, Endpoint, Ktime, Netns};
use crate::host::Knobs;
use crate::model::timing::TIME_WAIT;
use crate::tracker::snapshot::{Finding, FindingId, FindingSubject, Namespace, Severity, Snapshot};

/// How long an entry stays in `TIME_WAIT`.
pub const TIME_WAIT_SECONDS: f64 = TIME_WAIT.as_secs_f64();

/// What every rule reads.
#[derive(Clone, Copy)]
pub struct RuleContext<'a> {
    pub snapshot: &'a Snapshot,
    pub knobs: &'a Knobs,
    pub thresholds: &'a Thresholds,
}

impl RuleContext<'_> {
    /// Seconds observed; never 0, so that rates are finite.
    pub fn window(&self) -> f64 {
        self.snapshot.now.seconds_since(self.snapshot.start).max(1.0)
    }

    /// What is known of a namespace.
    pub fn namespace(&self, netns: Netns) -> Option<&Namespace> {
        self.snapshot.namespaces.iter().find(|namespace| namespace.netns == netns)
    }

    /// The instant `seconds` ago, not before the first one observed.
    pub fn ago(&self, seconds: f64) -> Ktime {
        let age = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default();
        let nanos = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        Ktime(self.snapshot.now.0.saturating_sub(nanos))
    }
}

/// A finding without a begin, evidence and advice.
pub fn finding(id: FindingId, subject: FindingSubject, severity: Severity, summary: String) -> Finding {
    Finding { id, subject, severity, summary, since: None, evidence: BTreeMap::new(), advice: Vec::new() }
}

/// Fills `evidence`, one line per fact.
macro_rules! evidence {
    ($($name:literal: $value:expr),+ $(,)?) => {
        std::collections::BTreeMap::from([$(($name, serde_json::json!($value))),+])
    };
}
pub(super) use evidence;

/// An address with its port.
pub fn endpoint(addr: Addr, port: u16) -> Endpoint {
    Endpoint { addr, port }
}
