use unicode_width::UnicodeWidthStr;

use super::*;
use crate::clock::Clock;
use crate::event::Ktime;
use crate::host::Degradation;
use crate::host::HostFacts;
use crate::playback::{self, PlayWindow};
use crate::report::sample;
use crate::series;
use crate::synthetic::incident::IncidentScript;
use crate::tracker::snapshot::FailureCounts;

struct Shown {
    snapshot: Snapshot,
    host: HostFacts,
    clock: Clock,
}

impl Shown {
    fn of(script: IncidentScript) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.arrow");
        script.write(&path).expect("written");
        let mut series = series::open(&[path]).expect("a recording");
        let played = playback::play(&mut series[0], None, PlayWindow::default()).expect("readable");
        Self { snapshot: played.tracker.snapshot(), host: played.host, clock: played.clock }
    }

    fn sample() -> Self {
        Self { snapshot: sample::exhaustion(), host: sample::host(), clock: sample::clock() }
    }

    fn side(&self) -> Side<'_> {
        Side { snapshot: &self.snapshot, host: &self.host, clock: &self.clock, by: "auto" }
    }
}

fn joined(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Minutes of which one is an incident, and the same after the range was widened.
fn wider_range() -> (Shown, Shown) {
    let before = IncidentScript { seconds: 120, from: 30, to: 90, ..IncidentScript::default() };
    let after = IncidentScript { later: 300, ports: 20_000, ..before };
    (Shown::of(before), Shown::of(after))
}

/// 77 failures/s went to 0, and no sentence said so.
#[test]
fn a_wider_range_reads_as_a_fix() {
    let (before, after) = wider_range();
    let diff = Diff::new(before.side(), after.side());
    let text = joined(&diff.text());
    assert_eq!((diff.verdict.word, &diff.not_comparable), (DiffWord::Better, &Vec::new()), "{text}");
    for expected in [
        "BETTER No connect fails for lack of a port any more: 2.5/s before (300), none after.",
        "better At most 100 of 100 ports (100 %) in use before, 101 of 20,000 ports (0 %) after.",
        "setting net.ipv4.ip_local_port_range in shop: 40000 40099 > 40000 59999",
        "setting capacity in shop: 100 > 20000",
        "10.0.0.5:5432 from 10.0.0.1 in shop no port/s 2.5 > 0; failed/s 2.5 > 0; of ports 100 > 20,000",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(text.find("orders.service") < text.find("hog.service").or(Some(usize::MAX)), "failures come first: {text}");
    let swapped = Diff::new(after.side(), before.side());
    let text = joined(&swapped.text());
    assert_eq!(swapped.verdict.word, DiffWord::Worse);
    assert!(text.contains("CAUTION AFTER begins earlier than BEFORE: are the two swapped?"), "{text}");
    assert!(text.contains("WORSE Connects fail for lack of a port: none before, 2.5/s after (300)."), "{text}");
}

#[test]
fn lines_fit_and_no_address_is_cut() {
    let (before, after) = wider_range();
    let nasty = Shown { snapshot: sample::nasty(), host: sample::degraded_host(), clock: sample::clock() };
    let quiet = Shown { snapshot: Snapshot::default(), ..Shown::sample() };
    for (a, b) in [(&before, &after), (&nasty, &before), (&quiet, &nasty), (&nasty, &nasty)] {
        let text = Diff::new(a.side(), b.side()).text();
        assert!(text.lines().all(|line| line.width() <= 80 && line.trim_end() == line), "{text}");
        for destination in &b.snapshot.destinations {
            let remote = Endpoint { addr: destination.remote_addr, port: destination.remote_port }.to_string();
            assert!(text.contains(&remote) || text.contains("without a change"), "{remote}: {text}");
        }
    }
}

#[test]
fn what_did_not_change_is_only_counted() {
    let incident = Shown::sample();
    let same = Diff::new(incident.side(), incident.side());
    assert!(same.workloads.iter().chain(&same.destinations).all(|row| row.change <= 0.0));
    assert_eq!((same.verdict.word, same.better.len(), same.worse.len(), same.cost.len()), (DiffWord::Same, 0, 0, 0));
    let text = same.text();
    assert!(text.contains("2 without a change, 0 more with one"), "{text}");
    assert!(joined(&text).contains("As many connects fail for lack of a port as before"), "{text}");
}

/// A connect to anybody else that is on one side only once stood first.
#[test]
fn strangers_that_came_or_went_come_last() {
    let incident = Shown::sample();
    let mut better = Shown::sample();
    for workload in &mut better.snapshot.workloads {
        workload.failed = FailureCounts::default();
    }
    let stranger = Workload { name: "cron".into(), connects: 90_000, ..Workload::default() };
    better.snapshot.workloads.insert(0, stranger);
    let diff = Diff::new(incident.side(), better.side());
    let names: Vec<_> = diff.workloads.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["bypass.service", "pool.service", "cron"]);
}

#[test]
fn it_says_when_the_two_are_not_comparable_and_names_why() {
    let incident = Shown::sample();
    let mut other = Shown::sample();
    other.snapshot.events.lost.ring_full = 1;
    other.snapshot.now = other.snapshot.start.plus(1_000_000_000);
    other.host.tier = Some("classic".into());
    other.host.hostname = Some("web-09".into());
    other.host.degraded = vec![Degradation::new("tracing of TIME_WAIT", "lockdown", "early ends of TIME_WAIT")];
    let by_pid = Side { by: "pid", ..other.side() };
    let text = joined(&Diff::new(incident.side(), by_pid).text());
    for expected in [
        "the hosts differ: web-07 and web-09",
        "lengths differ",
        "events were lost in AFTER",
        "tiers differ: exact and classic",
        "racing of TIME_WAIT could be watched in BEFORE alone: early ends of TIME_WAIT is unknown in the other",
        "grouped by auto and by pid",
    ] {
        assert!(text.to_lowercase().contains(&expected.to_lowercase()), "{expected}: {text}");
    }
    let mut redacted = Shown::sample();
    for (number, workload) in redacted.snapshot.workloads.iter_mut().enumerate() {
        workload.name = format!("x00000000000{number}").into();
    }
    let text = joined(&Diff::new(incident.side(), redacted.side()).text());
    assert!(text.contains("AFTER is redacted and BEFORE is not: rows cannot pair"), "{text}");
    let mut soon = Shown::sample();
    (soon.snapshot.start, soon.snapshot.now) = (incident.snapshot.now.plus(20_000_000_000), Ktime(u64::MAX));
    (soon.host.boot_id, soon.snapshot.now) = (incident.host.boot_id.clone(), soon.snapshot.start.plus(30_000_000_000));
    let text = joined(&Diff::new(incident.side(), soon.side()).text());
    assert_eq!(
        text.contains("up to 982 TIME_WAIT entries of before hold their ports"),
        incident.host.boot_id.is_some(),
        "{text}"
    );
    let nothing = Shown { snapshot: Snapshot::default(), ..Shown::sample() };
    let diff = Diff::new(incident.side(), nothing.side());
    assert_eq!(diff.verdict.word, DiffWord::Unknown, "no event is no fix");
}
