//! The first page: whether connects fail or soon will, who burns the ports, towards which destination, what to do.

use ratatui::layout::Rect;

use super::findings::times;
use super::table;
use crate::tui::app::App;
use crate::tui::charts::sparkline;
use crate::tui::page::Pane;
use crate::tui::render::canvas::Canvas;
use crate::tui::render::split::divide;
use tracer_core::event::Ktime;
use tracer_core::layout::human::{seconds, short};
use tracer_core::layout::text::{Paint, StyledLine, styled_letters};
use tracer_core::report::others;
use tracer_core::report::verdict::{ReportVerdict, VerdictWord, verdict};
use tracer_core::tracker::snapshot::detail::SecondCounts;
use tracer_core::tracker::snapshot::{Finding, Severity};

/// Nanoseconds.
const SECOND: u64 = 1_000_000_000;
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
    let verdict = verdict(snapshot);
    let (label, text) = sentence(app, &verdict);
    let sentence = Rect { y, height: lines[0], ..area };
    y += canvas.paragraph(sentence, &label, Paint::Plain, &canvas.safe(&text));
    if let Some(advice) = verdict.finding.and_then(|finding| finding.advice.first()) {
        let label: StyledLine = vec![(Paint::Good, format!("{:<10}", "DO"))];
        let text = canvas.safe(&format!("{}. {}", advice.action, advice.expected));
        y += canvas.paragraph(Rect { y, height: lines[1], ..area }, &label, Paint::Plain, &text);
    }
    seconds_line(canvas, app, Rect { y, height: 1, ..area });
    y += 1;
    if snapshot.findings.iter().any(matters) {
        findings_line(canvas, app, Rect { y, height: 1, ..area });
        y += 1;
    }
    if area.height >= TALL {
        charts(canvas, app, Rect { y, height: CHART, ..area });
        y += CHART + 1;
    }
    let rests = others::sentences(&snapshot.others);
    let lines = u16::from(!rests.is_empty() && area.height >= ROOMY);
    let left = Rect { y, height: area.bottom().saturating_sub(y + lines), ..area };
    let (first, second) =
        divide(left.height, app.rows.shown(Pane::Workloads).len(), app.rows.shown(Pane::Destinations).len());
    table::draw(canvas, app, Pane::Workloads, Rect { height: first, ..left });
    table::draw(canvas, app, Pane::Destinations, Rect { y: y + first, height: second, ..left });
    if let Some(first) = rests.first().filter(|_| lines > 0) {
        let more = if rests.len() > 1 { format!("; {} more", rests.len() - 1) } else { String::new() };
        canvas.line(area, left.bottom(), &vec![(Paint::Dim, canvas.safe(&format!("{first}{more}")))]);
    }
}

/// The verdict, with the times of what is over.
fn sentence(app: &App, verdict: &ReportVerdict<'_>) -> (StyledLine, String) {
    let label = |paint, word: &str| vec![(paint, format!("{word:<10}"))];
    if app.frame.snapshot.generation == 0 {
        return (label(Paint::Dim, "..."), "Nothing has been seen yet.".into());
    }
    let paint = match verdict.word {
        VerdictWord::Critical => Paint::Bad,
        VerdictWord::Warning | VerdictWord::Over | VerdictWord::Unknown | VerdictWord::Nothing => Paint::Warn,
        VerdictWord::Info => Paint::Dim,
        VerdictWord::Ok => Paint::Good,
    };
    let times = verdict.finding.filter(|finding| !finding.is_active()).map(|finding| times(app, finding));
    let text = times.map_or_else(|| verdict.text.clone(), |times| format!("{times}: {}", verdict.text));
    (label(paint, verdict.word.as_str()), text)
}

/// Is it more than worth knowing?
fn matters(finding: &Finding) -> bool {
    finding.severity != Severity::Info
}

/// Draws one line: what holds and what is over, and when it held, second by second up to now.
fn findings_line(canvas: &mut Canvas<'_>, app: &App, area: Rect) {
    let snapshot = &app.frame.snapshot;
    let findings: Vec<&Finding> = snapshot.findings.iter().filter(|finding| matters(finding)).collect();
    let now = findings.iter().filter(|finding| finding.is_active()).count();
    let label: StyledLine = vec![
        (Paint::Strong, format!("{:<10}", "FINDINGS")),
        (Paint::Plain, format!("{now} now, {} over  ", findings.len() - now)),
    ];
    let used = canvas.line(area, area.y, &label);
    let room = usize::from(area.width.saturating_sub(used));
    let seconds = room.min(app.frame.details.seconds.len());
    let rest = Rect { x: area.x + used, width: area.width.saturating_sub(used), ..area };
    canvas.line(rest, area.y, &timeline(&findings, snapshot.now, seconds));
}

/// One letter for each of the last seconds: `!` something critical held, `w` a warning, `.` nothing.
fn timeline(findings: &[&Finding], now: Ktime, seconds: usize) -> StyledLine {
    let last = now.0 / SECOND;
    let held = |finding: &Finding, second: u64| {
        let began = finding.life.began.is_some_and(|began| began.0 / SECOND <= second);
        began && finding.life.ended.is_none_or(|ended| ended.0 / SECOND >= second)
    };
    let letters = (0..seconds as u64).rev().map(|back| {
        let second = last.saturating_sub(back);
        let worst = findings.iter().filter(|finding| held(finding, second)).map(|finding| finding.severity).min();
        match worst {
            Some(Severity::Critical) => (Paint::Bad, '!'),
            Some(_) => (Paint::Warn, 'w'),
            None => (Paint::Dim, '.'),
        }
    });
    styled_letters(letters.collect())
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
    // What happened second by second is kept of the host as a whole.
    let (whole, all) = if snapshot.filter.is_some() { (" (host)", "inside the filter") } else { ("", "in all") };
    let cell: StyledLine = vec![
        (Paint::Strong, format!("{:<10}", "NO PORT")),
        (paint, format!("{} in 1 s{whole}", short(u64::from(now.exhausted)))),
        (Paint::Plain, format!(", {last}{} {all}  ", short(total))),
    ];
    let used = canvas.line(area, area.y, &cell);
    let tail = format!("  connects {} in 1 s{whole} ", short(u64::from(now.connects)));
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
