//! How single facts are written, the same in a table's cell, on a page and in an export.

use tracer_core::event::{Addr, Endpoint, Netns, TcpState};
use tracer_core::layout::human::{brief, rate, seconds, short};
use tracer_core::layout::text::{Paint, StyledLine};
use tracer_core::tracker::snapshot::{Destination, FailureCounts, Severity, Snapshot};

/// Seconds for which a failure counts as happening now.
const RECENT_SECONDS: f64 = 10.0;

/// Text without emphasis.
pub fn plain(text: String) -> StyledLine {
    vec![(Paint::Plain, text)]
}

/// A number; zero is dimmed, because a table is read for the others.
pub fn count(value: u64) -> StyledLine {
    vec![(if value == 0 { Paint::Dim } else { Paint::Plain }, short(value))]
}

/// A number that should be zero.
pub fn bad(value: u64) -> StyledLine {
    vec![(if value == 0 { Paint::Dim } else { Paint::Bad }, short(value))]
}

/// A duration in milliseconds, in the unit that fits.
pub fn millis(value: Option<f64>) -> StyledLine {
    value.map_or_else(unknown, |value| plain(brief(value)))
}

/// What stands where nothing is known.
pub fn unknown() -> StyledLine {
    vec![(Paint::Dim, "-".into())]
}

/// `, 12 ECONNREFUSED`: failures other than the lack of a port.
pub fn other_failures(failed: &FailureCounts) -> String {
    let others = failed.iter().filter(|(failure, _)| !failure.is_without_port());
    let words: Vec<String> = others.map(|(failure, count)| format!(", {} {failure}", short(count))).collect();
    words.concat()
}

/// `10.66.0.2:8443`, `[2001:db8::1]:443`.
pub fn endpoint(addr: Addr, port: u16) -> String {
    Endpoint { addr, port }.to_string()
}

/// The name of a network namespace, else its inode number, `-` if that is not known either.
pub fn netns(snapshot: &Snapshot, netns: Netns) -> String {
    let named = snapshot.namespaces.iter().find(|found| found.netns == netns).and_then(|found| found.name.as_deref());
    match named {
        Some(name) => name.to_owned(),
        None if netns.inode == 0 => "-".into(),
        None => netns.inode.to_string(),
    }
}

/// The mark before a destination: `!` if connects fail for lack of a port, `^` if they soon will.
pub fn sign(destination: &Destination, snapshot: &Snapshot) -> (Paint, &'static str) {
    let failing = destination.last_failure.is_some_and(|at| snapshot.now.seconds_since(at) < RECENT_SECONDS);
    if failing || destination.seconds_to_exhaustion == Some(0.0) {
        (Paint::Bad, "!")
    } else if destination.seconds_to_exhaustion.is_some() || destination.ports.utilisation.is_some_and(|u| u > 0.8) {
        (Paint::Warn, "^")
    } else {
        (Paint::Plain, " ")
    }
}

/// When no port is left: `now`, `39 s`, `-` if never at this rate, `?` if the capacity is not known.
pub fn full_in(destination: &Destination) -> StyledLine {
    match destination.seconds_to_exhaustion {
        Some(left) if left <= 0.0 => vec![(Paint::Bad, "now".into())],
        Some(left) => vec![(Paint::Warn, brief(left * 1e3))],
        None if destination.ports.capacity.is_none() => vec![(Paint::Dim, "?".into())],
        None => vec![(Paint::Dim, "-".into())],
    }
}

/// `87%`, rounded down: `100%` means that no port is left.
pub fn percent(share: Option<f64>) -> StyledLine {
    match share.filter(|share| share.is_finite()) {
        None => vec![(Paint::Dim, "?".into())],
        Some(share) => {
            let paint = match share {
                s if s >= 1.0 => Paint::Bad,
                s if s >= 0.8 => Paint::Warn,
                _ => Paint::Plain,
            };
            let percent = (share * 100.0).floor().min(999.0);
            vec![(paint, if share > 0.0 && percent < 1.0 { "<1%".into() } else { format!("{percent}%") })]
        }
    }
}

/// Connects per second, with emphasis where the ports cannot bear that rate for good.
pub fn pace(destination: &Destination) -> StyledLine {
    let over = destination.sustainable_per_second.is_some_and(|bears| destination.connects_per_second > bears);
    vec![(if over { Paint::Warn } else { Paint::Plain }, rate(destination.connects_per_second))]
}

/// `~4211`: an inferred owner has a `~`; `-` if the process is not known.
pub fn pid(pid: u32, inferred: bool) -> StyledLine {
    let mark = if inferred { "~" } else { "" };
    if pid == 0 { unknown() } else { plain(format!("{mark}{pid}")) }
}

/// The emphasis of a TCP state, the same in the port map, the flows and the steps.
pub fn state_paint(state: TcpState) -> Paint {
    match state {
        TcpState::Established => Paint::Good,
        TcpState::TimeWait => Paint::Warn,
        TcpState::Close => Paint::Dim,
        _ => Paint::Strong,
    }
}

/// A severity as a word, with its emphasis.
pub fn severity(severity: Severity) -> (Paint, &'static str) {
    match severity {
        Severity::Critical => (Paint::Bad, "CRITICAL"),
        Severity::Warning => (Paint::Warn, "WARNING"),
        Severity::Info => (Paint::Strong, "INFO"),
    }
}

/// A time in a state, given in nanoseconds: below 10 s in one unit, above in two.
pub fn stay(nanos: u64) -> String {
    let millis = nanos as f64 / 1e6;
    if millis < 10_000.0 { brief(millis) } else { seconds(millis / 1e3) }
}
