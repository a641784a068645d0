//! Merges a complete list of a namespace's sockets: what existed before us is entered, what a loss left wrong is set right.
//!
//! A row speaks of some moment between the begin and the end of its pass. An event of that time, of later or of shortly before is
//! believed over the row; a flow that has been silent for longer is what the row says it is, or gone if no row has it.

use rustc_hash::FxHashSet;

use super::bound::Bound;
use super::flow::Flow;
use super::slab::Ref;
use super::snapshot::Opened;
use super::time_wait::Entry;
use super::{TIME_WAIT, Tracker};
use crate::event::{Baseline, Endpoint, Ktime, SocketId, SocketRow, TcpState};

/// [`TIME_WAIT`] in nanoseconds.
const TIME_WAIT_NANOS: u64 = TIME_WAIT.as_secs() * 1_000_000_000;

/// A transition is told before it is made, and the socket of CLOSE->SYN_SENT is in no list until its port is found. A thread that
/// is preempted in between, or searches long, leaves lists that contradict an event which is true. The next pass tells.
const SETTLED_NANOS: u64 = 50_000_000;

/// The time of the latest events that a list of this pass may correct.
fn settled(baseline: &Baseline) -> Ktime {
    Ktime(baseline.began.0.saturating_sub(SETTLED_NANOS))
}

impl Tracker {
    pub(super) fn reconcile(&mut self, baseline: &Baseline) {
        self.pass = self.pass.wrapping_add(1);
        let first = match self.places.namespace(baseline.netns) {
            Some(namespace) => !std::mem::replace(&mut namespace.baselined, true),
            None => {
                self.evicted += 1;
                return;
            }
        };
        // Listeners first: they tell which side of a loopback connection is which.
        for row in baseline.rows.iter().filter(|row| row.state == TcpState::Listen) {
            self.list_listener(row, baseline.began);
        }
        self.bound.recount(baseline.netns);
        for row in baseline.rows.iter().filter(|row| row.state != TcpState::Listen) {
            if row.minisocket || row.state == TcpState::TimeWait {
                self.list_minisocket(row, baseline, first);
            } else {
                self.list_flow(row, baseline, first);
            }
        }
        self.remove_unlisted(baseline);
    }

    fn list_listener(&mut self, row: &SocketRow, began: Ktime) {
        let owner = row.owner.map(|pid| self.people.of_pid(pid));
        self.bind_entry(Bound {
            id: SocketId { cookie: row.cookie, sock: 0 },
            netns: row.key.netns,
            addr: row.key.local.addr,
            port: row.key.local.port,
            listening: true,
            owner,
            accepted: 0,
            syn_recv: None,
            last: began,
            pass: self.pass,
        });
    }

    fn list_minisocket(&mut self, row: &SocketRow, baseline: &Baseline, first: bool) {
        let pass = self.pass;
        let fin_wait2 = row.state == TcpState::FinWait2;
        if let Some(at) = self.ledger.find(&row.key) {
            self.ledger.list(at, pass, fin_wait2);
            return;
        }
        // It may have begun after the row was read and ended before we read it, or its flow is still to close: a minisocket whose
        // events we have seen does not come back.
        let known = self.flows.closed_at(row.cookie).is_some_and(|closed| closed >= settled(baseline));
        if known && self.config.time_wait_observed {
            return;
        }
        let heir_of = self.flows.find(SocketId { cookie: row.cookie, sock: 0 }, Some(&row.key));
        if heir_of.and_then(|at| self.flows.get(at)).is_some_and(|flow| flow.last >= settled(baseline)) {
            return;
        }
        self.repaired += u64::from(!first || heir_of.is_some());
        let (attr, dest, bound) = if let Some((attr, flow)) =
            heir_of.and_then(|at| self.flows.get(at)).and_then(|flow| Some((flow.attr?, flow)))
        {
            (attr, flow.dest, flow.bound)
        } else {
            let dest = if self.looks_ephemeral(&row.key) { self.dest(&row.key, baseline.ended) } else { None };
            let unknown = self.people.unknown();
            (self.people.attribute(unknown, dest, row.key.netns, true, baseline.ended), dest, false)
        };
        let lived = row.remaining.map_or(0, |remaining| TIME_WAIT_NANOS.saturating_sub(remaining));
        let entry = Entry {
            key: row.key,
            cookie: row.cookie,
            began: Ktime(baseline.ended.0.saturating_sub(lived)),
            armed: Ktime(baseline.ended.0.saturating_sub(lived)),
            attr: Some(attr),
            dest,
            observed: false,
            fin_wait2,
            bound,
            pass,
        };
        if let Some(at) = heir_of {
            // The port passes from the socket to the minisocket.
            self.vacate(at);
        }
        self.begin_time_wait(entry, heir_of.is_some());
        if let Some(at) = heir_of {
            self.became_minisocket(at, baseline.began);
        }
    }

    fn list_flow(&mut self, row: &SocketRow, baseline: &Baseline, first: bool) {
        let pass = self.pass;
        let id = SocketId { cookie: row.cookie, sock: 0 };
        if let Some(at) = self.flows.find(id, Some(&row.key)) {
            let Some(flow) = self.flows.get_mut(at) else { return };
            flow.pass = pass;
            let stale = flow.last < settled(baseline) && flow.state != row.state;
            if flow.key.local.port == 0 {
                self.flows.name_port(at, row.key.local.port);
            }
            if stale {
                self.repaired += 1;
                if let Some(flow) = self.flows.get_mut(at) {
                    flow.repaired = true;
                }
                self.set_state(at, row.state, baseline.began);
                if let Some(flow) = self.flows.get_mut(at) {
                    flow.state_since = None;
                }
                self.occupy(at);
            }
            return;
        }
        if self.flows.closed_at(row.cookie).is_some() || row.state == TcpState::Close {
            return;
        }
        let listener = self.bound.listener(row.key.netns, row.key.local.addr, row.key.local.port);
        let passive = listener.is_some();
        if let (TcpState::SynRecv, Some(at)) = (row.state, listener) {
            // A half-open request is no socket yet; the flow begins when it is established.
            self.bound.half_open(at);
            return;
        }
        let dest = if !passive && self.looks_ephemeral(&row.key) { self.dest(&row.key, baseline.ended) } else { None };
        let of_listener = listener.and_then(|at| self.bound.get(at)?.owner);
        let proc = row.owner.map(|pid| self.people.of_pid(pid)).or(of_listener).unwrap_or(self.people.unknown());
        let attr = self.people.attribute(proc, dest, row.key.netns, true, baseline.ended);
        if !first {
            self.repaired += 1;
        }
        let flow = Flow {
            key: row.key,
            id,
            state: row.state,
            previous: row.state,
            opened: if passive { Opened::Passive } else { Opened::Unknown },
            attr: Some(attr),
            dest,
            began: None,
            established: None,
            state_since: None,
            last: baseline.began,
            tid: 0,
            port_before: 0,
            bound: false,
            occupies: false,
            inferred_owner: true,
            repaired: !first,
            pass,
        };
        match self.flows.insert(flow) {
            Some(at) => {
                self.occupy(at);
                if row.state == TcpState::CloseWait {
                    self.count(Some(attr), dest, |cell| cell.close_wait.up());
                }
            }
            None => self.evicted += 1,
        }
    }

    /// What the list does not have and nothing has been heard of since before it was taken is gone.
    fn remove_unlisted(&mut self, baseline: &Baseline) {
        let pass = self.pass;
        let gone = |last: Ktime, seen: u32| seen != pass && last < settled(baseline);
        // A flow that has neither port nor cookie yet cannot be recognised in a list: one of those that the list brought towards the
        // same destination may be it, which its next transition tells (`Flows::twin`).
        let listed: FxHashSet<Endpoint> = self
            .flows
            .iter()
            .filter(|(_, flow)| flow.id.sock == 0 && flow.pass == pass && flow.key.netns == baseline.netns)
            .map(|(_, flow)| flow.key.remote)
            .collect();
        let nameless = |flow: &Flow| flow.id.cookie.is_none() && flow.key.local.port == 0;
        let flows: Vec<Ref> = self
            .flows
            .iter()
            .filter(|(_, flow)| flow.key.netns == baseline.netns && gone(flow.last, flow.pass))
            .filter(|(_, flow)| !(nameless(flow) && listed.contains(&flow.key.remote)))
            .map(|(at, _)| at)
            .collect();
        for at in flows {
            self.loses_end(at, baseline.began);
        }
        let minisockets = self.ledger.unlisted(baseline.netns, pass, settled(baseline));
        for at in minisockets {
            // Without its timer in sight an end found by looking is the rule, not a repair.
            self.repaired += u64::from(self.config.time_wait_observed);
            self.end_time_wait(at, baseline.began);
        }
        let listeners: Vec<Ref> = self
            .bound
            .iter()
            .filter(|(_, bound)| bound.netns == baseline.netns && bound.listening && gone(bound.last, bound.pass))
            .map(|(at, _)| at)
            .collect();
        for at in listeners {
            self.repaired += 1;
            self.unbind(at);
        }
    }
}
