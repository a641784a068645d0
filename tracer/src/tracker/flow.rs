//! Flows: one life of one TCP socket, found by cookie, else by the socket's address while it lives, else by 4-tuple.

use std::collections::VecDeque;
use std::hash::BuildHasher as _;

use hashbrown::HashTable;
use rustc_hash::{FxBuildHasher, FxHashMap};

use super::people::AttrId;
use super::ports::DestId;
use super::slab::{Ref, Slab};
use super::snapshot::Opened;
use crate::event::{FlowKey, Ktime, SocketCookie, SocketId, TcpState};

/// Flows held at once, about 200 bytes each: 200 MiB at the most. Beyond it connects are still counted, but their flows are not
/// followed, and that is said.
pub const MAX_FLOWS: usize = 1_048_576;
/// Closed flows remembered so that a stale row of `sock_diag` or a repeated record does not revive them.
const MAX_TOMBSTONES: usize = 262_144;
/// Longer than any pass of `sock_diag` and any delay in the channel.
const TOMBSTONE_NANOS: u64 = 10_000_000_000;

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
    /// Indexes: the cookie is read where the flow is, which is where whoever looks goes next.
    by_cookie: HashTable<u32>,
    /// Flows whose kernel gave no cookie: by socket address and by 4-tuple.
    by_sock: FxHashMap<u64, Ref>,
    by_key: FxHashMap<FlowKey, Ref>,
    tombstones: FxHashMap<SocketCookie, Ktime>,
    graves: VecDeque<(Ktime, SocketCookie)>,
}

impl Default for Flows {
    fn default() -> Self {
        Self {
            slab: Slab::new(MAX_FLOWS),
            by_cookie: HashTable::new(),
            by_sock: FxHashMap::default(),
            by_key: FxHashMap::default(),
            tombstones: FxHashMap::default(),
            graves: VecDeque::new(),
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
        if let (Some(cookie), None) = (id.cookie, flow.id.cookie) {
            flow.id.cookie = Some(cookie);
        }
        if id.sock != 0 && flow.id.sock == 0 {
            flow.id.sock = id.sock;
            if flow.id.cookie.is_none() {
                self.by_sock.insert(id.sock, at);
            }
        }
        if let Some(cookie) = id.cookie {
            // It was not found by it above.
            self.index_cookie(cookie, at);
        }
        Some(at)
    }

    fn of_cookie(&self, cookie: SocketCookie) -> Option<Ref> {
        let held = |&index: &u32| self.slab.at(index).is_some_and(|(_, flow)| flow.id.cookie == Some(cookie));
        Some(self.slab.at(*self.by_cookie.find(hash(cookie), held)?)?.0)
    }

    /// From now on this cookie means this flow.
    fn index_cookie(&mut self, cookie: SocketCookie, at: Ref) {
        let slab = &self.slab;
        let cookie_of = |index: u32| slab.at(index).and_then(|(_, flow)| flow.id.cookie);
        match self.by_cookie.find_entry(hash(cookie), |&index| cookie_of(index) == Some(cookie)) {
            Ok(mut held) => *held.get_mut() = at.index,
            Err(_) => {
                self.by_cookie.insert_unique(hash(cookie), at.index, |&index| cookie_of(index).map_or(0, hash));
            }
        }
    }

    /// `None` at the bound.
    pub fn insert(&mut self, flow: Flow) -> Option<Ref> {
        let (id, key) = (flow.id, flow.key);
        let at = self.slab.insert(flow)?;
        match id.cookie {
            Some(cookie) => {
                self.tombstones.remove(&cookie);
                self.index_cookie(cookie, at);
            }
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
        let listed = self.of_cookie(id.cookie?)?;
        let own = *self.by_sock.get(&id.sock)?;
        let is_twin = own != listed
            && self.slab.get(listed)?.id.sock == 0
            && self.slab.get(own)?.id.cookie.is_none()
            && self.slab.get(own)?.key.remote == self.slab.get(listed)?.key.remote;
        is_twin.then_some(listed)
    }

    /// Takes a closed flow out and remembers that it is closed.
    pub fn bury(&mut self, at: Ref, now: Ktime) -> Option<Flow> {
        let flow = self.forget(at)?;
        if let Some(cookie) = flow.id.cookie {
            self.tombstones.insert(cookie, now);
            self.graves.push_back((now, cookie));
        }
        while self.graves.len() > MAX_TOMBSTONES
            || self.graves.front().is_some_and(|&(at, _)| now.since(at) > TOMBSTONE_NANOS)
        {
            let Some((at, cookie)) = self.graves.pop_front() else { break };
            // A socket used again may have been buried again since.
            if self.tombstones.get(&cookie) == Some(&at) {
                self.tombstones.remove(&cookie);
            }
        }
        Some(flow)
    }

    /// Takes a flow out.
    pub fn forget(&mut self, at: Ref) -> Option<Flow> {
        if let Some(cookie) = self.slab.get(at)?.id.cookie
            && let Ok(held) = self.by_cookie.find_entry(hash(cookie), |&index| index == at.index)
        {
            held.remove();
        }
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

    /// When this socket's last flow closed, if that was lately.
    pub fn closed_at(&self, cookie: Option<SocketCookie>) -> Option<Ktime> {
        self.tombstones.get(&cookie?).copied()
    }
}

fn hash(cookie: SocketCookie) -> u64 {
    FxBuildHasher.hash_one(cookie)
}
