//! Tables: on the screen, where only the rows that show are made, and as text for an export.

use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

use super::canvas::Canvas;
use crate::tui::columns::{Alignment, CellContext, Column, TableVisitor};
use crate::tui::hit_map::TableHit;
use crate::tui::page::{Cursor, Pane, Sort};
use tracer_core::layout::text::{Paint, StyledLine, cut};
use unicode_width::UnicodeWidthStr as _;

/// What a table shows of its rows.
pub struct TableState<'a> {
    /// Which table it is.
    pub pane: Pane,
    /// Indices of the rows to show, in their order.
    pub rows: &'a [usize],
    /// How many rows there would be without the filter.
    pub unfiltered: usize,
    /// The selected row.
    pub cursor: Cursor,
    /// The order, for the mark in the heading.
    pub sort: Sort,
    /// The selected row is marked, because keys go to this table.
    pub active: bool,
    /// The heading is marked, because keys go to this table of several.
    pub focused: bool,
}

/// Draws a table with its heading into `area`; yields where it was drawn.
pub struct TableWidget<'a, 'b> {
    /// Where it is drawn.
    pub canvas: &'a mut Canvas<'b>,
    /// The heading and the rows.
    pub area: Rect,
    /// The rows to show.
    pub state: TableState<'a>,
    /// What cells are made from, beside their rows.
    pub context: CellContext<'a>,
}

/// Columns at the left of the rows, where `>` marks the selected one.
const MARK: u16 = 2;

impl TableVisitor for TableWidget<'_, '_> {
    type Out = TableHit;

    fn table<T>(self, items: &[T], columns: &'static [Column<T>]) -> TableHit {
        let Self { canvas, area, state, context } = self;
        let TableState { pane, rows, unfiltered, cursor, sort, active, focused } = state;
        let body = Rect { y: area.y + 1, height: area.height.saturating_sub(1), ..area };
        let offset = scroll(cursor.offset, cursor.index, usize::from(body.height), rows.len());
        let hit = TableHit { pane, area, rows: body, offset };
        if area.height == 0 || area.width <= MARK {
            return hit;
        }
        let widths = widths(columns, area.width - MARK);
        heading(canvas, area, columns, &widths, sort, focused, &count(rows.len(), unfiltered, body.height));
        for (line, row) in rows.iter().enumerate().skip(offset).take(usize::from(body.height)) {
            let y = body.y + u16::try_from(line - offset).unwrap_or(u16::MAX);
            let selected = line == cursor.index && active;
            let Some(item) = items.get(*row) else { continue };
            canvas.text(area.x, y, MARK, Paint::Strong, if selected { ">" } else { " " });
            let mut x = area.x + MARK;
            for (column, width) in shown(columns, &widths) {
                draw_cell(canvas, x, y, width, column.align, &(column.cell)(item, &context, usize::from(width)));
                x += width + 1;
            }
            if selected {
                let whole = Rect { y, height: 1, ..area };
                canvas.buffer.set_style(whole, Style::new().add_modifier(Modifier::REVERSED));
            }
        }
        hit
    }
}

/// `7 of 40` if the filter hides rows, `40` if there is no room for all of them.
fn count(shown: usize, all: usize, height: u16) -> String {
    match (shown < all, shown > usize::from(height)) {
        (true, _) => format!("{shown} of {all}"),
        (false, true) => all.to_string(),
        (false, false) => String::new(),
    }
}

/// The first row to show: the one of the last screen, or the nearest one that has the selected row on the screen.
fn scroll(offset: usize, index: usize, height: usize, len: usize) -> usize {
    let lowest = (index + 1).saturating_sub(height.max(1));
    offset.clamp(lowest, index.max(lowest)).min(len.saturating_sub(height))
}

/// The width of each column in a table of `width`; 0 = not shown.
pub fn widths<T>(columns: &[Column<T>], width: u16) -> Vec<u16> {
    let mut widths: Vec<u16> = columns.iter().map(|c| if width >= c.shown_from { c.width } else { 0 }).collect();
    let used = |widths: &[u16]| widths.iter().filter(|w| **w > 0).map(|w| w + 1).sum::<u16>().saturating_sub(1);
    // The last columns are left out until the rest fits; the first one is kept and cut.
    while used(&widths) > width {
        match widths.iter().rposition(|w| *w > 0) {
            Some(last) if last > 0 => widths[last] = 0,
            _ => {
                widths[0] = width;
                break;
            }
        }
    }
    let grows = |index: usize, widths: &[u16]| if widths[index] > 0 { columns[index].grows } else { 0 };
    let shares: u16 = (0..columns.len()).map(|index| grows(index, &widths)).sum();
    let rest = width.saturating_sub(used(&widths));
    let mut given = 0;
    for index in 0..columns.len() {
        let share = (rest * grows(index, &widths)).checked_div(shares).unwrap_or(0);
        widths[index] += share;
        given += share;
    }
    if let Some(first) = (0..columns.len()).find(|&index| grows(index, &widths) > 0) {
        widths[first] += rest - given;
    }
    widths
}

fn shown<'a, T>(columns: &'a [Column<T>], widths: &'a [u16]) -> impl Iterator<Item = (&'a Column<T>, u16)> {
    columns.iter().zip(widths.iter().copied()).filter(|(_, width)| *width > 0)
}

fn heading<T>(
    canvas: &mut Canvas<'_>,
    area: Rect,
    columns: &[Column<T>],
    widths: &[u16],
    sort: Sort,
    focused: bool,
    count: &str,
) {
    let paint = if focused { Paint::Strong } else { Paint::Dim };
    let mark = if focused { "*" } else { " " };
    canvas.text(area.x, area.y, MARK, paint, mark);
    let mut x = area.x + MARK;
    let mut first = true;
    for (index, column) in columns.iter().enumerate() {
        let width = widths.get(index).copied().unwrap_or(0);
        if width == 0 {
            continue;
        }
        let arrow = match (sort.column == Some(index), sort.reversed) {
            (true, false) => "v",
            (true, true) => "^",
            (false, _) => "",
        };
        // The arrow replaces the last letter of a title that leaves no room for it.
        let room = usize::from(width).saturating_sub(arrow.len());
        let mut title: String = column.title.chars().take(if arrow.is_empty() { usize::MAX } else { room }).collect();
        title.push_str(arrow);
        // The number of rows stands behind the first title at the left, if there is room.
        if first && column.align == Alignment::Left && !count.is_empty() {
            let with = format!("{title} ({count})");
            if with.width() <= usize::from(width) {
                title = with;
            }
            first = false;
        }
        draw_cell(canvas, x, area.y, width, column.align, &vec![(paint, title)]);
        x += width + 1;
    }
    let line = Rect { height: 1, ..area };
    canvas.buffer.set_style(line, Style::new().add_modifier(Modifier::UNDERLINED));
}

fn draw_cell(canvas: &mut Canvas<'_>, x: u16, y: u16, width: u16, align: Alignment, cell: &StyledLine) {
    let used: usize = cell.iter().map(|(_, text)| text.width()).sum();
    let room = usize::from(width);
    let mut x = x;
    if align == Alignment::Right {
        x += u16::try_from(room.saturating_sub(used)).unwrap_or(0);
    }
    let mut room = room;
    for (paint, text) in cell {
        let text = cut(text, room);
        let taken = text.width();
        canvas.text(x, y, u16::try_from(room).unwrap_or(0), *paint, &text);
        x += u16::try_from(taken).unwrap_or(0);
        room -= taken.min(room);
        if room == 0 {
            return;
        }
    }
}

/// Prints a table as aligned text, for an export.
pub struct TextTable<'a, 'c> {
    /// Indices of the rows to print, in their order.
    pub rows: &'a [usize],
    /// What cells are made from, beside their rows.
    pub context: CellContext<'c>,
    /// Rows beyond this many are left out; a last line says how many.
    pub limit: usize,
}

impl TableVisitor for TextTable<'_, '_> {
    type Out = String;

    fn table<T>(self, items: &[T], columns: &'static [Column<T>]) -> String {
        let texts: Vec<&Column<T>> = columns.iter().filter(|column| column.align != Alignment::Picture).collect();
        let mut lines = vec![texts.iter().map(|column| column.title.to_owned()).collect::<Vec<_>>()];
        let shown = self.rows.iter().take(self.limit).filter_map(|row| items.get(*row));
        lines.extend(shown.map(|item| {
            let cell = |column: &&Column<T>| (column.cell)(item, &self.context, usize::from(column.width));
            texts.iter().map(|column| cell(column).into_iter().map(|(_, text)| text).collect()).collect()
        }));
        let width = |index: usize| lines.iter().filter_map(|line| line.get(index)).map(|text| text.width()).max();
        let widths: Vec<usize> = (0..texts.len()).map(|index| width(index).unwrap_or(0)).collect();
        let mut out = String::new();
        for line in &lines {
            let mut text = String::new();
            for ((cell, column), width) in line.iter().zip(&texts).zip(&widths) {
                let fill = " ".repeat(width.saturating_sub(cell.width()));
                let pieces = if column.align == Alignment::Right { [&fill, cell] } else { [cell, &fill] };
                for piece in pieces {
                    text.push_str(piece);
                }
                text.push_str("  ");
            }
            out.push_str(text.trim_end());
            out.push('\n');
        }
        if let Some(more) = self.rows.len().checked_sub(self.limit).filter(|&more| more > 0) {
            out.push_str("... and ");
            out.push_str(&more.to_string());
            out.push_str(" more\n");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::columns;

    #[test]
    fn no_table_is_wider_than_its_area() {
        for width in 1..300 {
            for widths in [widths(columns::WORKLOADS, width), widths(columns::DESTINATIONS, width)] {
                let used: u16 = widths.iter().filter(|w| **w > 0).map(|w| w + 1).sum();
                assert!(used <= width + 1, "{width}: {widths:?}");
            }
        }
        // The columns without which an incident cannot be understood fit into 80 columns.
        let at_80 = widths(columns::DESTINATIONS, 78);
        let narrow = columns::DESTINATIONS.iter().zip(&at_80).filter(|(column, _)| column.shown_from == 0);
        assert!(narrow.into_iter().all(|(column, width)| *width >= column.width), "{at_80:?}");
        assert_eq!(at_80.iter().filter(|w| **w > 0).map(|w| w + 1).sum::<u16>(), 79);
    }

    #[test]
    fn the_selected_row_is_always_on_the_screen() {
        for (offset, index, expected) in [(0, 0, 0), (0, 9, 0), (0, 10, 1), (5, 3, 3), (50, 99, 90), (95, 95, 90)] {
            assert_eq!(scroll(offset, index, 10, 100), expected, "{offset} {index}");
        }
        assert_eq!(scroll(7, 0, 10, 0), 0);
    }
}
