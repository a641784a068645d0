//! What a view asks for beyond the snapshot: one destination port by port, one flow step by step, the last failures with the
//! holders of the ports at that time. Details cost more than the snapshot, so the tracker makes them only of what a view shows.
//!
//! Not for: reports and exporters, which show everything and stay cheap.

use std::sync::Arc;

use super::{Durations, FailedConnect, Opened, Owner};
use crate::event::{DestinationKey, FlowKey, Ktime, TcpState};

/// What a view shows in detail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DetailRequest {
    /// This destination.
    pub destination: Option<DestinationKey>,
    /// The workload of this name.
    pub workload: Option<Arc<str>>,
    /// This flow.
    pub flow: Option<FlowKey>,
}

/// The answer to a [`DetailRequest`]: `None` stands for what was not requested and for what the tracker does not know.
#[derive(Clone, Debug, Default)]
pub struct Details {
    /// Whole seconds up to now, oldest first, without gaps.
    pub seconds: Vec<SecondCounts>,
    /// The last failures for lack of a port, newest first, bounded.
    pub failures: Vec<Arc<FailureRecord>>,
    /// The requested destination.
    pub destination: Option<DestinationDetail>,
    /// The requested workload.
    pub workload: Option<WorkloadDetail>,
    /// The requested flow.
    pub flow: Option<FlowDetail>,
}

/// What happened in one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SecondCounts {
    /// Events read.
    pub events: u32,
    /// Attempts to connect.
    pub connects: u32,
    /// Failures for lack of a port (connect and bind to port 0).
    pub exhausted: u32,
    /// Failures for any other reason.
    pub failed: u32,
}

/// A failure for lack of a port, and who held the ports.
#[derive(Clone, Debug, PartialEq)]
pub struct FailureRecord {
    /// The failure.
    pub failed: FailedConnect,
    /// Most ports first. Summed up when the failure was settled (at its return, else within half a second) and shared by the
    /// failures of a tenth of a second.
    pub holders: Arc<[PastHolder]>,
    /// Ports in use towards the destination at that time.
    pub in_use: u32,
    /// Ports that connect() could get at that time; `None` = unknown.
    pub capacity: Option<u32>,
}

/// A workload that held ports of a destination at some instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastHolder {
    /// Name of the workload.
    pub workload: Arc<str>,
    /// Local ports that it held.
    pub ports: u32,
    /// Of these, in `TIME_WAIT`.
    pub time_wait: u32,
}

/// One bucket of a histogram.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HistogramBucket {
    /// Its upper bound, milliseconds. Its lower bound is that of the bucket before.
    pub upto_ms: f64,
    /// Durations in it.
    pub count: u64,
}

/// A distribution of durations in buckets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DurationHistogram {
    /// Number, extremes and quantiles.
    pub summary: Durations,
    /// Bounds at 1, 2 and 5 of each decade, without gaps between the first bucket and the last.
    pub buckets: Vec<HistogramBucket>,
}

/// A destination port by port.
#[derive(Clone, Debug)]
pub struct DestinationDetail {
    /// The destination.
    pub key: DestinationKey,
    /// `net.ipv4.ip_local_port_range` of its namespace; `None` = unknown.
    pub range: Option<(u16, u16)>,
    /// Local ports in use, ascending.
    pub used: Vec<PortUse>,
    /// Owners of the ports; [`PortUse::owner`] is an index into this list.
    pub owners: Vec<Owner>,
    /// Ports of the range that bind() or listen() keeps from connect(), ascending; some of them may be in use here all the same.
    pub blocked: Vec<u16>,
    /// Ports of the range that are reserved, ascending.
    pub reserved: Vec<u16>,
    /// How long flows lived.
    pub lifetime: DurationHistogram,
    /// How long connects took, from `SYN_SENT` to ESTABLISHED.
    pub connect: DurationHistogram,
    /// How long connect() searched for a port, failed searches included.
    pub port_search: DurationHistogram,
}

/// A port in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortUse {
    /// The local port.
    pub port: u16,
    /// State of the socket that holds it.
    pub state: TcpState,
    /// Index into [`DestinationDetail::owners`].
    pub owner: u16,
    /// Since when the socket is in this state; `None` = unknown.
    pub since: Option<Ktime>,
}

/// A workload's distributions.
#[derive(Clone, Debug)]
pub struct WorkloadDetail {
    /// Name of the workload.
    pub name: Arc<str>,
    /// How long its flows lived.
    pub lifetime: DurationHistogram,
    /// How long its connects took, from `SYN_SENT` to ESTABLISHED.
    pub connect: DurationHistogram,
}

/// A flow step by step.
#[derive(Clone, Debug)]
pub struct FlowDetail {
    /// Its namespace and 4-tuple.
    pub key: FlowKey,
    /// Whose it is; `None` = unknown.
    pub owner: Option<Owner>,
    /// Which side began it.
    pub opened: Opened,
    /// Oldest first; the last one is the present state.
    pub steps: Vec<FlowStep>,
    /// Earlier steps are not known: they were made before the trace, or before the oldest step that the tracker remembers.
    pub begin_unknown: bool,
    /// The flow was set right after a loss.
    pub repaired: bool,
}

/// One state of a flow's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowStep {
    /// The state.
    pub state: TcpState,
    /// When the flow entered it; `None` = before the tracker first saw the flow.
    pub entered: Option<Ktime>,
    /// Nanoseconds until the next step, or until now if it is the last.
    pub dwell: Option<u64>,
}
