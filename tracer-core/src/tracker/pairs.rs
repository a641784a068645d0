//! Pairs of addresses, each held once however many minisockets lie between them: a host churns towards few peers, and a
//! minisocket that repeats 36 bytes of addresses is mostly addresses.

use std::hash::BuildHasher as _;

use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

use crate::event::{Addr, Endpoint, FlowKey, Netns};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Pair {
    netns: Netns,
    device: u32,
    local: Addr,
    remote: Addr,
}

/// A [`FlowKey`] whose addresses are a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortKey {
    pair: u32,
    local: u16,
    remote: u16,
}

/// connect() gives out every second port in turn (net/ipv4/inet_hashtables.c `__inet_hash_connect`): so many neighbours stay
/// neighbours. A server's local port is always the same; there it is the remote one that moves them apart.
const PORTS_SHIFT: u32 = 5;

impl ShortKey {
    pub fn hash(self) -> u64 {
        let (pair, local, remote) = (u64::from(self.pair), u64::from(self.local), u64::from(self.remote));
        let (turn, parity) = (local >> 1, local & 1);
        let block = pair << 32 | remote << 16 | turn >> PORTS_SHIFT << 1 | parity;
        super::slab::hash_in_blocks(block, turn ^ (remote >> 1), PORTS_SHIFT)
    }
}

/// The pairs in use. As many as the minisockets that use them, at the most.
#[derive(Clone, Debug, Default)]
pub struct Pairs {
    /// Each with the number of its users.
    slots: Vec<(Pair, u32)>,
    free: Vec<u32>,
    index: HashTable<u32>,
}

impl Pairs {
    /// The short form of `key` if somebody uses its pair.
    pub fn find(&self, key: &FlowKey) -> Option<ShortKey> {
        let pair = Pair::of(key);
        let found = self.index.find(hash(&pair), |&at| self.get(at) == Some(&pair))?;
        Some(short(*found, key))
    }

    /// The short form of `key`, whose pair has one user more.
    pub fn take(&mut self, key: &FlowKey) -> Option<ShortKey> {
        if let Some(known) = self.find(key) {
            self.slots.get_mut(place(known.pair))?.1 += 1;
            return Some(known);
        }
        let pair = Pair::of(key);
        let at = match self.free.pop() {
            Some(at) => {
                *self.slots.get_mut(place(at))? = (pair, 1);
                at
            }
            None => {
                self.slots.push((pair, 1));
                u32::try_from(self.slots.len() - 1).ok()?
            }
        };
        let slots = &self.slots;
        self.index.insert_unique(hash(&pair), at, |&at| slots.get(place(at)).map_or(0, |(pair, _)| hash(pair)));
        Some(short(at, key))
    }

    /// One user less.
    pub fn give(&mut self, key: ShortKey) {
        let Some((pair, users)) = self.slots.get_mut(place(key.pair)) else { return };
        *users -= 1;
        if *users == 0 {
            if let Ok(entry) = self.index.find_entry(hash(pair), |&at| at == key.pair) {
                entry.remove();
            }
            self.free.push(key.pair);
        }
    }

    /// The long form.
    pub fn key(&self, key: ShortKey) -> Option<FlowKey> {
        let pair = self.get(key.pair)?;
        Some(FlowKey {
            netns: pair.netns,
            device: pair.device,
            local: Endpoint { addr: pair.local, port: key.local },
            remote: Endpoint { addr: pair.remote, port: key.remote },
        })
    }

    fn get(&self, at: u32) -> Option<&Pair> {
        self.slots.get(place(at)).map(|(pair, _)| pair)
    }
}

impl Pair {
    fn of(key: &FlowKey) -> Self {
        Self { netns: key.netns, device: key.device, local: key.local.addr, remote: key.remote.addr }
    }
}

fn place(at: u32) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

fn short(pair: u32, key: &FlowKey) -> ShortKey {
    ShortKey { pair, local: key.local.port, remote: key.remote.port }
}

fn hash(pair: &Pair) -> u64 {
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
            |number: u16| ShortKey { pair: u32::from(number >> 9), local: 32_768 + number % 512 * 2, remote: 443 };
        let server = |number: u16| ShortKey { pair: u32::from(number % 7), local: 443, remote: 1_024 + number };
        for key in [&client as &dyn Fn(u16) -> ShortKey, &server] {
            let mut places: Vec<u64> = (0..4_096).map(|number| key(number).hash() % 4_096).collect();
            places.sort_unstable();
            places.dedup();
            assert!(places.len() > 1_500, "{}", places.len());
        }
    }

    #[test]
    fn a_pair_lives_as_long_as_its_last_user_and_its_place_is_used_again() {
        let mut pairs = Pairs::default();
        let (a, b) = (pairs.take(&key(2, 1)).expect("room"), pairs.take(&key(2, 2)).expect("room"));
        assert_eq!((a.pair, pairs.key(b)), (b.pair, Some(key(2, 2))));
        pairs.give(a);
        assert!(pairs.find(&key(2, 9)).is_some());
        pairs.give(b);
        assert_eq!(pairs.find(&key(2, 9)), None);
        let other = pairs.take(&key(3, 1)).expect("room");
        assert_eq!((other.pair, pairs.key(other)), (a.pair, Some(key(3, 1))));
    }
}
