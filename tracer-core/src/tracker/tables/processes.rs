//! Processes, and the workloads that they belong to.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::counters::{Counters, Rate};
use super::slab::{Ref, Slab};
use crate::event::{Ktime, Netns, ProcessFacts};
use crate::tracker::workload::{By, WorkloadKey, workload_of};

/// Processes remembered. A busy host has a few thousand with sockets; the rest are short-lived clients, of which those without
/// attributions are forgotten first.
const MAX_PROCESSES: usize = 16_384;
/// Name of what cannot be attributed: sockets from before the start that no process has open, processes whose facts were lost.
pub const UNKNOWN: &str = "unknown";

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
    /// Attributions and bound sockets that refer to the process. A process without any may be forgotten.
    users: u32,
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
    /// Namespaces in which its processes had sockets.
    pub netns: BTreeSet<Netns>,
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
}

impl Processes {
    /// Only the unknown process. `by`: what workloads are named after.
    pub fn new(by: By) -> Self {
        let name: Arc<str> = UNKNOWN.into();
        let facts = Arc::new(ProcessFacts { comm: Arc::clone(&name), ..ProcessFacts::default() });
        // There are no more workloads than distinct names; with every process holding sockets, the sockets bound the processes.
        let (mut workloads, mut entries) = (Slab::unlimited(), Slab::unlimited());
        let key = WorkloadKey { name: Arc::clone(&name), apart: None };
        let workload = workloads.push(WorkloadEntry::new(key.clone(), Arc::clone(&facts)));
        let unknown = entries.push(ProcessEntry { facts, workload, folded: true, users: 0 });
        Self {
            by,
            entries,
            by_pid: FxHashMap::default(),
            folds: FxHashMap::default(),
            workloads,
            by_key: FxHashMap::from_iter([(key, workload)]),
            first_of_name: FxHashMap::from_iter([(name, workload)]),
            unknown,
        }
    }

    /// The process to which everything without an owner is credited.
    pub fn unknown(&self) -> ProcessId {
        self.unknown
    }

    /// Learns who a process is: (pid, start, `self_exec_id`). A process that has called exec, or a new process under an old pid, is
    /// another process; what the earlier one did stays its own.
    pub fn learn(&mut self, facts: &ProcessFacts) -> ProcessId {
        let key = self.key_of(facts);
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
            let same_workload = self.workloads.get(process.workload).is_some_and(|entry| entry.key == key);
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
                let workload = self.workload(key, &facts);
                if let Some(process) = self.entries.get_mut(known) {
                    process.facts = facts;
                    process.workload = workload;
                }
                return known;
            }
        }
        let pid = facts.pid;
        let facts = Arc::new(facts.clone());
        let workload = self.workload(key, &facts);
        let id = self.insert(ProcessEntry { facts, workload, folded: false, users: 0 });
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
            self.forget_unused();
        }
        self.entries.push(process)
    }

    /// Drops processes that nothing refers to.
    fn forget_unused(&mut self) {
        let unused: Vec<ProcessId> = self
            .entries
            .iter()
            .filter(|(_, process)| process.users == 0 && !process.folded)
            .map(|(id, _)| id)
            .collect();
        for id in unused {
            self.entries.remove(id);
        }
        self.by_pid.retain(|_, &mut id| self.entries.get(id).is_some());
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

    fn workload(&mut self, key: WorkloadKey, facts: &Arc<ProcessFacts>) -> WorkloadId {
        if let Some(&id) = self.by_key.get(&key) {
            return id;
        }
        let mut entry = WorkloadEntry::new(key.clone(), Arc::clone(facts));
        if let Some(&first) = self.first_of_name.get(&key.name) {
            entry.tell_apart();
            if let Some(first) = self.workloads.get_mut(first) {
                first.tell_apart();
            }
        }
        let id = self.workloads.push(entry);
        self.first_of_name.entry(Arc::clone(&key.name)).or_insert(id);
        self.by_key.insert(key, id);
        id
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
        }
    }

    /// The pseudo-process that stands for folded processes of the workload of `process`.
    pub fn fold_of(&mut self, process: ProcessId) -> ProcessId {
        let Some((workload, comm)) = self.get(process).map(|entry| (entry.workload, Arc::clone(&entry.facts.comm)))
        else {
            return self.unknown;
        };
        if let Some(&fold) = self.folds.get(&workload) {
            return fold;
        }
        let facts = Arc::new(ProcessFacts { comm, ..ProcessFacts::default() });
        let fold = self.insert(ProcessEntry { facts, workload, folded: true, users: 0 });
        self.folds.insert(workload, fold);
        fold
    }

    /// The process had a socket in this namespace.
    pub fn seen_in(&mut self, process: ProcessId, netns: Netns) {
        if let Some(workload) = self.workload_of_mut(process) {
            workload.netns.insert(netns);
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
        self.workloads.iter_mut().for_each(|workload| workload.counters.restart());
    }

    /// Counts an attempt to connect for the rate of the workload of `process`.
    pub fn count_attempt(&mut self, process: ProcessId, at: Ktime) {
        if let Some(workload) = self.workload_of_mut(process) {
            workload.rate.count(at);
        }
    }

    /// The process, unless it has been forgotten.
    pub fn get(&self, id: ProcessId) -> Option<&ProcessEntry> {
        self.entries.get(id)
    }

    /// The workload.
    pub fn workload_entry(&self, id: WorkloadId) -> Option<&WorkloadEntry> {
        self.workloads.get(id)
    }

    /// The workload of a process.
    pub fn workload_of(&self, process: ProcessId) -> Option<&WorkloadEntry> {
        self.workloads.get(self.entries.get(process)?.workload)
    }

    fn workload_of_mut(&mut self, process: ProcessId) -> Option<&mut WorkloadEntry> {
        self.workloads.get_mut(self.entries.get(process)?.workload)
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
        Self { name, key, facts, counters: Counters::default(), rate: Rate::default(), netns: BTreeSet::new() }
    }

    /// There is another workload of this name.
    fn tell_apart(&mut self) {
        if let Some(apart) = &self.key.apart {
            self.name = format!("{} [{apart}]", self.key.name).into();
        }
    }
}
