//! The rules for failed connects: transitions and the return value of the system call become one failure.
//!
//! connect() that finds no port leaves CLOSE->SYN_SENT, SYN_SENT->CLOSE in one call of one thread, without an error noted on
//! the socket and without a port ever chosen (net/ipv4/tcp_ipv4.c `tcp_v4_connect`). io_uring and `MSG_FASTOPEN` have no
//! connect() to return from, so the transitions alone must do; where the return value follows, it confirms or corrects.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::snapshot::detail::{FailureRecord, PastHolder};
use super::snapshot::{FailedConnect, Failure};
use super::tables::Tables;
use super::tables::accounting::Accounting;
use super::tables::destinations::{DestinationEntry, DestinationId};
use super::tables::flows::Flow;
use super::tables::outbox::millis;
use super::tables::pending_failures::FailedAttempt;
use super::tables::processes::WorkloadId;
use super::taken_ports;
use crate::errno::{EADDRINUSE, EADDRNOTAVAIL, ECONNABORTED, ECONNREFUSED, ECONNRESET, ETIMEDOUT};
use crate::event::{Addr, Call, CallFailed, Endpoint, FlowKey, Ktime, Netns, PortSearch, TcpState, Transition};

/// Holders listed per failure.
const MAX_HOLDERS: usize = 16;

/// These reach a caller only through a transition, which has been counted; a later connect() on the same socket merely collects the
/// error.
const SEEN_AS_TRANSITION: [u16; 4] = [ECONNABORTED, ECONNRESET, ETIMEDOUT, ECONNREFUSED];

/// A flow that was never established has closed.
pub fn connect_failed(tables: &mut Tables, flow: &Flow, t: &Transition) {
    let in_call = flow.tid != 0 && t.current_tid == flow.tid;
    let port_chosen = t.last_port != flow.port_before;
    let failure = match t.sk_err {
        0 if t.classic && (!in_call || port_chosen) => Failure::Unknown,
        0 if t.shutdown => Failure::Aborted,
        0 if in_call && flow.bound => Failure::TupleTaken,
        0 if in_call && !port_chosen && t.key.local.port == 0 => without_port(tables, t.key.netns, t.own_range),
        0 => Failure::Aborted,
        errno => Failure::Errno(errno),
    };
    let failed = FailedAttempt {
        at: t.ktime,
        id: flow.id(),
        key: *flow.key(),
        attribution: flow.attribution(),
        tid: flow.tid,
        failure,
        own_range: t.own_range,
        began: flow.began,
        inferred: flow.inferred_owner,
    };
    if tables.pending.can_wait(flow.tid) {
        settle_thread(tables, flow.tid);
        tables.await_return(failed);
    } else {
        commit(tables, &failed, false);
    }
}

/// Why connect() has found no port: the range of its socket may be smaller than that of the namespace.
fn without_port(tables: &Tables, netns: Netns, own_range: Option<(u16, u16)>) -> Failure {
    let range = tables.ports.namespaces().get(netns).and_then(|namespace| namespace.facts.port_range);
    if own_range.is_some() && own_range != range { Failure::OwnRangeExhausted } else { Failure::PortsExhausted }
}

/// A connect() has its port.
pub fn port_found(tables: &mut Tables, search: &PortSearch) {
    let Some(at) = tables.flows.find(search.id, None) else { return };
    let Some((attribution, state)) = tables.flows.get(at).map(|flow| (flow.attribution(), flow.state())) else {
        return;
    };
    if state == TcpState::SynSent {
        tables.occupy(at);
    }
    tables.accounting.record_search(attribution, search.nanos);
}

/// The thread goes on to something else: no return value will correct its failure.
pub fn settle_thread(tables: &mut Tables, tid: u32) {
    if let Some(failed) = tables.take_pending(tid) {
        commit(tables, &failed, false);
    }
}

/// Failures whose call should have returned by now stand as they are.
pub fn settle_overdue(tables: &mut Tables, now: Ktime) {
    while let Some(failed) = tables.take_overdue_failure(now) {
        commit(tables, &failed, false);
    }
}

/// A system call has returned an error.
pub fn call_failed(tables: &mut Tables, call: &CallFailed) {
    match call.call {
        Call::Connect => connect_returned(tables, call),
        Call::Bind | Call::Listen => bind_returned(tables, call),
    }
}

fn connect_returned(tables: &mut Tables, call: &CallFailed) {
    let same = |failed: &FailedAttempt| {
        failed.id.sock == call.id.sock || (failed.id.cookie.is_some() && failed.id.cookie == call.id.cookie)
    };
    if tables.pending.get(call.caller.tid).is_some_and(same)
        && let Some(mut failed) = tables.take_pending(call.caller.tid)
    {
        failed.failure = match (failed.failure, call.errno) {
            (known @ (Failure::PortsExhausted | Failure::OwnRangeExhausted | Failure::TupleTaken), EADDRNOTAVAIL) => {
                known
            }
            (_, errno) => Failure::Errno(errno),
        };
        commit(tables, &failed, true);
        return;
    }
    let counted = SEEN_AS_TRANSITION.contains(&call.errno) || tables.flows.closed_at(call.id.cookie).is_some();
    let Some(target) = call.target.filter(|_| !counted) else { return };
    let v4 = target.addr.ip().is_ipv4();
    let failure = match call.errno {
        // IPv4 always has a source address to offer, so this can only be exhaustion whose transitions were lost.
        EADDRNOTAVAIL if v4 => without_port(tables, call.netns, call.own_range),
        EADDRNOTAVAIL => Failure::NoLocalAddress,
        errno => Failure::Errno(errno),
    };
    let key = FlowKey { netns: call.netns, device: call.device, local: call.local, remote: target };
    let process = tables.accounting.process(call.caller.pid);
    // Of a connect() that began before the trace only the return is seen, and by then it has no source address any more.
    let known = tables.accounting.destination_without_source(&key);
    let destination = known.or_else(|| tables.destination(&key, process, call.ktime));
    count_call(tables, call, key, destination, failure);
}

fn bind_returned(tables: &mut Tables, call: &CallFailed) {
    // listen() binds a socket without a port to any.
    let asked_for_any = match call.call {
        Call::Listen => call.local.port == 0,
        Call::Bind | Call::Connect => call.target.is_some_and(|target| target.port == 0),
    };
    let failure = match call.errno {
        EADDRINUSE if asked_for_any => Failure::BindExhausted,
        EADDRINUSE => Failure::Errno(EADDRINUSE),
        EADDRNOTAVAIL => Failure::NoLocalAddress,
        // A privileged port, a socket that is bound already: nothing to do with who has which port.
        _ => return,
    };
    let local = call.target.filter(|_| call.call == Call::Bind).unwrap_or(call.local);
    if failure == Failure::Errno(EADDRINUSE) && local.port == 0 {
        return;
    }
    let remote = Endpoint { addr: Addr::UNSPECIFIED, port: 0 };
    let key = FlowKey { netns: call.netns, device: call.device, local, remote };
    count_call(tables, call, key, None, failure);
}

/// Counts a failure of which only the system call is known.
fn count_call(
    tables: &mut Tables,
    call: &CallFailed,
    key: FlowKey,
    destination: Option<DestinationId>,
    failure: Failure,
) {
    let process = tables.accounting.process(call.caller.pid);
    let attribution = tables.attribute(process, destination, call.netns, false, call.ktime);
    let failed = FailedAttempt {
        at: call.ktime,
        id: call.id,
        key,
        attribution,
        tid: call.caller.tid,
        failure,
        own_range: call.own_range,
        began: Some(call.entered),
        inferred: false,
    };
    commit(tables, &failed, true);
}

/// Counts and reports a failure. `confirmed`: by the return value of the system call.
fn commit(tables: &mut Tables, failed: &FailedAttempt, confirmed: bool) {
    tables.hold(failed.attribution);
    count_and_report(tables, failed, confirmed);
    tables.let_go(failed.attribution);
}

fn count_and_report(tables: &mut Tables, failed: &FailedAttempt, confirmed: bool) {
    let attribution = tables.place_failure(failed.attribution, &failed.key, failed.failure, failed.at);
    let failed = &FailedAttempt { attribution, ..failed.clone() };
    tables.accounting.count_failure(attribution, failed.failure, failed.at);
    match failed.failure {
        Failure::PortsExhausted => {
            // A search in vain is a search too.
            let searched = failed.began.map(|began| failed.at.since(began));
            let searching = tables.searching();
            let destination = tables.accounting.destination_of(failed.attribution);
            let free = destination.and_then(|it| tables.ports.contradiction(it, failed.at, searching));
            tables.accounting.count_exhaustion(failed.attribution, failed.at, searched, free.is_some());
        }
        Failure::OwnRangeExhausted => {
            if let Some(range) = failed.own_range {
                tables.accounting.count_own_range(failed.attribution, range);
            }
        }
        Failure::TupleTaken => taken_ports::is_taken(tables, failed),
        Failure::Errno(EADDRINUSE) if failed.key.remote.port == 0 => taken_ports::is_taken(tables, failed),
        _ => {}
    }
    let lack_of_port = failed.failure.is_without_port();
    tables.outbox.count(failed.at, |second| {
        let count = if lack_of_port { &mut second.exhausted } else { &mut second.failed };
        *count += 1;
    });
    if !tables.outbox.wants_failure(lack_of_port) {
        return;
    }
    let notice = FailedConnect {
        ktime: failed.at,
        cookie: failed.id.cookie,
        failure: failed.failure,
        key: failed.key,
        owner: tables.accounting.owner(failed.attribution, failed.inferred),
        tid: failed.tid,
        confirmed,
        after_ms: failed.began.map(|began| millis(failed.at.since(began))),
    };
    let record = if lack_of_port { record(tables, failed, &notice) } else { None };
    tables.outbox.connect_failed(notice, record);
}

/// A failure for lack of a port with its circumstances, if a history is kept.
fn record(tables: &mut Tables, failed: &FailedAttempt, notice: &FailedConnect) -> Option<FailureRecord> {
    let now = tables.now;
    let Tables { outbox, accounting, ports, .. } = tables;
    let history = outbox.history_mut()?;
    let holders = match accounting.attributions().destination(failed.attribution) {
        Some(id) => history.holders(id, now).unwrap_or_else(|| {
            let holders = holders_of(accounting, id);
            history.remember_holders(id, now, &holders);
            holders
        }),
        None => Arc::from([]),
    };
    let destination = accounting.destination_of(failed.attribution);
    Some(FailureRecord {
        failed: notice.clone(),
        holders,
        in_use: destination.map_or(0, DestinationEntry::in_use),
        capacity: destination.and_then(|destination| ports.capacity(destination)),
    })
}

/// The workloads that hold the ports of a destination now, most ports first.
fn holders_of(accounting: &Accounting, destination: DestinationId) -> Arc<[PastHolder]> {
    let mut sums: BTreeMap<WorkloadId, (u64, u64)> = BTreeMap::new();
    for &id in accounting.attributions().towards(Some(destination)) {
        let Some(attribution) = accounting.attributions().get(id) else { continue };
        let counters = &attribution.counters;
        if counters.ports.now > 0
            && let Some(process) = accounting.processes().get(attribution.process)
        {
            let sum = sums.entry(process.workload).or_default();
            sum.0 += counters.ports.now;
            sum.1 += counters.time_wait.now;
        }
    }
    let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    let mut holders: Vec<PastHolder> = sums
        .into_iter()
        .filter_map(|(id, (ports, time_wait))| {
            let workload = Arc::clone(&accounting.processes().workload_entry(id)?.name);
            Some(PastHolder { workload, ports: small(ports), time_wait: small(time_wait) })
        })
        .collect();
    holders.sort_by(|a, b| (b.ports, &a.workload).cmp(&(a.ports, &b.workload)));
    holders.truncate(MAX_HOLDERS);
    holders.into()
}
