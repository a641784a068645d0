//! The last connects that found no port, each with the workloads that held the ports at that instant.

use ratatui::layout::Rect;

use super::table;
use crate::tui::app::App;
use crate::tui::page::Pane;
use crate::tui::render::canvas::Canvas;
use tracer_core::layout::human::{brief, number};
use tracer_core::layout::text::{Paint, StyledLine, left};
use tracer_core::tracker::snapshot::detail::FailureRecord;

/// Least lines of the lower part: two sentences and a few holders.
const DETAIL: u16 = 8;

/// Draws the page into `area`.
pub fn draw(canvas: &mut Canvas<'_>, app: &App, area: Rect) {
    let failures = &app.frame.details.failures;
    if failures.is_empty() {
        let text = "No connect has failed for lack of a port.";
        canvas.paragraph(area, &Vec::new(), Paint::Good, text);
        return;
    }
    let lower = DETAIL.max(area.height / 3);
    let upper = area.height.saturating_sub(lower + 1);
    table::draw(canvas, app, Pane::Failures, Rect { height: upper, ..area });
    let selected = app.rows.shown(Pane::Failures).get(app.cursor(Pane::Failures).index);
    if let Some(record) = selected.and_then(|index| failures.get(*index)) {
        detail(canvas, app, record, Rect { y: area.y + upper + 1, height: lower, ..area });
    }
}

/// Draws what is known of one failure.
fn detail(canvas: &mut Canvas<'_>, app: &App, record: &FailureRecord, area: Rect) {
    let failed = &record.failed;
    let who = failed.owner.as_ref().map_or_else(
        || "somebody unknown".into(),
        |owner| format!("{} (pid {}, thread {})", owner.workload, owner.pid, failed.tid),
    );
    let confirmed = if failed.confirmed { "the system call returned so" } else { "concluded from its transitions" };
    let after = failed.after_ms.map_or_else(String::new, |ms| format!(" after {}", brief(ms)));
    let text = format!("{}: {who} got {}{after}; {confirmed}.", app.trace.time_of_day(failed.ktime), failed.failure);
    let used = canvas.paragraph(Rect { height: 2, ..area }, &Vec::new(), Paint::Plain, &canvas.safe(&text));
    let mut y = area.y + used;
    let capacity = record.capacity.map_or_else(|| "unknown".into(), |capacity| number(u64::from(capacity)));
    let title = format!("HELD AT THAT INSTANT: {} of {capacity} ports", number(u64::from(record.in_use)));
    canvas.line(area, y, &vec![(Paint::Strong, title)]);
    y += 1;
    let most = record.holders.iter().map(|holder| holder.ports).max().unwrap_or(1).max(1);
    let letter = if canvas.options.unicode { '\u{2588}' } else { '#' };
    for holder in record.holders.iter() {
        let room = u64::from(area.width.saturating_sub(58).max(8));
        let cells = usize::try_from(u64::from(holder.ports) * room / u64::from(most)).unwrap_or(0).max(1);
        let name = left(&canvas.safe(&holder.workload), 28);
        let cell: StyledLine = vec![
            (Paint::Strong, name),
            (Paint::Plain, format!(" {:>7}", number(u64::from(holder.ports)))),
            (Paint::Warn, format!(" {:>7} TIME_WAIT ", number(u64::from(holder.time_wait)))),
            (Paint::Plain, std::iter::repeat_n(letter, cells).collect()),
        ];
        canvas.line(area, y, &cell);
        y += 1;
    }
}
