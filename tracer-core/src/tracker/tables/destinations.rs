//! Destinations, with the ports in use towards each.
//!
//! A plain connect() runs out of ports per (netns, local address, remote address:port) (net/ipv4/inet_hashtables.c
//! `__inet_hash_connect`), which is the key of a destination.
//!
//! A destination that finds no row, or loses it to one that is worth more, is counted in the rest of its namespace, which is an entry
//! like any other: nothing that is counted towards a destination is ever dropped.

use rustc_hash::FxHashMap;

use super::cardinality::Cardinality;
use super::counters::{Counters, Rate};
use super::demand::RecentDemand;
use super::port_search_times::PortSearchTimes;
use super::processes::WorkloadId;
use super::slab::{Ref, Slab};
use super::worth::{Hand, Merits, Shares, Worth};
use crate::event::{Addr, DestinationKey, Ktime, Netns, TcpState};
use crate::tracker::port_buckets::PortClass;

/// Destinations with a row of their own, about 17 KiB each with histograms and the demand of the last minutes, less than 2 KiB with a few
/// connections: 68 MiB at the most. More rows than anybody reads; a crawler connects to more.
pub const MAX_DESTINATIONS: usize = 4_096;
/// Namespaces with a rest of their own. Only a namespace that had too many destinations needs one; those of all others share one.
pub const MAX_RESTS: usize = 64;
/// With fewer ports in use than this what they went through is not kept: most destinations never have more.
const FEW_PORTS: u32 = 8;
/// connect() looks at one port after the other, so that a port released behind it is missed: releases of so many nanoseconds
/// before a failure do not contradict it. Ten times the longest search that was measured.
const SEARCH_NANOS: u64 = 20_000_000;

/// Failures that are further apart than this are two incidents: the log of findings ends one after as long.
const EPISODE_NANOS: u64 = 10_000_000_000;

/// Refers to a destination.
pub type DestinationId = Ref<DestinationEntry>;

/// Whose row a destination is: the first who connected there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowOwner {
    /// The user.
    pub uid: u32,
    /// The workload.
    pub workload: WorkloadId,
}

/// One destination, or the rest of a namespace.
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
    /// Last failure of another kind.
    pub last_other_failure: Option<Ktime>,
    /// The destinations that were folded into this rest; `None` for a destination.
    pub rest: Option<Cardinality>,
    /// Connects and failures before this were counted in the rest of the namespace; `None` = there were none.
    pub counted_since: Option<Ktime>,
    /// Some ports of the destination may still be counted in the rest of the namespace.
    pub unsettled: bool,
    owner: RowOwner,
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
    /// The last two minutes; `None` as long as only a few ports were taken.
    demand: Option<Box<RecentDemand>>,
    first_seen: Ktime,
    last_used: Ktime,
    /// Flows, minisockets and pending failures towards the destination.
    users: u32,
}

impl DestinationEntry {
    fn new(key: DestinationKey, owner: RowOwner, at: Ktime) -> Self {
        Self {
            key,
            last_other_failure: None,
            rest: None,
            counted_since: None,
            unsettled: false,
            owner,
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
            demand: None,
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

    /// What the ports went through in the last two minutes; `None` as long as only a few were taken, and for a rest.
    pub fn demand(&self) -> Option<&RecentDemand> {
        self.demand.as_deref()
    }

    /// The same, to add to.
    pub fn demand_mut(&mut self) -> Option<&mut RecentDemand> {
        if self.demand.is_none() && (self.in_use < FEW_PORTS || self.rest.is_some()) {
            return None;
        }
        Some(self.demand.get_or_insert_default())
    }

    /// A connect() has failed for lack of a port. True if it is the first of an incident.
    pub fn fail(&mut self, at: Ktime) -> bool {
        self.first_failure.get_or_insert(at);
        let first = self.last_failure.is_none_or(|last| at.since(last) >= EPISODE_NANOS);
        if first {
            self.failing_since = Some(at);
        }
        self.last_failure = Some(at);
        first
    }

    /// The destination is in use at this time.
    pub fn touch(&mut self, at: Ktime) {
        self.last_used = self.last_used.max(at);
    }

    /// When it was last used.
    pub fn last_used(&self) -> Ktime {
        self.last_used
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
        self.rest = self.rest.take().map(|_| Cardinality::default());
        (self.counted_since, self.last_other_failure) = (None, None);
        (self.first_failure, self.last_failure, self.failing_since) = (None, None, None);
    }

    /// What the destination is worth. `capacity`: ports that it can have in use at once.
    pub fn merits(&self, capacity: Option<u32>) -> Merits {
        Merits {
            last_used: self.last_used,
            in_use: self.users > 0,
            ports: u64::from(self.in_use),
            capacity,
            exhausted: self.last_failure,
            failed: self.last_other_failure,
        }
    }

    /// Ports in use, inside the range and outside.
    pub fn held(&self) -> u32 {
        self.in_use + self.outside
    }

    /// Adds everything that was counted of `other`, whose flows and minisockets are counted here from now on.
    fn absorb(&mut self, other: &Self) {
        self.counters.merge(&other.counters);
        self.rate.merge(&other.rate);
        self.search.merge(&other.search);
        self.contradictions += other.contradictions;
        self.own_range = self.own_range.or(other.own_range);
        let first = [self.first_failure, other.first_failure].into_iter().flatten().min();
        self.first_failure = first;
        self.last_failure = self.last_failure.max(other.last_failure);
        self.failing_since = [self.failing_since, other.failing_since].into_iter().flatten().min();
        self.last_other_failure = self.last_other_failure.max(other.last_other_failure);
        for (own, others) in self.by_state.iter_mut().zip(other.by_state) {
            *own += others;
        }
        self.in_use += other.in_use;
        self.unusable += other.unusable;
        self.outside += other.outside;
        self.peak = self.peak.max(self.in_use);
        self.last_used = self.last_used.max(other.last_used);
        self.users += other.users;
        if let Some(folded) = &mut self.rest {
            match &other.rest {
                Some(others) => folded.merge(others),
                None => folded.note(&other.key),
            }
        }
    }
}

/// The destinations.
#[derive(Clone, Debug)]
pub struct Destinations {
    entries: Slab<DestinationEntry>,
    by_key: FxHashMap<DestinationKey, DestinationId>,
    rests: usize,
    hand: Hand,
    uids: Shares<u32>,
    workloads: Shares<WorkloadId>,
    namespaces: Shares<Netns>,
    /// Of those with a known source address, the latest one towards each remote end.
    by_remote: FxHashMap<(Netns, Addr, u16), DestinationId>,
}

fn remote_of(key: &DestinationKey) -> (Netns, Addr, u16) {
    (key.netns, key.remote_addr, key.remote_port)
}

impl Default for Destinations {
    fn default() -> Self {
        Self {
            entries: Slab::new(MAX_DESTINATIONS + MAX_RESTS + 1),
            by_key: FxHashMap::default(),
            by_remote: FxHashMap::default(),
            rests: 0,
            hand: Hand::default(),
            uids: Shares::of(MAX_DESTINATIONS),
            workloads: Shares::of(MAX_DESTINATIONS),
            namespaces: Shares::of(MAX_DESTINATIONS),
        }
    }
}

/// The key of the rest of a namespace, which no destination has: nobody connects to port 0.
fn rest_key(netns: Netns) -> DestinationKey {
    DestinationKey { netns, local_addr: Addr::UNSPECIFIED, remote_addr: Addr::UNSPECIFIED, remote_port: 0 }
}

/// The rest of the namespaces that have no rest of their own. Where the namespace of a socket is unknown, that is its rest too.
const EVERYWHERE: Netns = Netns::of_inode(0);

impl Destinations {
    /// The destination of that key.
    pub fn find(&self, key: &DestinationKey) -> Option<DestinationId> {
        self.by_key.get(key).copied()
    }

    /// A destination with this remote end and a known source address: where a connect() belongs whose own source address was not seen.
    pub fn find_by_remote(&self, key: &DestinationKey) -> Option<DestinationId> {
        self.by_remote.get(&remote_of(key)).copied()
    }

    fn forget_keys(&mut self, id: DestinationId, key: &DestinationKey) {
        self.by_key.remove(key);
        if self.by_remote.get(&remote_of(key)) == Some(&id) {
            self.by_remote.remove(&remote_of(key));
        }
    }

    /// The table is at its bound.
    pub fn is_full(&self) -> bool {
        self.entries.len() - self.rests >= MAX_DESTINATIONS
    }

    /// How many shares such an owner exceeds.
    pub fn exceeded(&self, owner: RowOwner, netns: Netns) -> i8 {
        self.uids.exceeded(&owner.uid) + self.workloads.exceeded(&owner.workload) + self.namespaces.exceeded(&netns)
    }

    /// The destination of least worth among some, and its worth. `capacity`: ports that a destination can have in use at once.
    pub fn least(
        &mut self,
        now: Ktime,
        capacity: impl Fn(&DestinationEntry) -> Option<u32>,
    ) -> Option<(Worth, DestinationId)> {
        let mut hand = self.hand;
        let least = hand.least(&self.entries, |_, entry| self.worth(entry, now, capacity(entry)));
        self.hand = hand;
        least
    }

    /// What a destination is worth; `None` for a rest, which stays.
    pub fn worth(&self, entry: &DestinationEntry, now: Ktime, capacity: Option<u32>) -> Option<Worth> {
        let over = self.exceeded(entry.owner, entry.key.netns);
        entry.rest.is_none().then(|| entry.merits(capacity).worth(now, over))
    }

    /// Adds a destination that [`Self::find`] has not found. `None` at the bound.
    pub fn insert(&mut self, key: DestinationKey, owner: RowOwner, at: Ktime) -> Option<DestinationId> {
        if self.is_full() {
            return None;
        }
        let id = self.entries.insert(DestinationEntry::new(key, owner, at))?;
        self.by_key.insert(key, id);
        self.uids.add(owner.uid);
        self.workloads.add(owner.workload);
        self.namespaces.add(key.netns);
        if !key.local_addr.is_unspecified() {
            self.by_remote.insert(remote_of(&key), id);
        }
        Some(id)
    }

    /// The rest of the destinations of a namespace, created at need.
    pub fn rest(&mut self, netns: Netns, owner: RowOwner, at: Ktime) -> Option<DestinationId> {
        let own = rest_key(netns);
        if let Some(known) = self.find(&own) {
            return Some(known);
        }
        let key = if self.rests < MAX_RESTS { own } else { rest_key(EVERYWHERE) };
        if let Some(known) = self.find(&key) {
            return Some(known);
        }
        let entry = DestinationEntry { rest: Some(Cardinality::default()), ..DestinationEntry::new(key, owner, at) };
        let id = self.entries.insert(entry)?;
        self.by_key.insert(key, id);
        self.rests += 1;
        Some(id)
    }

    /// The rest to which a destination of the namespace would go, if it is there.
    pub fn known_rest(&self, netns: Netns) -> Option<DestinationId> {
        self.find(&rest_key(netns)).or_else(|| self.find(&rest_key(EVERYWHERE)).filter(|_| self.rests >= MAX_RESTS))
    }

    /// Takes a destination out that is to be folded.
    pub fn remove(&mut self, id: DestinationId) -> Option<DestinationEntry> {
        let entry = self.entries.remove(id)?;
        self.forget_keys(id, &entry.key);
        self.uids.remove(&entry.owner.uid);
        self.workloads.remove(&entry.owner.workload);
        self.namespaces.remove(&entry.key.netns);
        Some(entry)
    }

    /// Adds everything that was counted of a destination that was taken out to a rest.
    pub fn fold(&mut self, removed: &DestinationEntry, rest: DestinationId) {
        if let Some(rest) = self.entries.get_mut(rest) {
            rest.absorb(removed);
        }
    }

    /// Something about a destination without a row is counted in this rest.
    pub fn note_folded(&mut self, rest: DestinationId, key: &DestinationKey) {
        if let Some(folded) = self.entries.get_mut(rest).and_then(|entry| entry.rest.as_mut()) {
            folded.note(key);
        }
    }

    /// Counts from zero again, and forgets what nothing is open towards.
    pub fn restart(&mut self) {
        self.entries.iter_mut().for_each(DestinationEntry::restart);
        let idle = |entry: &DestinationEntry| entry.users == 0 && entry.held() == 0 && entry.rest.is_none();
        let over: Vec<_> = self.entries.iter().filter(|(_, entry)| idle(entry)).map(|(id, _)| id).collect();
        for id in over {
            self.remove(id);
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

    /// The destination, unless it has been folded.
    pub fn get(&self, id: DestinationId) -> Option<&DestinationEntry> {
        self.entries.get(id)
    }

    /// The destination, unless it has been folded.
    pub fn get_mut(&mut self, id: DestinationId) -> Option<&mut DestinationEntry> {
        self.entries.get_mut(id)
    }

    /// All destinations and rests.
    pub fn iter(&self) -> impl Iterator<Item = (DestinationId, &DestinationEntry)> {
        self.entries.iter()
    }
}
