//! Processes, and the workloads that they belong to.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::cardinality::Cardinality;
use super::counters::{Counters, Rate};
use super::slab::{Ref, Slab};
use super::worth::{Hand, Merits, Shares};
use crate::event::{Ktime, Netns, ProcessFacts};
use crate::tracker::workload::{By, WorkloadKey, workload_of};

/// Processes remembered, below 1 KiB each: 32 MiB at the most. Twice as many as the BPF programs describe once and take for known
/// (`TASKS`), so that one that they do not describe again is still known here. One without attributions and bound sockets makes room.
const MAX_PROCESSES: usize = 32_768;
/// Workloads with a row of their own, about 20 KiB each with two histograms, 1 KiB with a few connections: 80 MiB at the most. More
/// names than anybody reads; a CI host has tens of thousands an hour.
pub const MAX_WORKLOADS: usize = 4_096;
/// Namespaces listed of a workload; a program that every pod runs is in thousands.
const MAX_NAMESPACES: usize = 64;
/// A process that owns bound sockets is forgotten after all if so many in turn do: the sockets stay, without a name.
const BOUND_LOOKS: usize = 64;
/// Name of what cannot be attributed: sockets from before the start that no process has open, processes whose facts were lost.
pub const UNKNOWN: &str = "unknown";
/// Name of the workloads that have no row of their own.
pub const OTHERS: &str = "other workloads";

/// Refers to a process.
pub type ProcessId = Ref<ProcessEntry>;
/// Refers to a workload.
pub type WorkloadId = Ref<WorkloadEntry>;

/// A process, or the fold of many processes of one workload.
#[derive(Clone, Debug)]
pub struct ProcessEntry {
    /// What is known of the process.
    pub facts: Arc<ProcessFacts>,
    /// The workload that the process belongs to.
    pub workload: WorkloadId,
    /// Stands for processes folded together; its pid is 0.
    pub folded: bool,
    /// Attributions that refer to the process, which stays as long as there are any.
    users: u32,
    /// Bound sockets that refer to the process.
    bound: u32,
    /// An attribution of the process has gone since the hand came by last.
    lately: bool,
}

impl ProcessEntry {
    fn new(facts: Arc<ProcessFacts>, workload: WorkloadId, folded: bool) -> Self {
        Self { facts, workload, folded, users: 0, bound: 0, lately: false }
    }
}

/// Processes that an SRE thinks of as one.
#[derive(Clone, Debug)]
pub struct WorkloadEntry {
    /// Never empty. Says what tells it apart if another workload has its name.
    pub name: Arc<str>,
    /// Which workload it is.
    key: WorkloadKey,
    /// Of the first process seen, for the identity columns of a report.
    pub facts: Arc<ProcessFacts>,
    /// Sums over the processes of the workload.
    pub counters: Counters,
    /// Connects per second.
    pub rate: Rate,
    /// Namespaces in which its processes had sockets, as many as are listed.
    pub netns: BTreeSet<Netns>,
    /// When one of its processes last connected.
    last_used: Ktime,
    /// The last failure for lack of a port.
    exhausted: Option<Ktime>,
    /// The last failure of another kind.
    failed: Option<Ktime>,
}

/// The processes and the workloads.
#[derive(Clone, Debug)]
pub struct Processes {
    by: By,
    entries: Slab<ProcessEntry>,
    /// The process that has this pid now.
    by_pid: FxHashMap<u32, ProcessId>,
    /// The fold of each workload that has one.
    folds: FxHashMap<WorkloadId, ProcessId>,
    workloads: Slab<WorkloadEntry>,
    by_key: FxHashMap<WorkloadKey, WorkloadId>,
    /// The first workload of each name.
    first_of_name: FxHashMap<Arc<str>, WorkloadId>,
    unknown: ProcessId,
    /// The process to which the workloads without a row are credited.
    others: ProcessId,
    /// Its workload.
    rest: WorkloadId,
    /// The names that were folded.
    folded: Cardinality,
    /// Where the next search for a process to forget begins.
    next: u32,
    hand: Hand,
    /// Counts workloads that looked for a row.
    turn: u32,
    uids: Shares<u32>,
}

impl Processes {
    /// Only the unknown process. `by`: what workloads are named after.
    pub fn new(by: By) -> Self {
        let pseudo = |name: &'static str| {
            let name: Arc<str> = name.into();
            let facts = Arc::new(ProcessFacts { comm: Arc::clone(&name), ..ProcessFacts::default() });
            (WorkloadKey { name, apart: None }, facts)
        };
        let ((unknown_key, unknown_facts), (_, others_facts)) = (pseudo(UNKNOWN), pseudo(OTHERS));
        // The bounds are kept by making room before.
        let (mut workloads, mut entries) = (Slab::unlimited(), Slab::unlimited());
        let workload = workloads.push(WorkloadEntry::new(unknown_key.clone(), Arc::clone(&unknown_facts)));
        let unknown = entries.push(ProcessEntry::new(unknown_facts, workload, true));
        // Of this name a workload may be, too: they are told apart by what the row stands for.
        let rest_key = WorkloadKey { name: OTHERS.into(), apart: None };
        let rest = workloads.push(WorkloadEntry::new(rest_key, Arc::clone(&others_facts)));
        let others = entries.push(ProcessEntry::new(others_facts, rest, true));
        Self {
            by,
            entries,
            by_pid: FxHashMap::default(),
            folds: FxHashMap::default(),
            workloads,
            first_of_name: FxHashMap::from_iter([(Arc::clone(&unknown_key.name), workload)]),
            by_key: FxHashMap::from_iter([(unknown_key, workload)]),
            unknown,
            others,
            rest,
            folded: Cardinality::default(),
            next: 0,
            hand: Hand::default(),
            turn: 0,
            uids: Shares::of(MAX_WORKLOADS),
        }
    }

    /// The process to which the workloads without a row of their own are credited.
    pub fn others(&self) -> ProcessId {
        self.others
    }

    /// About how many workloads have no row of their own.
    pub fn folded(&self) -> u64 {
        self.folded.estimate()
    }

    /// The row of the workloads that have none of their own.
    pub fn is_rest(&self, id: WorkloadId) -> bool {
        id == self.rest
    }

    /// Whose rows those of the process are: its user's, and its workload's.
    pub fn owner(&self, process: ProcessId) -> (u32, WorkloadId) {
        self.entries.get(process).map_or((u32::MAX, self.rest), |entry| (entry.facts.uid, self.present(entry.workload)))
    }

    /// The process to which everything without an owner is credited.
    pub fn unknown(&self) -> ProcessId {
        self.unknown
    }

    /// Learns who a process is: (pid, start, `self_exec_id`). A process that has called exec, or a new process under an old pid, is
    /// another process; what the earlier one did stays its own.
    pub fn learn(&mut self, facts: &ProcessFacts) -> ProcessId {
        let key = self.key_of(facts);
        let merits = Merits { last_used: facts.ktime, in_use: true, ..Merits::default() };
        if let Some(&known) = self.by_pid.get(&facts.pid)
            && let Some(process) = self.entries.get_mut(known)
        {
            let same_start = process.facts.same_process(facts);
            let unseen = &*process.facts.comm == UNKNOWN && process.facts.start == 0;
            let other_exe = process.facts.exe.is_some() && facts.exe.is_some() && process.facts.exe != facts.exe;
            let older = facts.ktime < process.facts.ktime;
            if same_start && facts.exec_id == 0 && process.facts.exec_id != 0 && (older || !other_exe) {
                // What /proc says later of the same program is a new title at most, and names must not change with the passes.
                return known;
            }
            let same_program =
                process.facts.exec_id == facts.exec_id || process.facts.exec_id == 0 || facts.exec_id == 0;
            // Of a workload without a row it is not known any more which one it was.
            let same_workload = process.workload == self.rest
                || self.workloads.get(process.workload).is_none_or(|entry| entry.key == key);
            if same_start && same_program && same_workload {
                // The same process: keep what either report of it knew.
                let mut merged = facts.clone();
                merged.exec_id = merged.exec_id.max(process.facts.exec_id);
                merged.exe = merged.exe.or_else(|| process.facts.exe.clone());
                merged.cmdline = merged.cmdline.or_else(|| process.facts.cmdline.clone());
                process.facts = Arc::new(merged);
                return known;
            }
            if unseen && same_start {
                // Its first facts were lost: what it does from now on has a name.
                let facts = Arc::new(facts.clone());
                let workload = self.workload(key, &facts, merits);
                if let Some(process) = self.entries.get_mut(known) {
                    process.facts = facts;
                    process.workload = workload;
                }
                return known;
            }
        }
        let pid = facts.pid;
        let facts = Arc::new(facts.clone());
        let workload = self.workload(key, &facts, merits);
        let id = self.insert(ProcessEntry::new(facts, workload, false));
        self.by_pid.insert(pid, id);
        id
    }

    /// The process with this pid. One of which nothing is known yet is entered without a name.
    pub fn of_pid(&mut self, pid: u32) -> ProcessId {
        if pid == 0 {
            return self.unknown;
        }
        match self.by_pid.get(&pid) {
            Some(&id) => id,
            None => self.learn(&ProcessFacts { pid, comm: UNKNOWN.into(), ..ProcessFacts::default() }),
        }
    }

    fn insert(&mut self, process: ProcessEntry) -> ProcessId {
        if self.entries.len() >= MAX_PROCESSES {
            self.forget_one();
        }
        self.entries.push(process)
    }

    /// Forgets a process that no attribution refers to: there are always some, because there are far fewer attributions than processes.
    fn forget_one(&mut self) {
        let slots = u32::try_from(self.entries.slots()).unwrap_or(u32::MAX).max(1);
        let mut bound = 0;
        // Each look either ends here, or takes back what an event has set, or meets one of the few that have attributions.
        for _ in 0..2 * u64::from(slots) {
            let at = self.entries.at(self.next % slots).map(|(id, _)| id);
            self.next = (self.next + 1) % slots;
            let Some((id, entry)) = at.and_then(|id| Some((id, self.entries.get_mut(id)?))) else { continue };
            if entry.folded || entry.users > 0 || std::mem::take(&mut entry.lately) {
                continue;
            }
            bound += usize::from(entry.bound > 0);
            if entry.bound == 0 || bound > BOUND_LOOKS {
                self.forget(id);
                return;
            }
        }
    }

    fn forget(&mut self, id: ProcessId) {
        let Some(entry) = self.entries.remove(id) else { return };
        if self.by_pid.get(&entry.facts.pid) == Some(&id) {
            self.by_pid.remove(&entry.facts.pid);
        }
    }

    /// Which workload a process belongs to. What a worker of a pool forks, and a worker whose master has died, stay in the pool of their
    /// master, though their parent is another process.
    fn key_of(&self, facts: &ProcessFacts) -> WorkloadKey {
        let key = workload_of(facts, self.by);
        if facts.pool.is_none() || key.apart.is_none() && facts.ppid > 1 {
            return key;
        }
        let of_pid = |pid: u32| self.get(*self.by_pid.get(&pid)?).filter(|process| process.facts.pool == facts.pool);
        let same = of_pid(facts.pid).filter(|known| known.facts.same_process(facts) && known.facts.ppid != facts.ppid);
        let relative = same.or_else(|| of_pid(facts.ppid));
        let known = relative.and_then(|process| self.workloads.get(process.workload)).map(|entry| &entry.key);
        known.filter(|known| known.name == key.name).cloned().unwrap_or(key)
    }

    /// The workload of this key, created at need if it is worth more than another one at the bound; else the row of the others.
    fn workload(&mut self, key: WorkloadKey, facts: &Arc<ProcessFacts>, merits: Merits) -> WorkloadId {
        if let Some(&id) = self.by_key.get(&key) {
            return id;
        }
        if self.workloads.len() >= MAX_WORKLOADS && !self.make_room(facts.uid, merits) {
            self.folded.note(&key.name);
            return self.rest;
        }
        let mut entry = WorkloadEntry::new(key.clone(), Arc::clone(facts));
        entry.last_used = merits.last_used;
        if let Some(&first) = self.first_of_name.get(&key.name) {
            entry.tell_apart();
            if let Some(first) = self.workloads.get_mut(first) {
                first.tell_apart();
            }
        }
        let id = self.workloads.push(entry);
        self.uids.add(facts.uid);
        self.first_of_name.entry(Arc::clone(&key.name)).or_insert(id);
        self.by_key.insert(key, id);
        id
    }

    /// Folds a workload into the row of the others that is worth less than a newcomer of this user with these merits.
    fn make_room(&mut self, uid: u32, newcomer: Merits) -> bool {
        let now = newcomer.last_used;
        let newcomer = newcomer.worth(now, self.uids.exceeded(&uid));
        let unknown = self.entries.get(self.unknown).map(|entry| entry.workload);
        let mut hand = self.hand;
        let least = hand.least(&self.workloads, |id, entry| {
            let stays = id == self.rest || Some(id) == unknown;
            (!stays).then(|| entry.merits().worth(now, self.uids.exceeded(&entry.facts.uid)))
        });
        self.hand = hand;
        match least {
            Some((worth, id)) if worth.yields_to(newcomer) && !worth.waits_for(newcomer, &mut self.turn) => {
                self.fold_workload(id);
                true
            }
            _ => false,
        }
    }

    fn fold_workload(&mut self, id: WorkloadId) {
        let Some(folded) = self.workloads.remove(id) else { return };
        self.folded.note(&folded.key.name);
        self.uids.remove(&folded.facts.uid);
        self.by_key.remove(&folded.key);
        if self.first_of_name.get(&folded.key.name) == Some(&id) {
            self.first_of_name.remove(&folded.key.name);
        }
        if let Some(fold) = self.folds.remove(&id).and_then(|fold| self.entries.get_mut(fold)) {
            // Goes with its last attribution.
            fold.folded = false;
        }
        let Some(rest) = self.workloads.get_mut(self.rest) else { return };
        rest.counters.merge(&folded.counters);
        rest.rate.merge(&folded.rate);
        for netns in folded.netns {
            rest.seen_in(netns);
        }
    }

    /// The workload, or the row of the others if it has none of its own.
    fn present(&self, id: WorkloadId) -> WorkloadId {
        if self.workloads.get(id).is_some() { id } else { self.rest }
    }

    /// The process does something at this time that has these merits: its workload gets a row of its own again if it has none and another
    /// one is worth less. True if it got one just now.
    pub fn revive(&mut self, process: ProcessId, merits: Merits) -> bool {
        let Some(entry) = self.entries.get(process).filter(|entry| !entry.folded) else { return false };
        if self.present(entry.workload) != self.rest || entry.facts.pid == 0 {
            return false;
        }
        let facts = Arc::clone(&entry.facts);
        let key = self.key_of(&facts);
        let workload = self.workload(key, &facts, merits);
        if let Some(entry) = self.entries.get_mut(process) {
            entry.workload = workload;
        }
        workload != self.rest
    }

    /// Something more refers to the process, which is not forgotten as long as anything does.
    pub fn retain(&mut self, id: ProcessId) {
        if let Some(process) = self.entries.get_mut(id) {
            process.users += 1;
        }
    }

    /// The counterpart of [`Self::retain`].
    pub fn release(&mut self, id: ProcessId) {
        if let Some(process) = self.entries.get_mut(id) {
            process.users = process.users.saturating_sub(1);
            process.lately = true;
        }
    }

    /// A bound socket refers to the process.
    pub fn retain_bound(&mut self, id: ProcessId) {
        if let Some(process) = self.entries.get_mut(id) {
            process.bound += 1;
        }
    }

    /// The counterpart of [`Self::retain_bound`].
    pub fn release_bound(&mut self, id: ProcessId) {
        if let Some(process) = self.entries.get_mut(id) {
            process.bound = process.bound.saturating_sub(1);
        }
    }

    /// The pseudo-process that stands for folded processes of the workload of `process`, if it has one.
    pub fn known_fold_of(&self, process: ProcessId) -> Option<ProcessId> {
        let entry = self.entries.get(process).filter(|entry| !entry.folded)?;
        self.folds.get(&entry.workload).copied()
    }

    /// The same, created at need. `None` for a fold, and for the workloads without a row of their own.
    pub fn fold_of(&mut self, process: ProcessId) -> Option<ProcessId> {
        let entry = self.entries.get(process).filter(|entry| !entry.folded)?;
        let workload = entry.workload;
        if self.present(workload) == self.rest {
            return None;
        }
        if let Some(&fold) = self.folds.get(&workload) {
            return Some(fold);
        }
        let facts =
            ProcessFacts { comm: Arc::clone(&entry.facts.comm), uid: entry.facts.uid, ..ProcessFacts::default() };
        let fold = self.insert(ProcessEntry::new(Arc::new(facts), workload, true));
        self.folds.insert(workload, fold);
        Some(fold)
    }

    /// The process had a socket in this namespace.
    pub fn seen_in(&mut self, process: ProcessId, netns: Netns) {
        if let Some(workload) = self.workload_of_mut(process) {
            workload.seen_in(netns);
        }
    }

    /// Applies `change` to the counters of the workload of `process`.
    pub fn count(&mut self, process: ProcessId, change: impl FnOnce(&mut Counters)) {
        if let Some(workload) = self.workload_of_mut(process) {
            change(&mut workload.counters);
        }
    }

    /// The workloads count from zero again.
    pub fn restart(&mut self) {
        for workload in self.workloads.iter_mut() {
            workload.counters.restart();
            (workload.exhausted, workload.failed) = (None, None);
        }
        self.folded = Cardinality::default();
    }

    /// Applies `change` to the counters of a workload.
    pub fn count_workload(&mut self, id: Option<WorkloadId>, change: impl FnOnce(&mut Counters)) {
        if let Some(workload) = id.and_then(|id| self.workloads.get_mut(self.present(id))) {
            change(&mut workload.counters);
        }
    }

    /// Counts an attempt to connect for the rate of the workload of `process`.
    pub fn count_attempt(&mut self, process: ProcessId, at: Ktime) {
        if let Some(workload) = self.workload_of_mut(process) {
            workload.rate.count(at);
            workload.last_used = at;
        }
    }

    /// Notes a failed attempt of the workload of `process`.
    pub fn note_failure(&mut self, process: ProcessId, at: Ktime, lack_of_port: bool) {
        if let Some(workload) = self.workload_of_mut(process) {
            let last = if lack_of_port { &mut workload.exhausted } else { &mut workload.failed };
            *last = Some(at);
        }
    }

    /// Processes and folds.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The process, unless it has been forgotten.
    pub fn get(&self, id: ProcessId) -> Option<&ProcessEntry> {
        self.entries.get(id)
    }

    /// The workload, or the row of the others if it has none of its own.
    pub fn workload_entry(&self, id: WorkloadId) -> Option<&WorkloadEntry> {
        self.workloads.get(self.present(id))
    }

    /// The workload of a process.
    pub fn workload_of(&self, process: ProcessId) -> Option<&WorkloadEntry> {
        self.workload_entry(self.entries.get(process)?.workload)
    }

    /// The workload under which a process is counted.
    pub fn workload_id_of(&self, process: ProcessId) -> Option<WorkloadId> {
        Some(self.present(self.entries.get(process)?.workload))
    }

    fn workload_of_mut(&mut self, process: ProcessId) -> Option<&mut WorkloadEntry> {
        self.workloads.get_mut(self.present(self.entries.get(process)?.workload))
    }

    /// What is known of the processes that have a pid now.
    pub fn facts(&self) -> impl Iterator<Item = &ProcessFacts> {
        self.by_pid.values().filter_map(|&id| self.get(id)).filter(|process| !process.folded).map(|entry| &*entry.facts)
    }

    /// All workloads, in the order in which they appeared.
    pub fn workloads(&self) -> impl Iterator<Item = (WorkloadId, &WorkloadEntry)> {
        self.workloads.iter()
    }
}

impl WorkloadEntry {
    fn new(key: WorkloadKey, facts: Arc<ProcessFacts>) -> Self {
        let name = Arc::clone(&key.name);
        Self {
            name,
            key,
            facts,
            counters: Counters::default(),
            rate: Rate::default(),
            netns: BTreeSet::new(),
            last_used: Ktime(0),
            exhausted: None,
            failed: None,
        }
    }

    fn merits(&self) -> Merits {
        Merits {
            last_used: self.last_used,
            in_use: self.counters.ports.now > 0 || self.counters.time_wait.now > 0,
            ports: self.counters.ports.now,
            capacity: None,
            exhausted: self.exhausted,
            failed: self.failed,
        }
    }

    fn seen_in(&mut self, netns: Netns) {
        if self.netns.len() < MAX_NAMESPACES {
            self.netns.insert(netns);
        }
    }

    /// There is another workload of this name.
    fn tell_apart(&mut self) {
        if let Some(apart) = &self.key.apart {
            self.name = format!("{} [{apart}]", self.key.name).into();
        }
    }
}
