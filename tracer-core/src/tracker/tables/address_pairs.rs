//! Pairs of addresses, each held once however many minisockets lie between them: a host churns towards few peers, and a
//! minisocket that repeats 40 bytes of addresses is mostly addresses.

use std::hash::BuildHasher as _;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

use super::slab::{Ref, Slab};
use crate::event::{Addr, Endpoint, FlowKey, Netns};

/// What a [`FlowKey`] is without its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct AddressPair {
    netns: Netns,
    device: u32,
    local: Addr,
    remote: Addr,
}

/// A [`FlowKey`] in 8 bytes: the index of its address pair, and its ports.
///
/// The index needs no generation: it is used by one table, which gives up a pair with the last entry that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactKey {
    pair: u32,
    local: u16,
    remote: u16,
}

/// connect() gives out every second port in turn (net/ipv4/inet_hashtables.c `__inet_hash_connect`). So many of its neighbours (2^5) stay
/// neighbours in the table. The local port of a server is always the same; there the remote port tells neighbours apart.
const PORTS_SHIFT: u32 = 5;

impl CompactKey {
    /// For a table of keys.
    pub fn hash(self) -> u64 {
        let (pair, local, remote) = (u64::from(self.pair), u64::from(self.local), u64::from(self.remote));
        let (turn, parity) = (local >> 1, local & 1);
        let block = pair << 32 | remote << 16 | turn >> PORTS_SHIFT << 1 | parity;
        super::slab::hash_in_blocks(block, turn ^ (remote >> 1), PORTS_SHIFT)
    }
}

/// An address pair and the number of keys that use it.
#[derive(Clone, Debug)]
struct UsedPair {
    pair: AddressPair,
    users: u32,
}

/// The address pairs in use: at most as many as keys in use.
#[derive(Clone, Debug)]
pub struct AddressPairs {
    slab: Slab<UsedPair>,
    by_pair: HashTable<Ref<UsedPair>>,
}

impl Default for AddressPairs {
    fn default() -> Self {
        Self { slab: Slab::unlimited(), by_pair: HashTable::new() }
    }
}

impl AddressPairs {
    /// The compact form of `key` if its pair is in use.
    pub fn find(&self, key: &FlowKey) -> Option<CompactKey> {
        let pair = AddressPair::of(key);
        let held = |&at: &Ref<UsedPair>| self.slab.get(at).is_some_and(|used| used.pair == pair);
        Some(CompactKey::new(*self.by_pair.find(hash(&pair), held)?, key))
    }

    /// The compact form of `key`, whose pair has one user more.
    pub fn acquire(&mut self, key: &FlowKey) -> CompactKey {
        let Self { slab, by_pair } = self;
        let pair = AddressPair::of(key);
        let known = by_pair.find(hash(&pair), |&at| slab.get(at).is_some_and(|used| used.pair == pair)).copied();
        if let Some(at) = known {
            if let Some(used) = slab.get_mut(at) {
                used.users += 1;
            }
            return CompactKey::new(at, key);
        }
        let at = slab.push(UsedPair { pair, users: 1 });
        by_pair.insert_unique(hash(&pair), at, |&at| slab.get(at).map_or(0, |used| hash(&used.pair)));
        CompactKey::new(at, key)
    }

    /// The pair of `key` has one user less.
    pub fn release(&mut self, key: CompactKey) {
        let Some((at, _)) = self.slab.at(key.pair) else { return };
        let Some(used) = self.slab.get_mut(at) else { return };
        used.users -= 1;
        if used.users == 0 {
            if let Ok(entry) = self.by_pair.find_entry(hash(&used.pair), |&other| other == at) {
                entry.remove();
            }
            self.slab.remove(at);
        }
    }

    /// The long form.
    pub fn key(&self, key: CompactKey) -> Option<FlowKey> {
        let AddressPair { netns, device, local, remote } = self.slab.at(key.pair)?.1.pair;
        Some(FlowKey {
            netns,
            device,
            local: Endpoint { addr: local, port: key.local },
            remote: Endpoint { addr: remote, port: key.remote },
        })
    }
}

impl AddressPair {
    fn of(key: &FlowKey) -> Self {
        Self { netns: key.netns, device: key.device, local: key.local.addr, remote: key.remote.addr }
    }
}

impl CompactKey {
    fn new(pair: Ref<UsedPair>, key: &FlowKey) -> Self {
        Self { pair: pair.index, local: key.local.port, remote: key.remote.port }
    }
}

fn hash(pair: &AddressPair) -> u64 {
    FxBuildHasher.hash_one(pair)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(last: u8, port: u16) -> FlowKey {
        let end = |last, port| Endpoint { addr: Addr::from(std::net::IpAddr::from([10, 0, 0, last])), port };
        FlowKey { netns: Netns::of_inode(7), device: 0, local: end(1, port), remote: end(last, 443) }
    }

    /// Of 4,096 keys each would be the first at 2,600 places at random, and at 128 if one of the ports alone told neighbours apart.
    #[test]
    fn clients_and_servers_use_the_whole_table() {
        let client =
            |number: u16| CompactKey { pair: u32::from(number >> 9), local: 32_768 + number % 512 * 2, remote: 443 };
        let server = |number: u16| CompactKey { pair: u32::from(number % 7), local: 443, remote: 1_024 + number };
        for key in [&client as &dyn Fn(u16) -> CompactKey, &server] {
            let mut places: Vec<u64> = (0..4_096).map(|number| key(number).hash() % 4_096).collect();
            places.sort_unstable();
            places.dedup();
            assert!(places.len() > 1_500, "{}", places.len());
        }
    }

    #[test]
    fn a_pair_lives_as_long_as_its_last_user_and_its_place_is_used_again() {
        let mut pairs = AddressPairs::default();
        let (a, b) = (pairs.acquire(&key(2, 1)), pairs.acquire(&key(2, 2)));
        assert_eq!((a.pair, pairs.key(b)), (b.pair, Some(key(2, 2))));
        pairs.release(a);
        assert!(pairs.find(&key(2, 9)).is_some());
        pairs.release(b);
        assert_eq!(pairs.find(&key(2, 9)), None);
        let other = pairs.acquire(&key(3, 1));
        assert_eq!((other.pair, pairs.key(other)), (a.pair, Some(key(3, 1))));
    }
}
