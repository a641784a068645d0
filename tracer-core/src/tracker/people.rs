//! Who: processes, the workloads that they belong to, and what each process does towards each destination.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::cell::{Cell, Rate};
use super::ports::DestId;
use super::workload::{By, workload_name};
use crate::event::{Ktime, Netns, ProcessFacts};

/// Processes remembered: a busy host has a few thousand with sockets; a fork bomb of short-lived clients must not grow us.
const MAX_PROCESSES: usize = 16_384;
/// (process, destination) pairs kept apart, about 9 KiB each with their histograms: 36 MiB at the most.
const MAX_ATTRIBUTIONS: usize = 4_096;
/// Pairs folded at a time when the bound is hit, so that the search for idle ones is paid once per so many.
const FOLD_AT_ONCE: usize = 512;
/// /proc tells a process's start in ticks of 10 ms, the kernel's records in nanoseconds.
const START_GRANULARITY: u64 = 10_000_000;
/// Name of what cannot be attributed: sockets from before the start that no process has open, processes whose facts were lost.
pub const UNKNOWN: &str = "unknown";

macro_rules! index {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        // One more than the index, so that an option of it takes no more room.
        pub struct $name(std::num::NonZeroU32);

        impl $name {
            fn new(index: usize) -> Self {
                Self(std::num::NonZeroU32::MIN.saturating_add(u32::try_from(index).unwrap_or(u32::MAX)))
            }

            pub fn index(self) -> usize {
                usize::try_from(self.0.get() - 1).unwrap_or(usize::MAX)
            }
        }
    };
}
index!(
    /// A process, or the fold of many that have ended.
    ProcId
);
index!(WorkloadId);
index!(
    /// A process towards a destination.
    AttrId
);

#[derive(Clone, Debug)]
pub struct Proc {
    pub facts: Arc<ProcessFacts>,
    pub workload: WorkloadId,
    /// Stands for processes folded together; its pid is 0.
    pub folded: bool,
    /// Number of attributions; a process without any may be forgotten.
    attributions: u32,
}

#[derive(Clone, Debug)]
pub struct WorkloadEntry {
    pub name: Arc<str>,
    /// Of the first process seen, for the identity columns of a report.
    pub facts: Arc<ProcessFacts>,
    pub cell: Cell,
    pub rate: Rate,
    pub netns: BTreeSet<Netns>,
}

#[derive(Clone, Debug)]
pub struct Attr {
    pub proc: ProcId,
    /// `None`: flows that take no ephemeral port of ours (accepted ones), or a call without a destination.
    pub dest: Option<DestId>,
    pub cell: Cell,
    pub inferred: bool,
    last: Ktime,
}

/// All of them.
#[derive(Clone, Debug)]
pub struct People {
    by: By,
    procs: Vec<Option<Proc>>,
    free_procs: Vec<ProcId>,
    /// The process that has this pid now.
    by_pid: FxHashMap<u32, ProcId>,
    folds: FxHashMap<WorkloadId, ProcId>,
    workloads: Vec<WorkloadEntry>,
    by_name: FxHashMap<Arc<str>, WorkloadId>,
    attrs: Vec<Option<Attr>>,
    free_attrs: Vec<AttrId>,
    by_pair: FxHashMap<(ProcId, Option<DestId>), AttrId>,
    unknown: ProcId,
}

impl People {
    pub fn new(by: By) -> Self {
        let mut people = Self {
            by,
            procs: Vec::new(),
            free_procs: Vec::new(),
            by_pid: FxHashMap::default(),
            folds: FxHashMap::default(),
            workloads: Vec::new(),
            by_name: FxHashMap::default(),
            attrs: Vec::new(),
            free_attrs: Vec::new(),
            by_pair: FxHashMap::default(),
            unknown: ProcId::new(0),
        };
        let facts = Arc::new(ProcessFacts { comm: UNKNOWN.into(), ..ProcessFacts::default() });
        let workload = people.workload(UNKNOWN.into(), &facts);
        people.unknown = people.push_proc(Proc { facts, workload, folded: true, attributions: 0 });
        people
    }

    /// The process to whom what nobody owns is credited.
    pub fn unknown(&self) -> ProcId {
        self.unknown
    }

    /// Learns who a process is. A process that has exec'ed into another workload, or a new one under an old pid, is another
    /// process; what the earlier one did stays its own.
    pub fn introduce(&mut self, facts: &ProcessFacts) -> ProcId {
        let name = workload_name(facts, self.by);
        if let Some(&known) = self.by_pid.get(&facts.pid)
            && let Some(proc) = self.proc_mut(known)
        {
            let same_start = proc.facts.start == 0
                || facts.start == 0
                || proc.facts.start.abs_diff(facts.start) <= START_GRANULARITY;
            let workload = proc.workload;
            let stranger = &*proc.facts.comm == UNKNOWN && proc.facts.start == 0;
            if same_start && self.workloads.get(workload.index()).is_some_and(|entry| entry.name == name) {
                // The same process: keep what either knew.
                if let Some(proc) = self.proc_mut(known) {
                    let mut merged = facts.clone();
                    let old = &proc.facts;
                    merged.exe = merged.exe.or_else(|| old.exe.clone());
                    merged.cmdline = merged.cmdline.or_else(|| old.cmdline.clone());
                    proc.facts = Arc::new(merged);
                }
                return known;
            }
            if stranger && same_start {
                // Seen before it was introduced (its first facts were lost): what it does from now on has a name.
                let facts = Arc::new(facts.clone());
                let workload = self.workload(name, &facts);
                if let Some(proc) = self.proc_mut(known) {
                    proc.facts = facts;
                    proc.workload = workload;
                }
                return known;
            }
        }
        let pid = facts.pid;
        let facts = Arc::new(facts.clone());
        let workload = self.workload(name, &facts);
        let id = self.push_proc(Proc { facts, workload, folded: false, attributions: 0 });
        self.by_pid.insert(pid, id);
        id
    }

    /// The process with this pid, introduced as a stranger if nothing is known of it.
    pub fn of_pid(&mut self, pid: u32) -> ProcId {
        if pid == 0 {
            return self.unknown;
        }
        match self.by_pid.get(&pid) {
            Some(&id) => id,
            None => self.introduce(&ProcessFacts { pid, comm: UNKNOWN.into(), ..ProcessFacts::default() }),
        }
    }

    fn push_proc(&mut self, proc: Proc) -> ProcId {
        if self.free_procs.is_empty() && self.procs.len() >= MAX_PROCESSES {
            self.forget_processes();
        }
        if let Some(id) = self.free_procs.pop()
            && let Some(slot) = self.procs.get_mut(id.index())
        {
            *slot = Some(proc);
            return id;
        }
        // With every process holding sockets the table does grow: the sockets bound it.
        self.procs.push(Some(proc));
        ProcId::new(self.procs.len() - 1)
    }

    /// Drops processes that no attribution mentions.
    fn forget_processes(&mut self) {
        let (unknown, folds) = (self.unknown, &self.folds);
        let mut freed = Vec::new();
        for (index, slot) in self.procs.iter_mut().enumerate() {
            let id = ProcId::new(index);
            if slot
                .as_ref()
                .is_some_and(|proc| proc.attributions == 0 && id != unknown && !folds.values().any(|&fold| fold == id))
            {
                *slot = None;
                freed.push(id);
            }
        }
        self.by_pid.retain(|_, id| self.procs.get(id.index()).is_some_and(Option::is_some));
        self.free_procs.extend(freed);
    }

    fn workload(&mut self, name: Arc<str>, facts: &Arc<ProcessFacts>) -> WorkloadId {
        if let Some(&id) = self.by_name.get(&name) {
            return id;
        }
        let id = WorkloadId::new(self.workloads.len());
        self.by_name.insert(Arc::clone(&name), id);
        self.workloads.push(WorkloadEntry {
            name,
            facts: Arc::clone(facts),
            cell: Cell::default(),
            rate: Rate::default(),
            netns: BTreeSet::new(),
        });
        id
    }

    pub fn proc(&self, id: ProcId) -> Option<&Proc> {
        self.procs.get(id.index())?.as_ref()
    }

    fn proc_mut(&mut self, id: ProcId) -> Option<&mut Proc> {
        self.procs.get_mut(id.index())?.as_mut()
    }

    pub fn attr(&self, id: AttrId) -> Option<&Attr> {
        self.attrs.get(id.index())?.as_ref()
    }

    pub fn workload_entry(&self, id: WorkloadId) -> Option<&WorkloadEntry> {
        self.workloads.get(id.index())
    }

    /// The counters of a process towards a destination, created at need.
    pub fn attribute(
        &mut self,
        proc: ProcId,
        dest: Option<DestId>,
        netns: Netns,
        inferred: bool,
        now: Ktime,
    ) -> AttrId {
        if let Some(&id) = self.by_pair.get(&(proc, dest)) {
            if let Some(Some(attr)) = self.attrs.get_mut(id.index()) {
                attr.last = now;
                attr.inferred &= inferred;
            }
            return id;
        }
        let mut proc = proc;
        if self.by_pair.len() >= MAX_ATTRIBUTIONS && !self.fold() {
            // Everything is in use: this process shares the counters of its workload's folded ones.
            proc = self.fold_of(proc);
            if let Some(&id) = self.by_pair.get(&(proc, dest)) {
                return id;
            }
        }
        if let Some(workload) = self.proc(proc).map(|proc| proc.workload)
            && let Some(entry) = self.workloads.get_mut(workload.index())
        {
            entry.netns.insert(netns);
        }
        self.insert_attr(Attr { proc, dest, cell: Cell::default(), inferred, last: now })
    }

    fn insert_attr(&mut self, attr: Attr) -> AttrId {
        let pair = (attr.proc, attr.dest);
        if let Some(proc) = self.proc_mut(attr.proc) {
            proc.attributions += 1;
        }
        let id = match self.free_attrs.pop() {
            Some(id) => {
                if let Some(slot) = self.attrs.get_mut(id.index()) {
                    *slot = Some(attr);
                }
                id
            }
            None => {
                self.attrs.push(Some(attr));
                AttrId::new(self.attrs.len() - 1)
            }
        };
        self.by_pair.insert(pair, id);
        id
    }

    /// The pseudo-process that stands for ended processes of `proc`'s workload.
    fn fold_of(&mut self, proc: ProcId) -> ProcId {
        let Some((workload, facts)) = self.proc(proc).map(|proc| (proc.workload, Arc::clone(&proc.facts))) else {
            return self.unknown;
        };
        if let Some(&fold) = self.folds.get(&workload) {
            return fold;
        }
        let facts = Arc::new(ProcessFacts { comm: Arc::clone(&facts.comm), ..ProcessFacts::default() });
        let fold = self.push_proc(Proc { facts, workload, folded: true, attributions: 0 });
        self.folds.insert(workload, fold);
        fold
    }

    /// Moves the counters of the longest idle pairs to their workload's fold. False if nothing was idle.
    fn fold(&mut self) -> bool {
        let mut idle: Vec<(Ktime, AttrId)> = self
            .attrs
            .iter()
            .enumerate()
            .filter_map(|(index, slot)| {
                let attr = slot.as_ref()?;
                let folded = self.proc(attr.proc).is_none_or(|proc| proc.folded);
                (attr.cell.idle() && !folded).then_some((attr.last, AttrId::new(index)))
            })
            .collect();
        idle.sort_unstable();
        for &(_, id) in idle.iter().take(FOLD_AT_ONCE) {
            let Some(attr) = self.attrs.get_mut(id.index()).and_then(Option::take) else { continue };
            self.by_pair.remove(&(attr.proc, attr.dest));
            self.free_attrs.push(id);
            if let Some(proc) = self.proc_mut(attr.proc) {
                proc.attributions = proc.attributions.saturating_sub(1);
            }
            let fold = self.fold_of(attr.proc);
            let into = match self.by_pair.get(&(fold, attr.dest)) {
                Some(&into) => into,
                None => self.insert_attr(Attr { proc: fold, cell: Cell::default(), ..attr_head(&attr) }),
            };
            if let Some(Some(into)) = self.attrs.get_mut(into.index()) {
                into.cell.merge(&attr.cell);
            }
        }
        !idle.is_empty()
    }

    /// Applies `change` to the counters of the pair and of its workload.
    pub fn count(&mut self, id: AttrId, change: impl Fn(&mut Cell)) {
        let Some(Some(attr)) = self.attrs.get_mut(id.index()) else { return };
        change(&mut attr.cell);
        let workload = self.procs.get(attr.proc.index()).and_then(|slot| slot.as_ref()).map(|proc| proc.workload);
        if let Some(entry) = workload.and_then(|id| self.workloads.get_mut(id.index())) {
            change(&mut entry.cell);
        }
    }

    /// Notes an attempt for the workload's rate.
    pub fn tick(&mut self, id: AttrId, at: Ktime) {
        let workload = self.attr(id).and_then(|attr| self.proc(attr.proc)).map(|proc| proc.workload);
        if let Some(entry) = workload.and_then(|id| self.workloads.get_mut(id.index())) {
            entry.rate.count(at);
        }
    }

    /// Who has which pid now.
    pub fn processes(&self) -> impl Iterator<Item = &ProcessFacts> {
        self.by_pid.values().filter_map(|&id| self.proc(id)).filter(|proc| !proc.folded).map(|proc| &*proc.facts)
    }

    pub fn workloads(&self) -> impl Iterator<Item = (WorkloadId, &WorkloadEntry)> {
        self.workloads.iter().enumerate().map(|(index, entry)| (WorkloadId::new(index), entry))
    }

    pub fn attrs(&self) -> impl Iterator<Item = (AttrId, &Attr)> {
        self.attrs.iter().enumerate().filter_map(|(index, slot)| Some((AttrId::new(index), slot.as_ref()?)))
    }

    /// Lets go of a destination that is about to be forgotten: its pairs keep their counts without it.
    pub fn forget_destination(&mut self, dest: DestId) {
        let pairs: Vec<_> =
            self.by_pair.iter().filter(|((_, of), _)| *of == Some(dest)).map(|(&pair, &id)| (pair, id)).collect();
        for (pair, id) in pairs {
            self.by_pair.remove(&pair);
            let Some(attr) = self.attrs.get_mut(id.index()).and_then(Option::take) else { continue };
            self.free_attrs.push(id);
            if let Some(proc) = self.proc_mut(attr.proc) {
                proc.attributions = proc.attributions.saturating_sub(1);
            }
            let into = match self.by_pair.get(&(attr.proc, None)) {
                Some(&into) => into,
                None => self.insert_attr(Attr { dest: None, cell: Cell::default(), ..attr_head(&attr) }),
            };
            if let Some(Some(into)) = self.attrs.get_mut(into.index()) {
                into.cell.merge(&attr.cell);
            }
        }
    }
}

/// An attribution's identity with empty counters.
fn attr_head(attr: &Attr) -> Attr {
    Attr { proc: attr.proc, dest: attr.dest, cell: Cell::default(), inferred: attr.inferred, last: attr.last }
}
