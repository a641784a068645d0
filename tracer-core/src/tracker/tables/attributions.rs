//! Attributions: what each process does towards each destination.
//!
//! At the bound one of least worth is folded: into the row of its workload, then into that of all other workloads, towards the same
//! destination. The last row of a destination is folded together with the destination. Flows, minisockets and pending failures that
//! refer to a folded attribution are counted where it went: a reference is forwarded for as long as something uses it.

use rustc_hash::FxHashMap;

use super::counters::{Counters, Rate};
use super::destinations::{DestinationId, MAX_RESTS};
use super::processes::{ProcessId, Processes, WorkloadId};
use super::slab::{Ref, Slab};
use super::worth::{Hand, Merits, Shares, Worth};
use crate::event::Ktime;

/// Rows of a process or a workload towards a destination, about 20 KiB each with two histograms, 1 KiB with a few connections: 80 MiB at
/// the most.
pub const MAX_ATTRIBUTIONS: usize = 4_096;
/// Room for what is folded last: the other workloads towards each rest, and without a destination.
const LAST_FOLDS: usize = MAX_RESTS + 2;

/// Refers to an attribution.
pub type AttributionId = Ref<AttributionEntry>;

/// A process, or the fold of several, towards a destination.
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
    /// The last failure of another kind.
    pub failed: Option<Ktime>,
    /// When the attribution was last asked for.
    last: Ktime,
    /// Flows, minisockets and pending failures that refer to the attribution and will be counted here.
    users: u32,
    /// Place in the list of its destination.
    place: u32,
    owner: (u32, WorkloadId),
}

impl AttributionEntry {
    /// Flows, minisockets and pending failures that refer to the attribution.
    #[cfg(test)]
    pub fn users(&self) -> u32 {
        self.users
    }

    fn worth(&self, now: Ktime, over: i8) -> Worth {
        let merits = Merits {
            last_used: self.last,
            in_use: self.users > 0,
            ports: self.counters.ports.now,
            capacity: None,
            exhausted: self.without_port.map(|(_, last)| last),
            failed: self.failed,
        };
        merits.worth(now, over)
    }
}

/// Where an attribution was folded into, and how many still refer to it.
#[derive(Clone, Copy, Debug)]
struct Forward {
    to: AttributionId,
    users: u32,
}

/// How room is made for one attribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// This one, and a second one if the first alone would save no row, into the row of this fold towards the same destination.
    Into(AttributionId, Option<AttributionId>, ProcessId),
    /// This one, with its destination.
    Destination(AttributionId, DestinationId),
}

/// Attributions of the same destination among which a second one to fold is looked for.
const SIBLINGS: usize = 16;

/// The attributions.
#[derive(Clone, Debug)]
pub struct Attributions {
    entries: Slab<AttributionEntry>,
    by_pair: FxHashMap<(ProcessId, Option<DestinationId>), AttributionId>,
    /// By destination.
    towards: FxHashMap<Option<DestinationId>, Vec<AttributionId>>,
    /// At most as many as flows, minisockets and pending failures.
    forwards: FxHashMap<AttributionId, Forward>,
    hand: Hand,
    uids: Shares<u32>,
    workloads: Shares<WorkloadId>,
}

impl Default for Attributions {
    fn default() -> Self {
        Self {
            entries: Slab::new(MAX_ATTRIBUTIONS),
            by_pair: FxHashMap::default(),
            towards: FxHashMap::default(),
            forwards: FxHashMap::default(),
            hand: Hand::default(),
            uids: Shares::of(MAX_ATTRIBUTIONS),
            workloads: Shares::of(MAX_ATTRIBUTIONS),
        }
    }
}

impl Attributions {
    /// The attribution of this pair, if there is one, used at this time.
    pub fn find(
        &mut self,
        process: ProcessId,
        destination: Option<DestinationId>,
        inferred: bool,
        now: Ktime,
    ) -> Option<AttributionId> {
        let &id = self.by_pair.get(&(process, destination))?;
        if let Some(entry) = self.entries.get_mut(id) {
            entry.last = now;
            entry.inferred &= inferred;
        }
        Some(id)
    }

    /// Is there an attribution of this pair?
    pub fn has(&self, process: ProcessId, destination: Option<DestinationId>) -> bool {
        self.by_pair.contains_key(&(process, destination))
    }

    /// No attribution is added any more before another one is folded.
    pub fn is_full(&self) -> bool {
        self.entries.len() >= MAX_ATTRIBUTIONS - LAST_FOLDS
    }

    /// Adds the attribution of a pair that has none. `None` at the last bound, which [`Self::is_full`] keeps away.
    pub fn insert(
        &mut self,
        processes: &mut Processes,
        (process, destination): (ProcessId, Option<DestinationId>),
        inferred: bool,
        last: Ktime,
    ) -> Option<AttributionId> {
        let owner = processes.owner(process);
        let siblings = self.towards.entry(destination).or_default();
        let place = u32::try_from(siblings.len()).unwrap_or(u32::MAX);
        let entry = AttributionEntry {
            process,
            destination,
            counters: Counters::default(),
            rate: Rate::default(),
            without_port: None,
            inferred,
            failed: None,
            last,
            users: 0,
            place,
            owner,
        };
        let id = self.entries.insert(entry)?;
        siblings.push(id);
        processes.retain(process);
        self.by_pair.insert((process, destination), id);
        self.uids.add(owner.0);
        self.workloads.add(owner.1);
        Some(id)
    }

    fn remove(&mut self, processes: &mut Processes, id: AttributionId) -> Option<AttributionEntry> {
        let entry = self.entries.remove(id)?;
        self.by_pair.remove(&(entry.process, entry.destination));
        if let Some(siblings) = self.towards.get_mut(&entry.destination) {
            let place = usize::try_from(entry.place).unwrap_or(usize::MAX);
            if place < siblings.len() {
                siblings.swap_remove(place);
            }
            if let Some(moved) = siblings.get(place).and_then(|&moved| self.entries.get_mut(moved)) {
                moved.place = entry.place;
            }
            if siblings.is_empty() {
                self.towards.remove(&entry.destination);
            }
        }
        processes.release(entry.process);
        self.uids.remove(&entry.owner.0);
        self.workloads.remove(&entry.owner.1);
        Some(entry)
    }

    /// Folds an attribution into that of another pair, which is created at need. What refers to it is counted there from now on.
    pub fn fold(
        &mut self,
        processes: &mut Processes,
        id: AttributionId,
        (process, destination): (ProcessId, Option<DestinationId>),
    ) {
        let Some(removed) = self.remove(processes, id) else { return };
        let known = self.by_pair.get(&(process, destination)).copied();
        let into = known.or_else(|| self.insert(processes, (process, destination), removed.inferred, removed.last));
        let Some((into, entry)) = into.and_then(|into| Some((into, self.entries.get_mut(into)?))) else { return };
        entry.counters.merge(&removed.counters);
        entry.last = entry.last.max(removed.last);
        entry.rate.merge(&removed.rate);
        entry.without_port = match (entry.without_port, removed.without_port) {
            (Some(own), Some(other)) => Some((own.0.min(other.0), own.1.max(other.1))),
            (own, other) => own.or(other),
        };
        entry.failed = entry.failed.max(removed.failed);
        entry.users += removed.users;
        if removed.users > 0 {
            self.forwards.insert(id, Forward { to: into, users: removed.users });
        }
    }

    /// How to make room for one attribution. `worth_of`: what a destination is worth; `None` for one that stays.
    pub fn choose_fold(
        &mut self,
        processes: &mut Processes,
        now: Ktime,
        worth_of: impl Fn(DestinationId) -> Option<Worth>,
    ) -> Option<Fold> {
        let others = processes.others();
        let mut hand = self.hand;
        let least = hand.least(&self.entries, |_, entry| {
            let own = self.worth(entry, now);
            match entry.destination.filter(|&destination| self.is_only(destination)) {
                Some(destination) => Some(own.max(worth_of(destination)?)),
                None => (entry.process != others).then_some(own),
            }
        });
        self.hand = hand;
        let (_, id) = least?;
        let entry = self.entries.get(id)?;
        if let Some(destination) = entry.destination.filter(|&destination| self.is_only(destination)) {
            return Some(Fold::Destination(id, destination));
        }
        let (destination, workload) = (entry.destination, processes.workload_id_of(entry.process));
        let siblings = self.siblings(id);
        if let Some(fold) = processes.known_fold_of(entry.process)
            && self.by_pair.contains_key(&(fold, destination))
        {
            return Some(Fold::Into(id, None, fold));
        }
        let of_workload = |other: &&AttributionId| {
            self.entries.get(**other).is_some_and(|other| processes.workload_id_of(other.process) == workload)
        };
        if let Some(&second) = siblings.iter().find(of_workload)
            && let Some(fold) = processes.fold_of(entry.process)
        {
            return Some(Fold::Into(id, Some(second), fold));
        }
        if self.by_pair.contains_key(&(others, destination)) {
            return Some(Fold::Into(id, None, others));
        }
        let worth = |other: &AttributionId| self.entries.get(*other).map(|entry| self.worth(entry, now));
        let second = siblings.into_iter().min_by_key(worth);
        Some(Fold::Into(id, second, others))
    }

    fn worth(&self, entry: &AttributionEntry, now: Ktime) -> Worth {
        entry.worth(now, self.uids.exceeded(&entry.owner.0) + self.workloads.exceeded(&entry.owner.1))
    }

    /// Counts from zero again, and forgets what nothing is open of.
    pub fn restart(&mut self, processes: &mut Processes) {
        for entry in self.entries.iter_mut() {
            entry.counters.restart();
            (entry.without_port, entry.failed) = (None, None);
        }
        let idle = |entry: &AttributionEntry| entry.users == 0 && entry.counters.idle();
        let over: Vec<_> = self.entries.iter().filter(|(_, entry)| idle(entry)).map(|(id, _)| id).collect();
        for id in over {
            self.remove(processes, id);
        }
    }

    /// Some other attributions of the same destination.
    fn siblings(&self, id: AttributionId) -> Vec<AttributionId> {
        let Some(entry) = self.entries.get(id) else { return Vec::new() };
        let siblings = self.towards(entry.destination);
        let place = usize::try_from(entry.place).unwrap_or(0);
        let others = siblings.len().saturating_sub(1).min(SIBLINGS);
        (1..=others).filter_map(|step| siblings.get((place + step) % siblings.len())).copied().collect()
    }

    /// The destination has one attribution.
    fn is_only(&self, destination: DestinationId) -> bool {
        self.towards(Some(destination)).len() == 1
    }

    /// The attributions of a destination.
    pub fn towards(&self, destination: Option<DestinationId>) -> &[AttributionId] {
        self.towards.get(&destination).map_or(&[], Vec::as_slice)
    }

    /// Where something is counted that was entered under `id`.
    pub fn resolve(&self, mut id: AttributionId) -> AttributionId {
        while self.entries.get(id).is_none() {
            match self.forwards.get(&id) {
                Some(forward) => id = forward.to,
                None => break,
            }
        }
        id
    }

    /// References to folded attributions that something still holds.
    pub fn forwarded(&self) -> usize {
        self.forwards.len()
    }

    /// The attribution that `id` stands for.
    pub fn get(&self, id: AttributionId) -> Option<&AttributionEntry> {
        self.entries.get(self.resolve(id))
    }

    /// The attribution that `id` stands for.
    pub fn get_mut(&mut self, id: AttributionId) -> Option<&mut AttributionEntry> {
        self.entries.get_mut(self.resolve(id))
    }

    /// The destination of an attribution.
    pub fn destination(&self, id: AttributionId) -> Option<DestinationId> {
        self.get(id)?.destination
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
        let entry = self.get_mut(id)?;
        change(&mut entry.counters);
        Some((entry.process, entry.destination))
    }

    /// Counts an attempt to connect. Returns whose it is and towards what.
    pub fn count_attempt(&mut self, id: AttributionId, at: Ktime) -> Option<(ProcessId, Option<DestinationId>)> {
        let entry = self.get_mut(id)?;
        entry.counters.connects += 1;
        entry.rate.count(at);
        Some((entry.process, entry.destination))
    }

    /// One of its connects found no port.
    pub fn note_without_port(&mut self, id: AttributionId, at: Ktime) {
        if let Some(entry) = self.get_mut(id) {
            entry.without_port = Some((entry.without_port.map_or(at, |(first, _)| first), at));
        }
    }

    /// A flow, a minisocket or an pending failure refers to the attribution from now on. Returns its destination.
    pub fn retain(&mut self, mut id: AttributionId) -> Option<DestinationId> {
        while self.entries.get(id).is_none() {
            let forward = self.forwards.get_mut(&id)?;
            forward.users += 1;
            id = forward.to;
        }
        let entry = self.entries.get_mut(id)?;
        entry.users += 1;
        entry.destination
    }

    /// The counterpart of [`Self::retain`].
    pub fn release(&mut self, mut id: AttributionId) -> Option<DestinationId> {
        while self.entries.get(id).is_none() {
            let forward = self.forwards.get_mut(&id)?;
            let to = forward.to;
            forward.users -= 1;
            if forward.users == 0 {
                self.forwards.remove(&id);
            }
            id = to;
        }
        let entry = self.entries.get_mut(id)?;
        entry.users = entry.users.saturating_sub(1);
        entry.destination
    }
}
