//! Costs under full load: rounds with no tracer, an empty program, the null tracer, portchurn and bpftrace, then ten
//! million transitions with portchurn.
//!
//! Each contender's round has two loads: one for connections/s, CPU and loss, and a shorter one for the time per run,
//! with the kernel's BPF statistics switched on, which have a cost of their own.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use aya::sys::{Stats, enable_stats};
use portchurn_tests::hidden::HiddenTransitions;
use portchurn_tests::load::{Load, TRANSITIONS, namespace};
use portchurn_tests::reported::{ParsedReport, ReportedAttribution};

use crate::contender::Contender;
use crate::figures::Samples;

const ROUNDS: usize = 3;
const CONNECTIONS: u64 = 60_000;
const TIMED_CONNECTIONS: u64 = 30_000;
/// Connections of ten million transitions.
const LONG: u64 = 1_000_000;
/// Pause for the last transitions of a load, which happen just after its last close() has returned.
const SETTLE: std::time::Duration = std::time::Duration::from_millis(200);

pub fn run(null_tracer: &Path, check: bool) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let program = |program| Contender::NullTracer { object: null_tracer.to_path_buf(), program };
    let contenders =
        [Contender::Nothing, program("empty"), program("submit_only"), Contender::Portchurn, Contender::Bpftrace];
    let (rounds, connections, timed, long) =
        if check { (1, 500, 500, 1_000) } else { (ROUNDS, CONNECTIONS, TIMED_CONNECTIONS, LONG) };
    let mut samples = Samples::default();
    if !check {
        // The first load after a pause is slower than all others.
        Load::fast(connections).run(&namespace()?, dir.path())?;
    }
    for round in 0..rounds {
        eprintln!("meter: round {} of {rounds}", round + 1);
        for contender in &contenders {
            one(contender, connections, timed, dir.path(), &mut samples)?;
        }
    }
    zero_loss(long, dir.path(), &mut samples)?;
    samples.print()
}

fn one(contender: &Contender, connections: u64, timed: u64, dir: &Path, samples: &mut Samples) -> Result<()> {
    let name = contender.name();
    let key = |what: &str| format!("kernel.{name}.{what}");
    let attached = contender.attach(dir)?;
    let before = attached.spent()?;
    let ns = namespace()?;
    let flood = Load::fast(connections).run(&ns, dir)?;
    std::thread::sleep(SETTLE);
    let spent = attached.spent()?.since(before);
    samples.add(key("connections_per_second"), flood.per_second());
    samples.add(key("connect_us.p50"), flood.connect_us[0] as f64);
    samples.add(key("connect_us.p99"), flood.connect_us[2] as f64);
    drop(ns);
    if attached.pid().is_none() {
        return Ok(());
    }
    samples.add(key("missed_per_million"), spent.hook.missed as f64 / flood.transitions() * 1e6);
    samples.add(key("cpu_us_per_event"), spent.cpu_nanos as f64 / flood.transitions() / 1e3);
    let lost = time(&attached, timed, dir, &key, samples)?;
    let expected = flood.transitions() + (timed * TRANSITIONS) as f64;
    let (lost_on_the_way, _) = attached.finish(expected)?;
    if name == "bpftrace" {
        // bpftrace does not count the runs that the recursion guard skipped.
        samples.add(key("lost_per_million"), (lost_on_the_way + lost + spent.hook.missed as f64) / expected * 1e6);
    } else if name != "empty" {
        samples.add(key("lost_per_million"), lost_on_the_way / expected * 1e6);
    }
    Ok(())
}

/// Measures the time per run of all programs on the hook, under a load with statistics. Returns the number of missed
/// runs.
fn time(
    attached: &crate::contender::Attached,
    connections: u64,
    dir: &Path,
    key: &impl Fn(&str) -> String,
    samples: &mut Samples,
) -> Result<f64> {
    let _statistics = enable_stats(Stats::RunTime).context("BPF statistics")?;
    let before = attached.spent()?;
    let flood = Load::fast(connections).run(&namespace()?, dir)?;
    std::thread::sleep(SETTLE);
    let spent = attached.spent()?.since(before);
    ensure!(spent.hook.runs > 0, "no program on the hook has run");
    samples.add(key("ns_per_transition"), spent.hook.nanos as f64 / spent.hook.runs as f64);
    if spent.elsewhere.runs > 0 {
        let connections = flood.connections as f64;
        samples.add(key("elsewhere_ns_per_connection"), spent.elsewhere.nanos as f64 / connections);
        samples.add(key("elsewhere_runs_per_connection"), spent.elsewhere.runs as f64 / connections);
    }
    Ok(spent.hook.missed as f64)
}

/// Runs ten million transitions with default settings and compares the report with the load and with the transitions
/// that could be seen.
fn zero_loss(connections: u64, dir: &Path, samples: &mut Samples) -> Result<()> {
    let attached = Contender::Portchurn.attach(dir)?;
    let mut hidden_transitions = HiddenTransitions::start(attached.pid().context("no process")?)?;
    let before = attached.spent()?;
    let ns = namespace()?;
    let flood = Load::fast(connections).run(&ns, dir)?;
    std::thread::sleep(SETTLE);
    let hidden = hidden_transitions.count()?;
    // The counter would keep the program loaded.
    drop(hidden_transitions);
    let spent = attached.spent()?.since(before);
    let (lost, report) = attached.finish(flood.transitions())?;
    let report = report.context("a report")?;
    let mut add = |what: &str, value: f64| samples.add(format!("kernel.long.{what}"), value);
    add("transitions", flood.transitions());
    add("connections_per_second", flood.per_second());
    add("lost", lost);
    add("skipped_by_guard", spent.hook.missed as f64);
    add("hidden", hidden as f64);
    add("other_runs", report.events.lost.other_runs as f64);
    let counted = tallies(&report, ns.inode());
    for (what, count) in
        [("connects", counted[0]), ("established", counted[1]), ("accepted", counted[2]), ("time_wait", counted[3])]
    {
        add(&format!("missing.{what}"), connections as f64 - count as f64);
    }
    add("repaired", report.events.repaired as f64);
    add("evicted", report.events.evicted as f64);
    Ok(())
}

/// Number of connects, established and accepted connections and TIME_WAITs of a namespace.
fn tallies(report: &ParsedReport, netns: u32) -> [u64; 4] {
    let sum = |count: fn(&ReportedAttribution) -> u64| report.attributions(netns).map(count).sum();
    // The load is one workload, and it runs in no other namespace.
    let workloads = report.workloads.iter().filter(|workload| workload.netns.contains(&netns));
    [
        sum(|entry| entry.connects),
        sum(|entry| entry.established),
        workloads.map(|workload| workload.accepted).sum(),
        sum(|entry| entry.time_wait.entered),
    ]
}
