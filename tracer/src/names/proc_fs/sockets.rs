//! Which process has which socket open.
//!
//! A socket may be open in many processes. Its owner here is the process that uses it: a process is preferred to a parent that has the
//! socket open too (the master of a pre-forking server opens sockets and its children use them), otherwise the lowest pid is preferred.
//! So the answer does not depend on the order of the directory.

use std::fs;

use procfs::process::Process;
use rustc_hash::FxHashMap;

use super::root::{Coverage, ProcFs, bracketed};

/// Most sockets that are returned, 16 bytes each. A host has at most a few hundred thousand open.
const MAX_SOCKETS: usize = 524_288;
/// Most descriptors of one scan, about 2 us each, so that a scan takes a few seconds at most.
const MAX_DESCRIPTORS: usize = 2_000_000;

/// Owners by socket inode.
#[derive(Debug, Default)]
pub struct SocketOwners {
    owners: FxHashMap<u64, u32>,
    /// How much of `/proc` could be read.
    pub coverage: Coverage,
}

impl SocketOwners {
    /// The process that uses the socket of this inode number.
    pub fn owner(&self, inode: u64) -> Option<u32> {
        self.owners.get(&inode).copied()
    }

    /// Sockets with a known owner.
    pub fn len(&self) -> usize {
        self.owners.len()
    }

    /// No socket has a known owner.
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
            // Read once, and only of a process that has a socket.
            let parent = *parent.get_or_insert_with(|| parent_of(proc, pid));
            if let Some(owner) = found.owners.get_mut(&inode) {
                // Pids ascend, so the known owner has the lower pid and stays, unless it is this process's parent.
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
