//! Compares the log of the traffic with the report: counts must be equal, and lifetimes within a millisecond.

#![expect(clippy::missing_panics_doc, reason = "assertions are what these functions are")]

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::reported::{FailedCounts, ParsedReport, ReportedAttribution, StreamLine};
use crate::script::{ConnectionTimes, Log, LoggedCall, canonical};

/// Connects of one process to one destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectCounts {
    pub connects: u64,
    pub established: u64,
    pub failed: FailedCounts,
}

/// Process id and destination.
pub type PidAndDestination = (Option<u32>, SocketAddr);

/// The name that reports give to an errno. EADDRNOTAVAIL means exhaustion unless the scenario says otherwise.
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
        // A non-blocking connect that the script closed before its end: `ScriptStep::Abandon`.
        115 => "ABORTED",
        other => return format!("E{other}"),
    }
    .into()
}

/// The counts in the clients' log.
pub fn logged(log: &Log) -> BTreeMap<PidAndDestination, ConnectCounts> {
    let mut by_who: BTreeMap<PidAndDestination, ConnectCounts> = BTreeMap::new();
    for entry in log.of(LoggedCall::Connect) {
        let Some(remote) = entry.remote else { continue };
        let counts = by_who.entry((Some(entry.pid), canonical(remote))).or_default();
        counts.connects += 1;
        if entry.errno == 0 {
            counts.established += 1;
        } else {
            *counts.failed.entry(errno_name(entry.errno)).or_default() += 1;
        }
    }
    by_who
}

/// The counts in the report for the active side in one namespace.
pub fn reported(report: &ParsedReport, netns: u32) -> BTreeMap<PidAndDestination, ConnectCounts> {
    let mut by_who: BTreeMap<PidAndDestination, ConnectCounts> = BTreeMap::new();
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

/// Asserts that the report has the processes and destinations of the log, no others, and the same counts.
#[track_caller]
pub fn assert_counts(report: &ParsedReport, netns: u32, log: &Log) {
    report.assert_complete();
    let (expected, seen) = (logged(log), reported(report, netns));
    assert!(!expected.is_empty(), "the clients logged nothing");
    let differences: Vec<String> = expected
        .keys()
        .chain(seen.keys().filter(|who| !expected.contains_key(who)))
        .filter(|who| expected.get(who) != seen.get(who))
        .map(|who| {
            format!(
                "pid {:?} -> {}:\n  the client says {:?}\n  the report says {:?}",
                who.0,
                who.1,
                expected.get(who),
                seen.get(who)
            )
        })
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Asserts number, minimum, mean and maximum of the lifetimes per process and destination; all connects must have
/// succeeded.
#[track_caller]
pub fn assert_lifetimes(report: &ParsedReport, netns: u32, log: &Log, peers: &Log) {
    let mut by_who: BTreeMap<PidAndDestination, Vec<ConnectionTimes>> = BTreeMap::new();
    for life in log.lives(peers) {
        by_who.entry((Some(life.pid), canonical(life.remote))).or_default().push(life);
    }
    assert!(!by_who.is_empty(), "no connection was closed");
    for (who, lives) in by_who {
        let of =
            |entry: &&ReportedAttribution| (entry.pid, SocketAddr::new(entry.remote_addr, entry.remote_port)) == who;
        let all: Vec<&ReportedAttribution> = report.attributions(netns).filter(of).collect();
        let [entry] = all.as_slice() else { panic!("{who:?}: one attribution expected: {all:?}") };
        let durations = &entry.lifetime_ms;
        assert_eq!(durations.count, u64::try_from(lives.len()).expect("fits"), "{who:?}: number of lifetimes");
        let (lows, highs): (Vec<f64>, Vec<f64>) = lives.iter().map(ConnectionTimes::bounds_ms).unzip();
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let (least, most) = (
            |values: &[f64]| values.iter().copied().fold(f64::MAX, f64::min),
            |values: &[f64]| values.iter().copied().fold(0.0, f64::max),
        );
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

/// Asserts that a value lies within the bounds, with a tolerance of a millisecond.
#[track_caller]
fn assert_within(value: f64, (low, high): (f64, f64), what: &str) {
    assert!(value >= low - 1.0 && value <= high + 1.0, "{what}: {value} ms is not within 1 ms of [{low}, {high}]");
}

/// Asserts that each connection of the log is one finished flow of the stream, in order, opened actively, with its
/// lifetime.
#[track_caller]
pub fn assert_flows(lines: &[StreamLine], netns: u32, log: &Log, peers: &Log, ended: &str) {
    let mut flows: BTreeMap<(u32, SocketAddr, SocketAddr), Vec<&StreamLine>> = BTreeMap::new();
    for line in lines.iter().filter(|line| line.kind == "flow" && line.netns == Some(netns)) {
        if let (Some("active"), Some(pid), Some(local), Some(remote)) =
            (line.opened.as_deref(), line.pid, line.local(), line.remote())
        {
            flows.entry((pid, local, remote)).or_default().push(line);
        }
    }
    let mut expected = log.lives(peers);
    expected.sort_by_key(|life| life.connect.0);
    assert!(!expected.is_empty(), "no connection was closed");
    for life in expected {
        let key = (life.pid, canonical(life.local), canonical(life.remote));
        let found = flows.get_mut(&key).filter(|lines| !lines.is_empty()).map(|lines| lines.remove(0));
        let line = found.unwrap_or_else(|| {
            let ends = [Some(key.1), Some(key.2)];
            let of_it = |line: &&StreamLine| ends.contains(&line.local()) && ends.contains(&line.remote());
            let about: Vec<&StreamLine> = lines.iter().filter(|line| of_it(line) || line.kind == "loss").collect();
            panic!("no flow for {life:?}; what is said of its two ends, and of losses: {about:#?}")
        });
        assert_eq!(line.ended.as_deref(), Some(ended), "{line:?}");
        assert_eq!(line.repaired, Some(false), "{line:?}");
        let lifetime = line.lifetime_ms.unwrap_or_else(|| panic!("no lifetime: {line:?}"));
        assert_within(lifetime, life.bounds_ms(), &format!("{key:?}"));
    }
    let left: Vec<&StreamLine> =
        flows.into_values().flatten().filter(|line| line.ended.as_deref() != Some("connect-failed")).collect();
    assert!(left.is_empty(), "flows that no client made: {left:?}");
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use serde_json::json;

    use super::*;
    use crate::script::LogEntry;

    const NETNS: u32 = 5;

    fn log() -> Log {
        let entry = |what, start_ns, end_ns, socket, errno| LogEntry {
            what,
            start_ns,
            end_ns,
            pid: 7,
            tid: 7,
            socket,
            local: Some("127.0.0.1:40000".parse().expect("an address")),
            remote: Some("[::ffff:127.0.0.1]:80".parse().expect("an address")),
            errno,
        };
        Log(vec![
            entry(LoggedCall::Connect, 0, 1_000_000, 1, 0),
            entry(LoggedCall::Close, 9_000_000, 10_000_000, 1, 0),
            entry(LoggedCall::Connect, 20_000_000, 20_100_000, 2, 99),
        ])
    }

    /// A report that agrees with the log except for `change`.
    fn report(change: impl Fn(&mut serde_json::Value)) -> ParsedReport {
        let mut value = json!({
            "schema": "portchurn.report/1",
            "events": {"read": 9, "lost": {"ring_full": 0, "missed_runs": 0, "other_runs": 0, "recorder": 0}, "skipped": 0, "evicted": 0, "repaired": 0},
            "workloads": [], "destinations": [],
            "findings": [],
            "attributions": [{
                "workload": "w", "pid": 7, "comm": "c", "netns": NETNS,
                "local_addr": "127.0.0.1", "remote_addr": "127.0.0.1", "remote_port": 80,
                "connects": 2, "established": 1, "failed": {"EADDRNOTAVAIL": 1, "ECONNREFUSED": 0}, "active_closes": 1,
                "time_wait": {"entered": 1, "now": 1, "peak": 1, "reused": 0}, "close_wait": {"now": 0, "peak": 0},
                "lifetime_ms": {"count": 1, "min": 9.0, "mean": 9.0, "max": 9.0}
            }]
        });
        change(&mut value);
        serde_json::from_value(value).expect("a report")
    }

    fn fails(check: impl FnOnce()) -> bool {
        catch_unwind(AssertUnwindSafe(check)).is_err()
    }

    #[test]
    fn what_agrees_passes_and_every_difference_fails() {
        let truth = report(|_| {});
        assert_counts(&truth, NETNS, &log());
        assert_lifetimes(&truth, NETNS, &log(), &Log::default());
        for (pointer, value) in [
            ("/attributions/0/connects", json!(3)),
            ("/attributions/0/established", json!(2)),
            ("/attributions/0/failed/EADDRNOTAVAIL", json!(2)),
            ("/attributions/0/failed/ECONNREFUSED", json!(1)),
            ("/attributions/0/pid", json!(8)),
            ("/attributions/0/remote_port", json!(81)),
            ("/attributions/0/netns", json!(6)),
            ("/events/lost/ring_full", json!(1)),
            ("/events/lost/missed_runs", json!(1)),
            ("/events/evicted", json!(1)),
        ] {
            let wrong = report(|truth| *truth.pointer_mut(pointer).expect("a field") = value.clone());
            assert!(fails(|| assert_counts(&wrong, NETNS, &log())), "{pointer}");
        }
        for (pointer, value) in [
            ("/attributions/0/lifetime_ms/count", json!(2)),
            ("/attributions/0/lifetime_ms/min", json!(6.9)),
            ("/attributions/0/lifetime_ms/mean", json!(11.1)),
            ("/attributions/0/lifetime_ms/max", json!(null)),
        ] {
            let wrong = report(|truth| *truth.pointer_mut(pointer).expect("a field") = value.clone());
            assert!(fails(|| assert_lifetimes(&wrong, NETNS, &log(), &Log::default())), "{pointer}");
        }
    }

    #[test]
    fn flows_are_matched_one_to_one() {
        let line = |lifetime: f64, port: u16| -> StreamLine {
            serde_json::from_value(json!({
                "type": "flow", "netns": NETNS, "pid": 7, "local_addr": "127.0.0.1", "local_port": port,
                "remote_addr": "127.0.0.1", "remote_port": 80, "opened": "active", "ended": "active-close",
                "lifetime_ms": lifetime, "repaired": false
            }))
            .expect("a line")
        };
        assert_flows(&[line(9.5, 40000)], NETNS, &log(), &Log::default(), "active-close");
        for wrong in [vec![], vec![line(9.5, 40001)], vec![line(6.0, 40000)], vec![line(9.5, 40000), line(9.5, 40000)]]
        {
            assert!(fails(|| assert_flows(&wrong, NETNS, &log(), &Log::default(), "active-close")), "{wrong:?}");
        }
        assert!(fails(|| assert_flows(&[line(9.5, 40000)], NETNS, &log(), &Log::default(), "passive-close")));
    }
}
