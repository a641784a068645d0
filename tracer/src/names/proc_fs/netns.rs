//! Which network namespaces exist, and by which path each can be opened.
//!
//! Three places show them: processes (`/proc/*/ns/net`), bind mounts of nsfs (made by container engines and by `ip netns`), and
//! `/run/netns`, where some tools put symbolic links instead of mounts. A namespace that only a socket or a descriptor keeps alive is in
//! none of them; its limits come from the kernel's records.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::statfs::{NSFS_MAGIC, statfs};
use procfs::process::MountInfo;

use super::root::{Coverage, ProcFs, bracketed, inode_to_netns, read};
use tracer_core::event::Netns;
use tracer_core::names::text;

/// Most namespaces that are returned. A node full of Kubernetes pods has hundreds.
const MAX_NAMESPACES: usize = 4_096;
/// Most entries of `/run/netns` that are looked at.
const MAX_NAMED: usize = 4_096;

/// A network namespace and a path to open it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenNetns {
    /// Which namespace it is.
    pub netns: Netns,
    /// The opened file must be compared with `netns` by its inode number, because another namespace may be at the path by then.
    pub path: PathBuf,
    /// Its name under `/run/netns`.
    pub name: Option<Arc<str>>,
}

/// How good a path is, best first. A mount outlives processes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Named,
    Mounted,
    Process,
}

pub(super) fn discover(proc: &ProcFs) -> (Vec<OpenNetns>, Coverage) {
    let mut found: BTreeMap<Netns, (Rank, OpenNetns)> = BTreeMap::new();
    let mut coverage = Coverage::default();
    for pid in proc.pids(&mut coverage) {
        let path = proc.dir(pid).join("ns/net");
        match inode_of_link(&path) {
            Some(netns) => add(&mut found, &mut coverage, Rank::Process, OpenNetns { netns, path, name: None }),
            None => coverage.unreadable += 1,
        }
    }
    for (netns, path) in mounted(proc) {
        let name = (path.parent() == Some(&proc.run_netns)).then(|| file_name(&path)).flatten();
        let rank = if name.is_some() { Rank::Named } else { Rank::Mounted };
        add(&mut found, &mut coverage, rank, OpenNetns { netns, path, name });
    }
    for entry in fs::read_dir(&proc.run_netns).into_iter().flatten().flatten().take(MAX_NAMED) {
        let path = entry.path();
        // Follows symbolic links. An ordinary file is a name whose mount is gone or cannot be seen from here.
        let is_namespace = statfs(&path).is_ok_and(|fs| fs.filesystem_type() == NSFS_MAGIC);
        if let (true, Some(netns)) = (is_namespace, inode_of_file(&path)) {
            let name = file_name(&path);
            add(&mut found, &mut coverage, Rank::Named, OpenNetns { netns, path, name });
        }
    }
    (found.into_values().map(|(_, namespace)| namespace).collect(), coverage)
}

fn add(found: &mut BTreeMap<Netns, (Rank, OpenNetns)>, coverage: &mut Coverage, rank: Rank, namespace: OpenNetns) {
    let room = found.len() < MAX_NAMESPACES;
    match found.get_mut(&namespace.netns) {
        // Of several names the first in alphabetical order, so that the answer is always the same.
        Some((best, known)) if (rank, &namespace.name) < (*best, &known.name) => {
            *best = rank;
            *known = namespace;
        }
        Some(_) => {}
        None if room => {
            found.insert(namespace.netns, (rank, namespace));
        }
        None => coverage.truncated = true,
    }
}

/// Bind mounts of network namespaces that this process sees, by `/proc/self/mountinfo`.
fn mounted(proc: &ProcFs) -> Vec<(Netns, PathBuf)> {
    let bytes = read(&proc.proc.join("self/mountinfo")).unwrap_or_default();
    String::from_utf8_lossy(&bytes)
        .lines()
        // Each line is parsed alone, so that an odd line spoils no other.
        .filter_map(|line| MountInfo::from_line(line).ok())
        .filter(|mount| mount.fs_type == "nsfs")
        .filter_map(|mount| {
            let netns = bracketed(&mount.root, "net").and_then(inode_to_netns)?;
            Some((netns, PathBuf::from(unescape(mount.mount_point.to_str()?))))
        })
        .collect()
}

/// `mangle_path` of `fs/seq_file.c`: blank, tab, newline and backslash are written as three octal digits.
fn unescape(path: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .into_iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(path.to_owned(), |path, (code, plain)| path.replace(code, plain))
}

fn file_name(path: &Path) -> Option<Arc<str>> {
    path.file_name().map(|name| text(name.to_string_lossy().as_bytes()))
}

/// The namespace that a link such as `/proc/1/ns/net` names. Reading the link needs fewer rights than opening the namespace.
pub(super) fn inode_of_link(path: &Path) -> Option<Netns> {
    bracketed(fs::read_link(path).ok()?.to_str()?, "net").and_then(inode_to_netns)
}

fn inode_of_file(path: &Path) -> Option<Netns> {
    use std::os::unix::fs::MetadataExt as _;
    inode_to_netns(fs::metadata(path).ok()?.ino())
}

#[cfg(test)]
mod tests {
    use super::unescape;

    #[test]
    fn mount_points_are_unescaped() {
        assert_eq!(unescape("/run/netns/a\\040b"), "/run/netns/a b");
        assert_eq!(unescape("/run/netns/a\\134040b"), "/run/netns/a\\040b", "an escaped backslash escapes nothing");
    }
}
