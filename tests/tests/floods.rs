//! Floods: host and tracer stand, loss is counted, sums equal totals, memory and CPU stay below their bounds, and the tracer recovers and
//! ends when asked. `cargo xtask soak` does the same for an hour.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use portchurn_tests::floods::{
    ENDS_WITHIN, Flood, FloodSize, MEMORY_BOUND, cpu_percent, interrupt, recovers, resident, sums,
};
use portchurn_tests::lab::Lab;
use portchurn_tests::require;
use portchurn_tests::tracer::Tracer;

/// The process may use this share of one CPU while everybody else uses all of them.
const CPU_BOUND: f64 = 60.0;

fn withstands(flood: Flood) -> Result<()> {
    let lab = Lab::new()?;
    let report = Tracer::report(lab.dir())?;
    let pid = report.pid();
    let size = FloodSize::SHORT;
    let mut running = flood.start(lab.dir(), size)?;
    let (mut memory, mut cpu) = (0, 0.0_f64);
    // Namespaces are made for as long as it takes, and not longer than this.
    for second in 0..size.seconds * 6 {
        cpu = cpu.max(cpu_percent(pid, Duration::from_secs(1))?);
        memory = memory.max(resident(pid)?);
        // The storm of connects goes on until it is dropped.
        if running.wait(Duration::ZERO)? || flood == Flood::Connects && second >= size.seconds {
            break;
        }
    }
    drop(running);
    let recovered = recovers(pid)?;
    let (ended, text) = interrupt(report)?;
    let report: serde_json::Value = serde_json::from_str(&text).context("a report")?;
    let (destinations, workloads) = sums(&report)?;
    eprintln!(
        "{}: {} MiB, {cpu:.0} % of a CPU, idle after {} s, ended after {} ms, {workloads:?}, {}",
        flood.name(),
        memory >> 20,
        recovered.as_secs(),
        ended.as_millis(),
        report["events"]
    );
    ensure!(destinations == workloads, "sums differ: {destinations:?} {workloads:?}");
    ensure!(memory <= MEMORY_BOUND && cpu <= CPU_BOUND, "{memory} bytes, {cpu} % of a CPU");
    ensure!(ended <= ENDS_WITHIN, "it ended after {ended:?}");
    // Half-open connections are no sockets yet: no transition tells of them.
    let read = report["events"]["read"].as_u64();
    ensure!(flood == Flood::Syns || read.is_some_and(|read| read > 100), "nothing happened: {}", report["events"]);
    Ok(())
}

#[test]
fn a_flood_of_syns() -> Result<()> {
    require!();
    withstands(Flood::Syns)
}

#[test]
fn a_storm_of_connects() -> Result<()> {
    require!();
    withstands(Flood::Connects)
}

#[test]
fn a_storm_of_short_processes() -> Result<()> {
    require!();
    withstands(Flood::Forks)
}

#[test]
fn namespaces_one_after_the_other() -> Result<()> {
    require!();
    withstands(Flood::Namespaces)
}

#[test]
fn namespaces_at_once() -> Result<()> {
    require!();
    withstands(Flood::NamespacesAtOnce)
}

#[test]
fn sockets_that_stay_open() -> Result<()> {
    require!();
    withstands(Flood::Sockets)
}
