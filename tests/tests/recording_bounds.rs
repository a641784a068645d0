//! Bounds of recordings: rotation, the flight recorder, and disks that are full or frozen.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use portchurn_tests::lab::{LIMIT, Lab, addr};
use portchurn_tests::process::until;
use portchurn_tests::recording::{TestDisk, burst, busy_server, exhaust, incident, portchurn, printed, record, text};
use portchurn_tests::require;
use portchurn_tests::require::Need;
use portchurn_tests::script::{AfterConnect, ConnectMethod, ScriptStep};
use portchurn_tests::tracer::Tracer;
use serde_json::Value;

/// Connects while the disk is frozen: several times as many events as the recorder's queue holds.
const ROUNDS: u32 = 6;
const CONNECTS: u32 = 8_000;

/// The files of a rotation, oldest first.
fn parts(lab: &Lab) -> Result<Vec<PathBuf>> {
    let mut parts: Vec<PathBuf> = fs::read_dir(lab.dir())?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "arrow"))
        .collect();
    parts.sort();
    Ok(parts)
}

#[test]
fn the_flight_recorder_writes_what_led_to_the_first_failure() -> Result<()> {
    require!();
    let lab = Lab::with_ports(40_000, 40_127)?;
    let _server = incident(&lab)?;
    let file = lab.file("flight.arrow");
    let mut tracer =
        Tracer::start(lab.dir(), "record", &["record", "-o", text(&file), "--on", "exhaustion", "--after", "1s"])?;
    lab.run("early", vec![ScriptStep::churn([addr("127.0.0.1:8443")], 5)])?;
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
    let _server = busy_server(&lab, "127.0.0.1:9001")?;
    let file = lab.file("parts.arrow");
    let tracer = record(&lab, &file, &["--max-size", "1M"])?;
    for round in 0..4 {
        burst(&lab, &format!("client{round}"), vec![ScriptStep::churn([to], 8_000)])?.finish()?;
    }
    tracer.finish()?;
    let parts = parts(&lab)?;
    let size: u64 = parts.iter().filter_map(|path| Some(path.metadata().ok()?.len())).sum();
    assert!(parts.len() > 1 && !parts[0].ends_with("parts.000001.arrow"), "{parts:?}");
    // The last batch may exceed the size.
    assert!(size < (1 << 20) + (1 << 18), "{size} bytes in {parts:?}");
    let mut busy = 0;
    for part in &parts {
        let report: Value = serde_json::from_str(&printed(&["report", text(part), "--json"])?.0)?;
        let connects = |name: Option<&str>| {
            let all = report["workloads"].as_array().into_iter().flatten();
            let ours = all.filter(|one| one["netns"].as_array().is_some_and(|all| all.contains(&lab.netns().into())));
            let ours = ours.filter(|one| name.is_none_or(|name| one["name"] == name));
            ours.filter_map(|one| one["connects"].as_u64()).sum::<u64>()
        };
        let named = connects(Some("churn"));
        assert_eq!(named, connects(None), "{}: the name was learnt in an earlier part", part.display());
        busy += usize::from(named > 100);
    }
    // Between two bursts and after the last one a list of all their TIME_WAITs may fill a whole part.
    assert!(busy > 0, "no part of {parts:?} holds connects of the bursts");
    Ok(())
}

#[test]
fn a_full_disk_ends_the_recording_with_a_whole_file() -> Result<()> {
    require!(Need::Program("mount", "mount"));
    let lab = Lab::new()?;
    let to = addr("127.0.0.1:9001");
    let _server = busy_server(&lab, "127.0.0.1:9001")?;
    let disk = TestDisk::small(lab.file("disk"))?;
    let file = disk.file("full.arrow");
    let mut tracer = record(&lab, &file, &[])?;
    burst(&lab, "client", vec![ScriptStep::churn([to], 8_000)])?.finish()?;
    let status = tracer.running().wait(LIMIT)?;
    let complaint = tracer.running().stderr();
    assert_eq!(status.code(), Some(1), "{complaint}");
    assert!(complaint.contains("No space left on device") && complaint.contains("whole"), "{complaint}");
    assert_eq!(printed(&["report", text(&file), "--json"])?.1, "", "the file is whole");
    Ok(())
}

#[test]
fn the_flight_recorder_writes_before_the_first_failure_if_a_forecast_is_enough() -> Result<()> {
    require!();
    let lab = Lab::with_ports(40_000, 40_255)?;
    lab.ns.sysctl(&[("ipv4/tcp_tw_reuse", "0")])?;
    let _server = incident(&lab)?;
    let file = lab.file("forecast.arrow");
    let mut tracer =
        Tracer::start(lab.dir(), "record", &["record", "-o", text(&file), "--on", "forecast", "--after", "1s"])?;
    // Ten ports per second, none of which is free again within a minute: the range is exhausted in half a minute.
    let steady = ScriptStep::Connect {
        to: vec![addr("127.0.0.1:8443")],
        times: 200,
        via: ConnectMethod::Blocking,
        bind: None,
        reuse_addr: false,
        then: AfterConnect::Close,
        pause_us: 100_000,
    };
    let mut client = lab.start("client", vec![steady])?;
    let status = tracer.running().wait(LIMIT)?;
    assert!(status.success(), "{}", tracer.running().stderr());
    assert!(tracer.running().stderr().contains("it happened"), "{}", tracer.running().stderr());
    assert!(client.running.ended()?.is_none(), "long before the last connect");
    let report: Value = serde_json::from_str(&printed(&["report", text(&file), "--json"])?.0)?;
    let ids: Vec<_> = report["findings"].as_array().into_iter().flatten().map(|one| &one["id"]).collect();
    assert!(ids.iter().any(|id| *id == "port-exhaustion-soon"), "{ids:?}");
    let ours = report["destinations"].as_array().into_iter().flatten().find(|one| one["netns"] == lab.netns());
    let ours = ours.expect("our destination");
    assert!(ours["connects"].as_u64() > Some(20) && ours["failed"] == serde_json::json!({}), "{ours}");
    Ok(())
}

#[test]
fn a_rotation_by_age_forgets_what_is_older() -> Result<()> {
    require!();
    let lab = Lab::new()?;
    let to = addr("127.0.0.1:9001");
    let _server = busy_server(&lab, "127.0.0.1:9001")?;
    let file = lab.file("parts.arrow");
    let tracer = record(&lab, &file, &["--max-age", "4s"])?;
    let first = lab.file("parts.000001.arrow");
    let mut rounds = 0;
    until("the end of the first part", LIMIT, || {
        rounds += 1;
        burst(&lab, &format!("client{rounds}"), vec![ScriptStep::churn([to], 50)])?.finish()?;
        Ok((!first.exists()).then_some(()))
    })?;
    tracer.finish()?;
    let parts = parts(&lab)?;
    assert!(parts.len() > 1, "{parts:?}");
    let mut seconds = 0.0;
    for part in &parts {
        let (report, complaints) = printed(&["report", text(part), "--json"])?;
        assert_eq!(complaints, "", "{}", part.display());
        seconds += serde_json::from_str::<Value>(&report)?["window"]["seconds"].as_f64().expect("seconds");
    }
    // The parts within the age, the part that reaches beyond it, and the part being written.
    assert!(seconds < 4.0 + 2.0 * 3.0, "{seconds} s in {parts:?}");
    // Another recording must not mix its parts with these.
    let again = |more: &[&str]| {
        portchurn(&[&["record", "-o", text(&file), "--max-age", "4s", "--for", "100ms"], more].concat())
    };
    let refused = again(&[])?;
    let complaint = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && complaint.contains("--force"), "{complaint}");
    assert_eq!(again(&["--force"])?.status.code(), Some(0));
    assert_eq!(self::parts(&lab)?, [first]);
    Ok(())
}

#[test]
fn a_disk_that_stands_still_costs_counted_events_and_the_tracer_none() -> Result<()> {
    require!(Need::Program("fsfreeze", "util-linux"), Need::Program("mkfs.ext4", "e2fsprogs"));
    let lab = Lab::new()?;
    let to: Vec<_> = (1..=8).map(|host| addr(&format!("127.0.0.{host}:9001"))).collect();
    let _server = busy_server(&lab, "0.0.0.0:9001")?;
    let mut disk = TestDisk::that_freezes(lab.file("disk"))?;
    let file = disk.file("slow.arrow");
    let mut tracer = record(&lab, &file, &[])?;
    disk.freeze()?;
    for round in 0..ROUNDS {
        burst(&lab, &format!("client{round}"), vec![ScriptStep::churn(to.clone(), CONNECTS)])?.finish()?;
    }
    disk.thaw()?;
    burst(&lab, "late", vec![ScriptStep::churn(to.clone(), 80)])?.finish()?;
    tracer.running().signal(nix::sys::signal::Signal::SIGTERM)?;
    let status = tracer.running().wait(LIMIT)?;
    let complaint = tracer.running().stderr();
    assert!(status.success() && complaint.contains("events were not recorded"), "{status}: {complaint}");

    let live: Value = serde_json::from_str(&tracer.running().stdout())?;
    let (replayed, complaints) = printed(&["report", text(&file), "--json"])?;
    let replayed: Value = serde_json::from_str(&replayed)?;
    assert_eq!(complaints, "", "the file is whole");
    let connects = |report: &Value| -> u64 {
        let all = report["destinations"].as_array().into_iter().flatten();
        all.filter(|one| one["netns"] == lab.netns()).filter_map(|one| one["connects"].as_u64()).sum()
    };
    let made = u64::from(ROUNDS * CONNECTS + 80);
    assert_eq!(live["events"]["lost"]["ring_full"], 0, "the tracer was never held up: {}", live["events"]);
    assert_eq!(connects(&live), made, "{}", live["events"]);
    let lost = live["events"]["lost"]["recorder"].as_u64().expect("a count");
    assert!(lost > 0 && connects(&replayed) < made, "{lost} lost, {} of {made} recorded", connects(&replayed));
    assert_eq!(replayed["events"]["lost"], live["events"]["lost"], "the recording tells what it lacks");
    Ok(())
}
