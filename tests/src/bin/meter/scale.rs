//! Costs by load: from slow to as fast as possible, on one CPU and on all, with portchurn's CPU time and losses at each
//! step.

use anyhow::{Context, Result};
use aya::sys::{Stats, enable_stats};
use portchurn_tests::load::{Load, namespace};

use crate::contender::Contender;
use crate::figures::print_figure;

const RATES: [Option<u64>; 7] = [Some(100), Some(300), Some(1_000), Some(3_000), Some(6_000), Some(10_000), None];
/// Duration of each step with a rate; the last step is a number of connections.
const SECONDS: u64 = 5;
const FAST: u64 = 80_000;

pub fn run(check: bool) -> Result<()> {
    let dir = tempfile::tempdir()?;
    for cpu in [Some(0), None] {
        for rate in if check { &RATES[..1] } else { &RATES[..] } {
            let connections = if check { 50 } else { rate.map_or(FAST, |rate| rate * SECONDS) };
            let attached = Contender::Portchurn.attach(dir.path())?;
            let pid = attached.pid().context("no process")?;
            if let Some(cpu) = cpu {
                pin(pid, cpu)?;
            }
            let statistics = enable_stats(Stats::RunTime).context("BPF statistics")?;
            let before = attached.spent()?;
            let flood = Load { connections, rate: *rate, cpu }.run(&namespace()?, dir.path())?;
            let spent = attached.spent()?.since(before);
            drop(statistics);
            let (lost, _) = attached.finish(flood.transitions())?;
            let nanos = flood.seconds * 1e9;
            let bpf = (spent.hook.nanos + spent.elsewhere.nanos) as f64 / nanos * 100.0;
            let point = [
                flood.transitions() / flood.seconds,
                spent.cpu_nanos as f64 / nanos * 100.0,
                bpf,
                lost,
                flood.connect_us[0] as f64,
                flood.connect_us[2] as f64,
            ];
            eprintln!("meter: scale: {rate:?} connections/s on {cpu:?}: {point:.1?}");
            // Transitions/s; CPU of the process and of the programs, percent of one; lost; connect() microseconds,
            // median and p99.
            print_figure(if cpu.is_some() { "scale.one_cpu" } else { "scale.all_cpus" }, &point)?;
        }
    }
    Ok(())
}

/// Pins all threads of a process to one CPU.
fn pin(pid: u32, cpu: usize) -> Result<()> {
    let mut command = std::process::Command::new("taskset");
    command.args(["--all-tasks", "--cpu-list", "--pid", &cpu.to_string(), &pid.to_string()]);
    portchurn_tests::process::output(&mut command).map(drop)
}
