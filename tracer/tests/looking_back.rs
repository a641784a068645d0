//! The day after: an incident of three minutes in forty files, looked at through the binary. Every command has the same numbers.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tracer_core::synthetic::incident::{IncidentScript, STRANGER_RATE, VICTIM_RATE};

fn run(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portchurn"));
    command.current_dir(directory).env("TZ", "UTC").args(arguments);
    command.output().expect("the binary")
}

fn printed(directory: &Path, arguments: &[&str]) -> String {
    let output = run(directory, arguments);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {complaints}");
    String::from_utf8(output.stdout).expect("text")
}

fn json(directory: &Path, arguments: &[&str]) -> Value {
    serde_json::from_str(&printed(directory, &[arguments, &["--json"]].concat())).expect("JSON")
}

fn code(directory: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let output = run(directory, arguments);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Connects of a workload, and how many of them failed.
fn workload(report: &Value, name: &str) -> (u64, u64) {
    let all = report["workloads"].as_array().expect("workloads");
    let found = all.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("{name}: {report:#}"));
    (found["connects"].as_u64().expect("a number"), found["failed"]["EADDRNOTAVAIL"].as_u64().unwrap_or(0))
}

/// The worst of an incident that was over half an hour before the last file ended is what the report is about.
#[test]
fn an_incident_in_forty_files_is_found_cut_out_compared_and_checked_with_the_same_numbers() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    let script = IncidentScript { seconds: 2_400, from: 1_203, to: 1_383, ..IncidentScript::default() };
    assert_eq!(script.write_parts(&at.join("day"), 40).expect("written").len(), 40);
    let failures = script.failures();

    // Found: in all files, whatever they are called.
    let whole = json(at, &["report", "day"]);
    assert_eq!((&whole["window"]["files"], &whole["window"]["gap_seconds"]), (&40.into(), &0.0.into()));
    assert_eq!(workload(&whole, "orders.service"), (script.victim_connects(), failures));
    let text = printed(at, &["report", "day/incident.arrow"]);
    assert!(text.starts_with("OVER") && text.contains("hog.service") && text.contains("10.0.0.5:5432"), "{text}");
    assert!(text.contains("PARTS     40 files, without a gap between them."), "{text}");

    // Cut out, by its failures and by the clock.
    let around = json(at, &["report", "day/*.arrow", "--around-failures"]);
    let window = script.to - script.from + 120;
    let seconds = around["window"]["seconds"].as_f64().expect("a number");
    assert!((seconds - window as f64).abs() < 1.0, "{seconds}");
    assert_eq!(workload(&around, "orders.service"), (window * VICTIM_RATE - 1, failures));
    let clock = &["--from", "03:31:10", "--to", "03:34:10"];
    let minutes = json(at, &[&["report", "day"][..], clock].concat());
    assert_eq!(workload(&minutes, "orders.service"), (180 * VICTIM_RATE, failures));
    assert_eq!(workload(&minutes, "batch.service"), (180 * STRANGER_RATE, 0));
    assert_eq!(minutes["window"]["recording"]["start"], whole["window"]["start"]);
    let holder = &minutes["destinations"][0]["ports"]["peak"];
    assert_eq!(holder, &100, "the hog that let go at the end of the window held all ports");
    let output = [&["export", "day", "--format", "arrow", "-o", "cut.arrow"][..], clock].concat();
    printed(at, &output);
    let cut = json(at, &["report", "cut.arrow"]);
    for field in ["workloads", "destinations", "attributions", "findings", "flows", "time_wait"] {
        assert_eq!(cut[field], minutes[field], "{field}");
    }
    let lines =
        printed(at, &[&["replay", "day", "--json", "--speed", "max", "--what", "failures"][..], clock].concat());
    assert_eq!(lines.lines().filter(|line| line.contains("EADDRNOTAVAIL")).count() as u64, failures);
    let rows =
        printed(at, &[&["export", "day", "--what", "flows", "--format", "jsonl", "netns=shop"][..], clock].concat());
    assert_eq!(rows.lines().filter(|line| line.contains("EADDRNOTAVAIL")).count() as u64, failures);
    assert!(!rows.contains("10.0.0.99"), "the stranger is in another namespace");

    // One tenant: the numbers of what is inside, and the rest is counted.
    for filter in ["netns=shop", "netns=4026532281", "unit=orders.service or unit=hog.service"] {
        let tenant = json(at, &[&["report", "day"][..], clock, &[filter]].concat());
        assert_eq!(workload(&tenant, "orders.service"), (180 * VICTIM_RATE, failures), "{filter}");
        assert_eq!(
            (&tenant["filter"]["outside"]["workloads"], &tenant["filter"]["outside"]["failed"]),
            (&1.into(), &0.into())
        );
        assert_eq!(tenant["findings"], minutes["findings"], "{filter}");
    }
    let stranger = json(at, &["report", "day", "comm=batch"]);
    assert_eq!(
        (stranger["findings"].as_array().map(Vec::len), &stranger["filter"]["outside"]["failed"]),
        (Some(0), &failures.into())
    );
    assert!(stranger["filter"]["outside"]["findings"].as_u64() > Some(0), "{:#}", stranger["filter"]);
    let (_, complaint) = code(at, &["replay", "day", "--speed", "max", "--json", "netns=blue"]);
    assert!(complaint.contains("no network namespace `blue` was seen; there are `shop`"), "{complaint}");

    // Checked: the same findings and numbers decide.
    let failed = format!("failed>{}", failures - 1);
    for (filter, expected) in [("netns=shop", Some(4)), ("comm=batch", Some(0))] {
        assert_eq!(
            code(at, &["check", "--fail-if", &failed, "port-exhaustion", "day", filter]).0,
            expected,
            "{filter}"
        );
    }
    assert_eq!(code(at, &["check", "day", "--to", "+20m", "--fail-if", "failed>0"]).0, Some(0), "it had not begun");
    assert_eq!(code(at, &["check", "day", "--fail-if", &format!("failed>{failures}")]).0, Some(0));
    let checked = run(at, &["check", "day", "--json", "--fail-if", &failed]);
    let checked: Value = serde_json::from_slice(&checked.stdout).expect("JSON");
    assert_eq!(checked["held"][0]["evidence"]["value"], failures as f64, "{checked:#}");

    // Compared: the hour before with the incident.
    let diff = json(at, &["diff", "day", "day", "--before", "03:21:10..03:24:10", "--after", "03:31:10..03:34:10"]);
    assert_eq!(diff["verdict"]["word"], "worse", "{diff:#}");
    assert_eq!(diff["worse"][0]["after"], failures as f64 / 180.0);
    let first = &diff["workloads"][0];
    assert_eq!(
        (&first["name"], &first["metrics"]["exhausted_per_second"]["after"]),
        (&"orders.service".into(), &5.0.into())
    );

    // A file that is missing is a gap, and one that ends early is no all-clear.
    std::fs::remove_file(at.join("day/incident.000010.arrow")).expect("there");
    let text = printed(at, &["report", "day"]);
    assert!(text.contains("39 files; 1 min between them are not recorded (first at 03:20:07)"), "{text}");
    let part = std::fs::read(at.join("day/incident.000001.arrow")).expect("there");
    std::fs::write(at.join("short.arrow"), &part[..part.len() * 2 / 3]).expect("written");
    let (status, complaint) = code(at, &["check", "short.arrow", "--fail-if", "port-exhaustion"]);
    assert_eq!(status, Some(1), "{complaint}");
    assert!(complaint.contains("nothing holds, but") && complaint.contains("cannot be checked"), "{complaint}");
}

#[test]
fn hosts_have_a_report_each_and_a_comparison_names_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    let script = IncidentScript { seconds: 60, from: 20, to: 40, ..IncidentScript::default() };
    script.write(&at.join("a.arrow")).expect("written");
    IncidentScript { host: "web-08", boot: "boot-b", taken: 0, ..script }.write(&at.join("b.arrow")).expect("written");
    let all = json(at, &["report", "."]);
    assert_eq!(all["schema"], "portchurn.reports/1");
    let hosts: Vec<_> =
        all["reports"].as_array().expect("reports").iter().map(|one| &one["host"]["hostname"]).collect();
    assert_eq!(hosts, ["web-07", "web-08"]);
    let text = printed(at, &["report", "a.arrow", "b.arrow"]);
    assert!(text.contains("== web-07 (boot boot-a)") && text.contains("== web-08 (boot boot-b)"), "{text}");
    assert_eq!(code(at, &["check", ".", "--fail-if", "port-exhaustion"]).0, Some(4));
    let (status, complaint) = code(at, &["replay", ".", "--json"]);
    assert!(status == Some(1) && complaint.contains("web-08 (boot boot-b)"), "{complaint}");
    let text = printed(at, &["diff", "a.arrow", "b.arrow"]);
    assert!(text.contains("CAUTION   The hosts differ: web-07 and web-08."), "{text}");
}

#[test]
fn what_cannot_be_done_is_a_usage_error_that_says_what_can() {
    let directory = tempfile::tempdir().expect("a directory");
    for (arguments, expected) in [
        (&["report", "a.arrow", "--for", "5s"][..], "--from and --to choose a part"),
        (&["report", "dst=:443", "--from", "+1m"], "name its file"),
        (&["check", "--fail-if", "occupancy>80", "a.arrow"], "write `occupancy>80%`"),
        (&["check", "--fail-if", "failed>0"], "which recording?"),
        (&["diff", "a.arrow"], "diff compares two"),
    ] {
        let (status, complaint) = code(directory.path(), arguments);
        assert_eq!(status, Some(2), "{arguments:?}: {complaint}");
        assert!(complaint.contains(expected), "{arguments:?}: {complaint}");
    }
}
