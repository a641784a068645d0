//! At a glance: is it happening, who, to where, what to do.

use ratatui::layout::Rect;

use crate::layout::human::{brief, plural, rate};
use crate::layout::page::Paint;
use crate::tracker::snapshot::{Destination, Finding, Snapshot};
use crate::tui::app::{App, Pane};
use crate::tui::columns::{Cell, endpoint, exhausted, severity};
use crate::tui::render::{Canvas, divide, spark};

/// Lines that the sentence may take, of a screen of 24 lines and of larger ones.
const SENTENCE_LINES: [u16; 2] = [2, 3];
/// A screen with room.
const TALL: u16 = 30;

pub fn draw(canvas: &mut Canvas<'_>, app: &App, area: Rect) {
    let mut y = area.y;
    let lines = SENTENCE_LINES[usize::from(area.height >= TALL)];
    let snapshot = &app.frame.snapshot;
    let (label, text) = verdict(app);
    let sentence = Rect { y, height: lines, ..area };
    y += canvas.paragraph(sentence, &label, Paint::Plain, &canvas.safe(&text));
    if let Some(advice) = snapshot.findings.first().and_then(|finding| finding.advice.first()) {
        let label: Cell = vec![(Paint::Good, format!("{:<10}", "DO"))];
        let text = canvas.safe(&format!("{}. {}", advice.action, advice.expected));
        y += canvas.paragraph(
            Rect { y, height: if area.height >= TALL { 2 } else { 1 }, ..area },
            &label,
            Paint::Plain,
            &text,
        );
    }
    pulse(canvas, app, Rect { y, height: 1, ..area });
    y += 1;
    if area.height >= TALL {
        y += 1;
    }
    let left = Rect { y, height: area.bottom().saturating_sub(y), ..area };
    let (first, second) =
        divide(left.height, app.rows.of(Pane::Workloads).len(), app.rows.of(Pane::Destinations).len());
    canvas.table(app, Pane::Workloads, Rect { height: first, ..left });
    canvas.table(app, Pane::Destinations, Rect { y: y + first, height: second, ..left });
}

/// The worst thing in one sentence.
fn verdict(app: &App) -> (Cell, String) {
    let snapshot = &app.frame.snapshot;
    let label = |paint, word: &str| vec![(paint, format!("{word:<10}"))];
    if snapshot.generation == 0 {
        return (label(Paint::Dim, "..."), "Nothing has been seen yet.".into());
    }
    match snapshot.findings.first() {
        Some(worst) => {
            let (paint, word) = severity(worst.severity);
            (label(paint, word), sentence(worst))
        }
        None => (label(Paint::Good, "OK"), fullest(snapshot)),
    }
}

fn sentence(finding: &Finding) -> String {
    finding.summary.clone()
}

fn fullest(snapshot: &Snapshot) -> String {
    let share = |destination: &Destination| destination.ports.utilisation.unwrap_or(0.0);
    let fullest = snapshot.destinations.iter().max_by(|a, b| share(a).total_cmp(&share(b)));
    let Some(fullest) = fullest else { return "No outgoing connection was seen.".into() };
    let ports = &fullest.ports;
    let of = ports.capacity.map_or_else(|| "an unknown number".into(), |capacity| capacity.to_string());
    let when =
        fullest.seconds_to_exhaustion.map_or_else(String::new, |left| format!(", full in {}", brief(left * 1e3)));
    format!(
        "No destination lacks ports. The fullest is {}: {} of {of} in use{when}.",
        endpoint(fullest.remote_addr, fullest.remote_port),
        ports.in_use
    )
}

/// Failures per second now and over the last minutes; connects beside them.
fn pulse(canvas: &mut Canvas<'_>, app: &App, area: Rect) {
    let pulse = &app.frame.details.pulse;
    let now = pulse.last().copied().unwrap_or_default();
    let total = app.frame.snapshot.workloads.iter().map(|w| exhausted(&w.failed)).fold(0, u64::saturating_add);
    let paint = match (now.exhausted, total) {
        (0, 0) => Paint::Good,
        (0, _) => Paint::Plain,
        _ => Paint::Bad,
    };
    let mut cell: Cell = vec![
        (Paint::Strong, format!("{:<10}", "NO PORT")),
        (paint, format!("{}/s now", rate(f64::from(now.exhausted)))),
        (Paint::Plain, format!(", {}  ", plural(total, "failure"))),
    ];
    let used = canvas.pieces(area, area.y, &cell);
    let tail = format!("  connects {}/s ", rate(f64::from(now.connects)));
    let room = usize::from(area.width.saturating_sub(used)).saturating_sub(tail.len());
    // Two pictures of the same seconds, if there is room to read them.
    let each = (room / 2).min(pulse.len().max(1)).min(150);
    let of = |value: fn(&crate::tracker::snapshot::detail::Second) -> u32| -> Vec<u64> {
        let skipped = pulse.len().saturating_sub(each);
        pulse.iter().skip(skipped).map(|second| u64::from(value(second))).collect()
    };
    cell = vec![
        (Paint::Bad, spark::line(&of(|second| second.exhausted), canvas.look.unicode)),
        (Paint::Plain, tail),
        (Paint::Plain, spark::line(&of(|second| second.connects), canvas.look.unicode)),
    ];
    let rest = Rect { x: area.x + used, width: area.width.saturating_sub(used), ..area };
    canvas.pieces(rest, area.y, &cell);
}
