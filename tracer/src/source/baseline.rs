//! One pass over every network namespace: its sockets by `sock_diag`, its limits by sysctls. The first pass finds what existed before the
//! trace, later ones find what records have missed.
//!
//! A pass runs on a thread of its own that enters the namespaces one after the other and ends. No descriptor stays open in a foreign
//! namespace, which would keep the namespace alive. The first pass happens after the programs are attached: a socket that changes
//! meanwhile is in the rows, in the records, or in both, and the tracker merges the two by cookie.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use super::port_sysctls::{MAX_WATCHED, PortSysctls};
use super::sock_diag::{self, ListedSocket};
use super::unlisted_sockets::UnlistedSockets;
use crate::host_clock;
use crate::names::proc_fs::{Coverage, OpenNetns, ProcFs, SocketOwners};
use crate::probe::host::{host_pids, netns_cookie};
use crate::probe::{NetnsNames, SocketIterator};
use tracer_core::event::{Baseline, Event, KernelCounters, Netns, NetnsFacts, TcpState};
use tracer_core::host::Degradation;

/// The result of a pass.
#[derive(Debug, Default)]
pub struct Pass {
    /// Facts in the order in which the tracker wants them: processes, limits, sockets.
    pub facts: Vec<Event>,
    /// Namespaces that could not be entered or listed, and why.
    pub failed: Vec<(Netns, String)>,
    /// Of the first pass: sockets that belong to no namespace that was looked at.
    pub unlisted: UnlistedSockets,
    /// Files of their port limits, for looking at them between passes.
    pub port_sysctls: Vec<PortSysctls>,
    /// Namespaces that were looked at, by the names that events have for them.
    pub namespaces: Vec<OpenNetns>,
    /// Sockets in them.
    pub sockets: usize,
    /// How much of /proc the search for namespaces could see.
    pub listed: Coverage,
    /// The same for the search for owners.
    pub owned: Coverage,
    /// The processes behind the sockets were looked for.
    pub owners: bool,
    /// Nanoseconds that the pass took, by which the next one is timed.
    pub nanos: u64,
}

impl Pass {
    /// What is lost because of what this pass could not see: one statement for each kind.
    pub fn degradations(&self) -> Vec<Degradation> {
        const EXISTED: &str = "connections there that existed before the start, and repairs after lost events";
        let mut lost = Vec::new();
        if let Some((netns, why)) = self.failed.first() {
            let what = format!("sockets of {} network namespace(s)", self.failed.len());
            lost.push(Degradation::new(what, format!("netns {}: {why}", netns.inode), EXISTED));
        }
        if self.listed.processes == 0 {
            lost.push(Degradation::new(
                "/proc",
                "no process is in it: it is not mounted, as in a chroot (mount -t proc proc /proc)",
                "namespaces other than this one, owners of sockets that existed before the start, executables",
            ));
        }
        if self.listed.truncated {
            lost.push(Degradation::new(
                "some network namespaces",
                format!(
                    "this host has more processes or namespaces than are looked through ({})",
                    self.namespaces.len()
                ),
                EXISTED,
            ));
        }
        if self.owned.truncated {
            lost.push(Degradation::new(
                "owners of some sockets",
                "this host has more processes, descriptors or sockets than are looked through",
                "who opened them before the start",
            ));
        }
        lost
    }
}

/// When a pass is to find the processes that have the sockets open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerScan {
    /// In no case.
    Never,
    /// If it lists a connection that a process has open: it need not be the one that opened it.
    ForConnections,
    /// In any case.
    Always,
}

/// What a pass looks at.
#[derive(Clone, Copy, Debug)]
pub struct PassScope {
    /// This is the pass at the start of a trace.
    pub initial: bool,
    /// Find the processes that have the sockets open, which costs a scan of every /proc/PID/fd.
    pub owners: OwnerScan,
    /// What records know of their namespaces, so that both name them alike.
    pub names: NetnsNames,
}

/// A pass on its thread. Dropping it ends the pass before its next namespace.
#[derive(Debug)]
pub struct RunningPass {
    result: Receiver<Pass>,
    given_up: Arc<AtomicBool>,
}

impl Drop for RunningPass {
    fn drop(&mut self) {
        self.given_up.store(true, Ordering::Relaxed);
    }
}

impl RunningPass {
    /// The result; an empty one if the thread could not be started or panicked.
    pub fn wait(self) -> Pass {
        self.result.recv().unwrap_or_default()
    }

    /// The result, unless the pass takes longer than `limit`.
    pub fn wait_at_most(&self, limit: Duration) -> Option<Pass> {
        match self.result.recv_timeout(limit) {
            Ok(pass) => Some(pass),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Pass::default()),
        }
    }
}

/// Starts one pass, on a thread of its own, because a thread that has entered another namespace must not do anything else afterwards.
///
/// `sockets` adds what `sock_diag` does not say to a list with owners, and to every list where records have no cookies.
pub fn start(scope: PassScope, sockets: Option<SocketIterator>) -> RunningPass {
    let (sender, result) = mpsc::sync_channel(1);
    let given_up = Arc::new(AtomicBool::new(false));
    let is_given_up = Arc::clone(&given_up);
    // A thread that cannot be started drops its end of the channel, as one does that panics.
    let _ = std::thread::Builder::new().name("baseline".into()).spawn(move || {
        let iterator = sockets.as_ref().filter(|sockets| scope.owners == OwnerScan::Always || sockets.has_addresses());
        // The receiver may have lost patience.
        let _ = sender.send(run(scope, iterator, &is_given_up));
    });
    RunningPass { result, given_up }
}

fn run(scope: PassScope, iterator: Option<&SocketIterator>, given_up: &AtomicBool) -> Pass {
    let started = host_clock::now();
    let proc = ProcFs::default();
    let mut pass = Pass::default();
    let own = own_netns().map(Netns::of_inode);
    let mut cookies = BTreeSet::new();
    let mut sockets = Vec::new();
    let mut limits = Vec::new();
    // Our own namespace first: it need not be entered, and without CAP_SYS_ADMIN it is the only one.
    let (mut namespaces, listed) = proc.network_namespaces();
    pass.listed = listed;
    namespaces.sort_by_key(|namespace| Some(namespace.netns) != own);
    let inodes: BTreeSet<u32> = namespaces.iter().map(|namespace| namespace.netns.inode).collect();
    for mut namespace in namespaces {
        if given_up.load(Ordering::Relaxed) {
            return pass;
        }
        let is_own = Some(namespace.netns) == own;
        if scope.names == NetnsNames::Unknown && !is_own {
            continue;
        }
        if !is_own && let Err(why) = enter(&namespace) {
            pass.failed.push((namespace.netns, why));
            continue;
        }
        let mut cookie = None;
        if scope.names == NetnsNames::Cookies {
            match netns_cookie() {
                Ok(known) => {
                    cookie = Some(known);
                    cookies.insert(known);
                    namespace.netns = Netns::new(namespace.netns.inode, known);
                }
                Err(error) => {
                    pass.failed.push((namespace.netns, format!("its cookie: {error}")));
                    continue;
                }
            }
        }
        let netns = if scope.names == NetnsNames::Unknown { Netns::of_inode(0) } else { namespace.netns };
        let ports = PortSysctls::open(netns).ok();
        limits.extend(sysctls(netns, cookie, namespace.name.clone(), ports.as_ref()));
        pass.port_sysctls.extend(ports.filter(|_| pass.port_sysctls.len() < MAX_WATCHED));
        let began = host_clock::now();
        match sock_diag::dump(netns) {
            Ok(mut rows) => {
                if let Some(Err(error)) = iterator.map(|iterator| add_facts(&mut rows, iterator)) {
                    pass.failed.push((netns, format!("iter/tcp: {error}")));
                }
                pass.sockets += rows.len();
                sockets.push((netns, began, host_clock::now(), rows));
                pass.namespaces.push(OpenNetns { netns, ..namespace });
            }
            Err(error) => pass.failed.push((netns, format!("sock_diag: {error}"))),
        }
    }
    if scope.initial && scope.names == NetnsNames::Cookies && pass.failed.is_empty() {
        let listed = sockets.iter().flat_map(|(_, _, _, rows)| rows).map(|row| u64::from(row.inode)).collect();
        let unlisted = UnlistedSockets::search(&listed, &cookies);
        // A namespace that has been made meanwhile, with processes in it, is none that lives by its sockets alone.
        if proc.network_namespaces().0.iter().all(|now| inodes.contains(&now.netns.inode)) {
            pass.unlisted = unlisted;
        }
    }
    let is_held = |row: &ListedSocket| row.inode != 0 && !matches!(row.row.state, TcpState::Listen | TcpState::Close);
    pass.owners = match scope.owners {
        // The ids that it would find are not those of records.
        _ if !host_pids() => false,
        OwnerScan::Never => false,
        OwnerScan::ForConnections => sockets.iter().any(|(_, _, _, rows)| rows.iter().any(is_held)),
        OwnerScan::Always => true,
    };
    let owners = if pass.owners { proc.socket_owners() } else { SocketOwners::default() };
    pass.owned = owners.coverage;
    let mut pids = Vec::new();
    let mut lists = Vec::new();
    for (netns, began, ended, rows) in sockets {
        let rows: Arc<[_]> = rows
            .into_iter()
            .map(|mut row| {
                row.row.owner = owners.owner(u64::from(row.inode)).filter(|_| row.inode != 0);
                pids.extend(row.row.owner);
                row.row
            })
            .collect();
        lists.push(Baseline { netns, began, ended, initial: scope.initial, rows });
    }
    pids.sort_unstable();
    pids.dedup();
    let now = host_clock::now();
    pass.facts.extend(pids.into_iter().filter_map(|pid| {
        let mut facts = proc.facts_of(pid, now)?;
        if let Some(listed) = lists.iter().find(|list| list.netns.inode == facts.netns.inode) {
            facts.netns = listed.netns;
        }
        Some(Event::Process(Box::new(facts)))
    }));
    pass.facts.append(&mut limits);
    pass.facts.extend(lists.into_iter().map(Event::Baseline));
    pass.nanos = host_clock::now().since(started);
    pass
}

/// What the kernel's own list says of the sockets, which `sock_diag` has given cookies.
fn add_facts(rows: &mut [ListedSocket], iterator: &SocketIterator) -> io::Result<()> {
    let facts = iterator.list()?;
    for row in rows.iter_mut().map(|listed| &mut listed.row) {
        if let Some(found) = row.cookie.and_then(|cookie| facts.get(&cookie)) {
            (row.sock, row.named, row.closed, row.timestamps) =
                (found.sock, found.named, found.closed, found.timestamps);
        }
    }
    Ok(())
}

/// Inode number of the process's own namespace.
pub(super) fn own_netns() -> Option<u32> {
    fs::metadata("/proc/self/ns/net").ok().and_then(|file| u32::try_from(file.ino()).ok())
}

/// Moves the calling thread into the namespace.
///
/// # Errors
/// Why it cannot be entered.
pub(super) fn enter(namespace: &OpenNetns) -> Result<(), String> {
    let path = namespace.path.display();
    let file = fs::File::open(&namespace.path).map_err(|error| format!("{path}: {error}"))?;
    // The process behind the path may have ended, and another process may have its pid.
    let inode = file.metadata().map_err(|error| format!("{path}: {error}"))?.ino();
    if inode != u64::from(namespace.netns.inode) {
        return Err(format!("{path} has become another namespace"));
    }
    setns(file.as_fd(), CloneFlags::CLONE_NEWNET)
        .map_err(|error| format!("entering {path}: {error} (needs CAP_SYS_ADMIN)"))
}

/// Limits of the namespace that this thread is in: /proc/sys/net answers for the thread that opens it. `ports` are its files of port
/// limits, if they could be opened.
fn sysctls(netns: Netns, cookie: Option<u64>, name: Option<Arc<str>>, ports: Option<&PortSysctls>) -> Vec<Event> {
    let ktime = host_clock::now();
    // One number each: longer contents would need more than one read, to which the kernel answers only the first.
    let number = |name: &str| fs::read_to_string(format!("/proc/sys/net/{name}")).ok()?.trim().parse::<u32>().ok();
    let facts = NetnsFacts {
        ktime,
        netns,
        name,
        cookie,
        port_range: ports.and_then(PortSysctls::port_range),
        tw_reuse: number("ipv4/tcp_tw_reuse").and_then(|value| u8::try_from(value).ok()),
        tw_reuse_delay_ms: number("ipv4/tcp_tw_reuse_delay"),
        timestamps: number("ipv4/tcp_timestamps").map(|value| value != 0),
        max_tw_buckets: number("ipv4/tcp_max_tw_buckets"),
        fin_timeout_ms: number("ipv4/tcp_fin_timeout").map(|seconds| seconds.saturating_mul(1000)),
        time_wait: fs::read_to_string("/proc/thread-self/net/sockstat").ok().and_then(|text| sockstat_time_wait(&text)),
        conntrack: number("netfilter/nf_conntrack_count").zip(number("netfilter/nf_conntrack_max")),
        conntrack_buckets: number("netfilter/nf_conntrack_buckets"),
        counters: counters(
            &fs::read_to_string("/proc/thread-self/net/netstat").unwrap_or_default(),
            &fs::read_to_string("/proc/thread-self/net/stat/nf_conntrack").unwrap_or_default(),
        ),
    };
    let mut events = vec![Event::Netns(Box::new(facts))];
    events.extend(ports.map(|ports| ports.reserved_ports(ktime)));
    events
}

/// The counters of /proc/net/netstat (two lines for each protocol: names, then values) and /proc/net/stat/nf_conntrack (a line of names,
/// then one of hexadecimal values for each CPU).
fn counters(netstat: &str, conntrack: &str) -> KernelCounters {
    let mut lines = netstat.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let tcp = |wanted: &str| {
        let at = names.split_whitespace().position(|name| name == wanted)?;
        values.split_whitespace().nth(at)?.parse().ok()
    };
    let mut lines = conntrack.lines();
    let names = lines.next().unwrap_or_default();
    let cpus: Vec<&str> = lines.collect();
    let tracked = |wanted: &str| {
        let at = names.split_whitespace().position(|name| name == wanted)?;
        let value = |cpu: &&str| u64::from_str_radix(cpu.split_whitespace().nth(at)?, 16).ok();
        cpus.iter().map(value).sum::<Option<u64>>().filter(|_| !cpus.is_empty())
    };
    KernelCounters {
        listen_overflows: tcp("ListenOverflows"),
        listen_drops: tcp("ListenDrops"),
        time_wait_overflows: tcp("TCPTimeWaitOverflow"),
        syn_cookies_sent: tcp("SyncookiesSent"),
        conntrack_insert_failed: tracked("insert_failed"),
        conntrack_drops: tracked("drop"),
        conntrack_early_drops: tracked("early_drop"),
    }
}

/// Minisockets by a line like `TCP: inuse 5 orphan 0 tw 12 alloc 8 mem 1`.
pub(super) fn sockstat_time_wait(text: &str) -> Option<u32> {
    let line = text.lines().find(|line| line.starts_with("TCP:"))?;
    let mut words = line.split(' ').skip_while(|&word| word != "tw");
    words.nth(1)?.parse().ok()
}

/// The time until the next pass, so that passes take less than 1 % of one CPU. The bounds keep repairs timely on an idle host and rare on
/// a host with a million sockets.
pub fn pause_after(pass_nanos: u64) -> Duration {
    const SHARE: u64 = 100;
    const SHORTEST: u64 = 10_000_000_000;
    const LONGEST: u64 = 120_000_000_000;
    Duration::from_nanos(pass_nanos.saturating_mul(SHARE).clamp(SHORTEST, LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_by_their_names() {
        let netstat = "TcpExt: SyncookiesSent ListenOverflows ListenDrops TCPTimeWaitOverflow\nTcpExt: 5 61 62 7\nIpExt: A\nIpExt: 1\n";
        let conntrack =
            "entries insert_failed drop early_drop\n000a 00000001 00000010 00000000\n000a 00000002 00000000 0000000f\n";
        let read = counters(netstat, conntrack);
        assert_eq!((read.listen_overflows, read.listen_drops), (Some(61), Some(62)));
        assert_eq!((read.time_wait_overflows, read.syn_cookies_sent), (Some(7), Some(5)));
        assert_eq!((read.conntrack_insert_failed, read.conntrack_drops), (Some(3), Some(16)));
        assert_eq!(read.conntrack_early_drops, Some(15));
        assert_eq!(counters("", ""), KernelCounters::default(), "unknown, not 0");
    }

    #[test]
    fn what_a_pass_could_not_see_is_said_once_each() {
        let whole = Coverage { processes: 10, ..Coverage::default() };
        let said = |pass: &Pass| pass.degradations().into_iter().map(|lost| lost.what).collect::<Vec<_>>();
        assert!(said(&Pass { listed: whole, owned: whole, ..Pass::default() }).is_empty());
        let cut = Coverage { truncated: true, ..whole };
        assert_eq!(
            said(&Pass { listed: cut, owned: cut, ..Pass::default() }),
            ["some network namespaces", "owners of some sockets"]
        );
        assert_eq!(said(&Pass::default()), ["/proc"], "a chroot");
        let failed = vec![(Netns::of_inode(7), "no".into()), (Netns::of_inode(8), "no".into())];
        assert_eq!(said(&Pass { failed, listed: whole, ..Pass::default() }), ["sockets of 2 network namespace(s)"]);
    }

    #[test]
    fn sockstat_lines_are_read_as_the_kernel_writes_them() {
        assert_eq!(sockstat_time_wait("sockets: used 9\nTCP: inuse 5 orphan 0 tw 12 alloc 8 mem 1\n"), Some(12));
        assert_eq!(sockstat_time_wait("UDP: inuse 1\n"), None);
    }

    #[test]
    fn passes_stay_below_one_percent_within_bounds() {
        assert_eq!(pause_after(1_000_000).as_secs(), 10);
        assert_eq!(pause_after(300_000_000).as_secs(), 30);
        assert_eq!(pause_after(60_000_000_000).as_secs(), 120);
    }
}
