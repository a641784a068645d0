//! Flows: one life of one TCP socket, found by cookie, else by the socket's address while it lives, else by 4-tuple.

use std::collections::VecDeque;

use hashbrown::HashTable;
use rustc_hash::FxHashMap;

use super::people::AttrId;
use super::ports::DestId;
use super::slab::{Ref, Slab};
use super::snapshot::Opened;
use crate::event::{FlowKey, Ktime, SocketCookie, SocketId, TcpState};

/// Flows held at once, about 200 bytes each: 200 MiB at the most. Beyond it connects are still counted, but their flows are not
/// followed, and that is said.
pub const MAX_FLOWS: usize = 1_048_576;
/// Closed flows remembered so that a stale row of `sock_diag` or a repeated record does not revive them.
const MAX_GRAVES: usize = 262_144;
/// Longer than any pass of `sock_diag` and any delay in the channel.
const GRAVE_NANOS: u64 = 10_000_000_000;
/// Marks what a cookie leads to as the number of a grave, not the index of a flow.
const DEAD: u32 = 1 << 31;

const _: () = assert!(MAX_FLOWS < DEAD as usize, "an index needs the bits below");
const _: () = assert!(MAX_GRAVES < DEAD as usize, "and so does a number");

/// One flow.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not a state in disguise")]
pub struct Flow {
    /// `key.local.port` is 0 until the port is known.
    pub key: FlowKey,
    pub id: SocketId,
    pub state: TcpState,
    /// The state before, to recognise a repeated record.
    pub previous: TcpState,
    pub opened: Opened,
    pub attr: Option<AttrId>,
    pub dest: Option<DestId>,
    /// First transition; `None` if it began before us or its begin was lost.
    pub began: Option<Ktime>,
    pub established: Option<Ktime>,
    /// In `state` since; `None` = unknown.
    pub state_since: Option<Ktime>,
    /// The last event, or the pass of `sock_diag`, that spoke of it.
    pub last: Ktime,
    /// Thread that called connect().
    pub tid: u32,
    /// `inet_sport` at `SYN_SENT`: if it is the same at CLOSE, no port was ever chosen.
    pub port_before: u16,
    /// The port was chosen by bind(), not by connect().
    pub bound: bool,
    /// Counted in its destination's occupancy.
    pub occupies: bool,
    pub inferred_owner: bool,
    pub repaired: bool,
    /// Number of the last pass of `sock_diag` that listed it.
    pub pass: u32,
}

/// The flows.
#[derive(Clone, Debug)]
pub struct Flows {
    slab: Slab<Flow>,
    /// Indexes of flows and, with [`DEAD`], numbers of graves: the cookie is read there, which is where whoever looks goes next. One
    /// table for both, because a flow that closes then changes a place that is in the CPU's cache.
    by_cookie: HashTable<u32>,
    /// Flows whose kernel gave no cookie: by socket address and by 4-tuple.
    by_sock: FxHashMap<u64, Ref>,
    by_key: FxHashMap<FlowKey, Ref>,
    graves: Graves,
}

/// Closed flows in the order in which they closed.
#[derive(Clone, Debug, Default)]
struct Graves {
    list: VecDeque<(Ktime, SocketCookie)>,
    /// Number of the first; those behind count on, and begin again where [`DEAD`] would be reached.
    first: u32,
}

impl Graves {
    /// `None` of what is no grave, or none any more.
    fn get(&self, number: u32) -> Option<(Ktime, SocketCookie)> {
        if number & DEAD == 0 {
            return None;
        }
        let place = number.wrapping_sub(self.first) & !DEAD;
        self.list.get(usize::try_from(place).ok()?).copied()
    }

    fn dig(&mut self, at: Ktime, cookie: SocketCookie) -> u32 {
        // Shorter than DEAD: see the bound.
        let place = u32::try_from(self.list.len()).unwrap_or(0);
        self.list.push_back((at, cookie));
        self.first.wrapping_add(place) | DEAD
    }

    /// The oldest grave and its number, if it is due.
    fn level(&mut self, now: Ktime) -> Option<(u32, SocketCookie)> {
        let &(at, cookie) = self.list.front()?;
        if self.list.len() <= MAX_GRAVES && now.since(at) <= GRAVE_NANOS {
            return None;
        }
        self.list.pop_front();
        let number = self.first | DEAD;
        self.first = self.first.wrapping_add(1) & !DEAD;
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
            graves: Graves::default(),
        }
    }
}

impl Flows {
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    pub fn get(&self, at: Ref) -> Option<&Flow> {
        self.slab.get(at)
    }

    pub fn get_mut(&mut self, at: Ref) -> Option<&mut Flow> {
        self.slab.get_mut(at)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Ref, &Flow)> {
        self.slab.iter()
    }

    /// The flow of this socket. A cookie that appears in mid-life (5.10, where `sock_diag` makes them) is learnt.
    pub fn find(&mut self, id: SocketId, key: Option<&FlowKey>) -> Option<Ref> {
        if let Some(cookie) = id.cookie
            && let Some(at) = self.of_cookie(cookie)
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
            // The address, or the 4-tuple, of a socket that is gone without our having seen it.
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
            // It was not found by it above.
            self.lead(cookie, at.index);
        }
        Some(at)
    }

    fn of_cookie(&self, cookie: SocketCookie) -> Option<Ref> {
        Some(self.slab.at(self.led_to(cookie)?)?.0)
    }

    /// The index of a flow or the number of a grave.
    fn led_to(&self, cookie: SocketCookie) -> Option<u32> {
        let held = |&led: &u32| cookie_of(&self.slab, &self.graves, led) == Some(cookie);
        self.by_cookie.find(hash(cookie), held).copied()
    }

    /// From now on this cookie leads there.
    fn lead(&mut self, cookie: SocketCookie, to: u32) {
        let Self { slab, graves, by_cookie, .. } = self;
        let cookie_of = |&led: &u32| cookie_of(slab, graves, led);
        match by_cookie.find_entry(hash(cookie), |led| cookie_of(led) == Some(cookie)) {
            Ok(mut held) => *held.get_mut() = to,
            Err(_) => drop(by_cookie.insert_unique(hash(cookie), to, |led| cookie_of(led).map_or(0, hash))),
        }
    }

    /// `None` at the bound.
    pub fn insert(&mut self, flow: Flow) -> Option<Ref> {
        let (id, key) = (flow.id, flow.key);
        let at = self.slab.insert(flow)?;
        match id.cookie {
            Some(cookie) => self.lead(cookie, at.index),
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
    pub fn name_port(&mut self, at: Ref, port: u16) {
        let Some(flow) = self.slab.get_mut(at) else { return };
        flow.key.local.port = port;
        if flow.id.cookie.is_none() {
            self.by_key.insert(flow.key, at);
        }
    }

    /// A flow that a list of sockets brought, but whose socket is one that was there already: unknown then to have this cookie
    /// (before 5.12 sockets get one when they are listed) and this port (named when the connection stands).
    pub fn twin(&self, id: SocketId) -> Option<Ref> {
        let cookie = id.cookie?;
        // Empty where every socket has its cookie from the start.
        let own = *self.by_sock.get(&id.sock)?;
        let listed = self.of_cookie(cookie)?;
        let is_twin = own != listed
            && self.slab.get(listed)?.id.sock == 0
            && self.slab.get(own)?.id.cookie.is_none()
            && self.slab.get(own)?.key.remote == self.slab.get(listed)?.key.remote;
        is_twin.then_some(listed)
    }

    /// Takes a closed flow out and remembers that it is closed.
    pub fn bury(&mut self, at: Ref, now: Ktime) -> Option<Flow> {
        if let Some(cookie) = self.slab.get(at)?.id.cookie
            && let Ok(mut held) = self.by_cookie.find_entry(hash(cookie), |&led| led == at.index)
        {
            *held.get_mut() = self.graves.dig(now, cookie);
        }
        while let Some((number, cookie)) = self.graves.level(now) {
            // A socket used again leads to its new flow, or to its latest grave.
            if let Ok(held) = self.by_cookie.find_entry(hash(cookie), |&led| led == number) {
                held.remove();
            }
        }
        self.take_out(at)
    }

    /// Takes a flow out.
    pub fn forget(&mut self, at: Ref) -> Option<Flow> {
        if let Some(cookie) = self.slab.get(at)?.id.cookie
            && let Ok(held) = self.by_cookie.find_entry(hash(cookie), |&led| led == at.index)
        {
            held.remove();
        }
        self.take_out(at)
    }

    /// The rest of taking a flow out, whose cookie leads to it no longer.
    fn take_out(&mut self, at: Ref) -> Option<Flow> {
        let flow = self.slab.remove(at)?;
        // The address may belong to a younger flow already.
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
        Some(self.graves.get(self.led_to(cookie?)?)?.0)
    }
}

/// The cookie that leads there.
fn cookie_of(slab: &Slab<Flow>, graves: &Graves, led: u32) -> Option<SocketCookie> {
    match slab.at(led) {
        Some((_, flow)) => flow.id.cookie,
        None => Some(graves.get(led)?.1),
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
        Flow {
            key: FlowKey { netns: Netns::of_inode(1), device: 0, local: end(40_000), remote: end(443) },
            id: SocketId { cookie: SocketCookie::new(cookie), sock: cookie * 64 },
            state: TcpState::Established,
            previous: TcpState::SynSent,
            opened: Opened::Active,
            attr: None,
            dest: None,
            began: None,
            established: None,
            state_since: None,
            last: Ktime(0),
            tid: 0,
            port_before: 0,
            bound: false,
            occupies: false,
            inferred_owner: false,
            repaired: false,
            pass: 0,
        }
    }

    #[test]
    fn what_is_closed_is_remembered_for_a_while_and_not_once_its_socket_is_used_again() {
        let mut flows = Flows::default();
        let cookie = |number| SocketCookie::new(number);
        let id = |number| SocketId { cookie: cookie(number), sock: 0 };
        let first = flows.insert(flow(1)).expect("room");
        let second = flows.insert(flow(2)).expect("room");
        assert!(flows.bury(first, Ktime(SECOND)).is_some());
        assert_eq!((flows.find(id(1), None), flows.closed_at(cookie(1))), (None, Some(Ktime(SECOND))));
        assert_eq!((flows.find(id(2), None), flows.closed_at(cookie(2))), (Some(second), None));
        // The first socket connects again and closes again: the time of its first end means nothing any more.
        let again = flows.insert(flow(1)).expect("room");
        assert_eq!((flows.find(id(1), None), flows.closed_at(cookie(1))), (Some(again), None));
        assert!(flows.bury(again, Ktime(9 * SECOND)).is_some());
        assert!(flows.bury(second, Ktime(12 * SECOND)).is_some());
        assert_eq!(flows.closed_at(cookie(1)), Some(Ktime(9 * SECOND)), "its second end is not past yet");
        let third = flows.insert(flow(3)).expect("room");
        assert!(flows.bury(third, Ktime(30 * SECOND)).is_some());
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
        assert!(flows.forget(at).is_some());
        assert_eq!((flows.find(id(8), None), flows.find(id(7), None)), (Some(other), None));
        assert_eq!(flows.by_cookie.len(), 1, "nothing leads to a flow that is gone");
    }

    #[test]
    fn graves_are_bounded_and_their_numbers_begin_again() {
        let mut flows = Flows::default();
        flows.graves.first = DEAD - 1_000;
        let count = MAX_GRAVES as u64 + 10;
        for number in 1..=count {
            let at = flows.insert(flow(number)).expect("room");
            assert!(flows.bury(at, Ktime(SECOND)).is_some());
        }
        assert_eq!((flows.graves.list.len(), flows.by_cookie.len()), (MAX_GRAVES, MAX_GRAVES));
        let gone = (1..=count).filter(|&number| flows.closed_at(SocketCookie::new(number)).is_none());
        assert_eq!(gone.collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
    }
}
