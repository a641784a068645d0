//! `cargo xtask screenshots`: pictures of the full-screen view for the README, from the screens of an end-to-end test.
//!
//! The test writes the screens of a real incident to files, with their escape sequences; this module turns the files
//! into SVG. So the pictures show only what a test has checked.
//!
//! Written by hand because anstyle-svg 0.1 gives a run of letters no width: columns and backgrounds then depend on the
//! reader's font, and it draws the background of a selected row in the wrong place.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::e2e;
use crate::shell::{root, say, target_dir};

/// Screens that the README shows.
const SHOWN: [&str; 3] = ["overview-80x24", "destination-80x24", "findings-80x24"];
/// The test that writes them.
const TEST: &str = "an_incident_is_seen_followed_and_left_at_80x24";
/// Width and height of a letter's cell, and the offset of its baseline, in pixels.
const CELL: (usize, usize) = (8, 17);
const BASELINE: usize = 13;
const MARGIN: usize = 10;
const BACKGROUND: &str = "#16181d";
const FOREGROUND: &str = "#d6d9de";
/// Black, red, green, yellow, blue, magenta, cyan, white.
const PALETTE: [&str; 8] = ["#16181d", "#ef6b73", "#8cc570", "#e5c07b", "#6cb0f2", "#c98be0", "#5fbcc7", "#d6d9de"];

/// Runs the test and draws the screens that it wrote.
pub fn screenshots() -> Result<()> {
    e2e::e2e(&e2e::E2eOptions::only(TEST))?;
    let (from, to) = (target_dir().join("tmp/screens"), root().join("docs"));
    fs::create_dir_all(&to).with_context(|| format!("creating {}", to.display()))?;
    for name in SHOWN {
        let source = from.join(format!("{name}.ansi"));
        let screen = fs::read_to_string(&source).with_context(|| format!("reading {}", source.display()))?;
        write(&to.join(format!("view-{name}.svg")), &svg(&screen))?;
    }
    Ok(())
}

fn write(path: &Path, svg: &str) -> Result<()> {
    ensure!(svg.len() < 64 * 1024, "{} would have {} bytes", path.display(), svg.len());
    fs::write(path, svg).with_context(|| format!("writing {}", path.display()))?;
    say(&format!("{}: {} bytes", path.display(), svg.len()));
    Ok(())
}

/// Style of a run of letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "the attributes that SGR switches one by one")]
struct TextStyle {
    colour: Option<usize>,
    bold: bool,
    dim: bool,
    underlined: bool,
    reversed: bool,
}

impl TextStyle {
    /// Applies the numbers of an SGR sequence; numbers that the view does not use are ignored.
    fn apply(&mut self, codes: &str) {
        let mut codes = codes.split(';').map(|code| code.parse::<usize>().unwrap_or(0));
        while let Some(code) = codes.next() {
            match code {
                0 => *self = Self::default(),
                1 => self.bold = true,
                2 => self.dim = true,
                4 => self.underlined = true,
                7 => self.reversed = true,
                22 => (self.bold, self.dim) = (false, false),
                24 => self.underlined = false,
                27 => self.reversed = false,
                39 => self.colour = None,
                // 38;5;N: a colour of the palette of 256, of which the view uses the first 16.
                38 if codes.next() == Some(5) => self.colour = codes.next().filter(|n| *n < 16).map(|n| n % 8),
                colour @ 30..=37 => self.colour = Some(colour - 30),
                colour @ 90..=97 => self.colour = Some(colour - 90),
                _ => {}
            }
        }
    }
}

/// Letters of one style.
type Run = (TextStyle, String);

/// The lines of a captured screen.
fn lines(screen: &str) -> Vec<Vec<Run>> {
    let mut style = TextStyle::default();
    let mut lines = Vec::new();
    for line in screen.lines() {
        let mut runs: Vec<Run> = Vec::new();
        let mut push = |style: TextStyle, text: &str| match runs.last_mut() {
            _ if text.is_empty() => {}
            Some((last, letters)) if *last == style => letters.push_str(text),
            _ => runs.push((style, text.to_owned())),
        };
        let mut pieces = line.split("\u{1b}[");
        push(style, pieces.next().unwrap_or_default());
        for piece in pieces {
            let end = piece.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(piece.len());
            let (codes, rest) = piece.split_at(end);
            if rest.starts_with('m') {
                style.apply(codes);
            }
            push(style, rest.get(1..).unwrap_or_default());
        }
        lines.push(runs);
    }
    lines
}

fn svg(screen: &str) -> String {
    let lines = lines(screen);
    let columns = lines.iter().map(|runs| width(runs)).max().unwrap_or(0);
    let (wide, high) = (columns * CELL.0 + 2 * MARGIN, lines.len() * CELL.1 + 2 * MARGIN);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {wide} {high}\" width=\"{wide}\" height=\"{high}\" \
         font-family=\"ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace\" font-size=\"13\" fill=\"{FOREGROUND}\" xml:space=\"preserve\">\n\
         <rect width=\"{wide}\" height=\"{high}\" rx=\"6\" fill=\"{BACKGROUND}\"/>\n"
    );
    for (row, runs) in lines.iter().enumerate() {
        let top = MARGIN + row * CELL.1;
        let mut column = 0;
        for (style, text) in runs {
            let count = text.chars().count();
            let x = MARGIN + column * CELL.0;
            column += count;
            draw(&mut out, *style, text, x, top, count * CELL.0);
        }
    }
    out.push_str("</svg>\n");
    out
}

fn width(runs: &[Run]) -> usize {
    runs.iter().map(|(_, text)| text.chars().count()).sum()
}

fn draw(out: &mut String, style: TextStyle, text: &str, x: usize, top: usize, width: usize) {
    let colour = style.colour.and_then(|colour| PALETTE.get(colour)).copied();
    let mut letters = colour.unwrap_or(FOREGROUND);
    if style.reversed {
        // Writing into a String cannot fail.
        let _ =
            writeln!(out, "<rect x=\"{x}\" y=\"{top}\" width=\"{width}\" height=\"{}\" fill=\"{letters}\"/>", CELL.1);
        letters = BACKGROUND;
    }
    if style.underlined {
        let y = top + CELL.1 - 2;
        let _ = writeln!(out, "<path d=\"M{x} {y}h{width}\" stroke=\"{FOREGROUND}\" stroke-opacity=\".4\"/>");
    }
    if text.trim().is_empty() {
        return;
    }
    // Each run is as wide as its cells, whatever font the reader has.
    let mut attributes = format!("x=\"{x}\" y=\"{}\" textLength=\"{width}\"", top + BASELINE);
    if letters != FOREGROUND {
        let _ = write!(attributes, " fill=\"{letters}\"");
    }
    if style.bold {
        attributes.push_str(" font-weight=\"bold\"");
    }
    if style.dim {
        attributes.push_str(" fill-opacity=\".6\"");
    }
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let _ = writeln!(out, "<text {attributes} lengthAdjust=\"spacingAndGlyphs\">{text}</text>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_become_styles() {
        let screen = "a\u{1b}[1m\u{1b}[31mb\u{1b}[39m\u{1b}[22mc\u{1b}[0m\n\u{1b}[7m>x\u{1b}[m\u{1b}[38;5;2mg";
        let plain = TextStyle::default();
        let red = TextStyle { colour: Some(1), bold: true, ..plain };
        let expected = [
            vec![(plain, "a".to_owned()), (red, "b".to_owned()), (plain, "c".to_owned())],
            // tmux writes the colours of the terminal in the form of the palette of 256.
            vec![
                (TextStyle { reversed: true, ..plain }, ">x".to_owned()),
                (TextStyle { colour: Some(2), ..plain }, "g".to_owned()),
            ],
        ];
        assert_eq!(lines(screen), expected);
    }

    #[test]
    fn letters_of_markup_are_escaped_and_stand_in_their_cells() {
        let drawn = svg("ab\u{1b}[31m<&>\n");
        assert!(drawn.contains("&lt;&amp;&gt;"), "{drawn}");
        let x = MARGIN + 2 * CELL.0;
        assert!(drawn.contains(&format!("x=\"{x}\"")) && drawn.contains(PALETTE[1]), "{drawn}");
    }
}
