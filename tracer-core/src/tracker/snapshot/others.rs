//! What found no row of its own in a full table, summed up: with these rows the sums over a list are the totals.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::{CloseWaitStats, FailureCounts, TimeWaitStats};
use crate::event::{Netns, TcpState};

/// The rests of all tables.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Others {
    /// By namespace. None as long as every destination has a row.
    pub destinations: Vec<OtherDestinations>,
    /// The same by namespace and workload. Most connects first.
    pub attributions: Vec<OtherAttributions>,
    /// The namespaces.
    pub namespaces: OtherNamespaces,
}

impl Others {
    /// Every table had room for everything.
    pub fn is_empty(&self) -> bool {
        self.destinations.is_empty() && self.attributions.is_empty() && self.namespaces.namespaces == 0
    }
}

/// The destinations of a namespace that have no row of their own.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct OtherDestinations {
    /// Network namespace of the connecting sockets; unknown (null in JSON) = of several namespaces.
    pub netns: Netns,
    /// Its name under `/run/netns`, if it has one.
    pub netns_name: Option<Arc<str>>,
    /// How many there were, an estimate within 10 %.
    pub destinations: u64,
    /// Local ports held towards them now inside the range in force, each counted once for every destination that it is used towards.
    pub in_use: u64,
    /// The same outside of the range.
    pub outside_range: u64,
    /// `in_use` by the state of the socket.
    pub by_state: BTreeMap<TcpState, u32>,
    /// Attempts to connect.
    pub connects: u64,
    /// Attempts that were established.
    pub established: u64,
    /// Failed attempts by reason.
    pub failed: FailureCounts,
    /// Attempts per second over the last ten seconds.
    pub connects_per_second: f64,
    /// Their minisockets.
    pub time_wait: TimeWaitStats,
}

/// What one workload does towards the destinations of a namespace that have no row of their own.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct OtherAttributions {
    /// Name of the workload.
    pub workload: Arc<str>,
    /// Network namespace of its sockets; unknown (null in JSON) = several.
    pub netns: Netns,
    /// Attempts to connect.
    pub connects: u64,
    /// Attempts that were established.
    pub established: u64,
    /// Failed attempts by reason.
    pub failed: FailureCounts,
    /// Flows that this side closed first.
    pub active_closes: u64,
    /// Its minisockets.
    pub time_wait: TimeWaitStats,
    /// Its sockets that the peer has closed.
    pub close_wait: CloseWaitStats,
    /// Local ports held now, in any state.
    pub ports_held: u64,
}

/// Namespaces that have no row of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct OtherNamespaces {
    /// How many were forgotten, an estimate within 10 %.
    pub namespaces: u64,
    /// Minisockets in them by the tracker's count.
    pub time_wait_ledger: u64,
    /// How many of these were concluded, not seen.
    pub time_wait_inferred: u64,
}
