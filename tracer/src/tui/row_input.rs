//! What the rows of a page are made from.

use super::channel::Frame;
use super::page::{Page, Pane, Sort};
use tracer_core::filter::Filter;
use tracer_core::tracker::snapshot::Workload;
use tracer_core::tracker::snapshot::detail::{DestinationDetail, FlowDetail};

/// One frame as one page shows it: everything that the rows of its tables depend on.
#[derive(Clone, Copy)]
pub struct RowInput<'a> {
    /// The frame that is shown.
    pub frame: &'a Frame,
    /// The same without the filter.
    pub whole: &'a Frame,
    /// The page that is shown.
    pub page: &'a Page,
    /// Every port of the destination of this page. `None` on other pages, and until the tracker has answered.
    pub destination: Option<&'a DestinationDetail>,
    /// The steps of the flow of this page. `None` on other pages, and until the tracker has answered.
    pub flow: Option<&'a FlowDetail>,
    /// Rows that it does not match are left out.
    pub filter: Option<&'a Filter>,
    /// Orders that the user chose; a table that is not listed keeps the snapshot's order.
    pub sorts: &'a [(Pane, Sort)],
}

impl<'a> RowInput<'a> {
    /// The workload of this page, if it is still known.
    pub fn workload(&self) -> Option<&'a Workload> {
        let Page::Workload(name) = self.page else { return None };
        self.frame.snapshot.workloads.iter().find(|workload| workload.name == *name)
    }

    /// The order of a table.
    pub fn sort(&self, pane: Pane) -> Sort {
        self.sorts.iter().find(|(of, _)| *of == pane).map(|(_, sort)| *sort).unwrap_or_default()
    }
}
