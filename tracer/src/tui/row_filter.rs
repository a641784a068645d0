//! Which rows of a table a filter keeps.
//!
//! Of workloads, destinations and attributions the filter keeps what it keeps in a report ([`SnapshotFilter`]). A process, a
//! failure or a flow is kept if it matches.

use super::channel::Frame;
use super::columns::HolderRow;
use super::page::Pane;
use super::row_input::RowInput;
use tracer_core::filter::{Filter, SnapshotFilter, Subject};
use tracer_core::tracker::snapshot::detail::{DestinationDetail, FailureRecord, PortUse};

/// One filter applied to one frame.
pub struct RowFilter<'a>(SnapshotFilter<'a>);

impl<'a> RowFilter<'a> {
    /// Applies `filter` to everything that the frame attributes to a process.
    pub fn new(frame: &'a Frame, filter: &'a Filter) -> Self {
        Self(SnapshotFilter::new(&frame.snapshot, filter))
    }

    /// True if the filter keeps the row with this index in what the table shows.
    pub fn keeps(&self, input: &RowInput<'_>, holders: &[HolderRow], pane: Pane, index: usize) -> bool {
        let snapshot = &input.frame.snapshot;
        let kept = || {
            Some(match pane {
                Pane::Workloads => self.0.keeps_workload(snapshot.workloads.get(index)?),
                Pane::Destinations => self.0.keeps_destination(snapshot.destinations.get(index)?),
                Pane::Towards => self.0.keeps_attribution(snapshot.attributions.get(index)?),
                Pane::Processes => {
                    let process = input.workload()?.pids.get(index)?;
                    let subject =
                        Subject { pid: Some(process.pid), failed: Some(&process.failed), ..Subject::default() };
                    // A filter may ask for more than a process is known by: then its connections decide.
                    let mut does = snapshot.attributions.iter().filter(|towards| towards.pid == process.pid);
                    self.0.matches(subject, &input.workload()?.name)
                        || does.any(|towards| self.0.keeps_attribution(towards))
                }
                Pane::Holders => self.0.keeps_workload_named(&holders.get(index)?.workload),
                Pane::Failures => self.keeps_failure(input.frame.details.failures.get(index)?),
                Pane::Flows => self.keeps_flow(input.destination?, input.destination?.used.get(index)?),
                // The snapshot has the findings that are inside, and the steps of one flow belong together.
                Pane::Findings | Pane::Steps => true,
            })
        };
        kept().unwrap_or(false)
    }

    fn keeps_failure(&self, record: &FailureRecord) -> bool {
        let workload = record.failed.owner.as_ref().map_or("", |owner| &owner.workload);
        self.0.matches(Subject::from(&record.failed), workload)
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
        self.0.matches(subject, owner.map_or("", |owner| &owner.workload))
    }
}
