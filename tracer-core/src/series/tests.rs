use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;

use super::*;
use crate::playback::{self, PlayWindow, Played, WindowInput};
use crate::synthetic::SECOND;
use crate::synthetic::incident::{BEGIN, IncidentScript};
use crate::time_input::TimeInput;
use crate::tracker::snapshot::Snapshot;

/// Three minutes of which one is the incident.
fn short() -> IncidentScript {
    IncidentScript { seconds: 180, from: 90, to: 150, ..IncidentScript::default() }
}

fn one(names: &[PathBuf]) -> RecordingSeries {
    let mut all = open(names).expect("recordings");
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn all_of(series: &mut RecordingSeries) -> Played {
    playback::play(series, None, PlayWindow::default()).expect("readable")
}

/// What does not depend on the number of files.
fn told(mut snapshot: Snapshot) -> String {
    (snapshot.coverage, snapshot.generation) = (None, 0);
    // Each part repeats the names.
    snapshot.events.read = 0;
    format!("{snapshot:#?}")
}

#[test]
fn parts_are_one_recording_in_any_order_and_by_any_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let (whole, parts) = (directory.path().join("whole.arrow"), directory.path().join("parts"));
    let script = short();
    script.write(&whole).expect("written");
    let mut paths = script.write_parts(&parts, 7).expect("written");
    fs::write(parts.join("notes.txt"), "no recording").expect("written");
    let expected = told(all_of(&mut one(&[whole])).tracker.snapshot());
    paths.reverse();
    for names in [paths, vec![parts.clone()], vec![parts.join("inc*.arrow")], vec![parts.join("incident.arrow")]] {
        let mut series = one(&names);
        assert_eq!((series.paths().len(), series.gaps()), (7, (&[][..], 0)), "{names:?}");
        let played = all_of(&mut series);
        assert_eq!(played.warnings, [""; 0]);
        let snapshot = played.tracker.snapshot();
        assert_eq!(snapshot.coverage.as_ref().map(|coverage| coverage.files), Some(7));
        assert_eq!(told(snapshot), expected, "{names:?}");
    }
}

#[test]
fn what_is_missing_between_two_parts_is_told_in_seconds() {
    let directory = tempfile::tempdir().expect("a directory");
    let paths = short().write_parts(directory.path(), 6).expect("written");
    fs::remove_file(&paths[1]).expect("there");
    let mut series = one(&[directory.path().into()]);
    let (gaps, nanos) = series.gaps();
    assert_eq!((gaps.len(), nanos), (1, 30 * SECOND), "{gaps:?}");
    assert_eq!(gaps[0], PartGap { from: BEGIN.plus(30 * SECOND), to: BEGIN.plus(60 * SECOND) });
    let coverage = all_of(&mut series).tracker.snapshot().coverage.expect("five files");
    assert_eq!((coverage.files, coverage.gap_nanos, coverage.gaps.len()), (5, 30 * SECOND, 1));
}

#[test]
fn boots_and_hosts_are_kept_apart() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name);
    let script = short();
    let another_time = IncidentScript { later: 600, ..script };
    for (name, script) in [
        ("a.arrow", IncidentScript { host: "web-08", ..script }),
        ("b.arrow", script),
        ("c.arrow", IncidentScript { boot: "boot-b", ..script }),
        ("d.arrow", another_time),
    ] {
        script.write(&path(name)).expect("written");
    }
    let all = open(&[directory.path().into()]).expect("recordings");
    let mut files: Vec<_> =
        all.iter().map(|series| series.paths().map(Path::to_path_buf).collect::<Vec<_>>()).collect();
    files.sort();
    assert_eq!(files, [vec![path("a.arrow")], vec![path("b.arrow"), path("d.arrow")], vec![path("c.arrow")]]);
    fs::copy(path("b.arrow"), path("e.arrow")).expect("copied");
    let error = open(&[path("b.arrow"), path("e.arrow")]).err().expect("twice the same").to_string();
    assert!(error.contains("record the same time") && error.contains("e.arrow"), "{error}");
    // The same name twice is one file.
    assert_eq!(one(&[path("b.arrow"), path("b.arrow")]).paths().len(), 1);
}

#[test]
fn a_part_that_is_no_recording_is_left_out_and_told() {
    let directory = tempfile::tempdir().expect("a directory");
    let paths = short().write_parts(directory.path(), 3).expect("written");
    fs::write(&paths[2], "").expect("emptied");
    let series = one(&[directory.path().into()]);
    let damage = series.damage().expect("a file is missing");
    assert!(damage.loses_events() && damage.why.contains("000003.arrow is left out: the file is empty"), "{damage:?}");
    let nothing = open(&[directory.path().join("none*.arrow")]).err().expect("nothing there").to_string();
    assert!(nothing.contains("no recording"), "{nothing}");
    assert!(matches!(open(&["-".into(), paths[0].clone()]), Err(SeriesError::Pipe { .. })));
}

/// `cat parts | report -` read the first part and said nothing about the rest.
#[test]
fn recordings_that_were_joined_are_not_read_as_the_first_of_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let paths = short().write_parts(directory.path(), 3).expect("written");
    let joined = directory.path().join("joined");
    let bytes: Vec<u8> = paths.iter().flat_map(|path| fs::read(path).expect("there")).collect();
    fs::write(&joined, &bytes).expect("written");
    let played = all_of(&mut one(&[joined]));
    let damage = played.tracker.snapshot().damage.expect("two parts are missing");
    let first = fs::metadata(&paths[0]).expect("there").len();
    assert!(damage.loses_events() && damage.why.contains("name the files instead"), "{damage:?}");
    assert_eq!((damage.at, damage.bytes), (first, bytes.len() as u64 - first));
}

fn window(series: &mut RecordingSeries, from: &str, to: &str) -> PlayWindow {
    let time = |text: &str| (!text.is_empty()).then(|| TimeInput::parse(text).expect(text));
    let asked = WindowInput { from: time(from), to: time(to), around_failures: false };
    playback::window(series, &asked, None, &TimeZone::UTC).expect("inside")
}

#[test]
fn a_window_counts_what_is_inside_and_knows_what_was_open_before() {
    let directory = tempfile::tempdir().expect("a directory");
    let (whole, parts) = (directory.path().join("whole.arrow"), directory.path().join("parts"));
    let script = IncidentScript { seconds: 400, from: 200, to: 300, ..IncidentScript::default() };
    script.write(&whole).expect("written");
    script.write_parts(&parts, 10).expect("written");
    for name in [whole, parts] {
        let mut series = one(&[name]);
        // The hog took its ports before, and lets go of them after.
        let window = window(&mut series, "+250s", "+280s");
        let played = playback::play(&mut series, None, window).expect("readable");
        let snapshot = played.tracker.snapshot();
        assert_eq!((snapshot.start, snapshot.now), (BEGIN.plus(250 * SECOND), BEGIN.plus(280 * SECOND)));
        let destination = &snapshot.destinations[0];
        assert_eq!((destination.connects, destination.failed.without_port()), (150, 150), "{destination:#?}");
        assert_eq!((destination.ports.in_use, destination.ports.peak), (100, 100));
        assert_eq!(destination.holders[0].workload.as_ref(), "hog.service");
        assert_eq!(destination.first_failure, Some(BEGIN.plus(250 * SECOND + SECOND / 20 + 20_000)));
        let connects = |name: &str| {
            let workload = snapshot.workloads.iter().find(|workload| &*workload.name == name);
            workload.map(|workload| workload.connects)
        };
        assert_eq!(
            (connects("hog.service"), connects("orders.service"), connects("batch.service")),
            (Some(0), Some(150), Some(60))
        );
        let coverage = snapshot.coverage.expect("a part");
        assert_eq!(coverage.part_of, Some((BEGIN, BEGIN.plus(400 * SECOND))));
        assert!(coverage.known_from < Some(BEGIN.plus(161 * SECOND)), "{coverage:?}");
    }
}

#[test]
fn windows_side_by_side_add_up_to_the_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    short().write_parts(directory.path(), 5).expect("written");
    let failed = |from: &str, to: &str| {
        let mut series = one(&[directory.path().into()]);
        let window = window(&mut series, from, to);
        let snapshot = playback::play(&mut series, None, window).expect("readable").tracker.snapshot();
        let sum = |of: fn(&crate::tracker::snapshot::Workload) -> u64| snapshot.workloads.iter().map(of).sum::<u64>();
        (sum(|workload| workload.connects), sum(|workload| workload.failed.without_port()))
    };
    let (all, first, second, third) =
        (failed("", ""), failed("", "+100s"), failed("+100s", "+120s"), failed("+120s", ""));
    assert_eq!(all.1, short().failures());
    assert_eq!(all, (first.0 + second.0 + third.0, first.1 + second.1 + third.1));
}

#[test]
fn the_worst_incident_is_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let script = IncidentScript { seconds: 600, from: 300, to: 360, ..IncidentScript::default() };
    script.write_parts(directory.path(), 6).expect("written");
    let mut series = one(&[directory.path().into()]);
    let asked = WindowInput { around_failures: true, ..WindowInput::default() };
    let found = playback::window(&mut series, &asked, None, &TimeZone::UTC).expect("an incident");
    let (from, to) = (found.from.expect("inside").since(BEGIN), found.to.expect("inside").since(BEGIN));
    assert_eq!((from / SECOND, to / SECOND), (240, 419));
    let snapshot = playback::play(&mut series, None, found).expect("readable").tracker.snapshot();
    assert_eq!(snapshot.destinations[0].failed.without_port(), script.failures());
    let filter = "comm=batch".parse().expect("a filter");
    let error = playback::window(&mut series, &asked, Some(&filter), &TimeZone::UTC).expect_err("none of it fails");
    assert!(error.to_string().contains("inside the filter failed for lack of a port"), "{error}");
    let late = WindowInput { from: TimeInput::parse("2030-01-01T00:00:00Z"), ..WindowInput::default() };
    let error = playback::window(&mut series, &late, None, &TimeZone::UTC).expect_err("later").to_string();
    assert!(error.contains("the recording is from 2026-03-14T03:11:07"), "{error}");
}
