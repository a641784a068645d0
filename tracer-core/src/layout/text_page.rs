//! A text report of fixed width: lines of pieces and wrapped sentences. This module knows nothing about ports.
//!
//! No line is ever wider than the page, whatever names the host has, and no name reaches the terminal with a control
//! character in it. Colour is put on pieces of finished lines, so that it can neither change the layout nor carry meaning
//! alone.

use unicode_width::UnicodeWidthStr as _;

use super::text::{Paint, cut, safe};

/// Columns of a page.
pub const WIDTH: usize = 80;

/// The lines of a report.
#[derive(Debug)]
pub struct TextPage {
    out: String,
    colour: bool,
    unicode: bool,
}

impl TextPage {
    /// An empty page. `colour` writes ANSI sequences, `unicode` allows letters beyond ASCII.
    pub fn new(colour: bool, unicode: bool) -> Self {
        Self { out: String::new(), colour, unicode }
    }

    /// The text of the page; each line ends in a newline.
    pub fn finish(self) -> String {
        self.out
    }

    /// Text from the host as this page may show it.
    pub fn safe(&self, text: &str) -> String {
        safe(text, self.unicode)
    }

    /// May the page hold letters beyond ASCII?
    pub fn unicode(&self) -> bool {
        self.unicode
    }

    /// Adds an empty line.
    pub fn blank(&mut self) {
        self.out.push('\n');
    }

    /// Adds one line of pieces, cut at the width of the page.
    pub fn line(&mut self, pieces: &[(Paint, &str)]) {
        let mut room = WIDTH;
        let last = pieces.len().saturating_sub(1);
        for (index, (paint, text)) in pieces.iter().enumerate() {
            let text = cut(text, room);
            room -= text.width();
            let text = if index == last { text.trim_end() } else { &text };
            self.out.push_str(&paint.apply(text, self.colour));
        }
        self.out.push('\n');
    }

    /// Adds an empty line and a heading.
    pub fn heading(&mut self, text: &str) {
        self.blank();
        self.line(&[(Paint::Strong, text)]);
    }

    /// Adds a paragraph behind a label: `label` on its first line, the other lines indented by the label's width.
    pub fn paragraph(&mut self, paint: Paint, label: &str, body: Paint, text: &str) {
        let indent = " ".repeat(label.width());
        let options = textwrap::Options::new(WIDTH - label.width())
            .break_words(true)
            .word_separator(textwrap::WordSeparator::AsciiSpace)
            .word_splitter(textwrap::WordSplitter::NoHyphenation);
        let safe = self.safe(text);
        for (index, line) in textwrap::wrap(&safe, options).iter().enumerate() {
            let label = if index == 0 { (paint, label) } else { (Paint::Plain, indent.as_str()) };
            self.line(&[label, (body, line)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::text::without_colour;
    use super::*;

    #[test]
    fn colour_changes_nothing_but_colour() {
        let write = |colour| {
            let mut page = TextPage::new(colour, false);
            page.line(&[(Paint::Bad, "CRITICAL"), (Paint::Plain, " all ports"), (Paint::Dim, " taken")]);
            page.finish()
        };
        assert_eq!(write(false), "CRITICAL all ports taken\n");
        assert_eq!(without_colour(&write(true)), write(false));
        assert_ne!(write(true), write(false));
    }
}
