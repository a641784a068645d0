//! Sockets that change hands or ports outside a flow's states: accept(), listen(), bind().

use super::Tracker;
use super::bound::Bound;
use super::slab::Ref;
use super::snapshot::Opened;
use crate::event::{Netns, SocketEvent, SocketId, TcpState, Transition};

impl Tracker {
    /// accept() handed the flow to a process: from now on it is that process's.
    pub(super) fn accepted(&mut self, e: &SocketEvent) {
        let Some(at) = self.flows.find(e.id, Some(&e.key)) else { return };
        let proc = self.people.of_pid(e.pid);
        let Some(flow) = self.flows.get(at) else { return };
        let (old, state) = (flow.attr, flow.state);
        if flow.dest.is_some() {
            // Told apart wrongly: it looked like one of ours towards them.
            return;
        }
        let attr = self.people.attribute(proc, None, e.key.netns, false, e.ktime);
        if let Some(flow) = self.flows.get_mut(at) {
            flow.attr = Some(attr);
            flow.inferred_owner = false;
            flow.opened = Opened::Passive;
        }
        if old == Some(attr) {
            return;
        }
        // What was credited to the listener so far moves along. Only what such a flow can have done by now.
        let close_wait = state == TcpState::CloseWait;
        self.count(old, None, |cell| {
            cell.accepted = cell.accepted.saturating_sub(1);
            if close_wait {
                cell.close_wait.down();
                cell.passive_closes = cell.passive_closes.saturating_sub(1);
            }
        });
        self.count(Some(attr), None, |cell| {
            cell.accepted += 1;
            if close_wait {
                cell.close_wait.up();
                cell.passive_closes += 1;
            }
        });
    }

    pub(super) fn listens(&mut self, t: &Transition) {
        let owner = t.caller.map(|caller| self.people.of_pid(caller.pid));
        self.bind_entry(Bound {
            id: t.id,
            netns: t.key.netns,
            addr: t.key.local.addr,
            port: t.key.local.port,
            listening: true,
            owner,
            accepted: 0,
            syn_recv: None,
            last: t.ktime,
            pass: self.pass,
        });
    }

    pub(super) fn stops_listening(&mut self, t: &Transition) {
        let Some(at) = self.bound.find(t.id) else { return };
        if t.key.local.port == 0 {
            self.unbind(at);
        } else {
            self.bound.stop_listening(at);
        }
    }

    pub(super) fn port_bound(&mut self, e: &SocketEvent) {
        let owner = self.people.of_pid(e.pid);
        self.bind_entry(Bound {
            id: e.id,
            netns: e.key.netns,
            addr: e.key.local.addr,
            port: e.key.local.port,
            listening: false,
            owner: Some(owner),
            accepted: 0,
            syn_recv: None,
            last: e.ktime,
            pass: self.pass,
        });
    }

    pub(super) fn bind_entry(&mut self, bound: Bound) -> Option<Ref> {
        let (netns, port) = (bound.netns, bound.port);
        match self.bound.upsert(bound) {
            Some((at, newly)) => {
                if newly != 0 {
                    self.hold_port(netns, port);
                }
                Some(at)
            }
            None => {
                self.evicted += 1;
                None
            }
        }
    }

    pub(super) fn port_released(&mut self, id: SocketId) {
        if let Some(at) = self.bound.find(id) {
            self.unbind(at);
        }
    }

    pub(super) fn unbind(&mut self, at: Ref) {
        if let Some(bound) = self.bound.remove(at) {
            self.free_port(bound.netns, bound.port);
        }
    }

    pub(super) fn hold_port(&mut self, netns: Netns, port: u16) {
        if let Some(namespace) = self.places.namespace(netns) {
            namespace.hold(port);
        }
    }

    pub(super) fn free_port(&mut self, netns: Netns, port: u16) {
        if let Some(namespace) = self.places.namespace(netns) {
            namespace.release(port);
        }
    }
}
