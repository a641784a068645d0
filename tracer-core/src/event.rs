//! The vocabulary: what happened, in values that are valid by construction.
//!
//! Everything behind `decode` works with [`Event`]s and never sees a record of the kernel. Facts that user space
//! gathers (sockets that existed before the start, names of processes, limits of namespaces, loss counts) are events
//! too, so that a recording of events is the whole story.
//!
//! Not for: conclusions. Nothing here remembers anything.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

/// Nanoseconds of `CLOCK_MONOTONIC`: the order of events. It stops in suspend; wall time comes from `clock`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ktime(pub u64);

impl Ktime {
    /// Nanoseconds from `earlier` to here; 0 if `earlier` is later (records of two CPUs may arrive out of order).
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Seconds from `earlier` to here.
    pub fn seconds_since(self, earlier: Self) -> f64 {
        self.since(earlier) as f64 / 1e9
    }

    /// This instant plus `nanos`.
    #[must_use]
    pub fn plus(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }
}

/// The kernel's identity of a socket (net/core/sock_diag.c `__sock_gen_cookie`): never re-used while the host is up,
/// kept by the socket's minisocket in `TIME_WAIT`, and shared by successive connections of one socket. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketCookie(std::num::NonZeroU64);

impl SocketCookie {
    /// `None` for 0, which the kernel uses for "no cookie yet".
    pub fn new(raw: u64) -> Option<Self> {
        std::num::NonZeroU64::new(raw).map(Self)
    }

    /// The cookie as the kernel has it.
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

/// A network namespace. Its name is its inode number (`/proc/PID/ns/net`), which the kernel re-uses at once for another
/// namespace; the cookie tells two namespaces of one number apart.
///
/// On one host either every source of events has cookies or none has (before Linux 5.14, in recordings of format 3 and
/// older), so that the events of a namespace meet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Netns {
    /// Inode number; 0 = unknown.
    pub inode: u32,
    /// Low half of `net->net_cookie` (net/core/net_namespace.c `net_gen_cookie`), which counts up from boot; 0 =
    /// unknown.
    pub cookie: u32,
}

impl Netns {
    /// A namespace whose whole cookie is known.
    pub const fn new(inode: u32, cookie: u64) -> Self {
        let [a, b, c, d, ..] = cookie.to_le_bytes();
        Self { inode, cookie: u32::from_le_bytes([a, b, c, d]) }
    }

    /// A namespace whose cookie is unknown.
    pub const fn of_inode(inode: u32) -> Self {
        Self { inode, cookie: 0 }
    }
}

/// Reports name a namespace by its inode number; unknown is null.
impl Serialize for Netns {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.inode != 0).then_some(self.inode).serialize(serializer)
    }
}

/// cgroup v2 id: the inode number of its directory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct CgroupId(pub u64);

/// An IP address; IPv4 and v4-mapped IPv6 are one (they share the 4-tuple space) and print as IPv4.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addr(pub [u8; 16]);

impl Addr {
    /// `::`, which stands for `0.0.0.0` too.
    pub const UNSPECIFIED: Self = Self([0; 16]);

    /// The address as the standard library has it, mapped addresses as IPv4.
    pub fn ip(self) -> IpAddr {
        Ipv6Addr::from(self.0).to_canonical()
    }

    /// Unspecified in either family (`0.0.0.0`, `::`).
    pub fn is_unspecified(self) -> bool {
        self.ip().is_unspecified()
    }

    /// Loopback in either family.
    pub fn is_loopback(self) -> bool {
        self.ip().is_loopback()
    }
}

impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self(v4.to_ipv6_mapped().octets()),
            IpAddr::V6(v6) => Self(v6.octets()),
        }
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip().fmt(f)
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ip().fmt(f)
    }
}

impl Serialize for Addr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Address and port; prints as `10.0.0.1:80` or `[2001:db8::1]:80`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The address.
    pub addr: Addr,
    /// The port in host byte order.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::net::SocketAddr::new(self.addr.ip(), self.port).fmt(f)
    }
}

/// The 4-tuple plus its network namespace and device, from the socket's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// Network namespace of the socket.
    pub netns: Netns,
    /// Index of the interface that the socket is bound to (`skc_bound_dev_if`: SO_BINDTODEVICE, a VRF, a link-local
    /// address), 0 if none. The same 4-tuple on two devices is two flows.
    pub device: u32,
    /// The socket's own side.
    pub local: Endpoint,
    /// The peer's side.
    pub remote: Endpoint,
}

/// Identity of a destination: the scope in which a plain connect() runs out of ports (net/ipv4/inet_hashtables.c
/// `__inet_hash_connect`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DestinationKey {
    /// Network namespace of the connecting socket.
    pub netns: Netns,
    /// Source address that the kernel chose for the destination.
    pub local_addr: Addr,
    /// Address that the socket connects to.
    pub remote_addr: Addr,
    /// Port that the socket connects to.
    pub remote_port: u16,
}

impl From<&FlowKey> for DestinationKey {
    fn from(key: &FlowKey) -> Self {
        Self {
            netns: key.netns,
            local_addr: key.local.addr,
            remote_addr: key.remote.addr,
            remote_port: key.remote.port,
        }
    }
}

/// TCP states, include/net/tcp_states.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum TcpState {
    /// `TCP_ESTABLISHED`.
    Established = 1,
    /// `TCP_SYN_SENT`.
    SynSent = 2,
    /// `TCP_SYN_RECV`.
    SynRecv = 3,
    /// `TCP_FIN_WAIT1`.
    FinWait1 = 4,
    /// `TCP_FIN_WAIT2`.
    FinWait2 = 5,
    /// `TCP_TIME_WAIT`.
    TimeWait = 6,
    /// `TCP_CLOSE`.
    Close = 7,
    /// `TCP_CLOSE_WAIT`.
    CloseWait = 8,
    /// `TCP_LAST_ACK`.
    LastAck = 9,
    /// `TCP_LISTEN`.
    Listen = 10,
    /// `TCP_CLOSING`.
    Closing = 11,
    /// `TCP_NEW_SYN_RECV`: a request socket, before the three-way handshake is complete.
    NewSynRecv = 12,
}

impl TcpState {
    /// All states, by number - 1.
    pub const ALL: [Self; 12] = [
        Self::Established,
        Self::SynSent,
        Self::SynRecv,
        Self::FinWait1,
        Self::FinWait2,
        Self::TimeWait,
        Self::Close,
        Self::CloseWait,
        Self::LastAck,
        Self::Listen,
        Self::Closing,
        Self::NewSynRecv,
    ];

    /// The state of that number; `None` if the kernel has grown one that we do not know.
    pub fn from_raw(raw: u8) -> Option<Self> {
        Self::ALL.get(usize::from(raw).checked_sub(1)?).copied()
    }

    /// The kernel's spelling without its `TCP_` prefix.
    pub fn name(self) -> &'static str {
        match self {
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::FinWait1 => "FIN_WAIT1",
            Self::FinWait2 => "FIN_WAIT2",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::Listen => "LISTEN",
            Self::Closing => "CLOSING",
            Self::NewSynRecv => "NEW_SYN_RECV",
        }
    }
}

impl fmt::Display for TcpState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for TcpState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Identity of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketId {
    /// `None` on kernels or hooks that cannot give one.
    pub cookie: Option<SocketCookie>,
    /// Opaque, valid while the socket lives; re-used at once afterwards. 0 = unknown (baseline).
    pub sock: u64,
}

/// The thread in whose context an event happened, where that thread is known to use the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Its process (thread group id).
    pub pid: u32,
    /// Its thread id.
    pub tid: u32,
    /// Its cgroup v2.
    pub cgroup: CgroupId,
}

/// A state transition of a TCP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// When it happened.
    pub ktime: Ktime,
    /// The socket.
    pub id: SocketId,
    /// `key.local.port` is the port held now (`skc_num`): 0 before connect() chose one and after the kernel released
    /// it.
    pub key: FlowKey,
    /// `inet_sport`: the last port held; stale when a socket is used for a second connect().
    pub last_port: u16,
    /// `IP_LOCAL_PORT_RANGE` of the socket, both ends inclusive: connect() chose among these ports alone. Read where
    /// connect() found no port (SYN_SENT->CLOSE); `None` everywhere else and on sockets without the option.
    pub own_range: Option<(u16, u16)>,
    /// State before.
    pub old: TcpState,
    /// State after.
    pub new: TcpState,
    /// Positive errno that the kernel had noted on the socket at this instant, 0 if none.
    pub sk_err: u16,
    /// The application had called shutdown() or close() (`sk_shutdown`).
    pub shutdown: bool,
    /// The thread that caused the transition; `None` if the kernel was in no context of the socket's user.
    pub caller: Option<Caller>,
    /// The thread that was current even where it is not the caller: two records of one thread belong to one call.
    pub current_tid: u32,
    /// Written by a later link of the program chain; may repeat the flow's last transition.
    pub rescued: bool,
    /// From the classic tracepoint: no netns, no cookie, the port may be stale.
    pub classic: bool,
}

/// A `TIME_WAIT` minisocket began or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeWaitEvent {
    /// When it happened.
    pub ktime: Ktime,
    /// Cookie of the socket that became the minisocket. The address of the minisocket is in no other event, and the
    /// thread that was current is usually a bystander, so neither is kept.
    pub cookie: Option<SocketCookie>,
    /// Key of the connection that ended.
    pub key: FlowKey,
    /// The peer's FIN has not arrived yet (`tw_substate` = `FIN_WAIT2`).
    pub fin_wait2: bool,
    /// The peer had sent TCP timestamps (`tw_ts_recent_stamp`), without which the kernel never gives the port to a new
    /// connection (net/ipv4/tcp_ipv4.c `tcp_twsk_unique`); `None` if unknown.
    pub timestamps: Option<bool>,
    /// At an end: its time was up. Otherwise it was killed early (reuse, RST, `ss -K`, namespace exit).
    pub expired: bool,
}

/// Which call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// connect(2).
    Connect,
    /// bind(2).
    Bind,
    /// listen(2), which chooses a port for a socket that has none.
    Listen,
}

/// A system call on a TCP socket that returned an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallFailed {
    /// When the call returned.
    pub ktime: Ktime,
    /// Syscall entry.
    pub entered: Ktime,
    /// The socket.
    pub id: SocketId,
    /// Network namespace of the socket.
    pub netns: Netns,
    /// The calling thread.
    pub caller: Caller,
    /// Name of the calling thread.
    pub comm: Arc<str>,
    /// The system call.
    pub call: Call,
    /// Positive errno.
    pub errno: u16,
    /// What was asked for: the destination of connect(), the local address of bind(); `None` if it could not be read.
    pub target: Option<Endpoint>,
    /// The socket's own address and port after the call.
    pub local: Endpoint,
    /// Index of the interface that the socket is bound to, 0 if none.
    pub device: u32,
    /// `IP_LOCAL_PORT_RANGE` of the socket, both ends inclusive; `None` if it has none.
    pub own_range: Option<(u16, u16)>,
}

/// A connect() has found its local port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSearch {
    /// When the port was found.
    pub ktime: Ktime,
    /// The socket.
    pub id: SocketId,
    /// From CLOSE->SYN_SENT to the SYN on its way: the search (net/ipv4/inet_hashtables.c `__inet_hash_connect`) and
    /// some microseconds of sending.
    pub nanos: u64,
}

/// accept(), bind(), or the destruction of a bound socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketEvent {
    /// When it happened.
    pub ktime: Ktime,
    /// The socket; at accept() the one that was returned.
    pub id: SocketId,
    /// Key of the socket; after bind() without a peer.
    pub key: FlowKey,
    /// The calling process.
    pub pid: u32,
    /// The calling thread.
    pub tid: u32,
    /// The port was named by bind() (`SOCK_BINDPORT_LOCK`) and stays the socket's until it is destroyed. A port that
    /// bind() or listen() chose is given back at ->CLOSE. `None` if unknown.
    pub named: Option<bool>,
    /// At accept(): the listening socket, which tells the sockets of one SO_REUSEPORT group apart; `None` if unknown.
    pub listener: Option<SocketId>,
}

/// Names of a process. They are read in the context of the process, so that a process that lives 20 ms has names too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessFacts {
    /// When the facts were read.
    pub ktime: Ktime,
    /// Process id (thread group id).
    pub pid: u32,
    /// Nanoseconds since boot (`start_boottime`); with `pid` it names a process for good. 0 = unknown.
    pub start: u64,
    /// Counts the programs that this process has been (`self_exec_id`, inherited over fork): another number, another
    /// program. 0 = unknown.
    pub exec_id: u32,
    /// Process id of its parent.
    pub ppid: u32,
    /// User id.
    pub uid: u32,
    /// Network namespace.
    pub netns: Netns,
    /// cgroup v2.
    pub cgroup: CgroupId,
    /// Name of the process (`comm` of its main thread).
    pub comm: Arc<str>,
    /// Name of its parent.
    pub parent_comm: Arc<str>,
    /// Arguments joined by spaces; `None` if they could not be read.
    pub cmdline: Option<Arc<str>>,
    /// Path of the executable; `None` if the process was gone.
    pub exe: Option<Arc<str>>,
    /// cgroup path from the root, or its last components; v1 where that is the one in use.
    pub cgroup_path: Option<Arc<str>>,
    /// systemd unit (`nginx.service`).
    pub unit: Option<Arc<str>>,
    /// Container id, 12 hex digits, with the runtime in front where known (`docker:0123456789ab`).
    pub container: Option<Arc<str>>,
    /// Pod of Kubernetes: `namespace/pod/container` where the host's log links name it, `namespace/pod` for its sandbox, else the
    /// pod's UID.
    pub pod: Option<Arc<str>>,
    /// Application pool (`www` of php-fpm).
    pub pool: Option<Arc<str>>,
}

impl ProcessFacts {
    /// /proc gives the start of a process in ticks of 10 ms, the kernel's records in nanoseconds.
    const START_GRANULARITY: u64 = 10_000_000;

    /// Both are of one process, before or after exec. An unknown start could be any.
    pub fn same_process(&self, other: &Self) -> bool {
        let same_start =
            self.start == 0 || other.start == 0 || self.start.abs_diff(other.start) <= Self::START_GRANULARITY;
        self.pid == other.pid && same_start
    }
}

/// What the kernel counts in a network namespace. `None` = unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KernelCounters {
    /// Handshakes that found an accept queue full (`ListenOverflows` of /proc/net/netstat).
    pub listen_overflows: Option<u64>,
    /// SYNs and handshakes that listeners dropped for any reason, a full accept queue among them (`ListenDrops`).
    pub listen_drops: Option<u64>,
    /// Connections that got no minisocket, because there were `tcp_max_tw_buckets` (`TCPTimeWaitOverflow`).
    pub time_wait_overflows: Option<u64>,
    /// SYN cookies sent, because a listener's queue of half-open connections was full (`SyncookiesSent`).
    pub syn_cookies_sent: Option<u64>,
    /// Connections that could not be entered in the connection-tracking table, where NAT found no free tuple among them (`insert_failed` of
    /// /proc/net/stat/nf_conntrack).
    pub conntrack_insert_failed: Option<u64>,
    /// Packets dropped because the table was full (`drop`).
    pub conntrack_drops: Option<u64>,
    /// Connections thrown out of the table to make room (`early_drop`).
    pub conntrack_early_drops: Option<u64>,
}

impl KernelCounters {
    /// Each counter with its like in `other`.
    #[must_use]
    pub fn zip(&self, other: &Self, join: impl Fn(Option<u64>, Option<u64>) -> Option<u64>) -> Self {
        Self {
            listen_overflows: join(self.listen_overflows, other.listen_overflows),
            listen_drops: join(self.listen_drops, other.listen_drops),
            time_wait_overflows: join(self.time_wait_overflows, other.time_wait_overflows),
            syn_cookies_sent: join(self.syn_cookies_sent, other.syn_cookies_sent),
            conntrack_insert_failed: join(self.conntrack_insert_failed, other.conntrack_insert_failed),
            conntrack_drops: join(self.conntrack_drops, other.conntrack_drops),
            conntrack_early_drops: join(self.conntrack_early_drops, other.conntrack_early_drops),
        }
    }
}

/// Limits of a network namespace. `None` = unknown, never 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetnsFacts {
    /// When the limits were read.
    pub ktime: Ktime,
    /// The namespace.
    pub netns: Netns,
    /// Name under `/run/netns`, where it has one.
    pub name: Option<Arc<str>>,
    /// Never re-used, unlike the inode number.
    pub cookie: Option<u64>,
    /// `ip_local_port_range`, both ends inclusive.
    pub port_range: Option<(u16, u16)>,
    /// `tcp_tw_reuse`.
    pub tw_reuse: Option<u8>,
    /// `tcp_tw_reuse_delay`, milliseconds.
    pub tw_reuse_delay_ms: Option<u32>,
    /// `tcp_timestamps` is not 0.
    pub timestamps: Option<bool>,
    /// `tcp_max_tw_buckets`.
    pub max_tw_buckets: Option<u32>,
    /// `tcp_fin_timeout`, milliseconds.
    pub fin_timeout_ms: Option<u32>,
    /// Minisockets in this namespace, as the kernel counts them.
    pub time_wait: Option<u32>,
    /// `nf_conntrack_count`, `nf_conntrack_max`.
    pub conntrack: Option<(u32, u32)>,
    /// `nf_conntrack_buckets`: chains of the connection-tracking table.
    pub conntrack_buckets: Option<u32>,
    /// Counted since the namespace was made.
    pub counters: KernelCounters,
}

/// A socket as `sock_diag` lists it (net/ipv4/inet_diag.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketRow {
    /// The kernel's cookie; `None` if it has none.
    pub cookie: Option<SocketCookie>,
    /// As in [`SocketId`]; 0 = unknown. Known only where records name sockets by nothing else.
    pub sock: u64,
    /// Key of the socket.
    pub key: FlowKey,
    /// State of the socket; `CLOSE` of one that is bound and neither connects nor listens.
    pub state: TcpState,
    /// A minisocket: `TIME_WAIT`, or its sub-state `FIN_WAIT2`.
    pub minisocket: bool,
    /// Of a minisocket: nanoseconds until its timer is due.
    pub remaining: Option<u64>,
    /// Process that has the socket open; `None` if unknown.
    pub owner: Option<u32>,
    /// A descriptor leads to the socket (`idiag_inode` is not 0). Otherwise accept() has not taken it yet, or its program has closed
    /// it. `None` if unknown.
    pub has_descriptor: Option<bool>,
    /// The port was named by bind() (`SOCK_BINDPORT_LOCK`); `None` if unknown, which `sock_diag` alone leaves it.
    pub named: Option<bool>,
    /// No connect() of another socket chooses the port, because bind() or listen() made or joined its bucket (`fastreuse` of
    /// `struct inet_bind_bucket` is not negative); `None` if unknown, which `sock_diag` alone leaves it.
    pub closed: Option<bool>,
    /// Of a minisocket: the peer had sent TCP timestamps; `None` if unknown.
    pub timestamps: Option<bool>,
    /// Of a listening socket: connections that wait to be accepted, and how many may.
    pub queue: Option<AcceptQueue>,
}

/// The queue of a listening socket (`idiag_rqueue` and `idiag_wqueue` of its row).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptQueue {
    /// Connections that wait to be accepted.
    pub waiting: u32,
    /// Connections that may wait.
    pub backlog: u32,
}

/// One complete pass of `sock_diag` over one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Baseline {
    /// The namespace.
    pub netns: Netns,
    /// Before the first row was read. Events between `began` and `ended` may or may not be in the rows.
    pub began: Ktime,
    /// After the last row was read.
    pub ended: Ktime,
    /// The pass at start, as opposed to a reconciling one.
    pub initial: bool,
    /// All sockets that were listed.
    pub rows: Arc<[SocketRow]>,
}

/// What was lost so far, as absolute counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LossCounts {
    /// When the counts were read.
    pub ktime: Ktime,
    /// Records of transitions that found the ring buffer full.
    pub ring_transitions: u64,
    /// Records of `TIME_WAIT` starts and ends that found the ring buffer full.
    pub ring_time_wait: u64,
    /// Records of failed calls that found the ring buffer full.
    pub ring_calls: u64,
    /// Records of names that found the ring buffer full.
    pub ring_facts: u64,
    /// Runs of the chain's first link that the kernel's recursion guard skipped (`recursion_misses`).
    pub chain_missed: u64,
    /// Transitions that a later link wrote instead, duplicates included.
    pub chain_rescued: u64,
    /// Runs of the other programs that the guard skipped; an upper bound of what they lost.
    pub other_missed: u64,
    /// Calls whose arguments could not be kept because the map of calls in flight was full.
    pub call_map_full: u64,
    /// Events that the recorder could not write.
    pub recorder: u64,
}

impl LossCounts {
    /// These, and those of `before`, which were counted from zero too.
    #[must_use]
    pub fn plus(&self, before: &Self) -> Self {
        Self {
            ktime: self.ktime,
            ring_transitions: self.ring_transitions.saturating_add(before.ring_transitions),
            ring_time_wait: self.ring_time_wait.saturating_add(before.ring_time_wait),
            ring_calls: self.ring_calls.saturating_add(before.ring_calls),
            ring_facts: self.ring_facts.saturating_add(before.ring_facts),
            chain_missed: self.chain_missed.saturating_add(before.chain_missed),
            chain_rescued: self.chain_rescued.saturating_add(before.chain_rescued),
            other_missed: self.other_missed.saturating_add(before.other_missed),
            call_map_full: self.call_map_full.saturating_add(before.call_map_full),
            recorder: self.recorder.saturating_add(before.recorder),
        }
    }

    /// What was lost since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            ktime: self.ktime,
            ring_transitions: self.ring_transitions.saturating_sub(before.ring_transitions),
            ring_time_wait: self.ring_time_wait.saturating_sub(before.ring_time_wait),
            ring_calls: self.ring_calls.saturating_sub(before.ring_calls),
            ring_facts: self.ring_facts.saturating_sub(before.ring_facts),
            chain_missed: self.chain_missed.saturating_sub(before.chain_missed),
            chain_rescued: self.chain_rescued.saturating_sub(before.chain_rescued),
            other_missed: self.other_missed.saturating_sub(before.other_missed),
            call_map_full: self.call_map_full.saturating_sub(before.call_map_full),
            recorder: self.recorder.saturating_sub(before.recorder),
        }
    }
}

/// Everything that the tracker is fed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A TCP socket changed its state.
    Transition(Transition),
    /// A `TIME_WAIT` minisocket began.
    TimeWaitStart(TimeWaitEvent),
    /// A `TIME_WAIT` minisocket ended.
    TimeWaitEnd(TimeWaitEvent),
    /// A list of sockets that was begun at this time showed a minisocket in sub-state `FIN_WAIT2` for the first time, or no longer.
    TimeWaitListed(TimeWaitEvent),
    /// connect() or bind() returned an error.
    CallFailed(Box<CallFailed>),
    /// accept() returned a socket.
    Accepted(SocketEvent),
    /// bind() gave a socket a port.
    Bound(SocketEvent),
    /// A bound or listening socket was destroyed.
    Released(SocketEvent),
    /// Names of a process.
    Process(Box<ProcessFacts>),
    /// Limits of a network namespace.
    Netns(Box<NetnsFacts>),
    /// A connect() has found its port.
    PortSearch(PortSearch),
    /// Ports of a namespace that connect() never chooses, ascending.
    ReservedPorts(Ktime, Netns, Arc<[u16]>),
    /// A list of the sockets of a namespace.
    Baseline(Baseline),
    /// Totals of what was lost.
    Loss(LossCounts),
}
