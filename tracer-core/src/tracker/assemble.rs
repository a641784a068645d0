//! Builds the snapshot from the tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::Tracker;
use super::findings::findings;
use super::lifecycle::millis;
use super::people::{AttrId, UNKNOWN, WorkloadId};
use super::ports::{Dest, DestId, netns_name};
use super::snapshot::{
    Attribution, Destination, Holder, Listener, Namespace, Ports, Process, Snapshot, StateSet, Victim, Workload,
};
use crate::event::{Ktime, TcpState};

/// Processes listed per workload, most connects first; the attributions hold the rest.
const MAX_PIDS: usize = 64;

/// What the flows of an attribution are doing now.
#[derive(Clone, Copy, Default)]
struct Present {
    oldest_close_wait: Option<Ktime>,
    oldest_established: Option<Ktime>,
    states: StateSet,
}

type AllPresent = FxHashMap<AttrId, Present>;

impl Tracker {
    pub(super) fn assemble(&self) -> Snapshot {
        let start = self.start.unwrap_or(self.now);
        let mut snapshot = Snapshot {
            generation: self.generation,
            start,
            now: self.now,
            events: self.event_counts(),
            workloads: Vec::new(),
            destinations: Vec::new(),
            attributions: Vec::new(),
            listeners: self.listeners(),
            namespaces: self.namespaces(),
            findings: Vec::new(),
            flows: self.flows.len() as u64,
            time_wait: self.ledger.len() as u64,
        };
        let present = self.present();
        snapshot.attributions = self.attributions(&present);
        snapshot.workloads = self.workloads(&present);
        snapshot.destinations = self.destinations(start);
        snapshot.findings = findings(&snapshot, &self.config.knobs, &self.config.thresholds);
        snapshot
    }

    fn present(&self) -> AllPresent {
        let mut present = AllPresent::default();
        for (_, flow) in self.flows.iter() {
            let Some(attr) = flow.attr else { continue };
            // A flow from before the start is at least as old as our first sight of it.
            let since = flow.state_since.or(self.start);
            let entry = present.entry(attr).or_default();
            entry.states.add(flow.state);
            match flow.state {
                TcpState::CloseWait => entry.oldest_close_wait = earlier(entry.oldest_close_wait, since),
                TcpState::Established => {
                    entry.oldest_established = earlier(entry.oldest_established, flow.established.or(since));
                }
                _ => {}
            }
        }
        present
    }

    fn window(&self) -> f64 {
        self.now.seconds_since(self.start.unwrap_or(self.now))
    }

    fn attributions(&self, present: &AllPresent) -> Vec<Attribution> {
        let mut list: Vec<Attribution> = self
            .people
            .attrs()
            .filter_map(|(id, attr)| {
                let dest = self.places.get(attr.dest?)?;
                let proc = self.people.proc(attr.proc)?;
                let Present { oldest_close_wait: close_wait, oldest_established: established, mut states } =
                    present.get(&id).copied().unwrap_or_default();
                if attr.cell.time_wait.now > 0 {
                    states.add(TcpState::TimeWait);
                }
                Some(Attribution {
                    workload: Arc::clone(&self.people.workload_entry(proc.workload)?.name),
                    pid: proc.facts.pid,
                    comm: Arc::clone(&proc.facts.comm),
                    cmdline: proc.facts.cmdline.clone(),
                    netns: dest.key.netns,
                    local_addr: dest.key.local_addr,
                    remote_addr: dest.key.remote_addr,
                    remote_port: dest.key.remote_port,
                    connects: attr.cell.connects,
                    established: attr.cell.established,
                    failed: attr.cell.failed.clone(),
                    active_closes: attr.cell.active_closes,
                    time_wait: attr.cell.time_wait_stats(self.window()),
                    close_wait: attr.cell.close_wait_stats(close_wait.map(|since| self.now.seconds_since(since))),
                    lifetime_ms: attr.cell.lifetime.summary(),
                    ports_held: u32::try_from(attr.cell.ports.now).unwrap_or(u32::MAX),
                    oldest_established_seconds: established.map(|since| self.now.seconds_since(since)),
                    states,
                    inferred: attr.inferred,
                })
            })
            .collect();
        list.sort_by(|a, b| {
            let order = |of: &Attribution| {
                (std::cmp::Reverse(of.connects), of.netns, of.local_addr, of.remote_addr, of.remote_port, of.pid)
            };
            order(a).cmp(&order(b))
        });
        list
    }

    fn workloads(&self, present: &AllPresent) -> Vec<Workload> {
        let mut processes: FxHashMap<WorkloadId, BTreeMap<u32, Process>> = FxHashMap::default();
        let mut oldest_close_wait: FxHashMap<WorkloadId, Option<Ktime>> = FxHashMap::default();
        for (id, attr) in self.people.attrs() {
            let Some(proc) = self.people.proc(attr.proc) else { continue };
            let process = processes.entry(proc.workload).or_default().entry(proc.facts.pid).or_default();
            process.pid = proc.facts.pid;
            process.cmdline.clone_from(&proc.facts.cmdline);
            process.connects += attr.cell.connects;
            process.failed.merge(&attr.cell.failed);
            let entry = oldest_close_wait.entry(proc.workload).or_default();
            *entry = earlier(*entry, present.get(&id).and_then(|present| present.oldest_close_wait));
        }
        let start = self.start.unwrap_or(self.now);
        let mut list: Vec<Workload> = self
            .people
            .workloads()
            .filter_map(|(id, entry)| {
                let cell = &entry.cell;
                // A workload without attributions has done nothing yet.
                let mut pids: Vec<Process> = processes.remove(&id)?.into_values().collect();
                pids.sort_by_key(|process| (std::cmp::Reverse(process.connects), process.pid));
                pids.truncate(MAX_PIDS);
                let facts = &entry.facts;
                let close_wait = oldest_close_wait.get(&id).copied().flatten();
                let unknown = &*entry.name == UNKNOWN;
                Some(Workload {
                    name: Arc::clone(&entry.name),
                    comm: (!unknown).then(|| Arc::clone(&facts.comm)),
                    exe: facts.exe.clone(),
                    unit: facts.unit.clone(),
                    container: facts.container.clone(),
                    cgroup: facts.cgroup_path.clone(),
                    netns: entry.netns.iter().copied().collect(),
                    pids,
                    connects: cell.connects,
                    established: cell.established,
                    failed: cell.failed.clone(),
                    accepted: cell.accepted,
                    closed: cell.closed,
                    active_closes: cell.active_closes,
                    passive_closes: cell.passive_closes,
                    resets: cell.resets,
                    time_wait: cell.time_wait_stats(self.window()),
                    close_wait: cell.close_wait_stats(close_wait.map(|since| self.now.seconds_since(since))),
                    lifetime_ms: cell.lifetime.summary(),
                    connect_ms: cell.connect.summary(),
                    ports_held: cell.ports.now,
                    connects_per_second: entry.rate.per_second(self.now, start),
                })
            })
            .collect();
        list.sort_by(|a, b| (b.connects, b.accepted, &a.name).cmp(&(a.connects, a.accepted, &b.name)));
        list
    }

    fn destinations(&self, start: Ktime) -> Vec<Destination> {
        let mut holders: FxHashMap<DestId, BTreeMap<Arc<str>, u32>> = FxHashMap::default();
        let mut victims: FxHashMap<DestId, BTreeMap<Arc<str>, u64>> = FxHashMap::default();
        for (_, attr) in self.people.attrs() {
            let Some(dest) = attr.dest else { continue };
            let name = self.people.proc(attr.proc).and_then(|proc| self.people.workload_entry(proc.workload));
            let Some(name) = name.map(|entry| &entry.name) else { continue };
            if attr.cell.ports.now > 0 {
                let held = u32::try_from(attr.cell.ports.now).unwrap_or(u32::MAX);
                *holders.entry(dest).or_default().entry(Arc::clone(name)).or_default() += held;
            }
            let failed = attr.cell.failed.without_port();
            if failed > 0 {
                *victims.entry(dest).or_default().entry(Arc::clone(name)).or_default() += failed;
            }
        }
        let mut list: Vec<Destination> = self
            .places
            .dests()
            .map(|(id, dest)| {
                let mut holders: Vec<Holder> = holders
                    .remove(&id)
                    .unwrap_or_default()
                    .into_iter()
                    .map(|(workload, ports)| Holder { workload, ports })
                    .collect();
                holders.sort_by(|a, b| (b.ports, &a.workload).cmp(&(a.ports, &b.workload)));
                let mut victims: Vec<Victim> = victims
                    .remove(&id)
                    .unwrap_or_default()
                    .into_iter()
                    .map(|(workload, failed)| Victim { workload, failed })
                    .collect();
                victims.sort_by(|a, b| (b.failed, &a.workload).cmp(&(a.failed, &b.workload)));
                self.destination(dest, start, holders, victims)
            })
            .collect();
        list.sort_by(|a, b| {
            let failed = |of: &Destination| of.failed.without_port();
            failed(b)
                .cmp(&failed(a))
                .then_with(|| b.ports.utilisation.unwrap_or(0.0).total_cmp(&a.ports.utilisation.unwrap_or(0.0)))
                .then_with(|| b.connects.cmp(&a.connects))
                .then_with(|| {
                    let key = |of: &Destination| (of.netns, of.local_addr, of.remote_addr, of.remote_port);
                    key(a).cmp(&key(b))
                })
        });
        list
    }

    fn destination(&self, dest: &Dest, start: Ktime, holders: Vec<Holder>, victims: Vec<Victim>) -> Destination {
        let capacity = self.places.capacity(dest);
        let forecast = self.places.forecast(dest, self.now, start);
        Destination {
            netns: dest.key.netns,
            netns_name: netns_name(&self.places, dest.key.netns),
            local_addr: dest.key.local_addr,
            remote_addr: dest.key.remote_addr,
            remote_port: dest.key.remote_port,
            ports: Ports {
                range: self.places.known_namespace(dest.key.netns).and_then(|namespace| namespace.facts.port_range),
                capacity,
                in_use: dest.in_use(),
                peak: dest.peak,
                utilisation: capacity
                    .filter(|&capacity| capacity > 0)
                    .map(|capacity| f64::from(dest.in_use()) / f64::from(capacity)),
                by_state: dest.states().collect(),
            },
            connects: dest.cell.connects,
            established: dest.cell.established,
            failed: dest.cell.failed.clone(),
            first_failure: dest.first_failure,
            last_failure: dest.last_failure,
            connects_per_second: forecast.per_second,
            sustainable_per_second: forecast.sustainable,
            seconds_to_exhaustion: forecast.exhausted_in,
            forecast_confidence: forecast.confidence,
            port_search_ms: dest.search.all.summary(),
            port_search_recent_ms: dest.search.median.map(millis),
            port_search_quickest_ms: dest.search.quickest.map(millis),
            holders,
            victims,
        }
    }

    fn listeners(&self) -> Vec<Listener> {
        let mut list: Vec<Listener> = self
            .bound
            .iter()
            .filter(|(_, bound)| bound.listening && bound.port != 0)
            .map(|(_, bound)| {
                let proc = bound.owner.and_then(|id| self.people.proc(id));
                let workload = proc.and_then(|proc| self.people.workload_entry(proc.workload));
                let namespace = self.places.known_namespace(bound.netns);
                Listener {
                    netns: bound.netns,
                    addr: bound.addr,
                    port: bound.port,
                    workload: workload.map(|entry| Arc::clone(&entry.name)),
                    pid: proc.map(|proc| proc.facts.pid).filter(|&pid| pid != 0),
                    accepted: bound.accepted,
                    in_ephemeral_range: namespace
                        .is_some_and(|namespace| namespace.in_range(bound.port) && !namespace.is_reserved(bound.port)),
                    syn_recv: bound.syn_recv,
                }
            })
            .collect();
        list.sort_by_key(|listener| (listener.netns, listener.port, listener.addr, listener.pid));
        list
    }

    fn namespaces(&self) -> Vec<Namespace> {
        let mut ledger: FxHashMap<_, (u64, u64)> = FxHashMap::default();
        for (_, entry) in self.ledger.iter() {
            let counts = ledger.entry(entry.key.netns).or_default();
            counts.0 += 1;
            counts.1 += u64::from(!entry.observed);
        }
        let mut list: Vec<Namespace> = self
            .places
            .namespaces()
            .map(|namespace| {
                let facts = &namespace.facts;
                let (time_wait, inferred) = ledger.get(&facts.netns).copied().unwrap_or_default();
                Namespace {
                    netns: facts.netns,
                    name: facts.name.clone(),
                    port_range: facts.port_range,
                    reserved: namespace.reserved(),
                    blocked: namespace.blocked(),
                    capacity: namespace.capacity(),
                    tw_reuse: facts.tw_reuse,
                    tw_reuse_delay_ms: facts.tw_reuse_delay_ms,
                    timestamps: facts.timestamps,
                    max_tw_buckets: facts.max_tw_buckets,
                    fin_timeout_ms: facts.fin_timeout_ms,
                    time_wait_kernel: facts.time_wait,
                    time_wait_ledger: time_wait,
                    time_wait_inferred: inferred,
                    conntrack: facts.conntrack,
                }
            })
            .collect();
        list.sort_by_key(|namespace| namespace.netns);
        list
    }
}

fn earlier(a: Option<Ktime>, b: Option<Ktime>) -> Option<Ktime> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
