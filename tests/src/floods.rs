//! What a crowded or a hostile host does to a tracer, and what must hold all the same.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::load::{cpu_nanos, namespace, sibling};
use crate::netns::TestNamespace;
use crate::process::{Running, until};
use crate::tracer::Tracer;

/// Most memory of a tracer: a million flows, a million minisockets and full tables, with the ring buffer and what waits behind it.
pub const MEMORY_BOUND: u64 = 1 << 30;
/// After a flood the tracer is idle again within this time.
pub const RECOVERS_WITHIN: Duration = Duration::from_secs(10);
/// What counts as idle: this share of one CPU, in percent. Forgetting what ended goes on for a minute.
pub const IDLE_PERCENT: f64 = 10.0;
/// From Ctrl-C to the end.
pub const ENDS_WITHIN: Duration = Duration::from_secs(2);
/// Sockets that one process may open here: both ends of a connection are in it.
const SOCKETS_PER_PROCESS: u64 = 18_000;
/// Limit of a tracer's end, far beyond what is asserted.
const LIMIT: Duration = Duration::from_secs(60);

/// A kind of flood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    /// SYN segments with made-up sources, as fast as one CPU makes them.
    Syns,
    /// 30,000 connections a second.
    Connects,
    /// Processes that connect once, each with a name of its own.
    Forks,
    /// Network namespaces one after the other.
    Namespaces,
    /// Network namespaces at once.
    NamespacesAtOnce,
    /// A peer that opens sockets and keeps them.
    Sockets,
}

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct FloodSize {
    pub seconds: u64,
    pub namespaces: u64,
    pub namespaces_at_once: u64,
    pub sockets: u64,
}

impl FloodSize {
    /// Seconds each, for a test.
    pub const SHORT: Self = Self { seconds: 5, namespaces: 200, namespaces_at_once: 100, sockets: 18_000 };
    /// What a soak does in each of its turns.
    pub const LONG: Self = Self { seconds: 60, namespaces: 10_000, namespaces_at_once: 2_000, sockets: 200_000 };
}

/// A flood that goes on until it is dropped.
#[derive(Debug)]
pub struct RunningFlood {
    parts: Vec<Running>,
    _ns: TestNamespace,
}

impl Flood {
    pub const ALL: [Self; 6] =
        [Self::Syns, Self::Connects, Self::Forks, Self::Namespaces, Self::NamespacesAtOnce, Self::Sockets];

    pub fn name(self) -> &'static str {
        match self {
            Self::Syns => "SYN flood",
            Self::Connects => "connect storm",
            Self::Forks => "fork and connect storm",
            Self::Namespaces => "namespaces one after the other",
            Self::NamespacesAtOnce => "namespaces at once",
            Self::Sockets => "sockets that stay open",
        }
    }

    /// Starts it in a namespace of its own.
    pub fn start(self, dir: &Path, size: FloodSize) -> Result<RunningFlood> {
        let ns = namespace()?;
        let number = |value: u64| value.to_string();
        let arguments: Vec<Vec<String>> = match self {
            Self::Syns => vec![vec!["--kind".into(), "syns".into()]],
            // More than last: it is dropped in the end.
            Self::Connects => vec![
                ["--connections", "1000000000", "--rate", "30000", "--destinations", "4000"].map(String::from).to_vec(),
            ],
            Self::Forks => vec![vec!["--kind".into(), "forks".into()]],
            Self::Namespaces => {
                vec![vec!["--kind".into(), "namespaces".into(), "--connections".into(), number(size.namespaces)]]
            }
            Self::NamespacesAtOnce => vec![vec![
                "--kind".into(),
                "namespaces-at-once".into(),
                "--connections".into(),
                number(size.namespaces_at_once),
            ]],
            Self::Sockets => (0..(size.sockets / SOCKETS_PER_PROCESS).max(1))
                .map(|_| {
                    let connections = number(size.sockets.min(SOCKETS_PER_PROCESS) / 2);
                    vec!["--kind".into(), "hold".into(), "--connections".into(), connections]
                })
                .collect(),
        };
        let mut parts = Vec::new();
        for (index, arguments) in arguments.into_iter().enumerate() {
            // Each holder of sockets has a namespace of its own behind the same listener port, made by unshare(1).
            let mut command = ns.command(sibling("flood")?);
            command.args(arguments).args(["--seconds", &number(size.seconds)]);
            parts.push(Running::start(command, dir, &format!("flood{index}"))?);
        }
        Ok(RunningFlood { parts, _ns: ns })
    }
}

impl RunningFlood {
    /// Waits at most for `limit`; fails if a part has failed. True if all have ended.
    pub fn wait(&mut self, limit: Duration) -> Result<bool> {
        let deadline = Instant::now() + limit;
        loop {
            let mut running = false;
            for part in &mut self.parts {
                match part.ended()? {
                    Some(status) => ensure!(status.success(), "the flood itself: {status}: {}", part.stderr()),
                    None => running = true,
                }
            }
            if !running || Instant::now() >= deadline {
                return Ok(!running);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Memory of a process in bytes.
pub fn resident(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).context("the process")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>().context("VmRSS")? * 1024)
}

/// Share of one CPU that a process uses in the next `time`, in percent.
pub fn cpu_percent(pid: u32, time: Duration) -> Result<f64> {
    let (before, began) = (cpu_nanos(pid)?, Instant::now());
    std::thread::sleep(time);
    Ok(cpu_nanos(pid)?.saturating_sub(before) as f64 / began.elapsed().as_nanos() as f64 * 100.0)
}

/// Waits until the process is idle, and returns how long that took. An error: it is not within the limit.
pub fn recovers(pid: u32) -> Result<Duration> {
    let began = Instant::now();
    let mut percent = 0.0;
    until("an idle tracer", RECOVERS_WITHIN, || {
        percent = cpu_percent(pid, Duration::from_secs(1))?;
        Ok((percent <= IDLE_PERCENT).then_some(()))
    })
    .with_context(|| format!("{percent:.1} % of a CPU"))?;
    Ok(began.elapsed())
}

/// Ends a tracer by Ctrl-C. Returns how long that took, and what it printed.
pub fn interrupt(mut tracer: Tracer) -> Result<(Duration, String)> {
    let began = Instant::now();
    tracer.running().signal(Signal::SIGINT)?;
    let status = tracer.running().wait(LIMIT)?;
    let took = began.elapsed();
    ensure!(status.success(), "{status} after Ctrl-C: {}", tracer.stderr());
    Ok((took, tracer.running().stdout()))
}

/// What a report counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportSums {
    pub connects: u64,
    pub established: u64,
    pub failed: u64,
}

/// The sums over the rows of destinations and of workloads, which are the same total.
pub fn sums(report: &Value) -> Result<(ReportSums, ReportSums)> {
    let number = |row: &Value, field: &str| row[field].as_u64().with_context(|| format!("{field} of {row}"));
    let add = |rows: &Value, sums: &mut ReportSums| -> Result<()> {
        for row in rows.as_array().into_iter().flatten() {
            sums.connects += number(row, "connects")?;
            sums.established += number(row, "established")?;
            sums.failed +=
                row["failed"].as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum::<u64>();
        }
        Ok(())
    };
    let (mut destinations, mut workloads) = (ReportSums::default(), ReportSums::default());
    add(&report["destinations"], &mut destinations)?;
    add(&report["others"]["destinations"], &mut destinations)?;
    add(&report["workloads"], &mut workloads)?;
    Ok((destinations, workloads))
}
