//! Attributions: what each process does towards each destination.

use rustc_hash::FxHashMap;

use super::counters::{Counters, Rate};
use super::destinations::DestinationId;
use super::processes::{ProcessId, Processes};
use super::slab::{Ref, Slab};
use crate::event::{Ktime, Netns};

/// Attributions kept apart, about 9 KiB each with their histograms: 36 MiB at the most.
const MAX_ATTRIBUTIONS: usize = 4_096;
/// Attributions folded at a time when the bound is hit, so that one search for idle ones serves many.
const FOLD_AT_ONCE: usize = 512;

/// Refers to an attribution.
pub type AttributionId = Ref<AttributionEntry>;

/// A process towards a destination.
#[derive(Clone, Debug)]
pub struct AttributionEntry {
    /// Who.
    pub process: ProcessId,
    /// Where to. `None`: flows that take no ephemeral port of ours (accepted ones), or a call without a destination.
    pub destination: Option<DestinationId>,
    /// What was done.
    pub counters: Counters,
    /// Connects per second.
    pub rate: Rate,
    /// First and last failure for lack of a port.
    pub without_port: Option<(Ktime, Ktime)>,
    /// Nothing has named the process yet; it is a guess.
    pub inferred: bool,
    /// When the attribution was last asked for.
    last: Ktime,
    /// Flows, minisockets and pending failures that refer to the attribution and will be counted here.
    users: u32,
}

impl AttributionEntry {
    fn new(process: ProcessId, destination: Option<DestinationId>, inferred: bool, last: Ktime) -> Self {
        let (counters, rate) = (Counters::default(), Rate::default());
        Self { process, destination, counters, rate, without_port: None, inferred, last, users: 0 }
    }

    /// Flows, minisockets and pending failures that refer to the attribution.
    #[cfg(test)]
    pub fn users(&self) -> u32 {
        self.users
    }
}

/// The attributions.
///
/// At the bound those that have been idle for longest are folded into one of their workload. An attribution with users is never
/// folded: what its flows do later belongs to its process.
#[derive(Clone, Debug)]
pub struct Attributions {
    entries: Slab<AttributionEntry>,
    by_pair: FxHashMap<(ProcessId, Option<DestinationId>), AttributionId>,
}

impl Default for Attributions {
    fn default() -> Self {
        // Folding keeps the bound. Beyond it there are only folds: workloads times destinations.
        Self { entries: Slab::unlimited(), by_pair: FxHashMap::default() }
    }
}

impl Attributions {
    /// The attribution of a process towards a destination, created at need.
    pub fn find_or_insert(
        &mut self,
        processes: &mut Processes,
        (process, destination): (ProcessId, Option<DestinationId>),
        netns: Netns,
        inferred: bool,
        now: Ktime,
    ) -> AttributionId {
        if let Some(&id) = self.by_pair.get(&(process, destination)) {
            if let Some(entry) = self.entries.get_mut(id) {
                entry.last = now;
                entry.inferred &= inferred;
            }
            return id;
        }
        if self.entries.len() < MAX_ATTRIBUTIONS {
            processes.seen_in(process, netns);
            return self.insert(processes, AttributionEntry::new(process, destination, inferred, now));
        }
        // Making room may enter folds, and a full table of processes forgets what nothing refers to: not this one.
        processes.retain(process);
        let id = self.insert_at_bound(processes, (process, destination), netns, inferred, now);
        processes.release(process);
        id
    }

    fn insert_at_bound(
        &mut self,
        processes: &mut Processes,
        (mut process, destination): (ProcessId, Option<DestinationId>),
        netns: Netns,
        inferred: bool,
        now: Ktime,
    ) -> AttributionId {
        if !self.fold_idle(processes) {
            // Everything is in use: this process shares the counters of its workload's folded ones.
            process = processes.fold_of(process);
            if let Some(&id) = self.by_pair.get(&(process, destination)) {
                return id;
            }
        }
        processes.seen_in(process, netns);
        self.insert(processes, AttributionEntry::new(process, destination, inferred, now))
    }

    fn insert(&mut self, processes: &mut Processes, entry: AttributionEntry) -> AttributionId {
        let (process, destination) = (entry.process, entry.destination);
        let id = self.entries.push(entry);
        processes.retain(process);
        self.by_pair.insert((process, destination), id);
        id
    }

    fn remove(&mut self, processes: &mut Processes, id: AttributionId) -> Option<AttributionEntry> {
        let entry = self.entries.remove(id)?;
        self.by_pair.remove(&(entry.process, entry.destination));
        processes.release(entry.process);
        Some(entry)
    }

    /// Adds the counters of a removed attribution to those of `process` towards `destination`.
    fn merge(
        &mut self,
        processes: &mut Processes,
        removed: &AttributionEntry,
        (process, destination): (ProcessId, Option<DestinationId>),
    ) {
        let into = match self.by_pair.get(&(process, destination)) {
            Some(&into) => into,
            None => {
                let entry = AttributionEntry::new(process, destination, removed.inferred, removed.last);
                self.insert(processes, entry)
            }
        };
        if let Some(into) = self.entries.get_mut(into) {
            into.counters.merge(&removed.counters);
            into.rate.merge(&removed.rate);
            into.without_port = match (into.without_port, removed.without_port) {
                (Some(own), Some(other)) => Some((own.0.min(other.0), own.1.max(other.1))),
                (own, other) => own.or(other),
            };
        }
    }

    /// Moves the counters of the longest idle attributions to their workload's fold. False if nothing was idle.
    fn fold_idle(&mut self, processes: &mut Processes) -> bool {
        let mut idle: Vec<(Ktime, AttributionId)> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.users == 0 && entry.counters.idle())
            .filter(|(_, entry)| processes.get(entry.process).is_some_and(|process| !process.folded))
            .map(|(id, entry)| (entry.last, id))
            .collect();
        idle.sort_unstable();
        for &(_, id) in idle.iter().take(FOLD_AT_ONCE) {
            let Some(entry) = self.remove(processes, id) else { continue };
            let fold = processes.fold_of(entry.process);
            self.merge(processes, &entry, (fold, entry.destination));
        }
        !idle.is_empty()
    }

    /// Lets go of a destination that is about to be forgotten: its attributions keep their counts without it.
    pub fn forget_destination(&mut self, processes: &mut Processes, destination: DestinationId) {
        let ids: Vec<AttributionId> =
            self.by_pair.iter().filter(|((_, of), _)| *of == Some(destination)).map(|(_, &id)| id).collect();
        for id in ids {
            let Some(entry) = self.remove(processes, id) else { continue };
            self.merge(processes, &entry, (entry.process, None));
        }
    }

    /// Counts from zero again, and forgets what nothing is open of.
    pub fn restart(&mut self, processes: &mut Processes) {
        for entry in self.entries.iter_mut() {
            entry.counters.restart();
            entry.without_port = None;
        }
        let idle = |entry: &AttributionEntry| entry.users == 0 && entry.counters.idle();
        let over: Vec<_> = self.entries.iter().filter(|(_, entry)| idle(entry)).map(|(id, _)| id).collect();
        for id in over {
            self.remove(processes, id);
        }
    }

    /// The attribution, unless it has been folded.
    pub fn get(&self, id: AttributionId) -> Option<&AttributionEntry> {
        self.entries.get(id)
    }

    /// The destination of an attribution.
    pub fn destination(&self, id: AttributionId) -> Option<DestinationId> {
        self.entries.get(id)?.destination
    }

    /// All attributions.
    pub fn iter(&self) -> impl Iterator<Item = (AttributionId, &AttributionEntry)> {
        self.entries.iter()
    }

    /// Applies `change` to the counters. Returns whose they are and towards what.
    pub fn count(
        &mut self,
        id: AttributionId,
        change: impl FnOnce(&mut Counters),
    ) -> Option<(ProcessId, Option<DestinationId>)> {
        let entry = self.entries.get_mut(id)?;
        change(&mut entry.counters);
        Some((entry.process, entry.destination))
    }

    /// Counts an attempt to connect. Returns whose it is and towards what.
    pub fn count_attempt(&mut self, id: AttributionId, at: Ktime) -> Option<(ProcessId, Option<DestinationId>)> {
        let entry = self.entries.get_mut(id)?;
        entry.counters.connects += 1;
        entry.rate.count(at);
        Some((entry.process, entry.destination))
    }

    /// One of its connects found no port.
    pub fn note_without_port(&mut self, id: AttributionId, at: Ktime) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.without_port = Some((entry.without_port.map_or(at, |(first, _)| first), at));
        }
    }

    /// A flow, a minisocket or an pending failure refers to the attribution from now on. Returns its destination.
    pub fn retain(&mut self, id: AttributionId) -> Option<DestinationId> {
        let entry = self.entries.get_mut(id)?;
        entry.users += 1;
        entry.destination
    }

    /// The counterpart of [`Self::retain`].
    pub fn release(&mut self, id: AttributionId) -> Option<DestinationId> {
        let entry = self.entries.get_mut(id)?;
        entry.users = entry.users.saturating_sub(1);
        entry.destination
    }
}
