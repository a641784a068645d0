//! Conclusions as values: what is wrong, whom it is about, how bad it is, and what would help.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use thiserror::Error;

use crate::event::{DestinationKey, Endpoint, Ktime, Netns};

/// What a finding says, by its stable name in every output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingId {
    /// Connects fail for lack of a local port.
    PortExhaustion,
    /// Connects will fail for lack of a local port, at this rate.
    PortExhaustionSoon,
    /// connect() takes long to find a port: most of the range is in use.
    PortSearchSlow,
    /// A workload fills the range with `TIME_WAIT` entries towards a destination.
    TimeWaitChurn,
    /// A workload keeps connections open and opens short ones to the same destination.
    PoolBypass,
    /// A proxy opens a connection for each that it accepts.
    ProxyDoubles,
    /// A program does not close what its peers closed.
    CloseWaitLeak,
    /// Peers do not close what this side closed.
    FinWait2Orphans,
    /// A program shuts its connections down and does not close them.
    HalfClosed,
    /// Connects are refused.
    ConnectRefused,
    /// Connects get no answer.
    PeerDoesNotAnswer,
    /// There is no way to the peer.
    PeerUnreachable,
    /// Connects are reset.
    ConnectReset,
    /// Connections wait for accept() and there is no room for more.
    AcceptQueueFull,
    /// More connections close than there may be minisockets.
    TimeWaitOverflow,
    /// Half-open connections queue up at a listener.
    SynRecvPileUp,
    /// Half-open connections queue up at a listener that has room: peers do not complete handshakes.
    SynFlood,
    /// bind() takes ports from everybody.
    BindBeforeConnect,
    /// A process does not get a port that it asks for by number.
    PortTaken,
    /// A service's port can be taken while the service restarts.
    ListenerInEphemeralRange,
    /// The connection-tracking table is nearly full.
    ConntrackPressure,
}

impl FindingId {
    /// Every id, what hurts before what might.
    pub const ALL: [Self; 21] = [
        Self::PortExhaustion,
        Self::ConnectRefused,
        Self::PeerDoesNotAnswer,
        Self::PeerUnreachable,
        Self::ConnectReset,
        Self::AcceptQueueFull,
        Self::PortTaken,
        Self::PortExhaustionSoon,
        Self::PortSearchSlow,
        Self::TimeWaitChurn,
        Self::PoolBypass,
        Self::ProxyDoubles,
        Self::CloseWaitLeak,
        Self::FinWait2Orphans,
        Self::HalfClosed,
        Self::SynRecvPileUp,
        Self::SynFlood,
        Self::TimeWaitOverflow,
        Self::BindBeforeConnect,
        Self::ListenerInEphemeralRange,
        Self::ConntrackPressure,
    ];

    /// The stable name, e.g. `port-exhaustion`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PortExhaustion => "port-exhaustion",
            Self::PortExhaustionSoon => "port-exhaustion-soon",
            Self::PortSearchSlow => "port-search-slow",
            Self::TimeWaitChurn => "time-wait-churn",
            Self::PoolBypass => "pool-bypass",
            Self::ProxyDoubles => "proxy-doubles",
            Self::CloseWaitLeak => "close-wait-leak",
            Self::FinWait2Orphans => "fin-wait2-orphans",
            Self::HalfClosed => "half-closed",
            Self::ConnectRefused => "connect-refused",
            Self::PeerDoesNotAnswer => "peer-does-not-answer",
            Self::PeerUnreachable => "peer-unreachable",
            Self::ConnectReset => "connect-reset",
            Self::AcceptQueueFull => "accept-queue-full",
            Self::SynRecvPileUp => "syn-recv-pile-up",
            Self::SynFlood => "syn-flood",
            Self::TimeWaitOverflow => "time-wait-overflow",
            Self::BindBeforeConnect => "bind-before-connect",
            Self::PortTaken => "port-taken",
            Self::ListenerInEphemeralRange => "listener-in-ephemeral-range",
            Self::ConntrackPressure => "conntrack-pressure",
        }
    }
}

impl fmt::Display for FindingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for FindingId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A name that no finding has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no finding has this name")]
pub struct UnknownFinding;

impl FromStr for FindingId {
    type Err = UnknownFinding;

    fn from_str(name: &str) -> Result<Self, UnknownFinding> {
        Self::ALL.into_iter().find(|id| id.as_str() == name).ok_or(UnknownFinding)
    }
}

/// Whom a finding is about: what of it stays the same while its numbers change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FindingSubject {
    /// A destination, whoever connects to it.
    Destination(DestinationKey),
    /// A workload, wherever it connects to.
    Workload(Arc<str>),
    /// What one workload does towards one destination.
    WorkloadTowards(Arc<str>, DestinationKey),
    /// A listening socket and the workload that it belongs to, if that is known.
    Listener(Netns, Endpoint, Option<Arc<str>>),
    /// A network namespace.
    Namespace(Netns),
}

impl FindingSubject {
    /// The destination that the finding is about, if it is about one.
    pub fn destination(&self) -> Option<DestinationKey> {
        match self {
            Self::Destination(key) | Self::WorkloadTowards(_, key) => Some(*key),
            Self::Workload(_) | Self::Listener(..) | Self::Namespace(_) => None,
        }
    }

    /// The workload that the finding is about, if it is about one.
    pub fn workload(&self) -> Option<&Arc<str>> {
        match self {
            Self::Workload(name) | Self::WorkloadTowards(name, _) => Some(name),
            Self::Listener(_, _, name) => name.as_ref(),
            Self::Destination(_) | Self::Namespace(_) => None,
        }
    }
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Connections fail, or will before anybody can look.
    Critical,
    /// Worth a change before it fails.
    Warning,
    /// Worth knowing.
    Info,
}

/// One thing to do about a finding.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Advice {
    /// The action, as a command or a change to make.
    #[serde(rename = "do")]
    pub action: String,
    /// Why the action helps.
    pub why: String,
    /// What will be different, with numbers where they are known.
    pub expected: String,
}

/// Whether what a finding says is so now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FindingState {
    /// It held within the last seconds.
    #[default]
    Active,
    /// It is over.
    Past,
}

/// How large a finding is, in the unit of its kind: what its peak is the greatest of.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measure {
    /// The present value.
    pub value: f64,
    /// Its unit, e.g. `failures/min`.
    pub unit: &'static str,
    /// What has been counted since the trace began, where the finding is about a count; `None` where it is about a state.
    pub total: Option<u64>,
    /// How telling the moment is: the words of a past finding are those of the moment with the greatest weight. Who holds the ports right
    /// after the last failure says little; who held most of them says why it failed.
    pub weight: f64,
    /// Of `total`, what was counted since the last judgement or, if that is not known, in the present window.
    pub recent: u64,
}

/// The greatest value of a finding's measure, and when it had it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// The value.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// When.
    pub at: Ktime,
}

/// When a finding began and ended, and its worst. Times are of events; they become wall time in the view.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FindingLife {
    /// Whether it holds now.
    pub state: FindingState,
    /// When it began. What held at the first judgement of a trace may have begun before.
    pub began: Option<Ktime>,
    /// When it last held; `None` while it is active.
    pub ended: Option<Ktime>,
    /// Its worst; `None` of a finding that has not been judged over time.
    pub peak: Option<Peak>,
    /// What was counted from its begin to its end, or until now; `None` where it is about a state.
    pub total: Option<u64>,
}

/// A conclusion worth a sentence.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// What the finding says.
    pub id: FindingId,
    /// Whom it is about. JSON has that among the evidence.
    #[serde(skip)]
    pub subject: FindingSubject,
    /// How much it matters; of a past one how much it mattered at its worst.
    pub severity: Severity,
    /// One sentence with the numbers in it: those of now, or those at the worst of one that is over.
    pub summary: String,
    /// `summary` in the past tense, as it will be once the finding is over; empty = the same words.
    #[serde(skip)]
    pub past: String,
    /// When it began, if that was seen; `None` = unknown, or it has no beginning.
    #[serde(skip)]
    pub since: Option<Ktime>,
    /// When it last held, where that is known more exactly than to a second.
    #[serde(skip)]
    pub until: Option<Ktime>,
    /// How large it is now.
    #[serde(skip)]
    pub measure: Measure,
    /// When it began and ended, and its worst.
    #[serde(skip)]
    pub life: FindingLife,
    /// The facts behind it, for machines.
    pub evidence: BTreeMap<&'static str, serde_json::Value>,
    /// What to do, best first.
    pub advice: Vec<Advice>,
}

impl Finding {
    /// A finding without a begin, a measure, evidence and advice.
    pub fn new(id: FindingId, subject: FindingSubject, severity: Severity, summary: String) -> Self {
        Self {
            id,
            subject,
            severity,
            summary,
            past: String::new(),
            since: None,
            until: None,
            measure: Measure::default(),
            life: FindingLife::default(),
            evidence: BTreeMap::new(),
            advice: Vec::new(),
        }
    }

    /// When it began, or ended if it is over.
    pub fn changed_at(&self) -> Ktime {
        self.life.ended.or(self.life.began).unwrap_or_default()
    }

    /// Does it hold now?
    pub fn is_active(&self) -> bool {
        self.life.state == FindingState::Active
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_back_to_its_id() {
        for id in FindingId::ALL {
            assert_eq!(id.as_str().parse(), Ok(id));
        }
        assert_eq!("exhaustion".parse::<FindingId>(), Err(UnknownFinding));
    }
}
