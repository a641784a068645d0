//! Destinations, with the ports in use towards each.
//!
//! A plain connect() runs out of ports per (netns, local address, remote address:port) (net/ipv4/inet_hashtables.c
//! `__inet_hash_connect`), which is the key of a destination.

use rustc_hash::FxHashMap;

use super::counters::{Counters, Rate};
use super::port_search_times::PortSearchTimes;
use super::slab::{Ref, Slab};
use crate::event::{DestinationKey, Ktime, TcpState};

/// Destinations kept apart, about 12 KiB each with histogram and release schedule. A crawler connects to more: of the idle ones
/// without failures the oldest are forgotten, which is counted.
const MAX_DESTINATIONS: usize = 4_096;
/// Seconds of the release schedule: a minisocket lives 60 s, twice that after a late FIN.
pub const SCHEDULE_SECONDS: usize = 128;

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
    /// First and last failure for lack of a port.
    pub first_failure: Option<Ktime>,
    pub last_failure: Option<Ktime>,
    /// Ports in use by state number.
    by_state: [u32; 13],
    in_use: u32,
    /// Ports of explicitly bound sockets among `in_use`. The namespace counts them as blocked, yet towards this destination they serve.
    bound: u32,
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
            first_failure: None,
            last_failure: None,
            by_state: [0; 13],
            in_use: 0,
            bound: 0,
            schedule: None,
            first_seen: at,
            last_used: at,
            users: 0,
        }
    }

    /// A socket in `state` takes a port. `bound`: by bind(), not by connect().
    pub fn occupy(&mut self, state: TcpState, bound: bool) {
        self.by_state[usize::from(state as u8)] += 1;
        self.in_use += 1;
        self.bound += u32::from(bound);
        self.peak = self.peak.max(self.in_use);
    }

    /// The counterpart of [`Self::occupy`].
    pub fn release(&mut self, state: TcpState, bound: bool) {
        let count = &mut self.by_state[usize::from(state as u8)];
        *count = count.saturating_sub(1);
        self.in_use = self.in_use.saturating_sub(1);
        self.bound = self.bound.saturating_sub(u32::from(bound));
    }

    /// A socket that holds a port changes its state.
    pub fn change_state(&mut self, from: TcpState, to: TcpState) {
        let count = &mut self.by_state[usize::from(from as u8)];
        *count = count.saturating_sub(1);
        self.by_state[usize::from(to as u8)] += 1;
    }

    /// Ports in use.
    pub fn in_use(&self) -> u32 {
        self.in_use
    }

    /// Ports in use that bind() chose.
    pub fn bound(&self) -> u32 {
        self.bound
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
