//! A `/proc` at some path, and how its files are read within bounds.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::pods::PodNames;
use tracer_core::event::Netns;

/// Most processes of one scan: twice the default `pid_max` of 32768, which only very large hosts exceed.
const MAX_PROCESSES: usize = 65_536;
/// Most bytes that are read of one file of text. The hierarchies of cgroup v1 take far fewer.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// How much of a scan succeeded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Processes looked at.
    pub processes: usize,
    /// Processes that may not be read or have ended.
    pub unreadable: usize,
    /// A bound was reached, and the rest was not looked at.
    pub truncated: bool,
}

/// A `/proc` and a directory of named network namespaces.
#[derive(Clone, Debug)]
pub struct ProcFs {
    pub(super) proc: PathBuf,
    pub(super) run_netns: PathBuf,
    /// Nanoseconds per unit of field 22 of `/proc/PID/stat`.
    pub(super) tick: u64,
    pub(super) pods: PodNames,
}

impl Default for ProcFs {
    fn default() -> Self {
        Self::at("/proc", "/run/netns")
    }
}

impl ProcFs {
    /// At other paths; `run_netns` is where iproute2 names network namespaces.
    pub fn at(proc: impl Into<PathBuf>, run_netns: impl Into<PathBuf>) -> Self {
        let tick = 1_000_000_000 / procfs::ticks_per_second().max(1);
        let proc = proc.into();
        // Of the host, also where this is a container that shares its processes.
        let pods = PodNames::below(vec!["/var/log".into(), proc.join("1/root/var/log")]);
        Self { proc, run_netns: run_netns.into(), tick, pods }
    }

    /// Nanoseconds by which a process's [`start`](tracer_core::event::ProcessFacts::start) from `/proc` may be earlier than the one from
    /// a record: `/proc` counts in ticks. Two starts of one pid within a tick are the same process.
    pub fn start_granularity(&self) -> u64 {
        self.tick
    }

    /// Where `/proc` has the process.
    pub(super) fn dir(&self, pid: u32) -> PathBuf {
        self.proc.join(pid.to_string())
    }

    /// Pids in ascending order, so that scans give the same answer whatever the order of the directory is.
    pub(super) fn pids(&self, coverage: &mut Coverage) -> Vec<u32> {
        let entries = fs::read_dir(&self.proc).into_iter().flatten().flatten();
        let mut pids: Vec<u32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        pids.sort_unstable();
        if pids.len() > MAX_PROCESSES {
            pids.truncate(MAX_PROCESSES);
            coverage.truncated = true;
        }
        coverage.processes = pids.len();
        pids
    }
}

/// A file of text as far as the bound; `None` if it cannot be opened or read.
pub(super) fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(MAX_FILE_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The number in `socket:[4711]` or `net:[4026531840]`.
pub(super) fn bracketed(target: &str, kind: &str) -> Option<u64> {
    target.strip_prefix(kind)?.strip_prefix(":[")?.strip_suffix(']')?.parse().ok()
}

/// `None` for 0 and for what is no inode number of a namespace.
pub(super) fn inode_to_netns(inode: u64) -> Option<Netns> {
    u32::try_from(inode).ok().filter(|&inode| inode != 0).map(Netns::of_inode)
}
