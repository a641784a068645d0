//! The rules for minisockets: `TIME_WAIT` begins, its timer starts again, it ends.

use super::port_buckets::PortClass;
use super::tables::Tables;
use super::tables::history::StateStep;
use super::tables::time_wait::{TimeWaitEntry, TimeWaitId};
use crate::event::{FlowKey, Ktime, SocketCookie, SocketId, TcpState, TimeWaitEvent};

/// The timer of a minisocket has started.
pub fn begins(tables: &mut Tables, e: &TimeWaitEvent) {
    if let Some(at) = tables.time_wait.find(&e.key) {
        let Some(entry) = tables.time_wait.get(at) else { return };
        match tables.time_wait.cancelled(at) {
            // A new connection has got the 4-tuple meanwhile, and has closed too.
            Some(cancelled) if entry.cookie != e.cookie => end_cancelled(tables, at, cancelled),
            _ => {
                // The peer's FIN (or a stray segment) started the timer again: the same minisocket for another 60 s.
                tables.restart_minisocket(at, e.ktime, e.fin_wait2);
                return;
            }
        }
    }
    let flow = tables.flows.find(SocketId { cookie: e.cookie, sock: 0 }, Some(&e.key));
    let (attribution, user, inferred, old) = match flow.and_then(|at| tables.flows.get(at)) {
        Some(flow) => (flow.attribution(), flow.minisocket_user(), flow.inferred_owner, flow.state()),
        None => {
            let ephemeral = tables.ports.looks_ephemeral(&e.key);
            let unknown = tables.accounting.processes().unknown();
            let destination = if ephemeral { tables.destination(&e.key, unknown, e.ktime) } else { None };
            let attribution = tables.attribute(unknown, destination, e.key.netns, true, e.ktime);
            (attribution, tables.ports.unseen_user(&e.key), true, TcpState::FinWait2)
        }
    };
    let entry = TimeWaitEntry {
        key: e.key,
        cookie: e.cookie,
        began: e.ktime,
        timer_started: e.ktime,
        attribution,
        observed: true,
        fin_wait2: e.fin_wait2,
        orphan: false,
        without_timestamps: e.timestamps == Some(false),
        user,
        class: PortClass::default(),
        pass: tables.pass,
    };
    tables.begin_minisocket(entry, flow, true);
    let Tables { outbox, accounting, .. } = tables;
    let step = || StateStep { at: e.ktime, cookie: e.cookie, key: e.key, old, new: TcpState::TimeWait };
    outbox.state_changed(step, None, || accounting.owner(attribution, inferred));
}

/// The timer of a minisocket has fired or was cancelled.
pub fn ends(tables: &mut Tables, e: &TimeWaitEvent) {
    let Some(at) = tables.time_wait.find(&e.key) else { return };
    if e.expired {
        end(tables, at, e.ktime);
    } else {
        // mod_timer() cancels too: only what is not started again at once has ended.
        tables.time_wait.cancel(at, e.ktime);
    }
}

/// A list of sockets has shown the minisocket in `FIN_WAIT2`, or the first one after that has not.
pub fn listed(tables: &mut Tables, e: &TimeWaitEvent) {
    if let Some(at) = tables.time_wait.find(&e.key) {
        list(tables, at, e.cookie, e.fin_wait2);
    }
}

/// A list of sockets has a minisocket that is known.
pub fn list(tables: &mut Tables, at: TimeWaitId, cookie: Option<SocketCookie>, fin_wait2: bool) {
    let Some(entry) = tables.time_wait.get(at) else { return };
    let same = cookie.is_none() || entry.cookie.is_none() || cookie == entry.cookie;
    // FIN_WAIT2 leads to TIME_WAIT and never back: what is known to have left it has done so since the list was read.
    if same && (entry.fin_wait2 || !fin_wait2) {
        tables.set_orphan(at, fin_wait2);
    }
}

/// Cancelled timers that were not started again are ends.
pub fn end_all_cancelled(tables: &mut Tables, now: Ktime) {
    while let Some((at, cancelled)) = tables.time_wait.next_cancelled(now) {
        end_cancelled(tables, at, cancelled);
    }
}

/// Minisockets that have outlived their rules are over.
pub fn end_overdue(tables: &mut Tables, now: Ktime) {
    let observed = tables.time_wait.ends_observed();
    for at in tables.time_wait.overdue(now) {
        tables.anomalies.repaired += u64::from(observed);
        end(tables, at, now);
    }
}

/// A new connection is about to use this 4-tuple: a minisocket on it whose timer was cancelled has ended for its sake.
pub fn end_displaced(tables: &mut Tables, key: &FlowKey) {
    if let Some((at, cancelled)) = tables.time_wait.cancelled_on(key) {
        end_cancelled(tables, at, cancelled);
    }
}

/// A connection came to life on the 4-tuple of a minisocket that was just killed: that was the reason.
pub fn count_reuse(tables: &mut Tables, key: &FlowKey) {
    if let Some(attribution) = tables.time_wait.take_reused(key) {
        tables.accounting.count(attribution, |counters| counters.tw_reused += 1);
    }
}

fn end_cancelled(tables: &mut Tables, at: TimeWaitId, cancelled: Ktime) {
    if let Some(entry) = end(tables, at, cancelled) {
        tables.time_wait.remember_early_end(&entry, cancelled);
    }
}

/// The minisocket is over.
pub fn end(tables: &mut Tables, at: TimeWaitId, now: Ktime) -> Option<TimeWaitEntry> {
    let entry = tables.end_minisocket(at, now)?;
    let Tables { outbox, accounting, .. } = tables;
    let (old, new) = (TcpState::TimeWait, TcpState::Close);
    let step = || StateStep { at: now, cookie: entry.cookie, key: entry.key, old, new };
    let dwell = entry.observed.then(|| now.since(entry.began));
    outbox.state_changed(step, dwell, || accounting.owner(entry.attribution, !entry.observed));
    Some(entry)
}
