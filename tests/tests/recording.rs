//! Recordings of real traffic: exact, complete however the writer ends, and readable by other tools.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use portchurn_tests::lab::{LIMIT, Lab, addr};
use portchurn_tests::process::{Running, output, until};
use portchurn_tests::recording::{burst, busy_server, exhaust, incident, portchurn, printed, record, text};
use portchurn_tests::require;
use portchurn_tests::require::{Need, python};
use portchurn_tests::script::{AfterConnect, ConnectMethod, LoggedCall, ScriptStep};
use portchurn_tests::tracer::binary;
use serde_json::Value;

#[test]
fn the_report_from_a_recording_is_the_one_that_the_live_run_printed() -> Result<()> {
    require!();
    let lab = Lab::with_ports(40_000, 40_127)?;
    let _server = incident(&lab)?;
    let mut before = lab.start(
        "before",
        vec![
            ScriptStep::connect([addr("127.0.0.1:8443")], 7, ConnectMethod::Blocking, AfterConnect::Hold),
            lab.wait_for("end"),
        ],
    )?;
    before.entry(LoggedCall::Waiting)?;
    let file = lab.file("incident.arrow");
    let tracer = record(&lab, &file, &[])?;
    exhaust(&lab)?;
    let live = tracer.finish()?;
    assert_eq!(fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);

    let (again, complaints) = printed(&["report", text(&file), "--json"])?;
    let (live, replayed): (Value, Value) = (serde_json::from_str(&live)?, serde_json::from_str(&again)?);
    assert_eq!(complaints, "");
    assert_eq!(as_recorded(live.clone()), replayed);
    assert!(live["events"]["lost"]["recorder"] == 0, "{}", live["events"]);
    assert!(
        live["destinations"]
            .as_array()
            .is_some_and(|all| all.iter().any(|one| one["failed"]["EADDRNOTAVAIL"].as_u64() > Some(0)))
    );
    assert_eq!(printed(&["report", text(&file), "--json"])?.0, again, "two runs are identical");
    // Through a pipe, in which the reader cannot seek.
    let piped = Command::new("sh")
        .args(["-c", "cat \"$1\" | \"$0\" report - --json", text(&binary()?), text(&file)])
        .output()?;
    assert_eq!(String::from_utf8_lossy(&piped.stdout), again);

    let check = |condition: &str| portchurn(&["check", text(&file), "--fail-if", condition]);
    for (condition, code) in
        [("port-exhaustion", 4), ("occupancy>0.9", 4), ("failed>0", 4), ("close-wait-leak", 0), ("soon", 2)]
    {
        let answer = check(condition)?;
        assert_eq!(answer.status.code(), Some(code), "{condition}: {}", String::from_utf8_lossy(&answer.stdout));
        assert_eq!(answer.stdout.is_empty(), code != 4, "{condition}: the evidence");
    }
    let (same, _) = printed(&["diff", text(&file), text(&file)])?;
    assert!(same.contains("without a change") && !same.contains("CAUTION the lengths"), "{same}");

    // The speed changes the time of the lines, not their content.
    let lines = |speed: &str| printed(&["replay", text(&file), "--json", "--what", "all", "--speed", speed]);
    let (most, _) = lines("max")?;
    assert!(most.lines().filter(|line| line.contains("EADDRNOTAVAIL")).count() >= 10, "{most:.400}");
    assert_eq!(lines("1000")?.0, most);
    assert_eq!(lines("10")?.0, most);
    assert_eq!(lines("1")?.0, most);
    // Time range and filter leave out what they should, and nothing else.
    let some = printed(&["replay", text(&file), "--json", "--speed", "max", "errno=EADDRNOTAVAIL"])?.0;
    assert!(!some.is_empty() && some.lines().all(|line| line.contains("EADDRNOTAVAIL")), "{some:.400}");
    let last = printed(&["replay", text(&file), "--json", "--speed", "max", "--from", "1ms ago", "--what", "all"])?.0;
    assert!(last.len() < most.len() / 2, "{} of {}", last.len(), most.len());
    Ok(())
}

/// A live report as the recording gives it: how far the tracker was behind the kernel is known to the live run alone.
fn as_recorded(mut live: Value) -> Value {
    for field in ["lag_ms", "lag_peak_ms"] {
        live["events"][field] = Value::Null;
    }
    live
}

#[test]
fn a_recording_with_loss_tells_the_same_story_too() -> Result<()> {
    require!();
    let lab = Lab::new()?;
    let to = addr("127.0.0.1:9001");
    let _server = busy_server(&lab, "127.0.0.1:9001")?;
    let file = lab.file("lossy.arrow");
    let tracer = record(&lab, &file, &["--ring-size", "4096"])?;
    burst(&lab, "client", vec![ScriptStep::Threads { count: 2, steps: vec![ScriptStep::churn([to], 3_000)] }])?
        .finish()?;
    let live: Value = serde_json::from_str(&tracer.finish()?)?;
    assert!(live["events"]["lost"]["ring_full"].as_u64() > Some(0), "{}", live["events"]);
    let replayed: Value = serde_json::from_str(&printed(&["report", text(&file), "--json"])?.0)?;
    assert_eq!(as_recorded(live), replayed);
    Ok(())
}

#[test]
fn a_killed_recorder_leaves_a_file_that_reads_to_its_last_batch() -> Result<()> {
    require!();
    let lab = Lab::with_ports(40_000, 40_127)?;
    let _server = incident(&lab)?;
    let file = lab.file("killed.arrow");
    let mut tracer = record(&lab, &file, &[])?;
    exhaust(&lab)?;
    let report = || portchurn(&["report", text(&file), "--json"]);
    until("the incident in the file", LIMIT, || {
        let output = report()?;
        Ok(String::from_utf8_lossy(&output.stdout).contains("EADDRNOTAVAIL").then_some(()))
    })?;
    tracer.running().signal(Signal::SIGKILL)?;
    tracer.running().wait(LIMIT)?;
    let output = report()?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    assert!(complaint.contains("has no end") || complaint.contains("in the middle of a batch"), "{complaint}");
    let report: Value = serde_json::from_slice(&output.stdout)?;
    assert!(report["findings"].as_array().is_some_and(|all| all.iter().any(|one| one["id"] == "port-exhaustion")));
    Ok(())
}

#[test]
fn a_file_is_not_overwritten_and_a_command_passes_on_its_exit_code() -> Result<()> {
    require!();
    let lab = Lab::new()?;
    let file = lab.file("command.arrow");
    let run = |more: &[&str]| {
        let arguments = [&["record", "-o", text(&file)], more, &["--", "sh", "-c", "exit 7"]].concat();
        portchurn(&arguments)
    };
    let first = run(&[])?;
    assert_eq!(first.status.code(), Some(7), "{}", String::from_utf8_lossy(&first.stderr));
    let before = fs::read(&file)?;
    let second = run(&[])?;
    let complaint = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{complaint}");
    assert!(complaint.contains("--force"), "{complaint}");
    assert_eq!(fs::read(&file)?, before);
    assert_eq!(run(&["--force"])?.status.code(), Some(7));
    let directory = portchurn(&["record", "-o", text(lab.dir()), "--force", "--", "true"])?;
    let complaint = String::from_utf8_lossy(&directory.stderr);
    assert!(directory.status.code() == Some(1) && complaint.contains("is a directory"), "{complaint}");
    // A recording that never started leaves no file behind and overwrites none.
    let nothing = |file: &Path, more: &[&str]| {
        portchurn(&[&["record", "-o", text(file)], more, &["--", "/no/such/program"]].concat())
    };
    let before = fs::read(&file)?;
    assert_eq!(nothing(&file, &["--force"])?.status.code(), Some(127));
    assert_eq!(fs::read(&file)?, before);
    assert_eq!(nothing(&lab.file("nothing.arrow"), &[])?.status.code(), Some(127));
    assert!(!lab.file("nothing.arrow").exists());
    assert_eq!(printed(&["report", text(&file)])?.1, "", "whole");
    Ok(())
}

#[test]
fn analysts_open_it_as_it_is_and_find_the_worst_destination() -> Result<()> {
    require!(Need::Python);
    let lab = Lab::with_ports(40_000, 40_127)?;
    let _server = incident(&lab)?;
    let file = lab.file("incident.arrow");
    let tracer = record(&lab, &file, &[])?;
    exhaust(&lab)?;
    let report: Value = serde_json::from_str(&tracer.finish()?)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/worst_destination.py");
    let python = python().context("Python")?;
    let found: Value = serde_json::from_str(&output(Command::new(python).arg(script).arg(&file))?)?;
    let failed = report["destinations"].as_array().into_iter().flatten();
    let failed = failed.filter_map(|one| one["failed"]["EADDRNOTAVAIL"].as_u64()).max().expect("failures");
    for library in ["pyarrow", "polars", "duckdb"] {
        assert_eq!(found[library], serde_json::json!(["127.0.0.1", 8443, failed]), "{library}");
    }
    assert_eq!(found["names"][2], "churn", "{}", found["names"]);
    assert_eq!(found["columns"]["time"], "timestamp[ns, tz=UTC]");
    assert_eq!(found["rows"][0], found["rows"][1]);
    Ok(())
}

#[test]
fn a_recording_of_the_demo_opens_everywhere_and_names_its_destination() -> Result<()> {
    require!(Need::Python);
    let lab = Lab::new()?;
    let file = lab.file("demo.arrow");
    let tracer = record(&lab, &file, &[])?;
    let mut command = Command::new(binary()?);
    command.arg("demo");
    let mut demo = Running::start(command, lab.dir(), "demo")?;
    demo.succeed(LIMIT)?;
    let report: Value = serde_json::from_str(&tracer.finish()?)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/worst_destination.py");
    let python = python().context("Python")?;
    let found: Value = serde_json::from_str(&output(Command::new(python).arg(script).arg(&file))?)?;
    let failed = |one: &Value| one["failed"]["EADDRNOTAVAIL"].as_u64().unwrap_or_default();
    let worst = report["destinations"].as_array().into_iter().flatten().max_by_key(|one| failed(one));
    let worst = worst.filter(|one| failed(one) > 0).context("an exhausted destination")?;
    let expected = serde_json::json!([worst["remote_addr"], worst["remote_port"], failed(worst)]);
    for library in ["pyarrow", "polars", "duckdb"] {
        assert_eq!(found[library], expected, "{library}");
    }
    // The demo's own tracer must have counted the same.
    let expected = format!("{} EADDRNOTAVAIL;", failed(worst));
    assert!(demo.stdout().contains(&expected), "{expected} {}", demo.stdout());
    let replayed: Value = serde_json::from_str(&printed(&["report", text(&file), "--json"])?.0)?;
    assert_eq!(replayed, as_recorded(report));
    Ok(())
}

#[test]
fn two_recordings_side_by_side_tell_what_changed_most_and_what_speaks_against_it() -> Result<()> {
    require!();
    let lab = Lab::with_ports(40_000, 40_127)?;
    let _server = incident(&lab)?;
    let _quiet = busy_server(&lab, "127.0.0.1:9001")?;
    let (before, after) = (lab.file("before.arrow"), lab.file("after.arrow"));
    let quiet = || lab.run("quiet", vec![ScriptStep::churn([addr("127.0.0.1:9001")], 10)]).map(drop);
    let began = Instant::now();
    let tracer = record(&lab, &before, &[])?;
    quiet()?;
    lab.run("few", vec![ScriptStep::churn([addr("127.0.0.1:8443")], 10)])?;
    tracer.finish()?;
    let took = began.elapsed();
    // The same traffic and an exhaustion, with losses, and much longer.
    let tracer = record(&lab, &after, &["--ring-size", "4096"])?;
    let began = Instant::now();
    quiet()?;
    exhaust(&lab)?;
    let mut rounds = 0;
    until("a loss and a longer recording", LIMIT, || {
        rounds += 1;
        burst(
            &lab,
            &format!("more{rounds}"),
            vec![ScriptStep::connect([addr("127.0.0.1:8443")], 3_000, ConnectMethod::Blocking, AfterConnect::Close)],
        )?
        .finish()?;
        Ok((rounds >= 5 && began.elapsed() > took * 3).then_some(()))
    })?;
    tracer.finish()?;

    let diff: Value = serde_json::from_str(&printed(&["diff", "--json", text(&before), text(&after)])?.0)?;
    assert_eq!(diff["schema"], "portchurn.diff/1");
    let first = &diff["destinations"][0];
    assert!(first["name"].as_str().is_some_and(|name| name.starts_with("127.0.0.1:8443 ")), "{first}");
    let exhausted = &first["metrics"]["exhausted_per_second"];
    assert!(exhausted["before"] == 0.0 && exhausted["after"].as_f64() > Some(0.0), "{exhausted}");
    let objections = diff["not_comparable"].to_string();
    assert!(objections.contains("lengths differ") && objections.contains("lost in AFTER"), "{objections}");

    let text = |from: &Path, to: &Path| printed(&["diff", text(from), text(to)]).map(|(text, _)| text);
    let forth = text(&before, &after)?;
    let (_, destinations) = forth.split_once("DESTINATIONS\n").context("destinations")?;
    assert!(destinations.starts_with("127.0.0.1:8443 from"), "{forth}");
    assert!(destinations.lines().nth(1).is_some_and(|line| line.contains("no port/s 0 > ")), "{forth}");
    assert!(forth.starts_with("WORSE     Connects fail for lack of a port: none before"), "{forth}");
    assert!(
        forth.contains("CAUTION   The lengths differ") && forth.contains("CAUTION   Events were lost in AFTER"),
        "{forth}"
    );
    assert!(text(&after, &before)?.contains("CAUTION   Events were lost in BEFORE"));
    Ok(())
}

#[test]
fn what_is_no_recording_is_told_apart() -> Result<()> {
    require!(Need::Program("mkfifo", "coreutils"));
    let lab = Lab::new()?;
    let complaint = |path: &Path| -> Result<String> {
        let output = portchurn(&["report", text(path)])?;
        ensure!(output.status.code() == Some(1), "{}: {}", path.display(), output.status);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let why = said.trim_end().rsplit(": ").next().unwrap_or_default();
        ensure!(said.matches(why).count() == 1, "said once: {said}");
        Ok(said)
    };
    let file = |name: &str, bytes: &[u8]| -> Result<PathBuf> {
        fs::write(lab.file(name), bytes)?;
        Ok(lab.file(name))
    };
    assert!(complaint(&lab.file("absent"))?.contains("No such file"));
    assert!(complaint(lab.dir())?.contains("no recording (*.arrow) is there"));
    assert!(complaint(&file("empty", b"")?)?.contains("is empty"));
    assert!(complaint(&file("text", b"time,kind\n")?)?.contains("no recording"));
    let fifo = lab.file("fifo");
    output(Command::new("mkfifo").arg(&fifo))?;
    // A named pipe is read like a file when another process writes a recording into it.
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tracer-core/src/recording/samples/v1");
    let clean = samples.join("clean.arrow");
    let piped = Command::new("sh")
        .args([
            "-c",
            "cat \"$1\" > \"$2\" & exec \"$0\" report --json \"$2\"",
            text(&binary()?),
            text(&clean),
            text(&fifo),
        ])
        .output()?;
    assert_eq!(String::from_utf8_lossy(&piped.stdout), printed(&["report", "--json", text(&clean)])?.0);
    let truncated = portchurn(&["report", "--json", text(&samples.join("truncated.arrow"))])?;
    let said = String::from_utf8_lossy(&truncated.stderr);
    assert!(truncated.status.success() && said.contains("at byte") && said.contains("are missing"), "{said}");
    let out = portchurn(&["record", "-o", text(&fifo), "--force", "--for", "1s"])?;
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("needs a file"), "{}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}

#[test]
fn exports_hold_what_the_recording_holds_and_redacted_ones_no_name_of_it() -> Result<()> {
    require!(Need::Python);
    let lab = Lab::new()?;
    let clean = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tracer-core/src/recording/samples/v1/clean.arrow");
    let export = |more: &[&str]| printed(&[&["export", text(&clean)], more].concat()).map(|(out, _)| out);

    let lines = export(&["--format", "jsonl"])?;
    let rows = lines.lines().map(serde_json::from_str).collect::<std::result::Result<Vec<Value>, _>>()?;
    assert_eq!(rows.iter().filter(|row| row["kind"] == "transition").count(), 450);
    assert!(rows.iter().any(|row| row["detail"]["cmdline"].is_string()), "details are JSON, not text of it");
    let flows = export(&["--what", "flows", "--format", "csv"])?;
    // Fifty connections with both ends on this host, and the header line.
    assert_eq!(flows.lines().count(), 101, "{flows:.300}");

    let shareable = lab.file("shareable.arrow");
    export(&["--format", "arrow", "--redact", "-o", text(&shareable)])?;
    let connects = |file: &Path| -> Result<(String, u64)> {
        let (report, complaints) = printed(&["report", text(file), "--json"])?;
        ensure!(complaints.is_empty(), "{complaints}");
        let parsed: Value = serde_json::from_str(&report)?;
        let connects =
            parsed["workloads"].as_array().into_iter().flatten().filter_map(|one| one["connects"].as_u64()).sum();
        Ok((report, connects))
    };
    let ((before, count), (after, same)) = (connects(&clean)?, connects(&shareable)?);
    assert_eq!((count, same), (50, 50));
    for secret in ["10.66.0.", "/usr/bin/client", "\"client\""] {
        assert!(before.contains(secret) && !after.contains(secret), "{secret}");
    }

    let (parquet, dataset) = (lab.file("events.parquet"), lab.file("dataset"));
    export(&["--format", "parquet", "-o", text(&parquet)])?;
    export(&["--format", "parquet", "--what", "flows", "--partition", "-o", text(&dataset)])?;
    let script = "import sys, duckdb\n\
        print(duckdb.sql(f\"select count(*) from '{sys.argv[1]}' where kind = 'transition'\").fetchall()[0][0])\n\
        print(*duckdb.sql(f\"select count(*), any_value(hour), any_value(host) from '{sys.argv[2]}/**/*.parquet'\").fetchall()[0])";
    let python = python().context("Python")?;
    let found = output(Command::new(python).args(["-c", script]).arg(&parquet).arg(&dataset))?;
    assert_eq!(found.lines().collect::<Vec<_>>(), ["450", "100 2026-03-14T02 unknown"]);
    Ok(())
}

/// docs/ANALYSIS.md has ten questions of an incident in SQL: their answers are the numbers of the report.
#[test]
fn the_queries_of_the_page_on_analysis_say_what_the_report_says() -> Result<()> {
    require!(Need::Python);
    let lab = Lab::with_ports(40_000, 40_127)?;
    let _server = incident(&lab)?;
    let file = lab.file("incident.arrow");
    let tracer = record(&lab, &file, &[])?;
    exhaust(&lab)?;
    let report = lab.file("report.json");
    fs::write(&report, tracer.finish()?)?;
    for (what, name) in [("events", "events.parquet"), ("flows", "flows.parquet")] {
        let table = lab.file(name);
        printed(&["export", text(&file), "--what", what, "--format", "parquet", "-o", text(&table)])?;
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = python().context("Python")?;
    let mut command = Command::new(python);
    command.arg(here.join("tests/analysis.py")).arg(here.join("../docs/ANALYSIS.md")).arg(lab.dir()).arg(&report);
    assert_eq!(output(&mut command)?.trim(), "10", "queries");
    Ok(())
}
