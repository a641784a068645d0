//! Flows: one life of one TCP socket, found by cookie, else by the socket's address while it lives, else by 4-tuple.

use std::collections::VecDeque;

use hashbrown::HashTable;
use rustc_hash::FxHashMap;

use super::attributions::AttributionId;
use super::bound_sockets::BoundSocketId;
use super::slab::{Ref, Slab};
use crate::event::{FlowKey, Ktime, SocketCookie, SocketId, TcpState};
use crate::tracker::port_buckets::{BucketUser, PortClass};
use crate::tracker::snapshot::Opened;

/// Flows held at once, about 200 bytes each: 200 MiB at the most. Beyond it connects are still counted, but their flows are not
/// followed, which is counted.
pub const MAX_FLOWS: usize = 1_048_576;
/// Closed flows remembered so that a stale row of `sock_diag` or a repeated record does not revive them.
const MAX_TOMBSTONES: usize = 262_144;
/// Longer than any pass of `sock_diag` and any delay in the channel.
const TOMBSTONE_NANOS: u64 = 10_000_000_000;
/// Set in numbers of tombstones, which so differ from indexes of flows.
const TOMBSTONE: u32 = 1 << 31;

const _: () = assert!(MAX_FLOWS < TOMBSTONE as usize, "an index needs the bits below");
const _: () = assert!(MAX_TOMBSTONES < TOMBSTONE as usize, "and so does a number");

/// Refers to a flow.
pub type FlowId = Ref<Flow>;

/// How the local port of a flow is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortHold {
    /// The flow is this user of the port's bucket.
    pub bucket: Option<BucketUser>,
    /// The port is counted under this class towards the flow's destination.
    pub class: Option<PortClass>,
}

/// One flow.
#[derive(Clone, Debug)]
pub struct Flow {
    key: FlowKey,
    id: SocketId,
    state: TcpState,
    attribution: AttributionId,
    hold: PortHold,
    /// The state before, to recognise a repeated record.
    pub previous: TcpState,
    /// Which side opened it.
    pub opened: Opened,
    /// First transition; `None` if it began before us or its begin was lost.
    pub began: Option<Ktime>,
    /// When the handshake was complete; `None` if it is not, or unknown.
    pub established: Option<Ktime>,
    /// In its state since; `None` = unknown.
    pub state_since: Option<Ktime>,
    /// The last event, or the pass of `sock_diag`, that was about it.
    pub last: Ktime,
    /// Thread that called connect(), 0 if unknown.
    pub tid: u32,
    /// `inet_sport` at `SYN_SENT`: if it is the same at CLOSE, no port was ever chosen.
    pub port_before: u16,
    /// The port was chosen by bind(), not by connect().
    pub bound: bool,
    /// The flow is in the accept queue of this listener, or of one that shares its address; `None` = accept() took it, or it is none
    /// of a listener, or unknown.
    pub waits_at: Option<BoundSocketId>,
    /// The process is a guess.
    pub inferred_owner: bool,
    /// Events of it were lost, and it was set right.
    pub repaired: bool,
    /// Number of the last pass of `sock_diag` that listed it.
    pub pass: u32,
}

impl Flow {
    /// A flow that is in `state`, seen at `at`, of which nothing more is known.
    pub fn new(id: SocketId, key: FlowKey, state: TcpState, attribution: AttributionId, at: Ktime) -> Self {
        Self {
            key,
            id,
            state,
            attribution,
            hold: PortHold::default(),
            previous: state,
            opened: Opened::Unknown,
            began: None,
            established: None,
            state_since: None,
            last: at,
            tid: 0,
            port_before: 0,
            bound: false,
            waits_at: None,
            inferred_owner: true,
            repaired: false,
            pass: 0,
        }
    }

    /// The 4-tuple. `local.port` is 0 until the port is known.
    pub fn key(&self) -> &FlowKey {
        &self.key
    }

    /// The socket.
    pub fn id(&self) -> SocketId {
        self.id
    }

    /// Its present state.
    pub fn state(&self) -> TcpState {
        self.state
    }

    /// Where the flow is counted.
    pub fn attribution(&self) -> AttributionId {
        self.attribution
    }

    /// How the flow's local port is counted.
    pub fn hold(&self) -> PortHold {
        self.hold
    }

    /// The flow is counted among the ports in use towards its destination.
    pub fn occupies(&self) -> bool {
        self.hold.class.is_some()
    }

    /// As what the flow uses the bucket of its local port.
    pub fn bucket_user(&self) -> BucketUser {
        match (self.opened, self.bound) {
            (Opened::Passive, _) => BucketUser::Accepted,
            (_, true) => BucketUser::Bound,
            (_, false) => BucketUser::Connect,
        }
    }

    /// As what the minisocket that the flow leaves uses the bucket.
    pub fn minisocket_user(&self) -> BucketUser {
        if self.bucket_user() == BucketUser::Connect { BucketUser::Connect } else { BucketUser::Minisocket }
    }
}

/// The flows.
#[derive(Clone, Debug)]
pub struct Flows {
    slab: Slab<Flow>,
    /// Indexes of flows and numbers of tombstones. The cookies are not repeated here: they are read from the entry, which every
    /// look-up reads next anyway. Flows and tombstones share the table, because a flow that closes then changes an entry of the table
    /// that is in the CPU's cache.
    by_cookie: HashTable<u32>,
    /// Flows whose kernel gave no cookie: by socket address and by 4-tuple.
    by_sock: FxHashMap<u64, FlowId>,
    by_key: FxHashMap<FlowKey, FlowId>,
    tombstones: Tombstones,
}

/// Closed flows in the order in which they closed.
#[derive(Clone, Debug, Default)]
struct Tombstones {
    list: VecDeque<(Ktime, SocketCookie)>,
    /// Number of the oldest tombstone, without the mark. The others count on from there, modulo [`TOMBSTONE`].
    first: u32,
}

impl Tombstones {
    /// The tombstone of that number. `None` if the number is none of a tombstone, or the tombstone has expired.
    fn get(&self, number: u32) -> Option<(Ktime, SocketCookie)> {
        if number & TOMBSTONE == 0 {
            return None;
        }
        let place = number.wrapping_sub(self.first) & !TOMBSTONE;
        self.list.get(usize::try_from(place).ok()?).copied()
    }

    /// Adds a tombstone, and returns its number.
    fn add(&mut self, at: Ktime, cookie: SocketCookie) -> u32 {
        // Shorter than TOMBSTONE: see the bound.
        let place = u32::try_from(self.list.len()).unwrap_or(0);
        self.list.push_back((at, cookie));
        self.first.wrapping_add(place) | TOMBSTONE
    }

    /// Takes out the oldest tombstone if its time is over or there are too many. Returns its number.
    fn expire(&mut self, now: Ktime) -> Option<(u32, SocketCookie)> {
        let &(at, cookie) = self.list.front()?;
        if self.list.len() <= MAX_TOMBSTONES && now.since(at) <= TOMBSTONE_NANOS {
            return None;
        }
        self.list.pop_front();
        let number = self.first | TOMBSTONE;
        self.first = self.first.wrapping_add(1) & !TOMBSTONE;
        Some((number, cookie))
    }
}

impl Default for Flows {
    fn default() -> Self {
        Self {
            slab: Slab::new(MAX_FLOWS),
            by_cookie: HashTable::new(),
            by_sock: FxHashMap::default(),
            by_key: FxHashMap::default(),
            tombstones: Tombstones::default(),
        }
    }
}

impl Flows {
    /// Flows held.
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// The flow, unless it is over.
    pub fn get(&self, at: FlowId) -> Option<&Flow> {
        self.slab.get(at)
    }

    /// The flow, unless it is over.
    pub fn get_mut(&mut self, at: FlowId) -> Option<&mut Flow> {
        self.slab.get_mut(at)
    }

    /// All flows.
    pub fn iter(&self) -> impl Iterator<Item = (FlowId, &Flow)> {
        self.slab.iter()
    }

    /// Moves a flow to another state. Returns the former one.
    pub(super) fn set_state(&mut self, at: FlowId, state: TcpState, now: Ktime) -> Option<(TcpState, &Flow)> {
        let flow = self.slab.get_mut(at)?;
        let old = std::mem::replace(&mut flow.state, state);
        flow.previous = old;
        flow.state_since = Some(now);
        flow.last = flow.last.max(now);
        Some((old, flow))
    }

    /// Notes how the flow's port is counted from now on. Returns how it was.
    pub(super) fn set_hold(&mut self, at: FlowId, hold: PortHold) -> Option<PortHold> {
        Some(std::mem::replace(&mut self.slab.get_mut(at)?.hold, hold))
    }

    /// The flow is counted elsewhere from now on. Returns where it was counted.
    pub(super) fn set_attribution(&mut self, at: FlowId, attribution: AttributionId) -> Option<AttributionId> {
        Some(std::mem::replace(&mut self.slab.get_mut(at)?.attribution, attribution))
    }

    /// The flow of this socket. A cookie that appears in mid-life is learnt (before 5.12 `sock_diag` makes them).
    pub fn find(&mut self, id: SocketId, key: Option<&FlowKey>) -> Option<FlowId> {
        if let Some(cookie) = id.cookie
            && let Some(at) = self.live_flow_of(cookie)
        {
            return Some(at);
        }
        let at = match self.by_sock.get(&id.sock).filter(|_| id.sock != 0) {
            Some(&at) => at,
            None => *key.and_then(|key| self.by_key.get(key))?,
        };
        let flow = self.slab.get_mut(at)?;
        match (id.cookie, flow.id.cookie) {
            (Some(cookie), None) => flow.id.cookie = Some(cookie),
            // The address or the 4-tuple of an earlier socket, whose end was lost.
            (Some(cookie), Some(other)) if cookie != other => return None,
            _ => {}
        }
        if id.sock != 0 && flow.id.sock == 0 {
            flow.id.sock = id.sock;
            if flow.id.cookie.is_none() {
                self.by_sock.insert(id.sock, at);
            }
        }
        if let Some(cookie) = id.cookie {
            // The table did not have the cookie yet: see above.
            self.index_cookie(cookie, at.index);
        }
        Some(at)
    }

    fn live_flow_of(&self, cookie: SocketCookie) -> Option<FlowId> {
        Some(self.slab.at(self.slot_of(cookie)?)?.0)
    }

    /// What the table has for a cookie: the index of a flow or the number of a tombstone.
    fn slot_of(&self, cookie: SocketCookie) -> Option<u32> {
        let held = |&slot: &u32| cookie_of(&self.slab, &self.tombstones, slot) == Some(cookie);
        self.by_cookie.find(hash(cookie), held).copied()
    }

    /// Enters the flow of this index, or the tombstone of this number, as what the table has for the cookie.
    fn index_cookie(&mut self, cookie: SocketCookie, to: u32) {
        let Self { slab, tombstones, by_cookie, .. } = self;
        let cookie_of = |&slot: &u32| cookie_of(slab, tombstones, slot);
        match by_cookie.find_entry(hash(cookie), |slot| cookie_of(slot) == Some(cookie)) {
            Ok(mut held) => *held.get_mut() = to,
            Err(_) => drop(by_cookie.insert_unique(hash(cookie), to, |slot| cookie_of(slot).map_or(0, hash))),
        }
    }

    /// Adds a flow. `None` at the bound.
    pub(super) fn insert(&mut self, flow: Flow) -> Option<FlowId> {
        let (id, key) = (flow.id, flow.key);
        let at = self.slab.insert(flow)?;
        match id.cookie {
            Some(cookie) => self.index_cookie(cookie, at.index),
            None => {
                if id.sock != 0 {
                    self.by_sock.insert(id.sock, at);
                }
                if key.local.port != 0 {
                    self.by_key.insert(key, at);
                }
            }
        }
        Some(at)
    }

    /// The port of a flow became known.
    pub fn name_port(&mut self, at: FlowId, port: u16) {
        let Some(flow) = self.slab.get_mut(at) else { return };
        flow.key.local.port = port;
        if flow.id.cookie.is_none() {
            self.by_key.insert(flow.key, at);
        }
    }

    /// The second flow of a socket that has two: the first was made by its events, the second by a list of sockets that could not
    /// know the first one by its cookie (before 5.12 a socket gets one when it is listed) or by its port (known when the connection
    /// is established).
    pub fn duplicate_of(&self, id: SocketId) -> Option<FlowId> {
        let cookie = id.cookie?;
        // Empty where every socket has its cookie from the start.
        let own = *self.by_sock.get(&id.sock)?;
        let listed = self.live_flow_of(cookie)?;
        let is_duplicate = own != listed
            && self.slab.get(listed)?.id.sock == 0
            && self.slab.get(own)?.id.cookie.is_none()
            && self.slab.get(own)?.key.remote == self.slab.get(listed)?.key.remote;
        is_duplicate.then_some(listed)
    }

    /// Takes a flow out and remembers that it is closed.
    pub(super) fn close(&mut self, at: FlowId, now: Ktime) -> Option<Flow> {
        if let Some(cookie) = self.slab.get(at)?.id.cookie
            && let Ok(mut held) = self.by_cookie.find_entry(hash(cookie), |&slot| slot == at.index)
        {
            *held.get_mut() = self.tombstones.add(now, cookie);
        }
        while let Some((number, cookie)) = self.tombstones.expire(now) {
            // The cookie of a socket that was used again stands for its new flow or for a later tombstone.
            if let Ok(held) = self.by_cookie.find_entry(hash(cookie), |&slot| slot == number) {
                held.remove();
            }
        }
        self.detach(at)
    }

    /// Takes a flow out without a tombstone.
    pub(super) fn remove(&mut self, at: FlowId) -> Option<Flow> {
        if let Some(cookie) = self.slab.get(at)?.id.cookie
            && let Ok(held) = self.by_cookie.find_entry(hash(cookie), |&slot| slot == at.index)
        {
            held.remove();
        }
        self.detach(at)
    }

    /// The rest of taking a flow out, once the table of cookies no longer has it.
    fn detach(&mut self, at: FlowId) -> Option<Flow> {
        let flow = self.slab.remove(at)?;
        // A younger flow may have the address already.
        if self.by_sock.get(&flow.id.sock) == Some(&at) {
            self.by_sock.remove(&flow.id.sock);
        }
        if self.by_key.get(&flow.key) == Some(&at) {
            self.by_key.remove(&flow.key);
        }
        Some(flow)
    }

    /// When this socket's last flow closed, if that was lately and it has no other flow.
    pub fn closed_at(&self, cookie: Option<SocketCookie>) -> Option<Ktime> {
        Some(self.tombstones.get(self.slot_of(cookie?)?)?.0)
    }
}

/// The cookie of the flow with this index, or of the tombstone with this number.
fn cookie_of(slab: &Slab<Flow>, tombstones: &Tombstones, slot: u32) -> Option<SocketCookie> {
    match slab.at(slot) {
        Some((_, flow)) => flow.id.cookie,
        None => Some(tombstones.get(slot)?.1),
    }
}

/// Cookies are handed out one after the other, each CPU from its own 4096 (include/linux/cookie.h `gen_cookie_next`): so many
/// neighbours stay neighbours, and sockets of one moment share the CPU's cache.
const COOKIES_SHIFT: u32 = 6;

fn hash(cookie: SocketCookie) -> u64 {
    super::slab::hash_in_blocks(cookie.get() >> COOKIES_SHIFT, cookie.get(), COOKIES_SHIFT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Addr, Endpoint, Netns};

    const SECOND: u64 = 1_000_000_000;

    fn flow(cookie: u64) -> Flow {
        let end = |port| Endpoint { addr: Addr::UNSPECIFIED, port };
        let key = FlowKey { netns: Netns::of_inode(1), device: 0, local: end(40_000), remote: end(443) };
        let id = SocketId { cookie: SocketCookie::new(cookie), sock: cookie * 64 };
        Flow::new(id, key, TcpState::Established, Ref::nothing(), Ktime(0))
    }

    #[test]
    fn what_is_closed_is_remembered_for_a_while_and_not_once_its_socket_is_used_again() {
        let mut flows = Flows::default();
        let cookie = |number| SocketCookie::new(number);
        let id = |number| SocketId { cookie: cookie(number), sock: 0 };
        let first = flows.insert(flow(1)).expect("room");
        let second = flows.insert(flow(2)).expect("room");
        assert!(flows.close(first, Ktime(SECOND)).is_some());
        assert_eq!((flows.find(id(1), None), flows.closed_at(cookie(1))), (None, Some(Ktime(SECOND))));
        assert_eq!((flows.find(id(2), None), flows.closed_at(cookie(2))), (Some(second), None));
        // The first socket connects again and closes again: the time of its first end means nothing any more.
        let again = flows.insert(flow(1)).expect("room");
        assert_eq!((flows.find(id(1), None), flows.closed_at(cookie(1))), (Some(again), None));
        assert!(flows.close(again, Ktime(9 * SECOND)).is_some());
        assert!(flows.close(second, Ktime(12 * SECOND)).is_some());
        assert_eq!(flows.closed_at(cookie(1)), Some(Ktime(9 * SECOND)), "its second end is not past yet");
        let third = flows.insert(flow(3)).expect("room");
        assert!(flows.close(third, Ktime(30 * SECOND)).is_some());
        assert_eq!([1, 2, 3].map(|number| flows.closed_at(cookie(number)).is_some()), [false, false, true]);
    }

    #[test]
    fn a_cookie_is_learnt_once_and_an_address_used_again_is_another_socket() {
        let mut flows = Flows::default();
        let unnamed = flow(1);
        let id = |cookie| SocketId { cookie: SocketCookie::new(cookie), sock: unnamed.id.sock };
        let at = flows.insert(Flow { id: id(0), ..unnamed.clone() }).expect("room");
        assert_eq!(flows.find(id(7), None), Some(at), "5.10: the cookie came with a list of sockets");
        assert_eq!(flows.find(SocketId { sock: 0, ..id(7) }, None), Some(at));
        // Its end was lost, and the kernel has given its memory to another socket.
        assert_eq!((flows.find(id(8), None), flows.find(id(8), Some(&unnamed.key))), (None, None));
        let other = flows.insert(Flow { id: id(8), ..unnamed.clone() }).expect("room");
        assert!(flows.remove(at).is_some());
        assert_eq!((flows.find(id(8), None), flows.find(id(7), None)), (Some(other), None));
        assert_eq!(flows.by_cookie.len(), 1, "nothing leads to a flow that is gone");
    }

    #[test]
    fn tombstones_are_bounded_and_their_numbers_begin_again() {
        let mut flows = Flows::default();
        flows.tombstones.first = TOMBSTONE - 1_000;
        let count = MAX_TOMBSTONES as u64 + 10;
        for number in 1..=count {
            let at = flows.insert(flow(number)).expect("room");
            assert!(flows.close(at, Ktime(SECOND)).is_some());
        }
        assert_eq!((flows.tombstones.list.len(), flows.by_cookie.len()), (MAX_TOMBSTONES, MAX_TOMBSTONES));
        let gone = (1..=count).filter(|&number| flows.closed_at(SocketCookie::new(number)).is_none());
        assert_eq!(gone.collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
    }
}
