//! Findings with their evidence and advice, and what cannot be watched on this host.

use ratatui::layout::Rect;
use serde_json::Value;

use super::table;
use crate::tui::app::App;
use crate::tui::cells::severity;
use crate::tui::page::Pane;
use crate::tui::render::canvas::{Canvas, wrapped};
use tracer_core::layout::text::{Paint, StyledLine};
use tracer_core::tracker::snapshot::Finding;

/// Least lines of the table: its heading and the selected row.
const LEAST_TABLE: u16 = 2;

/// Draws the page into `area`.
pub fn draw(canvas: &mut Canvas<'_>, app: &App, area: Rect) {
    let findings = &app.frame.snapshot.findings;
    let mut y = area.y;
    let mut lines: Vec<StyledLine> = Vec::new();
    if findings.is_empty() {
        let text = "Nothing to say: no destination fills up, nobody leaks, nothing fails for lack of a port.";
        lines.extend(wrapped(area.width, &Vec::new(), Paint::Good, text));
    } else {
        let height = u16::try_from(findings.len() + 1).unwrap_or(u16::MAX).min(area.height / 3).max(LEAST_TABLE);
        table::draw(canvas, app, Pane::Findings, Rect { height, ..area });
        y += height + 1;
        let selected = app.rows.shown(Pane::Findings).get(app.cursor(Pane::Findings).index);
        if let Some(finding) = selected.and_then(|index| findings.get(*index)) {
            lines.extend(detail(canvas, app, finding, area.width));
        }
    }
    lines.push(Vec::new());
    lines.extend(gaps(canvas, app, area.width));
    while lines.last().is_some_and(Vec::is_empty) {
        lines.pop();
    }
    scrolled(canvas, app, &lines, Rect { y, height: area.bottom().saturating_sub(y), ..area });
}

/// Draws lines from the one that the user scrolled to, and how many more there are.
fn scrolled(canvas: &mut Canvas<'_>, app: &App, lines: &[StyledLine], area: Rect) {
    let height = usize::from(area.height);
    let most = lines.len().saturating_sub(height);
    canvas.hits.scroll = most;
    let first = app.scroll.min(most);
    for (y, line) in (area.y..area.bottom()).zip(lines.iter().skip(first)) {
        canvas.line(area, y, line);
    }
    if first < most {
        let text = format!(" {} more lines: PgDn ", most - first);
        let x = (area.x + area.width).saturating_sub(u16::try_from(text.len()).unwrap_or(0));
        canvas.text(x, area.bottom() - 1, area.width, Paint::Strong, &text);
    }
}

/// One finding as lines: what, since when, what to do, evidence.
fn detail(canvas: &Canvas<'_>, app: &App, finding: &Finding, width: u16) -> Vec<StyledLine> {
    let mut lines = Vec::new();
    let mut say = |paint_label: Paint, label: &str, paint: Paint, text: &str| {
        let label: StyledLine = vec![(paint_label, format!("{label:<11}"))];
        lines.extend(wrapped(width, &label, paint, &canvas.safe(text)));
    };
    let (paint, word) = severity(finding.severity);
    say(paint, word, Paint::Plain, &finding.summary);
    let since = finding
        .since
        .map_or_else(String::new, |since| format!("  since {}", app.trace.time_or_date(since, app.frame.snapshot.now)));
    say(Paint::Dim, "id", Paint::Dim, &format!("{}{since}", finding.id));
    for (index, advice) in finding.advice.iter().enumerate() {
        say(Paint::Good, &format!("DO {}", index + 1), Paint::Strong, &advice.action);
        say(Paint::Dim, "  why", Paint::Plain, &advice.why);
        say(Paint::Dim, "  expected", Paint::Plain, &advice.expected);
    }
    let evidence: Vec<String> = finding
        .evidence
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| format!("{name} {}", plain(value)))
        .collect();
    if !evidence.is_empty() {
        say(Paint::Dim, "EVIDENCE", Paint::Plain, &evidence.join(", "));
    }
    lines
}

/// A value of the evidence as text.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_f64() {
            Some(float) if number.is_f64() => format!("{float:.1}"),
            _ => number.to_string(),
        },
        other => other.to_string(),
    }
}

/// What cannot be watched on this host, and what was lost.
fn gaps(canvas: &Canvas<'_>, app: &App, width: u16) -> Vec<StyledLine> {
    let mut lines = Vec::new();
    for gap in &app.trace.host.degraded {
        let text = canvas.safe(&format!("{}: {}. Unknown without it: {}.", gap.what, gap.why, gap.lost));
        let label: StyledLine = vec![(Paint::Warn, format!("{:<11}", "DEGRADED"))];
        lines.extend(wrapped(width, &label, Paint::Plain, &text));
    }
    let events = &app.frame.snapshot.events;
    if events.lost.upper_bound() > 0 || events.skipped > 0 {
        let text = format!(
            "ring buffer full {}, runs missed {}, beside the chain {}, not recorded {}, undecodable {}; {} repaired. Counts are lower bounds.",
            events.lost.ring_full,
            events.lost.missed_runs,
            events.lost.other_runs,
            events.lost.recorder,
            events.skipped,
            events.repaired
        );
        let label: StyledLine = vec![(Paint::Bad, format!("{:<11}", "LOST"))];
        lines.extend(wrapped(width, &label, Paint::Plain, &text));
    }
    lines
}
