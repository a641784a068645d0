use crate::layout::text::without_colour;
use unicode_width::UnicodeWidthStr;

use super::*;
use crate::report::sample;
use crate::tracker::snapshot::{Failure, PresentHolder, WindowCoverage};

fn plain(snapshot: &Snapshot, host: &HostFacts) -> String {
    render(snapshot, host, &sample::clock(), &Style::default())
}

#[test]
fn no_line_is_wider_than_the_page_and_none_ends_in_blanks() {
    for (name, snapshot, host) in sample::all() {
        for unicode in [false, true] {
            let style = Style { unicode, ..Style::default() };
            let text = render(&snapshot, &host, &sample::clock(), &style);
            for line in text.lines() {
                assert!(line.width() <= 80, "{name}: {} columns: {line}", line.width());
                assert_eq!(line.trim_end(), line, "{name}");
                assert!(unicode || line.is_ascii(), "{name}: {line}");
                assert!(!line.contains(|c: char| c.is_control()), "{name}: {line:?}");
            }
        }
    }
}

#[test]
fn without_its_colours_a_report_is_the_same() {
    for (name, snapshot, host) in sample::all() {
        let style = Style { colour: true, ..Style::default() };
        let coloured = render(&snapshot, &host, &sample::clock(), &style);
        assert!(coloured.contains('\u{1b}'), "{name}");
        assert_eq!(without_colour(&coloured), plain(&snapshot, &host), "{name}");
    }
}

#[test]
fn no_number_is_cut() {
    let text = plain(&sample::nasty(), &sample::host()).replace('\n', " ");
    let words: Vec<_> = text.split_whitespace().collect();
    for number in ["18,446,744,073,709,551,615", "4,294,967,295"] {
        assert!(words.iter().any(|word| word.trim_matches(['(', ')', ',', ';', '.']) == number), "{number}");
    }
}

#[test]
fn other_failures_are_told_even_when_no_port_is_missing() {
    let mut snapshot = sample::quiet();
    snapshot.destinations[0].failed.count(Failure::Errno(111));
    let text = plain(&snapshot, &sample::host()).replace('\n', " ");
    assert!(text.contains("1 connect failed"), "{text}");
}

/// An incident that was over stayed on top, in the present tense, above one that was filling up.
#[test]
fn what_is_over_comes_after_what_is_now_and_has_its_times() {
    let text = plain(&sample::over(), &sample::host());
    assert!(text.starts_with("WARNING   Local ports towards 10.66.0.3:8443 run out"), "{text}");
    let (now, over) = text.split_once("OVER (in this window").expect("the past has its own part");
    assert!(!now.contains("exhausts"), "{now}");
    let over = over.split_whitespace().collect::<Vec<_>>().join(" ");
    let told =
        "CRITICAL 03:11:19 to 03:13:48 UTC, at its worst 841 failures/min, 1,204 in all: bypass.service exhausted";
    assert!(over.contains(told), "{over}");
}

#[test]
fn where_nothing_is_wrong_any_more_the_verdict_is_about_what_was() {
    let mut snapshot = sample::over();
    snapshot.findings.remove(0);
    let text = plain(&snapshot, &sample::host()).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        text.starts_with("OVER 03:11:19 to 03:13:48 UTC, at its worst 841 failures/min, 1,204 in all: bypass"),
        "{text}"
    );
    assert!(text.contains("DO (so that it does not come back)"), "{text}");
}

/// "OK Nothing wrong was seen", while 141 of 141 connects were refused.
#[test]
fn ok_is_said_only_where_nothing_failed() {
    let mut snapshot = sample::quiet();
    assert!(plain(&snapshot, &sample::host()).starts_with("OK"));
    snapshot.workloads[0].failed.count(Failure::Errno(111));
    let text = plain(&snapshot, &sample::host());
    assert!(text.starts_with("INFO      1 connect failed: 1 ECONNREFUSED."), "{text}");
}

/// The paragraphs on what this host cannot watch stood between the verdict and its evidence.
#[test]
fn what_cannot_be_watched_is_one_line_at_the_foot() {
    let text = plain(&sample::lossy(), &sample::degraded_host());
    let last = text.lines().last().expect("lines");
    assert_eq!(last, "Not watched on this host: TIME_WAIT hooks; `portchurn doctor` says why.");
    assert!(!text.contains("DEGRADED"), "{text}");
}

#[test]
fn exhaustion() {
    insta::assert_snapshot!(plain(&sample::exhaustion(), &sample::host()));
}

#[test]
fn a_filter_is_told_with_what_is_outside() {
    let filter = |text: &str| text.parse::<crate::filter::Filter>().expect("a filter");
    let text = plain(&filter("workload=pool.service").narrow(&sample::exhaustion()), &sample::host());
    let line = text.replace("\n          ", " ");
    assert!(line.contains("104 EADDRNOTAVAIL"), "{text}");
    let outside =
        "workload=pool.service. Outside of it: 1 workload, 3,661 connects (1,100 failed, 1,100 for lack of a port).";
    assert!(line.contains(outside), "{text}");
    insta::assert_snapshot!(plain(&filter("netns=blue").narrow(&sample::exhaustion()), &sample::host()));
    let quiet = plain(&filter("comm=python3").narrow(&sample::quiet()), &sample::host());
    assert!(!quiet.contains("Nothing in this trace") && quiet.contains("inside the filter"), "{quiet}");
}

#[test]
fn a_part_of_several_files_says_so() {
    let mut snapshot = sample::exhaustion();
    let (start, end) = (snapshot.start, snapshot.now);
    snapshot.coverage = Some(WindowCoverage {
        files: 40,
        part_of: Some((sample::START.plus(0), end.plus(3_600 * sample::SECOND))),
        known_from: Some(start),
        gaps: vec![(start.plus(sample::SECOND), start.plus(6 * sample::SECOND))],
        gap_nanos: 5 * sample::SECOND,
    });
    let text = plain(&snapshot, &sample::host()).replace("\n          ", " ");
    let expected = "WINDOW    30 s of a recording from 2026-03-14 03:11:07 to 04:11:37. What was open at the start is known from 03:11:07 on.";
    assert!(text.contains(expected), "{text}");
    assert!(
        text.contains(
            "PARTS     40 files; 5 s between them are not recorded (first at 03:11:08), so rates are too low."
        ),
        "{text}"
    );
}

#[test]
fn forecast() {
    insta::assert_snapshot!(plain(&sample::forecast(), &sample::host()));
}

#[test]
fn over() {
    insta::assert_snapshot!(plain(&sample::over(), &sample::host()));
}

#[test]
fn quiet() {
    insta::assert_snapshot!(plain(&sample::quiet(), &sample::host()));
}

#[test]
fn empty() {
    insta::assert_snapshot!(plain(&Snapshot::default(), &HostFacts::default()));
}

#[test]
fn degraded_and_lossy() {
    insta::assert_snapshot!(plain(&sample::lossy(), &sample::degraded_host()));
}

#[test]
fn a_process_whose_connections_another_one_holds_has_the_holder_below() {
    let mut snapshot = sample::exhaustion();
    for attribution in &mut snapshot.attributions {
        let holder = |pid| PresentHolder { pid, comm: "worker".into(), flows: 40 };
        attribution.held_by = vec![holder(77), holder(78)];
    }
    let text = plain(&snapshot, &sample::host());
    assert!(text.contains("\n      40 held by worker[77] and 1 more\n"), "{text}");
}

#[test]
fn close_wait_leak() {
    insta::assert_snapshot!(plain(&sample::close_wait_leak(), &sample::host()));
}

#[test]
fn long_addresses_and_names() {
    insta::assert_snapshot!(plain(&sample::nasty(), &sample::degraded_host()));
}
