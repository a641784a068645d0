//! The rules for sockets that change hands or ports outside of a flow's states: accept(), listen(), bind().

use super::snapshot::Opened;
use super::tables::Tables;
use super::tables::attributions::AttributionId;
use super::tables::bound_sockets::BoundSocket;
use super::tables::flows::FlowId;
use crate::event::{SocketEvent, SocketId, TcpState, Transition};

/// accept() handed a flow to a process, which owns it from now on.
pub fn accepted(tables: &mut Tables, e: &SocketEvent) {
    let flow = tables.flows.find(e.id, Some(&e.key));
    let waited_at = flow.and_then(|at| tables.flows.get_mut(at)?.waits_at.take());
    let named = e.listener.and_then(|listener| tables.ports.find(listener));
    if let Some(listener) = named.or(waited_at).or_else(|| tables.ports.listener_of(&e.key)) {
        tables.ports.count_accepted(listener);
    }
    let Some(at) = flow else { return };
    let process = tables.accounting.process(e.pid);
    let Some(flow) = tables.flows.get(at) else { return };
    let former = flow.attribution();
    if tables.accounting.destination_of(former).is_some() {
        // It was taken for a flow that this host opened.
        return;
    }
    let attribution = tables.attribute(process, None, e.key.netns, false, e.ktime);
    if let Some(flow) = tables.flows.get_mut(at) {
        flow.inferred_owner = false;
        flow.opened = Opened::Passive;
    }
    give_to(tables, at, attribution);
}

/// A passive flow is another process's from now on. What was credited for it so far moves along.
pub fn give_to(tables: &mut Tables, at: FlowId, attribution: AttributionId) {
    let Some(flow) = tables.flows.get(at) else { return };
    let (former, state) = (flow.attribution(), flow.state());
    if former == attribution {
        return;
    }
    tables.reassign_flow(at, attribution);
    // Only what such a flow can have done by now.
    let close_wait = state == TcpState::CloseWait;
    tables.accounting.count(former, |counters| {
        counters.accepted = counters.accepted.saturating_sub(1);
        if close_wait {
            counters.close_wait.down();
            counters.passive_closes = counters.passive_closes.saturating_sub(1);
        }
    });
    tables.accounting.count(attribution, |counters| {
        counters.accepted += 1;
        if close_wait {
            counters.close_wait.up();
            counters.passive_closes += 1;
        }
    });
}

/// listen().
pub fn listens(tables: &mut Tables, t: &Transition) {
    let owner = t.caller.map(|caller| tables.accounting.process(caller.pid));
    tables.bind(BoundSocket {
        id: t.id,
        netns: t.key.netns,
        addr: t.key.local.addr,
        port: t.key.local.port,
        device: t.key.device,
        listening: true,
        listed: false,
        owner,
        accepted: 0,
        queue: None,
        syn_recv: None,
        last: t.ktime,
        pass: tables.pass,
    });
}

/// A listening socket was closed. A bound one may keep its port.
pub fn stops_listening(tables: &mut Tables, t: &Transition) {
    let Some(at) = tables.ports.find(t.id) else { return };
    if t.key.local.port == 0 {
        tables.unbind(at);
    } else {
        tables.ports.stop_listening(at);
    }
}

/// bind().
pub fn port_bound(tables: &mut Tables, e: &SocketEvent) {
    let owner = tables.accounting.process(e.pid);
    tables.bind(BoundSocket {
        id: e.id,
        netns: e.key.netns,
        addr: e.key.local.addr,
        port: e.key.local.port,
        device: e.key.device,
        listening: false,
        listed: false,
        owner: Some(owner),
        accepted: 0,
        queue: None,
        syn_recv: None,
        last: e.ktime,
        pass: tables.pass,
    });
}

/// A bound socket gave up its port: it was destroyed, or it closed and bind() had not named the port (net/ipv4/tcp.c
/// `tcp_set_state`: without `SOCK_BINDPORT_LOCK` the kernel releases the port at ->CLOSE).
pub fn port_released(tables: &mut Tables, id: SocketId) {
    if let Some(at) = tables.ports.find(id) {
        tables.unbind(at);
    }
}
