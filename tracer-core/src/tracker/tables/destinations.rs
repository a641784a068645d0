//! Destinations, with the ports in use towards each.
//!
//! A plain connect() runs out of ports per (netns, local address, remote address:port) (net/ipv4/inet_hashtables.c
//! `__inet_hash_connect`), which is the key of a destination.

use rustc_hash::FxHashMap;

use super::counters::{Counters, Rate};
use super::port_search_times::PortSearchTimes;
use super::slab::{Ref, Slab};
use crate::event::{DestinationKey, Ktime, TcpState};
use crate::tracker::port_buckets::PortClass;

/// Destinations kept apart, about 12 KiB each with histogram and release schedule. A crawler connects to more: of the idle ones
/// without failures the oldest are forgotten, which is counted.
const MAX_DESTINATIONS: usize = 4_096;
/// Seconds of the release schedule: a minisocket lives 60 s, twice that after a late FIN.
pub const SCHEDULE_SECONDS: usize = 128;
/// connect() looks at one port after the other, so that a port released behind it is missed: releases of so many nanoseconds
/// before a failure do not contradict it. Ten times the longest search that was measured.
const SEARCH_NANOS: u64 = 20_000_000;

/// Failures that are further apart than this are two incidents: the log of findings ends one after as long.
const EPISODE_NANOS: u64 = 10_000_000_000;

/// Refers to a destination.
pub type DestinationId = Ref<DestinationEntry>;

/// One destination.
#[derive(Clone, Debug)]
pub struct DestinationEntry {
    /// Its identity.
    pub key: DestinationKey,
    /// Sums over the processes that connect to it.
    pub counters: Counters,
    /// Attempts per second.
    pub rate: Rate,
    /// How long connect() searched for a port.
    pub search: PortSearchTimes,
    /// The most ports that were ever in use at once.
    pub peak: u32,
    /// Failures for lack of a port while the ledger had a free one.
    pub contradictions: u64,
    /// The `IP_LOCAL_PORT_RANGE` of the socket that failed last for lack of a port in a range of its own.
    pub own_range: Option<(u16, u16)>,
    /// First and last failure for lack of a port.
    pub first_failure: Option<Ktime>,
    pub last_failure: Option<Ktime>,
    /// The first of the failures that followed one another closely.
    pub failing_since: Option<Ktime>,
    /// Ports in use by state number.
    by_state: [u32; 13],
    /// Ports in use inside the range that is in force.
    in_use: u32,
    /// Of these, closed or reserved ones: nobody else can have them, yet towards this destination they serve.
    unusable: u32,
    /// Ports in use outside of the range that is in force, which cost nothing.
    outside: u32,
    /// Ports released in the present and in the last slot of [`SEARCH_NANOS`].
    released: [(u64, u32); 2],
    /// Minisockets by the second in which their timer started, modulo `SCHEDULE_SECONDS`.
    schedule: Option<Box<[u32; SCHEDULE_SECONDS]>>,
    first_seen: Ktime,
    last_used: Ktime,
    /// Flows, minisockets and pending failures towards the destination.
    users: u32,
}

impl DestinationEntry {
    fn new(key: DestinationKey, at: Ktime) -> Self {
        Self {
            key,
            counters: Counters::default(),
            rate: Rate::default(),
            search: PortSearchTimes::default(),
            peak: 0,
            contradictions: 0,
            own_range: None,
            first_failure: None,
            last_failure: None,
            failing_since: None,
            by_state: [0; 13],
            in_use: 0,
            unusable: 0,
            outside: 0,
            released: [(0, 0); 2],
            schedule: None,
            first_seen: at,
            last_used: at,
            users: 0,
        }
    }

    /// A socket in `state` takes a port of this class.
    pub fn occupy(&mut self, state: TcpState, class: PortClass) {
        match class {
            PortClass::Outside => self.outside += 1,
            PortClass::Open | PortClass::Unusable => {
                self.by_state[usize::from(state as u8)] += 1;
                self.in_use += 1;
                self.unusable += u32::from(class == PortClass::Unusable);
                self.peak = self.peak.max(self.in_use);
            }
        }
    }

    /// The counterpart of [`Self::occupy`].
    pub fn release(&mut self, state: TcpState, class: PortClass) {
        match class {
            PortClass::Outside => self.outside = self.outside.saturating_sub(1),
            PortClass::Open | PortClass::Unusable => {
                let count = &mut self.by_state[usize::from(state as u8)];
                *count = count.saturating_sub(1);
                self.in_use = self.in_use.saturating_sub(1);
                self.unusable = self.unusable.saturating_sub(u32::from(class == PortClass::Unusable));
            }
        }
    }

    /// A port was released at this time.
    pub fn note_release(&mut self, at: Ktime) {
        let slot = at.0 / SEARCH_NANOS;
        let [present, _] = &mut self.released;
        if present.0 == slot {
            present.1 += 1;
        } else {
            self.released = [(slot, 1), self.released[0]];
        }
    }

    /// Ports that were released while a search that fails at this time may have been under way.
    pub fn released_lately(&self, at: Ktime) -> u32 {
        let slot = at.0 / SEARCH_NANOS;
        self.released.iter().filter(|(of, _)| slot.saturating_sub(*of) <= 1).map(|(_, count)| count).sum()
    }

    /// A socket that holds a port of this class changes its state.
    pub fn change_state(&mut self, from: TcpState, to: TcpState, class: PortClass) {
        if class != PortClass::Outside {
            let count = &mut self.by_state[usize::from(from as u8)];
            *count = count.saturating_sub(1);
            self.by_state[usize::from(to as u8)] += 1;
        }
    }

    /// Ports in use inside the range that is in force.
    pub fn in_use(&self) -> u32 {
        self.in_use
    }

    /// Of the ports in use, those that only this destination can still use: closed or reserved ones.
    pub fn unusable(&self) -> u32 {
        self.unusable
    }

    /// Ports in use outside of the range that is in force.
    pub fn outside(&self) -> u32 {
        self.outside
    }

    /// Ports in use by sockets in `state`.
    pub fn in_state(&self, state: TcpState) -> u32 {
        self.by_state[usize::from(state as u8)]
    }

    /// Ports in use by state, without states that no socket is in.
    pub fn states(&self) -> impl Iterator<Item = (TcpState, u32)> {
        TcpState::ALL.into_iter().map(|state| (state, self.in_state(state))).filter(|&(_, count)| count > 0)
    }

    fn schedule_index(second: u64) -> usize {
        usize::try_from(second % SCHEDULE_SECONDS as u64).unwrap_or(0)
    }

    /// The timer of a minisocket has started: its port is released a `TIME_WAIT` later.
    pub fn schedule_release(&mut self, timer_started: Ktime) {
        let schedule = self.schedule.get_or_insert_with(|| Box::new([0; SCHEDULE_SECONDS]));
        schedule[Self::schedule_index(timer_started.0 / 1_000_000_000)] += 1;
    }

    /// The minisocket has ended, or its timer starts again.
    pub fn unschedule_release(&mut self, timer_started: Ktime) {
        if let Some(schedule) = &mut self.schedule {
            let count = &mut schedule[Self::schedule_index(timer_started.0 / 1_000_000_000)];
            *count = count.saturating_sub(1);
        }
    }

    /// Minisockets whose timer started in this second, one of the last [`SCHEDULE_SECONDS`].
    pub fn timers_started(&self, second: u64) -> u32 {
        self.schedule.as_ref().map_or(0, |schedule| schedule[Self::schedule_index(second)])
    }

    /// A connect() has failed for lack of a port.
    pub fn fail(&mut self, at: Ktime) {
        self.first_failure.get_or_insert(at);
        if self.last_failure.is_none_or(|last| at.since(last) >= EPISODE_NANOS) {
            self.failing_since = Some(at);
        }
        self.last_failure = Some(at);
    }

    /// The destination is in use at this time.
    pub fn touch(&mut self, at: Ktime) {
        self.last_used = self.last_used.max(at);
    }

    /// When the destination was first seen, or seen again after it had been forgotten.
    pub fn first_seen(&self) -> Ktime {
        self.first_seen
    }

    /// Counts from zero again; what is open stays.
    fn restart(&mut self) {
        self.counters.restart();
        self.search = PortSearchTimes::default();
        (self.peak, self.contradictions, self.own_range) = (self.in_use, 0, None);
        (self.first_failure, self.last_failure, self.failing_since) = (None, None, None);
    }

    fn idle(&self) -> bool {
        self.users == 0 && self.first_failure.is_none()
    }
}

/// The destinations.
#[derive(Clone, Debug)]
pub struct Destinations {
    entries: Slab<DestinationEntry>,
    by_key: FxHashMap<DestinationKey, DestinationId>,
}

impl Default for Destinations {
    fn default() -> Self {
        Self { entries: Slab::new(MAX_DESTINATIONS), by_key: FxHashMap::default() }
    }
}

impl Destinations {
    /// The destination of that key.
    pub fn find(&self, key: &DestinationKey) -> Option<DestinationId> {
        self.by_key.get(key).copied()
    }

    /// The table is at its bound.
    pub fn is_full(&self) -> bool {
        self.entries.len() >= MAX_DESTINATIONS
    }

    /// Adds a destination that [`Self::find`] has not found. `None` at the bound.
    pub fn insert(&mut self, key: DestinationKey, at: Ktime) -> Option<DestinationId> {
        let id = self.entries.insert(DestinationEntry::new(key, at))?;
        self.by_key.insert(key, id);
        Some(id)
    }

    /// Forgets the idle destination that was used least recently, and returns its former reference. `None` if all are in use or have
    /// failures to show.
    pub fn forget_idle(&mut self) -> Option<DestinationId> {
        let idle = self.entries.iter().filter(|(_, entry)| entry.idle());
        let (_, id) = idle.map(|(id, entry)| (entry.last_used, id)).min()?;
        let entry = self.entries.remove(id)?;
        self.by_key.remove(&entry.key);
        Some(id)
    }

    /// Counts from zero again, and forgets what nothing is open towards.
    pub fn restart(&mut self) {
        self.entries.iter_mut().for_each(DestinationEntry::restart);
        let idle = |entry: &DestinationEntry| entry.idle() && entry.in_use == 0 && entry.outside == 0;
        let over: Vec<_> = self.entries.iter().filter(|(_, entry)| idle(entry)).map(|(id, _)| id).collect();
        for id in over {
            if let Some(entry) = self.entries.remove(id) {
                self.by_key.remove(&entry.key);
            }
        }
    }

    /// A flow, a minisocket or an pending failure has to do with the destination from now on.
    pub fn retain(&mut self, id: DestinationId) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.users += 1;
        }
    }

    /// The counterpart of [`Self::retain`].
    pub fn release(&mut self, id: DestinationId) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.users = entry.users.saturating_sub(1);
        }
    }

    /// The destination, unless it has been forgotten.
    pub fn get(&self, id: DestinationId) -> Option<&DestinationEntry> {
        self.entries.get(id)
    }

    /// The destination, unless it has been forgotten.
    pub fn get_mut(&mut self, id: DestinationId) -> Option<&mut DestinationEntry> {
        self.entries.get_mut(id)
    }

    /// All destinations.
    pub fn iter(&self) -> impl Iterator<Item = (DestinationId, &DestinationEntry)> {
        self.entries.iter()
    }
}
