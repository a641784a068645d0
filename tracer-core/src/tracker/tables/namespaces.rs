//! Network namespaces: their limits, and what they can give to connect().
//!
//! What a namespace can give to each destination is its range without reserved ports and without ports that some socket holds by
//! bind() or listen(), which are unusable towards every destination.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::cardinality::Cardinality;
use crate::event::{DestinationKey, KernelCounters, Netns, NetnsFacts};
use crate::tracker::port_buckets::{Blocked, BucketChange, BucketUser, PortBuckets, PortClass};

/// Network namespaces kept, below 1 KiB each and 8 KiB with reserved ports: 36 MiB at the most. Far above what one host runs at once; a CI
/// host runs more one after the other, and those without sockets make room.
pub const MAX_NAMESPACES: usize = 4_096;
/// Namespaces looked at when one has to make room.
const LOOKS: usize = 16;
/// Reuse of a 4-tuple in `TIME_WAIT` is allowed after this many seconds (`tcp_tw_reuse_delay`, and before it existed, 1 s).
const DEFAULT_REUSE_DELAY: f64 = 1.0;

/// One network namespace.
#[derive(Clone, Debug, Default)]
pub struct NamespaceEntry {
    /// Its limits as far as they are known.
    pub facts: NetnsFacts,
    /// A complete list of its sockets has been merged once.
    pub baselined: bool,
    /// The counters when they were read first.
    counted_from: KernelCounters,
    buckets: PortBuckets,
    stale: bool,
    /// When it was last heard of, in changes of the table.
    heard: u64,
}

impl NamespaceEntry {
    /// Takes over what `facts` knows.
    pub fn learn(&mut self, facts: &NetnsFacts) {
        let old = &mut self.facts;
        old.netns = facts.netns;
        old.ktime = old.ktime.max(facts.ktime);
        macro_rules! newer {
            ($($field:ident),+) => {$( if facts.$field.is_some() { old.$field.clone_from(&facts.$field); } )+};
        }
        newer!(
            name,
            cookie,
            port_range,
            tw_reuse,
            tw_reuse_delay_ms,
            timestamps,
            max_tw_buckets,
            fin_timeout_ms,
            time_wait,
            conntrack,
            conntrack_buckets
        );
        old.counters = facts.counters.zip(&old.counters, Option::or);
        self.counted_from = self.counted_from.zip(&facts.counters, Option::or);
        if let Some(range) = facts.port_range {
            self.stale |= self.buckets.set_range(range);
        }
    }

    /// What the kernel has counted since the first time that its counters were read.
    pub fn counted(&self) -> KernelCounters {
        let since = |now: Option<u64>, first: Option<u64>| Some(now?.saturating_sub(first?));
        self.facts.counters.zip(&self.counted_from, since)
    }

    /// Takes over `ip_local_reserved_ports`.
    pub fn reserve(&mut self, ports: &[u16]) {
        self.stale |= self.buckets.set_reserved(ports.iter().copied());
    }

    /// A socket enters the bucket of `port`. Port 0 is none.
    fn acquire(&mut self, port: u16, user: BucketUser) {
        if port != 0 {
            let change = self.buckets.acquire(port, user);
            self.stale |= change == BucketChange::Others;
        }
    }

    /// The counterpart of [`Self::acquire`].
    fn release(&mut self, port: u16, user: BucketUser) {
        if port != 0 {
            let change = self.buckets.release(port, user);
            self.stale |= change == BucketChange::Others;
        }
    }

    /// How a port counts for the destination that it is used towards. A port that is not known yet (0) was chosen by connect() just
    /// now. While the range is unknown every port counts.
    pub fn class_of(&self, port: u16) -> PortClass {
        if port == 0 || self.buckets.range().is_none() { PortClass::Open } else { self.buckets.class_of(port) }
    }

    /// Some destinations count ports of theirs as they were before the range, the reserved ports or a bucket changed.
    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// All destinations count their ports as they are now.
    pub(super) fn set_fresh(&mut self) {
        self.stale = false;
    }

    /// Closed ports by the reason that closes them.
    pub fn blocked_by(&self) -> Blocked {
        self.buckets.blocked()
    }

    /// connect() may choose this port. False if the range is unknown.
    pub fn in_range(&self, port: u16) -> bool {
        self.buckets.in_range(port)
    }

    /// connect() never chooses this port.
    pub fn is_reserved(&self, port: u16) -> bool {
        self.buckets.is_reserved(port)
    }

    /// Reserved ports inside the range.
    pub fn reserved(&self) -> u32 {
        self.buckets.reserved_in_range()
    }

    /// Ports inside the range that bind() or listen() keeps from connect(), without reserved ones.
    pub fn blocked(&self) -> u32 {
        self.buckets.closed_in_range()
    }

    /// The ports of [`Self::blocked`], ascending.
    pub fn blocked_ports(&self) -> Vec<u16> {
        self.buckets.blocked_ports()
    }

    /// The ports of [`Self::reserved`], ascending.
    pub fn reserved_ports(&self) -> Vec<u16> {
        self.buckets.reserved_ports()
    }

    /// Reserved ports inside the range and outside, ascending.
    pub fn all_reserved(&self) -> Vec<u16> {
        self.buckets.all_reserved()
    }

    /// Ports that connect() can get towards a destination that nothing is connected to; `None` if the range is unknown.
    pub fn capacity(&self) -> Option<u32> {
        self.buckets.usable()
    }

    /// The range has an odd size, so that one connect() may miss one port of it (net/ipv4/inet_hashtables.c `__inet_hash_connect`:
    /// `remaining &= ~1U`).
    pub fn has_odd_range(&self) -> bool {
        self.buckets.range().is_some_and(|(low, high)| (high - low) % 2 == 0)
    }

    /// Seconds after which a new connect() may use a 4-tuple in `TIME_WAIT` again; `None` = only after its end
    /// (net/ipv4/tcp_ipv4.c `tcp_twsk_unique`).
    pub fn reuse_after(&self, key: &DestinationKey) -> Option<f64> {
        let allowed = match self.facts.tw_reuse? {
            1 => true,
            2 => key.local_addr.is_loopback() || key.remote_addr.is_loopback(),
            _ => false,
        };
        let delay = self.facts.tw_reuse_delay_ms.map_or(DEFAULT_REUSE_DELAY, |millis| f64::from(millis) / 1e3);
        (allowed && self.facts.timestamps != Some(false)).then_some(delay)
    }
}

/// The namespaces.
#[derive(Clone, Debug, Default)]
pub struct Namespaces {
    entries: FxHashMap<Netns, NamespaceEntry>,
    /// All of them, in the order in which a hand goes round to find one that makes room.
    round: Vec<Netns>,
    hand: usize,
    /// Counts changes of the table.
    clock: u64,
    /// Those that were forgotten.
    forgotten: Cardinality,
    /// Those that were forgotten although sockets have ports there.
    evicted: u64,
    /// See [`PortBuckets::new`].
    reopens: bool,
    any_stale: bool,
}

impl Namespaces {
    /// No namespaces yet. `reopens`: see [`PortBuckets::new`].
    pub fn new(reopens: bool) -> Self {
        Self { reopens, ..Self::default() }
    }

    /// The namespace, created at need. At the bound one without sockets makes room, else the one that was heard of least lately.
    pub fn find_or_insert(&mut self, netns: Netns) -> &mut NamespaceEntry {
        self.clock += 1;
        if self.entries.len() >= MAX_NAMESPACES && !self.entries.contains_key(&netns) {
            self.forget_one();
        }
        let (reopens, round) = (self.reopens, &mut self.round);
        let entry = self.entries.entry(netns).or_insert_with(|| {
            round.push(netns);
            NamespaceEntry {
                facts: NetnsFacts { netns, ..NetnsFacts::default() },
                buckets: PortBuckets::new(reopens),
                ..NamespaceEntry::default()
            }
        });
        entry.heard = self.clock;
        entry
    }

    fn forget_one(&mut self) {
        let Self { entries, round, hand, .. } = self;
        let places = (0..round.len().min(LOOKS)).map(|step| (*hand + step) % round.len());
        let of = |place: usize| Some((place, entries.get(round.get(place)?)?));
        let least = places.filter_map(of).min_by_key(|(_, entry)| (!entry.buckets.is_empty(), entry.heard));
        let Some((place, in_use)) = least.map(|(place, entry)| (place, !entry.buckets.is_empty())) else { return };
        *hand = (*hand + LOOKS) % round.len();
        let netns = round.swap_remove(place);
        entries.remove(&netns);
        self.forgotten.note(&netns);
        self.evicted += u64::from(in_use);
    }

    /// About how many namespaces have no row.
    pub fn forgotten(&self) -> u64 {
        self.forgotten.estimate()
    }

    /// Namespaces that were forgotten although sockets have ports there: how many are free is unknown since.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// The namespace, if anything has been heard of it.
    pub fn get(&self, netns: Netns) -> Option<&NamespaceEntry> {
        self.entries.get(&netns)
    }

    /// All namespaces, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &NamespaceEntry> {
        self.entries.values()
    }

    /// The name of a namespace that has one.
    pub fn name(&self, netns: Netns) -> Option<Arc<str>> {
        self.get(netns)?.facts.name.clone()
    }

    /// Takes over what `facts` knows.
    pub fn learn(&mut self, facts: &NetnsFacts) {
        let entry = self.find_or_insert(facts.netns);
        entry.learn(facts);
        let stale = entry.stale;
        self.any_stale |= stale;
    }

    /// Takes over the reserved ports of a namespace.
    pub fn reserve(&mut self, netns: Netns, ports: &[u16]) {
        let entry = self.find_or_insert(netns);
        entry.reserve(ports);
        let stale = entry.stale;
        self.any_stale |= stale;
    }

    /// Is a namespace stale, see [`NamespaceEntry::is_stale`]?
    pub fn any_stale(&self) -> bool {
        self.any_stale
    }

    /// All destinations of all namespaces count their ports as they are now.
    pub(super) fn set_fresh(&mut self) {
        self.any_stale = false;
        for entry in self.entries.values_mut() {
            entry.set_fresh();
        }
    }

    /// A socket enters the bucket of `port`.
    pub fn acquire_port(&mut self, netns: Netns, port: u16, user: BucketUser) {
        let entry = self.find_or_insert(netns);
        entry.acquire(port, user);
        let stale = entry.stale;
        self.any_stale |= stale;
    }

    /// The counterpart of [`Self::acquire_port`].
    pub fn release_port(&mut self, netns: Netns, port: u16, user: BucketUser) {
        if let Some(entry) = self.entries.get_mut(&netns) {
            entry.release(port, user);
            self.any_stale |= entry.stale;
        }
    }
}
