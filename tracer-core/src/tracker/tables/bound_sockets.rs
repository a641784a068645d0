//! Sockets that hold a port by bind() or listen(): such a port is unusable for connect() towards every destination.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use rustc_hash::FxHashMap;

use super::processes::ProcessId;
use super::slab::{Ref, Slab};
use crate::event::{AcceptQueue, Addr, FlowKey, Ktime, Netns, SocketCookie, SocketId};

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
    /// Index of the interface that it is bound to, 0 if none.
    pub device: u32,
    /// It listens.
    pub listening: bool,
    /// A list of sockets has shown it: a list without it says that it is gone.
    pub listed: bool,
    /// The process that bound it or made it listen; `None` if unknown.
    pub owner: Option<ProcessId>,
    /// Connections that accept() took from it.
    pub accepted: u64,
    /// Its accept queue at the last pass of `sock_diag`.
    pub queue: Option<AcceptQueue>,
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
    listeners: FxHashMap<ListenAddress, BTreeSet<BoundSocketId>>,
}

/// What the sockets of an SO_REUSEPORT group have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenAddress {
    netns: Netns,
    device: u32,
    addr: Addr,
    port: u16,
}

impl BoundSocket {
    /// The address that it listens on; `None` if it does not listen, or its port is unknown.
    pub fn listens_on(&self) -> Option<ListenAddress> {
        let Self { netns, device, addr, port, listening, .. } = *self;
        (listening && port != 0).then_some(ListenAddress { netns, device, addr, port })
    }
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

    /// Bound sockets held.
    pub fn len(&self) -> usize {
        self.slab.len()
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
            let former_address = known.listens_on();
            known.last = known.last.max(bound.last);
            known.pass = bound.pass;
            known.listed |= bound.listed;
            known.listening |= bound.listening;
            known.queue = bound.queue.or(known.queue);
            let former_owner = bound.owner.and_then(|owner| known.owner.replace(owner));
            if known.port == 0 {
                known.port = bound.port;
            }
            if known.addr.is_unspecified() {
                known.addr = bound.addr;
            }
            if known.device == 0 {
                known.device = bound.device;
            }
            if let (None, Some(cookie)) = (known.id.cookie, bound.id.cookie) {
                known.id.cookie = Some(cookie);
                self.by_cookie.insert(cookie, at);
            }
            if known.id.sock == 0 && bound.id.sock != 0 {
                known.id.sock = bound.id.sock;
                self.by_sock.insert(bound.id.sock, at);
            }
            let address = known.listens_on();
            if former_address != address {
                self.unlist(former_address, at);
                self.enlist(address, at);
            }
            return Some(Upserted { new_port, former_owner });
        }
        let (id, port, address) = (bound.id, bound.port, bound.listens_on());
        let at = self.slab.insert(bound)?;
        if let Some(cookie) = id.cookie {
            self.by_cookie.insert(cookie, at);
        }
        if id.sock != 0 {
            self.by_sock.insert(id.sock, at);
        }
        self.enlist(address, at);
        Some(Upserted { new_port: port, former_owner: None })
    }

    /// The socket no longer listens; it may still hold its port.
    pub fn stop_listening(&mut self, at: BoundSocketId) {
        let Some(bound) = self.slab.get_mut(at) else { return };
        let address = bound.listens_on();
        bound.listening = false;
        self.unlist(address, at);
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
        self.unlist(bound.listens_on(), at);
        Some(bound)
    }

    fn enlist(&mut self, address: Option<ListenAddress>, at: BoundSocketId) {
        if let Some(address) = address {
            self.listeners.entry(address).or_default().insert(at);
        }
    }

    fn unlist(&mut self, address: Option<ListenAddress>, at: BoundSocketId) {
        let Some(address) = address else { return };
        if let Some(siblings) = self.listeners.get_mut(&address) {
            siblings.remove(&at);
            if siblings.is_empty() {
                self.listeners.remove(&address);
            }
        }
    }

    /// The listeners of the one address to which the kernel gives a connection with this local end, in a fixed order: several if they
    /// share it by SO_REUSEPORT. Its device counts before any device, its address before the wildcard of its family, and that
    /// before `[::]`, which takes IPv4 too (net/ipv4/inet_hashtables.c `compute_score`).
    pub fn listeners_of(&self, key: &FlowKey) -> impl Iterator<Item = BoundSocketId> + '_ {
        let (v4, v6) = (Addr::from(IpAddr::from(Ipv4Addr::UNSPECIFIED)), Addr::UNSPECIFIED);
        let is_v4 = key.local.addr.ip().is_ipv4();
        let addresses = [Some(key.local.addr), is_v4.then_some(v4), Some(v6)];
        let FlowKey { netns, device, local, .. } = *key;
        let found = addresses.into_iter().flatten().find_map(|addr| {
            let on = |device| self.listeners.get(&ListenAddress { netns, device, addr, port: local.port });
            on(device).or_else(|| on(0))
        });
        found.into_iter().flatten().copied()
    }

    /// All groups of listeners that share an address.
    pub fn groups(&self) -> impl Iterator<Item = &BTreeSet<BoundSocketId>> {
        self.listeners.values()
    }

    /// A list of sockets has the socket, as one that connects or is connected.
    pub fn list(&mut self, id: SocketId, pass: u32) {
        if let Some(bound) = self.find(id).and_then(|at| self.slab.get_mut(at)) {
            bound.pass = pass;
            bound.listed = true;
        }
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

    /// Accepted connections are counted from zero again.
    pub fn restart(&mut self) {
        self.slab.iter_mut().for_each(|bound| bound.accepted = 0);
    }

    /// Counts a connection that accept() took from this listener.
    pub fn accepted(&mut self, at: BoundSocketId) {
        if let Some(bound) = self.slab.get_mut(at) {
            bound.accepted += 1;
        }
    }
}
