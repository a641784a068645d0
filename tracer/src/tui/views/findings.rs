//! Findings with their evidence and advice, and what cannot be watched on this host.

use std::fmt::Write as _;

use ratatui::layout::Rect;
use serde_json::Value;

use super::table;
use crate::tui::app::App;
use crate::tui::cells::severity;
use crate::tui::page::Pane;
use crate::tui::render::canvas::{Canvas, wrapped};
use tracer_core::layout::human::{number, rate};
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
        let verdict = tracer_core::report::verdict::verdict(&app.frame.snapshot);
        lines.extend(wrapped(area.width, &Vec::new(), Paint::Plain, &canvas.safe(&verdict.text)));
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
    say(if finding.is_active() { paint } else { Paint::Dim }, word, Paint::Plain, &finding.summary);
    say(Paint::Dim, "when", Paint::Plain, &format!("{} ({})", times(app, finding), finding.id));
    for (index, advice) in finding.advice.iter().enumerate() {
        say(Paint::Good, &format!("DO {}", index + 1), Paint::Strong, &advice.action);
        say(Paint::Dim, "  why", Paint::Plain, &advice.why);
        say(Paint::Dim, "  expected", Paint::Plain, &advice.expected);
    }
    let evidence: Vec<(String, String)> = finding
        .evidence
        .iter()
        .map(|(name, value)| (name.replace('_', " "), words(value)))
        .filter(|(_, text)| !text.is_empty())
        .collect();
    let width_of_names = evidence.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    if !evidence.is_empty() {
        say(Paint::Dim, "EVIDENCE", Paint::Plain, "");
    }
    for (name, text) in evidence {
        let label: StyledLine = vec![(Paint::Dim, format!("  {name:<width_of_names$}  "))];
        lines.extend(wrapped(width, &label, Paint::Plain, &canvas.safe(&text)));
    }
    lines
}

/// `since 03:11:19, at its worst 841 failures/min`, `03:11:19 to 03:13:48, at its worst 841 failures/min, 1,204 in all`.
pub fn times(app: &App, finding: &Finding) -> String {
    let at = |time| app.trace.time_or_date(time, app.frame.snapshot.now);
    let life = &finding.life;
    let mut text = match (life.began, life.ended) {
        (Some(began), Some(ended)) => format!("{} to {}", at(began), at(ended)),
        (Some(began), None) if finding.since.is_some() => format!("since {}", at(began)),
        _ => "since the trace began, or before".into(),
    };
    if let Some(peak) = life.peak.filter(|peak| !peak.unit.is_empty()) {
        let _ = write!(text, ", at its worst {} {}", rate(peak.value), peak.unit);
    }
    if let Some(total) = life.total {
        let _ = write!(text, ", {} in all", number(total));
    }
    text
}

/// A value of the evidence in words: `batch.service 27,500 ports` instead of JSON; empty if there is nothing to say.
fn words(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::String(text) => text.clone(),
        Value::Number(value) => match value.as_u64() {
            Some(whole) => number(whole),
            None => value.as_f64().map_or_else(|| value.to_string(), rate),
        },
        Value::Array(items) => {
            let between = if items.iter().any(Value::is_object) { "; " } else { ", " };
            items.iter().map(words).filter(|text| !text.is_empty()).collect::<Vec<_>>().join(between)
        }
        Value::Object(fields) => {
            let told = fields.iter().map(|(name, value)| (name.replace('_', " "), words(value)));
            told.filter(|(_, text)| !text.is_empty())
                .map(|(name, text)| format!("{name} {text}"))
                .collect::<Vec<_>>()
                .join(", ")
        }
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
        let skipped =
            if events.skipped > 0 { format!(", {} undecodable", number(events.skipped)) } else { String::new() };
        let text =
            format!("{}{skipped}; {} repaired. Counts are lower bounds.", events.lost.words(), number(events.repaired));
        let label: StyledLine = vec![(Paint::Bad, format!("{:<11}", "LOST"))];
        lines.extend(wrapped(width, &label, Paint::Plain, &text));
    }
    lines
}
