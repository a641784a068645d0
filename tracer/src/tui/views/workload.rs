//! One workload: what it is, how long its connections live, its processes and its destinations.

use ratatui::layout::Rect;

use super::table;
use crate::tui::app::App;
use crate::tui::cells::other_failures;
use crate::tui::page::Pane;
use crate::tui::render::canvas::Canvas;
use crate::tui::render::distributions;
use crate::tui::render::split::divide;
use tracer_core::layout::human::{brief, plural, rate, short};
use tracer_core::layout::text::{Paint, StyledLine};
use tracer_core::tracker::snapshot::Workload;

/// From this height on, distributions have a line per bucket.
const TALL: u16 = 34;

/// Draws the page into `area`.
pub fn draw(canvas: &mut Canvas<'_>, app: &App, area: Rect, name: &str) {
    let Some(workload) = app.row_input().workload() else {
        let text = format!("{} does nothing any more, and what it did has been forgotten.", canvas.safe(name));
        canvas.paragraph(area, &Vec::new(), Paint::Plain, &text);
        return;
    };
    let mut y = area.y;
    for line in facts(canvas, workload) {
        canvas.line(area, y, &line);
        y += 1;
    }
    if let Some(detail) = app.workload_detail(name) {
        y += distributions::draw(
            canvas,
            Rect { y, height: area.bottom() - y, ..area },
            area.height >= TALL,
            &[("lifetime", &detail.lifetime), ("connect", &detail.connect)],
        );
    }
    let left = Rect { y, height: area.bottom().saturating_sub(y), ..area };
    let (first, second) =
        divide(left.height, app.rows.shown(Pane::Processes).len(), app.rows.shown(Pane::Towards).len());
    table::draw(canvas, app, Pane::Processes, Rect { height: first, ..left });
    table::draw(canvas, app, Pane::Towards, Rect { y: y + first, height: second, ..left });
}

/// The lines at the top: who it is, what it does, what it holds, how its connections end.
fn facts(canvas: &Canvas<'_>, workload: &Workload) -> Vec<StyledLine> {
    let mut who: StyledLine = vec![(Paint::Strong, canvas.safe(&workload.name))];
    let parts = [
        ("comm", &workload.comm),
        ("unit", &workload.unit),
        ("container", &workload.container),
        ("pod", &workload.pod),
        ("exe", &workload.exe),
    ];
    for (label, value) in parts {
        if let Some(value) = value.as_deref().filter(|value| *value != &*workload.name) {
            who.push((Paint::Dim, format!("  {label} ")));
            who.push((Paint::Plain, canvas.safe(value)));
        }
    }
    let failed = workload.failed.without_port();
    let mut does: StyledLine = vec![
        (Paint::Strong, format!("{} connects/s", rate(workload.connects_per_second))),
        (Paint::Plain, format!("  {}, ", plural(workload.connects, "connect"))),
        (Paint::Plain, format!("{} established, ", short(workload.established))),
        (if failed > 0 { Paint::Bad } else { Paint::Plain }, format!("{} without a port", short(failed))),
    ];
    does.push((Paint::Plain, other_failures(&workload.failed)));
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
