//! The surface of one screen: styled text becomes cells of a buffer, cut at the edges.

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use unicode_width::UnicodeWidthStr as _;

use crate::tui::hit_map::HitMap;
use crate::tui::options::RenderOptions;
use tracer_core::layout::text::{Paint, StyledLine, cut, safe};

/// A buffer that is drawn on, and what drawing finds out.
pub struct Canvas<'a> {
    /// The cells.
    pub buffer: &'a mut Buffer,
    /// What the terminal can show.
    pub options: RenderOptions,
    /// Where the parts of the screen have been drawn.
    pub hits: HitMap,
    /// Where the terminal's cursor stands, while something is being typed.
    pub cursor: Option<Position>,
}

impl Canvas<'_> {
    fn style(&self, paint: Paint) -> Style {
        let style = Style::new();
        // The terminal's own sixteen colours and no background can be read on light and on dark terminals.
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

    /// Draws text, cut to `width` columns.
    pub fn text(&mut self, x: u16, y: u16, width: u16, paint: Paint, text: &str) {
        let area = self.buffer.area;
        if y >= area.bottom() || x >= area.right() {
            return;
        }
        let room = usize::from(width.min(area.right() - x));
        let style = self.style(paint);
        self.buffer.set_stringn(x, y, text, room, style);
    }

    /// Draws a line at the left edge of `area` and in line `y`, cut at the right edge. Returns the columns used.
    pub fn line(&mut self, area: Rect, y: u16, pieces: &StyledLine) -> u16 {
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

    /// Draws a sentence behind a label, over as many lines as it needs and `area` has. Returns the lines used.
    pub fn paragraph(&mut self, area: Rect, label: &StyledLine, paint: Paint, text: &str) -> u16 {
        let label_width: usize = label.iter().map(|(_, text)| text.width()).sum();
        let room = usize::from(area.width).saturating_sub(label_width);
        if room == 0 || area.height == 0 {
            return 0;
        }
        let lines = textwrap::wrap(text, wrapping(room));
        let shown = lines.len().min(usize::from(area.height));
        self.line(area, area.y, label);
        let x = area.x + u16::try_from(label_width).unwrap_or(0);
        for (index, line) in lines.iter().take(shown).enumerate() {
            let y = area.y + u16::try_from(index).unwrap_or(0);
            // `..` ends the last line that there is room for, if the sentence goes on.
            let last = index + 1 == shown && shown < lines.len();
            let line = if last { cut(&format!("{line} ..."), room) } else { line.to_string() };
            let line = if last && !line.ends_with("..") { format!("{}..", cut(&line, room - 2)) } else { line };
            self.text(x, y, area.width, paint, &line);
        }
        u16::try_from(shown).unwrap_or(area.height)
    }

    /// Text from the traced host as this terminal may show it.
    pub fn safe(&self, text: &str) -> String {
        safe(text, self.options.unicode)
    }
}

fn wrapping(room: usize) -> textwrap::Options<'static> {
    textwrap::Options::new(room)
        .break_words(true)
        .word_separator(textwrap::WordSeparator::AsciiSpace)
        .word_splitter(textwrap::WordSplitter::NoHyphenation)
}

/// A sentence behind a label as lines of `width` columns, as many as it needs.
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
