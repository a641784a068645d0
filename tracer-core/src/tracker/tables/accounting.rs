//! Who uses ports, and towards what: processes, destinations, and the attributions that join the two.
//!
//! The three change together. Every flow, minisocket and pending failure is counted in one attribution, and with it in the
//! workload of its process and in its destination. A row that makes room is folded into a rest with everything that is counted in it,
//! so that the sums over the rows of each table are the same whatever was folded. A destination of a rest that fails or fills gets a
//! row of its own; [`Accounting::settle`] moves there what its rest still counts of it.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::attributions::{AttributionId, Attributions, Fold};
use super::counters::Counters;
use super::destinations::{DestinationEntry, DestinationId, Destinations, RowOwner};
use super::local_ports::LocalPorts;
use super::processes::{ProcessEntry, ProcessId, Processes};
use super::rest_ports::RestPorts;
use super::time_wait::TimeWaitEntry;
use super::worth::Merits;
use crate::event::{DestinationKey, FlowKey, Ktime, Netns, ProcessFacts, TcpState};
use crate::tracker::port_buckets::PortClass;
use crate::tracker::snapshot::{Failure, Owner};
use crate::tracker::workload::By;

/// Forwarded references that are as many as attributions are worth a walk that takes them back.
const MAX_FORWARDED: usize = 65_536;

/// Workloads with a row of their own in the rest of a namespace.
const REST_ROWS: usize = 64;

/// Processes, destinations and attributions.
#[derive(Clone, Debug)]
pub struct Accounting {
    processes: Processes,
    destinations: Destinations,
    attributions: Attributions,
    rest_ports: RestPorts,
    /// Destinations of which some ports are still counted in a rest.
    unsettled: FxHashMap<DestinationKey, DestinationId>,
    /// Those whose ports a walk is moving there now.
    settling: FxHashMap<DestinationKey, DestinationId>,
    incident_began: bool,
    /// Counts destinations that looked for a row.
    turn: u32,
}

impl Accounting {
    /// Empty tables. `by`: what workloads are named after.
    pub fn new(by: By) -> Self {
        Self {
            processes: Processes::new(by),
            destinations: Destinations::default(),
            attributions: Attributions::default(),
            rest_ports: RestPorts::default(),
            unsettled: FxHashMap::default(),
            settling: FxHashMap::default(),
            incident_began: false,
            turn: 0,
        }
    }

    /// The processes and their workloads.
    pub fn processes(&self) -> &Processes {
        &self.processes
    }

    /// The destinations.
    pub fn destinations(&self) -> &Destinations {
        &self.destinations
    }

    /// The attributions.
    pub fn attributions(&self) -> &Attributions {
        &self.attributions
    }

    /// Counts from zero again; what is open stays, and what nothing is open of is forgotten.
    pub fn restart(&mut self) {
        self.processes.restart();
        self.attributions.restart(&mut self.processes);
        self.destinations.restart();
    }

    /// The destination of an attribution.
    pub fn destination_of(&self, id: AttributionId) -> Option<&DestinationEntry> {
        self.destinations.get(self.attributions.destination(id)?)
    }

    /// The process of an attribution.
    pub fn process_of(&self, id: AttributionId) -> Option<&ProcessEntry> {
        self.processes.get(self.attributions.get(id)?.process)
    }

    /// Who an attribution is about; `None` if nobody knows. `inferred` is passed on.
    pub fn owner(&self, id: AttributionId, inferred: bool) -> Option<Owner> {
        let process = self.attributions.get(id)?.process;
        if process == self.processes.unknown() {
            return None;
        }
        let entry = self.processes.get(process)?;
        Some(Owner {
            pid: entry.facts.pid,
            comm: Arc::clone(&entry.facts.comm),
            workload: Arc::clone(&self.processes.workload_entry(entry.workload)?.name),
            unit: entry.facts.unit.clone(),
            container: entry.facts.container.clone(),
            pod: entry.facts.pod.clone(),
            inferred,
        })
    }

    /// Learns who a process is.
    pub fn learn(&mut self, facts: &ProcessFacts) {
        self.processes.learn(facts);
    }

    /// The process with this pid.
    pub fn process(&mut self, pid: u32) -> ProcessId {
        self.processes.of_pid(pid)
    }

    /// The destination of a flow of this process, created at need; the rest of its namespace if all others are worth more.
    pub(super) fn destination(
        &mut self,
        key: &FlowKey,
        process: ProcessId,
        at: Ktime,
        ports: &LocalPorts,
    ) -> Option<DestinationId> {
        let key = DestinationKey::from(key);
        if let Some(known) = self.destinations.find(&key) {
            return Some(known);
        }
        let owner = self.row_owner(process);
        let merits = Merits { last_used: at, in_use: true, ..Merits::default() };
        if let Some(id) = self.place(key, owner, merits, ports) {
            return Some(id);
        }
        let rest = self.destinations.rest(key.netns, owner, at)?;
        self.destinations.note_folded(rest, &key);
        Some(rest)
    }

    fn row_owner(&self, process: ProcessId) -> RowOwner {
        let (uid, workload) = self.processes.owner(process);
        RowOwner { uid, workload }
    }

    /// A row for a destination that has none. `None` if all others are worth more.
    fn place(
        &mut self,
        key: DestinationKey,
        owner: RowOwner,
        merits: Merits,
        ports: &LocalPorts,
    ) -> Option<DestinationId> {
        let now = merits.last_used;
        if self.destinations.is_full() {
            let over = self.destinations.exceeded(owner, key.netns);
            let (worth, least) = self.destinations.least(now, |entry| ports.capacity(entry))?;
            let newcomer = merits.worth(now, over);
            if !worth.yields_to(newcomer) || worth.waits_for(newcomer, &mut self.turn) {
                return None;
            }
            self.fold_destination(least, now);
        }
        let id = self.destinations.insert(key, owner, now)?;
        if self.rest_ports.has(&key) {
            self.unsettled.insert(key, id);
            if let Some(entry) = self.destinations.get_mut(id) {
                entry.unsettled = true;
                entry.counted_since = Some(now);
            }
        }
        Some(id)
    }

    /// Folds a destination into the rest of its namespace, with all that is counted there.
    fn fold_destination(&mut self, id: DestinationId, now: Ktime) {
        let Some(folded) = self.destinations.remove(id) else { return };
        self.unsettled.remove(&folded.key);
        self.settling.remove(&folded.key);
        let owner = self.row_owner(self.processes.others());
        let Some(rest) = self.destinations.rest(folded.key.netns, owner, now) else { return };
        while let Some(&attribution) = self.attributions.towards(Some(id)).first() {
            let Some(process) = self.attributions.get(attribution).map(|entry| entry.process) else { break };
            self.attributions.fold(&mut self.processes, attribution, (process, Some(rest)));
        }
        self.rest_ports.enter(folded.key, folded.held());
        self.destinations.fold(&folded, rest);
    }

    /// The destination of a failed call whose source address was not seen: the kernel takes it back before the call returns. A known one
    /// with the same remote end, if there is one; of several the latest.
    pub fn destination_without_source(&self, key: &FlowKey) -> Option<DestinationId> {
        let key = DestinationKey::from(key);
        key.local_addr.is_unspecified().then(|| self.destinations.find_by_remote(&key)).flatten()
    }

    /// The attribution of a process towards a destination, created at need. `inferred`: the process is a guess.
    pub(super) fn attribute(
        &mut self,
        process: ProcessId,
        destination: Option<DestinationId>,
        netns: Netns,
        inferred: bool,
        at: Ktime,
        ports: &LocalPorts,
    ) -> AttributionId {
        if let Some(known) = self.attributions.find(process, destination, inferred, at) {
            return known;
        }
        // The owner of a bound socket may have been forgotten.
        let process = if self.processes.get(process).is_some() { process } else { self.processes.unknown() };
        if let Some(known) = self.attributions.find(process, destination, inferred, at) {
            return known;
        }
        self.processes.revive(process, Merits { last_used: at, in_use: true, ..Merits::default() });
        self.processes.seen_in(process, netns);
        // Making room may enter folds, and a full table of processes forgets what nothing refers to: not this one.
        self.processes.retain(process);
        // A second time if the first one has made a new row of a workload in a rest.
        for _ in 0..2 {
            if self.attributions.is_full() {
                self.make_room(destination, at, ports);
            }
        }
        let added = self.attributions.insert(&mut self.processes, (process, destination), inferred, at);
        self.processes.release(process);
        // The room that was made is enough for one.
        added.unwrap_or_else(AttributionId::nothing)
    }

    /// Folds the attribution of least worth. `keep`: the destination for which room is made.
    fn make_room(&mut self, keep: Option<DestinationId>, now: Ktime, ports: &LocalPorts) {
        let Self { attributions, processes, destinations, .. } = self;
        let worth_of = |id: DestinationId| {
            let entry = destinations.get(id).filter(|_| Some(id) != keep)?;
            destinations.worth(entry, now, ports.capacity(entry))
        };
        match attributions.choose_fold(processes, now, worth_of) {
            Some(Fold::Destination(id, destination)) => {
                let into = self.fold_in_rest(id, destination);
                self.attributions.fold(&mut self.processes, id, (into, Some(destination)));
                self.fold_destination(destination, now);
            }
            Some(Fold::Into(first, second, into)) => {
                let destination = attributions.destination(first);
                for id in [Some(first), second].into_iter().flatten() {
                    attributions.fold(processes, id, (into, destination));
                }
            }
            None => {}
        }
    }

    /// The fold into which an attribution goes with its destination: in the rest of a namespace each workload has a row, as long as they
    /// are not too many, and no process.
    fn fold_in_rest(&mut self, id: AttributionId, destination: DestinationId) -> ProcessId {
        let others = self.processes.others();
        let process = self.attributions.get(id).map_or(others, |entry| entry.process);
        let rest = self.destinations.get(destination).and_then(|entry| self.destinations.known_rest(entry.key.netns));
        let rows = rest.map_or(0, |rest| self.attributions.towards(Some(rest)).len());
        let known = self.processes.known_fold_of(process).filter(|&fold| self.attributions.has(fold, rest));
        match known {
            Some(fold) => fold,
            None if rows < REST_ROWS => self.processes.fold_of(process).unwrap_or(process),
            None => others,
        }
    }

    /// A connect() of this attribution has failed: its destination and its workload get rows of their own, if they have none and others
    /// are worth less. Returns the attribution under which the failure is to be counted.
    pub(super) fn place_failure(
        &mut self,
        id: AttributionId,
        key: &FlowKey,
        failure: Failure,
        at: Ktime,
        ports: &LocalPorts,
    ) -> AttributionId {
        let Some(entry) = self.attributions.get(id) else { return id };
        let (process, inferred) = (entry.process, entry.inferred);
        let folded = entry.destination.filter(|&id| self.destinations.get(id).is_some_and(|it| it.rest.is_some()));
        let mut merits = Merits { last_used: at, in_use: true, ..Merits::default() };
        // Only a lack that others have, too.
        let lack = if failure == Failure::PortsExhausted { &mut merits.exhausted } else { &mut merits.failed };
        *lack = Some(at);
        let one = Counters { connects: 1, ..Counters::default() };
        let before = self.processes.workload_id_of(process);
        let begun = entry.counters.connects > 0;
        if self.processes.revive(process, merits) && begun {
            // The attempt that failed goes along.
            self.processes.count_workload(before, |counters| counters.connects = counters.connects.saturating_sub(1));
            self.processes.count(process, |counters| counters.merge(&one));
        }
        let Some(rest) = folded else { return id };
        let key = DestinationKey::from(key);
        let owner = self.row_owner(process);
        let known = self.destinations.find(&key);
        let Some(named) = known.or_else(|| self.place(key, owner, merits, ports)) else { return id };
        let into = self.attribute(process, Some(named), key.netns, inferred, at, ports);
        if begun {
            let less = |counters: &mut Counters| counters.connects = counters.connects.saturating_sub(1);
            self.attributions.count(id, less);
            if let Some(rest) = self.destinations.get_mut(rest) {
                less(&mut rest.counters);
            }
            self.attributions.count(into, |counters| counters.connects += 1);
            if let Some(named) = self.destinations.get_mut(named) {
                named.counters.connects += 1;
                named.counted_since.get_or_insert(at);
            }
        }
        into
    }

    /// Counts a failed attempt.
    pub fn count_failure(&mut self, id: AttributionId, failure: Failure, at: Ktime) {
        self.count(id, |counters| counters.fail(failure));
        let lack = failure == Failure::PortsExhausted;
        let Some(entry) = self.attributions.get_mut(id) else { return };
        if !lack {
            entry.failed = Some(at);
        }
        let (process, destination) = (entry.process, entry.destination);
        self.processes.note_failure(process, at, lack);
        if let Some(entry) = destination.and_then(|id| self.destinations.get_mut(id))
            && !lack
        {
            entry.last_other_failure = Some(at);
        }
    }

    /// Something is counted in a rest that belongs to a destination with a row, or under references that were forwarded.
    pub fn is_unsettled(&self) -> bool {
        !self.unsettled.is_empty() || self.attributions.forwarded() > MAX_FORWARDED
    }

    /// A walk over everything that is counted begins.
    pub(super) fn begin_settling(&mut self) {
        self.settling = std::mem::take(&mut self.unsettled);
    }

    /// The attribution under which something with this 4-tuple is to be counted that is counted under `id` now.
    pub(super) fn settle(&mut self, id: AttributionId, key: &FlowKey, ports: &LocalPorts) -> AttributionId {
        let id = self.attributions.resolve(id);
        if self.settling.is_empty() {
            return id;
        }
        let Some(entry) = self.attributions.get(id) else { return id };
        let (process, inferred) = (entry.process, entry.inferred);
        if entry.destination.and_then(|id| self.destinations.get(id)).is_none_or(|entry| entry.rest.is_none()) {
            return id;
        }
        let Some(&named) = self.settling.get(&DestinationKey::from(key)) else { return id };
        let at = self.destinations.get(named).map_or(Ktime(0), DestinationEntry::last_used);
        self.attribute(process, Some(named), key.netns, inferred, at, ports)
    }

    /// The walk is over.
    pub(super) fn end_settling(&mut self) {
        for (key, id) in self.settling.drain() {
            if let Some(entry) = self.destinations.get_mut(id) {
                entry.unsettled = self.unsettled.contains_key(&key);
            }
        }
    }

    /// A destination without a row has so many ports in use that it should have one.
    fn place_if_filling(&mut self, key: &FlowKey, held: u32, process: ProcessId, at: Ktime, ports: &LocalPorts) {
        // Each doubling is a new chance.
        if held < 8 || !held.is_power_of_two() {
            return;
        }
        let namespace = ports.namespaces().get(key.netns);
        let merits = Merits {
            last_used: at,
            in_use: true,
            ports: u64::from(held),
            capacity: namespace.and_then(super::namespaces::NamespaceEntry::capacity),
            ..Merits::default()
        };
        let key = DestinationKey::from(key);
        if merits.is_filling() && self.destinations.find(&key).is_none() {
            let owner = self.row_owner(process);
            self.place(key, owner, merits, ports);
        }
    }

    /// Something refers to the attribution that will be counted there.
    pub(super) fn retain(&mut self, id: AttributionId) {
        if let Some(destination) = self.attributions.retain(id) {
            self.destinations.retain(destination);
        }
    }

    /// The counterpart of [`Self::retain`].
    pub(super) fn release(&mut self, id: AttributionId) {
        if let Some(destination) = self.attributions.release(id) {
            self.destinations.release(destination);
        }
    }

    /// A bound socket refers to the process.
    pub(super) fn retain_process(&mut self, id: ProcessId) {
        self.processes.retain_bound(id);
    }

    /// The counterpart of [`Self::retain_process`].
    pub(super) fn release_process(&mut self, id: ProcessId) {
        self.processes.release_bound(id);
    }

    /// Applies `change` to the counters of the attribution, of its workload and of its destination.
    pub fn count(&mut self, id: AttributionId, change: impl Fn(&mut Counters)) {
        let Some((process, destination)) = self.attributions.count(id, &change) else { return };
        self.processes.count(process, &change);
        if let Some(destination) = destination.and_then(|id| self.destinations.get_mut(id)) {
            change(&mut destination.counters);
        }
    }

    /// Counts an attempt to connect.
    pub fn count_attempt(&mut self, id: AttributionId, at: Ktime) {
        let attempt = |counters: &mut Counters| counters.connects += 1;
        let Some((process, destination)) = self.attributions.count_attempt(id, at) else { return };
        self.processes.count(process, attempt);
        self.processes.count_attempt(process, at);
        if let Some(destination) = destination.and_then(|id| self.destinations.get_mut(id)) {
            attempt(&mut destination.counters);
            destination.rate.count(at);
            destination.touch(at);
        }
    }

    /// Counts a failure for lack of a port. `searched`: how long connect() looked for one, nanoseconds. `contradicted`: a port was free.
    pub fn count_exhaustion(&mut self, id: AttributionId, at: Ktime, searched: Option<u64>, contradicted: bool) {
        self.attributions.note_without_port(id, at);
        if let Some(destination) = self.destination_mut(id) {
            let first = destination.fail(at);
            destination.contradictions += u64::from(contradicted);
            if let Some(nanos) = searched {
                destination.search.record(nanos);
            }
            self.incident_began |= first;
        }
    }

    /// Has a destination begun to fail since this was asked last?
    pub fn take_incident(&mut self) -> bool {
        std::mem::take(&mut self.incident_began)
    }

    /// Counts a failure for lack of a port in the socket's own range.
    pub fn count_own_range(&mut self, id: AttributionId, range: (u16, u16)) {
        if let Some(destination) = self.destination_mut(id) {
            destination.own_range = Some(range);
        }
    }

    /// connect() has found a port, after so many nanoseconds.
    pub fn record_search(&mut self, id: AttributionId, nanos: u64) {
        if let Some(destination) = self.destination_mut(id) {
            destination.search.record(nanos);
        }
    }

    /// A socket or minisocket in `state` takes a local port of this class towards the attribution's destination. False, and nothing
    /// is taken, if there is no destination.
    pub(super) fn occupy(
        &mut self,
        id: AttributionId,
        key: &FlowKey,
        (state, class): (TcpState, PortClass),
        at: Ktime,
        ports: &LocalPorts,
    ) -> bool {
        let Some(destination) = self.destination_mut(id) else { return false };
        destination.occupy(state, class);
        if destination.rest.is_some() {
            let held = self.rest_ports.up(DestinationKey::from(key));
            if let Some(process) = self.attributions.get(id).map(|entry| entry.process) {
                self.place_if_filling(key, held, process, at, ports);
            }
        }
        if let Some((process, _)) = self.attributions.count(id, |counters| counters.ports.up()) {
            self.processes.count(process, |counters| counters.ports.up());
        }
        true
    }

    /// The counterpart of [`Self::occupy`].
    pub(super) fn vacate(&mut self, id: AttributionId, key: &FlowKey, state: TcpState, class: PortClass) {
        let Some(destination) = self.destination_mut(id) else { return };
        destination.release(state, class);
        if destination.rest.is_some() {
            self.rest_ports.down(&DestinationKey::from(key));
        }
        if let Some((process, _)) = self.attributions.count(id, |counters| counters.ports.down()) {
            self.processes.count(process, |counters| counters.ports.down());
        }
    }

    /// A socket that holds a port of this class changes its state.
    pub(super) fn change_state(
        &mut self,
        id: AttributionId,
        from: TcpState,
        to: TcpState,
        class: PortClass,
        at: Ktime,
    ) {
        if let Some(destination) = self.destination_mut(id) {
            destination.change_state(from, to, class);
            destination.touch(at);
        }
    }

    /// A port in use counts as another class from now on.
    pub(super) fn reclassify(&mut self, id: AttributionId, state: TcpState, from: PortClass, to: PortClass) {
        if let Some(destination) = self.destination_mut(id) {
            destination.release(state, from);
            destination.occupy(state, to);
        }
    }

    /// A connection that began then has got a port towards the attribution's destination.
    pub(super) fn note_open(&mut self, id: AttributionId, began: Ktime) {
        if let Some(demand) = self.destination_mut(id).and_then(DestinationEntry::demand_mut) {
            demand.opened(began);
        }
    }

    /// A connection has given up its port. `began`: if that was seen.
    pub(super) fn note_close(&mut self, id: AttributionId, began: Option<Ktime>, now: Ktime) {
        if let Some(demand) = self.destination_mut(id).and_then(DestinationEntry::demand_mut) {
            demand.closed(began, now);
        }
    }

    /// A local port towards the attribution's destination is free again.
    pub(super) fn note_release(&mut self, id: AttributionId, at: Ktime) {
        if let Some(destination) = self.destination_mut(id) {
            destination.note_release(at);
        }
    }

    /// A minisocket has begun, and its timer at `timer_started`. `new`: it counts as a begin.
    pub(super) fn begin_minisocket(&mut self, entry: &TimeWaitEntry, new: bool, ports: &LocalPorts) {
        let TimeWaitEntry { attribution: id, timer_started, class, .. } = *entry;
        self.retain(id);
        self.occupy(id, &entry.key, (entry.state(), class), timer_started, ports);
        if let Some(destination) = self.destination_mut(id) {
            if let Some(demand) = destination.demand_mut() {
                demand.timer_started(timer_started);
                if new {
                    demand.ends.left_minisocket(timer_started.0);
                }
            }
            destination.touch(timer_started);
        }
        self.count(id, |counters| {
            if entry.state() == TcpState::TimeWait {
                counters.time_wait.up();
            }
            counters.tw_entered += u64::from(new);
        });
    }

    /// A minisocket that holds a port of this class was taken to be in the other of its two states.
    pub(super) fn change_minisocket_state(&mut self, id: AttributionId, orphan: bool, class: PortClass) {
        let (wait, fin_wait2) = (TcpState::TimeWait, TcpState::FinWait2);
        let (from, to) = if orphan { (wait, fin_wait2) } else { (fin_wait2, wait) };
        if let Some(destination) = self.destination_mut(id) {
            destination.change_state(from, to, class);
        }
        self.count(id, |counters| if orphan { counters.time_wait.down() } else { counters.time_wait.up() });
    }

    /// A minisocket is counted under another attribution of the same workload from now on.
    pub(super) fn move_minisocket(&mut self, entry: &TimeWaitEntry, to: AttributionId, ports: &LocalPorts) {
        let TimeWaitEntry { attribution: from, timer_started, class, key, .. } = *entry;
        let (state, waits) = (entry.state(), u64::from(!entry.orphan));
        self.vacate(from, &key, state, class);
        if let Some(demand) = self.destination_mut(from).and_then(DestinationEntry::demand_mut) {
            demand.timer_ended(timer_started);
        }
        self.count(from, |counters| counters.time_wait.lower(waits));
        self.retain(to);
        self.release(from);
        self.occupy(to, &key, (state, class), timer_started, ports);
        if let Some(demand) = self.destination_mut(to).and_then(DestinationEntry::demand_mut) {
            demand.timer_started(timer_started);
        }
        self.count(to, |counters| counters.time_wait.raise(waits));
    }

    /// The timer of a minisocket that was started at `before` has been started again.
    pub(super) fn restart_minisocket(&mut self, id: AttributionId, before: Ktime, now: Ktime) {
        if let Some(demand) = self.destination_mut(id).and_then(DestinationEntry::demand_mut) {
            demand.timer_ended(before);
            demand.timer_started(now);
        }
    }

    /// A minisocket whose timer was started at `timer_started` has ended.
    pub(super) fn end_minisocket(&mut self, entry: &TimeWaitEntry, now: Ktime) {
        let TimeWaitEntry { attribution: id, timer_started, class, .. } = *entry;
        self.vacate(id, &entry.key, entry.state(), class);
        if let Some(destination) = self.destination_mut(id) {
            if let Some(demand) = destination.demand_mut() {
                demand.timer_ended(timer_started);
            }
            destination.note_release(now);
            destination.touch(now);
        }
        if entry.state() == TcpState::TimeWait {
            self.count(id, |counters| counters.time_wait.down());
        }
        self.release(id);
    }

    fn destination_mut(&mut self, id: AttributionId) -> Option<&mut DestinationEntry> {
        self.destinations.get_mut(self.attributions.destination(id)?)
    }
}
