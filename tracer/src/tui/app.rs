//! What the user is looking at. It never draws, and it reaches nothing: keys and frames come in, effects go out.

mod seek;

use std::sync::Arc;

use crossterm::event::{KeyCode, KeyEvent, MouseButton, MouseEvent, MouseEventKind};
use jiff::tz::TimeZone;
use ratatui::layout::{Position, Rect};

use super::About;
use super::feed::{Frame, Order};
use super::keys::{self, Action};
pub use super::page::{Cursor, Page, Pane, RowId, Sort};
use super::prompt::{Prompt, Purpose, Typed};
use super::rows::Rows;
use crate::filter::Filter;
use crate::tracker::snapshot::Severity;
use crate::tracker::snapshot::detail::{DestinationDetail, FlowDetail, Place, Wish, WorkloadDetail};

/// Rows that one turn of the wheel moves.
const WHEEL_ROWS: isize = 3;
/// Lines that a page key scrolls text by.
const SCROLL_LINES: isize = 8;
/// Pages deep: overview, workload, destination, workload ... nobody goes further on purpose.
const MAX_DEPTH: usize = 32;

/// What a key or a click leads to outside of the view.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Order(Order),
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
pub struct Spot {
    pub page: Page,
    /// The table that keys go to.
    pub pane: usize,
    cursors: Vec<(Pane, Cursor)>,
}

impl Spot {
    fn new(page: Page) -> Self {
        Self { page, pane: 0, cursors: Vec::new() }
    }
}

/// Where things were drawn, for the mouse and for paging.
#[derive(Clone, Debug, Default)]
pub struct Hits {
    pub tabs: Vec<(Rect, usize)>,
    pub tables: Vec<TableHit>,
    /// How far the text of the page can be scrolled.
    pub scroll: usize,
}

/// Where a table was drawn.
#[derive(Clone, Copy, Debug)]
pub struct TableHit {
    pub pane: Pane,
    /// With its heading.
    pub area: Rect,
    /// Rows alone.
    pub rows: Rect,
    /// Index of the first row shown.
    pub offset: usize,
}

/// The state.
#[derive(Debug)]
pub struct App {
    pub about: About,
    /// In which times are typed.
    zone: TimeZone,
    /// What is shown.
    pub frame: Arc<Frame>,
    /// What came while the view was paused.
    later: Option<Arc<Frame>>,
    /// A live view that stands still.
    pub frozen: bool,
    /// The page that a tab leads to.
    base: Spot,
    /// The way from there to where one is.
    deeper: Vec<Spot>,
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
    hits: Hits,
    wish: Wish,
}

impl App {
    pub fn new(about: About, zone: TimeZone, filter: Option<Filter>, filter_text: String) -> Self {
        Self {
            about,
            zone,
            frame: Arc::new(Frame::default()),
            later: None,
            frozen: false,
            base: Spot::new(Page::Overview),
            deeper: Vec::new(),
            sorts: Vec::new(),
            filter,
            filter_text,
            before: (None, String::new()),
            overlay: None,
            message: None,
            rows: Rows::default(),
            scroll: 0,
            hits: Hits::default(),
            wish: Wish::default(),
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
            if self.wish != Wish::default() {
                self.refresh();
            }
            return changed || self.wish != Wish::default();
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

    fn here(&self) -> &Spot {
        self.deeper.last().unwrap_or(&self.base)
    }

    fn here_mut(&mut self) -> &mut Spot {
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
        self.sorts.iter().find(|(of, _)| *of == pane).map(|(_, sort)| *sort).unwrap_or_default()
    }

    fn set_sort(&mut self, pane: Pane, sort: Sort) {
        self.sorts.retain(|(of, _)| *of != pane);
        self.sorts.push((pane, sort));
        self.refresh();
    }

    pub fn filter(&self) -> Option<&Filter> {
        self.filter.as_ref()
    }

    /// Port by port, if it has been told yet. While the view stands still: as it was when the page was opened.
    pub fn destination_detail(&self, place: &Place) -> Option<&DestinationDetail> {
        self.detail(|frame| frame.details.destination.as_ref().filter(|detail| detail.place == *place))
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

    /// Rows by the present frame, filter and order; selected rows are found again.
    pub fn refresh(&mut self) {
        self.rows = Rows::new(self);
        for &pane in self.page().panes() {
            let mut cursor = self.cursor(pane);
            let len = self.rows.of(pane).len();
            if let Some(id) = &cursor.id
                && let Some(index) = self.rows.position(self, pane, id)
            {
                cursor.index = index;
            }
            cursor.index = cursor.index.min(len.saturating_sub(1));
            self.set_cursor(pane, cursor);
        }
    }

    /// The screen has been drawn like this.
    pub fn drawn(&mut self, hits: Hits) {
        for table in &hits.tables {
            let mut cursor = self.cursor(table.pane);
            cursor.offset = table.offset;
            self.set_cursor(table.pane, cursor);
        }
        self.hits = hits;
    }

    /// A key was pressed.
    pub fn key(&mut self, key: &KeyEvent) -> Vec<Effect> {
        self.message = None;
        let effects = match self.overlay.take() {
            None => match keys::action(key, self.replaying()) {
                Some(action) => self.act(action),
                None => Vec::new(),
            },
            Some(Overlay::Help(line)) => {
                self.help_key(key, line);
                Vec::new()
            }
            Some(Overlay::Quit) => match key.code {
                KeyCode::Char('y' | 'Y') | KeyCode::Enter => vec![Effect::Quit],
                _ => Vec::new(),
            },
            Some(Overlay::Prompt(prompt)) => self.prompt_key(prompt, key),
        };
        self.with_wish(effects)
    }

    /// The mouse did something.
    pub fn mouse(&mut self, event: &MouseEvent) -> Vec<Effect> {
        let at = Position::new(event.column, event.row);
        let wheel = match event.kind {
            MouseEventKind::ScrollDown => WHEEL_ROWS,
            MouseEventKind::ScrollUp => -WHEEL_ROWS,
            MouseEventKind::Down(MouseButton::Left) => 0,
            _ => return Vec::new(),
        };
        if let Some(Overlay::Help(line)) = &mut self.overlay {
            *line = line.saturating_add_signed(wheel);
            return Vec::new();
        }
        if self.overlay.is_some() {
            return Vec::new();
        }
        self.message = None;
        let tab = self.hits.tabs.iter().find(|(area, _)| area.contains(at)).map(|(_, tab)| *tab);
        if let Some(tab) = tab.filter(|_| wheel == 0) {
            let effects = self.act(Action::Tab(tab));
            return self.with_wish(effects);
        }
        let Some(hit) = self.hits.tables.iter().find(|hit| hit.area.contains(at)).copied() else { return Vec::new() };
        if let Some(index) = self.page().panes().iter().position(|pane| *pane == hit.pane) {
            self.here_mut().pane = index;
        }
        if wheel != 0 {
            self.step(wheel);
        } else if hit.rows.contains(at) {
            let index = hit.offset + usize::from(at.y - hit.rows.y);
            if index < self.rows.of(hit.pane).len() {
                let again = self.cursor(hit.pane).index == index && self.cursor(hit.pane).id.is_some();
                self.select(hit.pane, index);
                if again {
                    self.enter();
                }
            }
        }
        self.with_wish(Vec::new())
    }

    /// Asks for the details of what is looked at now, if that has changed.
    fn with_wish(&mut self, mut effects: Vec<Effect>) -> Vec<Effect> {
        let mut wish = Wish::default();
        match self.page() {
            Page::Workload(name) => wish.workload = Some(Arc::clone(name)),
            Page::Destination(place) => wish.destination = Some(*place),
            Page::Flow(key) => wish.flow = Some(*key),
            Page::Overview | Page::Findings | Page::Failures => {}
        }
        if wish != self.wish {
            self.wish = wish.clone();
            effects.push(Effect::Order(Order::Look(wish)));
        }
        effects
    }

    fn act(&mut self, action: Action) -> Vec<Effect> {
        match action {
            Action::Up => self.step(-1),
            Action::Down => self.step(1),
            Action::PageUp | Action::PageDown => self.turn_page(action == Action::PageDown),
            Action::First => self.step(isize::MIN / 2),
            Action::Last => self.step(isize::MAX / 2),
            Action::In => self.enter(),
            Action::Out => self.leave(),
            Action::NextPane => self.turn(1),
            Action::PreviousPane => self.turn(-1),
            Action::Tab(tab) => self.go(tab),
            Action::Sort => self.sort_next(),
            Action::Reverse => {
                let pane = self.pane();
                let sort = self.sort(pane);
                self.set_sort(pane, Sort { reversed: !sort.reversed, ..sort });
            }
            Action::Filter => {
                self.before = (self.filter.clone(), self.filter_text.clone());
                self.overlay = Some(Overlay::Prompt(Prompt::new(Purpose::Filter, &self.filter_text)));
            }
            Action::Seek => self.overlay = Some(Overlay::Prompt(Prompt::new(Purpose::Seek, ""))),
            Action::Help => self.overlay = Some(Overlay::Help(0)),
            Action::Pause => return self.pause(),
            Action::Slower | Action::Faster => {
                if let Some(replay) = &self.newest().status.replay {
                    return order(Order::Speed(replay.speed.next(action == Action::Faster)));
                }
            }
            Action::StepBack => return order(Order::Step(-1)),
            Action::StepForward => return order(Order::Step(1)),
            Action::NextMark => return order(Order::NextMark),
            Action::Record => return order(Order::Record(self.newest().status.recording.is_none())),
            Action::Export => return vec![Effect::Export],
            Action::Copy => return self.copy(),
            Action::Quit => return self.quit(),
        }
        Vec::new()
    }

    fn pause(&mut self) -> Vec<Effect> {
        if let Some(replay) = &self.frame.status.replay {
            return order(Order::Pause(!replay.paused));
        }
        self.frozen = !self.frozen;
        if let Some(later) = self.later.take().filter(|_| !self.frozen) {
            self.frame = later;
        }
        self.refresh();
        Vec::new()
    }

    fn quit(&mut self) -> Vec<Effect> {
        if self.newest().status.recording.is_some() {
            self.overlay = Some(Overlay::Quit);
            return Vec::new();
        }
        vec![Effect::Quit]
    }

    fn copy(&mut self) -> Vec<Effect> {
        let pane = self.pane();
        match self.rows.text_of(self, pane, self.cursor(pane).index) {
            Some(text) => {
                self.message = Some(format!("copied: {text}"));
                vec![Effect::Copy(text)]
            }
            None => Vec::new(),
        }
    }

    fn help_key(&mut self, key: &KeyEvent, line: usize) {
        let line = match keys::action(key, self.replaying()) {
            Some(Action::Down) => line + 1,
            Some(Action::Up) => line.saturating_sub(1),
            Some(Action::PageDown) => line + 10,
            Some(Action::PageUp) => line.saturating_sub(10),
            _ => return,
        };
        self.overlay = Some(Overlay::Help(line.min(keys::BINDINGS.len())));
    }

    fn prompt_key(&mut self, mut prompt: Prompt, key: &KeyEvent) -> Vec<Effect> {
        let typed = prompt.key(key);
        match (prompt.purpose, typed) {
            (Purpose::Filter, Typed::Changed) => {
                self.filter_as_typed(&mut prompt);
                self.overlay = Some(Overlay::Prompt(prompt));
            }
            (Purpose::Filter, Typed::Done) if prompt.error.is_none() => self.filter_text = prompt.text(),
            (Purpose::Filter, Typed::Dropped) => {
                (self.filter, self.filter_text) = std::mem::take(&mut self.before);
                self.refresh();
            }
            (Purpose::Seek, Typed::Done) => match seek::instant(&prompt.text(), self) {
                Ok(at) => return order(Order::Seek(at)),
                Err(error) => {
                    prompt.error = Some((error, None));
                    self.overlay = Some(Overlay::Prompt(prompt));
                }
            },
            (Purpose::Seek, Typed::Dropped) => {}
            (_, Typed::Nothing | Typed::Changed | Typed::Done) => {
                if typed == Typed::Changed {
                    prompt.error = None;
                }
                self.overlay = Some(Overlay::Prompt(prompt));
            }
        }
        Vec::new()
    }

    /// What can be understood is applied at once; what cannot leaves the last one that could.
    fn filter_as_typed(&mut self, prompt: &mut Prompt) {
        let text = prompt.text();
        if text.trim().is_empty() {
            prompt.error = None;
            self.filter = None;
        } else {
            match Filter::parse(&text) {
                Ok(filter) => {
                    prompt.error = None;
                    self.filter = Some(filter);
                }
                Err(error) => {
                    let at = error.column.saturating_sub(1);
                    prompt.error = Some((format!("found {}, expected {}", error.found, error.expected), Some(at)));
                    return;
                }
            }
        }
        self.refresh();
    }

    fn page_rows(&self) -> isize {
        let pane = self.pane();
        let rows = self.hits.tables.iter().find(|hit| hit.pane == pane).map_or(1, |hit| hit.rows.height.max(1));
        isize::try_from(rows).unwrap_or(1)
    }

    /// The text under the findings is what is long there; elsewhere it is the table.
    fn turn_page(&mut self, down: bool) {
        if *self.page() == Page::Findings {
            let lines = if down { SCROLL_LINES } else { -SCROLL_LINES };
            self.scroll = self.scroll.saturating_add_signed(lines).min(self.hits.scroll);
        } else {
            let rows = self.page_rows();
            self.step(if down { rows } else { -rows });
        }
    }

    fn step(&mut self, rows: isize) {
        let pane = self.pane();
        let index = self.cursor(pane).index.saturating_add_signed(rows);
        self.select(pane, index);
    }

    fn select(&mut self, pane: Pane, index: usize) {
        self.scroll = 0;
        let index = index.min(self.rows.of(pane).len().saturating_sub(1));
        let id = self.rows.id(self, pane, index);
        let offset = self.cursor(pane).offset;
        self.set_cursor(pane, Cursor { index, id, offset });
    }

    fn turn(&mut self, by: isize) {
        let panes = self.page().panes().len();
        let here = self.here_mut();
        let pane = here.pane.saturating_add(panes).saturating_add_signed(by);
        here.pane = pane % panes.max(1);
    }

    fn go(&mut self, tab: usize) {
        self.scroll = 0;
        if let Some(page) = Page::TABS.get(tab) {
            self.base = Spot::new(page.clone());
            self.deeper.clear();
            self.refresh();
        }
    }

    fn leave(&mut self) {
        if self.deeper.pop().is_none() && *self.page() != Page::Overview {
            self.base = Spot::new(Page::Overview);
        }
        self.refresh();
    }

    fn enter(&mut self) {
        let pane = self.pane();
        let Some(page) = self.rows.leads_to(self, pane, self.cursor(pane).index) else { return };
        if self.deeper.len() < MAX_DEPTH && page != *self.page() {
            // What was come from stays selected there.
            self.select(pane, self.cursor(pane).index);
            self.deeper.push(Spot::new(page));
            self.refresh();
        }
    }

    fn sort_next(&mut self) {
        let pane = self.pane();
        let sort = self.sort(pane);
        let sortable = self.rows.sortable(self, pane);
        let next = match sort.column {
            None => sortable.first(),
            Some(column) => sortable.iter().find(|&&other| other > column),
        };
        self.set_sort(pane, Sort { column: next.copied(), reversed: false });
    }

    /// How many findings are worse than information.
    pub fn alarms(&self) -> usize {
        self.frame.snapshot.findings.iter().filter(|finding| finding.severity != Severity::Info).count()
    }
}

fn order(order: Order) -> Vec<Effect> {
    vec![Effect::Order(order)]
}
