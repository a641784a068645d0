//! Frame and state into cells. It changes nothing and asks nothing.

pub mod bar;
mod header;
pub mod histogram;
pub mod portmap;
pub mod spark;
pub mod table;

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use unicode_width::UnicodeWidthStr as _;

use super::app::{App, HitMap, Page};
use super::{RenderOptions, views};
use tracer_core::layout::text::{Paint, StyledLine, cut};

/// Below this nothing can be told.
pub const MIN_WIDTH: u16 = 60;
pub const MIN_HEIGHT: u16 = 15;

/// Where things are drawn, and how.
pub struct Canvas<'a> {
    pub buffer: &'a mut Buffer,
    pub options: &'a RenderOptions,
    pub hits: HitMap,
    /// Where the terminal's cursor belongs, if something is being typed.
    pub cursor: Option<Position>,
}

impl Canvas<'_> {
    pub fn style(&self, paint: Paint) -> Style {
        let style = Style::new();
        // The terminal's own sixteen colours, never a background: they are readable on light and on dark.
        let colour = |colour: Color| if self.options.colour { style.fg(colour) } else { style };
        match paint {
            Paint::Plain => style,
            Paint::Strong => style.add_modifier(Modifier::BOLD),
            Paint::Good => colour(Color::Green),
            Paint::Warn => colour(Color::Yellow).add_modifier(Modifier::BOLD),
            Paint::Bad => colour(Color::Red).add_modifier(Modifier::BOLD),
            Paint::Dim => style.add_modifier(Modifier::DIM),
        }
    }

    /// Text, cut to `width` columns.
    pub fn text(&mut self, x: u16, y: u16, width: u16, paint: Paint, text: &str) {
        let area = self.buffer.area;
        if y >= area.bottom() || x >= area.right() {
            return;
        }
        let room = usize::from(width.min(area.right() - x));
        let style = self.style(paint);
        self.buffer.set_stringn(x, y, text, room, style);
    }

    /// Pieces one behind the other from `x`, cut at the end of `area`; how wide they came out.
    pub fn pieces(&mut self, area: Rect, y: u16, pieces: &StyledLine) -> u16 {
        let mut room = usize::from(area.width);
        let mut x = area.x;
        if y >= area.bottom() {
            return 0;
        }
        for (paint, text) in pieces {
            let text = cut(text, room);
            self.text(x, y, area.width, *paint, &text);
            let taken = text.width();
            room -= taken.min(room);
            x += u16::try_from(taken).unwrap_or(0);
            if room == 0 {
                break;
            }
        }
        x - area.x
    }

    /// A sentence behind a label, over as many lines as it needs.
    pub fn wrapped(width: u16, label: &StyledLine, paint: Paint, text: &str) -> Vec<StyledLine> {
        let label_width: usize = label.iter().map(|(_, text)| text.width()).sum();
        let room = usize::from(width).saturating_sub(label_width).max(1);
        let lines = textwrap::wrap(text, wrapping(room));
        let indent: StyledLine = vec![(Paint::Plain, " ".repeat(label_width))];
        let lines = lines.iter().enumerate().map(|(index, line)| {
            let mut cell = if index == 0 { label.clone() } else { indent.clone() };
            cell.push((paint, line.to_string()));
            cell
        });
        lines.collect()
    }

    /// A sentence over as many lines as it needs and `area` has, behind a label; the lines used.
    pub fn paragraph(&mut self, area: Rect, label: &StyledLine, paint: Paint, text: &str) -> u16 {
        let label_width: usize = label.iter().map(|(_, text)| text.width()).sum();
        let room = usize::from(area.width).saturating_sub(label_width);
        if room == 0 || area.height == 0 {
            return 0;
        }
        let lines = textwrap::wrap(text, wrapping(room));
        let shown = lines.len().min(usize::from(area.height));
        self.pieces(area, area.y, label);
        let x = area.x + u16::try_from(label_width).unwrap_or(0);
        for (index, line) in lines.iter().take(shown).enumerate() {
            let y = area.y + u16::try_from(index).unwrap_or(0);
            // Said that more follows than there is room for.
            let last = index + 1 == shown && shown < lines.len();
            let line = if last { cut(&format!("{line} ..."), room) } else { line.to_string() };
            let line = if last && !line.ends_with("..") { format!("{}..", cut(&line, room - 2)) } else { line };
            self.text(x, y, area.width, paint, &line);
        }
        u16::try_from(shown).unwrap_or(area.height)
    }

    /// A table of the page.
    pub fn table(&mut self, app: &App, pane: super::app::Pane, area: Rect) {
        if area.height < 2 || area.width == 0 {
            return;
        }
        let options = self.options;
        let context = super::rows::context(app, options);
        let hit = app.rows.visit(app, pane, table::TableWidget { app, pane, area, canvas: self, context });
        self.hits.tables.push(hit);
    }

    /// Text from the traced host as this terminal may show it.
    pub fn safe(&self, text: &str) -> String {
        tracer_core::layout::text::safe(text, self.options.unicode)
    }
}

fn wrapping(room: usize) -> textwrap::Options<'static> {
    textwrap::Options::new(room)
        .break_words(true)
        .word_separator(textwrap::WordSeparator::AsciiSpace)
        .word_splitter(textwrap::WordSplitter::NoHyphenation)
}

/// What drawing a screen found out.
#[derive(Debug, Default)]
pub struct ScreenLayout {
    pub hits: HitMap,
    pub cursor: Option<Position>,
}

/// Draws everything.
pub fn draw(app: &App, options: &RenderOptions, buffer: &mut Buffer) -> ScreenLayout {
    let area = buffer.area;
    let mut canvas = Canvas { buffer, options, hits: HitMap::default(), cursor: None };
    if area.width < MIN_WIDTH || area.height < MIN_HEIGHT {
        let text = format!(
            "This terminal has {}x{} characters; portchurn needs {MIN_WIDTH}x{MIN_HEIGHT}. Make it larger, or use `portchurn stream`. q quits.",
            area.width, area.height
        );
        canvas.paragraph(area, &Vec::new(), Paint::Plain, &text);
        return ScreenLayout::default();
    }
    let used = header::draw(&mut canvas, app, area);
    let footer = Rect { y: area.bottom() - 1, height: 1, ..area };
    let body = Rect { y: area.y + used, height: area.height - used - 1, ..area };
    match app.page() {
        Page::Overview => views::overview::draw(&mut canvas, app, body),
        Page::Findings => views::findings::draw(&mut canvas, app, body),
        Page::Failures => views::failures::draw(&mut canvas, app, body),
        Page::Workload(name) => views::workload::draw(&mut canvas, app, body, name),
        Page::Destination(place) => views::destination::draw(&mut canvas, app, body, place),
        Page::Flow(key) => views::flow::draw(&mut canvas, app, body, key),
    }
    header::footer(&mut canvas, app, footer);
    views::overlay::draw(&mut canvas, app, area);
    ScreenLayout { hits: canvas.hits, cursor: canvas.cursor }
}

/// Divides `height` lines between two tables: each gets what it needs if there is enough, else the needier one gives.
pub fn divide(height: u16, first: usize, second: usize) -> (u16, u16) {
    let half = height / 2;
    let need = |rows: usize| u16::try_from(rows.saturating_add(1)).unwrap_or(u16::MAX).max(2);
    let (first, second) = (need(first), need(second));
    if first <= half {
        (first, height - first)
    } else if second <= height - half {
        (height - second, second)
    } else {
        (half, height - half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_tables_share_what_there_is() {
        assert_eq!(divide(20, 3, 100), (4, 16));
        assert_eq!(divide(20, 100, 3), (16, 4));
        assert_eq!(divide(21, 100, 100), (10, 11));
        assert_eq!(divide(20, 0, 0), (2, 18));
    }
}
