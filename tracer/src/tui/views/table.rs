//! A table of the page as the app has it: its rows, its order, its selected row.

use ratatui::layout::Rect;

use crate::tui::app::App;
use crate::tui::page::Pane;
use crate::tui::render::canvas::Canvas;
use crate::tui::render::table::{TableState, TableWidget};

/// Draws the table into `area`, unless there is no room for a row.
pub fn draw(canvas: &mut Canvas<'_>, app: &App, pane: Pane, area: Rect) {
    if area.height < 2 || area.width == 0 {
        return;
    }
    let active = app.pane() == pane;
    let state = TableState {
        pane,
        rows: app.rows.shown(pane),
        unfiltered: app.rows.unfiltered(pane),
        cursor: app.cursor(pane),
        sort: app.sort(pane),
        active,
        focused: active && app.page().panes().len() > 1,
    };
    let context = app.cell_context(canvas.options);
    let hit = app.rows.visit(&app.row_input(), pane, TableWidget { canvas, area, state, context });
    canvas.hits.tables.push(hit);
}
