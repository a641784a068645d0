//! Sockets that hold a port by bind() or listen(): such a port is unusable for connect() towards every destination.

use rustc_hash::FxHashMap;

use super::processes::ProcessId;
use super::slab::{Ref, Slab};
use crate::event::{Addr, Ktime, Netns, SocketCookie, SocketId};

/// Bound sockets held: every listener of a large host many times over.
const MAX_BOUND: usize = 65_536;

/// Refers to a bound socket.
pub type BoundSocketId = Ref<BoundSocket>;

/// A socket that holds a port by bind() or listen().
#[derive(Clone, Debug)]
pub struct BoundSocket {
    /// Which socket it is.
    pub id: SocketId,
    /// Its network namespace.
    pub netns: Netns,
    /// The address that it is bound to.
    pub addr: Addr,
    /// 0 while unknown (listen() without bind()).
    pub port: u16,
    /// It listens.
    pub listening: bool,
    /// The process that bound it or made it listen; `None` if unknown.
    pub owner: Option<ProcessId>,
    /// Connections that it took.
    pub accepted: u64,
    /// Half-open connections at the last pass of `sock_diag`.
    pub syn_recv: Option<u32>,
    /// The last event, or the pass of `sock_diag`, that was about it.
    pub last: Ktime,
    /// Number of the last pass of `sock_diag` that listed it.
    pub pass: u32,
}

/// The bound sockets.
#[derive(Clone, Debug)]
pub struct BoundSockets {
    slab: Slab<BoundSocket>,
    by_cookie: FxHashMap<SocketCookie, BoundSocketId>,
    by_sock: FxHashMap<u64, BoundSocketId>,
    listeners: FxHashMap<(Netns, u16), Vec<BoundSocketId>>,
}

impl Default for BoundSockets {
    fn default() -> Self {
        Self {
            slab: Slab::new(MAX_BOUND),
            by_cookie: FxHashMap::default(),
            by_sock: FxHashMap::default(),
            listeners: FxHashMap::default(),
        }
    }
}

/// What adding a bound socket, or bringing it up to date, has changed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Upserted {
    /// The port that it holds from now on; 0 if it held that port before, or its port is unknown.
    pub new_port: u16,
    /// The owner whose place another one took.
    pub former_owner: Option<ProcessId>,
}

impl BoundSockets {
    /// The socket of this identity.
    pub fn find(&self, id: SocketId) -> Option<BoundSocketId> {
        let by_cookie = id.cookie.and_then(|cookie| self.by_cookie.get(&cookie));
        by_cookie.or_else(|| self.by_sock.get(&id.sock).filter(|_| id.sock != 0)).copied()
    }

    /// The socket, unless it has been removed.
    pub fn get(&self, at: BoundSocketId) -> Option<&BoundSocket> {
        self.slab.get(at)
    }

    /// All bound sockets.
    pub fn iter(&self) -> impl Iterator<Item = (BoundSocketId, &BoundSocket)> {
        self.slab.iter()
    }

    /// Adds the socket or brings it up to date. `None` at the bound.
    pub fn upsert(&mut self, bound: BoundSocket) -> Option<Upserted> {
        if let Some(at) = self.find(bound.id) {
            let known = self.slab.get_mut(at)?;
            let new_port = if known.port == 0 { bound.port } else { 0 };
            let newly_listening = bound.listening && !known.listening;
            known.last = known.last.max(bound.last);
            known.pass = bound.pass;
            known.listening |= bound.listening;
            let former_owner = bound.owner.and_then(|owner| known.owner.replace(owner));
            if known.port == 0 {
                known.port = bound.port;
            }
            if known.addr.is_unspecified() {
                known.addr = bound.addr;
            }
            if let (None, Some(cookie)) = (known.id.cookie, bound.id.cookie) {
                known.id.cookie = Some(cookie);
                self.by_cookie.insert(cookie, at);
            }
            if known.id.sock == 0 && bound.id.sock != 0 {
                known.id.sock = bound.id.sock;
                self.by_sock.insert(bound.id.sock, at);
            }
            let slot = (known.netns, known.port);
            if slot.1 != 0 && known.listening && (newly_listening || new_port != 0) {
                self.listeners.entry(slot).or_default().push(at);
            }
            return Some(Upserted { new_port, former_owner });
        }
        let (id, slot, listening) = (bound.id, (bound.netns, bound.port), bound.listening);
        let at = self.slab.insert(bound)?;
        if let Some(cookie) = id.cookie {
            self.by_cookie.insert(cookie, at);
        }
        if id.sock != 0 {
            self.by_sock.insert(id.sock, at);
        }
        if listening && slot.1 != 0 {
            self.listeners.entry(slot).or_default().push(at);
        }
        Some(Upserted { new_port: slot.1, former_owner: None })
    }

    /// The socket no longer listens; it may still hold its port.
    pub fn stop_listening(&mut self, at: BoundSocketId) {
        let Some(bound) = self.slab.get_mut(at) else { return };
        bound.listening = false;
        let slot = (bound.netns, bound.port);
        self.unlist(slot, at);
    }

    /// Takes the socket out.
    pub fn remove(&mut self, at: BoundSocketId) -> Option<BoundSocket> {
        let bound = self.slab.remove(at)?;
        if let Some(cookie) = bound.id.cookie {
            self.by_cookie.remove(&cookie);
        }
        if self.by_sock.get(&bound.id.sock) == Some(&at) {
            self.by_sock.remove(&bound.id.sock);
        }
        self.unlist((bound.netns, bound.port), at);
        Some(bound)
    }

    fn unlist(&mut self, slot: (Netns, u16), at: BoundSocketId) {
        if let Some(list) = self.listeners.get_mut(&slot) {
            list.retain(|&other| other != at);
            if list.is_empty() {
                self.listeners.remove(&slot);
            }
        }
    }

    /// A listener that would have accepted a connection to `addr:port`: one bound to that address before one bound to any.
    pub fn listener(&self, netns: Netns, addr: Addr, port: u16) -> Option<BoundSocketId> {
        let list = self.listeners.get(&(netns, port))?;
        let bound_to = |wanted: &dyn Fn(Addr) -> bool| {
            list.iter().copied().find(|&at| self.slab.get(at).is_some_and(|bound| wanted(bound.addr)))
        };
        bound_to(&|bound| bound == addr).or_else(|| bound_to(&|bound| bound.is_unspecified()))
    }

    /// A pass of `sock_diag` begins to count half-open connections anew.
    pub fn recount(&mut self, netns: Netns) {
        for bound in self.slab.iter_mut().filter(|bound| bound.netns == netns) {
            bound.syn_recv = bound.listening.then_some(0);
        }
    }

    /// One more half-open connection of this listener.
    pub fn half_open(&mut self, at: BoundSocketId) {
        if let Some(bound) = self.slab.get_mut(at) {
            bound.syn_recv = Some(bound.syn_recv.unwrap_or(0) + 1);
        }
    }

    /// Counts a connection that this listener took.
    pub fn accepted(&mut self, at: BoundSocketId) {
        if let Some(bound) = self.slab.get_mut(at) {
            bound.accepted += 1;
        }
    }
}
