//! What the tracker knows, table by table.
//!
//! Each table keeps its own invariants. What must change in several tables at once is a method of [`Tables`], and the methods of a
//! single table that would break it are visible only here. These are the invariants between tables:
//!
//! - A flow, a minisocket and a pending failure retain their attribution from begin to end, so that it is not folded away.
//! - A flow that occupies a port is counted in its destination under its present state, and in the `ports` gauges of its process; so is
//!   each minisocket that has a destination.
//! - Each bound socket is a user of its port's bucket and retains its owner; so is each minisocket of a bound socket.
//!
//! Not for: what an event means. That is for the rules (`lifecycle`, `minisockets`, `sockets`, `failures`, `reconcile`).

pub mod accounting;
pub mod address_pairs;
pub mod attributions;
pub mod bound_sockets;
pub mod counters;
pub mod destinations;
pub mod flows;
pub mod history;
pub mod local_ports;
pub mod namespaces;
pub mod outbox;
pub mod pending_failures;
pub mod port_search_times;
pub mod processes;
pub mod slab;
pub mod time_wait;

use std::collections::VecDeque;

use accounting::Accounting;
use attributions::AttributionId;
use bound_sockets::{BoundSocket, BoundSocketId};
use flows::{Flow, FlowId, Flows};
use local_ports::LocalPorts;
use outbox::Outbox;
use pending_failures::{FailedAttempt, PendingFailures};
use time_wait::{TimeWaitEntry, TimeWaitId, TimeWaitTable};

use super::config::Config;
use crate::event::{Ktime, TcpState};

/// A connect() that fails for lack of a port does so within the call; one that has not failed after this long has a port.
/// (A full scan of the default range takes 2 ms; this leaves room for a preempted thread.)
const PORT_FOUND_NANOS: u64 = 20_000_000;
/// The same where the end of the search is an event of its own: only a search whose end was not seen waits that long.
const PORT_FOUND_UNSEEN_NANOS: u64 = 1_000_000_000;

/// All tables.
#[derive(Clone, Debug)]
pub struct Tables {
    /// Live sockets.
    pub flows: Flows,
    /// Minisockets.
    pub time_wait: TimeWaitTable,
    /// Processes, destinations, and what each process does towards each destination.
    pub accounting: Accounting,
    /// Namespaces, and sockets that block ports.
    pub ports: LocalPorts,
    /// Failures that wait for their system call.
    pub pending: PendingFailures,
    /// Notices and history.
    pub outbox: Outbox,
    /// What went wrong on the way.
    pub anomalies: Anomalies,
    /// Observation began here; `None` before the first event.
    pub start: Option<Ktime>,
    /// The latest instant seen.
    pub now: Ktime,
    /// Number of the latest pass of `sock_diag`.
    pub pass: u32,
    /// Flows in `SYN_SENT` that may still fail for lack of a port, and when they began.
    searching: VecDeque<(Ktime, FlowId)>,
    search_nanos: u64,
}

/// How far the tables can be relied on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anomalies {
    /// Entries that found no room.
    pub evicted: u64,
    /// Entries set right after a loss.
    pub repaired: u64,
    /// Repeated transitions that were recognised.
    pub duplicates: u64,
}

impl Tables {
    /// Empty tables.
    pub fn new(config: &Config) -> Self {
        Self {
            flows: Flows::default(),
            time_wait: TimeWaitTable::new(config.time_wait_observed),
            accounting: Accounting::new(config.by),
            ports: LocalPorts::default(),
            pending: PendingFailures::new(config.calls_observed),
            outbox: Outbox::new(config.notices),
            anomalies: Anomalies::default(),
            start: None,
            now: Ktime(0),
            pass: 0,
            searching: VecDeque::new(),
            search_nanos: if config.searches_observed { PORT_FOUND_UNSEEN_NANOS } else { PORT_FOUND_NANOS },
        }
    }

    /// Entries that found no room in any table.
    pub fn evicted(&self) -> u64 {
        self.anomalies.evicted + self.accounting.evicted()
    }

    /// Adds a flow. `None` at the bound, which is counted.
    pub fn insert_flow(&mut self, flow: Flow) -> Option<FlowId> {
        let (attribution, state) = (flow.attribution(), flow.state());
        let Some(at) = self.flows.insert(flow) else {
            self.anomalies.evicted += 1;
            return None;
        };
        self.accounting.retain(attribution);
        if state == TcpState::CloseWait {
            self.accounting.count(attribution, |counters| counters.close_wait.up());
        }
        Some(at)
    }

    /// Moves a flow to `state`, with what depends on states: occupancy and the `CLOSE_WAIT` gauge.
    pub fn set_state(&mut self, at: FlowId, state: TcpState, now: Ktime) {
        let Some((old, flow)) = self.flows.set_state(at, state, now) else { return };
        let attribution = flow.attribution();
        if flow.occupies() {
            self.accounting.change_state(attribution, old, state, now);
        }
        match (old == TcpState::CloseWait, state == TcpState::CloseWait) {
            (false, true) => self.accounting.count(attribution, |counters| counters.close_wait.up()),
            (true, false) => self.accounting.count(attribution, |counters| counters.close_wait.down()),
            _ => {}
        }
    }

    /// The flow holds a local port towards its destination, if it has one.
    pub fn occupy(&mut self, at: FlowId) {
        let Some(flow) = self.flows.get(at).filter(|flow| !flow.occupies()) else { return };
        if self.accounting.occupy(flow.attribution(), flow.state(), flow.bound) {
            self.flows.set_occupies(at, true);
        }
    }

    /// The flow holds no local port any more.
    pub fn vacate(&mut self, at: FlowId) {
        if let Some(flow) = self.flows.set_occupies(at, false) {
            self.accounting.vacate(flow.attribution(), flow.state(), flow.bound);
        }
    }

    /// The flow is over: it gives up its port and leaves the tables.
    pub fn close_flow(&mut self, at: FlowId, now: Ktime) -> Option<Flow> {
        self.vacate(at);
        self.set_state(at, TcpState::Close, now);
        let flow = self.flows.close(at, now)?;
        self.accounting.release(flow.attribution());
        Some(flow)
    }

    /// Takes out a flow that should not have been entered, as if it never had been.
    pub fn discard_flow(&mut self, at: FlowId) -> Option<Flow> {
        self.vacate(at);
        let flow = self.flows.remove(at)?;
        if flow.state() == TcpState::CloseWait {
            self.accounting.count(flow.attribution(), |counters| counters.close_wait.down());
        }
        self.accounting.release(flow.attribution());
        Some(flow)
    }

    /// The flow is counted elsewhere from now on. What was counted so far stays. The flow must occupy no port.
    pub fn reassign_flow(&mut self, at: FlowId, attribution: AttributionId) {
        if let Some(former) = self.flows.set_attribution(at, attribution) {
            self.accounting.retain(attribution);
            self.accounting.release(former);
        }
    }

    /// A flow in `SYN_SENT` looks for a port.
    pub fn search_begins(&mut self, at: FlowId, began: Ktime) {
        self.searching.push_back((began, at));
    }

    /// Flows that have been in `SYN_SENT` long enough hold a port.
    pub fn end_overdue_searches(&mut self, now: Ktime) {
        while let Some(&(began, at)) = self.searching.front() {
            if now.since(began) <= self.search_nanos {
                break;
            }
            self.searching.pop_front();
            self.occupy(at);
        }
    }

    /// Enters a minisocket. `new`: it counts as a begin, not as the continuation of one that was there.
    pub fn begin_minisocket(&mut self, entry: TimeWaitEntry, new: bool) {
        let TimeWaitEntry { key, attribution, timer_started, bound, .. } = entry;
        if self.time_wait.insert(entry).is_none() {
            self.anomalies.evicted += 1;
            return;
        }
        self.accounting.begin_minisocket(attribution, timer_started, bound, new);
        if bound {
            self.ports.minisocket_begins(&key);
        }
    }

    /// The timer of a minisocket was started again.
    pub fn restart_minisocket(&mut self, at: TimeWaitId, now: Ktime, fin_wait2: bool) {
        if let Some((before, attribution)) = self.time_wait.restart_timer(at, now, fin_wait2) {
            self.accounting.restart_minisocket(attribution, before, now);
        }
    }

    /// Takes out a minisocket.
    pub fn end_minisocket(&mut self, at: TimeWaitId, now: Ktime) -> Option<TimeWaitEntry> {
        let entry = self.time_wait.remove(at)?;
        self.accounting.end_minisocket(entry.attribution, entry.timer_started, entry.bound, now);
        if entry.bound {
            self.ports.minisocket_ends(&entry.key);
        }
        Some(entry)
    }

    /// Adds a bound socket or brings it up to date. What finds no room is counted.
    pub fn bind(&mut self, socket: BoundSocket) {
        let owner = socket.owner;
        let Some(upserted) = self.ports.bind(socket) else {
            self.anomalies.evicted += 1;
            return;
        };
        if let Some(owner) = owner {
            self.accounting.retain_process(owner);
        }
        if let Some(former) = upserted.former_owner {
            self.accounting.release_process(former);
        }
    }

    /// The bound socket is gone.
    pub fn unbind(&mut self, at: BoundSocketId) {
        if let Some(owner) = self.ports.unbind(at).and_then(|socket| socket.owner) {
            self.accounting.release_process(owner);
        }
    }

    /// Lets a failure wait for the return of its call. Its thread must have no other.
    pub fn await_return(&mut self, failed: FailedAttempt) {
        self.accounting.retain(failed.attribution);
        self.pending.insert(failed);
    }

    /// Takes out the failure of this thread that waits.
    pub fn take_pending(&mut self, tid: u32) -> Option<FailedAttempt> {
        let failed = self.pending.remove(tid)?;
        self.accounting.release(failed.attribution);
        Some(failed)
    }

    /// Takes out a failure whose call should have returned by now.
    pub fn take_overdue_failure(&mut self, now: Ktime) -> Option<FailedAttempt> {
        let tid = self.pending.next_due(now)?;
        self.take_pending(tid)
    }
}
