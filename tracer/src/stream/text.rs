//! One aligned line per notice, for a terminal.
//!
//! Of a line that is too long, names are cut and numbers never, because a cut port is a wrong port. Below 110 columns the local
//! end is left out. A line with long IPv6 addresses may still be wider than the terminal. `~` marks what was inferred, `-` what
//! is not known.

use jiff::tz::TimeZone;
use unicode_width::UnicodeWidthStr;

use tracer_core::clock::Clock;
use tracer_core::event::{Endpoint, FlowKey, Ktime};
use tracer_core::layout::human::{brief, number, rate};
use tracer_core::layout::text::{Paint, cut_name, left, safe};
use tracer_core::tracker::snapshot::{
    Ended, FailedConnect, Finding, FlowEnd, Lost, Notice, Opened, Owner, Severity, StateChange,
};

/// Terminal width from which on a line has the local end of a flow and the longer words.
const WIDE: usize = 110;
/// Columns of `FROM` and `TO`: the longest IPv4 address with the longest port.
const ENDPOINT: usize = 21;
/// The least columns of a name, even if the line gets too long.
const LEAST_NAME: usize = 6;

/// What a line has, as the terminal's width allows.
#[derive(Clone, Copy)]
struct LineLayout {
    width: usize,
    wide: bool,
    name: usize,
}

impl LineLayout {
    fn new(width: usize) -> Self {
        let wide = width >= WIDE;
        Self { width, wide, name: if wide { 18 } else { 12 } }
    }

    /// The column of the local end with a blank behind it; empty on a narrow terminal.
    fn local(self, text: &str) -> String {
        if self.wide { format!("{text:<ENDPOINT$} ") } else { String::new() }
    }
}

/// An address with its port; the address alone if connect() chose no port; `-` if nothing is known.
fn endpoint(endpoint: Endpoint) -> String {
    match (endpoint.port, endpoint.addr.is_unspecified()) {
        (0, true) => "-".into(),
        (0, false) => endpoint.addr.to_string(),
        _ => endpoint.to_string(),
    }
}

/// The names of the columns.
pub fn header(colour: bool, width: usize) -> String {
    let layout = LineLayout::new(width);
    let line = format!(
        "{:12} {:5} {:>7} {} {}{} WHAT",
        "TIME",
        "KIND",
        "PID",
        left("WORKLOAD", layout.name),
        layout.local("FROM"),
        left("TO", ENDPOINT)
    );
    Paint::Strong.apply(&line, colour)
}

/// One line, without its newline.
pub fn notice(notice: &Notice, clock: Clock, zone: &TimeZone, width: usize, colour: bool) -> String {
    let layout = LineLayout::new(width);
    let (ktime, kind, paint, key, owner, detail) = match notice {
        Notice::FailedConnect(failed) => {
            (failed.ktime, "FAIL", Paint::Bad, &failed.key, failed.owner.as_ref(), failure(failed))
        }
        Notice::FlowEnd(end) => (end.ktime, "FLOW", Paint::Good, &end.key, end.owner.as_ref(), flow(end, layout.wide)),
        Notice::StateChange(change) => {
            (change.ktime, "STATE", Paint::Dim, &change.key, change.owner.as_ref(), transition(change, layout.wide))
        }
        Notice::Finding(found) => return finding(found, clock, zone, colour),
    };
    let head = format!("{} ", clock.time_of_day(ktime, zone));
    let tail = tail(layout, key, owner, &detail);
    let kind = paint.apply(&format!("{kind:5}"), colour);
    format!("{head}{kind}{tail}")
}

/// `03:11:19.204 BEGIN CRITICAL port-exhaustion: ...`, `03:13:48.000 END   CRITICAL port-exhaustion, at its worst 841 failures/min: ...`.
fn finding(finding: &Finding, clock: Clock, zone: &TimeZone, colour: bool) -> String {
    let (severity, paint) = match finding.severity {
        Severity::Critical => ("CRITICAL", Paint::Bad),
        Severity::Warning => ("WARNING", Paint::Warn),
        Severity::Info => ("INFO", Paint::Dim),
    };
    let (kind, worst) = match (finding.is_active(), finding.life.peak.filter(|peak| !peak.unit.is_empty())) {
        (true, _) => ("BEGIN", String::new()),
        (false, None) => ("END", String::new()),
        (false, Some(peak)) => ("END", format!(", at its worst {} {}", rate(peak.value), peak.unit)),
    };
    let total = finding.life.total.filter(|_| !finding.is_active());
    let total = total.map_or_else(String::new, |total| format!(", {} in all", number(total)));
    let head = paint.apply(&format!("{kind:5} {severity}"), colour);
    let time = clock.time_of_day(finding.changed_at(), zone);
    format!("{time} {head} {}{worst}{total}: {}", finding.id, safe(&finding.summary, false))
}

/// The line behind its kind.
fn tail(layout: LineLayout, key: &FlowKey, owner: Option<&Owner>, detail: &str) -> String {
    let pid = match owner {
        Some(owner) if owner.pid == 0 => "-".into(),
        Some(owner) if owner.inferred => format!("~{}", owner.pid),
        Some(owner) => owner.pid.to_string(),
        None => "-".into(),
    };
    let name = owner.map_or("-", |owner| if owner.workload.is_empty() { &owner.comm } else { &owner.workload });
    let name = safe(name, false);
    let local = layout.local(&endpoint(key.local));
    let remote = endpoint(key.remote);

    // TIME and KIND take 18 columns; four blanks stand between and behind the other columns.
    let used = 18 + 4 + pid.len().max(7) + local.width() + detail.width();
    let room = layout.width.saturating_sub(used);
    // The padding behind the destination shrinks first, then the name.
    let pad = ENDPOINT.min(room.saturating_sub(layout.name)).max(remote.width());
    let name_width = room.saturating_sub(pad).clamp(LEAST_NAME, layout.name);
    format!(" {pid:>7} {} {local}{remote:<pad$} {detail}", left(&cut_name(&name, name_width), name_width))
}

fn failure(failed: &FailedConnect) -> String {
    // A reason that no system call's return value confirmed was concluded from transitions.
    let mark = if failed.confirmed { "" } else { "~" };
    let after = failed.after_ms.map_or_else(String::new, |after| format!(" {}", brief(after)));
    format!("{mark}{}{after}", failed.failure)
}

fn flow(end: &FlowEnd, wide: bool) -> String {
    let ended = match end.ended {
        Ended::ActiveClose => "active-close",
        Ended::PassiveClose => "passive-close",
        Ended::SimultaneousClose => "simultaneous-close",
        Ended::ResetByPeer => "reset-by-peer",
        Ended::ResetByUs => "reset-by-us",
        Ended::TimedOut => "timed-out",
        Ended::ConnectFailed => "connect-failed",
        Ended::Unknown => "end-unknown",
    };
    let ended = if wide { ended } else { ended.trim_end_matches("-close") };
    let opened = match end.opened {
        Opened::Active => "",
        Opened::Passive => " accepted",
        Opened::Unknown => " opened-before",
    };
    let lifetime = end.lifetime_ms.map_or_else(|| "-".into(), brief);
    let time_wait = if end.time_wait { " TIME_WAIT" } else { "" };
    let repaired = if end.repaired { " ~repaired" } else { "" };
    format!("{lifetime} {ended}{time_wait}{opened}{repaired}")
}

fn transition(change: &StateChange, wide: bool) -> String {
    let dwell = change.dwell_ms.map_or_else(String::new, |dwell| format!(" {}", brief(dwell)));
    let arrow = if wide { " > " } else { ">" };
    format!("{}{arrow}{}{dwell}", change.old, change.new)
}

/// One line, without its newline. The counts are totals.
pub fn loss(ktime: Ktime, lost: Lost, clock: Clock, zone: &TimeZone, colour: bool) -> String {
    let text = format!("so far {}", lost.words());
    format!(
        "{} {} {}",
        clock.time_of_day(ktime, zone),
        Paint::Warn.apply("LOSS ", colour),
        Paint::Warn.apply(&text, colour)
    )
}
