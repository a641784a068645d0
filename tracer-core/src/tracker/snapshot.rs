//! What the tracker concluded, as an immutable value. Views (report, stream, screen, exports) see this and nothing behind it.
//!
//! Field names are those of the `portchurn.report/1` contract wherever the contract has the field, so that text, JSON and
//! screen use the same words. Durations have their unit in their name; instants are [`Ktime`] and become wall time in
//! the view. What is not known is `None`.

mod completeness;
pub mod detail;
mod failure;
mod filtered;
mod finding;
mod notice;
mod others;
mod state_set;
mod taken_port;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Serialize, Serializer};

pub use completeness::{EventCounts, Lost, WindowCoverage};
pub use failure::{Failure, FailureCounts};
pub use filtered::{AppliedFilter, Outside};
pub use finding::{
    Advice, Finding, FindingId, FindingLife, FindingState, FindingSubject, Measure, Peak, Severity, UnknownFinding,
};
pub use notice::{Ended, FailedConnect, FlowEnd, Notice, NoticeKinds, OpenFlow, Opened, Owner, StateChange};
pub use others::{OtherAttributions, OtherDestinations, OtherNamespaces, Others};
pub use state_set::StateSet;
pub use taken_port::{PortHolder, TakenPort};

use super::port_buckets::Blocked;
use crate::damage::Damage;
use crate::event::{Addr, DestinationKey, KernelCounters, Ktime, Netns, TcpState};

/// Everything concluded up to `now`.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Rises whenever anything changed.
    pub generation: u64,
    /// First instant observed.
    pub start: Ktime,
    /// The end of the window: the last instant that the clock reached.
    pub now: Ktime,
    /// How complete the picture is.
    pub events: EventCounts,
    /// What of the recording could not be read; `None` if all of it was, and of a live trace.
    pub damage: Option<Damage>,
    /// What of its recording this is; `None` of a live trace and of a recording that was read whole from one file.
    pub coverage: Option<WindowCoverage>,
    /// Most connects first.
    pub workloads: Vec<Workload>,
    /// Failing first, then fullest, then busiest.
    pub destinations: Vec<Destination>,
    /// Most connects first.
    pub attributions: Vec<Attribution>,
    /// Listening sockets, by namespace, port and address.
    pub listeners: Vec<Listener>,
    /// Network namespaces in which something was seen.
    pub namespaces: Vec<Namespace>,
    /// What has no row in these lists.
    pub others: Others,
    /// Ports that were asked for by number and not got, the latest first, bounded.
    pub taken_ports: Vec<TakenPort>,
    /// Those that hold now, most severe first, then those that are over, latest first.
    pub findings: Vec<Finding>,
    /// Findings that are over and were forgotten, because there were too many.
    pub findings_forgotten: u64,
    /// Full sockets alive now.
    pub flows: u64,
    /// Minisockets in `TIME_WAIT` alive now.
    pub time_wait: u64,
    /// The filter that everything here is inside of; `None` = this is all.
    pub filter: Option<AppliedFilter>,
    /// Minisockets in `FIN_WAIT2` alive now: closed by this side and not by the peer.
    pub orphans: u64,
}

impl Snapshot {
    /// Seconds of the window, without those that no file has: what counts are divided by.
    pub fn recorded_seconds(&self) -> f64 {
        let missing = self.coverage.as_ref().map_or(0, |coverage| coverage.gap_nanos);
        (self.now.seconds_since(self.start) - missing as f64 / 1e9).max(0.0)
    }
}

/// A distribution of durations, milliseconds. All but `count` are `None` where nothing was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Durations {
    /// How many were measured.
    pub count: u64,
    /// The shortest.
    pub min: Option<f64>,
    /// The arithmetic mean.
    pub mean: Option<f64>,
    /// The median.
    pub p50: Option<f64>,
    /// Nine of ten are not longer.
    pub p90: Option<f64>,
    /// 99 of 100 are not longer.
    pub p99: Option<f64>,
    /// The longest.
    pub max: Option<f64>,
}

impl Durations {
    /// All durations of `parts` together. Count, ends and mean are exact. Percentiles of a single part are its own; those of several
    /// are interpolated from the percentiles of each.
    pub fn merged<'a>(parts: impl Iterator<Item = &'a Self>) -> Self {
        let parts: Vec<&Self> = parts.filter(|part| part.count > 0).collect();
        if let [only] = parts[..] {
            return *only;
        }
        let count: u64 = parts.iter().map(|part| part.count).sum();
        let sum = |of: fn(&Self) -> Option<f64>| {
            parts.iter().filter_map(|part| Some(of(part)? * part.count as f64)).sum::<f64>()
        };
        let least = parts.iter().filter_map(|part| part.min).reduce(f64::min);
        let most = parts.iter().filter_map(|part| part.max).reduce(f64::max);
        let quantile = |share: f64| {
            let (mut low, mut high) = (least?.max(f64::MIN_POSITIVE), most?);
            let below = |value: f64| parts.iter().map(|part| part.share_below(value) * part.count as f64).sum::<f64>();
            // Halves the distance forty times, on the scale that durations differ on: by factors.
            for _ in 0..40 {
                let middle = (low * high).sqrt();
                if below(middle) < share * count as f64 { low = middle } else { high = middle }
            }
            Some(high)
        };
        if count == 0 {
            return Self::default();
        }
        Self {
            count,
            min: least,
            mean: Some(sum(|part| part.mean) / count as f64),
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            max: most,
        }
    }

    /// The share of the durations that are not longer than `value`: between two percentiles as if it grew evenly.
    fn share_below(&self, value: f64) -> f64 {
        let known = [(self.min, 0.0), (self.p50, 0.5), (self.p90, 0.9), (self.p99, 0.99), (self.max, 1.0)];
        let mut before: Option<(f64, f64)> = None;
        for (at, share) in known.into_iter().filter_map(|(at, share)| Some((at?, share))) {
            if value < at {
                let Some((from, below)) = before else { return 0.0 };
                let way = if at > from { (value - from) / (at - from) } else { 1.0 };
                return below + way * (share - below);
            }
            before = Some((at, share));
        }
        1.0
    }
}

/// Minisockets. Those in sub-state `FIN_WAIT2` count as entered; now and at the peak they are `orphans`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct TimeWaitStats {
    /// Minisockets that began in the window.
    pub entered: u64,
    /// In `TIME_WAIT` now.
    pub now: u64,
    /// Held at once, at most.
    pub peak: u64,
    /// `entered` per second of the window.
    pub per_second: f64,
    /// Ended early because the 4-tuple was used again.
    pub reused: u64,
}

/// Sockets in `CLOSE_WAIT`: the peer has closed, the program has not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct CloseWaitStats {
    /// Held now.
    pub now: u64,
    /// Held at once, at most.
    pub peak: u64,
    /// Age of the oldest one now; `None` = there is none, or its begin was not seen.
    pub oldest_seconds: Option<f64>,
}

/// Writes an unknown pid (0, which no process has) as `null`.
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
    /// Its command line, arguments separated by blanks.
    pub cmdline: Option<Arc<str>>,
    /// Attempts to connect.
    pub connects: u64,
    /// Failed attempts by reason.
    pub failed: FailureCounts,
}

/// Processes that an SRE thinks of as one: a service, a container, a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Workload {
    /// The name by which processes are grouped.
    pub name: Arc<str>,
    /// The kernel's name of its first process; `None` = unknown.
    pub comm: Option<Arc<str>>,
    /// Path of that process's executable; `None` = unknown.
    pub exe: Option<Arc<str>>,
    /// systemd unit.
    pub unit: Option<Arc<str>>,
    /// Container, as `runtime:id` with a short id.
    pub container: Option<Arc<str>>,
    /// Pod of Kubernetes: `namespace/pod/container` where this host's log links name it, `namespace/pod` for its sandbox,
    /// else its UID.
    pub pod: Option<Arc<str>>,
    /// Path of the cgroup.
    pub cgroup: Option<Arc<str>>,
    /// Namespaces in which it has flows.
    pub netns: Vec<Netns>,
    /// Most connects first, bounded.
    pub pids: Vec<Process>,
    /// Attempts to connect: each CLOSE -> `SYN_SENT`.
    pub connects: u64,
    /// Attempts that were established.
    pub established: u64,
    /// Failed attempts by reason.
    pub failed: FailureCounts,
    /// Connections that reached its listeners or that it took by accept().
    pub accepted: u64,
    /// Flows that ended, whoever began them.
    pub closed: u64,
    /// Of these, closed first by this side.
    pub active_closes: u64,
    /// Of these, closed first by the peer.
    pub passive_closes: u64,
    /// Of these, ended by RST.
    pub resets: u64,
    /// Its minisockets.
    pub time_wait: TimeWaitStats,
    /// Its sockets that the peer has closed.
    pub close_wait: CloseWaitStats,
    /// Its sockets and minisockets now, by state.
    pub by_state: BTreeMap<TcpState, u32>,
    /// Of `FIN_WAIT2`: minisockets. This side has closed and the peer has not.
    pub orphans: u32,
    /// Of `FIN_WAIT2`: full sockets, which a process has shut down and keeps.
    pub half_closed: u32,
    /// Processes that had its flows open when /proc was last read, accepted ones too, and are not those that opened or accepted them. Most
    /// flows first, bounded.
    pub held_by: Vec<PresentHolder>,
    /// How long its flows lived.
    pub lifetime_ms: Durations,
    /// How long its connects took, from `SYN_SENT` to ESTABLISHED.
    pub connect_ms: Durations,
    /// Local ports held now towards its destinations, in any state.
    pub ports_held: u64,
    /// Attempts per second over the last ten seconds.
    pub connects_per_second: f64,
    /// This row stands for about so many workloads that have none of their own; `None` = it is one workload.
    pub stands_for: Option<u64>,
}

/// Port occupancy towards one destination.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Ports {
    /// `ip_local_port_range`; `None` = unknown.
    pub range: Option<(u16, u16)>,
    /// Ports that can be in use towards this destination at once: those of the range in force that are neither reserved nor closed by
    /// bind(), listen() or accepted sockets, and those in use here all the same. Never below `in_use`.
    pub capacity: Option<u32>,
    /// Ports of the range in force that are held now.
    pub in_use: u32,
    /// `capacity - in_use`: ports that connect() could choose now; `None` = unknown.
    pub free: Option<u32>,
    /// Ports held outside of the range in force, which cost nothing.
    pub outside_range: u32,
    /// Local ports held at once, at most.
    pub peak: u32,
    /// `in_use / capacity`; `None` = unknown.
    pub utilisation: Option<f64>,
    /// `in_use` by the state of the socket.
    pub by_state: BTreeMap<TcpState, u32>,
    /// Of `FIN_WAIT2`: minisockets, as the latest list of sockets showed them (one a second). This side has closed and the peer has not:
    /// they end by tcp_fin_timeout, and no connect() takes them over.
    pub orphans: u32,
    /// Of `TIME_WAIT`: minisockets of peers without TCP timestamps, which no connect() takes over.
    pub without_timestamps: u32,
    /// Of `FIN_WAIT2`: full sockets. A process has shut down its side and keeps the descriptor, so that no timeout ends them.
    pub half_closed: u32,
    /// Connects that failed for lack of a port while `free` was not 0: a limit of the socket's own, or a holder that nobody can see.
    pub contradictions: u64,
    /// Connects that failed for lack of a port in a range of the socket's own (`IP_LOCAL_PORT_RANGE`); part of `failed`.
    pub failed_own_range: u64,
    /// The range of the socket that failed last so.
    pub own_range: Option<(u16, u16)>,
    /// `in_use` is a lower bound: the destination has just got a row of its own, and the rest of its namespace may still count some.
    pub at_least: bool,
}

/// Who holds how many ports of a destination.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Holder {
    /// Name of the workload.
    pub workload: Arc<str>,
    /// Local ports that it holds now.
    pub ports: u32,
}

/// Whose connects fail towards a destination for lack of a port.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Victim {
    /// Name of the workload.
    pub workload: Arc<str>,
    /// Its connects that failed for lack of a port.
    pub failed: u64,
    /// Of these, in a range of the socket's own: nobody else is harmed.
    pub failed_own_range: u64,
    /// Users that its processes run as, ascending, bounded.
    pub uids: Vec<u32>,
}

/// How much a forecast is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// The interval is wider than the forecast itself, or fewer than five seconds were seen.
    Low,
    /// The interval is up to as wide as the forecast, or open at its end.
    Medium,
    /// The interval is at most half as wide as the forecast.
    High,
}

/// The scope in which a plain connect() runs out of ports: (netns, local address, remote address:port).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Destination {
    /// Network namespace of the connecting sockets.
    pub netns: Netns,
    /// Its name under `/run/netns`, if it has one.
    pub netns_name: Option<Arc<str>>,
    /// Source address.
    pub local_addr: Addr,
    /// Destination address.
    pub remote_addr: Addr,
    /// Destination port.
    pub remote_port: u16,
    /// Its ephemeral ports.
    pub ports: Ports,
    /// Attempts to connect.
    pub connects: u64,
    /// Attempts that were established.
    pub established: u64,
    /// Failed attempts by reason.
    pub failed: FailureCounts,
    /// First failure for lack of a port.
    #[serde(skip)]
    pub first_failure: Option<Ktime>,
    /// Last failure for lack of a port.
    #[serde(skip)]
    pub last_failure: Option<Ktime>,
    /// First of the failures for lack of a port that followed one another closely; `None` = never.
    #[serde(skip)]
    pub failing_since: Option<Ktime>,
    /// Connects and failures before this were counted in the rest of the namespace ([`Others`]); `None` = all are counted here.
    #[serde(skip)]
    pub counted_since: Option<Ktime>,
    /// Attempts per second over the last ten seconds of the window.
    pub connects_per_second: f64,
    /// The rate that this destination's capacity bears for good, given how long a port is held; `None` = unknown.
    pub sustainable_per_second: Option<f64>,
    /// The probability that the ports run out within the next three minutes; `None` = unknown.
    pub exhaustion_probability: Option<f64>,
    /// Until the ports run out, as likely earlier as later; 0 = exhausted now; `None` = not to be expected, or unknown.
    pub seconds_to_exhaustion: Option<f64>,
    /// They run out earlier than this with a probability of 5 %; `None` = not within three minutes, or unknown.
    pub exhaustion_soonest_seconds: Option<f64>,
    /// They run out later than this, or not at all, with a probability of 5 %; `None` = that may be after the next three minutes.
    pub exhaustion_latest_seconds: Option<f64>,
    /// How much that forecast is worth; `None` without one.
    pub forecast_confidence: Option<Confidence>,
    /// How long connect() searched for a port, failed searches included; empty where no hook tells.
    pub port_search_ms: Durations,
    /// Median of the latest searches; `None` before there were enough.
    pub port_search_recent_ms: Option<f64>,
    /// The lowest that this median ever was; `None` before there were enough.
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

/// A process that has flows open which another one opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PresentHolder {
    /// The process.
    pub pid: u32,
    /// The kernel's name of the process.
    pub comm: Arc<str>,
    /// How many flows.
    pub flows: u32,
}

/// What one process does towards one destination.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Attribution {
    /// Name of the process's workload.
    pub workload: Arc<str>,
    /// 0 (null in JSON) = unknown.
    #[serde(serialize_with = "known_pid")]
    pub pid: u32,
    /// The kernel's name of the process.
    pub comm: Arc<str>,
    /// The user that it runs as; `None` = unknown, or several processes.
    pub uid: Option<u32>,
    /// Its command line, arguments separated by blanks.
    #[serde(skip)]
    pub cmdline: Option<Arc<str>>,
    /// Network namespace of its sockets.
    pub netns: Netns,
    /// Source address.
    pub local_addr: Addr,
    /// Destination address.
    pub remote_addr: Addr,
    /// Destination port.
    pub remote_port: u16,
    /// Attempts to connect.
    pub connects: u64,
    /// Attempts that were established.
    pub established: u64,
    /// Failed attempts by reason.
    pub failed: FailureCounts,
    /// First failure for lack of a port.
    #[serde(skip)]
    pub first_failure: Option<Ktime>,
    /// Last failure for lack of a port.
    #[serde(skip)]
    pub last_failure: Option<Ktime>,
    /// Attempts per second over the last ten seconds of the window.
    pub connects_per_second: f64,
    /// Connections that it accepted on an address that it connects from too.
    pub accepted: u64,
    /// Flows that ended, whoever began them.
    pub closed: u64,
    /// Flows that this side closed first.
    pub active_closes: u64,
    /// Flows that the peer closed first.
    pub passive_closes: u64,
    /// Flows that ended by RST.
    pub resets: u64,
    /// Full sockets alive now.
    pub flows: u64,
    /// Its minisockets.
    pub time_wait: TimeWaitStats,
    /// Its sockets that the peer has closed.
    pub close_wait: CloseWaitStats,
    /// Its sockets and minisockets now, by state.
    pub by_state: BTreeMap<TcpState, u32>,
    /// Of `FIN_WAIT2`: minisockets. This side has closed and the peer has not.
    pub orphans: u32,
    /// Of `FIN_WAIT2`: full sockets, which a process has shut down and keeps.
    pub half_closed: u32,
    /// How long its flows lived.
    pub lifetime_ms: Durations,
    /// How long its connects took, from `SYN_SENT` to ESTABLISHED.
    pub connect_ms: Durations,
    /// Local ports held now, in any state.
    pub ports_held: u32,
    /// Age of the oldest established flow now; `None` = there is none.
    pub oldest_established_seconds: Option<f64>,
    /// Other processes that had its flows open when /proc was last read: descriptors were passed on or inherited. Most flows first,
    /// bounded.
    pub held_by: Vec<PresentHolder>,
    /// The owner was concluded (a listener in place of the process that accepted, an owner from /proc), not seen.
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
    /// Its network namespace.
    pub netns: Netns,
    /// The address that it listens on; unspecified = on all.
    pub addr: Addr,
    /// The port that it listens on.
    pub port: u16,
    /// Name of the workload that listens; `None` = unknown.
    pub workload: Option<Arc<str>>,
    /// The process that listens; `None` = unknown.
    pub pid: Option<u32>,
    /// Connections that accept() took from it.
    pub accepted: u64,
    /// Connections that waited in its accept queue at the last pass of `sock_diag`; `None` = not looked yet.
    pub queued: Option<u32>,
    /// How many may wait there; `None` = not looked yet.
    pub backlog: Option<u32>,
    /// Waiting connections that the peer has closed already; `None` = unknown: several listeners share the address, and which of them
    /// has these is not known.
    pub close_wait: Option<u32>,
    /// Inside the namespace's ephemeral range and not reserved: connect() may take the port while nobody listens.
    pub in_ephemeral_range: bool,
    /// Half-open connections at the last pass of `sock_diag`, which alone sees them; `None` = not looked yet.
    pub syn_recv: Option<u32>,
}

/// One network namespace.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Namespace {
    /// Its inode number (and cookie).
    pub netns: Netns,
    /// Its name under `/run/netns`, if it has one.
    pub name: Option<Arc<str>>,
    /// `net.ipv4.ip_local_port_range`; `None` = unknown.
    pub port_range: Option<(u16, u16)>,
    /// Ports of the range that `net.ipv4.ip_local_reserved_ports` reserves.
    pub reserved: u32,
    /// Ports of the range that connect() cannot choose because of bind(), listen(), or connections that a listener accepted.
    pub blocked: u32,
    /// The same by the strongest reason of each port.
    pub blocked_by: Blocked,
    /// Ports that connect() can get towards each destination; `None` = unknown.
    pub capacity: Option<u32>,
    /// `net.ipv4.tcp_tw_reuse`: 0 off, 1 on, 2 loopback only; `None` = unknown.
    pub tw_reuse: Option<u8>,
    /// `net.ipv4.tcp_tw_reuse_delay`; `None` = this kernel has no such setting.
    pub tw_reuse_delay_ms: Option<u32>,
    /// `net.ipv4.tcp_timestamps`; `None` = unknown.
    pub timestamps: Option<bool>,
    /// `net.ipv4.tcp_max_tw_buckets`; `None` = unknown.
    pub max_tw_buckets: Option<u32>,
    /// `net.ipv4.tcp_fin_timeout`; `None` = unknown.
    pub fin_timeout_ms: Option<u32>,
    /// Minisockets by the kernel's own count (`/proc/net/sockstat`), where it could be read.
    pub time_wait_kernel: Option<u32>,
    /// Minisockets by the tracker's count.
    pub time_wait_ledger: u64,
    /// How many of these were concluded, not seen.
    pub time_wait_inferred: u64,
    /// Entries of the connection-tracking table and its limit; `None` = the module is not there.
    pub conntrack: Option<(u32, u32)>,
    /// Chains of the connection-tracking table (`nf_conntrack_buckets`); `None` = unknown.
    pub conntrack_buckets: Option<u32>,
    /// What the kernel has counted there since the trace began.
    pub counters: KernelCounters,
}
