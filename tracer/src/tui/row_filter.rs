//! Which rows of a table a filter keeps.
//!
//! A workload or a destination is kept if something that one of its processes does towards one destination matches, or if it
//! matches itself. A process, a failure or a flow is kept if it matches.

use rustc_hash::{FxHashMap, FxHashSet};

use super::channel::Frame;
use super::columns::HolderRow;
use super::page::Pane;
use super::row_input::RowInput;
use tracer_core::event::DestinationKey;
use tracer_core::filter::{Filter, Subject};
use tracer_core::tracker::snapshot::Workload;
use tracer_core::tracker::snapshot::detail::{DestinationDetail, FailureRecord, PortUse};

/// One filter applied to one frame.
pub struct RowFilter<'a> {
    filter: &'a Filter,
    workloads: FxHashMap<&'a str, &'a Workload>,
    /// Names of the workloads that do something which matches.
    kept_workloads: FxHashSet<&'a str>,
    /// Destinations of something that matches.
    kept_places: FxHashSet<DestinationKey>,
}

impl<'a> RowFilter<'a> {
    /// Applies `filter` to everything that the frame attributes to a process.
    pub fn new(frame: &'a Frame, filter: &'a Filter) -> Self {
        let snapshot = &frame.snapshot;
        let workloads = snapshot.workloads.iter().map(|workload| (&*workload.name, workload)).collect();
        let mut row_filter =
            Self { filter, workloads, kept_workloads: FxHashSet::default(), kept_places: FxHashSet::default() };
        for attribution in &snapshot.attributions {
            if row_filter.matches(Subject::from(attribution), &attribution.workload) {
                row_filter.kept_workloads.insert(&attribution.workload);
                row_filter.kept_places.insert(attribution.key());
            }
        }
        row_filter
    }

    fn matches(&self, subject: Subject<'_>, workload: &str) -> bool {
        let known = self.workloads.get(workload);
        self.filter.matches(&known.map_or(subject, |known| subject.with_workload(known)))
    }

    /// True if the filter keeps the row with this index in what the table shows.
    pub fn keeps(&self, input: &RowInput<'_>, holders: &[HolderRow], pane: Pane, index: usize) -> bool {
        let snapshot = &input.frame.snapshot;
        let kept = || {
            Some(match pane {
                Pane::Workloads => {
                    let workload = snapshot.workloads.get(index)?;
                    self.kept_workloads.contains(&*workload.name)
                        || self.filter.matches(&Subject::default().with_workload(workload))
                }
                Pane::Destinations => {
                    let destination = snapshot.destinations.get(index)?;
                    self.kept_places.contains(&destination.key()) || self.filter.matches(&Subject::from(destination))
                }
                Pane::Towards => {
                    let towards = snapshot.attributions.get(index)?;
                    self.matches(Subject::from(towards), &towards.workload)
                }
                Pane::Processes => {
                    let process = input.workload()?.pids.get(index)?;
                    let subject =
                        Subject { pid: Some(process.pid), failed: Some(&process.failed), ..Subject::default() };
                    // A filter may ask for more than a process is known by: then its connections decide.
                    let does = snapshot.attributions.iter().filter(|towards| towards.pid == process.pid);
                    self.matches(subject, &input.workload()?.name)
                        || does.into_iter().any(|towards| self.matches(Subject::from(towards), &towards.workload))
                }
                Pane::Holders => self.kept_workloads.contains(&*holders.get(index)?.workload),
                Pane::Failures => self.keeps_failure(input.frame.details.failures.get(index)?),
                Pane::Flows => self.keeps_flow(input.destination?, input.destination?.used.get(index)?),
                // Findings are about the whole host, and the steps of one flow belong together.
                Pane::Findings | Pane::Steps => true,
            })
        };
        kept().unwrap_or(false)
    }

    fn keeps_failure(&self, record: &FailureRecord) -> bool {
        let workload = record.failed.owner.as_ref().map_or("", |owner| &owner.workload);
        self.matches(Subject::from(&record.failed), workload)
    }

    fn keeps_flow(&self, detail: &DestinationDetail, port: &PortUse) -> bool {
        let owner = detail.owners.get(usize::from(port.owner));
        let place = &detail.key;
        let subject = Subject {
            comm: owner.map(|owner| &*owner.comm),
            pid: owner.map(|owner| owner.pid),
            workload: owner.map(|owner| &*owner.workload),
            netns: Some(place.netns),
            src_addr: Some(place.local_addr),
            src_port: Some(port.port),
            dst_addr: Some(place.remote_addr),
            dst_port: Some(place.remote_port),
            state: Some(port.state),
            ..Subject::default()
        };
        self.matches(subject, owner.map_or("", |owner| &owner.workload))
    }
}
