//! What the tracker concluded, as an immutable value. Views (report, stream, tui, exporters) see this and nothing behind it.
//!
//! Field names are those of the `portchurn.report/1` contract wherever the contract has the field, so that text, JSON and
//! screen speak of the same thing. Durations are named with their unit; instants are [`Ktime`] and become wall time in
//! the view. What is not known is `None`.

pub mod detail;
mod state_set;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

pub use state_set::StateSet;

use crate::event::{Addr, DestinationKey, FlowKey, Ktime, Netns, TcpState};

/// Why a connect (or a bind to port 0) failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    /// No free port towards this destination from this source: the disease.
    PortsExhausted,
    /// The socket was bound to a port before connect() and this exact 4-tuple is in use.
    TupleTaken,
    /// No usable local address (IPv6 without any source, bind to a foreign address).
    NoLocalAddress,
    /// bind(port 0) found no free port for its source address (`EADDRINUSE`).
    BindExhausted,
    /// The application closed the socket before the handshake was over.
    Aborted,
    /// Any other errno, positive.
    Errno(u16),
    /// Failed inside connect() with an errno that nobody saw (no syscall hook).
    Unknown,
}

impl Failure {
    /// A name for reports: the errno's where it says the whole truth, else one of our own.
    pub fn name(self) -> String {
        match self {
            Self::PortsExhausted => "EADDRNOTAVAIL".into(),
            Self::TupleTaken => "TUPLE_TAKEN".into(),
            Self::NoLocalAddress => "NO_LOCAL_ADDRESS".into(),
            Self::BindExhausted => "BIND_EXHAUSTED".into(),
            Self::Aborted => "ABORTED".into(),
            Self::Unknown => "UNKNOWN".into(),
            Self::Errno(errno) => match errno_name(errno) {
                Some(name) => name.into(),
                None => format!("E{errno}"),
            },
        }
    }
}

/// Names of the errnos that connect(2) and bind(2) document, by their number on Linux (include/uapi/asm-generic/errno*.h).
fn errno_name(errno: u16) -> Option<&'static str> {
    Some(match errno {
        1 => "EPERM",
        4 => "EINTR",
        12 => "ENOMEM",
        13 => "EACCES",
        14 => "EFAULT",
        22 => "EINVAL",
        32 => "EPIPE",
        97 => "EAFNOSUPPORT",
        98 => "EADDRINUSE",
        99 => "EADDRNOTAVAIL_OTHER",
        100 => "ENETDOWN",
        101 => "ENETUNREACH",
        103 => "ECONNABORTED",
        104 => "ECONNRESET",
        105 => "ENOBUFS",
        106 => "EISCONN",
        110 => "ETIMEDOUT",
        111 => "ECONNREFUSED",
        112 => "EHOSTDOWN",
        113 => "EHOSTUNREACH",
        114 => "EALREADY",
        115 => "EINPROGRESS",
        _ => return None,
    })
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name())
    }
}

impl Serialize for Failure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name())
    }
}

/// Failures by reason.
pub type Failed = BTreeMap<Failure, u64>;

/// Everything concluded up to `now`.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Rises whenever anything changed.
    pub generation: u64,
    /// First instant observed.
    pub start: Ktime,
    pub now: Ktime,
    pub events: EventCounts,
    /// Most connects first.
    pub workloads: Vec<Workload>,
    /// Failing first, then fullest, then busiest.
    pub destinations: Vec<Destination>,
    /// Most connects first.
    pub attributions: Vec<Attribution>,
    pub listeners: Vec<Listener>,
    pub namespaces: Vec<Namespace>,
    /// Most severe first.
    pub findings: Vec<Finding>,
    /// Live flows (full sockets) and minisockets held in memory.
    pub flows: u64,
    pub time_wait: u64,
}

/// How complete the picture is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EventCounts {
    /// Events ingested.
    pub read: u64,
    pub lost: Lost,
    /// Records that could not be decoded.
    pub skipped: u64,
    /// Entries thrown out because a table was at its bound.
    pub evicted: u64,
    /// Flows and `TIME_WAIT` entries set right after a loss, by a later transition or by `sock_diag`.
    pub repaired: u64,
    /// Transitions written twice by the rescue chain and recognised.
    pub duplicates: u64,
}

/// Where events were lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// Records that found the ring buffer full.
    pub ring_full: u64,
    /// State transitions that every link of the chain missed.
    pub missed_runs: u64,
    /// Skipped runs of the programs beside the chain (timers, system calls): at most so many of their records are lost.
    pub other_runs: u64,
    /// Events that the recorder could not write.
    pub recorder: u64,
}

impl Lost {
    /// All of it.
    pub fn total(&self) -> u64 {
        [self.ring_full, self.missed_runs, self.other_runs, self.recorder].into_iter().fold(0, u64::saturating_add)
    }

    /// Anything at all?
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

/// A distribution of durations, milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Durations {
    pub count: u64,
    pub min: Option<f64>,
    pub mean: Option<f64>,
    pub p50: Option<f64>,
    pub p90: Option<f64>,
    pub p99: Option<f64>,
    pub max: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct TimeWaitStats {
    /// Minisockets that began in the window.
    pub entered: u64,
    pub now: u64,
    pub peak: u64,
    /// `entered` per second of the window.
    pub per_second: f64,
    /// Ended early because the 4-tuple was used again.
    pub reused: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct CloseWaitStats {
    pub now: u64,
    pub peak: u64,
    /// Age of the oldest one now.
    pub oldest_seconds: Option<f64>,
}

/// What is not known is `null`, and no process has the pid 0.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn known_pid<S: Serializer>(pid: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    (*pid != 0).then_some(*pid).serialize(serializer)
}

/// One process of a workload.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Process {
    /// 0 (null in JSON) stands for processes that have ended and were folded together to bound memory.
    #[serde(serialize_with = "known_pid")]
    pub pid: u32,
    pub cmdline: Option<Arc<str>>,
    pub connects: u64,
    pub failed: Failed,
}

/// Processes that an SRE thinks of as one.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Workload {
    pub name: Arc<str>,
    pub comm: Option<Arc<str>>,
    pub exe: Option<Arc<str>>,
    pub unit: Option<Arc<str>>,
    pub container: Option<Arc<str>>,
    /// cgroup path.
    pub cgroup: Option<Arc<str>>,
    /// Namespaces in which it has flows.
    pub netns: Vec<Netns>,
    /// Most connects first, bounded.
    pub pids: Vec<Process>,
    /// Attempts: each CLOSE -> `SYN_SENT`.
    pub connects: u64,
    pub established: u64,
    pub failed: Failed,
    pub accepted: u64,
    pub closed: u64,
    pub active_closes: u64,
    pub passive_closes: u64,
    pub resets: u64,
    pub time_wait: TimeWaitStats,
    pub close_wait: CloseWaitStats,
    pub lifetime_ms: Durations,
    pub connect_ms: Durations,
    /// Local ports towards ephemeral-port destinations held now (all states).
    pub ports_held: u64,
    /// Attempts per second over the last ten seconds.
    pub connects_per_second: f64,
}

/// Port occupancy towards one destination.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Ports {
    /// `ip_local_port_range`; `None` = unknown.
    pub range: Option<(u16, u16)>,
    /// Ports that connect() can really get: the even part of the range less reserved, bound and listening ports.
    pub capacity: Option<u32>,
    pub in_use: u32,
    pub peak: u32,
    /// `in_use / capacity`.
    pub utilisation: Option<f64>,
    pub by_state: BTreeMap<TcpState, u32>,
}

/// Who holds how many ports of a destination.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Holder {
    pub workload: Arc<str>,
    pub ports: u32,
}

/// Whose connects fail towards a destination for lack of a port.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Victim {
    pub workload: Arc<str>,
    pub failed: u64,
}

/// How much a forecast is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// The rate swung by more than half, or fewer than five seconds were seen.
    Low,
    /// The rate swung by a quarter to a half.
    Medium,
    High,
}

/// The scope in which a plain connect() runs out of ports: (netns, local address, remote address:port).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Destination {
    pub netns: Netns,
    pub netns_name: Option<Arc<str>>,
    pub local_addr: Addr,
    pub remote_addr: Addr,
    pub remote_port: u16,
    pub ports: Ports,
    pub connects: u64,
    pub established: u64,
    pub failed: Failed,
    #[serde(skip)]
    pub first_failure: Option<Ktime>,
    #[serde(skip)]
    pub last_failure: Option<Ktime>,
    /// Attempts per second over the last ten seconds of the window.
    pub connects_per_second: f64,
    /// The rate that this destination's capacity bears for good, given how long a port is held; `None` = unknown.
    pub sustainable_per_second: Option<f64>,
    /// 0 = exhausted now; `None` = not at this rate, or unknown.
    pub seconds_to_exhaustion: Option<f64>,
    pub forecast_confidence: Option<Confidence>,
    /// How long connect() searched for a port, failed searches included; empty where no hook tells.
    pub port_search_ms: Durations,
    /// Median of the latest searches, and the quickest that it ever was; `None` before there were enough.
    pub port_search_recent_ms: Option<f64>,
    pub port_search_quickest_ms: Option<f64>,
    /// Most ports first.
    pub holders: Vec<Holder>,
    /// Most failures first.
    pub victims: Vec<Victim>,
}

impl Destination {
    /// The identity of the destination.
    pub fn key(&self) -> DestinationKey {
        let Self { netns, local_addr, remote_addr, remote_port, .. } = *self;
        DestinationKey { netns, local_addr, remote_addr, remote_port }
    }
}

/// Who does what to whom: one process towards one destination.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Attribution {
    pub workload: Arc<str>,
    /// 0 (null in JSON) = unknown.
    #[serde(serialize_with = "known_pid")]
    pub pid: u32,
    pub comm: Arc<str>,
    #[serde(skip)]
    pub cmdline: Option<Arc<str>>,
    pub netns: Netns,
    pub local_addr: Addr,
    pub remote_addr: Addr,
    pub remote_port: u16,
    pub connects: u64,
    pub established: u64,
    pub failed: Failed,
    pub active_closes: u64,
    pub time_wait: TimeWaitStats,
    pub close_wait: CloseWaitStats,
    pub lifetime_ms: Durations,
    /// Ports held now, all states.
    pub ports_held: u32,
    /// Age of the oldest established flow now.
    pub oldest_established_seconds: Option<f64>,
    /// That its flows are in now.
    #[serde(skip)]
    pub states: StateSet,
    /// The owner is a guess (a listener in place of the process that accepted, an owner from /proc).
    pub inferred: bool,
}

impl Attribution {
    /// The destination that the process connects to.
    pub fn key(&self) -> DestinationKey {
        let Self { netns, local_addr, remote_addr, remote_port, .. } = *self;
        DestinationKey { netns, local_addr, remote_addr, remote_port }
    }
}

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Listener {
    pub netns: Netns,
    pub addr: Addr,
    pub port: u16,
    pub workload: Option<Arc<str>>,
    pub pid: Option<u32>,
    pub accepted: u64,
    /// Inside the namespace's ephemeral range and not reserved: connect() may take the port while nobody listens.
    pub in_ephemeral_range: bool,
    /// Half-open connections at the last pass of `sock_diag`, which alone sees them; `None` = not looked yet.
    pub syn_recv: Option<u32>,
}

/// One network namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Namespace {
    pub netns: Netns,
    pub name: Option<Arc<str>>,
    pub port_range: Option<(u16, u16)>,
    /// Ports of the range that are reserved, and that are held by bind() or listen().
    pub reserved: u32,
    pub blocked: u32,
    pub capacity: Option<u32>,
    pub tw_reuse: Option<u8>,
    pub tw_reuse_delay_ms: Option<u32>,
    pub timestamps: Option<bool>,
    pub max_tw_buckets: Option<u32>,
    pub fin_timeout_ms: Option<u32>,
    /// The kernel's own count, where it could be read.
    pub time_wait_kernel: Option<u32>,
    /// Our ledger's count, and how many of its entries are inferred rather than observed.
    pub time_wait_ledger: u64,
    pub time_wait_inferred: u64,
    pub conntrack: Option<(u32, u32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Critical,
    Warning,
    Info,
}

/// One thing to do about a finding.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Advice {
    /// The action, as a command or a change to make.
    #[serde(rename = "do")]
    pub action: String,
    pub why: String,
    /// What will be different, with numbers where they are known.
    pub expected: String,
}

/// A conclusion worth a sentence.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Stable identifier, e.g. `port-exhaustion`.
    pub id: &'static str,
    pub severity: Severity,
    /// One sentence with the numbers in it.
    pub summary: String,
    #[serde(skip)]
    pub since: Option<Ktime>,
    /// The facts behind it, machine-readable.
    pub evidence: BTreeMap<&'static str, serde_json::Value>,
    pub advice: Vec<Advice>,
}

/// Who began a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Opened {
    /// This side sent the SYN.
    Active,
    /// A listener of this side accepted it.
    Passive,
    /// It existed before we started and its ports do not tell.
    Unknown,
}

/// How a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// This side sent the first FIN and owns `TIME_WAIT`.
    ActiveClose,
    PassiveClose,
    /// Both sent a FIN before seeing the other's.
    SimultaneousClose,
    /// The peer sent RST.
    ResetByPeer,
    /// This side dropped it without a FIN (linger 0, unread data, AF_UNSPEC, `ss -K`).
    ResetByUs,
    TimedOut,
    /// It failed before it was established.
    ConnectFailed,
    /// A transition was lost; the end is known, its kind is not.
    Unknown,
}

/// Who a flow belongs to, as a notice shows it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Owner {
    pub pid: u32,
    pub comm: Arc<str>,
    pub workload: Arc<str>,
    pub inferred: bool,
}

/// A flow is over (its full socket is; `TIME_WAIT` may follow).
#[derive(Clone, Debug, PartialEq)]
pub struct FlowEnd {
    pub ktime: Ktime,
    pub key: FlowKey,
    pub owner: Option<Owner>,
    pub opened: Opened,
    pub ended: Ended,
    /// First transition to CLOSE, milliseconds; `None` if it began before we did.
    pub lifetime_ms: Option<f64>,
    /// `SYN_SENT` to ESTABLISHED.
    pub connect_ms: Option<f64>,
    /// Set right after a loss.
    pub repaired: bool,
    /// A minisocket holds the 4-tuple now.
    pub time_wait: bool,
}

/// A connect (or bind to port 0) failed.
#[derive(Clone, Debug, PartialEq)]
pub struct FailedConnect {
    pub ktime: Ktime,
    pub failure: Failure,
    pub key: FlowKey,
    pub owner: Option<Owner>,
    pub tid: u32,
    /// The return value of the system call confirmed the reason; otherwise it was concluded from transitions alone.
    pub confirmed: bool,
    /// From the first transition (or syscall entry) to the failure, milliseconds.
    pub after_ms: Option<f64>,
}

/// A transition with its owner.
#[derive(Clone, Debug, PartialEq)]
pub struct StateChange {
    pub ktime: Ktime,
    pub key: FlowKey,
    pub owner: Option<Owner>,
    pub old: TcpState,
    pub new: TcpState,
    /// Time spent in `old`, milliseconds.
    pub dwell_ms: Option<f64>,
}

/// What `Tracker::ingest` has to tell as it happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    FlowEnd(FlowEnd),
    FailedConnect(FailedConnect),
    StateChange(StateChange),
}

/// Notices cost time, memory of the past costs memory; only what somebody reads is made.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent wishes")]
pub struct NoticeKinds {
    pub transitions: bool,
    pub flows: bool,
    pub failures: bool,
    /// What [`detail::Details`] tells of the past.
    pub history: bool,
}
