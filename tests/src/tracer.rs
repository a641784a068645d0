//! The binary under test: started, awaited by its ready line, ended by a signal, its output parsed.
//!
//! Only the published contract is read: `portchurn.report/1` and the JSON lines of `stream`. Unknown fields are
//! ignored, as the contract allows new ones; missing ones fail.

use std::collections::BTreeMap;
use std::env;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e_protocol::HIDDEN_BY_KERNEL;
use nix::sys::signal::Signal;
use serde::Deserialize;

use crate::blind::Watch;
use crate::process::{Running, until};

/// Loading and attaching takes a fraction of a second, under QEMU emulation much longer.
const READY: Duration = Duration::from_secs(60);
/// From the signal to the last byte of a report.
const END: Duration = Duration::from_secs(60);

/// `PORTCHURN_BIN`, else the newest build of this workspace.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("PORTCHURN_BIN").map(PathBuf::from) {
        ensure!(path.is_file(), "PORTCHURN_BIN={} (no such file)", path.display());
        return Ok(path);
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace")?.join("target");
    let built = |profile: &str| Some(target.join(profile).join("portchurn")).filter(|path| path.is_file());
    let age = |path: &PathBuf| path.metadata().and_then(|data| data.modified()).ok();
    [built("release"), built("debug")]
        .into_iter()
        .flatten()
        .max_by_key(age)
        .context("portchurn (build it with `cargo build -p tracer`, or name it in PORTCHURN_BIN)")
}

/// A running `portchurn`.
#[derive(Debug)]
pub struct Tracer {
    running: Running,
    watch: Option<Watch>,
}

impl Tracer {
    /// Starts `portchurn` with `arguments` and waits until it is attached.
    pub fn start(dir: &Path, name: &str, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary()?);
        command.args(arguments);
        Self::start_command(command, dir, name)
    }

    /// The same for a command that ends up in `portchurn`, e.g. through setpriv.
    pub fn start_command(command: Command, dir: &Path, name: &str) -> Result<Self> {
        let mut running = Running::start(command, dir, name)?;
        until("the line `portchurn: ready`", READY, || {
            if running.stderr().lines().any(|line| line.starts_with("portchurn: ready")) {
                return Ok(Some(()));
            }
            if let Some(status) = running.ended()? {
                bail!("ended before it was ready: {status}: {}", running.stderr());
            }
            Ok(None)
        })
        .with_context(|| format!("stderr so far: {}", running.stderr()))?;
        // Where perf or the program cannot be had, a failed test stays failed.
        let watch = Watch::start(running.pid()).ok();
        Ok(Self { running, watch })
    }

    pub fn report(dir: &Path) -> Result<Self> {
        Self::start(dir, "report", &["report", "--json", "--for", "600s"])
    }

    /// A workload per process, so that those of other namespaces - other tests - stay out of the sums.
    pub fn report_by_pid(dir: &Path) -> Result<Self> {
        Self::start(dir, "report", &["report", "--json", "--for", "600s", "--by", "pid"])
    }

    pub fn stream(dir: &Path, what: &str) -> Result<Self> {
        Self::start(dir, "stream", &["stream", "--json", "--what", what, "--for", "600s"])
    }

    /// Whoever ends it himself gets it unwatched: a watched program stays loaded.
    pub fn running(&mut self) -> &mut Running {
        self.tell_hidden();
        &mut self.running
    }

    /// Ends it with SIGTERM and returns what it wrote to stdout.
    pub fn finish(mut self) -> Result<String> {
        self.tell_hidden();
        self.running.signal(Signal::SIGTERM)?;
        let status = self.running.wait(END)?;
        ensure!(status.success(), "{status} after SIGTERM: {}", self.running.stderr());
        Ok(self.running.stdout())
    }

    /// Says on the test's own output what no tracer could have seen.
    fn tell_hidden(&mut self) {
        match self.watch.take().map(|mut watch| watch.hidden()) {
            Some(Ok(hidden)) if hidden > 0 => eprintln!("{HIDDEN_BY_KERNEL}: {hidden} transitions"),
            Some(Err(error)) => eprintln!("hidden transitions unknown: {error:#}"),
            _ => {}
        }
    }

    pub fn finish_report(self) -> Result<Report> {
        let text = self.finish()?;
        serde_json::from_str(&text).with_context(|| format!("a report: {text:.400}"))
    }

    pub fn finish_stream(self) -> Result<Vec<Line>> {
        lines(&self.finish()?)
    }

    /// The lines of a stream so far; a line that is still being written is left out.
    pub fn lines(&self) -> Result<Vec<Line>> {
        let text = self.running.stdout();
        lines(text.rfind('\n').map_or("", |end| &text[..end]))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.tell_hidden();
    }
}

fn lines(text: &str) -> Result<Vec<Line>> {
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("a line of the stream: {line:?}")))
        .collect()
}

/// Failures by their name.
pub type Failed = BTreeMap<String, u64>;

#[derive(Clone, Debug, Deserialize)]
pub struct Report {
    pub schema: String,
    pub events: Events,
    pub workloads: Vec<Workload>,
    pub destinations: Vec<Destination>,
    pub attributions: Vec<Attribution>,
    pub findings: Vec<Finding>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Finding {
    pub id: String,
    pub summary: String,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Events {
    pub read: u64,
    pub lost: Lost,
    pub skipped: u64,
    pub evicted: u64,
    pub repaired: u64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct Lost {
    pub ring_full: u64,
    pub missed_runs: u64,
    pub other_runs: u64,
    pub recorder: u64,
}

impl Lost {
    /// Without `other_runs`, an upper bound: nearly every timer is none of TCP's, and a record really lost shows in the
    /// counts.
    pub fn total(&self) -> u64 {
        self.ring_full + self.missed_runs + self.recorder
    }
}

#[derive(Clone, Debug, Deserialize)]
pub struct Workload {
    pub name: String,
    pub comm: Option<String>,
    pub netns: Vec<u32>,
    pub pids: Vec<Process>,
    pub connects: u64,
    pub established: u64,
    pub failed: Failed,
    pub accepted: u64,
    pub time_wait: TimeWait,
    pub close_wait: CloseWait,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Process {
    /// `None` = nobody known.
    pub pid: Option<u32>,
    pub cmdline: Option<String>,
    pub connects: u64,
    pub failed: Failed,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Destination {
    pub netns: u32,
    pub local_addr: IpAddr,
    pub remote_addr: IpAddr,
    pub remote_port: u16,
    pub ports: Ports,
    pub connects: u64,
    pub established: u64,
    pub failed: Failed,
    pub port_search_ms: Durations,
    pub port_search_recent_ms: Option<f64>,
    pub port_search_quickest_ms: Option<f64>,
    pub holders: Vec<Holder>,
    pub victims: Vec<Victim>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Ports {
    pub range: Option<(u16, u16)>,
    pub capacity: Option<u32>,
    pub in_use: u32,
    pub peak: u32,
    pub by_state: BTreeMap<String, u32>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Holder {
    pub workload: String,
    pub ports: u32,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Victim {
    pub workload: String,
    pub failed: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Attribution {
    pub workload: String,
    /// `None` = nobody known.
    pub pid: Option<u32>,
    pub comm: String,
    pub netns: u32,
    pub local_addr: IpAddr,
    pub remote_addr: IpAddr,
    pub remote_port: u16,
    pub connects: u64,
    pub established: u64,
    pub failed: Failed,
    pub active_closes: u64,
    pub time_wait: TimeWait,
    pub close_wait: CloseWait,
    pub lifetime_ms: Durations,
}

#[derive(Clone, Debug, Deserialize)]
pub struct TimeWait {
    pub entered: u64,
    pub now: u64,
    pub peak: u64,
    pub reused: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub struct CloseWait {
    pub now: u64,
    pub peak: u64,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Durations {
    pub count: u64,
    pub min: Option<f64>,
    pub mean: Option<f64>,
    pub max: Option<f64>,
}

impl Report {
    /// The ground on which exact comparisons stand.
    ///
    /// # Panics
    ///
    /// Unless the tracer saw everything.
    pub fn assert_complete(&self) {
        assert_eq!(self.schema, "portchurn.report/1");
        assert_eq!(self.events.lost.total(), 0, "{:?}", self.events.lost);
        assert_eq!((self.events.skipped, self.events.evicted), (0, 0), "skipped, evicted");
    }

    /// Who did what in this namespace; passive sides, which have no connects, included.
    pub fn attributions(&self, netns: u32) -> impl Iterator<Item = &Attribution> {
        self.attributions.iter().filter(move |entry| entry.netns == netns)
    }

    /// Occupancy towards one destination by state, zeros left out.
    pub fn occupancy(&self, netns: u32, remote: SocketAddr) -> BTreeMap<String, u32> {
        let mut states = BTreeMap::new();
        for entry in self.destinations.iter().filter(|entry| {
            entry.netns == netns && entry.remote_addr == remote.ip() && entry.remote_port == remote.port()
        }) {
            for (state, count) in entry.ports.by_state.iter().filter(|(_, count)| **count > 0) {
                *states.entry(state.clone()).or_default() += count;
            }
        }
        states
    }
}

/// One line of `stream --json`. The fields that only some types have are optional.
#[derive(Clone, Debug, Deserialize)]
pub struct Line {
    #[serde(rename = "type")]
    pub kind: String,
    pub ktime_ns: Option<u64>,
    pub netns: Option<u32>,
    pub local_addr: Option<IpAddr>,
    pub local_port: Option<u16>,
    pub remote_addr: Option<IpAddr>,
    pub remote_port: Option<u16>,
    pub pid: Option<u32>,
    pub comm: Option<String>,
    pub workload: Option<String>,
    pub reason: Option<String>,
    pub tid: Option<u32>,
    pub opened: Option<String>,
    pub ended: Option<String>,
    pub lifetime_ms: Option<f64>,
    pub connect_ms: Option<f64>,
    pub time_wait: Option<bool>,
    pub repaired: Option<bool>,
    pub old: Option<String>,
    pub new: Option<String>,
    pub ring_full: Option<u64>,
    pub missed_runs: Option<u64>,
}

impl Line {
    pub fn local(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.local_addr?, self.local_port?))
    }

    pub fn remote(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.remote_addr?, self.remote_port?))
    }
}
