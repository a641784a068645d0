//! The rules by which transitions change flows.
//!
//! Who owns a flow: the caller of CLOSE->SYN_SENT, to the end of its `TIME_WAIT`. A passive flow begins at SYN_RECV->ESTABLISHED
//! (LISTEN->SYN_RECV carries the listener's cookie up to 6.12) and belongs to the listener until accept() names a process. Later
//! events never change an owner.

use super::port_buckets::PortClass;
use super::snapshot::{Ended, FlowEnd, Opened};
use super::tables::Tables;
use super::tables::flows::{Flow, FlowId};
use super::tables::history::StateStep;
use super::tables::outbox::millis;
use super::tables::time_wait::TimeWaitEntry;
use super::{failures, minisockets, sockets};
use crate::errno::{ECONNABORTED, ECONNRESET, ETIMEDOUT};
use crate::event::{FlowKey, Ktime, SocketEvent, TcpState, Transition};

/// A socket has changed its state.
pub fn transition(tables: &mut Tables, t: &Transition) {
    match (t.old, t.new) {
        (TcpState::Close, TcpState::SynSent) => opens(tables, t),
        (TcpState::Close, TcpState::Listen) => sockets::listens(tables, t),
        (TcpState::Listen, TcpState::Close) => sockets::stops_listening(tables, t),
        (TcpState::Listen, _) => {}
        _ => {
            moves(tables, t);
            if t.new == TcpState::Close && t.key.local.port == 0 && !t.classic {
                sockets::port_released(tables, t.id);
            }
        }
    }
}

fn opens(tables: &mut Tables, t: &Transition) {
    if let Some(at) = tables.flows.find(t.id, None) {
        let repeated = |flow: &Flow| t.rescued && flow.state() == t.new && flow.previous == t.old;
        if tables.flows.get(at).is_some_and(repeated) {
            tables.anomalies.duplicates += 1;
            return;
        }
        end_was_lost(tables, at, t.ktime);
    }
    // A thread is in one connect() at a time: whatever it failed before is over.
    failures::settle_thread(tables, t.current_tid);
    let pid = t.caller.map_or(0, |caller| caller.pid);
    let process = tables.accounting.process(pid);
    let destination = tables.destination(&t.key, process, t.ktime);
    let attribution = tables.attribute(process, destination, t.key.netns, false, t.ktime);
    tables.accounting.count_attempt(attribution, t.ktime);
    tables.outbox.count(t.ktime, |second| second.connects += 1);
    let bound = t.key.local.port != 0;
    let mut flow = Flow::new(t.id, t.key, t.new, attribution, t.ktime);
    flow.previous = t.old;
    flow.opened = Opened::Active;
    flow.began = Some(t.ktime);
    flow.state_since = Some(t.ktime);
    flow.tid = t.current_tid;
    flow.port_before = t.last_port;
    flow.bound = bound;
    flow.inferred_owner = false;
    flow.pass = tables.pass;
    let Some(at) = tables.insert_flow(flow) else { return };
    tables.search_begins(at, t.ktime);
    if bound {
        let event =
            SocketEvent { ktime: t.ktime, id: t.id, key: t.key, pid, tid: t.current_tid, named: None, listener: None };
        sockets::port_bound(tables, &event);
    }
    report_change(tables, at, t.ktime, (t.old, t.new), None);
}

/// The end of the flow was lost: it is over since some unknown moment before `now`.
pub fn end_was_lost(tables: &mut Tables, at: FlowId, now: Ktime) {
    tables.anomalies.repaired += 1;
    if let Some(flow) = tables.flows.get_mut(at) {
        flow.repaired = true;
    }
    ends(tables, at, now, Ended::Unknown, false);
}

/// The end of the flow was lost, but its minisocket exists: only an active closer leaves one (of a simultaneous close both do).
pub fn became_minisocket(tables: &mut Tables, at: FlowId, now: Ktime) {
    let Some(flow) = tables.flows.get_mut(at) else { return };
    flow.repaired = true;
    let (state, attribution) = (flow.state(), flow.attribution());
    if !matches!(state, TcpState::FinWait1 | TcpState::FinWait2 | TcpState::Closing) {
        tables.accounting.count(attribution, |counters| counters.active_closes += 1);
    }
    let ended = if state == TcpState::Closing { Ended::SimultaneousClose } else { Ended::ActiveClose };
    ends(tables, at, now, ended, false);
}

fn moves(tables: &mut Tables, t: &Transition) {
    let mut key = t.key;
    if key.local.port == 0 {
        key.local.port = t.last_port;
    }
    merge_duplicate(tables, t);
    let Some(at) = tables.flows.find(t.id, Some(&key)) else { return unseen(tables, t, key) };
    let Some(flow) = tables.flows.get(at) else { return };
    let state = flow.state();
    if t.rescued && state == t.new && flow.previous == t.old {
        tables.anomalies.duplicates += 1;
        return;
    }
    if flow.began.is_none() && t.ktime < flow.last && state != t.old {
        // A list of sockets that was taken after this event has shown already what it led to.
        return;
    }
    if state != t.old {
        skip_ahead(tables, at, t);
    }
    change(tables, at, t);
}

/// Takes back the second flow that a list of sockets made of a socket whose first flow had no cookie and no port.
fn merge_duplicate(tables: &mut Tables, t: &Transition) {
    let Some(duplicate) = tables.flows.duplicate_of(t.id) else { return };
    if let Some(flow) = tables.discard_flow(duplicate) {
        tables.anomalies.repaired = tables.anomalies.repaired.saturating_sub(u64::from(flow.repaired));
    }
}

/// Transitions between the flow's state and `t.old` were lost.
fn skip_ahead(tables: &mut Tables, at: FlowId, t: &Transition) {
    tables.anomalies.repaired += 1;
    let Some(flow) = tables.flows.get_mut(at) else { return };
    flow.repaired = true;
    let was_connecting = flow.opened == Opened::Active && matches!(flow.state(), TcpState::SynSent | TcpState::SynRecv);
    let connected = !matches!(t.old, TcpState::SynSent | TcpState::SynRecv | TcpState::Close);
    let attribution = flow.attribution();
    if was_connecting && connected {
        tables.accounting.count(attribution, |counters| counters.established += 1);
    }
    tables.set_state(at, t.old, t.ktime);
    if let Some(flow) = tables.flows.get_mut(at) {
        flow.state_since = None;
    }
}

/// A transition of a socket that has not been seen before.
fn unseen(tables: &mut Tables, t: &Transition, key: FlowKey) {
    if tables.flows.closed_at(t.id.cookie).is_some() {
        // Its flow is over; this is the repetition of its last transition.
        if t.rescued {
            tables.anomalies.duplicates += 1;
        }
        return;
    }
    let passive_open = t.old == TcpState::SynRecv && t.new == TcpState::Established;
    if t.old == TcpState::SynRecv && !passive_open {
        // A handshake that failed is no flow yet.
        return;
    }
    let listener = tables.ports.listener_of(&key);
    let known_netns = tables.ports.namespaces().get(key.netns).is_some_and(|namespace| namespace.baselined);
    let active = !passive_open && listener.is_none() && tables.ports.looks_ephemeral(&key);
    let caller = t.caller.map(|caller| tables.accounting.process(caller.pid));
    let of_listener = listener.and_then(|at| tables.ports.bound().get(at)?.owner);
    let process = if passive_open { of_listener } else { caller.or(of_listener) };
    let process = process.unwrap_or(tables.accounting.processes().unknown());
    let destination = if active { tables.destination(&key, process, t.ktime) } else { None };
    let attribution = tables.attribute(process, destination, key.netns, true, t.ktime);
    if passive_open {
        tables.accounting.count(attribution, |counters| counters.accepted += 1);
    }
    let mut flow = Flow::new(t.id, key, t.old, attribution, t.ktime);
    flow.opened = if passive_open || listener.is_some() { Opened::Passive } else { Opened::Unknown };
    flow.began = passive_open.then_some(t.ktime);
    flow.established = passive_open.then_some(t.ktime);
    flow.waits_at = listener.filter(|_| passive_open);
    // Before the first complete list of its namespace it simply is older than the trace.
    flow.repaired = !passive_open && known_netns;
    flow.pass = tables.pass;
    tables.anomalies.repaired += u64::from(flow.repaired);
    if let Some(at) = tables.insert_flow(flow) {
        tables.occupy(at);
        change(tables, at, t);
    }
}

/// Applies a transition whose `old` is the flow's state.
fn change(tables: &mut Tables, at: FlowId, t: &Transition) {
    let Some(flow) = tables.flows.get(at) else { return };
    let (attribution, opened, began) = (flow.attribution(), flow.opened, flow.began);
    let dwell = flow.state_since.map(|since| t.ktime.since(since));
    if flow.key().local.port == 0 {
        let chosen =
            if t.key.local.port == 0 && t.last_port != flow.port_before { t.last_port } else { t.key.local.port };
        if chosen != 0 {
            tables.name_port(at, chosen);
        }
    }
    report_change(tables, at, t.ktime, (t.old, t.new), dwell);
    match t.new {
        TcpState::Established if opened == Opened::Active => {
            if let Some(flow) = tables.flows.get_mut(at) {
                flow.established = Some(t.ktime);
            }
            tables.accounting.count(attribution, |counters| {
                counters.established += 1;
                if let Some(began) = began {
                    counters.connect.record(t.ktime.since(began));
                }
            });
        }
        TcpState::FinWait1 => tables.accounting.count(attribution, |counters| counters.active_closes += 1),
        TcpState::CloseWait => tables.accounting.count(attribution, |counters| counters.passive_closes += 1),
        TcpState::Close => return closes(tables, at, t),
        _ => {}
    }
    tables.set_state(at, t.new, t.ktime);
    if t.new == TcpState::Established {
        let Some(key) = tables.flows.get(at).map(|flow| *flow.key()) else { return };
        minisockets::end_displaced(tables, &key);
        tables.occupy(at);
        minisockets::count_reuse(tables, &key);
    }
}

fn closes(tables: &mut Tables, at: FlowId, t: &Transition) {
    let Some(flow) = tables.flows.get(at) else { return };
    if matches!(t.old, TcpState::SynSent | TcpState::SynRecv) && flow.opened == Opened::Active {
        let attribution = flow.attribution();
        tables.hold(attribution);
        if let Some(flow) = tables.close_flow(at, t.ktime) {
            failures::connect_failed(tables, &flow, t);
        }
        tables.let_go(attribution);
        return;
    }
    let ended = match (t.old, t.sk_err) {
        (_, ETIMEDOUT) => Ended::TimedOut,
        (_, ECONNABORTED) | (TcpState::Established | TcpState::CloseWait | TcpState::SynRecv, 0) => Ended::ResetByUs,
        (_, ECONNRESET) => Ended::ResetByPeer,
        (TcpState::LastAck, _) => Ended::PassiveClose,
        (TcpState::FinWait1 | TcpState::FinWait2, _) => Ended::ActiveClose,
        (TcpState::Closing, _) => Ended::SimultaneousClose,
        (_, 0) => Ended::Unknown,
        (_, _) => Ended::ResetByPeer,
    };
    // With the timers traced a minisocket has announced itself by now; without, these two transitions make one.
    let leaves_minisocket = matches!(t.old, TcpState::FinWait2 | TcpState::Closing) && t.sk_err == 0;
    if leaves_minisocket && !tables.time_wait.ends_observed() {
        let entry = inferred_minisocket_of(flow, t, tables.pass);
        tables.begin_minisocket(entry, Some(at), true);
    }
    ends(tables, at, t.ktime, ended, true);
}

/// The minisocket that a flow leaves which closes now.
fn inferred_minisocket_of(flow: &Flow, t: &Transition, pass: u32) -> TimeWaitEntry {
    TimeWaitEntry {
        key: *flow.key(),
        cookie: flow.id().cookie,
        began: t.ktime,
        timer_started: t.ktime,
        attribution: flow.attribution(),
        observed: false,
        fin_wait2: t.old == TcpState::FinWait2,
        orphan: false,
        without_timestamps: false,
        user: flow.minisocket_user(),
        class: PortClass::default(),
        pass,
    }
}

/// The flow is over, since just now if its end was `seen`.
fn ends(tables: &mut Tables, at: FlowId, now: Ktime, ended: Ended, seen: bool) {
    let Some(attribution) = tables.flows.get(at).map(Flow::attribution) else { return };
    tables.hold(attribution);
    if let Some(flow) = tables.close_flow(at, now) {
        report_end(tables, &flow, now, ended, seen);
    }
    tables.let_go(attribution);
}

fn report_end(tables: &mut Tables, flow: &Flow, now: Ktime, ended: Ended, seen: bool) {
    // When a flow whose end was lost really ended is not known, so neither is how long it lived.
    let lifetime = flow.began.filter(|_| seen && ended != Ended::Unknown).map(|began| now.since(began));
    tables.accounting.count(flow.attribution(), |counters| {
        counters.closed += 1;
        counters.resets += u64::from(matches!(ended, Ended::ResetByPeer | Ended::ResetByUs));
        if let Some(lifetime) = lifetime {
            counters.lifetime.record(lifetime);
        }
    });
    let Tables { outbox, accounting, time_wait, .. } = tables;
    outbox.flow_ended(|| {
        let connect = flow.began.zip(flow.established).filter(|_| flow.opened == Opened::Active);
        FlowEnd {
            ktime: now,
            cookie: flow.id().cookie,
            key: *flow.key(),
            owner: accounting.owner(flow.attribution(), flow.inferred_owner),
            opened: flow.opened,
            ended,
            lifetime_ms: lifetime.map(millis),
            connect_ms: connect.map(|(began, established)| millis(established.since(began))),
            repaired: flow.repaired,
            time_wait: time_wait.find(flow.key()).is_some(),
        }
    });
}

fn report_change(tables: &mut Tables, at: FlowId, now: Ktime, (old, new): (TcpState, TcpState), dwell: Option<u64>) {
    let Tables { flows, outbox, accounting, .. } = tables;
    let Some(flow) = flows.get(at) else { return };
    let step = || StateStep { at: now, cookie: flow.id().cookie, key: *flow.key(), old, new };
    outbox.state_changed(step, dwell, || accounting.owner(flow.attribution(), flow.inferred_owner));
}
