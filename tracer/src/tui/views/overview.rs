//! The first page: whether connects fail or soon will, who burns the ports, towards which destination, what to do.

use ratatui::layout::Rect;

use super::table;
use crate::tui::app::App;
use crate::tui::cells::{endpoint, severity};
use crate::tui::charts::sparkline;
use crate::tui::page::Pane;
use crate::tui::render::canvas::Canvas;
use crate::tui::render::split::divide;
use tracer_core::layout::human::{brief, plural, rate, seconds, short};
use tracer_core::layout::text::{Paint, StyledLine};
use tracer_core::tracker::snapshot::detail::SecondCounts;
use tracer_core::tracker::snapshot::{Destination, Snapshot};

/// From this height on, sentences may take a line more.
const ROOMY: u16 = 20;
/// From this height on, failures and connects are charts.
const TALL: u16 = 40;
/// Lines of a chart with its title.
const CHART: u16 = 6;

/// Draws the page into `area`.
pub fn draw(canvas: &mut Canvas<'_>, app: &App, area: Rect) {
    let mut y = area.y;
    let lines = if area.height >= ROOMY { [3, 2] } else { [2, 1] };
    let snapshot = &app.frame.snapshot;
    let (label, text) = verdict(app);
    let sentence = Rect { y, height: lines[0], ..area };
    y += canvas.paragraph(sentence, &label, Paint::Plain, &canvas.safe(&text));
    if let Some(advice) = snapshot.findings.first().and_then(|finding| finding.advice.first()) {
        let label: StyledLine = vec![(Paint::Good, format!("{:<10}", "DO"))];
        let text = canvas.safe(&format!("{}. {}", advice.action, advice.expected));
        y += canvas.paragraph(Rect { y, height: lines[1], ..area }, &label, Paint::Plain, &text);
    }
    seconds_line(canvas, app, Rect { y, height: 1, ..area });
    y += 1;
    if area.height >= TALL {
        charts(canvas, app, Rect { y, height: CHART, ..area });
        y += CHART + 1;
    }
    let left = Rect { y, height: area.bottom().saturating_sub(y), ..area };
    let (first, second) =
        divide(left.height, app.rows.shown(Pane::Workloads).len(), app.rows.shown(Pane::Destinations).len());
    table::draw(canvas, app, Pane::Workloads, Rect { height: first, ..left });
    table::draw(canvas, app, Pane::Destinations, Rect { y: y + first, height: second, ..left });
}

/// The worst finding in one sentence, or the fullest destination if there is no finding.
fn verdict(app: &App) -> (StyledLine, String) {
    let snapshot = &app.frame.snapshot;
    let label = |paint, word: &str| vec![(paint, format!("{word:<10}"))];
    if snapshot.generation == 0 {
        return (label(Paint::Dim, "..."), "Nothing has been seen yet.".into());
    }
    match snapshot.findings.first() {
        Some(worst) => {
            let (paint, word) = severity(worst.severity);
            (label(paint, word), worst.summary.clone())
        }
        None if snapshot.destinations.iter().any(|destination| destination.seconds_to_exhaustion.is_some()) => {
            (label(Paint::Warn, "WARNING"), fullest(snapshot))
        }
        None => (label(Paint::Good, "OK"), fullest(snapshot)),
    }
}

/// The destination that runs out of ports first, else the one that has used most of them.
fn fullest(snapshot: &Snapshot) -> String {
    let share = |destination: &Destination| destination.ports.utilisation.unwrap_or(0.0);
    let soon = |destination: &Destination| destination.seconds_to_exhaustion.map_or(f64::NEG_INFINITY, |left| -left);
    let fullest = snapshot
        .destinations
        .iter()
        .max_by(|a, b| soon(a).total_cmp(&soon(b)).then_with(|| share(a).total_cmp(&share(b))));
    let Some(fullest) = fullest else { return "No outgoing connection was seen.".into() };
    let ports = &fullest.ports;
    let of = ports.capacity.map_or_else(|| "an unknown number".into(), |capacity| capacity.to_string());
    let when =
        fullest.seconds_to_exhaustion.map_or_else(String::new, |left| format!(", full in {}", brief(left * 1e3)));
    let lacks = if fullest.seconds_to_exhaustion.is_some() { "lacks ports yet" } else { "lacks ports" };
    format!(
        "No destination {lacks}. The fullest is {}: {} of {of} in use{when}.",
        endpoint(fullest.remote_addr, fullest.remote_port),
        ports.in_use
    )
}

/// Draws one line: failures per second, the last one, all of them, and sparklines of the failures and connects of the last
/// seconds.
fn seconds_line(canvas: &mut Canvas<'_>, app: &App, area: Rect) {
    let history = &app.frame.details.seconds;
    let snapshot = &app.frame.snapshot;
    let now = history.last().copied().unwrap_or_default();
    let total = snapshot.workloads.iter().map(|w| w.failed.without_port()).fold(0, u64::saturating_add);
    let paint = match (now.exhausted, total) {
        (0, 0) => Paint::Good,
        (0, _) => Paint::Plain,
        _ => Paint::Bad,
    };
    let last = snapshot.destinations.iter().filter_map(|destination| destination.last_failure).max();
    let last = last
        .filter(|_| now.exhausted == 0)
        .map_or_else(String::new, |last| format!("last {} ago, ", seconds(snapshot.now.seconds_since(last).floor())));
    let cell: StyledLine = vec![
        (Paint::Strong, format!("{:<10}", "NO PORT")),
        (paint, format!("{}/s now", rate(f64::from(now.exhausted)))),
        (Paint::Plain, format!(", {last}{}  ", plural(total, "failure"))),
    ];
    let used = canvas.line(area, area.y, &cell);
    let tail = format!("  connects {}/s ", rate(f64::from(now.connects)));
    let room = usize::from(area.width.saturating_sub(used)).saturating_sub(tail.len());
    let each = (room / 2).min(history.len());
    let rest = Rect { x: area.x + used, width: area.width.saturating_sub(used), ..area };
    let unicode = canvas.options.unicode;
    let cell: StyledLine = vec![
        (Paint::Bad, sparkline::line(&last_seconds(history, each, |second| second.exhausted), unicode)),
        (Paint::Plain, tail),
        (Paint::Plain, sparkline::line(&last_seconds(history, each, |second| second.connects), unicode)),
    ];
    canvas.line(rest, area.y, &cell);
}

/// One count of each of the last seconds.
fn last_seconds(history: &[SecondCounts], seconds: usize, value: CountOf) -> Vec<u64> {
    history.iter().skip(history.len().saturating_sub(seconds)).map(|second| u64::from(value(second))).collect()
}

/// One of the counts of a second.
type CountOf = fn(&SecondCounts) -> u32;

/// Draws charts of the failures and the connects of the last minutes, side by side, a column per second.
fn charts(canvas: &mut Canvas<'_>, app: &App, area: Rect) {
    let history = &app.frame.details.seconds;
    let half = area.width / 2;
    let charts: [(&str, Paint, CountOf); 2] = [
        ("no port, per second", Paint::Bad, |second| second.exhausted),
        ("connects, per second", Paint::Plain, |second| second.connects),
    ];
    for (index, (title, paint, value)) in (0_u16..).zip(charts) {
        let part = Rect { x: area.x + half * index, width: half - 2, ..area };
        let values = last_seconds(history, usize::from(part.width), value);
        let most = values.iter().max().copied().unwrap_or(0);
        let title = format!("{title}, last {} s, most {}", values.len(), short(most));
        canvas.line(part, part.y, &vec![(Paint::Dim, title)]);
        let chart = sparkline::chart(&values, usize::from(area.height - 1), canvas.options.unicode);
        for (line, text) in (0_u16..).zip(chart) {
            // The newest second stands at the right edge.
            let width = u16::try_from(values.len()).unwrap_or(part.width);
            let at = Rect { x: part.x + part.width.saturating_sub(width), width, ..part };
            canvas.line(at, part.y + 1 + line, &vec![(paint, text)]);
        }
    }
}
