//! Which rows the tables of a page have, in which order, and which page is behind a row.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::channel::Frame;
use super::columns::{self, CellContext, Column, HolderRow, TableVisitor};
use super::page::{Page, Pane, RowId, Sort};
use super::row_filter::RowFilter;
use super::row_input::RowInput;
use tracer_core::event::{DestinationKey, FlowKey};
use tracer_core::tracker::snapshot::Finding;

/// The rows of the tables of one page.
#[derive(Debug, Default)]
pub struct Rows {
    /// Per table: indices of the rows shown into what the table shows, and how many there would be without the filter.
    tables: Vec<(Pane, Vec<usize>, usize)>,
    /// Made here, because the snapshot has them process by process.
    holders: Vec<HolderRow>,
}

impl Rows {
    /// Filters and sorts the tables of a page.
    pub fn new(input: &RowInput<'_>) -> Self {
        let mut rows = Self::default();
        if let Page::Destination(place) = input.page {
            rows.holders = holders(input.frame, place);
        }
        let filter = input.filter.map(|filter| RowFilter::new(input.frame, filter));
        for &pane in input.page.panes() {
            let of_page = |input: &RowInput<'_>| -> Vec<usize> {
                (0..rows.visit(input, pane, RowCount)).filter(|&index| is_of_page(input, pane, index)).collect()
            };
            let mut shown = of_page(input);
            let all = match (pane, input.filter) {
                (Pane::Workloads | Pane::Destinations | Pane::Towards | Pane::Findings | Pane::Processes, Some(_)) => {
                    of_page(&RowInput { frame: input.whole, ..*input }).len()
                }
                (Pane::Holders, Some(_)) => match input.page {
                    Page::Destination(place) => holders(input.whole, place).len(),
                    _ => shown.len(),
                },
                _ => shown.len(),
            };
            shown.retain(|&index| filter.as_ref().is_none_or(|filter| filter.keeps(input, &rows.holders, pane, index)));
            let sort = input.sort(pane);
            if sort != Sort::default() {
                rows.visit(input, pane, SortRows { rows: &mut shown, sort });
            }
            rows.tables.push((pane, shown, all));
        }
        rows
    }

    /// The rows of a table, as indices into what [`Self::visit`] gives.
    pub fn shown(&self, pane: Pane) -> &[usize] {
        self.tables.iter().find(|(of, ..)| *of == pane).map_or(&[], |(_, rows, _)| rows)
    }

    /// How many rows a table would have without the filter.
    pub fn unfiltered(&self, pane: Pane) -> usize {
        self.tables.iter().find(|(of, ..)| *of == pane).map_or(0, |(.., all)| *all)
    }

    /// Visits a table with all that it could show, unfiltered and unsorted.
    pub fn visit<V: TableVisitor>(&self, input: &RowInput<'_>, pane: Pane, visitor: V) -> V::Out {
        let snapshot = &input.frame.snapshot;
        match pane {
            Pane::Workloads => visitor.table(&snapshot.workloads, columns::WORKLOADS),
            Pane::Destinations => visitor.table(&snapshot.destinations, columns::DESTINATIONS),
            Pane::Findings => visitor.table(&snapshot.findings, columns::FINDINGS),
            Pane::Failures => visitor.table(&input.frame.details.failures, columns::FAILURES),
            Pane::Processes => {
                visitor.table(input.workload().map_or(&[], |workload| workload.pids.as_slice()), columns::PROCESSES)
            }
            Pane::Towards => visitor.table(&snapshot.attributions, columns::TOWARDS),
            Pane::Holders => visitor.table(&self.holders, columns::HOLDERS),
            Pane::Flows => {
                visitor.table(input.destination.map_or(&[], |detail| detail.used.as_slice()), columns::FLOWS)
            }
            Pane::Steps => visitor.table(input.flow.map_or(&[], |flow| flow.steps.as_slice()), columns::STEPS),
        }
    }

    /// The identity of the row at this position.
    pub fn id(&self, input: &RowInput<'_>, pane: Pane, position: usize) -> Option<RowId> {
        self.id_at(input, pane, *self.shown(pane).get(position)?)
    }

    fn id_at(&self, input: &RowInput<'_>, pane: Pane, index: usize) -> Option<RowId> {
        let snapshot = &input.frame.snapshot;
        Some(match pane {
            Pane::Workloads => RowId::Workload(Arc::clone(&snapshot.workloads.get(index)?.name)),
            Pane::Destinations => RowId::Destination(snapshot.destinations.get(index)?.key()),
            Pane::Findings => {
                let finding = snapshot.findings.get(index)?;
                RowId::Finding(finding.id, finding.subject.clone(), finding.life.began)
            }
            Pane::Failures => {
                let failed = &input.frame.details.failures.get(index)?.failed;
                RowId::Failure(failed.ktime, failed.tid)
            }
            Pane::Processes => RowId::Process(input.workload()?.pids.get(index)?.pid),
            Pane::Towards => {
                let towards = snapshot.attributions.get(index)?;
                RowId::Towards(towards.pid, towards.key())
            }
            Pane::Holders => RowId::Workload(Arc::clone(&self.holders.get(index)?.workload)),
            Pane::Flows => RowId::Flow(input.destination?.used.get(index)?.port),
            Pane::Steps => RowId::Step(index),
        })
    }

    /// The present position of a row.
    pub fn position(&self, input: &RowInput<'_>, pane: Pane, id: &RowId) -> Option<usize> {
        self.shown(pane).iter().position(|&index| self.id_at(input, pane, index).as_ref() == Some(id))
    }

    /// The page that Enter opens on the row at this position.
    pub fn page_behind(&self, input: &RowInput<'_>, pane: Pane, position: usize) -> Option<Page> {
        let index = *self.shown(pane).get(position)?;
        let frame = input.frame;
        match pane {
            Pane::Workloads | Pane::Holders => match self.id_at(input, pane, index)? {
                RowId::Workload(name) => Some(Page::Workload(name)),
                _ => None,
            },
            Pane::Destinations => Some(Page::Destination(frame.snapshot.destinations.get(index)?.key())),
            Pane::Towards => Some(Page::Destination(frame.snapshot.attributions.get(index)?.key())),
            Pane::Failures => {
                let key = &frame.details.failures.get(index)?.failed.key;
                // A bind() without a port fails before there is a destination.
                (key.remote.port != 0).then(|| Page::Destination(DestinationKey::from(key)))
            }
            Pane::Findings => page_of_finding(frame, frame.snapshot.findings.get(index)?),
            Pane::Flows => {
                let Page::Destination(place) = input.page else { return None };
                let port = input.destination?.used.get(index)?.port;
                Some(Page::Flow(FlowKey {
                    device: 0,
                    netns: place.netns,
                    local: tracer_core::event::Endpoint { addr: place.local_addr, port },
                    remote: tracer_core::event::Endpoint { addr: place.remote_addr, port: place.remote_port },
                }))
            }
            Pane::Processes | Pane::Steps => None,
        }
    }

    /// Indices of the columns that a table can be sorted by.
    pub fn sortable(&self, input: &RowInput<'_>, pane: Pane) -> Vec<usize> {
        self.visit(input, pane, SortableColumns)
    }

    /// The heading of a column.
    pub fn title(&self, input: &RowInput<'_>, pane: Pane, column: usize) -> Option<&'static str> {
        self.visit(input, pane, ColumnTitle(column))
    }

    /// The row at this position as one line of text, its cells separated by tabs.
    pub fn text_of(
        &self,
        input: &RowInput<'_>,
        context: CellContext<'_>,
        pane: Pane,
        position: usize,
    ) -> Option<String> {
        let index = *self.shown(pane).get(position)?;
        Some(self.visit(input, pane, RowText { index, context }))
    }
}

/// The destination or the workload that a finding is about.
fn page_of_finding(frame: &Frame, finding: &Finding) -> Option<Page> {
    let snapshot = &frame.snapshot;
    let known = |key: &DestinationKey| snapshot.destinations.iter().any(|destination| destination.key() == *key);
    let destination = finding.subject.destination().filter(known);
    destination.map(Page::Destination).or_else(|| {
        let name = finding.subject.workload()?;
        let known = snapshot.workloads.iter().any(|workload| workload.name == *name);
        known.then(|| Page::Workload(Arc::clone(name)))
    })
}

/// The workloads that hold ports of `place`, or fail for lack of one: most ports first.
fn holders(frame: &Frame, place: &DestinationKey) -> Vec<HolderRow> {
    let mut by_name: BTreeMap<&str, HolderRow> = BTreeMap::new();
    for attribution in frame.snapshot.attributions.iter().filter(|attribution| attribution.key() == *place) {
        let row = by_name.entry(&attribution.workload).or_insert_with(|| HolderRow {
            workload: Arc::clone(&attribution.workload),
            inferred: true,
            ..HolderRow::default()
        });
        row.ports = row.ports.saturating_add(attribution.ports_held);
        row.time_wait = row.time_wait.saturating_add(attribution.time_wait.now);
        row.failed = row.failed.saturating_add(attribution.failed.without_port());
        row.connects = row.connects.saturating_add(attribution.connects);
        row.processes += 1;
        row.inferred &= attribution.inferred;
    }
    let mut rows: Vec<HolderRow> = by_name.into_values().collect();
    rows.sort_by(|a, b| (b.ports, b.failed).cmp(&(a.ports, a.failed)).then_with(|| a.workload.cmp(&b.workload)));
    rows
}

/// True unless the page is about only a part of what the table could show.
fn is_of_page(input: &RowInput<'_>, pane: Pane, index: usize) -> bool {
    match (pane, input.page) {
        (Pane::Towards, Page::Workload(name)) => input
            .frame
            .snapshot
            .attributions
            .get(index)
            // What a workload does with accepted flows is one entry without a destination.
            .is_some_and(|attribution| attribution.workload == *name && attribution.remote_port != 0),
        _ => true,
    }
}

struct RowCount;

impl TableVisitor for RowCount {
    type Out = usize;
    fn table<T>(self, items: &[T], _: &'static [Column<T>]) -> usize {
        items.len()
    }
}

struct SortableColumns;

impl TableVisitor for SortableColumns {
    type Out = Vec<usize>;
    fn table<T>(self, _: &[T], columns: &'static [Column<T>]) -> Vec<usize> {
        columns.iter().enumerate().filter(|(_, column)| column.order.is_some()).map(|(index, _)| index).collect()
    }
}

struct ColumnTitle(usize);

impl TableVisitor for ColumnTitle {
    type Out = Option<&'static str>;
    fn table<T>(self, _: &[T], columns: &'static [Column<T>]) -> Option<&'static str> {
        columns.get(self.0).map(|column| column.title)
    }
}

struct SortRows<'a> {
    rows: &'a mut Vec<usize>,
    sort: Sort,
}

impl TableVisitor for SortRows<'_> {
    type Out = ();
    fn table<T>(self, items: &[T], columns: &'static [Column<T>]) {
        let order = self.sort.column.and_then(|column| columns.get(column)).and_then(|column| column.order);
        if let Some(order) = order {
            self.rows.sort_by(|&a, &b| match (items.get(a), items.get(b)) {
                (Some(a), Some(b)) => order(a, b),
                _ => Ordering::Equal,
            });
        }
        if self.sort.reversed {
            self.rows.reverse();
        }
    }
}

struct RowText<'a> {
    index: usize,
    context: CellContext<'a>,
}

impl TableVisitor for RowText<'_> {
    type Out = String;
    fn table<T>(self, items: &[T], columns: &'static [Column<T>]) -> String {
        let Some(item) = items.get(self.index) else { return String::new() };
        let texts = columns.iter().filter(|column| column.align != columns::Alignment::Picture);
        let cells = texts.map(|column| {
            let cell = (column.cell)(item, &self.context, usize::from(column.width));
            cell.into_iter().map(|(_, text)| text).collect::<String>().trim().to_owned()
        });
        cells.collect::<Vec<_>>().join("\t")
    }
}
