//! The `TIME_WAIT` table: one entry per minisocket, from its begin to its end.
//!
//! Observed entries begin and end with the minisocket's timer. Where the timers cannot be traced an entry is inferred from
//! FIN_WAIT2->CLOSE and CLOSING->CLOSE (net/ipv4/tcp_minisocks.c `tcp_time_wait`) and ends after 60 s and the mean delay of the
//! timer wheel; `sock_diag` corrects both. Either way an entry that outlives every rule is removed and counted as repaired.
//!
//! A host may have a million minisockets, so entries are packed: addresses once per pair, times relative to one another. Callers see
//! the unpacked [`TimeWaitEntry`].

use std::collections::VecDeque;

use hashbrown::HashTable;
use rustc_hash::FxHashMap;

use super::address_pairs::{AddressPairs, CompactKey};
use super::attributions::AttributionId;
use super::slab::{Ref, Slab};
use crate::event::{FlowKey, Ktime, Netns, SocketCookie, TcpState};
use crate::model::timing::{TIME_WAIT, WHEEL_DELAY};
use crate::tracker::port_buckets::{BucketUser, PortClass};

/// Minisockets held, about 60 bytes each. The kernel's own default bound is a quarter of this on large hosts.
const MAX_ENTRIES: usize = 1_048_576;
/// Ends remembered, to tell a re-use (the 4-tuple connects again) from a kill.
const MAX_EARLY_ENDS: usize = 65_536;
/// A new connection on a killed minisocket's 4-tuple shows its port within the connect timeout of a sane application.
const EARLY_END_NANOS: u64 = 5_000_000_000;
/// mod_timer() cancels the timer and starts it again at once, but a virtual CPU may be held in between: 1 ms was too short for an
/// emulated one. A re-use of the 4-tuple is recognised by itself, so a long wait only delays the news of other early ends.
const RESTART_NANOS: u64 = 50_000_000;
/// An inferred entry ends after this many nanoseconds, on average.
const INFERRED_LIFE: u64 = (TIME_WAIT.as_secs() + WHEEL_DELAY.as_secs()) * 1_000_000_000;
/// An observed entry ends by its event. 60 s in sub-state FIN_WAIT2 at the most, 60 s more, and the wheel's worst case twice
/// (11 s): later than that the event was lost. Nanoseconds.
const OBSERVED_LIFE: u64 = (2 * TIME_WAIT.as_secs() + 11) * 1_000_000_000;
/// A search for overdue entries costs about a nanosecond an entry; a thousand times that lies between two searches.
const SWEEP_PAUSE_NANOS: u64 = 1_000;

/// Refers to a minisocket.
pub type TimeWaitId = Ref<PackedEntry>;

/// A minisocket.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not a state in disguise")]
pub struct TimeWaitEntry {
    /// Its 4-tuple.
    pub key: FlowKey,
    /// The cookie of the socket that it was.
    pub cookie: Option<SocketCookie>,
    /// When it began, never later than `timer_started`. At most 71 minutes (32 bits of microseconds) before it: the table forgets
    /// what is longer ago.
    pub began: Ktime,
    /// The last start of its timer, from which its end is due.
    pub timer_started: Ktime,
    /// Where it is counted.
    pub attribution: AttributionId,
    /// Its begin was seen at its timer.
    pub observed: bool,
    /// The peer's FIN has not arrived yet.
    pub fin_wait2: bool,
    /// A list of sockets has shown it in `FIN_WAIT2`. (Where it began so, the peer's FIN has usually come a moment later: the kernel
    /// starts the timer again then, but not always visibly.)
    pub orphan: bool,
    /// The peer sends no TCP timestamps, so that no connect() takes its 4-tuple over.
    pub without_timestamps: bool,
    /// As what it uses the bucket of its port.
    pub user: BucketUser,
    /// Its port is counted under this class towards its destination.
    pub class: PortClass,
    /// Number of the last pass of `sock_diag` that listed it.
    pub pass: u32,
}

impl TimeWaitEntry {
    /// The state that it is in, as `ss` shows it.
    pub fn state(&self) -> TcpState {
        if self.orphan { TcpState::FinWait2 } else { TcpState::TimeWait }
    }
}

/// An entry as the table holds it.
#[derive(Clone, Debug)]
pub struct PackedEntry {
    key: CompactKey,
    cookie: Option<SocketCookie>,
    timer_started: Ktime,
    /// Microseconds from `began` to `timer_started`.
    restarted_after: u32,
    attribution: AttributionId,
    /// The low half: passes are seconds apart, and 65,536 of them days.
    pass: u16,
    observed: bool,
    flags: u8,
}

const FIN_WAIT2: u8 = 1;
/// It keeps its port closed: [`BucketUser::Minisocket`].
const CLOSES_PORT: u8 = 2;
/// Two bits for the class of its port.
const CLASS_SHIFT: u8 = 2;
const CLASS_MASK: u8 = 3 << CLASS_SHIFT;
const ORPHAN: u8 = 16;
const WITHOUT_TIMESTAMPS: u8 = 32;

const _: () = assert!(size_of::<Option<PackedEntry>>() == 40, "a million of these");

/// The table.
#[derive(Clone, Debug)]
pub struct TimeWaitTable {
    slab: Slab<PackedEntry>,
    addresses: AddressPairs,
    /// A 4-tuple can be in `TIME_WAIT` once, while a cookie may have several minisockets (a socket used again).
    by_key: HashTable<u32>,
    /// Entries whose timer was cancelled early: they have ended, unless the timer is started again at once.
    cancelled: FxHashMap<TimeWaitId, Ktime>,
    /// The same in order, with cancellations that are over.
    cancelled_order: VecDeque<(Ktime, TimeWaitId)>,
    ends_observed: bool,
    /// No entry is past its life before this.
    earliest_end: Ktime,
    last_sweep: Ktime,
    /// Entries that ended early, and where they were counted.
    early_ends: FxHashMap<FlowKey, (Ktime, AttributionId)>,
    early_ends_order: VecDeque<(Ktime, FlowKey)>,
}

impl TimeWaitTable {
    /// `ends_observed`: the timers are traced, so that time alone ends an entry only if its event was lost.
    pub fn new(ends_observed: bool) -> Self {
        Self {
            slab: Slab::new(MAX_ENTRIES),
            addresses: AddressPairs::default(),
            by_key: HashTable::new(),
            cancelled: FxHashMap::default(),
            cancelled_order: VecDeque::new(),
            ends_observed,
            earliest_end: Ktime(u64::MAX),
            last_sweep: Ktime(0),
            early_ends: FxHashMap::default(),
            early_ends_order: VecDeque::new(),
        }
    }

    /// The timers are traced; otherwise begins and ends are inferred.
    pub fn ends_observed(&self) -> bool {
        self.ends_observed
    }

    fn life(&self) -> u64 {
        if self.ends_observed { OBSERVED_LIFE } else { INFERRED_LIFE }
    }

    /// Minisockets held.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// The minisocket, unless it has ended.
    pub fn get(&self, at: TimeWaitId) -> Option<TimeWaitEntry> {
        self.unpack(self.slab.get(at)?)
    }

    /// All minisockets.
    pub fn iter(&self) -> impl Iterator<Item = (TimeWaitId, TimeWaitEntry)> {
        self.slab.iter().filter_map(|(at, packed)| Some((at, self.unpack(packed)?)))
    }

    /// The minisocket on this 4-tuple.
    pub fn find(&self, key: &FlowKey) -> Option<TimeWaitId> {
        let key = self.addresses.find(key)?;
        let held = |&index: &u32| self.slab.at(index).is_some_and(|(_, packed)| packed.key == key);
        Some(self.slab.at(*self.by_key.find(key.hash(), held)?)?.0)
    }

    /// Adds a minisocket. `None` at the bound.
    pub(super) fn insert(&mut self, entry: TimeWaitEntry) -> Option<TimeWaitId> {
        let key = self.addresses.acquire(&entry.key);
        let packed = PackedEntry {
            key,
            cookie: entry.cookie,
            timer_started: entry.timer_started,
            restarted_after: micros(entry.timer_started.since(entry.began)),
            attribution: entry.attribution,
            pass: low_half(entry.pass),
            observed: entry.observed,
            flags: u8::from(entry.fin_wait2) * FIN_WAIT2
                + u8::from(entry.user == BucketUser::Minisocket) * CLOSES_PORT
                + class_bits(entry.class)
                + u8::from(entry.orphan) * ORPHAN
                + u8::from(entry.without_timestamps) * WITHOUT_TIMESTAMPS,
        };
        let Some(at) = self.slab.insert(packed) else {
            self.addresses.release(key);
            return None;
        };
        let slab = &self.slab;
        let key_of = |index: u32| slab.at(index).map(|(_, packed)| packed.key);
        match self.by_key.find_entry(key.hash(), |&index| key_of(index) == Some(key)) {
            // The 4-tuple stands for the younger one.
            Ok(mut held) => *held.get_mut() = at.index,
            Err(_) => {
                let hash = |&index: &u32| key_of(index).map_or(0, CompactKey::hash);
                self.by_key.insert_unique(key.hash(), at.index, hash);
            }
        }
        self.earliest_end = self.earliest_end.min(entry.timer_started.plus(self.life()));
        Some(at)
    }

    /// Takes a minisocket out.
    pub(super) fn remove(&mut self, at: TimeWaitId) -> Option<TimeWaitEntry> {
        let key = self.slab.get(at)?.key;
        if let Ok(held) = self.by_key.find_entry(key.hash(), |&index| index == at.index) {
            held.remove();
        }
        let packed = self.slab.remove(at)?;
        let entry = self.unpack(&packed);
        self.addresses.release(key);
        if !self.cancelled.is_empty() {
            self.cancelled.remove(&at);
        }
        entry
    }

    /// The timer was started again: the same minisocket for another minute. Returns when the timer was started before, and where the
    /// minisocket is counted.
    pub(super) fn restart_timer(
        &mut self,
        at: TimeWaitId,
        now: Ktime,
        fin_wait2: bool,
    ) -> Option<(Ktime, AttributionId)> {
        self.cancelled.remove(&at);
        let packed = self.slab.get_mut(at)?;
        let before = packed.timer_started;
        packed.timer_started = now;
        packed.restarted_after = packed.restarted_after.saturating_add(micros(now.since(before)));
        packed.set_fin_wait2(fin_wait2);
        packed.set_orphan(packed.flags & ORPHAN != 0 && fin_wait2);
        Some((before, packed.attribution))
    }

    /// The minisocket's port counts as this class from now on.
    pub(super) fn set_class(&mut self, at: TimeWaitId, class: PortClass) {
        if let Some(packed) = self.slab.get_mut(at) {
            packed.flags = (packed.flags & !CLASS_MASK) | class_bits(class);
        }
    }

    /// The minisocket is counted elsewhere from now on.
    pub(super) fn set_attribution(&mut self, at: TimeWaitId, attribution: AttributionId) {
        if let Some(packed) = self.slab.get_mut(at) {
            packed.attribution = attribution;
        }
    }

    /// What ended early lately was counted under other references.
    pub(super) fn replace_remembered(&mut self, replace: impl Fn(AttributionId) -> AttributionId) {
        for (_, attribution) in self.early_ends.values_mut() {
            *attribution = replace(*attribution);
        }
    }

    /// The timer was cancelled before its time.
    pub fn cancel(&mut self, at: TimeWaitId, now: Ktime) {
        self.cancelled.insert(at, now);
        self.cancelled_order.push_back((now, at));
    }

    /// When the timer was cancelled, if it was.
    pub fn cancelled(&self, at: TimeWaitId) -> Option<Ktime> {
        self.cancelled.get(&at).copied()
    }

    /// A minisocket whose timer was cancelled and not started again in time, and when: it ended then.
    pub fn next_cancelled(&mut self, now: Ktime) -> Option<(TimeWaitId, Ktime)> {
        while let Some(&(cancelled, at)) = self.cancelled_order.front() {
            if now.since(cancelled) <= RESTART_NANOS {
                break;
            }
            self.cancelled_order.pop_front();
            if self.cancelled(at) == Some(cancelled) {
                return Some((at, cancelled));
            }
        }
        None
    }

    /// The minisocket on this 4-tuple if its timer is cancelled, and when that was.
    pub fn cancelled_on(&self, key: &FlowKey) -> Option<(TimeWaitId, Ktime)> {
        if self.cancelled.is_empty() {
            return None;
        }
        let at = self.find(key)?;
        Some((at, self.cancelled(at)?))
    }

    /// A pass of `sock_diag` has listed the minisocket.
    pub fn list(&mut self, at: TimeWaitId, pass: u32) {
        if let Some(packed) = self.slab.get_mut(at) {
            packed.pass = low_half(pass);
        }
    }

    /// A list of sockets shows the minisocket in `FIN_WAIT2`, or in `TIME_WAIT`.
    pub(super) fn set_orphan(&mut self, at: TimeWaitId, orphan: bool) {
        if let Some(packed) = self.slab.get_mut(at) {
            packed.set_fin_wait2(orphan);
            packed.set_orphan(orphan);
        }
    }

    /// Minisockets of a namespace that this pass has not listed and of which nothing has been heard since it `began`.
    pub fn unlisted(&self, netns: Netns, pass: u32, began: Ktime) -> Vec<TimeWaitId> {
        let silent = |at: TimeWaitId, packed: &PackedEntry| {
            packed.timer_started < began && self.cancelled(at).is_none_or(|cancelled| cancelled < began)
        };
        self.slab
            .iter()
            .filter(|&(at, packed)| packed.pass != low_half(pass) && silent(at, packed))
            .filter(|(_, packed)| self.addresses.key(packed.key).is_some_and(|key| key.netns == netns))
            .map(|(at, _)| at)
            .collect()
    }

    /// Remembers that a minisocket ended early, for as long as the cause may show.
    pub fn remember_early_end(&mut self, entry: &TimeWaitEntry, at: Ktime) {
        while self.early_ends_order.len() >= MAX_EARLY_ENDS
            || self.early_ends_order.front().is_some_and(|&(ended, _)| at.since(ended) > EARLY_END_NANOS)
        {
            let Some((ended, key)) = self.early_ends_order.pop_front() else { break };
            if self.early_ends.get(&key).is_some_and(|end| end.0 == ended) {
                self.early_ends.remove(&key);
            }
        }
        self.early_ends_order.push_back((at, entry.key));
        self.early_ends.insert(entry.key, (at, entry.attribution));
    }

    /// A new connection has come to life on this 4-tuple. Returns where the minisocket was counted that ended early for its sake.
    pub fn take_reused(&mut self, key: &FlowKey) -> Option<AttributionId> {
        if self.early_ends.is_empty() {
            return None;
        }
        self.early_ends.remove(key).map(|(_, attribution)| attribution)
    }

    /// Minisockets that are past their life by the rules, at the latest 1 ms per thousand minisockets after its end.
    pub fn overdue(&mut self, now: Ktime) -> Vec<TimeWaitId> {
        let pause = SWEEP_PAUSE_NANOS * self.slab.len() as u64;
        if now < self.earliest_end || now < self.last_sweep.plus(pause) {
            return Vec::new();
        }
        self.last_sweep = now;
        self.earliest_end = Ktime(u64::MAX);
        let life = self.life();
        let mut found = Vec::new();
        for (at, packed) in self.slab.iter() {
            let due = packed.timer_started.plus(life);
            if due <= now {
                found.push(at);
            } else {
                self.earliest_end = self.earliest_end.min(due);
            }
        }
        found
    }

    fn unpack(&self, packed: &PackedEntry) -> Option<TimeWaitEntry> {
        Some(TimeWaitEntry {
            key: self.addresses.key(packed.key)?,
            cookie: packed.cookie,
            began: Ktime(packed.timer_started.0.saturating_sub(u64::from(packed.restarted_after) * 1_000)),
            timer_started: packed.timer_started,
            attribution: packed.attribution,
            observed: packed.observed,
            fin_wait2: packed.flags & FIN_WAIT2 != 0,
            user: if packed.flags & CLOSES_PORT == 0 { BucketUser::Connect } else { BucketUser::Minisocket },
            class: class_of_bits(packed.flags),
            orphan: packed.flags & ORPHAN != 0,
            without_timestamps: packed.flags & WITHOUT_TIMESTAMPS != 0,
            pass: u32::from(packed.pass),
        })
    }
}

impl PackedEntry {
    fn set_orphan(&mut self, orphan: bool) {
        self.flags = (self.flags & !ORPHAN) | (u8::from(orphan) * ORPHAN);
    }

    fn set_fin_wait2(&mut self, fin_wait2: bool) {
        self.flags = (self.flags & !FIN_WAIT2) | (u8::from(fin_wait2) * FIN_WAIT2);
    }
}

fn class_bits(class: PortClass) -> u8 {
    let bits = match class {
        PortClass::Outside => 0,
        PortClass::Open => 1,
        PortClass::Unusable => 2,
    };
    bits << CLASS_SHIFT
}

fn class_of_bits(flags: u8) -> PortClass {
    match (flags & CLASS_MASK) >> CLASS_SHIFT {
        0 => PortClass::Outside,
        1 => PortClass::Open,
        _ => PortClass::Unusable,
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

    fn entry(port: u16, began: u64) -> TimeWaitEntry {
        let end = |last, port| Endpoint { addr: Addr::from(std::net::IpAddr::from([10, 0, 0, last])), port };
        TimeWaitEntry {
            key: FlowKey { netns: Netns::of_inode(7), device: 0, local: end(1, port), remote: end(2, 443) },
            cookie: SocketCookie::new(u64::from(port)),
            began: Ktime(began),
            timer_started: Ktime(began + 5_000),
            attribution: Ref::nothing(),
            observed: true,
            fin_wait2: true,
            orphan: true,
            without_timestamps: true,
            user: BucketUser::Minisocket,
            class: PortClass::Unusable,
            pass: 3,
        }
    }

    #[test]
    fn what_goes_in_comes_out() {
        let mut table = TimeWaitTable::new(true);
        let (a, b) = (entry(1, 7 * SECOND), TimeWaitEntry { fin_wait2: false, ..entry(2, 8 * SECOND) });
        let (at_a, at_b) = (table.insert(a).expect("room"), table.insert(b).expect("room"));
        assert_eq!(format!("{:?}", table.get(at_a)), format!("{:?}", Some(a)));
        assert_eq!(format!("{:?}", table.get(at_b)), format!("{:?}", Some(b)));
        assert_eq!((table.find(&a.key), table.find(&b.key)), (Some(at_a), Some(at_b)));
        // Restarted: began when it began, due from now.
        assert_eq!(table.restart_timer(at_a, Ktime(9 * SECOND), false), Some((a.timer_started, a.attribution)));
        let again = table.get(at_a).expect("still there");
        assert_eq!((again.began, again.timer_started, again.fin_wait2), (a.began, Ktime(9 * SECOND), false));
        assert!(table.remove(at_a).is_some());
        assert_eq!((table.find(&a.key), table.find(&b.key), table.len()), (None, Some(at_b), 1));
    }

    #[test]
    fn a_younger_minisocket_of_a_4_tuple_is_the_one_that_is_found() {
        let mut table = TimeWaitTable::new(true);
        let old = table.insert(entry(1, SECOND)).expect("room");
        let young = table.insert(entry(1, 2 * SECOND)).expect("room");
        table.remove(old);
        assert_eq!(table.find(&entry(1, 0).key), Some(young));
    }

    #[test]
    fn entries_are_overdue_when_their_life_is_over_and_not_before() {
        let mut table = TimeWaitTable::new(false);
        let at = table.insert(entry(1, SECOND)).expect("room");
        let later = table.insert(entry(2, 3 * SECOND)).expect("room");
        let due = entry(1, SECOND).timer_started.plus(INFERRED_LIFE);
        assert!(table.overdue(Ktime(due.0 - 1)).is_empty());
        assert_eq!(table.overdue(due), [at]);
        table.remove(at);
        assert_eq!(table.overdue(due.plus(2 * SECOND)), [later]);
    }

    #[test]
    fn a_pass_counts_as_unlisted_what_is_silent_and_of_its_namespace_only() {
        let mut table = TimeWaitTable::new(true);
        let listed = table.insert(entry(1, SECOND)).expect("room");
        let missing = table.insert(entry(2, SECOND)).expect("room");
        let cancelled = table.insert(entry(3, SECOND)).expect("room");
        let began = Ktime(5 * SECOND);
        table.list(listed, 4);
        table.cancel(cancelled, Ktime(6 * SECOND));
        assert_eq!(table.unlisted(Netns::of_inode(7), 4, began), [missing]);
        assert!(table.unlisted(Netns::of_inode(8), 4, began).is_empty());
    }
}
