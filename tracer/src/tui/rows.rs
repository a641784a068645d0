//! Which rows the tables of a page have, in which order, and what they stand for.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::app::{App, Page, Pane, RowId, Sort};
use super::channel::Frame;
use super::columns::{self, CellContext, Column, HolderRow};
use tracer_core::event::{DestinationKey, FlowKey};
use tracer_core::filter::{Filter, Subject};
use tracer_core::tracker::snapshot::detail::{DestinationDetail, FailureRecord, PortUse};
use tracer_core::tracker::snapshot::{Destination, Finding, Owner, Workload};

/// A table of any kind, for whoever treats them alike.
pub trait TableVisitor {
    type Out;
    fn table<T>(self, items: &[T], columns: &'static [Column<T>]) -> Self::Out;
}

/// Rows of the tables of one page, as places in what the tables show.
#[derive(Debug, Default)]
pub struct Rows {
    /// Rows shown, and how many there would be without the filter.
    tables: Vec<(Pane, Vec<usize>, usize)>,
    holders: Vec<HolderRow>,
    steps: Vec<tracer_core::tracker::snapshot::detail::FlowStep>,
}

impl Rows {
    pub fn new(app: &App) -> Self {
        let mut rows = Self::default();
        if let Page::Destination(place) = app.page() {
            rows.holders = holders(&app.frame, place);
        }
        if let Some(flow) = app.flow_detail() {
            rows.steps.clone_from(&flow.steps);
        }
        let row_filter = app.filter().map(|filter| RowFilter::new(&app.frame, filter));
        for &pane in app.page().panes() {
            let mut shown: Vec<usize> =
                (0..rows.visit(app, pane, Len)).filter(|&index| belongs(app, pane, index)).collect();
            let all = shown.len();
            shown.retain(|&index| {
                row_filter.as_ref().is_none_or(|row_filter| row_filter.keeps(app, &rows, pane, index))
            });
            let sort = app.sort(pane);
            if sort != Sort::default() {
                rows.visit(app, pane, Sorting { rows: &mut shown, sort });
            }
            rows.tables.push((pane, shown, all));
        }
        rows
    }

    /// The rows of a table, as indices into what it shows.
    pub fn of(&self, pane: Pane) -> &[usize] {
        self.tables.iter().find(|(of, ..)| *of == pane).map_or(&[], |(_, rows, _)| rows)
    }

    /// How many rows a table would have without the filter.
    pub fn all(&self, pane: Pane) -> usize {
        self.tables.iter().find(|(of, ..)| *of == pane).map_or(0, |(.., all)| *all)
    }

    /// All that a table shows, unfiltered, with its columns.
    pub fn visit<V: TableVisitor>(&self, app: &App, pane: Pane, visitor: V) -> V::Out {
        let snapshot = &app.frame.snapshot;
        match pane {
            Pane::Workloads => visitor.table(&snapshot.workloads, columns::WORKLOADS),
            Pane::Destinations => visitor.table(&snapshot.destinations, columns::DESTINATIONS),
            Pane::Findings => visitor.table(&snapshot.findings, columns::FINDINGS),
            Pane::Failures => visitor.table(&app.frame.details.failures, columns::FAILURES),
            Pane::Processes => {
                visitor.table(workload(app).map_or(&[], |workload| workload.pids.as_slice()), columns::PROCESSES)
            }
            Pane::Towards => visitor.table(&snapshot.attributions, columns::TOWARDS),
            Pane::Holders => visitor.table(&self.holders, columns::HOLDERS),
            Pane::Flows => visitor.table(destination(app).map_or(&[], |detail| detail.used.as_slice()), columns::FLOWS),
            Pane::Steps => visitor.table(&self.steps, columns::STEPS),
        }
    }

    /// What the row is, whatever its place.
    pub fn id(&self, app: &App, pane: Pane, row: usize) -> Option<RowId> {
        self.name(app, pane, *self.of(pane).get(row)?)
    }

    fn name(&self, app: &App, pane: Pane, index: usize) -> Option<RowId> {
        let snapshot = &app.frame.snapshot;
        Some(match pane {
            Pane::Workloads => RowId::Workload(Arc::clone(&snapshot.workloads.get(index)?.name)),
            Pane::Destinations => RowId::Destination(snapshot.destinations.get(index)?.key()),
            Pane::Findings => {
                let finding = snapshot.findings.get(index)?;
                RowId::Finding(finding.id, subject_of(finding))
            }
            Pane::Failures => {
                let failed = &app.frame.details.failures.get(index)?.failed;
                RowId::Failure(failed.ktime, failed.tid)
            }
            Pane::Processes => RowId::Process(workload(app)?.pids.get(index)?.pid),
            Pane::Towards => {
                let towards = snapshot.attributions.get(index)?;
                RowId::Towards(towards.pid, towards.key())
            }
            Pane::Holders => RowId::Workload(Arc::clone(&self.holders.get(index)?.workload)),
            Pane::Flows => RowId::Flow(destination(app)?.used.get(index)?.port),
            Pane::Steps => RowId::Step(index),
        })
    }

    /// Where a row has gone.
    pub fn position(&self, app: &App, pane: Pane, id: &RowId) -> Option<usize> {
        self.of(pane).iter().position(|&index| self.name(app, pane, index).as_ref() == Some(id))
    }

    /// The page behind a row.
    pub fn leads_to(&self, app: &App, pane: Pane, row: usize) -> Option<Page> {
        let index = *self.of(pane).get(row)?;
        let frame = &app.frame;
        match pane {
            Pane::Workloads | Pane::Holders => match self.name(app, pane, index)? {
                RowId::Workload(name) => Some(Page::Workload(name)),
                _ => None,
            },
            Pane::Destinations => Some(Page::Destination(frame.snapshot.destinations.get(index)?.key())),
            Pane::Towards => Some(Page::Destination(frame.snapshot.attributions.get(index)?.key())),
            Pane::Failures => {
                let key = &frame.details.failures.get(index)?.failed.key;
                // bind(port 0) has no destination.
                (key.remote.port != 0).then(|| Page::Destination(DestinationKey::from(key)))
            }
            Pane::Findings => behind(frame, frame.snapshot.findings.get(index)?),
            Pane::Flows => {
                let Page::Destination(place) = app.page() else { return None };
                let port = destination(app)?.used.get(index)?.port;
                Some(Page::Flow(FlowKey {
                    netns: place.netns,
                    device: 0,
                    local: tracer_core::event::Endpoint { addr: place.local_addr, port },
                    remote: tracer_core::event::Endpoint { addr: place.remote_addr, port: place.remote_port },
                }))
            }
            Pane::Processes | Pane::Steps => None,
        }
    }

    /// Columns that can be sorted by.
    pub fn sortable(&self, app: &App, pane: Pane) -> Vec<usize> {
        self.visit(app, pane, Sortable)
    }

    /// What a column is called.
    pub fn title(&self, app: &App, pane: Pane, column: usize) -> Option<&'static str> {
        self.visit(app, pane, Title(column))
    }

    /// A row as one line of text, its cells separated by tabs.
    pub fn text_of(&self, app: &App, pane: Pane, row: usize) -> Option<String> {
        let index = *self.of(pane).get(row)?;
        let options = super::RenderOptions { colour: false, unicode: true, zone: app.zone().clone() };
        let context = context(app, &options);
        Some(self.visit(app, pane, Line { index, context }))
    }
}

/// What cells look at.
pub fn context<'a>(app: &'a App, options: &'a super::RenderOptions) -> CellContext<'a> {
    let owners: &[Owner] = destination(app).map_or(&[], |detail| &detail.owners);
    CellContext { snapshot: &app.frame.snapshot, owners, trace: &app.trace, options }
}

/// The workload of this page.
pub fn workload(app: &App) -> Option<&Workload> {
    let Page::Workload(name) = app.page() else { return None };
    app.frame.snapshot.workloads.iter().find(|workload| workload.name == *name)
}

/// The ports of this page.
fn destination(app: &App) -> Option<&DestinationDetail> {
    let Page::Destination(place) = app.page() else { return None };
    app.destination_detail(place)
}

/// What of a finding does not change while its numbers do.
fn subject_of(finding: &Finding) -> String {
    ["netns", "local_addr", "remote_addr", "remote_port", "workload", "port"]
        .iter()
        .filter_map(|name| finding.evidence.get(name))
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" ")
}

/// The destination or the workload that a finding is about.
fn behind(frame: &Frame, finding: &Finding) -> Option<Page> {
    let text = |name| finding.evidence.get(name).and_then(serde_json::Value::as_str);
    let port = finding.evidence.get("remote_port").and_then(serde_json::Value::as_u64);
    let fits = |place: &DestinationKey| {
        text("remote_addr").is_some_and(|addr| addr == place.remote_addr.to_string())
            && text("local_addr").is_none_or(|addr| addr == place.local_addr.to_string())
            && port == Some(u64::from(place.remote_port))
    };
    let place = frame.snapshot.destinations.iter().map(Destination::key).find(fits);
    place.map(Page::Destination).or_else(|| {
        let name = text("workload")?;
        let known = frame.snapshot.workloads.iter().find(|workload| &*workload.name == name)?;
        Some(Page::Workload(Arc::clone(&known.name)))
    })
}

/// Who holds ports of `place`, or fails for lack of one.
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
        row.failed = row.failed.saturating_add(columns::exhausted(&attribution.failed));
        row.connects = row.connects.saturating_add(attribution.connects);
        row.processes += 1;
        row.inferred &= attribution.inferred;
    }
    let mut rows: Vec<HolderRow> = by_name.into_values().collect();
    rows.sort_by(|a, b| (b.ports, b.failed).cmp(&(a.ports, a.failed)).then_with(|| a.workload.cmp(&b.workload)));
    rows
}

/// Tables of a page that show only part of what they could.
fn belongs(app: &App, pane: Pane, index: usize) -> bool {
    match (pane, app.page()) {
        (Pane::Towards, Page::Workload(name)) => app
            .frame
            .snapshot
            .attributions
            .get(index)
            // Accepted flows have no destination of ours.
            .is_some_and(|attribution| attribution.workload == *name && attribution.remote_port != 0),
        _ => true,
    }
}

/// What a filter keeps of a frame.
struct RowFilter<'a> {
    filter: &'a Filter,
    workloads: FxHashMap<&'a str, &'a Workload>,
    /// Named by something that matches.
    kept_workloads: FxHashSet<&'a str>,
    kept_places: FxHashSet<DestinationKey>,
}

impl<'a> RowFilter<'a> {
    fn new(frame: &'a Frame, filter: &'a Filter) -> Self {
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

    fn keeps(&self, app: &App, rows: &Rows, pane: Pane, index: usize) -> bool {
        let snapshot = &app.frame.snapshot;
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
                    let process = workload(app)?.pids.get(index)?;
                    let subject =
                        Subject { pid: Some(process.pid), failed: Some(&process.failed), ..Subject::default() };
                    // Whom else the filter asks for is decided by what the process does.
                    let does = snapshot.attributions.iter().filter(|towards| towards.pid == process.pid);
                    self.matches(subject, &workload(app)?.name)
                        || does.into_iter().any(|towards| self.matches(Subject::from(towards), &towards.workload))
                }
                Pane::Holders => self.kept_workloads.contains(&*rows.holders.get(index)?.workload),
                Pane::Failures => self.keeps_failure(app.frame.details.failures.get(index)?),
                Pane::Flows => self.keeps_flow(destination(app)?, destination(app)?.used.get(index)?),
                // A finding is about the whole; a flow's steps are one thing.
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

struct Len;

impl TableVisitor for Len {
    type Out = usize;
    fn table<T>(self, items: &[T], _: &'static [Column<T>]) -> usize {
        items.len()
    }
}

struct Sortable;

impl TableVisitor for Sortable {
    type Out = Vec<usize>;
    fn table<T>(self, _: &[T], columns: &'static [Column<T>]) -> Vec<usize> {
        columns.iter().enumerate().filter(|(_, column)| column.order.is_some()).map(|(index, _)| index).collect()
    }
}

struct Title(usize);

impl TableVisitor for Title {
    type Out = Option<&'static str>;
    fn table<T>(self, _: &[T], columns: &'static [Column<T>]) -> Option<&'static str> {
        columns.get(self.0).map(|column| column.title)
    }
}

struct Sorting<'a> {
    rows: &'a mut Vec<usize>,
    sort: Sort,
}

impl TableVisitor for Sorting<'_> {
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

struct Line<'a> {
    index: usize,
    context: CellContext<'a>,
}

impl TableVisitor for Line<'_> {
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
