//! Network namespaces: their limits, and what they can give to connect().
//!
//! What a namespace can give to each destination is its range without reserved ports and without ports that some socket holds by
//! bind() or listen(), which are unusable towards every destination.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::event::{DestinationKey, Netns, NetnsFacts};
use crate::tracker::port_buckets::{BucketUser, PortBuckets};

/// Network namespaces kept; far above what one host runs.
const MAX_NAMESPACES: usize = 4_096;
/// Reuse of a 4-tuple in `TIME_WAIT` is allowed after this many seconds (`tcp_tw_reuse_delay`, and before it existed, 1 s).
const DEFAULT_REUSE_DELAY: f64 = 1.0;

/// One network namespace.
#[derive(Clone, Debug, Default)]
pub struct NamespaceEntry {
    /// Its limits as far as they are known.
    pub facts: NetnsFacts,
    /// A complete list of its sockets has been merged once.
    pub baselined: bool,
    buckets: PortBuckets,
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
            conntrack
        );
        if let Some(range) = facts.port_range {
            self.buckets.set_range(range);
        }
    }

    /// Takes over `ip_local_reserved_ports`.
    pub fn reserve(&mut self, ports: &[u16]) {
        self.buckets.set_reserved(ports.iter().copied());
    }

    /// A socket or a minisocket holds `port` by bind() or listen(). Port 0 is none.
    fn hold(&mut self, port: u16, user: BucketUser) {
        if port != 0 {
            let _ = self.buckets.acquire(port, user);
        }
    }

    /// The counterpart of [`Self::hold`].
    fn free(&mut self, port: u16, user: BucketUser) {
        let _ = self.buckets.release(port, user);
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

    /// Ports that connect() can get towards any one destination; `None` if the range is unknown. An odd range loses one: the
    /// search makes an even number of steps (net/ipv4/inet_hashtables.c `__inet_hash_connect`: `remaining &= ~1U`).
    pub fn capacity(&self) -> Option<u32> {
        let (low, high) = self.facts.port_range?;
        let size = (u32::from(high) + 1).saturating_sub(u32::from(low)) & !1;
        Some(size.saturating_sub(self.reserved()).saturating_sub(self.blocked()))
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
}

impl Namespaces {
    /// The namespace, created at need; `None` at the bound.
    pub fn find_or_insert(&mut self, netns: Netns) -> Option<&mut NamespaceEntry> {
        if self.entries.len() >= MAX_NAMESPACES && !self.entries.contains_key(&netns) {
            return None;
        }
        let entry = self.entries.entry(netns).or_default();
        entry.facts.netns = netns;
        Some(entry)
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

    /// A socket or a minisocket holds `port` by bind() or listen().
    pub fn hold_port(&mut self, netns: Netns, port: u16, user: BucketUser) {
        if let Some(entry) = self.find_or_insert(netns) {
            entry.hold(port, user);
        }
    }

    /// The counterpart of [`Self::hold_port`].
    pub fn free_port(&mut self, netns: Netns, port: u16, user: BucketUser) {
        if let Some(entry) = self.find_or_insert(netns) {
            entry.free(port, user);
        }
    }
}
