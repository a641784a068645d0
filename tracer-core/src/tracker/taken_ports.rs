//! The rule for ports that are asked for by number: who has a port that somebody else does not get.

use std::sync::Arc;

use super::snapshot::{Owner, PortHolder};
use super::tables::Tables;
use super::tables::attributions::AttributionId;
use super::tables::bound_sockets::BoundSocket;
use super::tables::pending_failures::FailedAttempt;
use super::tables::taken_ports::AskedPort;
use crate::event::{Addr, FlowKey, SocketId, TcpState};

/// bind(), listen() or connect() of a bound socket has failed because the port (of bind), or the 4-tuple, is taken.
pub fn is_taken(tables: &mut Tables, failed: &FailedAttempt) {
    let FlowKey { netns, local, remote, .. } = failed.key;
    if local.port == 0 {
        return;
    }
    let owner = tables.accounting.owner(failed.attribution, failed.inferred);
    let asked = AskedPort { netns, local, remote, pid: owner.as_ref().map_or(0, |owner| owner.pid) };
    let holder = if remote.port == 0 { holder_of_port(tables, failed) } else { holder_of_tuple(tables, &failed.key) };
    tables.taken_ports.count(asked, owner, failed.at, holder);
}

/// Who has the 4-tuple.
fn holder_of_tuple(tables: &mut Tables, key: &FlowKey) -> Option<PortHolder> {
    if let Some(entry) = tables.time_wait.find(key).and_then(|at| tables.time_wait.get(at)) {
        return Some(user(tables, entry.state(), entry.attribution));
    }
    let at = tables.flows.find(SocketId { cookie: None, sock: 0 }, Some(key))?;
    let flow = tables.flows.get(at)?;
    Some(user(tables, flow.state(), flow.attribution()))
}

/// Who keeps bind() from the port: a listening socket before a bound one, that before a connection, that before a minisocket.
fn holder_of_port(tables: &mut Tables, failed: &FailedAttempt) -> Option<PortHolder> {
    let (netns, local) = (failed.key.netns, failed.key.local);
    let sockets = tables.ports.bound().len() + tables.flows.len() + tables.time_wait.len();
    if !tables.taken_ports.may_walk(failed.at, sockets) {
        return None;
    }
    let conflicts = |addr: Addr| addr == local.addr || is_any(addr) || is_any(local.addr);
    let bound = tables.ports.bound().iter().map(|(_, bound)| bound).filter(|bound| {
        bound.netns == netns && bound.port == local.port && conflicts(bound.addr) && !is_same(bound.id, failed.id)
    });
    if let Some(bound) = bound.max_by_key(|bound| (bound.listening, bound.last)) {
        return Some(of_bound(tables, bound));
    }
    let uses = |key: &FlowKey| key.netns == netns && key.local.port == local.port && conflicts(key.local.addr);
    if let Some((_, flow)) = tables.flows.iter().find(|(_, flow)| uses(flow.key()) && !is_same(flow.id(), failed.id)) {
        return Some(user(tables, flow.state(), flow.attribution()));
    }
    let (_, entry) = tables.time_wait.iter().find(|(_, entry)| uses(&entry.key))?;
    Some(user(tables, entry.state(), entry.attribution))
}

fn is_any(addr: Addr) -> bool {
    addr.ip().is_unspecified()
}

fn is_same(a: SocketId, b: SocketId) -> bool {
    (a.cookie.is_some() && a.cookie == b.cookie) || (a.sock != 0 && a.sock == b.sock)
}

fn user(tables: &Tables, state: TcpState, attribution: AttributionId) -> PortHolder {
    let owner = tables.accounting.owner(attribution, false).filter(|owner| owner.pid != 0);
    PortHolder::new(state, owner.as_ref())
}

fn of_bound(tables: &Tables, bound: &BoundSocket) -> PortHolder {
    let processes = tables.accounting.processes();
    let state = if bound.listening { TcpState::Listen } else { TcpState::Close };
    let owner =
        bound.owner.and_then(|id| processes.get(id)).filter(|process| process.facts.pid != 0).and_then(|process| {
            let workload = Arc::clone(&processes.workload_entry(process.workload)?.name);
            Some(Owner { pid: process.facts.pid, comm: Arc::clone(&process.facts.comm), workload, ..Owner::default() })
        });
    PortHolder::new(state, owner.as_ref())
}
