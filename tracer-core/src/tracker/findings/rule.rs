//! What the rules share: what they read, and how they make a finding.

use super::recent::{Counted, Recent, Windows};
use super::thresholds::Thresholds;
use crate::event::{Addr, Endpoint, Ktime, Netns};
use crate::host::Knobs;
use crate::model::timing::TIME_WAIT;
use crate::tracker::snapshot::{Measure, Namespace, Snapshot};

/// How long an entry stays in `TIME_WAIT`.
pub const TIME_WAIT_SECONDS: f64 = TIME_WAIT.as_secs_f64();

/// What every rule reads.
#[derive(Clone, Copy)]
pub struct RuleContext<'a> {
    pub snapshot: &'a Snapshot,
    pub recent: &'a Recent,
    pub knobs: &'a Knobs,
    pub thresholds: &'a Thresholds,
}

impl RuleContext<'_> {
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

/// The measure of a state: how much there is of it.
pub fn amount(value: f64, unit: &'static str) -> Measure {
    Measure { value, unit, weight: value, total: None, recent: 0 }
}

/// The measure of something that is counted: how much in the last minute.
pub fn counted(windows: &Windows, kind: Counted, unit: &'static str) -> Measure {
    let long = windows.long.of(kind);
    Measure {
        value: long as f64,
        unit,
        weight: long as f64,
        total: Some(windows.all.of(kind)),
        recent: windows.new.of(kind).max(1).min(long.max(1)),
    }
}
