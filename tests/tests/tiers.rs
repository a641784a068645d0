//! The tiers: two tracers with different hooks report the same about the same traffic.
//!
//! On a kernel without fentry both use the same hooks, and the test proves little; `cargo xtask e2e vm` runs it on
//! kernels with fentry.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use aya::sys::{Stats, enable_stats};
use portchurn_tests::compare::assert_counts;
use portchurn_tests::lab::{Lab, addr};
use portchurn_tests::load::programs;
use portchurn_tests::reported::ParsedReport;
use portchurn_tests::require;
use portchurn_tests::script::{AfterConnect, ConnectMethod, LoggedCall, ScriptStep, ServerBehaviour};
use portchurn_tests::tracer::Tracer;
use serde_json::Value;

type Result = anyhow::Result<()>;

/// The fields in which both reports must agree. Times differ, because each tracer reads its own clock.
const ATTRIBUTION: [&str; 16] = [
    "workload",
    "pid",
    "comm",
    "inferred",
    "local_addr",
    "remote_addr",
    "remote_port",
    "connects",
    "established",
    "failed",
    "active_closes",
    "ports_held",
    "time_wait/entered",
    "time_wait/now",
    "time_wait/peak",
    "close_wait/now",
];
const DESTINATION: [&str; 9] =
    ["local_addr", "remote_addr", "remote_port", "connects", "established", "failed", "holders", "victims", "ports"];

/// The entries of a table of the report for one namespace, with the fields in which the tiers must agree.
fn facts(report: &Value, table: &str, netns: u32, keys: &[&str]) -> BTreeSet<String> {
    let entries = report[table].as_array().into_iter().flatten();
    entries
        .filter(|entry| entry["netns"] == netns)
        .map(|entry| keys.iter().map(|key| format!("{key}={}", at(entry, key))).collect::<Vec<_>>().join(" "))
        .collect()
}

fn at<'a>(entry: &'a Value, key: &str) -> &'a Value {
    entry.pointer(&format!("/{key}")).unwrap_or_else(|| panic!("{key} in {entry}"))
}

fn lifetimes(report: &ParsedReport, netns: u32) -> BTreeMap<(Option<u32>, u16), u64> {
    report.attributions(netns).map(|entry| ((entry.pid, entry.remote_port), entry.lifetime_ms.count)).collect()
}

#[test]
fn both_tiers_say_the_same() -> Result {
    require!();
    let lab = Lab::with_ports(40000, 40063)?;
    lab.ns.sysctl(&[("ipv4/tcp_tw_reuse", "0")])?;
    let netns = lab.netns();
    let start =
        |name: &str, tier: &str| Tracer::start(lab.dir(), name, &["report", "--json", "--for", "600s", "--tier", tier]);
    let (exact, tracepoint) = (start("auto", "auto")?, start("tracepoint", "tracepoint")?);
    let mut servers = vec![lab.serve("server", "127.0.0.1:9001", ServerBehaviour::WaitForPeer)?];
    servers.push(lab.serve("leaks", "127.0.0.1:9003", ServerBehaviour::Leak)?);
    servers.push(lab.serve("six", "[::1]:9004", ServerBehaviour::CloseFirst)?);
    let prefork =
        ScriptStep::Prefork { addr: addr("127.0.0.1:9005"), workers: 3, manner: ServerBehaviour::WaitForPeer };
    let mut forked = lab.start("prefork", vec![prefork])?;
    forked.entry(LoggedCall::Listening)?;
    servers.push(forked);
    let to = |port: u16| [addr(&format!("127.0.0.1:{port}"))];
    let log = lab.run(
        "client",
        vec![
            // 64 ports and 80 connects; then no port is free except for sockets that are bound to an address of their
            // own.
            ScriptStep::connect(to(9001), 80, ConnectMethod::Blocking, AfterConnect::Close),
            ScriptStep::connect(to(9003), 6, ConnectMethod::Poll, AfterConnect::Close),
            ScriptStep::connect([addr("[::1]:9004")], 7, ConnectMethod::Blocking, AfterConnect::PeerCloses),
            ScriptStep::connect(to(9005), 12, ConnectMethod::Blocking, AfterConnect::HalfClose),
            ScriptStep::connect(to(9009), 8, ConnectMethod::Blocking, AfterConnect::Close),
            ScriptStep::Fork {
                count: 3,
                at_once: false,
                steps: vec![ScriptStep::connect(to(9003), 2, ConnectMethod::Blocking, AfterConnect::Linger0)],
            },
            ScriptStep::Threads {
                count: 3,
                steps: vec![ScriptStep::connect(to(9001), 2, ConnectMethod::Poll, AfterConnect::Close)],
            },
            ScriptStep::Bind { addr: addr("127.0.0.7:0"), times: 70, reuse_addr: false },
        ],
    )?;
    let (exact, tracepoint) = (exact.finish()?, tracepoint.finish()?);
    let values: [Value; 2] = [serde_json::from_str(&exact)?, serde_json::from_str(&tracepoint)?];
    let reports: [ParsedReport; 2] = [serde_json::from_str(&exact)?, serde_json::from_str(&tracepoint)?];
    eprintln!("tiers {} and {}", values[0]["host"]["tier"], values[1]["host"]["tier"]);
    assert_eq!(values[1]["host"]["tier"], "tracepoint");
    for report in &reports {
        assert_counts(report, netns, &log);
        // Both tiers time the port search, each in its own way. If the thread changes CPUs meanwhile, neither need do
        // so.
        let mut places = report.destinations.iter().filter(|one| one.netns == netns && one.remote_port == 9003);
        let searched = places.next().map(|one| one.port_search_ms.count);
        assert!(searched.is_some_and(|count| (10..=12).contains(&count)), "{searched:?}");
    }
    for (table, keys) in [("attributions", ATTRIBUTION.as_slice()), ("destinations", &DESTINATION)] {
        let [exact, tracepoint] = values.each_ref().map(|report| facts(report, table, netns, keys));
        assert!(!exact.is_empty(), "{table}");
        let differences: Vec<&String> = exact.symmetric_difference(&tracepoint).collect();
        assert!(differences.is_empty(), "{table}: {differences:#?}");
    }
    let [exact, tracepoint] = reports.each_ref().map(|report| lifetimes(report, netns));
    assert_eq!(exact, tracepoint);
    let [exact, tracepoint] = values.each_ref().map(|report| findings(report, netns));
    assert_eq!(exact, tracepoint);
    Ok(())
}

/// Number of TIME_WAITs for the comparison of costs.
const COMPARED: u64 = 200;
/// Bytes of a program's name that the kernel stores.
const NAME: usize = 15;

/// The exact tier uses the minisocket's own functions instead of the timer tracepoints because they run only for
/// minisockets. The test prints the cost of a run without judging it.
#[test]
fn functions_of_minisockets_run_less_often_than_timers() -> Result {
    require!();
    let lab = Lab::new()?;
    let start =
        |name: &str, tier: &str| Tracer::start(lab.dir(), name, &["report", "--json", "--for", "600s", "--tier", tier]);
    let (mut exact, mut tracepoint) = (start("auto", "auto")?, start("tracepoint", "tracepoint")?);
    let _server = lab.serve("server", "127.0.0.1:9001", ServerBehaviour::WaitForPeer)?;
    let _statistics = enable_stats(Stats::RunTime).context("BPF statistics")?;
    lab.run("client", vec![ScriptStep::churn([addr("127.0.0.1:9001")], u32::try_from(COMPARED)?)])?;
    lab.quiet(0)?;
    let mut spent = Vec::new();
    for (tracer, names) in
        [(&mut exact, ["minisocket_start", "minisocket_end"]), (&mut tracepoint, ["time_wait_start", "time_wait_end"])]
    {
        let all = programs(tracer.running().pid())?;
        let held: Vec<_> =
            names.iter().filter_map(|name| Some((*name, *all.get(&name[..name.len().min(NAME)])?))).collect();
        for (name, runs) in &held {
            let each = runs.nanos as f64 / runs.runs.max(1) as f64;
            let per_time_wait = runs.nanos as f64 / COMPARED as f64;
            eprintln!("{name}: {} runs of {each:.0} ns, {per_time_wait:.0} ns per TIME_WAIT", runs.runs);
        }
        spent.push((held.len(), held.iter().map(|(_, runs)| runs.runs).sum::<u64>()));
    }
    let report: Value = serde_json::from_str(&exact.finish()?)?;
    tracepoint.finish()?;
    if report["host"]["tier"] == "exact" {
        assert_eq!([spent[0].0, spent[1].0], [2, 2], "both kinds are attached");
        assert!((COMPARED..=spent[1].1).contains(&spent[0].1), "{spent:?}");
    }
    Ok(())
}

/// The tiers time a port search differently, so its finding need not agree.
fn findings(report: &Value, netns: u32) -> BTreeSet<String> {
    let all = report["findings"].as_array().into_iter().flatten();
    let own = all.filter(|one| one["netns"] == netns && one["id"] != "port-search-slow");
    own.filter_map(|one| Some(one["id"].as_str()?.to_owned())).collect()
}
