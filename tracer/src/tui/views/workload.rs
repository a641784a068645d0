//! One workload: what it is, how long its connections live, its processes, whom it talks to.

use ratatui::layout::Rect;

use super::super::rows::workload;
use crate::tui::app::{App, Pane};
use crate::tui::columns::exhausted;
use crate::tui::render::{Canvas, divide, histogram};
use tracer_core::layout::human::{brief, plural, rate, short};
use tracer_core::layout::text::{Paint, StyledLine};
use tracer_core::tracker::snapshot::{Failed, Workload};

/// Lines of a distribution that is told bucket by bucket.
const HEIGHT: u16 = 10;
/// From this height on, distributions are told bucket by bucket.
const TALL: u16 = 34;

pub fn draw(canvas: &mut Canvas<'_>, app: &App, area: Rect, name: &str) {
    let Some(workload) = workload(app) else {
        let text = format!("{} does nothing any more, and what it did has been forgotten.", canvas.safe(name));
        canvas.paragraph(area, &Vec::new(), Paint::Plain, &text);
        return;
    };
    let mut y = area.y;
    for line in facts(canvas, workload) {
        canvas.pieces(area, y, &line);
        y += 1;
    }
    if let Some(detail) = app.workload_detail(name) {
        y += distributions(
            canvas,
            Rect { y, height: area.bottom() - y, ..area },
            area.height >= TALL,
            &[("lifetime", &detail.lifetime), ("connect", &detail.connect)],
        );
    }
    let left = Rect { y, height: area.bottom().saturating_sub(y), ..area };
    let (first, second) = divide(left.height, app.rows.of(Pane::Processes).len(), app.rows.of(Pane::Towards).len());
    canvas.table(app, Pane::Processes, Rect { height: first, ..left });
    canvas.table(app, Pane::Towards, Rect { y: y + first, height: second, ..left });
}

/// Draws distributions, side by side where they are told bucket by bucket; the lines used.
pub fn distributions(
    canvas: &mut Canvas<'_>,
    area: Rect,
    tall: bool,
    shapes: &[(&str, &tracer_core::tracker::snapshot::detail::DurationHistogram)],
) -> u16 {
    let unicode = canvas.options.unicode;
    if !tall {
        for (index, (label, shape)) in shapes.iter().enumerate() {
            let y = area.y + u16::try_from(index).unwrap_or(0);
            canvas.pieces(area, y, &histogram::line(label, shape, unicode));
        }
        return u16::try_from(shapes.len()).unwrap_or(0);
    }
    let count = u16::try_from(shapes.len()).unwrap_or(1).max(1);
    let width = area.width / count;
    let mut most = 0;
    for (index, (label, shape)) in shapes.iter().enumerate() {
        let x = area.x + width * u16::try_from(index).unwrap_or(0);
        let column = Rect { x, width: width.saturating_sub(2), ..area };
        let lines = histogram::lines(label, shape, usize::from(column.width), usize::from(HEIGHT), unicode);
        for (line, cell) in lines.iter().enumerate() {
            canvas.pieces(column, area.y + u16::try_from(line).unwrap_or(0), cell);
        }
        most = most.max(u16::try_from(lines.len()).unwrap_or(0));
    }
    most + 1
}

fn facts(canvas: &Canvas<'_>, workload: &Workload) -> Vec<StyledLine> {
    let mut who: StyledLine = vec![(Paint::Strong, canvas.safe(&workload.name))];
    let parts = [
        ("comm", &workload.comm),
        ("unit", &workload.unit),
        ("container", &workload.container),
        ("exe", &workload.exe),
    ];
    for (label, value) in parts {
        if let Some(value) = value.as_deref().filter(|value| *value != &*workload.name) {
            who.push((Paint::Dim, format!("  {label} ")));
            who.push((Paint::Plain, canvas.safe(value)));
        }
    }
    let failed = exhausted(&workload.failed);
    let mut does: StyledLine = vec![
        (Paint::Strong, format!("{} connects/s", rate(workload.connects_per_second))),
        (Paint::Plain, format!("  {}, ", plural(workload.connects, "connect"))),
        (Paint::Plain, format!("{} established, ", short(workload.established))),
        (if failed > 0 { Paint::Bad } else { Paint::Plain }, format!("{} without a port", short(failed))),
    ];
    does.push((Paint::Plain, others(&workload.failed)));
    let close_wait = match workload.close_wait.oldest_seconds {
        Some(oldest) if workload.close_wait.now > 0 => {
            format!("  {} in CLOSE_WAIT, oldest {}", short(workload.close_wait.now), brief(oldest * 1e3))
        }
        _ => String::new(),
    };
    let holds: StyledLine = vec![
        (Paint::Strong, format!("{} ports held", short(workload.ports_held))),
        (Paint::Warn, format!("  {} in TIME_WAIT", short(workload.time_wait.now))),
        (
            Paint::Plain,
            format!(
                " (peak {}, {}/s, {} reused)",
                short(workload.time_wait.peak),
                rate(workload.time_wait.per_second),
                short(workload.time_wait.reused)
            ),
        ),
        (Paint::Warn, close_wait),
    ];
    let ends: StyledLine = vec![(
        Paint::Plain,
        format!(
            "{} closed: {} by it first, {} by the peer first, {} reset; {} accepted",
            short(workload.closed),
            short(workload.active_closes),
            short(workload.passive_closes),
            short(workload.resets),
            short(workload.accepted)
        ),
    )];
    vec![who, does, holds, ends]
}

/// Failures that are no lack of ports.
pub fn others(failed: &Failed) -> String {
    use tracer_core::tracker::snapshot::Failure::{BindExhausted, PortsExhausted};
    let others = failed.iter().filter(|(failure, _)| !matches!(failure, PortsExhausted | BindExhausted));
    let words: Vec<String> = others.map(|(failure, count)| format!(", {} {failure}", short(*count))).collect();
    words.concat()
}
