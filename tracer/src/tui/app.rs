//! What the user is looking at. Keys and frames come in, effects go out; nothing here draws or reaches outside of the process.

mod input;
mod navigation;
mod time_input;

use std::sync::Arc;

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

/// What [`super::terminal`] has to do after a key or a click.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send this to the publisher of the frames.
    Order(ViewOrder),
    /// Write the page into a file.
    Export,
    /// Put this text into the clipboard.
    Copy(String),
    /// Give the terminal back and stop, until the shell goes on with this program.
    Suspend,
    /// End the view.
    Quit,
}

/// What covers a part of the page and takes the keys.
#[derive(Clone, Debug)]
pub enum Overlay {
    /// The help, scrolled by so many lines.
    Help(usize),
    /// The question whether to quit, which would end a recording.
    Quit,
    /// A line that is being typed.
    Prompt(Prompt),
}

/// A page that was visited, with the state of its tables.
#[derive(Clone, Debug)]
struct NavEntry {
    page: Page,
    /// Index in [`Page::panes`] of the table that keys go to.
    pane: usize,
    cursors: Vec<(Pane, Cursor)>,
}

impl NavEntry {
    fn new(page: Page) -> Self {
        Self { page, pane: 0, cursors: Vec::new() }
    }
}

/// The state of a view.
#[derive(Debug)]
pub struct App {
    /// Host, clock and time zone.
    pub trace: TraceInfo,
    /// What is shown: of [`Self::whole`] what is inside of the filter.
    pub frame: Arc<Frame>,
    /// The frame that is shown, as it came.
    pub whole: Arc<Frame>,
    /// The newest frame, if it came while the view was paused.
    pending: Option<Arc<Frame>>,
    /// A live view that keeps its frame. A replay is paused by its publisher.
    pub paused: bool,
    /// The page of the tab.
    root: NavEntry,
    /// The pages entered from there, the shown one last.
    stack: Vec<NavEntry>,
    /// Orders that the user chose.
    sorts: Vec<(Pane, Sort)>,
    filter: Option<Filter>,
    /// The filter as the user wrote it.
    pub filter_text: String,
    /// The filter and its text before the prompt was opened, for Esc.
    filter_before: (Option<Filter>, String),
    /// What covers the page.
    pub overlay: Option<Overlay>,
    /// Shown in place of the keys until the next key.
    pub message: Option<String>,
    /// The rows of the tables of this page.
    pub rows: Rows,
    /// Lines by which the text of the page is scrolled.
    pub scroll: usize,
    hits: HitMap,
    /// The details that the publisher was asked for last.
    requested: DetailRequest,
}

impl App {
    /// A view of the overview page, before the first frame. `filter_text` is `filter` as the user wrote it.
    pub fn new(trace: TraceInfo, filter: Option<Filter>, filter_text: String) -> Self {
        Self {
            trace,
            frame: Arc::new(Frame::default()),
            whole: Arc::new(Frame::default()),
            pending: None,
            paused: false,
            root: NavEntry::new(Page::Overview),
            stack: Vec::new(),
            sorts: Vec::new(),
            filter,
            filter_text,
            filter_before: (None, String::new()),
            overlay: None,
            message: None,
            rows: Rows::default(),
            scroll: 0,
            hits: HitMap::default(),
            requested: DetailRequest::default(),
        }
    }

    /// Takes the newest frame. True if the screen has to be drawn again.
    pub fn accept(&mut self, frame: Arc<Frame>) -> bool {
        if let Some(note) = &frame.status.note {
            self.message = Some(note.to_string());
        }
        if self.paused {
            let changed = self.newest().status != frame.status;
            self.pending = Some(frame);
            // A page that was entered since the pause still gets its details, and the header the state of a recording.
            if self.requested != DetailRequest::default() {
                self.refresh();
            }
            return changed || self.requested != DetailRequest::default();
        }
        self.whole = frame;
        self.refresh();
        true
    }

    /// True if the frames come from a recording.
    pub fn replaying(&self) -> bool {
        self.newest().status.replay.is_some()
    }

    /// The newest frame, shown or not: the header's counters and the recording's state are never those of a paused frame.
    pub fn newest(&self) -> &Frame {
        self.pending.as_deref().unwrap_or(&self.whole)
    }

    fn current(&self) -> &NavEntry {
        self.stack.last().unwrap_or(&self.root)
    }

    fn current_mut(&mut self) -> &mut NavEntry {
        self.stack.last_mut().unwrap_or(&mut self.root)
    }

    /// The page that is shown.
    pub fn page(&self) -> &Page {
        &self.current().page
    }

    /// Index of the tab from which the page was reached.
    pub fn tab(&self) -> usize {
        Page::TABS.iter().position(|tab| *tab == self.root.page).unwrap_or(0)
    }

    /// How many pages were entered from the tab's page.
    pub fn depth(&self) -> usize {
        self.stack.len()
    }

    /// The table that keys go to.
    pub fn pane(&self) -> Pane {
        let current = self.current();
        let panes = current.page.panes();
        panes.get(current.pane).or(panes.first()).copied().unwrap_or(Pane::Workloads)
    }

    /// The selected row of a table of this page.
    pub fn cursor(&self, pane: Pane) -> Cursor {
        self.current().cursors.iter().find(|(of, _)| *of == pane).map(|(_, cursor)| cursor.clone()).unwrap_or_default()
    }

    fn set_cursor(&mut self, pane: Pane, cursor: Cursor) {
        let cursors = &mut self.current_mut().cursors;
        match cursors.iter_mut().find(|(of, _)| *of == pane) {
            Some((_, known)) => *known = cursor,
            None => cursors.push((pane, cursor)),
        }
    }

    /// The order that the user chose for a table.
    pub fn sort(&self, pane: Pane) -> Sort {
        self.row_input().sort(pane)
    }

    fn set_sort(&mut self, pane: Pane, sort: Sort) {
        self.sorts.retain(|(of, _)| *of != pane);
        self.sorts.push((pane, sort));
        self.refresh();
        // The heading shows no order by a column that this terminal is too narrow for.
        let title = sort.column.and_then(|column| self.rows.title(&self.row_input(), pane, column));
        let by = title.map_or_else(|| "in its own order".to_owned(), |title| format!("sorted by {title}"));
        self.message = Some(if sort.reversed { format!("{by}, reversed") } else { by });
    }

    /// The filter that is in force.
    pub fn filter(&self) -> Option<&Filter> {
        self.filter.as_ref()
    }

    /// Every port of a destination. `None` until the publisher has answered; in a paused view, as it was when the page was
    /// entered.
    pub fn destination_detail(&self, place: &DestinationKey) -> Option<&DestinationDetail> {
        self.detail(|frame| frame.details.destination.as_ref().filter(|detail| detail.key == *place))
    }

    /// The distributions of a workload. `None` until the publisher has answered.
    pub fn workload_detail(&self, name: &str) -> Option<&WorkloadDetail> {
        self.detail(|frame| frame.details.workload.as_ref().filter(|detail| &*detail.name == name))
    }

    /// The steps of the flow of this page. `None` on other pages, and until the publisher has answered.
    pub fn flow_detail(&self) -> Option<&FlowDetail> {
        let Page::Flow(key) = self.page() else { return None };
        self.detail(|frame| frame.details.flow.as_ref().filter(|detail| detail.key == *key))
    }

    fn detail<'a, T>(&'a self, of: impl Fn(&'a Frame) -> Option<&'a T>) -> Option<&'a T> {
        of(&self.frame).or_else(|| of(self.pending.as_deref()?))
    }

    /// What the rows of this page are made from.
    pub fn row_input(&self) -> RowInput<'_> {
        let destination = match self.page() {
            Page::Destination(place) => self.destination_detail(place),
            _ => None,
        };
        RowInput {
            frame: &self.frame,
            whole: &self.whole,
            page: self.page(),
            destination,
            flow: self.flow_detail(),
            filter: self.filter.as_ref(),
            sorts: &self.sorts,
        }
    }

    /// What the cells of this page are made from, beside their rows.
    pub fn cell_context(&self, options: RenderOptions) -> CellContext<'_> {
        let owners = self.row_input().destination.map_or(&[][..], |detail| &detail.owners);
        CellContext { snapshot: &self.frame.snapshot, owners, trace: &self.trace, options }
    }

    /// Makes the rows from the shown frame, filter and orders, and finds the selected rows again.
    fn refresh(&mut self) {
        self.frame = match &self.filter {
            None => Arc::clone(&self.whole),
            Some(filter) => {
                let Frame { snapshot, details, status } = &*self.whole;
                let (details, status) = (details.clone(), status.clone());
                Arc::new(Frame { snapshot: filter.narrow(snapshot), details, status })
            }
        };
        self.rows = Rows::new(&self.row_input());
        for &pane in self.page().panes() {
            let mut cursor = self.cursor(pane);
            let len = self.rows.shown(pane).len();
            if let Some(id) = &cursor.id
                && let Some(index) = self.rows.position(&self.row_input(), pane, id)
            {
                cursor.index = index;
            }
            cursor.index = cursor.index.min(len.saturating_sub(1));
            self.set_cursor(pane, cursor);
        }
    }

    /// Takes where the parts of the screen have been drawn.
    pub fn set_hit_map(&mut self, hits: HitMap) {
        for table in &hits.tables {
            let mut cursor = self.cursor(table.pane);
            cursor.offset = table.offset;
            self.set_cursor(table.pane, cursor);
        }
        self.hits = hits;
    }

    /// How many findings of now are warnings or worse.
    pub fn warnings(&self) -> usize {
        let now = self.frame.snapshot.findings.iter().filter(|finding| finding.is_active());
        now.filter(|finding| finding.severity != Severity::Info).count()
    }
}
