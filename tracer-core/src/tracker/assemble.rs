//! Builds the snapshot from the tables.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::forecast::{AllNotReusable, Forecast, NotReusable, forecasts};
use super::port_buckets::PortClass;
use super::snapshot::{
    Attribution, Destination, Failure, Holder, Listener, Namespace, OtherAttributions, OtherDestinations,
    OtherNamespaces, Others, Ports, PresentHolder, Process, Snapshot, TakenPort, Victim, Workload,
};
use super::tables::Tables;
use super::tables::attributions::AttributionId;
use super::tables::bound_sockets::BoundSocketId;
use super::tables::counters::Counters;
use super::tables::destinations::{DestinationEntry, DestinationId};
use super::tables::outbox::millis;
use super::tables::processes::{UNKNOWN, WorkloadId};
use crate::event::{Ktime, Netns, TcpState};

/// Processes listed per workload, most connects first; the attributions hold the rest.
const MAX_PIDS: usize = 64;
/// Users listed per workload whose connects fail.
const MAX_UIDS: usize = 8;
/// Present holders listed per attribution; a pre-forking service has hundreds.
const MAX_HOLDERS: usize = 8;

/// What the sockets of an attribution are doing now.
#[derive(Clone, Copy, Default)]
struct Present {
    oldest_close_wait: Option<Ktime>,
    oldest_established: Option<Ktime>,
    /// Full sockets by state number.
    flows: [u32; 13],
    orphans: u32,
}

impl Present {
    fn flows(&self) -> u64 {
        self.flows.iter().map(|&flows| u64::from(flows)).sum()
    }

    fn half_closed(&self) -> u32 {
        self.flows[usize::from(TcpState::FinWait2 as u8)]
    }

    /// Sockets and minisockets by state. `time_wait`: minisockets in `TIME_WAIT`.
    fn by_state(&self, time_wait: u64) -> BTreeMap<TcpState, u32> {
        let count = |state| match state {
            TcpState::TimeWait => u32::try_from(time_wait).unwrap_or(u32::MAX),
            TcpState::FinWait2 => self.half_closed() + self.orphans,
            other => self.flows[usize::from(other as u8)],
        };
        TcpState::ALL.into_iter().map(|state| (state, count(state))).filter(|&(_, count)| count > 0).collect()
    }

    fn add(&mut self, other: &Self) {
        self.oldest_close_wait = earlier(self.oldest_close_wait, other.oldest_close_wait);
        self.oldest_established = earlier(self.oldest_established, other.oldest_established);
        for (own, others) in self.flows.iter_mut().zip(other.flows) {
            *own += others;
        }
        self.orphans += other.orphans;
    }
}

type AllPresent = FxHashMap<AttributionId, Present>;

/// Processes that have flows open which are not their own, by what the flows belong to: most flows first.
fn held_by<K: Eq + std::hash::Hash>(
    tables: &Tables,
    key_of: impl Fn(AttributionId) -> Option<K>,
) -> FxHashMap<K, Vec<PresentHolder>> {
    let mut counts: FxHashMap<K, BTreeMap<u32, PresentHolder>> = FxHashMap::default();
    for (at, facts) in tables.holders.iter() {
        let Some(key) = tables.flows.get(at).and_then(|flow| key_of(flow.attribution())) else { continue };
        let holder = counts.entry(key).or_default().entry(facts.pid).or_insert_with(|| PresentHolder {
            pid: facts.pid,
            comm: Arc::clone(&facts.comm),
            flows: 0,
        });
        holder.flows += 1;
    }
    let sorted = |holders: BTreeMap<u32, PresentHolder>| {
        let mut list: Vec<_> = holders.into_values().collect();
        list.sort_by_key(|holder| std::cmp::Reverse(holder.flows));
        list.truncate(MAX_HOLDERS);
        list
    };
    counts.into_iter().map(|(id, holders)| (id, sorted(holders))).collect()
}

/// Everything that the tables know, without findings and counts of events.
pub fn snapshot(tables: &Tables) -> Snapshot {
    let ((present, not_reusable), minisockets) = (present(tables), minisockets(tables));
    let orphans = present.values().map(|present| u64::from(present.orphans)).sum();
    Snapshot {
        start: start(tables),
        now: tables.now,
        workloads: workloads(tables, &present),
        destinations: destinations(tables, &not_reusable),
        attributions: attributions(tables, &present),
        listeners: listeners(tables),
        namespaces: namespaces(tables, &minisockets),
        others: others(tables, &minisockets),
        taken_ports: taken_ports(tables),
        flows: tables.flows.len() as u64,
        time_wait: (tables.time_wait.len() as u64).saturating_sub(orphans),
        orphans,
        ..Snapshot::default()
    }
}

fn start(tables: &Tables) -> Ktime {
    tables.start.unwrap_or(tables.now)
}

fn window_seconds(tables: &Tables) -> f64 {
    tables.now.seconds_since(start(tables))
}

/// One walk over the sockets and one over the minisockets.
fn present(tables: &Tables) -> (AllPresent, AllNotReusable) {
    let (mut present, mut not_reusable) = (AllPresent::default(), AllNotReusable::default());
    for (_, flow) in tables.flows.iter() {
        // A flow from before the start is at least as old as our first sight of it.
        let since = flow.state_since.or(tables.start);
        let attribution = tables.accounting.attributions().resolve(flow.attribution());
        let entry = present.entry(attribution).or_default();
        entry.flows[usize::from(flow.state() as u8)] += 1;
        match flow.state() {
            TcpState::CloseWait => entry.oldest_close_wait = earlier(entry.oldest_close_wait, since),
            TcpState::Established => {
                entry.oldest_established = earlier(entry.oldest_established, flow.established.or(since));
            }
            _ => {}
        }
    }
    for (_, entry) in tables.time_wait.iter().filter(|(_, entry)| entry.orphan || entry.without_timestamps) {
        let attribution = tables.accounting.attributions().resolve(entry.attribution);
        present.entry(attribution).or_default().orphans += u32::from(entry.orphan);
        let destination = tables.accounting.attributions().destination(entry.attribution);
        if let Some(id) = destination.filter(|_| entry.class != PortClass::Outside) {
            not_reusable.entry(id).or_default().add(&entry, tables.now);
        }
    }
    (present, not_reusable)
}

fn attributions(tables: &Tables, present: &AllPresent) -> Vec<Attribution> {
    let (accounting, start, window) = (&tables.accounting, start(tables), window_seconds(tables));
    let age = |since: Ktime| tables.now.seconds_since(since);
    let mut held_by = held_by(tables, |id| Some(accounting.attributions().resolve(id)));
    let mut list: Vec<Attribution> = accounting
        .attributions()
        .iter()
        .filter_map(|(id, entry)| {
            let key = accounting.destinations().get(entry.destination?).filter(|entry| entry.rest.is_none())?.key;
            let process = accounting.processes().get(entry.process)?;
            let counters = &entry.counters;
            let present = present.get(&id).copied().unwrap_or_default();
            let by_state = present.by_state(counters.time_wait.now);
            Some(Attribution {
                workload: Arc::clone(&accounting.processes().workload_entry(process.workload)?.name),
                pid: process.facts.pid,
                comm: Arc::clone(&process.facts.comm),
                uid: (process.facts.pid != 0).then_some(process.facts.uid),
                cmdline: process.facts.cmdline.clone(),
                netns: key.netns,
                local_addr: key.local_addr,
                remote_addr: key.remote_addr,
                remote_port: key.remote_port,
                connects: counters.connects,
                established: counters.established,
                failed: counters.failed.clone(),
                first_failure: entry.without_port.map(|(first, _)| first),
                last_failure: entry.without_port.map(|(_, last)| last),
                connects_per_second: entry.rate.per_second(tables.now, start),
                accepted: counters.accepted,
                closed: counters.closed,
                active_closes: counters.active_closes,
                passive_closes: counters.passive_closes,
                resets: counters.resets,
                flows: present.flows(),
                time_wait: counters.time_wait_stats(window),
                close_wait: counters.close_wait_stats(present.oldest_close_wait.map(age)),
                by_state,
                orphans: present.orphans,
                half_closed: present.half_closed(),
                lifetime_ms: counters.lifetime.summary(),
                connect_ms: counters.connect.summary(),
                ports_held: u32::try_from(counters.ports.now).unwrap_or(u32::MAX),
                oldest_established_seconds: present.oldest_established.map(age),
                held_by: held_by.remove(&id).unwrap_or_default(),
                inferred: entry.inferred,
            })
        })
        .collect();
    list.sort_by(|a, b| {
        let order = |of: &Attribution| (std::cmp::Reverse(of.connects), of.key(), of.pid);
        order(a).cmp(&order(b))
    });
    list
}

fn workloads(tables: &Tables, present: &AllPresent) -> Vec<Workload> {
    let accounting = &tables.accounting;
    let mut processes: FxHashMap<WorkloadId, BTreeMap<u32, Process>> = FxHashMap::default();
    let mut of_workload: FxHashMap<WorkloadId, Present> = FxHashMap::default();
    for (id, entry) in accounting.attributions().iter() {
        let Some(known) = accounting.processes().get(entry.process) else { continue };
        let Some(workload) = accounting.processes().workload_id_of(entry.process) else { continue };
        let process = processes.entry(workload).or_default().entry(known.facts.pid).or_default();
        process.pid = known.facts.pid;
        process.cmdline.clone_from(&known.facts.cmdline);
        process.connects += entry.counters.connects;
        process.failed.merge(&entry.counters.failed);
        if let Some(present) = present.get(&id) {
            of_workload.entry(workload).or_default().add(present);
        }
    }
    let mut held_by = held_by(tables, |id| Some(accounting.process_of(id)?.workload));
    let (start, window) = (start(tables), window_seconds(tables));
    let mut list: Vec<Workload> = accounting
        .processes()
        .workloads()
        .filter_map(|(id, entry)| {
            let counters = &entry.counters;
            let rest = accounting.processes().is_rest(id);
            let stands_for = rest.then(|| accounting.processes().folded());
            // A workload that has done nothing yet.
            let counted = counters.connects + counters.accepted + counters.closed + counters.failed.total() > 0;
            let known = processes.remove(&id).filter(|_| !rest);
            if known.is_none() && !counted {
                return None;
            }
            let mut pids: Vec<Process> = known.unwrap_or_default().into_values().collect();
            pids.sort_by_key(|process| (std::cmp::Reverse(process.connects), process.pid));
            pids.truncate(MAX_PIDS);
            let facts = &entry.facts;
            let present = of_workload.remove(&id).unwrap_or_default();
            let close_wait = present.oldest_close_wait;
            let unknown = &*entry.name == UNKNOWN;
            Some(Workload {
                name: Arc::clone(&entry.name),
                comm: (!unknown && !rest).then(|| Arc::clone(&facts.comm)),
                exe: facts.exe.clone(),
                unit: facts.unit.clone(),
                container: facts.container.clone(),
                pod: facts.pod.clone(),
                cgroup: facts.cgroup_path.clone(),
                netns: entry.netns.iter().copied().collect(),
                pids,
                connects: counters.connects,
                established: counters.established,
                failed: counters.failed.clone(),
                accepted: counters.accepted,
                closed: counters.closed,
                active_closes: counters.active_closes,
                passive_closes: counters.passive_closes,
                resets: counters.resets,
                time_wait: counters.time_wait_stats(window),
                close_wait: counters.close_wait_stats(close_wait.map(|since| tables.now.seconds_since(since))),
                by_state: present.by_state(counters.time_wait.now),
                orphans: present.orphans,
                half_closed: present.half_closed(),
                held_by: held_by.remove(&id).unwrap_or_default(),
                lifetime_ms: counters.lifetime.summary(),
                connect_ms: counters.connect.summary(),
                ports_held: counters.ports.now,
                connects_per_second: entry.rate.per_second(tables.now, start),
                stands_for,
            })
        })
        .collect();
    list.sort_by(|a, b| (b.connects, b.accepted, &a.name).cmp(&(a.connects, a.accepted, &b.name)));
    list
}

fn destinations(tables: &Tables, minisockets: &AllNotReusable) -> Vec<Destination> {
    let accounting = &tables.accounting;
    let mut holders: FxHashMap<DestinationId, BTreeMap<Arc<str>, u32>> = FxHashMap::default();
    let mut victims: FxHashMap<DestinationId, BTreeMap<Arc<str>, Victim>> = FxHashMap::default();
    let forecasts = forecasts(tables, minisockets);
    for (_, entry) in accounting.attributions().iter() {
        let Some(id) = entry.destination else { continue };
        let Some(workload) = accounting.processes().workload_of(entry.process) else { continue };
        let counters = &entry.counters;
        if counters.ports.now > 0 {
            let held = u32::try_from(counters.ports.now).unwrap_or(u32::MAX);
            *holders.entry(id).or_default().entry(Arc::clone(&workload.name)).or_default() += held;
        }
        let failed = counters.failed.without_port();
        if failed > 0 {
            let victim = victims.entry(id).or_default().entry(Arc::clone(&workload.name)).or_default();
            victim.failed += failed;
            victim.failed_own_range += counters.failed.of(Failure::OwnRangeExhausted);
            if let Some(process) = accounting.processes().get(entry.process).filter(|process| process.facts.pid != 0)
                && let Err(place) = victim.uids.binary_search(&process.facts.uid)
                && victim.uids.len() < MAX_UIDS
            {
                victim.uids.insert(place, process.facts.uid);
            }
        }
    }
    let none = NotReusable::default();
    let mut list: Vec<Destination> = accounting
        .destinations()
        .iter()
        .filter(|(_, entry)| entry.rest.is_none())
        .map(|(id, entry)| {
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
                .map(|(workload, victim)| Victim { workload, ..victim })
                .collect();
            victims.sort_by(|a, b| (b.failed, &a.workload).cmp(&(a.failed, &b.workload)));
            let minisockets = minisockets.get(&id).unwrap_or(&none);
            let forecast = forecasts.get(&id).copied().unwrap_or_default();
            destination(tables, entry, minisockets, &forecast, holders, victims)
        })
        .collect();
    list.sort_by(|a, b| {
        let failed = |of: &Destination| of.failed.without_port();
        failed(b)
            .cmp(&failed(a))
            .then_with(|| b.ports.utilisation.unwrap_or(0.0).total_cmp(&a.ports.utilisation.unwrap_or(0.0)))
            .then_with(|| b.connects.cmp(&a.connects))
            .then_with(|| a.key().cmp(&b.key()))
    });
    list
}

fn destination(
    tables: &Tables,
    entry: &DestinationEntry,
    minisockets: &NotReusable,
    forecast: &Forecast,
    holders: Vec<Holder>,
    victims: Vec<Victim>,
) -> Destination {
    let ports = &tables.ports;
    let capacity = ports.capacity(entry);
    let (key, counters) = (entry.key, &entry.counters);
    Destination {
        netns: key.netns,
        netns_name: ports.namespaces().name(key.netns),
        local_addr: key.local_addr,
        remote_addr: key.remote_addr,
        remote_port: key.remote_port,
        ports: Ports {
            range: ports.namespaces().get(key.netns).and_then(|namespace| namespace.facts.port_range),
            capacity,
            in_use: entry.in_use(),
            free: ports.free(entry),
            outside_range: entry.outside(),
            peak: entry.peak,
            utilisation: capacity
                .filter(|&capacity| capacity > 0)
                .map(|capacity| f64::from(entry.in_use()) / f64::from(capacity)),
            by_state: entry.states().collect(),
            orphans: minisockets.orphans,
            without_timestamps: minisockets.without_timestamps,
            half_closed: entry.in_state(TcpState::FinWait2).saturating_sub(minisockets.orphans),
            contradictions: entry.contradictions,
            failed_own_range: counters.failed.of(Failure::OwnRangeExhausted),
            own_range: entry.own_range,
            at_least: entry.unsettled,
        },
        connects: counters.connects,
        established: counters.established,
        failed: counters.failed.clone(),
        first_failure: entry.first_failure,
        last_failure: entry.last_failure,
        failing_since: entry.failing_since,
        counted_since: entry.counted_since,
        connects_per_second: forecast.per_second,
        sustainable_per_second: forecast.sustainable,
        exhaustion_probability: forecast.probability,
        seconds_to_exhaustion: forecast.exhausted_in,
        exhaustion_soonest_seconds: forecast.soonest,
        exhaustion_latest_seconds: forecast.latest,
        forecast_confidence: forecast.confidence,
        port_search_ms: entry.search.all.summary(),
        port_search_recent_ms: entry.search.median.map(millis),
        port_search_quickest_ms: entry.search.quickest.map(millis),
        holders,
        victims,
    }
}

/// Of each listener, the connections in its queue that the peer has closed; `None` where that cannot be known.
fn closed_in_queues(tables: &Tables) -> FxHashMap<BoundSocketId, Option<u32>> {
    let bound = tables.ports.bound();
    let mut waiting: FxHashMap<BoundSocketId, (u32, u32)> = FxHashMap::default();
    for (_, flow) in tables.flows.iter() {
        let Some(listener) = flow.waits_at else { continue };
        let (all, closed) = waiting.entry(listener).or_default();
        *all += 1;
        *closed += u32::from(flow.state() == TcpState::CloseWait);
    }
    let mut known = FxHashMap::default();
    for group in bound.groups() {
        let of = |at: &BoundSocketId| waiting.get(at).copied().unwrap_or_default();
        let (all, closed) = group.iter().map(of).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let queued =
            |at: &BoundSocketId| bound.get(*at).and_then(|listener| Some(listener.queue?.waiting)).unwrap_or(0);
        let busy = group.iter().filter(|at| queued(at) > 0).count();
        for at in group {
            let share = if group.len() == 1 || closed == 0 {
                Some(closed)
            } else if queued(at) == 0 && busy > 0 {
                Some(0)
            } else if busy == 1 {
                Some(closed.min(queued(at)))
            } else {
                // If the peers have closed all that wait anywhere, they have closed all that wait here.
                Some(queued(at)).filter(|_| all == closed && busy > 0)
            };
            known.insert(*at, share);
        }
    }
    known
}

fn listeners(tables: &Tables) -> Vec<Listener> {
    let processes = tables.accounting.processes();
    let closed = closed_in_queues(tables);
    let mut list: Vec<Listener> = tables
        .ports
        .bound()
        .iter()
        .filter(|(_, bound)| bound.listening && bound.port != 0)
        .map(|(at, bound)| {
            let process = bound.owner.and_then(|id| processes.get(id));
            let workload = process.and_then(|process| processes.workload_entry(process.workload));
            let namespace = tables.ports.namespaces().get(bound.netns);
            Listener {
                netns: bound.netns,
                addr: bound.addr,
                port: bound.port,
                workload: workload.map(|entry| Arc::clone(&entry.name)),
                pid: process.map(|process| process.facts.pid).filter(|&pid| pid != 0),
                accepted: bound.accepted,
                queued: bound.queue.map(|queue| queue.waiting),
                backlog: bound.queue.map(|queue| queue.backlog),
                close_wait: closed.get(&at).copied().flatten(),
                in_ephemeral_range: namespace
                    .is_some_and(|namespace| namespace.in_range(bound.port) && !namespace.is_reserved(bound.port)),
                syn_recv: bound.syn_recv,
            }
        })
        .collect();
    list.sort_by_key(|listener| (listener.netns, listener.port, listener.addr, listener.pid));
    list
}

fn taken_ports(tables: &Tables) -> Vec<TakenPort> {
    let mut list: Vec<TakenPort> = tables
        .taken_ports
        .iter()
        .map(|(asked, entry)| {
            let owner = entry.owner.as_ref();
            let remote = Some(asked.remote).filter(|remote| remote.port != 0);
            TakenPort {
                netns: asked.netns,
                addr: asked.local.addr,
                port: asked.local.port,
                remote_addr: remote.map(|remote| remote.addr),
                remote_port: remote.map(|remote| remote.port),
                workload: owner.map(|owner| Arc::clone(&owner.workload)),
                pid: owner.map(|owner| owner.pid).filter(|&pid| pid != 0),
                comm: owner.map(|owner| Arc::clone(&owner.comm)),
                failed: entry.failed,
                last: entry.last,
                holder: entry.holder.clone(),
            }
        })
        .collect();
    list.sort_by_key(|taken| (std::cmp::Reverse(taken.last), taken.netns, taken.port, taken.pid));
    list
}

/// Minisockets by namespace, and how many of these were concluded.
fn minisockets(tables: &Tables) -> FxHashMap<Netns, (u64, u64)> {
    let mut minisockets: FxHashMap<_, (u64, u64)> = FxHashMap::default();
    for (_, entry) in tables.time_wait.iter() {
        let (all, inferred) = minisockets.entry(entry.key.netns).or_default();
        *all += 1;
        *inferred += u64::from(!entry.observed);
    }
    minisockets
}

/// What has no row in the lists.
fn others(tables: &Tables, minisockets: &FxHashMap<Netns, (u64, u64)>) -> Others {
    let (accounting, window) = (&tables.accounting, window_seconds(tables));
    let (start, names) = (start(tables), tables.ports.namespaces());
    let mut rests = Others::default();
    for (_, entry) in accounting.destinations().iter() {
        let Some(folded) = &entry.rest else { continue };
        let counters = &entry.counters;
        if entry.held() == 0 && counters.connects + counters.closed + counters.failed.total() == 0 {
            // In this window there has been none.
            continue;
        }
        rests.destinations.push(OtherDestinations {
            netns: entry.key.netns,
            netns_name: names.name(entry.key.netns),
            destinations: folded.estimate(),
            in_use: u64::from(entry.in_use()),
            outside_range: u64::from(entry.outside()),
            by_state: entry.states().collect(),
            connects: counters.connects,
            established: counters.established,
            failed: counters.failed.clone(),
            connects_per_second: entry.rate.per_second(tables.now, start),
            time_wait: counters.time_wait_stats(window),
        });
    }
    rests.destinations.sort_by_key(|rest| rest.netns);
    let mut rows: BTreeMap<(Netns, Arc<str>), Counters> = BTreeMap::new();
    for (_, entry) in accounting.attributions().iter() {
        let rest = entry.destination.and_then(|id| accounting.destinations().get(id));
        let Some(rest) = rest.filter(|entry| entry.rest.is_some()) else { continue };
        let Some(workload) = accounting.processes().workload_of(entry.process) else { continue };
        rows.entry((rest.key.netns, Arc::clone(&workload.name))).or_default().merge(&entry.counters);
    }
    rests.attributions = rows
        .into_iter()
        .map(|((netns, workload), counters)| OtherAttributions {
            workload,
            netns,
            connects: counters.connects,
            established: counters.established,
            failed: counters.failed.clone(),
            active_closes: counters.active_closes,
            time_wait: counters.time_wait_stats(window),
            close_wait: counters.close_wait_stats(None),
            ports_held: counters.ports.now,
        })
        .collect();
    rests.attributions.sort_by_key(|row| std::cmp::Reverse(row.connects));
    rests.namespaces = OtherNamespaces { namespaces: names.forgotten(), ..OtherNamespaces::default() };
    for (netns, (all, inferred)) in minisockets {
        if names.get(*netns).is_none() {
            rests.namespaces.time_wait_ledger += all;
            rests.namespaces.time_wait_inferred += inferred;
        }
    }
    rests
}

fn namespaces(tables: &Tables, minisockets: &FxHashMap<Netns, (u64, u64)>) -> Vec<Namespace> {
    let mut list: Vec<Namespace> = tables
        .ports
        .namespaces()
        .iter()
        .map(|namespace| {
            let facts = &namespace.facts;
            let (time_wait, inferred) = minisockets.get(&facts.netns).copied().unwrap_or_default();
            Namespace {
                netns: facts.netns,
                name: facts.name.clone(),
                port_range: facts.port_range,
                reserved: namespace.reserved(),
                blocked: namespace.blocked(),
                blocked_by: namespace.blocked_by(),
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
                conntrack_buckets: facts.conntrack_buckets,
                counters: namespace.counted(),
            }
        })
        .collect();
    list.sort_by_key(|namespace| namespace.netns);
    list
}

fn earlier(a: Option<Ktime>, b: Option<Ktime>) -> Option<Ktime> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
