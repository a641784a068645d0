//! Who uses ports, and towards what: processes, destinations, and the attributions that join the two.
//!
//! The three change together. Every flow, minisocket and pending failure is counted in one attribution, and with it in the
//! workload of its process and in its destination. While any of them may still be counted there ([`Accounting::retain`]), neither
//! the attribution nor its destination makes room for another.

use std::sync::Arc;

use super::attributions::{AttributionId, Attributions};
use super::counters::Counters;
use super::destinations::{DestinationEntry, DestinationId, Destinations};
use super::processes::{ProcessEntry, ProcessId, Processes};
use crate::event::{DestinationKey, FlowKey, Ktime, Netns, ProcessFacts, TcpState};
use crate::tracker::port_buckets::PortClass;
use crate::tracker::snapshot::Owner;
use crate::tracker::workload::By;

/// Processes, destinations and attributions.
#[derive(Clone, Debug)]
pub struct Accounting {
    processes: Processes,
    destinations: Destinations,
    attributions: Attributions,
    evicted: u64,
}

impl Accounting {
    /// Empty tables. `by`: what workloads are named after.
    pub fn new(by: By) -> Self {
        Self {
            processes: Processes::new(by),
            destinations: Destinations::default(),
            attributions: Attributions::default(),
            evicted: 0,
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

    /// Destinations that were forgotten, or not entered, because their table was at its bound.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Counts from zero again; what is open stays, and what nothing is open of is forgotten.
    pub fn restart(&mut self) {
        self.processes.restart();
        self.attributions.restart(&mut self.processes);
        self.destinations.restart();
        self.evicted = 0;
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

    /// The destination of a flow, created at need. `None` if the table is full of destinations in use.
    pub fn destination(&mut self, key: &FlowKey, at: Ktime) -> Option<DestinationId> {
        let key = DestinationKey::from(key);
        if let Some(known) = self.destinations.find(&key) {
            return Some(known);
        }
        if self.destinations.is_full() {
            self.evicted += 1;
            let forgotten = self.destinations.forget_idle()?;
            self.attributions.forget_destination(&mut self.processes, forgotten);
        }
        self.destinations.insert(key, at)
    }

    /// The attribution of a process towards a destination, created at need. `inferred`: the process is a guess.
    pub fn attribute(
        &mut self,
        process: ProcessId,
        destination: Option<DestinationId>,
        netns: Netns,
        inferred: bool,
        at: Ktime,
    ) -> AttributionId {
        self.attributions.find_or_insert(&mut self.processes, (process, destination), netns, inferred, at)
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
        self.processes.retain(id);
    }

    /// The counterpart of [`Self::retain_process`].
    pub(super) fn release_process(&mut self, id: ProcessId) {
        self.processes.release(id);
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
            destination.fail(at);
            destination.contradictions += u64::from(contradicted);
            if let Some(nanos) = searched {
                destination.search.record(nanos);
            }
        }
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
    pub(super) fn occupy(&mut self, id: AttributionId, state: TcpState, class: PortClass) -> bool {
        let Some(destination) = self.destination_mut(id) else { return false };
        destination.occupy(state, class);
        if let Some((process, _)) = self.attributions.count(id, |counters| counters.ports.up()) {
            self.processes.count(process, |counters| counters.ports.up());
        }
        true
    }

    /// The counterpart of [`Self::occupy`].
    pub(super) fn vacate(&mut self, id: AttributionId, state: TcpState, class: PortClass) {
        let Some(destination) = self.destination_mut(id) else { return };
        destination.release(state, class);
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

    /// A local port towards the attribution's destination is free again.
    pub(super) fn note_release(&mut self, id: AttributionId, at: Ktime) {
        if let Some(destination) = self.destination_mut(id) {
            destination.note_release(at);
        }
    }

    /// A minisocket has begun, and its timer at `timer_started`. `new`: it counts as a begin.
    pub(super) fn begin_minisocket(
        &mut self,
        id: AttributionId,
        timer_started: Ktime,
        (state, class): (TcpState, PortClass),
        new: bool,
    ) {
        self.retain(id);
        self.occupy(id, state, class);
        if let Some(destination) = self.destination_mut(id) {
            destination.schedule_release(timer_started);
            destination.touch(timer_started);
        }
        self.count(id, |counters| {
            if state == TcpState::TimeWait {
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

    /// The timer of a minisocket that was started at `before` has been started again.
    pub(super) fn restart_minisocket(&mut self, id: AttributionId, before: Ktime, now: Ktime) {
        if let Some(destination) = self.destination_mut(id) {
            destination.unschedule_release(before);
            destination.schedule_release(now);
        }
    }

    /// A minisocket whose timer was started at `timer_started` has ended.
    pub(super) fn end_minisocket(
        &mut self,
        id: AttributionId,
        timer_started: Ktime,
        (state, class): (TcpState, PortClass),
        now: Ktime,
    ) {
        self.vacate(id, state, class);
        if let Some(destination) = self.destination_mut(id) {
            destination.unschedule_release(timer_started);
            destination.note_release(now);
            destination.touch(now);
        }
        if state == TcpState::TimeWait {
            self.count(id, |counters| counters.time_wait.down());
        }
        self.release(id);
    }

    fn destination_mut(&mut self, id: AttributionId) -> Option<&mut DestinationEntry> {
        self.destinations.get_mut(self.attributions.destination(id)?)
    }
}
