//! The load of the benches in a namespace of its own, and the costs of programs and processes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use aya::programs::loaded_programs;
use serde::{Deserialize, Serialize};

use crate::netns::TestNamespace;
use crate::process::Running;

/// State transitions of one connection of the load, both ends together.
pub const TRANSITIONS: u64 = 10;
/// Limit of one load on the slowest machine.
const LIMIT: Duration = Duration::from_secs(1800);

/// The output of `flood`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FloodResult {
    pub connections: u64,
    pub seconds: f64,
    /// Time of connect() in microseconds: percentiles 50, 90, 99 and 99.9, and the maximum.
    pub connect_us: [u64; 5],
}

impl FloodResult {
    pub fn per_second(&self) -> f64 {
        self.connections as f64 / self.seconds
    }

    pub fn transitions(&self) -> f64 {
        (self.connections * TRANSITIONS) as f64
    }
}

/// The parameters of a load.
#[derive(Clone, Debug)]
pub struct Load {
    pub connections: u64,
    pub rate: Option<u64>,
    /// The only CPU to run on; `None` = all.
    pub cpu: Option<usize>,
}

/// A namespace for one load. Its end removes all its TIME_WAITs, so that every load starts with none.
pub fn namespace() -> Result<TestNamespace> {
    let ns = TestNamespace::new()?;
    // Every connection leaves a TIME_WAIT: none is refused for lack of room, and none is re-used.
    ns.sysctl(&[
        ("ipv4/tcp_max_tw_buckets", "4000000"),
        ("ipv4/tcp_tw_reuse", "0"),
        ("ipv4/ip_local_port_range", "10240 65535"),
        ("core/somaxconn", "4096"),
    ])?;
    Ok(ns)
}

impl Load {
    pub fn fast(connections: u64) -> Self {
        Self { connections, rate: None, cpu: None }
    }

    /// Runs the load to its end.
    pub fn run(&self, ns: &TestNamespace, dir: &Path) -> Result<FloodResult> {
        let mut command = match self.cpu {
            Some(cpu) => {
                let mut command = ns.command("taskset");
                command.args(["--cpu-list", &cpu.to_string()]).arg(sibling("flood")?);
                command
            }
            None => ns.command(sibling("flood")?),
        };
        command.args(["--connections", &self.connections.to_string()]);
        // So many destinations that each has at most a tenth of its ports in use.
        command.args(["--destinations", &(self.connections / 5_000).clamp(16, 4_000).to_string()]);
        if let Some(rate) = self.rate {
            command.args(["--rate", &rate.to_string()]);
        }
        let mut running = Running::start(command, dir, "flood")?;
        running.succeed(LIMIT)?;
        serde_json::from_str(&running.stdout()).context("what flood said")
    }
}

/// Path of a program of this package, in the directory of the running one.
pub fn sibling(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("our own path")?;
    let found = own.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} (build it with `cargo build --release -p portchurn-tests`)"))
}

/// The kernel's statistics of a BPF program.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProgramRuns {
    /// Counted only while statistics are switched on.
    pub runs: u64,
    pub nanos: u64,
    /// Calls that the recursion guard skipped; always counted.
    pub missed: u64,
}

/// The BPF programs whose descriptors a process holds, by name.
pub fn programs(pid: u32) -> Result<BTreeMap<String, ProgramRuns>> {
    let mut held: BTreeMap<u32, ProgramRuns> = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor that was closed meanwhile is not of a program.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse::<u64>().ok())
        };
        if let Some(id) = field("prog_id") {
            let number = |name| field(name).unwrap_or_default();
            let runs = ProgramRuns {
                runs: number("run_cnt"),
                nanos: number("run_time_ns"),
                missed: number("recursion_misses"),
            };
            // The descriptor of a link names its program too, but without the counters.
            let known = held.entry(u32::try_from(id)?).or_default();
            if runs.runs >= known.runs && text.contains("run_cnt") {
                *known = runs;
            }
        }
    }
    let names = loaded_programs()
        .filter_map(Result::ok)
        .filter_map(|info| Some((info.name_as_str()?.to_owned(), *held.get(&info.id())?)));
    Ok(names.collect())
}

/// CPU time in nanoseconds, user and system, of all threads that a process has now.
pub fn cpu_nanos(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        sum += text.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(sum)
}

/// User CPU time of a process in nanoseconds, with its ended threads, in steps of the kernel's tick of ten
/// milliseconds.
pub fn user_nanos(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, which may hold anything, ends with the last bracket.
    let fields = text.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = fields.split_whitespace().nth(11).context("utime")?.parse().context("utime")?;
    let each = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("CLK_TCK")?;
    Ok(ticks * 1_000_000_000 / u64::try_from(each)?)
}

/// Times that the threads of a process have gone to sleep, which is how often they were woken.
pub fn wake_ups(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("status")).unwrap_or_default();
        let count =
            text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse::<u64>().ok());
        sum += count.unwrap_or(0);
    }
    Ok(sum)
}
