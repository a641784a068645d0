//! A made `/proc` in a temporary directory, and the real one where that needs no privilege.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use tempfile::TempDir;

use super::root::bracketed;
use super::sockets::scan_bounded;
use super::*;
use tracer_core::event::Netns;

struct Fake {
    root: TempDir,
}

impl Fake {
    fn new() -> Self {
        let root = tempfile::tempdir().expect("temporary directory");
        fs::create_dir_all(root.path().join("proc")).expect("temporary directory");
        fs::create_dir_all(root.path().join("netns")).expect("temporary directory");
        Self { root }
    }

    fn fs(&self) -> ProcFs {
        ProcFs::at(self.root.path().join("proc"), self.root.path().join("netns"))
    }

    fn write(&self, path: &str, contents: impl AsRef<[u8]>) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("directory");
        fs::write(path, contents).expect("file");
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("directory");
        symlink(target, path).expect("link");
    }

    /// A process with the sockets `inodes`.
    fn process(&self, pid: u32, parent: u32, comm: &str, starttime: u64, inodes: &[u64]) {
        let zeros = "0 ".repeat(17);
        let tail = "0 ".repeat(30);
        self.write(
            &format!("proc/{pid}/stat"),
            format!("{pid} ({comm}) S {parent} {zeros}{starttime} {}\n", tail.trim()),
        );
        fs::create_dir_all(self.root.path().join(format!("proc/{pid}/fd"))).expect("directory");
        self.link(&format!("proc/{pid}/fd/0"), "/dev/null");
        for (fd, inode) in (3..).zip(inodes) {
            self.link(&format!("proc/{pid}/fd/{fd}"), &format!("socket:[{inode}]"));
        }
    }
}

#[test]
fn a_socket_belongs_to_the_child_else_to_the_lowest_pid() {
    let fake = Fake::new();
    fake.process(10, 1, "master", 1, &[100, 200, 300]);
    fake.process(11, 10, "worker", 1, &[100]);
    fake.process(12, 10, "worker", 1, &[100, 200]);
    fake.process(20, 1, "other", 1, &[300]);
    // Pids wrapped around: the child has the lower one.
    fake.process(50, 60, "child", 1, &[400]);
    fake.process(60, 1, "parent", 1, &[400]);
    let owners = fake.fs().socket_owners();
    assert_eq!(owners.owner(100), Some(11), "children before their parent, the lowest of them");
    assert_eq!(owners.owner(200), Some(12));
    assert_eq!(owners.owner(300), Some(10), "unrelated: lowest pid");
    assert_eq!(owners.owner(400), Some(50));
    assert_eq!(owners.owner(999), None);
    assert_eq!((owners.len(), owners.is_empty()), (4, false));
    assert_eq!(owners.coverage, Coverage { processes: 6, unreadable: 0, truncated: false });
}

#[test]
fn bounds_are_kept_and_told() {
    let fake = Fake::new();
    fake.process(10, 1, "a", 1, &[1, 2, 3]);
    fake.process(11, 1, "b", 1, &[4, 5, 6]);
    let few_sockets = scan_bounded(&fake.fs(), 2, 1000);
    assert_eq!((few_sockets.len(), few_sockets.coverage.truncated), (2, true));
    let few_descriptors = scan_bounded(&fake.fs(), 1000, 4);
    assert_eq!((few_descriptors.len(), few_descriptors.coverage.truncated), (3, true));
}

#[test]
fn a_process_without_fd_directory_is_counted_not_fatal() {
    let fake = Fake::new();
    fake.process(10, 1, "a", 1, &[1]);
    fake.write("proc/11/stat", "gone");
    fake.write("proc/uptime", "1 1");
    let owners = fake.fs().socket_owners();
    assert_eq!((owners.owner(1), owners.coverage.unreadable, owners.coverage.processes), (Some(10), 1, 2));
    assert!(ProcFs::at("/nonexistent", "/nonexistent").socket_owners().is_empty());
}

#[test]
fn facts_of_a_worker() {
    let fake = Fake::new();
    let status = fs::read("/proc/self/status").expect("own status");
    fake.process(10, 1, "php-fpm8.2", 100, &[]);
    fake.process(11, 10, "php-fpm8.2", 12_345, &[]);
    fake.write("proc/11/cmdline", b"php-fpm: pool www\0\0\0\0");
    fake.write("proc/11/cgroup", "12:pids:/docker/x\n1:name=systemd:/\n0::/system.slice/php8.2-fpm.service\n");
    fake.write("proc/11/status", status);
    fake.link("proc/11/exe", "/usr/sbin/php-fpm8.2 (deleted)");
    fake.link("proc/11/ns/net", "net:[4026531840]");
    let fs = fake.fs();
    let facts = fs.facts_of(11, Ktime(5)).expect("it exists");
    assert_eq!((facts.ktime, facts.pid, facts.ppid), (Ktime(5), 11, 10));
    assert_eq!(facts.start, 12_345 * fs.start_granularity());
    assert_eq!((&*facts.comm, &*facts.parent_comm), ("php-fpm8.2", "php-fpm8.2"));
    assert_eq!(facts.cmdline.as_deref(), Some("php-fpm: pool www"));
    assert_eq!(facts.pool.as_deref(), Some("www"));
    assert_eq!(facts.unit.as_deref(), Some("php8.2-fpm.service"));
    assert_eq!(facts.exe.as_deref(), Some("/usr/sbin/php-fpm8.2"));
    assert_eq!(facts.netns, Netns::of_inode(4_026_531_840));
    assert_eq!(facts.uid, nix::unistd::getuid().as_raw());
    assert_eq!(fs.facts_of(99, Ktime(5)), None);
}

#[test]
fn v1_is_used_where_v2_is_at_its_root() {
    let fake = Fake::new();
    let id = "0123456789abcdef".repeat(4);
    fake.process(11, 1, "a", 1, &[]);
    fake.write("proc/11/cgroup", format!("9:cpu:/elsewhere\n8:memory:/docker/{id}\n7:cpuset:/\n0::/\n"));
    let facts = fake.fs().facts_of(11, Ktime(0)).expect("it exists");
    assert_eq!(facts.container.as_deref(), Some("docker:0123456789ab"));
}

#[test]
fn the_executable_of_a_reused_pid_is_not_told() {
    let fake = Fake::new();
    fake.process(11, 1, "a", 500, &[]);
    fake.link("proc/11/exe", "/bin/a");
    let fs = fake.fs();
    let tick = fs.start_granularity();
    assert_eq!(fs.exe_of(11, 500 * tick + tick - 1).as_deref(), Some("/bin/a"), "a record is finer than /proc");
    assert_eq!(fs.exe_of(11, 0).as_deref(), Some("/bin/a"));
    assert_eq!(fs.exe_of(11, 501 * tick), None);
    assert_eq!(fs.exe_of(11, 499 * tick), None);
    assert_eq!(fs.exe_of(12, 0), None);
}

#[test]
fn namespaces_are_found_in_all_three_places() {
    let fake = Fake::new();
    let netns = fake.root.path().join("netns");
    fake.link("proc/10/ns/net", "net:[4026531840]");
    fake.link("proc/11/ns/net", "net:[4026531840]");
    fake.link("proc/12/ns/net", "net:[4026532001]");
    fake.write(
        "proc/self/mountinfo",
        format!(
            "22 1 0:4 net:[4026532001] {0}/blue rw shared:1 - nsfs nsfs rw\n\
             23 1 0:4 net:[4026532002] /run/docker/netns/ab\\040c rw - nsfs nsfs rw\n\
             24 1 0:4 mnt:[4026532003] /run/snapd/ns/x.mnt rw - nsfs nsfs rw\n\
             a line that is none\n",
            netns.display()
        ),
    );
    fake.write("netns/stale", "");
    // A real namespace by symbolic link, as container tools make them.
    fake.link("netns/mine", "/proc/self/ns/net");
    let own = netns::inode_of_link(Path::new("/proc/self/ns/net")).expect("own namespace");
    let (found, coverage) = fake.fs().network_namespaces();
    let find = |inode: u32| found.iter().find(|namespace| namespace.netns == Netns::of_inode(inode));
    let blue = find(4_026_532_001).expect("mounted and lived in");
    assert_eq!((blue.name.as_deref(), &blue.path), (Some("blue"), &netns.join("blue")));
    let docker = find(4_026_532_002).expect("mounted only");
    assert_eq!((docker.name.as_deref(), &docker.path), (None, &PathBuf::from("/run/docker/netns/ab c")));
    assert!(find(4_026_532_003).is_none(), "a mount namespace is none of ours");
    let mine = found.iter().find(|namespace| namespace.netns == own).expect("symbolic link");
    assert_eq!(mine.name.as_deref(), Some("mine"));
    let lived_in = if own == Netns::of_inode(4_026_531_840) { "mine" } else { "10" };
    assert!(find(4_026_531_840).is_some_and(|namespace| namespace.path.to_string_lossy().contains(lived_in)));
    assert!(!coverage.truncated);
    assert!(found.iter().all(|namespace| namespace.name.as_deref() != Some("stale")), "a name without a namespace");
}

#[test]
fn this_very_process_and_its_socket_are_found_in_the_real_proc() {
    use std::os::fd::AsRawFd as _;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let fd = fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).expect("own descriptor");
    let inode = bracketed(fd.to_str().expect("ascii"), "socket").expect("a socket");
    let proc = ProcFs::default();
    assert_eq!(proc.socket_owners().owner(inode), Some(std::process::id()));
    let facts = proc.facts_of(std::process::id(), Ktime(1)).expect("we exist");
    assert!(facts.start > 0 && facts.cmdline.is_some() && facts.exe.is_some());
    assert_eq!(proc.exe_of(facts.pid, facts.start), facts.exe);
    assert!(proc.network_namespaces().0.iter().any(|namespace| namespace.netns == facts.netns));
}
