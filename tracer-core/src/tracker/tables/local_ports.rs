//! The local ports of the namespaces, and the sockets that hold some of them by bind() or listen().
//!
//! Every socket that has a port is a user of that port's bucket in its namespace for exactly as long as it is in the tables: a bound
//! socket here, a flow and a minisocket through [`super::Tables`].

use super::bound_sockets::{BoundSocket, BoundSocketId, BoundSockets, Upserted};
use super::destinations::DestinationEntry;
use super::namespaces::{NamespaceEntry, Namespaces};
use crate::event::{FlowKey, Ktime, Netns, NetnsFacts, SocketId};
use crate::tracker::port_buckets::{BucketUser, PortClass};

/// Namespaces and bound sockets.
#[derive(Clone, Debug, Default)]
pub struct LocalPorts {
    namespaces: Namespaces,
    bound: BoundSockets,
}

impl LocalPorts {
    /// Empty tables. `reopens`: see [`crate::tracker::port_buckets::PortBuckets::new`].
    pub fn new(reopens: bool) -> Self {
        Self { namespaces: Namespaces::new(reopens), bound: BoundSockets::default() }
    }

    /// The namespaces.
    pub fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// The bound sockets.
    pub fn bound(&self) -> &BoundSockets {
        &self.bound
    }

    /// The namespace, created at need, to learn something about it.
    pub fn namespace(&mut self, netns: Netns) -> &mut NamespaceEntry {
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

    /// Takes over the limits of a namespace.
    pub fn learn(&mut self, facts: &NetnsFacts) {
        self.namespaces.learn(facts);
    }

    /// Takes over the reserved ports of a namespace.
    pub fn reserve(&mut self, netns: Netns, ports: &[u16]) {
        self.namespaces.reserve(netns, ports);
    }

    /// How the local port of a flow counts towards its destination.
    pub fn class_of(&self, key: &FlowKey) -> PortClass {
        self.namespaces.get(key.netns).map_or(PortClass::Open, |namespace| namespace.class_of(key.local.port))
    }

    /// Ports that the destination can have in use at once: those that its namespace can give to anyone, and those of its own that
    /// nobody else can use. Never less than it has in use. `None` if the range is unknown.
    pub fn capacity(&self, destination: &DestinationEntry) -> Option<u32> {
        Some(self.namespaces.get(destination.key.netns)?.capacity()? + destination.unusable())
    }

    /// Ports that connect() could choose towards the destination now. `None` if the range is unknown.
    pub fn free(&self, destination: &DestinationEntry) -> Option<u32> {
        Some(self.capacity(destination)?.saturating_sub(destination.in_use()))
    }

    /// Free ports that a connect() has not found which failed at this time: more than its search can have missed. `None` if there are
    /// none, or if the ports of the namespace are not known well enough.
    pub fn contradiction(&self, destination: &DestinationEntry, at: Ktime, searching: u32) -> Option<u32> {
        let namespace = self.namespaces.get(destination.key.netns)?;
        // Neither a rest nor a destination that has been in one until just now knows all ports in use towards it.
        let unknown = destination.rest.is_some() || destination.unsettled;
        if !namespace.baselined || namespace.is_stale() || unknown {
            return None;
        }
        let missed = destination.released_lately(at) + searching + u32::from(namespace.has_odd_range());
        self.free(destination).filter(|&free| free > missed)
    }

    /// As what a minisocket uses its port's bucket whose socket nobody has seen: beside a listener it was accepted there.
    pub fn unseen_user(&self, key: &FlowKey) -> BucketUser {
        if self.listener_of(key).is_some() { BucketUser::Minisocket } else { BucketUser::Connect }
    }

    /// Adds a bound socket or brings it up to date. `None` at the bound.
    pub(super) fn bind(&mut self, socket: BoundSocket) -> Option<Upserted> {
        let netns = socket.netns;
        let upserted = self.bound.upsert(socket)?;
        self.namespaces.acquire_port(netns, upserted.new_port, BucketUser::Bound);
        Some(upserted)
    }

    /// The socket is gone, and with it its hold of the port.
    pub(super) fn unbind(&mut self, at: BoundSocketId) -> Option<BoundSocket> {
        let socket = self.bound.remove(at)?;
        self.namespaces.release_port(socket.netns, socket.port, BucketUser::Bound);
        Some(socket)
    }

    /// A flow or a minisocket enters the bucket of its local port.
    pub(super) fn acquire(&mut self, key: &FlowKey, user: BucketUser) {
        self.namespaces.acquire_port(key.netns, key.local.port, user);
    }

    /// The counterpart of [`Self::acquire`].
    pub(super) fn release(&mut self, key: &FlowKey, user: BucketUser) {
        self.namespaces.release_port(key.netns, key.local.port, user);
    }

    /// All destinations count their ports as they are now.
    pub(super) fn set_fresh(&mut self) {
        self.namespaces.set_fresh();
    }

    /// The socket listens no longer; it may still hold its port.
    pub fn stop_listening(&mut self, at: BoundSocketId) {
        self.bound.stop_listening(at);
    }

    /// Listeners count what they accept from zero again.
    pub fn restart(&mut self) {
        self.bound.restart();
    }

    /// Counts a connection that accept() took from the listener.
    pub fn count_accepted(&mut self, at: BoundSocketId) {
        self.bound.accepted(at);
    }

    /// A list of sockets has the bound socket, as one that connects or is connected.
    pub fn list(&mut self, id: SocketId, pass: u32) {
        self.bound.list(id, pass);
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
