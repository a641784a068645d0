//! The rules for complete lists of a namespace's sockets: what existed before the trace is entered, what a loss left wrong is set right.
//!
//! A row is true of some moment between the begin and the end of its pass. An event of that time, of later or of shortly before is
//! believed over the row. A flow without events for longer is what the row says, or gone if no row has it.

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::port_buckets::{BucketUser, PortClass};
use super::snapshot::Opened;
use super::tables::Tables;
use super::tables::bound_sockets::{BoundSocket, BoundSocketId};
use super::tables::flows::{Flow, FlowId};
use super::tables::time_wait::TimeWaitEntry;
use super::{lifecycle, minisockets, sockets};
use crate::event::{Baseline, Endpoint, Ktime, Netns, ProcessFacts, SocketId, SocketRow, TcpState};
use crate::model::timing::TIME_WAIT;

/// [`TIME_WAIT`] in nanoseconds.
const TIME_WAIT_NANOS: u64 = TIME_WAIT.as_secs() * 1_000_000_000;

/// A transition is recorded before it is made, and the socket of CLOSE->SYN_SENT is in no list until its port is found. A thread that
/// is preempted in between, or searches long, leaves lists that contradict an event which is true. The next pass tells which.
const SETTLED_NANOS: u64 = 50_000_000;

/// The time of the latest events that a list of this pass may correct.
fn settled(baseline: &Baseline) -> Ktime {
    Ktime(baseline.began.0.saturating_sub(SETTLED_NANOS))
}

/// Merges a complete list of the sockets of a namespace.
pub fn reconcile(tables: &mut Tables, baseline: &Baseline) {
    tables.pass = tables.pass.wrapping_add(1);
    let first = !std::mem::replace(&mut tables.ports.namespace(baseline.netns).baselined, true);
    // Listeners first: they show which side of a loopback connection is which.
    for row in baseline.rows.iter().filter(|row| is_bound_only(row)) {
        list_bound(tables, row, baseline.began);
    }
    tables.ports.recount_half_open(baseline.netns);
    for row in baseline.rows.iter().filter(|row| !is_bound_only(row)) {
        if row.minisocket || row.state == TcpState::TimeWait {
            list_minisocket(tables, row, baseline, first);
        } else {
            list_flow(tables, row, baseline, first);
        }
    }
    remove_unlisted(tables, baseline);
    share_queues(tables, baseline.netns);
    let Tables { holders, flows, .. } = tables;
    holders.forget_closed(flows);
}

/// A row that names an owner says who has the flow open now. The one who opened the flow stays its owner.
fn note_holder(tables: &mut Tables, at: FlowId, row: &SocketRow) {
    let (Some(pid), Some(flow)) = (row.owner, tables.flows.get(at)) else { return };
    let attribution = flow.attribution();
    let holder = tables.accounting.process(pid);
    let accounting = &tables.accounting;
    // The same process after exec is still the one that opened the flow.
    let opened = |facts: &ProcessFacts| {
        accounting.process_of(attribution).is_some_and(|opener| opener.facts.same_process(facts))
    };
    let holder = accounting.processes().get(holder).map(|holder| Arc::clone(&holder.facts));
    tables.holders.set(at, holder.filter(|facts| !opened(facts)));
}

/// Which of the listeners that share an address has a waiting flow is known of none; how many each has is known of all.
fn share_queues(tables: &mut Tables, netns: Netns) {
    let bound = tables.ports.bound();
    let mut room: FxHashMap<BoundSocketId, u32> = FxHashMap::default();
    let mut group_of: FxHashMap<BoundSocketId, usize> = FxHashMap::default();
    let mut groups: Vec<(Vec<BoundSocketId>, Vec<FlowId>)> = Vec::new();
    for group in bound.groups().filter(|group| group.len() > 1) {
        let members: Vec<_> = group.iter().filter_map(|&at| Some((at, bound.get(at)?))).collect();
        if members.first().is_none_or(|(_, listener)| listener.netns != netns) {
            continue;
        }
        for (at, listener) in &members {
            room.insert(*at, listener.queue.map_or(0, |queue| queue.waiting));
            group_of.insert(*at, groups.len());
        }
        groups.push((members.into_iter().map(|(at, _)| at).collect(), Vec::new()));
    }
    if groups.is_empty() {
        return;
    }
    for (at, flow) in tables.flows.iter() {
        let Some(listener) = flow.waits_at else { continue };
        let Some((_, homeless)) = group_of.get(&listener).and_then(|&group| groups.get_mut(group)) else { continue };
        match room.get_mut(&listener).filter(|room| **room > 0) {
            Some(room) => *room -= 1,
            None => homeless.push(at),
        }
    }
    for (members, homeless) in groups {
        let mut free = members.into_iter().flat_map(|at| {
            let room = room.get(&at).copied().unwrap_or(0);
            std::iter::repeat_n(at, usize::try_from(room).unwrap_or(0))
        });
        for flow in homeless {
            let Some(listener) = free.next() else { break };
            wait_at(tables, flow, listener);
        }
    }
}

/// A waiting flow is in the queue of this listener, and so its owner's.
fn wait_at(tables: &mut Tables, at: FlowId, listener: BoundSocketId) {
    let owner = tables.ports.bound().get(listener).and_then(|listener| listener.owner);
    let process = owner.unwrap_or(tables.accounting.processes().unknown());
    let Some(flow) = tables.flows.get_mut(at) else { return };
    flow.waits_at = Some(listener);
    let (netns, last) = (flow.key().netns, flow.last);
    if tables.accounting.destination_of(flow.attribution()).is_none() {
        let attribution = tables.attribute(process, None, netns, true, last);
        sockets::give_to(tables, at, attribution);
    }
}

/// A socket that listens, or is bound and does nothing yet: it is no flow.
fn is_bound_only(row: &SocketRow) -> bool {
    matches!(row.state, TcpState::Listen | TcpState::Close)
}

fn list_bound(tables: &mut Tables, row: &SocketRow, began: Ktime) {
    let owner = row.owner.map(|pid| tables.accounting.process(pid));
    tables.bind(BoundSocket {
        id: SocketId { cookie: row.cookie, sock: row.sock },
        netns: row.key.netns,
        addr: row.key.local.addr,
        port: row.key.local.port,
        device: row.key.device,
        listening: row.state == TcpState::Listen,
        listed: true,
        owner,
        accepted: 0,
        queue: row.queue,
        syn_recv: None,
        last: began,
        pass: tables.pass,
    });
}

fn list_minisocket(tables: &mut Tables, row: &SocketRow, baseline: &Baseline, first: bool) {
    let pass = tables.pass;
    let fin_wait2 = row.state == TcpState::FinWait2;
    if let Some(at) = tables.time_wait.find(&row.key) {
        tables.time_wait.list(at, pass);
        minisockets::list(tables, at, row.cookie, fin_wait2);
        return;
    }
    // It may have begun after the row was read and ended before we read it, or its flow is still to close: a minisocket whose
    // events we have seen does not come back.
    let known = tables.flows.closed_at(row.cookie).is_some_and(|closed| closed >= settled(baseline));
    if known && tables.time_wait.ends_observed() {
        return;
    }
    let former = tables.flows.find(SocketId { cookie: row.cookie, sock: 0 }, Some(&row.key));
    let flow = former.and_then(|at| tables.flows.get(at));
    if flow.is_some_and(|flow| flow.last >= settled(baseline)) {
        return;
    }
    tables.anomalies.repaired += u64::from(!first || former.is_some());
    let (attribution, user) = match flow {
        Some(flow) => (flow.attribution(), flow.minisocket_user()),
        None => {
            let ephemeral = tables.ports.looks_ephemeral(&row.key);
            // The kernel does not tell it; a recording that begins in the middle of a trace does.
            let owner = row.owner.map(|pid| tables.accounting.process(pid));
            let process = owner.unwrap_or(tables.accounting.processes().unknown());
            let destination = if ephemeral { tables.destination(&row.key, process, baseline.ended) } else { None };
            let attribution = tables.attribute(process, destination, row.key.netns, true, baseline.ended);
            let closes = row.closed == Some(true);
            (attribution, if closes { BucketUser::Minisocket } else { tables.ports.unseen_user(&row.key) })
        }
    };
    let lived = row.remaining.map_or(0, |remaining| TIME_WAIT_NANOS.saturating_sub(remaining));
    let began = Ktime(baseline.ended.0.saturating_sub(lived));
    let entry = TimeWaitEntry {
        key: row.key,
        cookie: row.cookie,
        began,
        timer_started: began,
        attribution,
        observed: false,
        fin_wait2,
        orphan: fin_wait2,
        without_timestamps: row.timestamps == Some(false),
        user,
        class: PortClass::default(),
        pass,
    };
    tables.begin_minisocket(entry, former, former.is_some());
    if let Some(at) = former {
        lifecycle::became_minisocket(tables, at, baseline.began);
    }
}

fn list_flow(tables: &mut Tables, row: &SocketRow, baseline: &Baseline, first: bool) {
    let id = SocketId { cookie: row.cookie, sock: 0 };
    tables.ports.list(id, tables.pass);
    if let Some(at) = tables.flows.find(id, Some(&row.key)) {
        update_flow(tables, at, row, baseline);
        return;
    }
    if tables.flows.closed_at(row.cookie).is_some() {
        return;
    }
    let listener = tables.ports.listener_of(&row.key);
    let passive = listener.is_some();
    if let (TcpState::SynRecv, Some(at)) = (row.state, listener) {
        // A half-open request is no socket yet; the flow begins when it is established.
        tables.ports.count_half_open(at);
        return;
    }
    let ephemeral = !passive && tables.ports.looks_ephemeral(&row.key);
    let of_listener = listener.and_then(|at| tables.ports.bound().get(at)?.owner);
    let owner = row.owner.map(|pid| tables.accounting.process(pid));
    let process = owner.or(of_listener).unwrap_or(tables.accounting.processes().unknown());
    let destination = if ephemeral { tables.destination(&row.key, process, baseline.ended) } else { None };
    let attribution = tables.attribute(process, destination, row.key.netns, true, baseline.ended);
    tables.anomalies.repaired += u64::from(!first);
    let mut flow = Flow::new(id, row.key, row.state, attribution, baseline.began);
    flow.opened = if passive { Opened::Passive } else { Opened::Unknown };
    // Without a listener that would have accepted it, bind() came before connect().
    flow.bound = !passive && row.closed == Some(true);
    flow.repaired = !first;
    flow.pass = tables.pass;
    let may_wait = matches!(row.state, TcpState::Established | TcpState::CloseWait);
    flow.waits_at = listener.filter(|_| may_wait && row.has_descriptor == Some(false));
    if let Some(at) = tables.insert_flow(flow) {
        tables.occupy(at);
    }
}

/// A list has a flow that is known.
fn update_flow(tables: &mut Tables, at: FlowId, row: &SocketRow, baseline: &Baseline) {
    let pass = tables.pass;
    let Some(flow) = tables.flows.get_mut(at) else { return };
    flow.pass = pass;
    note_holder(tables, at, row);
    let Some(flow) = tables.flows.get_mut(at) else { return };
    if row.has_descriptor == Some(true)
        && let Some(listener) = flow.waits_at.take()
    {
        // The record of its accept() was lost.
        tables.ports.count_accepted(listener);
        tables.anomalies.repaired += 1;
    }
    let Some(flow) = tables.flows.get_mut(at) else { return };
    let stale = flow.last < settled(baseline) && flow.state() != row.state;
    flow.repaired |= stale;
    if flow.key().local.port == 0 {
        tables.name_port(at, row.key.local.port);
    }
    if stale {
        tables.anomalies.repaired += 1;
        tables.set_state(at, row.state, baseline.began);
        if let Some(flow) = tables.flows.get_mut(at) {
            flow.state_since = None;
        }
        tables.occupy(at);
    }
}

/// What the list does not have, and what had no event since before it was taken, is gone.
fn remove_unlisted(tables: &mut Tables, baseline: &Baseline) {
    let pass = tables.pass;
    let gone = |last: Ktime, seen: u32| seen != pass && last < settled(baseline);
    // A flow that has neither port nor cookie yet cannot be recognised in a list: one of those that the list brought towards the
    // same destination may be it, which its next transition shows (`Flows::duplicate_of`).
    let listed: FxHashSet<Endpoint> = tables
        .flows
        .iter()
        .filter(|(_, flow)| flow.id().sock == 0 && flow.pass == pass && flow.key().netns == baseline.netns)
        .map(|(_, flow)| flow.key().remote)
        .collect();
    let unrecognisable = |flow: &Flow| flow.id().cookie.is_none() && flow.key().local.port == 0;
    let flows: Vec<FlowId> = tables
        .flows
        .iter()
        .filter(|(_, flow)| flow.key().netns == baseline.netns && gone(flow.last, flow.pass))
        .filter(|(_, flow)| !(unrecognisable(flow) && listed.contains(&flow.key().remote)))
        .map(|(at, _)| at)
        .collect();
    for at in flows {
        lifecycle::end_was_lost(tables, at, baseline.began);
    }
    let observed = tables.time_wait.ends_observed();
    for at in tables.time_wait.unlisted(baseline.netns, pass, settled(baseline)) {
        // Where the timers are not traced, an end found by a list is the rule, not a repair.
        tables.anomalies.repaired += u64::from(observed);
        minisockets::end(tables, at, baseline.began);
    }
    let bound: Vec<BoundSocketId> = tables
        .ports
        .bound()
        .iter()
        .filter(|(_, bound)| bound.netns == baseline.netns && (bound.listening || bound.listed))
        .filter(|(_, bound)| gone(bound.last, bound.pass))
        .map(|(at, _)| at)
        .collect();
    for at in bound {
        tables.anomalies.repaired += 1;
        tables.unbind(at);
    }
}
