//! Which process has which socket open.
//!
//! A socket may be open in many processes. Its owner here is the one that works with it: a process whose parent also has the
//! socket is preferred to that parent (a pre-forking server's master opens the sockets, its children use them); among equals
//! the lowest pid. So the answer does not depend on the order in which the directory is read.

use std::fs;

use procfs::process::Process;
use rustc_hash::FxHashMap;

use super::root::{Coverage, ProcFs, bracketed};

/// Sockets remembered: at 16 bytes each 8 MB; a host has at most a few hundred thousand open.
const MAX_SOCKETS: usize = 524_288;
/// Descriptors looked at in one scan, about 2 us each: bounds the scan to a few seconds.
const MAX_DESCRIPTORS: usize = 2_000_000;

/// Owners by socket inode.
#[derive(Debug, Default)]
pub struct SocketOwners {
    owners: FxHashMap<u64, u32>,
    pub coverage: Coverage,
}

impl SocketOwners {
    /// The process that works with the socket of this inode.
    pub fn owner(&self, inode: u64) -> Option<u32> {
        self.owners.get(&inode).copied()
    }

    pub fn len(&self) -> usize {
        self.owners.len()
    }

    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }
}

pub(super) fn scan(proc: &ProcFs) -> SocketOwners {
    scan_bounded(proc, MAX_SOCKETS, MAX_DESCRIPTORS)
}

pub(super) fn scan_bounded(proc: &ProcFs, max_sockets: usize, max_descriptors: usize) -> SocketOwners {
    let mut found = SocketOwners::default();
    let mut descriptors = 0;
    for pid in proc.pids(&mut found.coverage) {
        let Ok(entries) = fs::read_dir(proc.dir(pid).join("fd")) else {
            found.coverage.unreadable += 1;
            continue;
        };
        let mut parent = None;
        for entry in entries.flatten() {
            descriptors += 1;
            if descriptors > max_descriptors {
                found.coverage.truncated = true;
                return found;
            }
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            let Some(inode) = target.to_str().and_then(|target| bracketed(target, "socket")) else { continue };
            // One more file per process, and only if it has a socket.
            let parent = *parent.get_or_insert_with(|| parent_of(proc, pid));
            if let Some(owner) = found.owners.get_mut(&inode) {
                // Ascending pids: the one there is lower, unless it is the parent of this one it stays.
                if *owner == parent {
                    *owner = pid;
                }
            } else if found.owners.len() < max_sockets {
                found.owners.insert(inode, pid);
            } else {
                found.coverage.truncated = true;
            }
        }
    }
    found
}

fn parent_of(proc: &ProcFs, pid: u32) -> u32 {
    let stat = Process::new_with_root(proc.dir(pid)).and_then(|process| process.stat());
    stat.ok().and_then(|stat| u32::try_from(stat.ppid).ok()).unwrap_or(0)
}
