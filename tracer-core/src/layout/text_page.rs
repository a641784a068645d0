//! A page of fixed width: wrapped sentences, columns, colours. It knows nothing of ports.
//!
//! The promise kept here: no line is ever wider than the page, whatever names the host has, and no name reaches the terminal
//! with a control character in it. Colour is put on pieces of finished lines, so that it can neither change the layout nor
//! carry meaning alone.

use anstyle::{AnsiColor, Effects};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns of a page.
pub const WIDTH: usize = 80;

/// What a piece of text is, for its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    Plain,
    Strong,
    Good,
    Warn,
    Bad,
    Dim,
}

impl Paint {
    fn style(self) -> anstyle::Style {
        let colour = |colour: AnsiColor| anstyle::Style::new().fg_color(Some(colour.into()));
        match self {
            Self::Plain => anstyle::Style::new(),
            Self::Strong => anstyle::Style::new().effects(Effects::BOLD),
            Self::Good => colour(AnsiColor::Green).bold(),
            Self::Warn => colour(AnsiColor::Yellow).bold(),
            Self::Bad => colour(AnsiColor::Red).bold(),
            Self::Dim => anstyle::Style::new().effects(Effects::DIMMED),
        }
    }

    /// `text` in this colour, if colours are wanted.
    pub fn apply(self, text: &str, colour: bool) -> String {
        if colour && self != Self::Plain {
            let style = self.style();
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }
}

/// Text from the traced host, made safe for a terminal: no control characters, and ASCII alone unless `unicode`.
pub fn safe(text: &str, unicode: bool) -> String {
    let printable = |c: char| !c.is_control() && c.width().is_some_and(|width| width > 0);
    text.chars().map(|c| if printable(c) && (unicode || c.is_ascii()) { c } else { '?' }).collect()
}

/// `text` in at most `width` columns, its end replaced by `..` if it is longer.
pub fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(2);
    let mut out = String::new();
    let mut used = 0;
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > room {
            break;
        }
        out.push(c);
    }
    out.push_str("..");
    out.chars().take(width).collect()
}

/// `text` cut and filled up to `width` columns.
pub fn left(text: &str, width: usize) -> String {
    let text = cut(text, width);
    let fill = width.saturating_sub(text.width());
    text + &" ".repeat(fill)
}

/// The lines of a report.
#[derive(Debug)]
pub struct TextPage {
    out: String,
    colour: bool,
    unicode: bool,
}

impl TextPage {
    pub fn new(colour: bool, unicode: bool) -> Self {
        Self { out: String::new(), colour, unicode }
    }

    pub fn finish(self) -> String {
        self.out
    }

    /// Text from the host as this page may show it.
    pub fn safe(&self, text: &str) -> String {
        safe(text, self.unicode)
    }

    pub fn unicode(&self) -> bool {
        self.unicode
    }

    pub fn blank(&mut self) {
        self.out.push('\n');
    }

    /// One line of pieces; what would stand beyond the page is cut.
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

    /// A heading.
    pub fn heading(&mut self, text: &str) {
        self.blank();
        self.line(&[(Paint::Strong, text)]);
    }

    /// A paragraph behind a label: `label` on its first line, the rest indented as wide.
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

/// `text` without its colours.
#[cfg(any(test, feature = "testing"))]
pub fn without_colour(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\u{1b}[") {
        out.push_str(before);
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_in_columns_not_in_bytes() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abcd..");
        assert_eq!(left("\u{65e5}\u{672c}\u{8a9e}", 5), "\u{65e5}.. ");
        assert_eq!(cut("abc", 1), ".");
    }

    #[test]
    fn no_control_character_reaches_the_terminal() {
        assert_eq!(safe("a\u{1b}[2J\u{202e}\u{e9}", true), "a?[2J?\u{e9}");
        assert_eq!(safe("\u{e9}t\u{e9}\n", false), "?t??");
    }

    #[test]
    fn colour_changes_nothing_but_colour() {
        let write = |colour| {
            let mut page = TextPage::new(colour, false);
            page.line(&[(Paint::Bad, "CRITICAL"), (Paint::Plain, " all ports"), (Paint::Dim, " taken")]);
            page.finish()
        };
        assert_eq!(write(false), "CRITICAL all ports taken\n");
        assert_eq!(anstyle_stripped(&write(true)), write(false));
        assert_ne!(write(true), write(false));
    }

    fn anstyle_stripped(text: &str) -> String {
        without_colour(text)
    }
}
