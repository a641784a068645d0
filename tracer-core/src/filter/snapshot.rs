//! What a filter keeps of a snapshot, for reports and screens alike.
//!
//! A workload or a destination is kept if something that one process does towards one destination matches and belongs to it, or if
//! it matches itself.

use rustc_hash::{FxHashMap, FxHashSet};

use super::Filter;
use super::subject::Subject;
use crate::event::DestinationKey;
use crate::tracker::snapshot::{Attribution, Destination, Snapshot, Workload};

/// A filter applied to one snapshot.
#[derive(Debug)]
pub struct SnapshotFilter<'a> {
    filter: &'a Filter,
    workloads: FxHashMap<&'a str, &'a Workload>,
    /// Names of the workloads that do something which matches.
    kept_workloads: FxHashSet<&'a str>,
    /// Destinations of something that matches.
    kept_destinations: FxHashSet<DestinationKey>,
}

impl<'a> SnapshotFilter<'a> {
    /// Applies `filter` to everything that the snapshot attributes to a process.
    pub fn new(snapshot: &'a Snapshot, filter: &'a Filter) -> Self {
        let mut this = Self {
            filter,
            workloads: snapshot.workloads.iter().map(|workload| (&*workload.name, workload)).collect(),
            kept_workloads: FxHashSet::default(),
            kept_destinations: FxHashSet::default(),
        };
        for attribution in &snapshot.attributions {
            if this.keeps_attribution(attribution) {
                this.kept_workloads.insert(&attribution.workload);
                this.kept_destinations.insert(attribution.key());
            }
        }
        this
    }

    /// Does the filter match `subject`, with what the snapshot knows about the workload of this name?
    pub fn matches(&self, subject: Subject<'_>, workload: &str) -> bool {
        let known = self.workloads.get(workload);
        self.filter.matches(&known.map_or(subject, |known| subject.with_workload(known)))
    }

    /// Does it keep what one process does towards one destination?
    pub fn keeps_attribution(&self, attribution: &Attribution) -> bool {
        self.matches(Subject::from(attribution), &attribution.workload)
    }

    /// Does it keep this destination?
    pub fn keeps_destination(&self, destination: &Destination) -> bool {
        self.kept_destinations.contains(&destination.key()) || self.filter.matches(&Subject::from(destination))
    }

    /// Does it keep this workload?
    pub fn keeps_workload(&self, workload: &Workload) -> bool {
        self.keeps_workload_named(&workload.name) || self.filter.matches(&Subject::default().with_workload(workload))
    }

    /// Does something that a workload of this name does match?
    pub fn keeps_workload_named(&self, name: &str) -> bool {
        self.kept_workloads.contains(name)
    }
}

impl Filter {
    /// Leaves in `snapshot` the workloads, destinations and attributions that the filter keeps. Findings, listeners and namespaces
    /// are about the whole host and stay.
    pub fn retain(&self, snapshot: &mut Snapshot) {
        let kept = SnapshotFilter::new(snapshot, self);
        let attributions: Vec<bool> = snapshot.attributions.iter().map(|one| kept.keeps_attribution(one)).collect();
        let destinations: Vec<bool> = snapshot.destinations.iter().map(|one| kept.keeps_destination(one)).collect();
        let workloads: Vec<bool> = snapshot.workloads.iter().map(|one| kept.keeps_workload(one)).collect();
        retain(&mut snapshot.attributions, attributions);
        retain(&mut snapshot.destinations, destinations);
        retain(&mut snapshot.workloads, workloads);
    }
}

fn retain<T>(all: &mut Vec<T>, kept: Vec<bool>) {
    let mut kept = kept.into_iter();
    all.retain(|_| kept.next().unwrap_or(false));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn kept(filter: &str) -> (Vec<String>, usize, usize) {
        let mut snapshot = sample::exhaustion();
        Filter::parse(filter).expect("valid").retain(&mut snapshot);
        let names = snapshot.workloads.iter().map(|workload| workload.name.to_string()).collect();
        (names, snapshot.destinations.len(), snapshot.attributions.len())
    }

    #[test]
    fn a_workload_keeps_the_destinations_that_it_connects_to() {
        let (names, destinations, attributions) = kept("workload=bypass.service");
        assert_eq!(names, ["bypass.service"]);
        assert!(destinations > 0 && attributions > 0, "{destinations} {attributions}");
        assert_eq!(kept("workload=nobody"), (Vec::new(), 0, 0));
    }

    #[test]
    fn a_destination_keeps_the_workloads_that_connect_to_it() {
        let (names, destinations, _) = kept("dst=10.66.0.2:8443");
        assert_eq!((names.contains(&"bypass.service".to_owned()), destinations), (true, 1));
    }
}
