//! Recordings of real traffic: exact, whole whatever happens to the writer, and open to others.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use portchurn_tests::lab::{LIMIT, Lab, Traffic, addr};
use portchurn_tests::process::{output, until};
use portchurn_tests::require;
use portchurn_tests::require::{Need, python};
use portchurn_tests::script::{Manner, Script, Step, Then, Via, What};
use portchurn_tests::tracer::{Tracer, binary};
use serde_json::Value;

/// Runs `portchurn` to its end.
fn portchurn(arguments: &[&str]) -> Result<Output> {
    Command::new(binary()?).args(arguments).output().context("starting portchurn")
}

/// Runs `portchurn` successfully and returns what it printed, and what it complained about.
fn printed(arguments: &[&str]) -> Result<(String, String)> {
    let output = portchurn(arguments)?;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{arguments:?}: {}: {stderr}", output.status);
    Ok((String::from_utf8(output.stdout)?, stderr))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ours is text")
}

fn record(lab: &Lab, file: &Path, more: &[&str]) -> Result<Tracer> {
    let mut arguments = vec!["record", "-o", text(file), "--json", "--for", "600s"];
    arguments.extend(more);
    Tracer::start(lab.dir(), "record", &arguments)
}

fn burst(lab: &Lab, name: &str, steps: Vec<Step>) -> Result<Traffic> {
    lab.start_script(&lab.ns, name, &Script { log: lab.log_path(name), buffered: true, comm: None, steps })
}

fn incident(lab: &Lab) -> Result<Traffic> {
    lab.serve("server", "127.0.0.1:8443", Manner::WaitForPeer)
}

/// Closed ones, held ones, and more than there are ports for.
fn exhaust(lab: &Lab) -> Result<()> {
    let to = addr("127.0.0.1:8443");
    lab.run(
        "client",
        vec![
            Step::connect([to], 40, Via::Blocking, Then::Close),
            Step::connect([to], 60, Via::Blocking, Then::Hold),
            Step::connect([to], 80, Via::Blocking, Then::Hold),
        ],
    )
    .map(drop)
}

#[test]
fn the_report_from_a_recording_is_the_one_that_the_live_run_printed() -> Result<()> {
    require!();
    let lab = Lab::with_ports(40_000, 40_127)?;
    let _server = incident(&lab)?;
    let mut before = lab.start(
        "before",
        vec![Step::connect([addr("127.0.0.1:8443")], 7, Via::Blocking, Then::Hold), lab.wait_for("end")],
    )?;
    before.entry(What::Waiting)?;
    let file = lab.file("incident.arrow");
    let tracer = record(&lab, &file, &[])?;
    exhaust(&lab)?;
    let live = tracer.finish()?;
    assert_eq!(fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);

    let (again, complaints) = printed(&["report", text(&file), "--json"])?;
    let (live, replayed): (Value, Value) = (serde_json::from_str(&live)?, serde_json::from_str(&again)?);
    assert_eq!(complaints, "");
    assert_eq!(live, replayed);
    assert!(live["events"]["lost"]["recorder"] == 0, "{}", live["events"]);
    assert!(
        live["destinations"]
            .as_array()
            .is_some_and(|all| all.iter().any(|one| one["failed"]["EADDRNOTAVAIL"].as_u64() > Some(0)))
    );
    assert_eq!(printed(&["report", text(&file), "--json"])?.0, again, "two runs are identical");
    // Through a pipe, which cannot be searched.
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

    // Speed changes when lines come, not which.
    let lines = |speed: &str| printed(&["replay", text(&file), "--json", "--what", "all", "--speed", speed]);
    let (most, _) = lines("max")?;
    assert!(most.lines().filter(|line| line.contains("EADDRNOTAVAIL")).count() >= 10, "{most:.400}");
    assert_eq!(lines("1000")?.0, most);
    assert_eq!(lines("10")?.0, most);
    assert_eq!(lines("1")?.0, most);
    // What is left out by time or by filter is left out, and nothing else.
    let some = printed(&["replay", text(&file), "--json", "--speed", "max", "errno=EADDRNOTAVAIL"])?.0;
    assert!(!some.is_empty() && some.lines().all(|line| line.contains("EADDRNOTAVAIL")), "{some:.400}");
    let last = printed(&["replay", text(&file), "--json", "--speed", "max", "--from", "1ms ago", "--what", "all"])?.0;
    assert!(last.len() < most.len() / 2, "{} of {}", last.len(), most.len());
    Ok(())
}

#[test]
fn a_recording_with_loss_tells_the_same_story_too() -> Result<()> {
    require!();
    let lab = Lab::new()?;
    let to = addr("127.0.0.1:9001");
    let mut server = burst(&lab, "server", vec![Step::Serve { addr: to, manner: Manner::WaitForPeer }])?;
    server.entry(What::Listening)?;
    let file = lab.file("lossy.arrow");
    let tracer = record(&lab, &file, &["--ring-size", "4096"])?;
    burst(&lab, "client", vec![Step::Threads { count: 2, steps: vec![Step::churn([to], 3_000)] }])?.finish()?;
    let live: Value = serde_json::from_str(&tracer.finish()?)?;
    assert!(live["events"]["lost"]["ring_full"].as_u64() > Some(0), "{}", live["events"]);
    let replayed: Value = serde_json::from_str(&printed(&["report", text(&file), "--json"])?.0)?;
    assert_eq!(live, replayed);
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
    assert!(complaint.contains("without a footer") || complaint.contains("in the middle of a batch"), "{complaint}");
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
    assert_eq!(printed(&["report", text(&file)])?.1, "", "whole");
    Ok(())
}

#[test]
fn the_flight_recorder_writes_what_led_to_the_first_failure() -> Result<()> {
    require!();
    let lab = Lab::with_ports(40_000, 40_127)?;
    let _server = incident(&lab)?;
    let file = lab.file("flight.arrow");
    let mut tracer =
        Tracer::start(lab.dir(), "record", &["record", "-o", text(&file), "--on", "exhaustion", "--after", "1s"])?;
    lab.run("early", vec![Step::churn([addr("127.0.0.1:8443")], 5)])?;
    assert!(!file.exists(), "nothing has happened yet");
    exhaust(&lab)?;
    let status = tracer.running().wait(LIMIT)?;
    assert!(status.success(), "{}", tracer.running().stderr());
    let report: Value = serde_json::from_str(&printed(&["report", text(&file), "--json"])?.0)?;
    assert!(report["findings"].as_array().is_some_and(|all| all.iter().any(|one| one["id"] == "port-exhaustion")));
    let names: Vec<_> = report["workloads"].as_array().into_iter().flatten().map(|one| &one["name"]).collect();
    assert!(names.iter().any(|name| *name == "churn"), "{names:?}");
    Ok(())
}

#[test]
fn a_rotation_keeps_within_its_bounds_and_every_part_tells_its_own_story() -> Result<()> {
    require!();
    let lab = Lab::new()?;
    let to = addr("127.0.0.1:9001");
    let mut server = burst(&lab, "server", vec![Step::Serve { addr: to, manner: Manner::WaitForPeer }])?;
    server.entry(What::Listening)?;
    let file = lab.file("parts.arrow");
    let tracer = record(&lab, &file, &["--max-size", "1M"])?;
    for round in 0..4 {
        burst(&lab, &format!("client{round}"), vec![Step::churn([to], 8_000)])?.finish()?;
    }
    tracer.finish()?;
    let mut parts: Vec<PathBuf> = fs::read_dir(lab.dir())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "arrow"))
        .collect();
    parts.sort();
    let size: u64 = parts.iter().filter_map(|path| Some(path.metadata().ok()?.len())).sum();
    assert!(parts.len() > 1 && !parts[0].ends_with("parts.000001.arrow"), "{parts:?}");
    // The last batch may go over it.
    assert!(size < (1 << 20) + (1 << 18), "{size} bytes in {parts:?}");
    for part in &parts {
        let report: Value = serde_json::from_str(&printed(&["report", text(part), "--json"])?.0)?;
        let connects = |name: &str| {
            let all = report["workloads"].as_array().into_iter().flatten();
            all.filter(|one| one["name"] == name).filter_map(|one| one["connects"].as_u64()).sum::<u64>()
        };
        // The last one may have begun just before the end.
        let last = parts.last() == Some(part);
        assert!(last || connects("churn") > 100, "{}: the name was learnt in an earlier part", part.display());
    }
    Ok(())
}

#[test]
fn a_full_disk_ends_the_recording_with_a_whole_file() -> Result<()> {
    require!(Need::Program("mount", "mount"));
    let lab = Lab::new()?;
    let to = addr("127.0.0.1:9001");
    let mut server = burst(&lab, "server", vec![Step::Serve { addr: to, manner: Manner::WaitForPeer }])?;
    server.entry(What::Listening)?;
    let disk = Disk::new(lab.file("disk"))?;
    let file = disk.0.join("full.arrow");
    let mut tracer = record(&lab, &file, &[])?;
    burst(&lab, "client", vec![Step::churn([to], 8_000)])?.finish()?;
    let status = tracer.running().wait(LIMIT)?;
    let complaint = tracer.running().stderr();
    assert_eq!(status.code(), Some(1), "{complaint}");
    assert!(complaint.contains("No space left on device") && complaint.contains("whole"), "{complaint}");
    assert_eq!(printed(&["report", text(&file), "--json"])?.1, "", "the file is whole");
    Ok(())
}

/// A file system of 256 KiB, unmounted with its guard.
struct Disk(PathBuf);

impl Disk {
    fn new(at: PathBuf) -> Result<Self> {
        fs::create_dir(&at)?;
        output(Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "none"]).arg(&at))?;
        Ok(Self(at))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The directory is removed with the lab; a busy mount would be told by that.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
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
fn what_is_no_recording_is_told_apart() -> Result<()> {
    require!(Need::Program("mkfifo", "coreutils"));
    let lab = Lab::new()?;
    let complaint = |path: &Path| -> Result<String> {
        let output = portchurn(&["report", text(path)])?;
        ensure!(output.status.code() == Some(1), "{}: {}", path.display(), output.status);
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let file = |name: &str, bytes: &[u8]| -> Result<PathBuf> {
        fs::write(lab.file(name), bytes)?;
        Ok(lab.file(name))
    };
    assert!(complaint(&lab.file("absent"))?.contains("No such file"));
    assert!(complaint(lab.dir())?.contains("is a directory"));
    assert!(complaint(&file("empty", b"")?)?.contains("is empty"));
    assert!(complaint(&file("text", b"time,kind\n")?)?.contains("no recording"));
    let fifo = lab.file("fifo");
    output(Command::new("mkfifo").arg(&fifo))?;
    // A pipe is read like any other file, if somebody writes a recording into it.
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tracer/src/recording/samples/v1");
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
    assert!(truncated.status.success() && said.contains("bytes") && said.contains("are missing"), "{said}");
    let out = portchurn(&["record", "-o", text(&fifo), "--force", "--for", "1s"])?;
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("needs a file"), "{}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}

#[test]
fn exports_hold_what_the_recording_holds_and_redacted_ones_no_name_of_it() -> Result<()> {
    require!(Need::Python);
    let lab = Lab::new()?;
    let clean = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tracer/src/recording/samples/v1/clean.arrow");
    let export = |more: &[&str]| printed(&[&["export", text(&clean)], more].concat()).map(|(out, _)| out);

    let lines = export(&["--format", "jsonl"])?;
    let rows = lines.lines().map(serde_json::from_str).collect::<std::result::Result<Vec<Value>, _>>()?;
    assert_eq!(rows.iter().filter(|row| row["kind"] == "transition").count(), 450);
    assert!(rows.iter().any(|row| row["detail"]["cmdline"].is_string()), "details are JSON, not text of it");
    let flows = export(&["--what", "flows", "--format", "csv"])?;
    // Fifty connections with both ends on this host, and the heading.
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
