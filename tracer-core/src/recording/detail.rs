//! Facts that few rows have, as JSON in the column `detail`: names of processes, limits of namespaces, counts of loss.
//!
//! A column for each would be null in nearly every row. Not for: facts of connections, which every row of a kind has;
//! these are columns.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::{AcceptQueue, Addr, Endpoint, KernelCounters, LossCounts, NetnsFacts, ProcessFacts};

/// Of `process`: who the process of the row is.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ProcessDetail {
    /// Nanoseconds since boot when it started.
    start_ns: u64,
    #[serde(skip_serializing_if = "is_unknown")]
    exec_id: u32,
    ppid: u32,
    uid: u32,
    parent_comm: Arc<str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cmdline: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exe: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup_path: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<Arc<str>>,
}

/// 0 is left out.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_unknown(number: &u32) -> bool {
    *number == 0
}

impl From<&ProcessFacts> for ProcessDetail {
    fn from(facts: &ProcessFacts) -> Self {
        Self {
            start_ns: facts.start,
            exec_id: facts.exec_id,
            ppid: facts.ppid,
            uid: facts.uid,
            parent_comm: Arc::clone(&facts.parent_comm),
            cmdline: facts.cmdline.clone(),
            exe: facts.exe.clone(),
            cgroup_path: facts.cgroup_path.clone(),
            unit: facts.unit.clone(),
            container: facts.container.clone(),
            pod: facts.pod.clone(),
            pool: facts.pool.clone(),
        }
    }
}

impl ProcessDetail {
    /// Adds these facts to those of the columns.
    pub fn complete(self, facts: ProcessFacts) -> ProcessFacts {
        ProcessFacts {
            start: self.start_ns,
            exec_id: self.exec_id,
            ppid: self.ppid,
            uid: self.uid,
            parent_comm: self.parent_comm,
            cmdline: self.cmdline,
            exe: self.exe,
            cgroup_path: self.cgroup_path,
            unit: self.unit,
            container: self.container,
            pod: self.pod,
            pool: self.pool,
            ..facts
        }
    }
}

/// Of `netns`: limits of the namespace of the row. A field that is a sysctl has the sysctl's name.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NetnsDetail {
    name: Option<Arc<str>>,
    cookie: Option<u64>,
    ip_local_port_range: Option<(u16, u16)>,
    tcp_tw_reuse: Option<u8>,
    tcp_tw_reuse_delay_ms: Option<u32>,
    tcp_timestamps: Option<bool>,
    tcp_max_tw_buckets: Option<u32>,
    tcp_fin_timeout_ms: Option<u32>,
    time_wait: Option<u32>,
    nf_conntrack_count: Option<u32>,
    nf_conntrack_max: Option<u32>,
    nf_conntrack_buckets: Option<u32>,
    counters: KernelCounters,
}

impl From<&NetnsFacts> for NetnsDetail {
    fn from(facts: &NetnsFacts) -> Self {
        Self {
            name: facts.name.clone(),
            cookie: facts.cookie,
            ip_local_port_range: facts.port_range,
            tcp_tw_reuse: facts.tw_reuse,
            tcp_tw_reuse_delay_ms: facts.tw_reuse_delay_ms,
            tcp_timestamps: facts.timestamps,
            tcp_max_tw_buckets: facts.max_tw_buckets,
            tcp_fin_timeout_ms: facts.fin_timeout_ms,
            time_wait: facts.time_wait,
            nf_conntrack_count: facts.conntrack.map(|(count, _)| count),
            nf_conntrack_max: facts.conntrack.map(|(_, max)| max),
            nf_conntrack_buckets: facts.conntrack_buckets,
            counters: facts.counters,
        }
    }
}

impl NetnsDetail {
    /// Adds these facts to those of the columns.
    pub fn complete(self, facts: &NetnsFacts) -> NetnsFacts {
        NetnsFacts {
            name: self.name,
            cookie: self.cookie,
            port_range: self.ip_local_port_range,
            tw_reuse: self.tcp_tw_reuse,
            tw_reuse_delay_ms: self.tcp_tw_reuse_delay_ms,
            timestamps: self.tcp_timestamps,
            max_tw_buckets: self.tcp_max_tw_buckets,
            fin_timeout_ms: self.tcp_fin_timeout_ms,
            time_wait: self.time_wait,
            conntrack: self.nf_conntrack_count.zip(self.nf_conntrack_max),
            conntrack_buckets: self.nf_conntrack_buckets,
            counters: self.counters,
            ktime: facts.ktime,
            netns: facts.netns,
        }
    }
}

/// Bytes of the longest list of ports: every second one, each with its comma.
pub const MAX_PORT_LIST: usize = 32_768 * 6;

/// Of `reserved_ports`: the ports as the sysctl writes them, `8080,9000-9010`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct ReservedPortsDetail {
    ports: String,
}

impl From<&[u16]> for ReservedPortsDetail {
    fn from(ports: &[u16]) -> Self {
        let mut text = String::new();
        for run in ports.chunk_by(|left, right| left.checked_add(1) == Some(*right)) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
            let comma = if text.is_empty() { "" } else { "," };
            let range = if first == last { format!("{comma}{first}") } else { format!("{comma}{first}-{last}") };
            text.push_str(&range);
        }
        Self { ports: text }
    }
}

impl ReservedPortsDetail {
    /// The ports, ascending; `None` if the text is no such list.
    pub fn ports(&self) -> Option<Arc<[u16]>> {
        let mut ports = Vec::new();
        for item in self.ports.split(',').filter(|item| !item.is_empty()) {
            let (low, high) = item.split_once('-').unwrap_or((item, item));
            let (low, high): (u16, u16) = (low.parse().ok()?, high.parse().ok()?);
            // Ascending ranges only: a hostile text cannot make the list longer than there are ports.
            if ports.last().is_some_and(|&last| low <= last) || low > high {
                return None;
            }
            ports.extend(low..=high);
        }
        Some(ports.into())
    }
}

/// Of `baseline`: the head of a list of sockets, whose rows follow as rows of kind `socket`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct BaselineDetail {
    /// The pass at the start of the trace, as opposed to a reconciling one.
    pub initial: bool,
    /// When the pass began: `CLOCK_MONOTONIC` nanoseconds.
    pub began_ns: u64,
    /// Rows of the list.
    pub sockets: u64,
}

/// Of any row: addresses that did not fit into the dictionaries of their columns.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OverflowAddresses {
    #[serde(skip_serializing_if = "Option::is_none")]
    local_addr: Option<std::net::IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_addr: Option<std::net::IpAddr>,
}

impl OverflowAddresses {
    /// `None` of a side whose address fits.
    pub fn new(local: Option<Addr>, remote: Option<Addr>) -> Self {
        Self { local_addr: local.map(Addr::ip), remote_addr: remote.map(Addr::ip) }
    }

    /// At least one address did not fit.
    pub fn any(&self) -> bool {
        self.local_addr.is_some() || self.remote_addr.is_some()
    }

    /// The local address, if it did not fit.
    pub fn local(&self) -> Option<Addr> {
        self.local_addr.map(Addr::from)
    }

    /// The remote address, if it did not fit.
    pub fn remote(&self) -> Option<Addr> {
        self.remote_addr.map(Addr::from)
    }
}

/// Of `transition`, `connect_failed` and `listen_failed`: the socket's own port range.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OwnRangeDetail {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub own_range: Option<(u16, u16)>,
    #[serde(flatten)]
    pub overflow: OverflowAddresses,
}

impl OwnRangeDetail {
    /// The row needs a detail.
    pub fn any(&self) -> bool {
        self.own_range.is_some() || self.overflow.any()
    }
}

/// Of `socket`, of a listening one: its queue.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ListenerDetail {
    waiting: Option<u32>,
    backlog: Option<u32>,
    #[serde(flatten)]
    overflow: OverflowAddresses,
}

impl ListenerDetail {
    pub fn new(queue: AcceptQueue, overflow: OverflowAddresses) -> Self {
        Self { waiting: Some(queue.waiting), backlog: Some(queue.backlog), overflow }
    }

    /// The queue; `None` if the row has none.
    pub fn queue(&self) -> Option<AcceptQueue> {
        Some(AcceptQueue { waiting: self.waiting?, backlog: self.backlog? })
    }
}

/// Of `bind_failed`: what bind() was asked for.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct BindFailedDetail {
    addr: Option<std::net::IpAddr>,
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    own_range: Option<(u16, u16)>,
    #[serde(flatten)]
    overflow: OverflowAddresses,
}

impl BindFailedDetail {
    /// `endpoint` is `None` if the arguments could not be read.
    pub fn new(endpoint: Option<Endpoint>, own_range: Option<(u16, u16)>, overflow: OverflowAddresses) -> Self {
        Self {
            addr: endpoint.map(|asked| asked.addr.ip()),
            port: endpoint.map(|asked| asked.port),
            own_range,
            overflow,
        }
    }

    /// `IP_LOCAL_PORT_RANGE` of the socket.
    pub fn own_range(&self) -> Option<(u16, u16)> {
        self.own_range
    }

    /// Address and port; `None` if the arguments could not be read.
    pub fn endpoint(&self) -> Option<Endpoint> {
        Some(Endpoint { addr: Addr::from(self.addr?), port: self.port? })
    }
}

/// Of `loss`: the counts of [`LossCounts`].
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LossDetail {
    ring_transitions: u64,
    ring_time_wait: u64,
    ring_calls: u64,
    ring_facts: u64,
    chain_missed: u64,
    chain_rescued: u64,
    other_missed: u64,
    call_map_full: u64,
    recorder: u64,
}

impl From<&LossCounts> for LossDetail {
    fn from(counts: &LossCounts) -> Self {
        Self {
            ring_transitions: counts.ring_transitions,
            ring_time_wait: counts.ring_time_wait,
            ring_calls: counts.ring_calls,
            ring_facts: counts.ring_facts,
            chain_missed: counts.chain_missed,
            chain_rescued: counts.chain_rescued,
            other_missed: counts.other_missed,
            call_map_full: counts.call_map_full,
            recorder: counts.recorder,
        }
    }
}

impl LossDetail {
    /// Adds these counts to the facts of the columns.
    pub fn complete(&self, counts: LossCounts) -> LossCounts {
        LossCounts {
            ring_transitions: self.ring_transitions,
            ring_time_wait: self.ring_time_wait,
            ring_calls: self.ring_calls,
            ring_facts: self.ring_facts,
            chain_missed: self.chain_missed,
            chain_rescued: self.chain_rescued,
            other_missed: self.other_missed,
            call_map_full: self.call_map_full,
            recorder: self.recorder,
            ..counts
        }
    }
}

/// Of `skipped`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct SkippedDetail {
    /// Records of the kernel that could not be decoded.
    pub records: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_ports_read_as_the_sysctl_and_come_back() {
        for (ports, text) in
            [(&[][..], ""), (&[8080], "8080"), (&[1, 2, 3, 8080, 65534, 65535], "1-3,8080,65534-65535")]
        {
            let detail = ReservedPortsDetail::from(ports);
            assert_eq!(detail.ports, text);
            assert_eq!(detail.ports().as_deref(), Some(ports));
        }
        for wrong in ["5-4", "1,1", "3,2", "70000", "x", "1-65535,1-65535"] {
            assert_eq!(ReservedPortsDetail { ports: wrong.into() }.ports(), None, "{wrong}");
        }
    }
}
