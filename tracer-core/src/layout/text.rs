//! Pieces of text for a terminal: their meaning, cutting and filling to columns, and text of the host made safe.

use anstyle::{AnsiColor, Effects};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use crate::foreign_text::is_unprintable;

/// The meaning of a piece of text, which decides its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// Ordinary text.
    Plain,
    /// Important text.
    Strong,
    /// What is as it should be.
    Good,
    /// What may become a problem.
    Warn,
    /// What is a problem.
    Bad,
    /// Text that explains other text.
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

/// One line of text in pieces, each with its meaning.
pub type StyledLine = Vec<(Paint, String)>;

/// A line of single letters: neighbours of one meaning become one piece.
pub fn styled_letters(letters: Vec<(Paint, char)>) -> StyledLine {
    let mut pieces = StyledLine::new();
    for (paint, letter) in letters {
        match pieces.last_mut() {
            Some((last, text)) if *last == paint => text.push(letter),
            _ => pieces.push((paint, letter.into())),
        }
    }
    pieces
}

/// Text from the traced host, made safe for a terminal: no control characters, and ASCII alone unless `unicode`.
pub fn safe(text: &str, unicode: bool) -> String {
    let printable = |c: char| !is_unprintable(c) && c.width().is_some_and(|width| width > 0);
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

/// The name of a workload in at most `width` columns. One that ends in what tells it from another of its name
/// (`php-fpm: pool www [master 4711]`) is cut at its begin, any other at its end.
pub fn cut_name(name: &str, width: usize) -> String {
    if name.width() <= width || !name.ends_with(']') {
        return cut(name, width);
    }
    let room = width.saturating_sub(2);
    let mut end: Vec<char> = Vec::new();
    let mut used = 0;
    for c in name.chars().rev() {
        used += c.width().unwrap_or(0);
        if used > room {
            break;
        }
        end.push(c);
    }
    let cut = "..".chars().chain(end.into_iter().rev());
    cut.take(width).collect()
}

/// `text` cut and filled up to `width` columns.
pub fn left(text: &str, width: usize) -> String {
    let text = cut(text, width);
    let fill = width.saturating_sub(text.width());
    text + &" ".repeat(fill)
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

    /// Two masters with a pool of one name were the same row to the eye: `php-fpm: pool www [mas..`.
    #[test]
    fn what_tells_two_names_apart_is_not_cut_off() {
        assert_eq!(cut_name("php-fpm: pool www [master 4711]", 24), "..pool www [master 4711]");
        assert_eq!(cut_name("php-fpm: pool www", 8), "php-fp..");
        assert_eq!(cut_name("java[7]", 7), "java[7]");
        assert_eq!(cut_name("\u{65e5}\u{672c}\u{8a9e} [7]", 8), "..\u{8a9e} [7]");
        assert_eq!(cut_name("abc]", 1), ".");
    }

    #[test]
    fn no_control_character_reaches_the_terminal() {
        assert_eq!(safe("a\u{1b}[2J\u{202e}\u{e9}", true), "a?[2J?\u{e9}");
        assert_eq!(safe("\u{e9}t\u{e9}\n", false), "?t??");
    }
}
