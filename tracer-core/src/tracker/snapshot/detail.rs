//! What a view asks for beyond the snapshot: one destination port by port, one flow step by step, the last failures with who
//! held the ports then. It costs more than the snapshot, so it is only made of what somebody looks at.
//!
//! Not for: reports and exporters, which tell the whole and stay cheap.

use std::sync::Arc;

use super::{Durations, FailedConnect, Opened, Owner};
use crate::event::{DestinationKey, FlowKey, Ktime, TcpState};

/// What somebody looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DetailRequest {
    pub destination: Option<DestinationKey>,
    pub workload: Option<Arc<str>>,
    pub flow: Option<FlowKey>,
}

/// What was wished for.
#[derive(Clone, Debug, Default)]
pub struct Details {
    /// Whole seconds up to now, oldest first, without gaps.
    pub seconds: Vec<SecondCounts>,
    /// The last failures for lack of a port, newest first, bounded.
    pub failures: Vec<Arc<FailureRecord>>,
    pub destination: Option<DestinationDetail>,
    pub workload: Option<WorkloadDetail>,
    pub flow: Option<FlowDetail>,
}

/// What happened in one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SecondCounts {
    pub events: u32,
    pub connects: u32,
    /// Failures for lack of a port (connect and bind to port 0).
    pub exhausted: u32,
    /// Failures for any other reason.
    pub failed: u32,
}

/// A failure for lack of a port, and who held the ports.
#[derive(Clone, Debug, PartialEq)]
pub struct FailureRecord {
    pub failed: FailedConnect,
    /// Most ports first. Summed up when the failure was settled (at its return, else within half a second) and shared by the
    /// failures of a tenth of a second.
    pub holders: Arc<[PastHolder]>,
    /// Ports in use towards the destination then, and how many there were.
    pub in_use: u32,
    pub capacity: Option<u32>,
}

/// Who held ports of a destination at some instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastHolder {
    pub workload: Arc<str>,
    pub ports: u32,
    /// Of these, in `TIME_WAIT`.
    pub time_wait: u32,
}

/// So many durations up to this one, and above the bucket before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HistogramBucket {
    pub upto_ms: f64,
    pub count: u64,
}

/// A distribution with its shape: buckets at 1, 2 and 5 of each decade, without gaps between the first and the last.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DurationHistogram {
    pub summary: Durations,
    pub buckets: Vec<HistogramBucket>,
}

/// A destination port by port.
#[derive(Clone, Debug)]
pub struct DestinationDetail {
    pub key: DestinationKey,
    pub range: Option<(u16, u16)>,
    /// Ascending by port.
    pub used: Vec<PortUse>,
    /// Who; `PortUse::owner` points here.
    pub owners: Vec<Owner>,
    /// Ports of the range that bind() or listen() keeps from connect(), ascending; some may be in use here all the same.
    pub blocked: Vec<u16>,
    /// Ports of the range that are reserved, ascending.
    pub reserved: Vec<u16>,
    pub lifetime: DurationHistogram,
    pub connect: DurationHistogram,
    /// How long connect() searched for a port, in vain or not.
    pub port_search: DurationHistogram,
}

/// A port in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortUse {
    pub port: u16,
    pub state: TcpState,
    pub owner: u16,
    /// In this state since; `None` = unknown.
    pub since: Option<Ktime>,
}

/// A workload's distributions.
#[derive(Clone, Debug)]
pub struct WorkloadDetail {
    pub name: Arc<str>,
    pub lifetime: DurationHistogram,
    pub connect: DurationHistogram,
}

/// A flow step by step.
#[derive(Clone, Debug)]
pub struct FlowDetail {
    pub key: FlowKey,
    pub owner: Option<Owner>,
    pub opened: Opened,
    /// Oldest first; the last one is the present state.
    pub steps: Vec<FlowStep>,
    /// Earlier steps are not known (before the start, or longer ago than the memory of steps reaches).
    pub begin_unknown: bool,
    /// Set right after a loss.
    pub repaired: bool,
}

/// A flow entered a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowStep {
    pub state: TcpState,
    /// `None` = it was in this state at our first sight of it.
    pub entered: Option<Ktime>,
    /// Nanoseconds until the next step, or until now if it is the last.
    pub dwell: Option<u64>,
}
