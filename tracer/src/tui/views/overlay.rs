//! What covers a part of a page: the help, the line that is typed, the question before quitting.

use ratatui::buffer::Cell as Letter;
use ratatui::layout::{Position, Rect};
use unicode_width::UnicodeWidthStr as _;

use crate::tui::app::{App, Overlay};
use crate::tui::keys::{BINDINGS, Binding, BindingScope};
use crate::tui::prompt::{Prompt, PromptPurpose};
use crate::tui::render::canvas::Canvas;
use tracer_core::layout::text::{Paint, left};

/// Draws the overlay, if there is one.
pub fn draw(canvas: &mut Canvas<'_>, app: &App, area: Rect) {
    match &app.overlay {
        None => {}
        Some(Overlay::Help(line)) => help(canvas, app, *line, area),
        Some(Overlay::Quit) => {
            let path = app.newest().status.recording.as_ref().map_or("", |recording| &recording.path);
            let path = canvas.safe(path);
            let inner = window(canvas, area, 64, 3);
            // The question first: whatever the path is, it stays on the screen.
            let question = "Stop the recording and quit? y yes, any other key no";
            let used = canvas.paragraph(inner, &Vec::new(), Paint::Strong, question);
            let rest = Rect { y: inner.y + used, height: inner.height.saturating_sub(used), ..inner };
            canvas.paragraph(rest, &Vec::new(), Paint::Plain, &format!("It is written to {path}"));
        }
        Some(Overlay::Prompt(prompt)) => typed(canvas, prompt, area),
    }
}

/// Clears and frames a window of this size in the middle. Returns the area inside.
fn window(canvas: &mut Canvas<'_>, area: Rect, width: u16, height: u16) -> Rect {
    let (width, height) = ((width + 4).min(area.width), (height + 2).min(area.height));
    let frame = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    clear(canvas, frame);
    let ([top_left, top_right, bottom_left, bottom_right], across, down) = if canvas.options.unicode {
        (['\u{250c}', '\u{2510}', '\u{2514}', '\u{2518}'], "\u{2500}", "\u{2502}")
    } else {
        (['+'; 4], "-", "|")
    };
    let line = across.repeat(usize::from(width) - 2);
    canvas.text(frame.x, frame.y, width, Paint::Plain, &format!("{top_left}{line}{top_right}"));
    canvas.text(frame.x, frame.bottom() - 1, width, Paint::Plain, &format!("{bottom_left}{line}{bottom_right}"));
    for y in frame.y + 1..frame.bottom() - 1 {
        canvas.text(frame.x, y, 1, Paint::Plain, down);
        canvas.text(frame.right() - 1, y, 1, Paint::Plain, down);
    }
    Rect { x: frame.x + 2, y: frame.y + 1, width: width - 4, height: height - 2 }
}

fn clear(canvas: &mut Canvas<'_>, area: Rect) {
    for y in area.y..area.bottom() {
        for x in area.x..area.right() {
            if let Some(letter) = canvas.buffer.cell_mut(Position::new(x, y)) {
                *letter = Letter::EMPTY;
            }
        }
    }
}

/// The bindings that have a line of their own.
fn help_lines() -> impl Iterator<Item = &'static Binding> {
    BINDINGS.iter().filter(|binding| !binding.label.is_empty())
}

/// Draws the keys from the given line on.
fn help(canvas: &mut Canvas<'_>, app: &App, line: usize, area: Rect) {
    let mut lines: Vec<(Paint, String)> = help_lines()
        .map(|binding| {
            let here = match binding.scope {
                BindingScope::Both => true,
                BindingScope::Live => !app.replaying(),
                BindingScope::Replay => app.replaying(),
            };
            let scope = match binding.scope {
                BindingScope::Both => "",
                BindingScope::Live => " (live)",
                BindingScope::Replay => " (replay)",
            };
            (
                if here { Paint::Plain } else { Paint::Dim },
                format!("{} {}{scope}", left(binding.label, 14), binding.help),
            )
        })
        .collect();
    let more = [
        "",
        "Mouse: click selects, a second click goes in, wheel scrolls; Shift marks.",
        "Destinations: ! fails now, ^ fills up. Bars: | where the present rate leads",
        "to, > beyond capacity. BEARS/S: the rate that the ports bear for good.",
        "~ before a pid: inferred. Counts are since the start; CONN/S 10s is the rate of the",
        "last ten seconds. FINDINGS: ! critical, w warning, in each of the last seconds.",
    ];
    lines.extend(more.map(|text| (Paint::Dim, text.to_owned())));
    let height = u16::try_from(lines.len()).unwrap_or(u16::MAX).min(area.height.saturating_sub(2));
    let inner = window(canvas, area, 78, height);
    let first = line.min(lines.len().saturating_sub(usize::from(inner.height)));
    for (index, (paint, text)) in lines.iter().skip(first).take(usize::from(inner.height)).enumerate() {
        canvas.line(inner, inner.y + u16::try_from(index).unwrap_or(0), &vec![(*paint, text.clone())]);
    }
    let rest = lines.len() - first;
    if rest > usize::from(inner.height) {
        let text = format!(" {} more: j k ", rest - usize::from(inner.height));
        canvas.text(inner.x, inner.bottom(), inner.width, Paint::Strong, &text);
    }
}

/// Draws the line that is typed at the bottom, and under it what is wrong with it or what it may contain.
fn typed(canvas: &mut Canvas<'_>, prompt: &Prompt, area: Rect) {
    let height = if matches!(prompt.error, Some((_, Some(_)))) { 3 } else { 2 };
    let lines = Rect { y: area.bottom() - height, height, ..area };
    clear(canvas, lines);
    let label = match prompt.purpose {
        PromptPurpose::Filter => "filter: ",
        PromptPurpose::Seek => "go to: ",
    };
    let text = canvas.safe(&prompt.text());
    let before: String = prompt.text().chars().take(prompt.cursor()).collect();
    let before = label.width() + canvas.safe(&before).width();
    // Of a line that is longer than the screen, the part before the cursor is shown.
    let skip = (before + 2).saturating_sub(usize::from(area.width));
    let whole = format!("{label}{text}");
    let visible: String = whole.chars().skip(skip).collect();
    canvas.text(lines.x, lines.y, lines.width, Paint::Strong, &visible);
    let x = lines.x + u16::try_from(before - skip).unwrap_or(0);
    canvas.cursor = Some(Position::new(x.min(area.right() - 1), lines.y));
    if let Some((_, Some(at))) = &prompt.error {
        // The mark stands under the character that is wrong.
        let at = u16::try_from((label.width() + at).saturating_sub(skip)).unwrap_or(u16::MAX).min(area.width - 1);
        canvas.text(lines.x + at, lines.y + 1, 1, Paint::Bad, "^");
    }
    let (paint, under) = match (&prompt.error, prompt.purpose) {
        (Some((error, _)), _) => (Paint::Bad, canvas.safe(error)),
        (None, PromptPurpose::Filter) => {
            (Paint::Dim, "comm pid unit container pod workload netns src dst state errno; = != and or not ( ) *".into())
        }
        (None, PromptPurpose::Seek) => (Paint::Dim, "14:02:30  3m ago  +90s  -5m  40%  2026-03-14T14:02:30Z".into()),
    };
    canvas.line(lines, lines.bottom() - 1, &vec![(paint, under)]);
}
