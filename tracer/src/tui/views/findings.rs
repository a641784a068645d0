//! Findings with their evidence and advice, and what this host does not let us see.

use ratatui::layout::Rect;
use serde_json::Value;

use crate::layout::page::Paint;
use crate::tracker::snapshot::Finding;
use crate::tui::app::{App, Pane};
use crate::tui::columns::{Cell, severity};
use crate::tui::render::Canvas;

pub fn draw(canvas: &mut Canvas<'_>, app: &App, area: Rect) {
    let findings = &app.frame.snapshot.findings;
    let mut y = area.y;
    if findings.is_empty() {
        let text = "Nothing to say: no destination fills up, nobody leaks, nothing fails for lack of a port.";
        y += canvas.paragraph(area, &Vec::new(), Paint::Good, text) + 1;
    } else {
        let height = u16::try_from(findings.len() + 1).unwrap_or(u16::MAX).min(area.height / 3).max(2);
        canvas.table(app, Pane::Findings, Rect { height, ..area });
        y += height + 1;
        let selected = app.rows.of(Pane::Findings).get(app.cursor(Pane::Findings).index);
        if let Some(finding) = selected.and_then(|index| findings.get(*index)) {
            y = detail(canvas, app, finding, Rect { y, height: area.bottom().saturating_sub(y), ..area });
        }
    }
    degradations(canvas, app, Rect { y, height: area.bottom().saturating_sub(y), ..area });
}

/// Draws as much as there is room for; the line behind it.
fn detail(canvas: &mut Canvas<'_>, app: &App, finding: &Finding, area: Rect) -> u16 {
    let mut y = area.y;
    let mut say = |canvas: &mut Canvas<'_>, label: Cell, paint: Paint, text: &str| {
        let room = Rect { y, height: area.bottom().saturating_sub(y), ..area };
        y += canvas.paragraph(room, &label, paint, &canvas.safe(text));
    };
    let (paint, word) = severity(finding.severity);
    say(canvas, vec![(paint, format!("{word:<11}"))], Paint::Plain, &finding.summary);
    let since = finding.since.map_or_else(String::new, |since| {
        format!("  since {}", app.about.clock.time_or_date(since, app.frame.snapshot.now, app.zone()))
    });
    say(canvas, vec![(Paint::Dim, format!("{:<11}", "id"))], Paint::Dim, &format!("{}{since}", finding.id));
    for (index, advice) in finding.advice.iter().enumerate() {
        say(canvas, vec![(Paint::Good, format!("{:<11}", format!("DO {}", index + 1)))], Paint::Strong, &advice.action);
        say(canvas, vec![(Paint::Dim, format!("{:<11}", "  why"))], Paint::Plain, &advice.why);
        say(canvas, vec![(Paint::Dim, format!("{:<11}", "  expected"))], Paint::Plain, &advice.expected);
    }
    let evidence: Vec<String> = finding
        .evidence
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| format!("{name} {}", plain(value)))
        .collect();
    if !evidence.is_empty() {
        say(canvas, vec![(Paint::Dim, format!("{:<11}", "EVIDENCE"))], Paint::Plain, &evidence.join(", "));
    }
    y + 1
}

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

fn degradations(canvas: &mut Canvas<'_>, app: &App, area: Rect) {
    let mut y = area.y;
    for gap in &app.about.host.degraded {
        let room = Rect { y, height: area.bottom().saturating_sub(y), ..area };
        let text = canvas.safe(&format!("{}: {}. Unknown without it: {}.", gap.what, gap.why, gap.lost));
        y += canvas.paragraph(room, &vec![(Paint::Warn, format!("{:<11}", "DEGRADED"))], Paint::Plain, &text);
    }
    let events = &app.frame.snapshot.events;
    if events.lost.any() || events.skipped > 0 {
        let text = format!(
            "ring buffer full {}, runs missed {}, not recorded {}, undecodable {}; {} repaired. Counts are lower bounds.",
            events.lost.ring_full, events.lost.missed_runs, events.lost.recorder, events.skipped, events.repaired
        );
        let room = Rect { y, height: area.bottom().saturating_sub(y), ..area };
        canvas.paragraph(room, &vec![(Paint::Bad, format!("{:<11}", "LOST"))], Paint::Plain, &text);
    }
}
