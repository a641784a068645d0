//! A log against a report: equal to the last count, and lifetimes within a millisecond.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::script::{Life, Log, What};
use crate::tracer::{Attribution, Failed, Line, Report};

/// What one process did towards one destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub connects: u64,
    pub established: u64,
    pub failed: Failed,
}

/// Process id and destination.
pub type Who = (u32, SocketAddr);

/// The names that reports give to errnos; EADDRNOTAVAIL is exhaustion unless the scenario says otherwise.
pub fn errno_name(errno: i32) -> String {
    match errno {
        4 => "EINTR",
        99 => "EADDRNOTAVAIL",
        101 => "ENETUNREACH",
        103 => "ECONNABORTED",
        104 => "ECONNRESET",
        110 => "ETIMEDOUT",
        111 => "ECONNREFUSED",
        113 => "EHOSTUNREACH",
        // A non-blocking connect that the script never saw through: `Step::Abandon`.
        115 => "ABORTED",
        other => return format!("E{other}"),
    }
    .into()
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// What the clients say.
pub fn logged(log: &Log) -> BTreeMap<Who, Counts> {
    let mut by_who: BTreeMap<Who, Counts> = BTreeMap::new();
    for entry in log.of(What::Connect) {
        let Some(remote) = entry.remote else { continue };
        let counts = by_who.entry((entry.pid, canonical(remote))).or_default();
        counts.connects += 1;
        if entry.errno == 0 {
            counts.established += 1;
        } else {
            *counts.failed.entry(errno_name(entry.errno)).or_default() += 1;
        }
    }
    by_who
}

/// What the report says about the active side in one namespace.
pub fn reported(report: &Report, netns: u32) -> BTreeMap<Who, Counts> {
    let mut by_who: BTreeMap<Who, Counts> = BTreeMap::new();
    for entry in report.attributions(netns).filter(|entry| entry.connects > 0 || !entry.failed.is_empty()) {
        let counts = by_who.entry((entry.pid, SocketAddr::new(entry.remote_addr, entry.remote_port))).or_default();
        counts.connects += entry.connects;
        counts.established += entry.established;
        for (name, count) in entry.failed.iter().filter(|(_, count)| **count > 0) {
            *counts.failed.entry(name.clone()).or_default() += count;
        }
    }
    by_who
}

/// Every process and destination, nobody else, and every number equal.
#[track_caller]
pub fn assert_counts(report: &Report, netns: u32, log: &Log) {
    report.assert_complete();
    let (told, seen) = (logged(log), reported(report, netns));
    assert!(!told.is_empty(), "the clients logged nothing");
    let differences: Vec<String> = told
        .keys()
        .chain(seen.keys().filter(|who| !told.contains_key(who)))
        .filter(|who| told.get(who) != seen.get(who))
        .map(|who| format!("pid {} -> {}:\n  the client says {:?}\n  the report says {:?}", who.0, who.1, told.get(who), seen.get(who)))
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// The lifetimes of a (pid, destination) all of whose connects succeeded: number, shortest, mean and longest.
#[track_caller]
pub fn assert_lifetimes(report: &Report, netns: u32, log: &Log) {
    let mut by_who: BTreeMap<Who, Vec<Life>> = BTreeMap::new();
    for life in log.lives() {
        by_who.entry((life.pid, canonical(life.remote))).or_default().push(life);
    }
    assert!(!by_who.is_empty(), "no connection was closed");
    for (who, lives) in by_who {
        let of = |entry: &&Attribution| (entry.pid, SocketAddr::new(entry.remote_addr, entry.remote_port)) == who;
        let all: Vec<&Attribution> = report.attributions(netns).filter(of).collect();
        let [entry] = all.as_slice() else { panic!("{who:?}: one attribution expected: {all:?}") };
        let durations = &entry.lifetime_ms;
        assert_eq!(durations.count, u64::try_from(lives.len()).expect("fits"), "{who:?}: number of lifetimes");
        let (lows, highs): (Vec<f64>, Vec<f64>) = lives.iter().map(Life::bounds_ms).unzip();
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let (least, most) = (|values: &[f64]| values.iter().copied().fold(f64::MAX, f64::min), |values: &[f64]| values.iter().copied().fold(0.0, f64::max));
        for (name, value, low, high) in [
            ("min", durations.min, least(&lows), least(&highs)),
            ("mean", durations.mean, mean(&lows), mean(&highs)),
            ("max", durations.max, most(&lows), most(&highs)),
        ] {
            let value = value.unwrap_or_else(|| panic!("{who:?}: {name} is missing"));
            assert_within(value, (low, high), &format!("{who:?}: {name}"));
        }
    }
}

/// Within the bounds, give or take a millisecond.
#[track_caller]
fn assert_within(value: f64, (low, high): (f64, f64), what: &str) {
    assert!(value >= low - 1.0 && value <= high + 1.0, "{what}: {value} ms is not within 1 ms of [{low}, {high}]");
}

/// Each connection of the log as one finished flow of the stream, in order, opened actively, with its lifetime.
#[track_caller]
pub fn assert_flows(lines: &[Line], netns: u32, log: &Log, ended: &str) {
    let mut flows: BTreeMap<(u32, SocketAddr, SocketAddr), Vec<&Line>> = BTreeMap::new();
    for line in lines.iter().filter(|line| line.kind == "flow" && line.netns == Some(netns)) {
        if let (Some("active"), Some(pid), Some(local), Some(remote)) = (line.opened.as_deref(), line.pid, line.local(), line.remote()) {
            flows.entry((pid, local, remote)).or_default().push(line);
        }
    }
    let mut lives = log.lives();
    lives.sort_by_key(|life| life.connect.0);
    assert!(!lives.is_empty(), "no connection was closed");
    for life in lives {
        let key = (life.pid, canonical(life.local), canonical(life.remote));
        let found = flows.get_mut(&key).filter(|lines| !lines.is_empty()).map(|lines| lines.remove(0));
        let line = found.unwrap_or_else(|| panic!("no flow for {life:?}"));
        assert_eq!(line.ended.as_deref(), Some(ended), "{line:?}");
        assert_eq!(line.repaired, Some(false), "{line:?}");
        let lifetime = line.lifetime_ms.unwrap_or_else(|| panic!("no lifetime: {line:?}"));
        assert_within(lifetime, life.bounds_ms(), &format!("{key:?}"));
    }
    let left: Vec<&Line> = flows.into_values().flatten().filter(|line| line.ended.as_deref() != Some("connect-failed")).collect();
    assert!(left.is_empty(), "flows that no client made: {left:?}");
}
