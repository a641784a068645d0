//! Going from row to row, from table to table, from page to page.

use super::{App, NavEntry};
use crate::tui::page::{Cursor, Page, Pane, Sort};

/// Lines by which PgUp and PgDn scroll a text.
const SCROLL_LINES: isize = 8;
/// Pages that can be entered one from another: a workload leads to a destination, that to a workload, without an end.
const MAX_DEPTH: usize = 32;

impl App {
    fn page_rows(&self) -> isize {
        let pane = self.pane();
        let rows = self.hits.tables.iter().find(|hit| hit.pane == pane).map_or(1, |hit| hit.rows.height.max(1));
        isize::try_from(rows).unwrap_or(1)
    }

    /// Scrolls the text of the findings page; on other pages goes a screen of rows up or down.
    pub(super) fn turn_page(&mut self, down: bool) {
        if *self.page() == Page::Findings {
            let lines = if down { SCROLL_LINES } else { -SCROLL_LINES };
            self.scroll = self.scroll.saturating_add_signed(lines).min(self.hits.scroll);
        } else {
            let rows = self.page_rows();
            self.step(if down { rows } else { -rows });
        }
    }

    /// Moves the selection by so many rows.
    pub(super) fn step(&mut self, rows: isize) {
        let pane = self.pane();
        let index = self.cursor(pane).index.saturating_add_signed(rows);
        self.select(pane, index);
    }

    /// Selects a row by its position, the last one if there are fewer rows.
    pub(super) fn select(&mut self, pane: Pane, index: usize) {
        self.scroll = 0;
        let index = index.min(self.rows.shown(pane).len().saturating_sub(1));
        let id = self.rows.id(&self.row_input(), pane, index);
        let offset = self.cursor(pane).offset;
        self.set_cursor(pane, Cursor { index, id, offset });
    }

    /// Gives the keys to another table of the page: 1 for the next, -1 for the one before.
    pub(super) fn turn(&mut self, by: isize) {
        let panes = self.page().panes().len();
        let here = self.current_mut();
        let pane = here.pane.saturating_add(panes).saturating_add_signed(by);
        here.pane = pane % panes.max(1);
    }

    /// Goes to the page of a tab.
    pub(super) fn go(&mut self, tab: usize) {
        self.scroll = 0;
        if let Some(page) = Page::TABS.get(tab) {
            self.root = NavEntry::new(page.clone());
            self.stack.clear();
            self.refresh();
        }
    }

    /// Goes back to the page before; from a tab's page to the overview.
    pub(super) fn leave(&mut self) {
        if self.stack.pop().is_none() && *self.page() != Page::Overview {
            self.root = NavEntry::new(Page::Overview);
        }
        self.refresh();
    }

    /// Opens the page behind the selected row, if it has one.
    pub(super) fn enter(&mut self) {
        let pane = self.pane();
        let Some(page) = self.rows.page_behind(&self.row_input(), pane, self.cursor(pane).index) else { return };
        if self.stack.len() < MAX_DEPTH && page != *self.page() {
            // Selects the row by its identity, so that it is still selected on the way back.
            self.select(pane, self.cursor(pane).index);
            self.stack.push(NavEntry::new(page));
            self.refresh();
        }
    }

    /// Sorts by the next column; after the last one by none.
    pub(super) fn sort_next(&mut self) {
        let pane = self.pane();
        let sort = self.sort(pane);
        let sortable = self.rows.sortable(&self.row_input(), pane);
        let next = match sort.column {
            None => sortable.first(),
            Some(column) => sortable.iter().find(|&&other| other > column),
        };
        self.set_sort(pane, Sort { column: next.copied(), reversed: false });
    }
}
