//! One of the two traces that are compared. Not for: comparing.

use crate::clock::Clock;
use crate::event::Endpoint;
use crate::host::HostFacts;
use crate::tracker::snapshot::{Destination, Snapshot, Workload};

/// One of the two traces that are compared.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// What the tracker concluded.
    pub snapshot: &'a Snapshot,
    /// Where the trace was taken.
    pub host: &'a HostFacts,
    /// Wall time of its instants.
    pub clock: &'a Clock,
    /// What made processes one workload: a value of `--by`.
    pub by: &'a str,
}

impl<'a> Side<'a> {
    /// Seconds of which something was recorded; never 0, so that rates are finite.
    pub(super) fn seconds(&self) -> f64 {
        self.snapshot.recorded_seconds().max(f64::MIN_POSITIVE)
    }

    pub(super) fn workloads(&self) -> Vec<(String, &'a Workload)> {
        self.snapshot.workloads.iter().map(|workload| (workload.name.to_string(), workload)).collect()
    }

    pub(super) fn destinations(&self) -> Vec<(String, &'a Destination)> {
        let name = |dest: &Destination| {
            let remote = Endpoint { addr: dest.remote_addr, port: dest.remote_port };
            let netns = dest.netns_name.as_ref().map(|name| format!(" in {name}")).unwrap_or_default();
            format!("{remote} from {}{netns}", dest.local_addr)
        };
        self.snapshot.destinations.iter().map(|dest| (name(dest), dest)).collect()
    }

    /// The sum of something over all workloads, per second.
    pub(super) fn per_second(&self, of: fn(&Workload) -> u64) -> f64 {
        self.sum(of) / self.seconds()
    }

    pub(super) fn sum(&self, of: fn(&Workload) -> u64) -> f64 {
        self.snapshot.workloads.iter().map(|workload| of(workload) as f64).sum()
    }

    /// The destination whose ports were in use most, as a share of what there are.
    pub(super) fn fullest(&self) -> Option<(f64, &'a Destination)> {
        let share = |dest: &'a Destination| Some((occupancy(dest)?, dest));
        self.snapshot.destinations.iter().filter_map(share).max_by(|a, b| a.0.total_cmp(&b.0))
    }
}

/// The share of the ports that was in use at most.
pub(super) fn occupancy(destination: &Destination) -> Option<f64> {
    let capacity = destination.ports.capacity.filter(|capacity| *capacity > 0)?;
    Some(f64::from(destination.ports.peak) / f64::from(capacity))
}
