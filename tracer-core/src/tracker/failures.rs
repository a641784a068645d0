//! Failed connects: what transitions and the system call's return value say about one failure becomes one failure.
//!
//! connect() that finds no port leaves CLOSE->SYN_SENT, SYN_SENT->CLOSE in one call of one thread, without an error noted on
//! the socket and without a port ever chosen (net/ipv4/tcp_ipv4.c `tcp_v4_connect`). io_uring and `MSG_FASTOPEN` have no
//! connect() to return from, so the signature alone must do; where the return value follows, it confirms or corrects.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::Tracker;
use super::flow::Flow;
use super::lifecycle::millis;
use super::people::AttrId;
use super::ports::DestId;
use super::snapshot::{FailedConnect, Failure, Notice};
use crate::errno::{EADDRINUSE, EADDRNOTAVAIL, ECONNABORTED, ECONNREFUSED, ECONNRESET, ETIMEDOUT};
use crate::event::{Addr, Call, CallFailed, Endpoint, FlowKey, Ktime, PortSearch, SocketId, TcpState, Transition};

/// Threads with a failure that waits for its return value. Far more than can fail within the window.
const MAX_PENDING: usize = 16_384;
/// The return follows the last transition within microseconds, unless the thread is preempted or was asleep in a blocking connect.
const CONFIRM_NANOS: u64 = 500_000_000;

/// These reach a caller only through a transition, which has told already; a later connect() on the same socket merely collects the
/// error.
const TOLD_BY_TRANSITION: [u16; 4] = [ECONNABORTED, ECONNRESET, ETIMEDOUT, ECONNREFUSED];

#[derive(Clone, Debug)]
struct Failed {
    at: Ktime,
    id: SocketId,
    key: FlowKey,
    attr: Option<AttrId>,
    dest: Option<DestId>,
    tid: u32,
    failure: Failure,
    began: Option<Ktime>,
    inferred: bool,
}

/// Failures that wait for their system call to return, by thread.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    by_tid: FxHashMap<u32, Failed>,
    order: VecDeque<(Ktime, u32)>,
}

impl Tracker {
    /// A flow that was never established has closed.
    pub(super) fn connect_failed(&mut self, flow: &Flow, t: &Transition) {
        let in_call = flow.tid != 0 && t.current_tid == flow.tid;
        let port_chosen = t.last_port != flow.port_before;
        let failure = match t.sk_err {
            0 if t.classic && (!in_call || port_chosen) => Failure::Unknown,
            0 if t.shutdown => Failure::Aborted,
            0 if in_call && flow.bound => Failure::TupleTaken,
            0 if in_call && !port_chosen && t.key.local.port == 0 => Failure::PortsExhausted,
            0 => Failure::Aborted,
            errno => Failure::Errno(errno),
        };
        let failed = Failed {
            at: t.ktime,
            id: flow.id,
            key: flow.key,
            attr: flow.attr,
            dest: flow.dest,
            tid: flow.tid,
            failure,
            began: flow.began,
            inferred: flow.inferred_owner,
        };
        if !self.config.calls_observed || flow.tid == 0 || self.pending.by_tid.len() >= MAX_PENDING {
            self.commit(&failed, false);
            return;
        }
        self.settle_thread(flow.tid);
        self.pending.order.push_back((failed.at, failed.tid));
        self.pending.by_tid.insert(failed.tid, failed);
    }

    /// A connect() has its port.
    pub(super) fn port_found(&mut self, search: &PortSearch) {
        let Some(at) = self.flows.find(search.id, None) else { return };
        let Some((dest, state)) = self.flows.get(at).map(|flow| (flow.dest, flow.state)) else { return };
        if state == TcpState::SynSent {
            self.occupy(at);
        }
        if let Some(dest) = dest.and_then(|dest| self.places.get_mut(dest)) {
            dest.search.record(search.nanos);
        }
    }

    /// The thread goes on to something else: its failure stands as it is.
    pub(super) fn settle_thread(&mut self, tid: u32) {
        if let Some(failed) = self.pending.by_tid.remove(&tid) {
            self.commit(&failed, false);
        }
    }

    /// Failures whose call should have returned by now stand as they are.
    pub(super) fn settle_failures(&mut self, now: Ktime) {
        while let Some(&(at, tid)) = self.pending.order.front() {
            if now.since(at) <= CONFIRM_NANOS {
                break;
            }
            self.pending.order.pop_front();
            if self.pending.by_tid.get(&tid).is_some_and(|failed| failed.at == at) {
                self.settle_thread(tid);
            }
        }
    }

    /// Ends all waiting: nothing more will come.
    pub fn finish(&mut self) {
        self.settle_failures(Ktime(u64::MAX));
    }

    pub(super) fn call_failed(&mut self, call: &CallFailed) {
        match call.call {
            Call::Connect => self.connect_returned(call),
            Call::Bind => self.bind_returned(call),
        }
    }

    fn connect_returned(&mut self, call: &CallFailed) {
        let same = |failed: &Failed| {
            failed.id.sock == call.id.sock || (failed.id.cookie.is_some() && failed.id.cookie == call.id.cookie)
        };
        if self.pending.by_tid.get(&call.caller.tid).is_some_and(same)
            && let Some(mut failed) = self.pending.by_tid.remove(&call.caller.tid)
        {
            failed.failure = match (failed.failure, call.errno) {
                (known @ (Failure::PortsExhausted | Failure::TupleTaken), EADDRNOTAVAIL) => known,
                (_, errno) => Failure::Errno(errno),
            };
            self.commit(&failed, true);
            return;
        }
        let told = TOLD_BY_TRANSITION.contains(&call.errno) || self.flows.closed_at(call.id.cookie).is_some();
        let Some(target) = call.target.filter(|_| !told) else { return };
        let v4 = target.addr.ip().is_ipv4();
        let failure = match call.errno {
            // IPv4 always has a source address to offer, so this can only be exhaustion whose transitions were lost.
            EADDRNOTAVAIL if v4 => Failure::PortsExhausted,
            EADDRNOTAVAIL => Failure::NoLocalAddress,
            errno => Failure::Errno(errno),
        };
        let key = FlowKey { netns: call.netns, device: call.device, local: call.local, remote: target };
        let dest = self.dest(&key, call.ktime);
        self.fail_call(call, key, dest, failure);
    }

    fn bind_returned(&mut self, call: &CallFailed) {
        let asked_for_any = call.target.is_some_and(|target| target.port == 0);
        let failure = match call.errno {
            EADDRINUSE if asked_for_any => Failure::BindExhausted,
            EADDRNOTAVAIL => Failure::NoLocalAddress,
            // A named port that is taken, a privileged one: no matter of ephemeral ports.
            _ => return,
        };
        let local = call.target.unwrap_or(call.local);
        let key = FlowKey {
            netns: call.netns,
            device: call.device,
            local,
            remote: Endpoint { addr: Addr::UNSPECIFIED, port: 0 },
        };
        self.fail_call(call, key, None, failure);
    }

    fn fail_call(&mut self, call: &CallFailed, key: FlowKey, dest: Option<DestId>, failure: Failure) {
        let proc = self.people.of_pid(call.caller.pid);
        let attr = self.people.attribute(proc, dest, call.netns, false, call.ktime);
        self.commit(
            &Failed {
                at: call.ktime,
                id: call.id,
                key,
                attr: Some(attr),
                dest,
                tid: call.caller.tid,
                failure,
                began: Some(call.entered),
                inferred: false,
            },
            true,
        );
    }

    fn commit(&mut self, failed: &Failed, confirmed: bool) {
        self.count(failed.attr, failed.dest, |cell| cell.fail(failed.failure));
        if failed.failure == Failure::PortsExhausted
            && let Some(dest) = failed.dest.and_then(|dest| self.places.get_mut(dest))
        {
            dest.fail(failed.at);
            // In vain, but searched it has.
            if let Some(began) = failed.began {
                dest.search.record(failed.at.since(began));
            }
        }
        let lack = failed.failure.is_without_port();
        if let Some(history) = &mut self.history {
            history.count(failed.at, |second| {
                let count = if lack { &mut second.exhausted } else { &mut second.failed };
                *count += 1;
            });
        }
        let logged = lack && self.history.is_some();
        if !logged && !self.config.notices.failures {
            return;
        }
        let told = FailedConnect {
            ktime: failed.at,
            failure: failed.failure,
            key: failed.key,
            owner: self.owner(failed.attr, failed.inferred),
            tid: failed.tid,
            confirmed,
            after_ms: failed.began.map(|began| millis(failed.at.since(began))),
        };
        if logged {
            self.log_failure(told.clone(), failed.dest);
        }
        if self.config.notices.failures {
            self.notices.push(Notice::FailedConnect(told));
        }
    }
}
