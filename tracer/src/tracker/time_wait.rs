//! The `TIME_WAIT` ledger: one entry per minisocket, from its begin to its end.
//!
//! Observed entries begin and end with the minisocket's timer. Where the timers cannot be traced an entry is inferred from
//! FIN_WAIT2->CLOSE and CLOSING->CLOSE (net/ipv4/tcp_minisocks.c `tcp_time_wait`) and ends after 60 s and the mean delay of the
//! timer wheel; `sock_diag` corrects both. Either way an entry that outlives every rule is removed and said to be repaired.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use rustc_hash::FxHashMap;

use super::people::AttrId;
use super::ports::DestId;
use super::slab::{Ref, Slab};
use crate::event::{FlowKey, Ktime, SocketCookie};

/// Minisockets held, about 140 bytes each. The kernel's own default bound is a quarter of this on large hosts.
pub const MAX_ENTRIES: usize = 1_048_576;
/// Ends remembered, to tell a re-use (the 4-tuple connects again) from a kill.
const MAX_ENDS: usize = 65_536;
/// A new connection on a killed minisocket's 4-tuple shows its port within the connect timeout of a sane application.
const END_NANOS: u64 = 5_000_000_000;
/// mod_timer() cancels and starts in one breath.
pub const REARM_NANOS: u64 = 1_000_000;
/// An inferred entry ends here: 60 s (include/net/tcp.h `TCP_TIMEWAIT_LEN`) and what the wheel adds on average at 250 Hz.
const INFERRED_LIFE: u64 = 61_000_000_000;
/// An observed entry ends by its event. 60 s in sub-state FIN_WAIT2 at the most, 60 s more, and the wheel's worst case twice:
/// later than that the event was lost.
const OBSERVED_LIFE: u64 = 131_000_000_000;

#[derive(Clone, Debug)]
pub struct Entry {
    pub key: FlowKey,
    pub cookie: Option<SocketCookie>,
    pub began: Ktime,
    /// The last start of its timer, from which its end is due.
    pub armed: Ktime,
    /// Its timer was cancelled early: its end, unless it is started again in the same breath.
    pub cancelled: Option<Ktime>,
    pub attr: Option<AttrId>,
    pub dest: Option<DestId>,
    /// Its begin was seen at its timer.
    pub observed: bool,
    pub fin_wait2: bool,
    /// Its port is held by bind().
    pub bound: bool,
    pub last: Ktime,
    pub pass: u32,
}

/// What an early end left behind.
#[derive(Clone, Debug)]
struct Ended {
    at: Ktime,
    entry: Entry,
}

/// The ledger.
#[derive(Debug)]
pub struct Ledger {
    slab: Slab<Entry>,
    /// A 4-tuple can be in `TIME_WAIT` once, while a cookie may have several minisockets (a socket used again).
    by_key: FxHashMap<FlowKey, Ref>,
    /// When each entry is past its life; ended entries stay in here until they come up or are swept.
    deadlines: BinaryHeap<Reverse<(Ktime, Ref)>>,
    life: u64,
    ends: FxHashMap<FlowKey, Ended>,
    ends_order: VecDeque<(Ktime, FlowKey)>,
    pub inferred: u64,
}

impl Ledger {
    /// `ends_observed`: the timers are traced, so that time alone ends an entry only if its event was lost.
    pub fn new(ends_observed: bool) -> Self {
        Self {
            slab: Slab::new(MAX_ENTRIES),
            by_key: FxHashMap::default(),
            deadlines: BinaryHeap::new(),
            life: if ends_observed { OBSERVED_LIFE } else { INFERRED_LIFE },
            ends: FxHashMap::default(),
            ends_order: VecDeque::new(),
            inferred: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.slab.len()
    }

    pub fn get(&self, at: Ref) -> Option<&Entry> {
        self.slab.get(at)
    }

    pub fn get_mut(&mut self, at: Ref) -> Option<&mut Entry> {
        self.slab.get_mut(at)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Ref, &Entry)> {
        self.slab.iter()
    }

    pub fn find(&self, key: &FlowKey) -> Option<Ref> {
        self.by_key.get(key).copied()
    }

    /// `None` at the bound.
    pub fn insert(&mut self, entry: Entry) -> Option<Ref> {
        let (key, armed, observed) = (entry.key, entry.armed, entry.observed);
        let at = self.slab.insert(entry)?;
        self.by_key.insert(key, at);
        self.deadlines.push(Reverse((armed.plus(self.life), at)));
        self.inferred += u64::from(!observed);
        Some(at)
    }

    pub fn remove(&mut self, at: Ref) -> Option<Entry> {
        let entry = self.slab.remove(at)?;
        if self.by_key.get(&entry.key) == Some(&at) {
            self.by_key.remove(&entry.key);
        }
        self.inferred -= u64::from(!entry.observed);
        // Ended entries leave their deadline behind; sweep them out before they outnumber the living.
        if self.deadlines.len() > 2 * self.slab.len() + 1024 {
            let slab = &self.slab;
            self.deadlines.retain(|&Reverse((_, at))| slab.get(at).is_some());
        }
        Some(entry)
    }

    /// Remembers an early end for as long as its cause may show.
    pub fn remember(&mut self, entry: Entry, at: Ktime) {
        while self.ends_order.len() >= MAX_ENDS
            || self.ends_order.front().is_some_and(|&(ended, _)| at.since(ended) > END_NANOS)
        {
            let Some((ended, key)) = self.ends_order.pop_front() else { break };
            if self.ends.get(&key).is_some_and(|end| end.at == ended) {
                self.ends.remove(&key);
            }
        }
        self.ends_order.push_back((at, entry.key));
        self.ends.insert(entry.key, Ended { at, entry });
    }

    /// The entry that was ended early for the sake of a new connection on its 4-tuple.
    pub fn reused(&mut self, key: &FlowKey) -> Option<Entry> {
        self.ends.remove(key).map(|end| end.entry)
    }

    /// An entry that is past its life by the rules, if there is one.
    pub fn overdue(&mut self, now: Ktime) -> Option<Ref> {
        while let Some(&Reverse((due, at))) = self.deadlines.peek() {
            if due > now {
                return None;
            }
            self.deadlines.pop();
            let Some(entry) = self.slab.get(at) else { continue };
            // Its timer may have been started again since.
            let due = entry.armed.plus(self.life);
            if due <= now {
                return Some(at);
            }
            self.deadlines.push(Reverse((due, at)));
        }
        None
    }
}
