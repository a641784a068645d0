//! What the user is looking at. It never draws, and it reaches nothing: keys and frames come in, effects go out.

mod input;
mod navigation;
mod time_input;

use std::sync::Arc;

use jiff::tz::TimeZone;

use super::channel::{Frame, ViewOrder};
use super::columns::CellContext;
use super::hit_map::HitMap;
use super::options::{RenderOptions, TraceInfo};
use super::page::{Cursor, Page, Pane, Sort};
use super::prompt::Prompt;
use super::row_input::RowInput;
use super::rows::Rows;
use tracer_core::event::DestinationKey;
use tracer_core::filter::Filter;
use tracer_core::tracker::snapshot::Severity;
use tracer_core::tracker::snapshot::detail::{DestinationDetail, DetailRequest, FlowDetail, WorkloadDetail};

/// What a key or a click leads to outside of the view.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Order(ViewOrder),
    /// Write what is shown into a file.
    Export,
    /// Put this into the clipboard.
    Copy(String),
    Quit,
}

/// What lies over the page.
#[derive(Clone, Debug)]
pub enum Overlay {
    /// Lines scrolled.
    Help(usize),
    /// Quitting would end a recording: really?
    Quit,
    Prompt(Prompt),
}

/// One page with its tables.
#[derive(Clone, Debug)]
pub struct NavEntry {
    pub page: Page,
    /// The table that keys go to.
    pub pane: usize,
    cursors: Vec<(Pane, Cursor)>,
}

impl NavEntry {
    fn new(page: Page) -> Self {
        Self { page, pane: 0, cursors: Vec::new() }
    }
}

/// The state.
#[derive(Debug)]
pub struct App {
    pub trace: TraceInfo,
    /// In which times are typed.
    zone: TimeZone,
    /// What is shown.
    pub frame: Arc<Frame>,
    /// What came while the view was paused.
    later: Option<Arc<Frame>>,
    /// A live view that stands still.
    pub frozen: bool,
    /// The page that a tab leads to.
    base: NavEntry,
    /// The way from there to where one is.
    deeper: Vec<NavEntry>,
    sorts: Vec<(Pane, Sort)>,
    filter: Option<Filter>,
    /// As typed; shown even while it is not understood yet.
    pub filter_text: String,
    /// The filter before the prompt was opened.
    before: (Option<Filter>, String),
    pub overlay: Option<Overlay>,
    /// Something to say until the next key.
    pub message: Option<String>,
    pub rows: Rows,
    /// Lines that the text of the page is scrolled by.
    pub scroll: usize,
    hits: HitMap,
    wish: DetailRequest,
}

impl App {
    pub fn new(trace: TraceInfo, zone: TimeZone, filter: Option<Filter>, filter_text: String) -> Self {
        Self {
            trace,
            zone,
            frame: Arc::new(Frame::default()),
            later: None,
            frozen: false,
            base: NavEntry::new(Page::Overview),
            deeper: Vec::new(),
            sorts: Vec::new(),
            filter,
            filter_text,
            before: (None, String::new()),
            overlay: None,
            message: None,
            rows: Rows::default(),
            scroll: 0,
            hits: HitMap::default(),
            wish: DetailRequest::default(),
        }
    }

    /// A frame has come. True if the screen changes.
    pub fn accept(&mut self, frame: Arc<Frame>) -> bool {
        if let Some(note) = &frame.status.note {
            self.message = Some(note.to_string());
        }
        if self.frozen {
            let changed = self.newest().status != frame.status;
            self.later = Some(frame);
            // What was drilled into since still comes, and so does how the recording goes.
            if self.wish != DetailRequest::default() {
                self.refresh();
            }
            return changed || self.wish != DetailRequest::default();
        }
        self.frame = frame;
        self.refresh();
        true
    }

    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    pub fn replaying(&self) -> bool {
        self.newest().status.replay.is_some()
    }

    /// The newest frame, shown or not: what goes on around the trace is always told as it is now.
    pub fn newest(&self) -> &Frame {
        self.later.as_deref().unwrap_or(&self.frame)
    }

    fn here(&self) -> &NavEntry {
        self.deeper.last().unwrap_or(&self.base)
    }

    fn here_mut(&mut self) -> &mut NavEntry {
        self.deeper.last_mut().unwrap_or(&mut self.base)
    }

    pub fn page(&self) -> &Page {
        &self.here().page
    }

    /// Which tab the page was reached from.
    pub fn tab(&self) -> usize {
        Page::TABS.iter().position(|tab| *tab == self.base.page).unwrap_or(0)
    }

    pub fn depth(&self) -> usize {
        self.deeper.len()
    }

    /// The table that keys go to.
    pub fn pane(&self) -> Pane {
        let here = self.here();
        let panes = here.page.panes();
        panes.get(here.pane).or(panes.first()).copied().unwrap_or(Pane::Workloads)
    }

    pub fn cursor(&self, pane: Pane) -> Cursor {
        self.here().cursors.iter().find(|(of, _)| *of == pane).map(|(_, cursor)| cursor.clone()).unwrap_or_default()
    }

    fn set_cursor(&mut self, pane: Pane, cursor: Cursor) {
        let cursors = &mut self.here_mut().cursors;
        match cursors.iter_mut().find(|(of, _)| *of == pane) {
            Some((_, known)) => *known = cursor,
            None => cursors.push((pane, cursor)),
        }
    }

    pub fn sort(&self, pane: Pane) -> Sort {
        self.row_input().sort(pane)
    }

    fn set_sort(&mut self, pane: Pane, sort: Sort) {
        self.sorts.retain(|(of, _)| *of != pane);
        self.sorts.push((pane, sort));
        self.refresh();
        // Of a column that this terminal is too narrow for, the heading cannot tell.
        let title = sort.column.and_then(|column| self.rows.title(&self.row_input(), pane, column));
        let by = title.map_or_else(|| "in its own order".to_owned(), |title| format!("sorted by {title}"));
        self.message = Some(if sort.reversed { format!("{by}, reversed") } else { by });
    }

    pub fn filter(&self) -> Option<&Filter> {
        self.filter.as_ref()
    }

    /// Port by port, if it has been told yet. While the view stands still: as it was when the page was opened.
    pub fn destination_detail(&self, place: &DestinationKey) -> Option<&DestinationDetail> {
        self.detail(|frame| frame.details.destination.as_ref().filter(|detail| detail.key == *place))
    }

    pub fn workload_detail(&self, name: &str) -> Option<&WorkloadDetail> {
        self.detail(|frame| frame.details.workload.as_ref().filter(|detail| &*detail.name == name))
    }

    pub fn flow_detail(&self) -> Option<&FlowDetail> {
        let Page::Flow(key) = self.page() else { return None };
        self.detail(|frame| frame.details.flow.as_ref().filter(|detail| detail.key == *key))
    }

    fn detail<'a, T>(&'a self, of: impl Fn(&'a Frame) -> Option<&'a T>) -> Option<&'a T> {
        of(&self.frame).or_else(|| of(self.later.as_deref()?))
    }

    /// What the rows of this page are made from.
    pub fn row_input(&self) -> RowInput<'_> {
        let destination = match self.page() {
            Page::Destination(place) => self.destination_detail(place),
            _ => None,
        };
        RowInput {
            frame: &self.frame,
            page: self.page(),
            destination,
            flow: self.flow_detail(),
            filter: self.filter.as_ref(),
            sorts: &self.sorts,
        }
    }

    /// What the cells of this page are made from, beside their rows.
    pub fn cell_context<'a>(&'a self, options: &'a RenderOptions) -> CellContext<'a> {
        let owners = self.row_input().destination.map_or(&[][..], |detail| &detail.owners);
        CellContext { snapshot: &self.frame.snapshot, owners, trace: &self.trace, options }
    }

    /// Rows by the present frame, filter and order; selected rows are found again.
    pub fn refresh(&mut self) {
        self.rows = Rows::new(&self.row_input());
        for &pane in self.page().panes() {
            let mut cursor = self.cursor(pane);
            let len = self.rows.of(pane).len();
            if let Some(id) = &cursor.id
                && let Some(index) = self.rows.position(&self.row_input(), pane, id)
            {
                cursor.index = index;
            }
            cursor.index = cursor.index.min(len.saturating_sub(1));
            self.set_cursor(pane, cursor);
        }
    }

    /// The screen has been drawn like this.
    pub fn drawn(&mut self, hits: HitMap) {
        for table in &hits.tables {
            let mut cursor = self.cursor(table.pane);
            cursor.offset = table.offset;
            self.set_cursor(table.pane, cursor);
        }
        self.hits = hits;
    }

    /// How many findings are worse than information.
    pub fn alarms(&self) -> usize {
        self.frame.snapshot.findings.iter().filter(|finding| finding.severity != Severity::Info).count()
    }
}
