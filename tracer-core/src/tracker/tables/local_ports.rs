//! The local ports of the namespaces, and the sockets that hold some of them by bind() or listen().
//!
//! A bound socket that has a port, and a minisocket of one, is a user of that port's bucket in its namespace for exactly as long as it
//! is here.

use super::bound_sockets::{BoundSocket, BoundSocketId, BoundSockets, Upserted};
use super::destinations::DestinationEntry;
use super::namespaces::{NamespaceEntry, Namespaces};
use crate::event::{FlowKey, Netns, SocketId};
use crate::tracker::port_buckets::BucketUser;

/// Namespaces and bound sockets.
#[derive(Clone, Debug, Default)]
pub struct LocalPorts {
    namespaces: Namespaces,
    bound: BoundSockets,
}

impl LocalPorts {
    /// The namespaces.
    pub fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// The bound sockets.
    pub fn bound(&self) -> &BoundSockets {
        &self.bound
    }

    /// The namespace, created at need, to learn something about it. `None` at the bound.
    pub fn namespace(&mut self, netns: Netns) -> Option<&mut NamespaceEntry> {
        self.namespaces.find_or_insert(netns)
    }

    /// The socket that would accept this flow; the first of those that share its address.
    pub fn listener_of(&self, key: &FlowKey) -> Option<BoundSocketId> {
        self.bound.listeners_of(key).next()
    }

    /// Is the local port one that connect() could have chosen, and that no socket listens on?
    pub fn looks_ephemeral(&self, key: &FlowKey) -> bool {
        let in_range = self
            .namespaces
            .get(key.netns)
            .is_none_or(|namespace| namespace.facts.port_range.is_none() || namespace.in_range(key.local.port));
        in_range && self.listener_of(key).is_none()
    }

    /// Ports that the destination can have in use at once: those that its namespace can give to anyone, and its own bound ports,
    /// which only others cannot use. `None` if the range is unknown.
    pub fn capacity(&self, destination: &DestinationEntry) -> Option<u32> {
        Some(self.namespaces.get(destination.key.netns)?.capacity()? + destination.bound())
    }

    /// Adds a bound socket or brings it up to date. `None` at the bound.
    pub(super) fn bind(&mut self, socket: BoundSocket) -> Option<Upserted> {
        let netns = socket.netns;
        let upserted = self.bound.upsert(socket)?;
        self.namespaces.hold_port(netns, upserted.new_port, BucketUser::Bound);
        Some(upserted)
    }

    /// The socket is gone, and with it its hold of the port.
    pub(super) fn unbind(&mut self, at: BoundSocketId) -> Option<BoundSocket> {
        let socket = self.bound.remove(at)?;
        self.namespaces.free_port(socket.netns, socket.port, BucketUser::Bound);
        Some(socket)
    }

    /// A minisocket of a bound socket has begun.
    pub(super) fn minisocket_begins(&mut self, key: &FlowKey) {
        self.namespaces.hold_port(key.netns, key.local.port, BucketUser::Minisocket);
    }

    /// The counterpart of [`Self::minisocket_begins`].
    pub(super) fn minisocket_ends(&mut self, key: &FlowKey) {
        self.namespaces.free_port(key.netns, key.local.port, BucketUser::Minisocket);
    }

    /// The socket listens no longer; it may still hold its port.
    pub fn stop_listening(&mut self, at: BoundSocketId) {
        self.bound.stop_listening(at);
    }

    /// Counts a connection that accept() took from the listener.
    pub fn count_accepted(&mut self, at: BoundSocketId) {
        self.bound.accepted(at);
    }

    /// Counts a half-open connection of the listener.
    pub fn count_half_open(&mut self, at: BoundSocketId) {
        self.bound.half_open(at);
    }

    /// A pass of `sock_diag` begins to count half-open connections anew.
    pub fn recount_half_open(&mut self, netns: Netns) {
        self.bound.recount(netns);
    }

    /// The bound socket of this identity.
    pub fn find(&self, id: SocketId) -> Option<BoundSocketId> {
        self.bound.find(id)
    }
}
