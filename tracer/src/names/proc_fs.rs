//! What `/proc` says about processes and sockets that existed before the start, and which network namespaces there are.
//!
//! Everything here is best effort: processes end while they are being read, and without privileges most of `/proc/PID` is unreadable.
//! What could not be read is counted ([`Coverage`]) and makes nothing else fail. The roots of all paths are parameters, so that tests need
//! neither privileges nor a real `/proc`.
//!
//! Not for: processes that start later. The kernel records those in their own context.

pub mod netns;
mod pods;
mod root;
mod sockets;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use procfs::process::Process;
use tracer_common::ARGV_BYTES;

pub use self::netns::OpenNetns;
use self::root::read;
pub use self::root::{Coverage, ProcFs};
pub use self::sockets::SocketOwners;
use tracer_core::event::{CgroupId, Ktime, ProcessFacts};
use tracer_core::names::{cgroup, cmdline, text};

/// Hierarchies of cgroup v1 by preference: container runtimes always use the first two, the third is systemd's own.
const V1_PREFERRED: [&str; 3] = ["memory", "pids", "name=systemd"];

impl ProcFs {
    /// The executable of the process `pid` that began at `start` (nanoseconds since boot; 0 = any process with this pid). `None` if the
    /// process has ended, if its pid belongs to another process by now, or if it may not be read.
    pub fn exe_of(&self, pid: u32, start: u64) -> Option<Arc<str>> {
        let dir = self.dir(pid);
        let exe = exe(&dir)?;
        // After the executable is read, so that a process that took the pid meanwhile is noticed by its start.
        if start != 0 {
            let found = Process::new_with_root(dir).ok()?.stat().ok()?.starttime.saturating_mul(self.tick);
            if start.checked_sub(found)? >= self.tick {
                return None;
            }
        }
        Some(exe)
    }

    /// Facts about a process as it is at `now`; `None` if there is no such process. What may not be read is unknown in them.
    pub fn facts_of(&self, pid: u32, now: Ktime) -> Option<ProcessFacts> {
        let dir = self.dir(pid);
        let process = Process::new_with_root(dir.clone()).ok()?;
        let stat = process.stat().ok()?;
        let parent_pid = u32::try_from(stat.ppid).unwrap_or(0);
        let parent = Process::new_with_root(self.dir(parent_pid)).and_then(|parent| parent.stat());
        let cmdline = read(&dir.join("cmdline")).and_then(|bytes| cmdline::from_proc(&bytes, ARGV_BYTES));
        let place = place(&dir);
        Some(ProcessFacts {
            ktime: now,
            pid,
            start: stat.starttime.saturating_mul(self.tick),
            exec_id: 0,
            ppid: parent_pid,
            uid: process.status().map(|status| status.ruid).or_else(|_| process.uid()).unwrap_or(0),
            netns: netns::inode_of_link(&dir.join("ns/net")).unwrap_or_default(),
            // The id is the inode number of a directory that may not be mounted here. The path tells the same.
            cgroup: CgroupId::default(),
            comm: text(stat.comm.as_bytes()),
            parent_comm: parent.map_or_else(|_| Arc::default(), |parent| text(parent.comm.as_bytes())),
            pool: cmdline.as_deref().and_then(cmdline::pool),
            cmdline,
            exe: exe(&dir),
            cgroup_path: place.path,
            unit: place.unit,
            pod: place.pod.map(|uid| self.pod_name(place.container.as_deref(), &uid)),
            container: place.container,
        })
    }

    /// What this host's log links say about a container of the pod with this UID: `namespace/pod/container`, `namespace/pod` of a
    /// sandbox, else the UID.
    pub fn pod_name(&self, container: Option<&str>, uid: &Arc<str>) -> Arc<str> {
        self.pods.name(container, uid)
    }

    /// Which process has which socket open, by one scan of `/proc/*/fd`.
    pub fn socket_owners(&self) -> SocketOwners {
        sockets::scan(self)
    }

    /// Every network namespace that `/proc`, mounts and `/run/netns` show, with a path to open it.
    pub fn network_namespaces(&self) -> (Vec<OpenNetns>, Coverage) {
        netns::discover(self)
    }
}

/// The cgroup of a process: that of v2, unless it is the root there and not the root of a v1 hierarchy. Records are read by the same rule.
fn place(dir: &Path) -> cgroup::CgroupNames {
    let bytes = read(&dir.join("cgroup")).unwrap_or_default();
    let contents = String::from_utf8_lossy(&bytes);
    let mut v2 = None;
    let mut v1 = None;
    for line in contents.lines() {
        // hierarchy:controllers:path, where the path may contain colons.
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        if path == "/" {
            continue;
        }
        if controllers.is_empty() {
            v2 = Some(path);
            continue;
        }
        let rank = V1_PREFERRED
            .iter()
            .position(|preferred| controllers.split(',').any(|name| name == *preferred))
            .unwrap_or(V1_PREFERRED.len());
        if v1.is_none_or(|(best, _)| rank < best) {
            v1 = Some((rank, path));
        }
    }
    v2.or(v1.map(|(_, path)| path)).map(cgroup::from_path).unwrap_or_default()
}

fn exe(dir: &Path) -> Option<Arc<str>> {
    let target = fs::read_link(dir.join("exe")).ok()?;
    let path = target.to_string_lossy();
    // The file of a running program is deleted when its package is upgraded. The program is still the same.
    Some(text(path.strip_suffix(" (deleted)").unwrap_or(&path).as_bytes()))
}

#[cfg(test)]
pub(super) mod tests;
