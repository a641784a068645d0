//! The lines that every page has: host, counters and time; tabs and filter; position of a replay; the keys at the bottom.

use ratatui::layout::Rect;
use unicode_width::UnicodeWidthStr as _;

use crate::tui::app::App;
use crate::tui::cells::endpoint;
use crate::tui::channel::ReplayStatus;
use crate::tui::page::{Page, Pane};
use crate::tui::render::canvas::Canvas;
use tracer_core::layout::human::{between, bytes, plural, rate, seconds, short};
use tracer_core::layout::text::{Paint, StyledLine, cut, styled_letters};

/// A lag is worth a word from here on: a tracker that keeps up is some milliseconds behind.
const LAG_SHOWN_MS: u64 = 1_000;

/// Draws the lines above the page. Returns the lines used.
pub fn draw(canvas: &mut Canvas<'_>, app: &App, area: Rect) -> u16 {
    top(canvas, app, area);
    tabs(canvas, app, Rect { y: area.y + 1, height: 1, ..area });
    match &app.newest().status.replay {
        Some(replay) => {
            position(canvas, app, replay, Rect { y: area.y + 2, height: 1, ..area });
            3
        }
        None => 2,
    }
}

/// Draws host, tier, events and loss at the left, recording, pause and time at the right.
fn top(canvas: &mut Canvas<'_>, app: &App, area: Rect) {
    let (newest, host) = (app.newest(), &app.trace.host);
    let events = &newest.snapshot.events;
    let (lost, at_most) = (events.lost.certain(), events.lost.upper_bound());
    let mut left: StyledLine = vec![(Paint::Strong, "portchurn ".into())];
    if at_most > 0 {
        // Loss comes first, so that no terminal is too narrow for it.
        left.push((Paint::Bad, format!("LOST {}  ", between(lost, at_most, short))));
    }
    if let Some(lag) = events.lag_ms.filter(|&lag| lag >= LAG_SHOWN_MS) {
        left.push((Paint::Bad, format!("LAG {}  ", seconds(lag as f64 / 1e3))));
    }
    left.push((Paint::Plain, canvas.safe(host.hostname.as_deref().unwrap_or("unknown host"))));
    left.push((Paint::Dim, format!("  {}", canvas.safe(host.tier.as_deref().unwrap_or("tier unknown")))));
    let per_second = newest.details.seconds.last().map_or(0, |second| second.events);
    left.push((Paint::Plain, format!("  {} ev/s", rate(f64::from(per_second)))));
    if at_most == 0 {
        left.push((Paint::Dim, "  0 lost".into()));
    }
    if !host.degraded.is_empty() {
        left.push((Paint::Warn, format!("  {} degraded", host.degraded.len())));
    }
    if events.skipped > 0 {
        left.push((Paint::Bad, format!("  {} undecodable", short(events.skipped))));
    }
    if events.evicted > 0 {
        left.push((Paint::Warn, format!("  {} evicted", short(events.evicted))));
    }
    let right = right(app);
    let taken: usize = right.iter().map(|(_, text)| text.width()).sum();
    let start = area.width.saturating_sub(u16::try_from(taken).unwrap_or(area.width));
    canvas.line(Rect { width: start.saturating_sub(1), ..area }, area.y, &left);
    canvas.line(Rect { x: area.x + start, width: area.width - start, ..area }, area.y, &right);
}

fn right(app: &App) -> StyledLine {
    let newest = app.newest();
    let mut right: StyledLine = Vec::new();
    if let Some(recording) = &newest.status.recording {
        let lasted = seconds(newest.snapshot.now.seconds_since(recording.since).floor());
        right.push((Paint::Bad, format!("REC {lasted} {}", bytes(recording.bytes))));
        right.push((Paint::Plain, "  ".into()));
    }
    if app.paused {
        right.push((Paint::Warn, "PAUSED".into()));
        right.push((Paint::Plain, "  ".into()));
    }
    let (trace, now) = (&app.trace, app.frame.snapshot.now);
    if newest.snapshot.generation == 0 {
        right.push((Paint::Dim, "waiting for the first events".into()));
    } else {
        let time = trace.date_time(now);
        // A live view is of today.
        let time = if app.replaying() { time } else { time.split(' ').next_back().unwrap_or_default().to_owned() };
        right.push((Paint::Strong, format!("{time} {}", trace.clock.zone_name(now, &trace.zone))));
    }
    right
}

/// Draws the tabs, the page behind them and the filter.
fn tabs(canvas: &mut Canvas<'_>, app: &App, area: Rect) {
    let findings = app.frame.snapshot.findings.len();
    let failures: u64 =
        app.frame.snapshot.workloads.iter().map(|w| w.failed.without_port()).fold(0, u64::saturating_add);
    let names = [
        ("1 Overview".to_owned(), Paint::Plain),
        (format!("2 Findings {findings}"), if app.warnings() > 0 { Paint::Warn } else { Paint::Plain }),
        (format!("3 Failures {}", short(failures)), if failures > 0 { Paint::Bad } else { Paint::Plain }),
    ];
    let mut x = area.x;
    for (index, (name, paint)) in names.into_iter().enumerate() {
        let here = app.tab() == index;
        let text = if here { format!("[{name}]") } else { format!(" {name} ") };
        let width = u16::try_from(text.width()).unwrap_or(0);
        canvas.text(x, area.y, width, if here && paint == Paint::Plain { Paint::Strong } else { paint }, &text);
        canvas.hits.tabs.push((Rect { x, width, ..area }, index));
        x += width + 1;
    }
    let rest = Rect { x, width: (area.x + area.width).saturating_sub(x), ..area };
    let mut pieces: StyledLine = Vec::new();
    match app.page() {
        Page::Workload(name) => pieces.push((Paint::Plain, format!("> {}", canvas.safe(name)))),
        Page::Destination(place) => {
            pieces.push((Paint::Plain, format!("> {}", endpoint(place.remote_addr, place.remote_port))));
        }
        Page::Flow(key) => pieces.push((Paint::Plain, format!("> port {}", key.local.port))),
        Page::Overview | Page::Findings | Page::Failures => {}
    }
    if !app.filter_text.trim().is_empty() {
        let gap = if pieces.is_empty() { "" } else { "   " };
        pieces.push((Paint::Warn, format!("{gap}filter: {}", canvas.safe(&app.filter_text))));
        if let Some(filter) = &app.frame.snapshot.filter {
            let outside = match filter.outside.findings {
                0 => String::new(),
                some => format!(" ({} outside)", plural(some, "finding")),
            };
            pieces.push((Paint::Dim, outside));
            pieces.extend(filter.not_seen.iter().map(|name| (Paint::Dim, format!(" - {}", canvas.safe(name)))));
        }
    }
    canvas.line(rest, area.y, &pieces);
}

/// Draws how fast a replay runs and where it is, as a line from begin to end.
fn position(canvas: &mut Canvas<'_>, app: &App, replay: &ReplayStatus, area: Rect) {
    let now = app.newest().snapshot.now;
    let at = seconds(now.seconds_since(replay.start).floor());
    let length = seconds(replay.end.seconds_since(replay.start).floor());
    let what = match (replay.seeking, replay.paused, replay.ended || now >= replay.end) {
        (true, _, _) => "seeking",
        (_, _, true) => "end",
        (_, true, _) => "PAUSED",
        (false, false, false) => "playing",
    };
    let mut label = format!("REPLAY {what} {}  {at} of {length} ", replay.speed);
    if !replay.gaps.is_empty() {
        label = format!("{label} {} gap{} ", replay.gaps.len(), if replay.gaps.len() == 1 { "" } else { "s" });
    }
    let label = cut(&label, usize::from(area.width));
    let taken = u16::try_from(label.width()).unwrap_or(area.width);
    let paint = if replay.paused { Paint::Warn } else { Paint::Strong };
    canvas.text(area.x, area.y, taken, paint, &label);
    let line = Rect { x: area.x + taken, width: area.width - taken, ..area };
    canvas.line(line, area.y, &track(replay, now, usize::from(line.width), canvas.options.unicode));
}

/// `[====|--xx--]`: passed, present position, to come, gaps.
fn track(replay: &ReplayStatus, now: tracer_core::event::Ktime, width: usize, unicode: bool) -> StyledLine {
    let cells = width.saturating_sub(2);
    let length = replay.end.since(replay.start).max(1);
    let cell_of = |at: tracer_core::event::Ktime| {
        let passed = u128::from(at.since(replay.start).min(length)) * cells.saturating_sub(1) as u128;
        usize::try_from(passed / u128::from(length)).unwrap_or(0)
    };
    let here = cell_of(now);
    let [passed, to_come] = if unicode { ['\u{2501}', '\u{2500}'] } else { ['=', '-'] };
    let mut row: Vec<(Paint, char)> =
        (0..cells).map(|cell| if cell < here { (Paint::Plain, passed) } else { (Paint::Dim, to_come) }).collect();
    for (from, to) in replay.gaps.iter() {
        for cell in cell_of(*from)..=cell_of(*to) {
            if let Some(slot) = row.get_mut(cell) {
                *slot = (Paint::Bad, 'x');
            }
        }
    }
    if let Some(slot) = row.get_mut(here) {
        *slot = (Paint::Strong, '|');
    }
    row.insert(0, (Paint::Plain, '['));
    row.push((Paint::Plain, ']'));
    styled_letters(row)
}

/// Draws the line at the bottom: the message if there is one, else the keys that do something here.
pub fn footer(canvas: &mut Canvas<'_>, app: &App, area: Rect) {
    if let Some(message) = &app.message {
        let text = canvas.safe(message);
        canvas.line(area, area.y, &vec![(Paint::Strong, text)]);
        return;
    }
    let into = match app.pane() {
        Pane::Workloads | Pane::Destinations | Pane::Towards | Pane::Holders | Pane::Flows | Pane::Failures => {
            "Enter in  "
        }
        Pane::Findings => "Enter to whom  ",
        Pane::Processes | Pane::Steps => "",
    };
    let out = if app.depth() > 0 || app.tab() != 0 { "Esc out  " } else { "" };
    let table = if app.page().panes().len() > 1 { "Tab table  " } else { "" };
    if app.replaying() {
        let text = format!(
            "? help  q quit  Space pause  [ ] speed  , . step  t time  n next  {into}{out}{table}/ filter  s sort"
        );
        canvas.line(area, area.y, &vec![(Paint::Dim, text)]);
        return;
    }
    let pause = if app.paused { "Space resume  r record  " } else { "Space pause  r record  " };
    let text = format!("? help  q quit  {into}{out}{table}/ filter  s sort  {pause}e export  y copy");
    let pieces = vec![(Paint::Dim, text)];
    canvas.line(area, area.y, &pieces);
}
