//! The pages, the tables on them, and what is selected in a table.

use std::sync::Arc;

use tracer_core::event::DestinationKey;
use tracer_core::event::{FlowKey, Ktime};
use tracer_core::tracker::snapshot::{FindingId, FindingSubject};

/// A page, with what it is about.
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

    /// The tables of the page, in the order of the Tab key.
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

    /// The page's part of the name of an exported file.
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

/// A table of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pane {
    Workloads,
    Destinations,
    Findings,
    Failures,
    /// Processes of a workload.
    Processes,
    /// What each process of a workload does towards each destination.
    Towards,
    /// Workloads that hold ports of a destination, or lack one.
    Holders,
    /// Ports in use towards a destination, which are its flows.
    Flows,
    /// States of a flow, one after the other.
    Steps,
}

/// The identity of a row, by which it is found again when the next frame has the rows in another order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RowId {
    Workload(Arc<str>),
    Destination(DestinationKey),
    /// A process towards a destination.
    Towards(u32, DestinationKey),
    Process(u32),
    Finding(FindingId, FindingSubject, Option<Ktime>),
    Failure(Ktime, u32),
    Flow(u16),
    Step(usize),
}

/// The selected row of a table. Before the user moves, that is the first row, whichever it is.
#[derive(Clone, Debug, Default)]
pub struct Cursor {
    /// Its position among the rows shown.
    pub index: usize,
    /// Its identity. `None` before the user moves.
    pub id: Option<RowId>,
    /// Position of the first row on the screen.
    pub offset: usize,
}

/// The order of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sort {
    /// Index of the column to sort by. `None` = the snapshot's order, which is the worst first.
    pub column: Option<usize>,
    /// The last row comes first.
    pub reversed: bool,
}
