//! What the tracker concluded, as an immutable value. Views (report, stream, tui, exporters) see this and nothing behind it.
//!
//! Field names are those of the `portchurn.report/1` contract wherever the contract has the field, so that text, JSON and
//! screen speak of the same thing. Durations are named with their unit; instants are [`Ktime`] and become wall time in
//! the view. What is not known is `None`.

mod completeness;
pub mod detail;
mod failure;
mod finding;
mod state_set;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Serialize, Serializer};

pub use completeness::{EventCounts, Lost};
pub use failure::{Failure, FailureCounts};
pub use finding::{Advice, Finding, FindingId, FindingSubject, Severity, UnknownFinding};
pub use state_set::StateSet;

use crate::event::{Addr, DestinationKey, FlowKey, Ktime, Netns, TcpState};

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
    pub failed: FailureCounts,
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
    pub failed: FailureCounts,
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
    pub failed: FailureCounts,
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
    pub failed: FailureCounts,
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
