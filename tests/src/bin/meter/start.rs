//! Time from exec to the ready line, without and with many TIME_WAITs on the host, and the costs on an idle host.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use portchurn_tests::load::{Load, cpu_nanos, namespace, wake_ups};
use portchurn_tests::tracer::binary;

use crate::contender::Contender;
use crate::figures::Samples;

const ROUNDS: usize = 10;
/// As many TIME_WAITs as one destination can have with the default port range.
const TIME_WAITS: u64 = 28_000;
const IDLE: Duration = Duration::from_secs(30);

pub fn run(check: bool) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (rounds, time_waits, idle) =
        if check { (1, 100, Duration::from_millis(300)) } else { (ROUNDS, TIME_WAITS, IDLE) };
    let mut samples = Samples::default();
    for _ in 0..rounds {
        samples.add("startup.empty_ms", to_ready()?);
    }
    {
        let ns = namespace()?;
        let mut left = rounds;
        while left > 0 {
            Load::fast(time_waits).run(&ns, dir.path())?;
            // TIME_WAITs last a minute.
            let made = Instant::now();
            while left > 0 && made.elapsed() < Duration::from_secs(45) {
                samples.add("startup.full_ms", to_ready()?);
                left -= 1;
            }
        }
    }
    idle_host(idle, dir.path(), &mut samples)?;
    samples.print()
}

/// Milliseconds from the start of the process to its ready line.
fn to_ready() -> Result<f64> {
    let mut command = Command::new(binary()?);
    command.args(["report", "--for", "600s"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let began = Instant::now();
    let mut child = command.spawn().context("starting portchurn")?;
    let mut took = None;
    for line in BufReader::new(child.stderr.take().context("its stderr")?).lines() {
        if line?.starts_with("portchurn: ready") {
            took = Some(began.elapsed().as_secs_f64() * 1e3);
            break;
        }
    }
    child.kill().context("ending portchurn")?;
    child.wait()?;
    took.context("it ended without a ready line")
}

fn idle_host(idle: Duration, dir: &Path, samples: &mut Samples) -> Result<()> {
    let attached = Contender::Portchurn.attach(dir)?;
    let pid = attached.pid().context("no process")?;
    let before = (cpu_nanos(pid)?, wake_ups(pid)?);
    std::thread::sleep(idle);
    let after = (cpu_nanos(pid)?, wake_ups(pid)?);
    ensure!(after.0 >= before.0, "a thread has ended meanwhile");
    samples.add("startup.idle_cpu_percent", (after.0 - before.0) as f64 / idle.as_nanos() as f64 * 100.0);
    samples.add("startup.idle_wake_ups_per_second", (after.1 - before.1) as f64 / idle.as_secs_f64());
    attached.finish(0.0).map(drop)
}
