//! The `TIME_WAIT` ledger: one entry per minisocket, from its begin to its end.
//!
//! Observed entries begin and end with the minisocket's timer. Where the timers cannot be traced an entry is inferred from
//! FIN_WAIT2->CLOSE and CLOSING->CLOSE (net/ipv4/tcp_minisocks.c `tcp_time_wait`) and ends after 60 s and the mean delay of the
//! timer wheel; `sock_diag` corrects both. Either way an entry that outlives every rule is removed and said to be repaired.
//!
//! A host may have a million of them, so an entry is packed: addresses once per pair, times relative to one another, indexes in place of
//! references. What comes out of the ledger is the unpacked [`Entry`].

use std::collections::VecDeque;

use hashbrown::HashTable;
use rustc_hash::FxHashMap;

use super::pairs::{Pairs, ShortKey};
use super::people::AttrId;
use super::ports::DestId;
use super::slab::{Ref, Slab};
use super::{TIME_WAIT, WHEEL_DELAY};
use crate::event::{FlowKey, Ktime, Netns, SocketCookie};

/// Minisockets held, about 60 bytes each. The kernel's own default bound is a quarter of this on large hosts.
pub const MAX_ENTRIES: usize = 1_048_576;
/// Ends remembered, to tell a re-use (the 4-tuple connects again) from a kill.
const MAX_ENDS: usize = 65_536;
/// A new connection on a killed minisocket's 4-tuple shows its port within the connect timeout of a sane application.
const END_NANOS: u64 = 5_000_000_000;
/// mod_timer() cancels and starts in one breath, which on a virtual CPU may be held for a while: 1 ms was too short for an emulated
/// one. A re-use of the 4-tuple is recognised by itself, so a long wait only delays the news of other early ends.
pub const REARM_NANOS: u64 = 50_000_000;
/// An inferred entry ends after this many nanoseconds, on average.
const INFERRED_LIFE: u64 = (TIME_WAIT.as_secs() + WHEEL_DELAY.as_secs()) * 1_000_000_000;
/// An observed entry ends by its event. 60 s in sub-state FIN_WAIT2 at the most, 60 s more, and the wheel's worst case twice
/// (11 s): later than that the event was lost. Nanoseconds.
const OBSERVED_LIFE: u64 = (2 * TIME_WAIT.as_secs() + 11) * 1_000_000_000;
/// A look for overdue entries costs about a nanosecond an entry; a thousand times that lies between two looks.
const SWEEP_PAUSE_NANOS: u64 = 1_000;

#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub key: FlowKey,
    pub cookie: Option<SocketCookie>,
    /// Never later than `armed`, and microseconds that do not fit into 32 bits before it at the most.
    pub began: Ktime,
    /// The last start of its timer, from which its end is due.
    pub armed: Ktime,
    pub attr: Option<AttrId>,
    pub dest: Option<DestId>,
    /// Its begin was seen at its timer.
    pub observed: bool,
    pub fin_wait2: bool,
    /// Its port is held by bind().
    pub bound: bool,
    /// Number of the last pass of `sock_diag` that listed it.
    pub pass: u32,
}

/// An entry as it is held.
#[derive(Clone, Debug)]
struct Packed {
    key: ShortKey,
    cookie: Option<SocketCookie>,
    armed: Ktime,
    /// Microseconds from `began` to `armed`.
    rearmed_after: u32,
    attr: Option<AttrId>,
    dest: Option<DestId>,
    /// The low half: passes are seconds apart, and 65,536 of them days.
    pass: u16,
    observed: bool,
    flags: u8,
}

const FIN_WAIT2: u8 = 1;
const BOUND: u8 = 2;

const _: () = assert!(size_of::<Option<Packed>>() == 40, "a million of these");

/// Whose an ended minisocket was.
#[derive(Clone, Copy, Debug)]
pub struct Former {
    pub attr: Option<AttrId>,
    pub dest: Option<DestId>,
}

/// The ledger.
#[derive(Clone, Debug)]
pub struct Ledger {
    slab: Slab<Packed>,
    pairs: Pairs,
    /// A 4-tuple can be in `TIME_WAIT` once, while a cookie may have several minisockets (a socket used again).
    by_key: HashTable<u32>,
    /// Entries whose timer was cancelled early: their end, unless it is started again in the same breath.
    cancelled: FxHashMap<Ref, Ktime>,
    life: u64,
    /// No entry is past its life before this.
    earliest: Ktime,
    swept: Ktime,
    ends: FxHashMap<FlowKey, (Ktime, Former)>,
    ends_order: VecDeque<(Ktime, FlowKey)>,
    pub inferred: u64,
}

impl Ledger {
    /// `ends_observed`: the timers are traced, so that time alone ends an entry only if its event was lost.
    pub fn new(ends_observed: bool) -> Self {
        Self {
            slab: Slab::new(MAX_ENTRIES),
            pairs: Pairs::default(),
            by_key: HashTable::new(),
            cancelled: FxHashMap::default(),
            life: if ends_observed { OBSERVED_LIFE } else { INFERRED_LIFE },
            earliest: Ktime(u64::MAX),
            swept: Ktime(0),
            ends: FxHashMap::default(),
            ends_order: VecDeque::new(),
            inferred: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.slab.len()
    }

    pub fn get(&self, at: Ref) -> Option<Entry> {
        self.unpack(self.slab.get(at)?)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Ref, Entry)> {
        self.slab.iter().filter_map(|(at, packed)| Some((at, self.unpack(packed)?)))
    }

    pub fn find(&self, key: &FlowKey) -> Option<Ref> {
        let key = self.pairs.find(key)?;
        let held = |&index: &u32| self.slab.at(index).is_some_and(|(_, packed)| packed.key == key);
        Some(self.slab.at(*self.by_key.find(key.hash(), held)?)?.0)
    }

    /// `None` at the bound.
    pub fn insert(&mut self, entry: Entry) -> Option<Ref> {
        let key = self.pairs.take(&entry.key)?;
        let packed = Packed {
            key,
            cookie: entry.cookie,
            armed: entry.armed,
            rearmed_after: micros(entry.armed.since(entry.began)),
            attr: entry.attr,
            dest: entry.dest,
            pass: low_half(entry.pass),
            observed: entry.observed,
            flags: u8::from(entry.fin_wait2) * FIN_WAIT2 + u8::from(entry.bound) * BOUND,
        };
        let Some(at) = self.slab.insert(packed) else {
            self.pairs.give(key);
            return None;
        };
        let slab = &self.slab;
        let key_of = |index: u32| slab.at(index).map(|(_, packed)| packed.key);
        match self.by_key.find_entry(key.hash(), |&index| key_of(index) == Some(key)) {
            // The newer one is the one that a 4-tuple means.
            Ok(mut held) => *held.get_mut() = at.index,
            Err(_) => {
                let hash = |&index: &u32| key_of(index).map_or(0, ShortKey::hash);
                self.by_key.insert_unique(key.hash(), at.index, hash);
            }
        }
        self.earliest = self.earliest.min(entry.armed.plus(self.life));
        self.inferred += u64::from(!entry.observed);
        Some(at)
    }

    pub fn remove(&mut self, at: Ref) -> Option<Entry> {
        let key = self.slab.get(at)?.key;
        if let Ok(held) = self.by_key.find_entry(key.hash(), |&index| index == at.index) {
            held.remove();
        }
        let packed = self.slab.remove(at)?;
        let entry = self.unpack(&packed);
        self.pairs.give(key);
        self.inferred -= u64::from(!packed.observed);
        if !self.cancelled.is_empty() {
            self.cancelled.remove(&at);
        }
        entry
    }

    /// Its timer was started again: the same minisocket for another minute. Answers when it was started before, and its destination.
    pub fn rearm(&mut self, at: Ref, now: Ktime, fin_wait2: bool) -> Option<(Ktime, Option<DestId>)> {
        self.cancelled.remove(&at);
        let packed = self.slab.get_mut(at)?;
        let before = packed.armed;
        packed.armed = now;
        packed.rearmed_after = packed.rearmed_after.saturating_add(micros(now.since(before)));
        packed.set_fin_wait2(fin_wait2);
        Some((before, packed.dest))
    }

    /// Its timer was cancelled before its time.
    pub fn cancel(&mut self, at: Ref, now: Ktime) {
        self.cancelled.insert(at, now);
    }

    /// When its timer was cancelled, if it was.
    pub fn cancelled(&self, at: Ref) -> Option<Ktime> {
        self.cancelled.get(&at).copied()
    }

    /// Some entry's timer is cancelled.
    pub fn any_cancelled(&self) -> bool {
        !self.cancelled.is_empty()
    }

    /// A pass of `sock_diag` has listed it.
    pub fn list(&mut self, at: Ref, pass: u32, fin_wait2: bool) {
        if let Some(packed) = self.slab.get_mut(at) {
            packed.pass = low_half(pass);
            packed.set_fin_wait2(fin_wait2);
        }
    }

    /// Entries of a namespace that this pass has not listed and of which nothing has been heard since it `began`.
    pub fn unlisted(&self, netns: Netns, pass: u32, began: Ktime) -> Vec<Ref> {
        let silent = |at: Ref, packed: &Packed| {
            packed.armed < began && self.cancelled(at).is_none_or(|cancelled| cancelled < began)
        };
        self.slab
            .iter()
            .filter(|&(at, packed)| packed.pass != low_half(pass) && silent(at, packed))
            .filter(|(_, packed)| self.pairs.key(packed.key).is_some_and(|key| key.netns == netns))
            .map(|(at, _)| at)
            .collect()
    }

    /// Remembers an early end for as long as its cause may show.
    pub fn remember(&mut self, entry: &Entry, at: Ktime) {
        while self.ends_order.len() >= MAX_ENDS
            || self.ends_order.front().is_some_and(|&(ended, _)| at.since(ended) > END_NANOS)
        {
            let Some((ended, key)) = self.ends_order.pop_front() else { break };
            if self.ends.get(&key).is_some_and(|end| end.0 == ended) {
                self.ends.remove(&key);
            }
        }
        self.ends_order.push_back((at, entry.key));
        self.ends.insert(entry.key, (at, Former { attr: entry.attr, dest: entry.dest }));
    }

    /// The entry that was ended early for the sake of a new connection on its 4-tuple.
    pub fn reused(&mut self, key: &FlowKey) -> Option<Former> {
        if self.ends.is_empty() {
            return None;
        }
        self.ends.remove(key).map(|(_, former)| former)
    }

    /// Entries that are past their life by the rules. Found within a thousandth of a second per thousand entries.
    pub fn overdue(&mut self, now: Ktime) -> Vec<Ref> {
        let pause = SWEEP_PAUSE_NANOS * self.slab.len() as u64;
        if now < self.earliest || now < self.swept.plus(pause) {
            return Vec::new();
        }
        self.swept = now;
        self.earliest = Ktime(u64::MAX);
        let mut found = Vec::new();
        for (at, packed) in self.slab.iter() {
            let due = packed.armed.plus(self.life);
            if due <= now {
                found.push(at);
            } else {
                self.earliest = self.earliest.min(due);
            }
        }
        found
    }

    fn unpack(&self, packed: &Packed) -> Option<Entry> {
        Some(Entry {
            key: self.pairs.key(packed.key)?,
            cookie: packed.cookie,
            began: Ktime(packed.armed.0.saturating_sub(u64::from(packed.rearmed_after) * 1_000)),
            armed: packed.armed,
            attr: packed.attr,
            dest: packed.dest,
            observed: packed.observed,
            fin_wait2: packed.flags & FIN_WAIT2 != 0,
            bound: packed.flags & BOUND != 0,
            pass: u32::from(packed.pass),
        })
    }
}

impl Packed {
    fn set_fin_wait2(&mut self, fin_wait2: bool) {
        self.flags = (self.flags & !FIN_WAIT2) | (u8::from(fin_wait2) * FIN_WAIT2);
    }
}

fn micros(nanos: u64) -> u32 {
    u32::try_from(nanos / 1_000).unwrap_or(u32::MAX)
}

fn low_half(pass: u32) -> u16 {
    u16::try_from(pass & 0xffff).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Addr, Endpoint};

    const SECOND: u64 = 1_000_000_000;

    fn entry(port: u16, began: u64) -> Entry {
        let end = |last, port| Endpoint { addr: Addr::from(std::net::IpAddr::from([10, 0, 0, last])), port };
        Entry {
            key: FlowKey { netns: Netns::of_inode(7), device: 0, local: end(1, port), remote: end(2, 443) },
            cookie: SocketCookie::new(u64::from(port)),
            began: Ktime(began),
            armed: Ktime(began + 5_000),
            attr: None,
            dest: None,
            observed: true,
            fin_wait2: true,
            bound: true,
            pass: 3,
        }
    }

    #[test]
    fn what_goes_in_comes_out() {
        let mut ledger = Ledger::new(true);
        let (a, b) = (entry(1, 7 * SECOND), Entry { fin_wait2: false, ..entry(2, 8 * SECOND) });
        let (at_a, at_b) = (ledger.insert(a).expect("room"), ledger.insert(b).expect("room"));
        assert_eq!(format!("{:?}", ledger.get(at_a)), format!("{:?}", Some(a)));
        assert_eq!(format!("{:?}", ledger.get(at_b)), format!("{:?}", Some(b)));
        assert_eq!((ledger.find(&a.key), ledger.find(&b.key)), (Some(at_a), Some(at_b)));
        // Restarted: began when it began, due from now.
        assert_eq!(ledger.rearm(at_a, Ktime(9 * SECOND), false), Some((a.armed, None)));
        let again = ledger.get(at_a).expect("still there");
        assert_eq!((again.began, again.armed, again.fin_wait2), (a.began, Ktime(9 * SECOND), false));
        assert!(ledger.remove(at_a).is_some());
        assert_eq!((ledger.find(&a.key), ledger.find(&b.key), ledger.len()), (None, Some(at_b), 1));
    }

    #[test]
    fn a_younger_minisocket_of_a_4_tuple_is_the_one_that_is_found() {
        let mut ledger = Ledger::new(true);
        let old = ledger.insert(entry(1, SECOND)).expect("room");
        let young = ledger.insert(entry(1, 2 * SECOND)).expect("room");
        ledger.remove(old);
        assert_eq!(ledger.find(&entry(1, 0).key), Some(young));
    }

    #[test]
    fn entries_are_overdue_when_their_life_is_over_and_not_before() {
        let mut ledger = Ledger::new(false);
        let at = ledger.insert(entry(1, SECOND)).expect("room");
        let later = ledger.insert(entry(2, 3 * SECOND)).expect("room");
        let due = entry(1, SECOND).armed.plus(INFERRED_LIFE);
        assert!(ledger.overdue(Ktime(due.0 - 1)).is_empty());
        assert_eq!(ledger.overdue(due), [at]);
        ledger.remove(at);
        assert_eq!(ledger.overdue(due.plus(2 * SECOND)), [later]);
    }

    #[test]
    fn a_pass_counts_as_unlisted_what_is_silent_and_of_its_namespace_only() {
        let mut ledger = Ledger::new(true);
        let listed = ledger.insert(entry(1, SECOND)).expect("room");
        let missing = ledger.insert(entry(2, SECOND)).expect("room");
        let cancelled = ledger.insert(entry(3, SECOND)).expect("room");
        let began = Ktime(5 * SECOND);
        ledger.list(listed, 4, false);
        ledger.cancel(cancelled, Ktime(6 * SECOND));
        assert_eq!(ledger.unlisted(Netns::of_inode(7), 4, began), [missing]);
        assert!(ledger.unlisted(Netns::of_inode(8), 4, began).is_empty());
    }
}
