//! Where the parts of a screen were drawn, for the mouse and for paging.

use ratatui::layout::Rect;

use super::page::Pane;

/// Places of the parts of a screen that react to the mouse.
#[derive(Clone, Debug, Default)]
pub struct HitMap {
    /// The tabs, each with its index in [`super::page::Page::TABS`].
    pub tabs: Vec<(Rect, usize)>,
    /// The tables of the page.
    pub tables: Vec<TableHit>,
    /// Lines by which the text of the page can be scrolled at the most.
    pub scroll: usize,
}

/// Where a table was drawn.
#[derive(Clone, Copy, Debug)]
pub struct TableHit {
    /// Which table it is.
    pub pane: Pane,
    /// The table with its heading.
    pub area: Rect,
    /// The rows alone.
    pub rows: Rect,
    /// Index of the first row shown.
    pub offset: usize,
}
