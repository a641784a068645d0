//! Where one can be: pages, the tables on them, the rows that are selected there.

use std::sync::Arc;

use tracer_core::event::DestinationKey;
use tracer_core::event::{FlowKey, Ktime};
use tracer_core::tracker::snapshot::{FindingId, FindingSubject};

/// A page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    Overview,
    Findings,
    Failures,
    Workload(Arc<str>),
    Destination(DestinationKey),
    Flow(FlowKey),
}

impl Page {
    /// The pages that a tab leads to.
    pub const TABS: [Self; 3] = [Self::Overview, Self::Findings, Self::Failures];

    pub fn panes(&self) -> &'static [Pane] {
        match self {
            Self::Overview => &[Pane::Workloads, Pane::Destinations],
            Self::Findings => &[Pane::Findings],
            Self::Failures => &[Pane::Failures],
            Self::Workload(_) => &[Pane::Processes, Pane::Towards],
            Self::Destination(_) => &[Pane::Holders, Pane::Flows],
            Self::Flow(_) => &[Pane::Steps],
        }
    }

    /// For the name of an export.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Overview => "overview",
            Self::Findings => "findings",
            Self::Failures => "failures",
            Self::Workload(_) => "workload",
            Self::Destination(_) => "destination",
            Self::Flow(_) => "flow",
        }
    }
}

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pane {
    Workloads,
    Destinations,
    Findings,
    Failures,
    /// Processes of a workload.
    Processes,
    /// What a workload does towards whom.
    Towards,
    /// Holders and victims of a destination.
    Holders,
    /// Ports in use towards a destination, which are its flows.
    Flows,
    /// A flow's steps.
    Steps,
}

/// A row that is followed while tables change their order under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowId {
    Workload(Arc<str>),
    Destination(DestinationKey),
    /// A process towards a destination.
    Towards(u32, DestinationKey),
    Process(u32),
    Finding(FindingId, FindingSubject),
    Failure(Ktime, u32),
    Flow(u16),
    Step(usize),
}

/// The selected row of a table. The first one, whichever that is, until somebody moves.
#[derive(Clone, Debug, Default)]
pub struct Cursor {
    pub index: usize,
    pub id: Option<RowId>,
    /// First row on the screen.
    pub offset: usize,
}

/// How a table is ordered: by this column, and the other way round or not. `None` = as the snapshot has it: the worst first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sort {
    pub column: Option<usize>,
    pub reversed: bool,
}
