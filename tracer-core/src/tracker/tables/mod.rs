//! What the tracker knows, table by table.
//!
//! Each table keeps its own invariants. What must change in several tables at once is a method of [`Tables`], and the methods of a
//! single table that would break it are visible only here. These are the invariants between tables:
//!
//! - A flow, a minisocket and a pending failure retain their attribution from begin to end: if it is folded, they are counted where it
//!   went. Everything that is counted is counted in one row of each table, so that the sums over the rows are the totals.
//! - A flow that occupies a port is counted in its destination under its present state, and in the `ports` gauges of its process; so is
//!   each minisocket that has a destination.
//! - Each bound socket, each flow with a port and each minisocket is a user of its port's bucket. A bound socket retains its owner.
//! - A port counts towards its destination under the class that it had when it was taken. Changes of the range, of reserved ports and of
//!   buckets make their namespace stale until [`Tables::walk`] has looked at all of its ports again.
//!
//! Not for: what an event means. That is for the rules (`lifecycle`, `minisockets`, `sockets`, `failures`, `reconcile`).

pub mod accounting;
pub mod address_pairs;
pub mod attributions;
pub mod bound_sockets;
pub mod cardinality;
pub mod counters;
pub mod demand;
pub mod destinations;
pub mod flows;
pub mod history;
pub mod holders;
pub mod local_ports;
pub mod namespaces;
pub mod outbox;
pub mod pending_failures;
pub mod port_search_times;
pub mod processes;
pub mod rest_ports;
pub mod slab;
pub mod taken_ports;
pub mod time_wait;
pub mod worth;

use std::collections::VecDeque;

use accounting::Accounting;
use attributions::AttributionId;
use bound_sockets::{BoundSocket, BoundSocketId};
use destinations::DestinationId;
use flows::{Flow, FlowId, Flows, PortHold};
use holders::Holders;
use local_ports::LocalPorts;
use namespaces::NamespaceEntry;
use outbox::Outbox;
use pending_failures::{FailedAttempt, PendingFailures};
use processes::ProcessId;
use taken_ports::TakenPorts;
use time_wait::{TimeWaitEntry, TimeWaitId, TimeWaitTable};

use super::config::Config;
use super::port_buckets::PortClass;
use super::snapshot::Failure;
use crate::event::{FlowKey, Ktime, Netns, TcpState};

/// A connect() that fails for lack of a port does so within the call; one that has not failed after this long has a port.
/// (A full scan of the default range takes 2 ms; this leaves room for a preempted thread.)
const PORT_FOUND_NANOS: u64 = 20_000_000;
/// The same where the end of the search is an event of its own: only a search whose end was not seen waits that long.
const PORT_FOUND_UNSEEN_NANOS: u64 = 1_000_000_000;
/// Flows that may be looking for a port, 16 bytes each: 4 MiB. With more the oldest is taken to have found one, which it has nearly always.
const MAX_SEARCHING: usize = 262_144;
/// Between two walks over all flows and minisockets: what makes a namespace stale needs no rights (bind() of a port that connect() uses),
/// nor does failing towards many destinations, so that neither must cost a walk each time.
const WALK_PAUSE_NANOS: u64 = 100_000_000;
/// A walk costs some nanoseconds an entry; two hundred times that lies between two walks.
const WALK_PAUSE_PER_ENTRY: u64 = 1_000;

/// All tables.
#[derive(Clone, Debug)]
pub struct Tables {
    /// Live sockets.
    pub flows: Flows,
    /// Who has the flows open that another process opened.
    pub holders: Holders,
    /// Minisockets.
    pub time_wait: TimeWaitTable,
    /// Processes, destinations, and what each process does towards each destination.
    pub accounting: Accounting,
    /// Namespaces, and sockets that block ports.
    pub ports: LocalPorts,
    /// Failures that wait for their system call.
    pub pending: PendingFailures,
    /// Ports that were asked for by number and not got.
    pub taken_ports: TakenPorts,
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
    next_walk: Ktime,
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
            holders: Holders::default(),
            time_wait: TimeWaitTable::new(config.time_wait_observed),
            accounting: Accounting::new(config.by),
            ports: LocalPorts::new(reopens_buckets(&config.knobs.kernel)),
            pending: PendingFailures::new(config.calls_observed),
            taken_ports: TakenPorts::default(),
            outbox: Outbox::new(config.notices),
            anomalies: Anomalies::default(),
            start: None,
            now: Ktime(0),
            pass: 0,
            searching: VecDeque::new(),
            next_walk: Ktime(0),
            search_nanos: if config.searches_observed { PORT_FOUND_UNSEEN_NANOS } else { PORT_FOUND_NANOS },
        }
    }

    /// Observation begins anew at `at`: everything is counted from zero, what is open stays.
    pub fn restart(&mut self, at: Ktime) {
        (self.start, self.now) = (Some(at), self.now.max(at));
        self.accounting.restart();
        self.ports.restart();
        self.anomalies = Anomalies::default();
        self.outbox.drain();
    }

    /// Entries that found no room in any table.
    pub fn evicted(&self) -> u64 {
        self.anomalies.evicted + self.ports.namespaces().evicted()
    }

    /// The destination of a flow of this process, created at need. The rest of its namespace if it finds no row of its own.
    pub fn destination(&mut self, key: &FlowKey, process: ProcessId, at: Ktime) -> Option<DestinationId> {
        self.accounting.destination(key, process, at, &self.ports)
    }

    /// The attribution of a process towards a destination, created at need. `inferred`: the process is a guess.
    pub fn attribute(
        &mut self,
        process: ProcessId,
        destination: Option<DestinationId>,
        netns: Netns,
        inferred: bool,
        at: Ktime,
    ) -> AttributionId {
        self.accounting.attribute(process, destination, netns, inferred, at, &self.ports)
    }

    /// Where a failure of this attribution is to be counted: see [`Accounting::place_failure`].
    pub fn place_failure(&mut self, id: AttributionId, key: &FlowKey, failure: Failure, at: Ktime) -> AttributionId {
        self.accounting.place_failure(id, key, failure, at, &self.ports)
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
        if let Some(class) = flow.hold().class {
            self.accounting.change_state(attribution, old, state, class, now);
        }
        match (old == TcpState::CloseWait, state == TcpState::CloseWait) {
            (false, true) => self.accounting.count(attribution, |counters| counters.close_wait.up()),
            (true, false) => self.accounting.count(attribution, |counters| counters.close_wait.down()),
            _ => {}
        }
    }

    /// The flow holds a local port: it is a user of the port's bucket, and counted towards its destination if it has one.
    pub fn occupy(&mut self, at: FlowId) {
        let Some(flow) = self.flows.get(at) else { return };
        let (mut hold, key, user) = (flow.hold(), *flow.key(), flow.bucket_user());
        if hold.bucket.is_none() && key.local.port != 0 {
            hold.bucket = Some(user);
            self.ports.acquire(&key, user);
        }
        if hold.class.is_none() {
            let class = self.ports.class_of(&key);
            let as_what = (flow.state(), class);
            let counted = self.accounting.occupy(flow.attribution(), &key, as_what, self.now, &self.ports);
            hold.class = counted.then_some(class);
            if let (true, Some(began)) = (counted && class != PortClass::Outside, flow.began) {
                self.accounting.note_open(flow.attribution(), began);
            }
        }
        self.flows.set_hold(at, hold);
    }

    /// The flow holds no local port any more.
    pub fn vacate(&mut self, at: FlowId) {
        let Some(hold) = self.flows.set_hold(at, PortHold::default()) else { return };
        let Some(flow) = self.flows.get(at) else { return };
        if let Some(class) = hold.class {
            self.accounting.vacate(flow.attribution(), flow.key(), flow.state(), class);
            if class != PortClass::Outside {
                self.accounting.note_close(flow.attribution(), flow.began, self.now);
            }
        }
        if let Some(user) = hold.bucket {
            self.ports.release(flow.key(), user);
        }
    }

    /// The port of a flow became known.
    pub fn name_port(&mut self, at: FlowId, port: u16) {
        self.flows.name_port(at, port);
        let Some(flow) = self.flows.get(at).filter(|flow| flow.occupies()) else { return };
        let key = *flow.key();
        let (mut hold, user) = (flow.hold(), flow.bucket_user());
        if hold.bucket.is_none() {
            hold.bucket = Some(user);
            self.flows.set_hold(at, hold);
            self.ports.acquire(&key, user);
        }
        self.reclassify_flow(at);
    }

    fn reclassify_flow(&mut self, at: FlowId) {
        let Some(flow) = self.flows.get(at) else { return };
        let Some(from) = flow.hold().class else { return };
        let to = self.ports.class_of(flow.key());
        if from != to {
            self.accounting.reclassify(flow.attribution(), flow.state(), from, to);
            self.flows.set_hold(at, PortHold { class: Some(to), ..flow.hold() });
        }
    }

    /// Walks over all flows and minisockets if there is a reason and the last walk is long enough ago: ports of stale namespaces are
    /// classified anew, and what a rest counts of a destination that has got a row of its own is counted there.
    pub fn walk(&mut self, now: Ktime) {
        let (stale, unsettled) = (self.ports.namespaces().any_stale(), self.accounting.is_unsettled());
        if !(stale || unsettled) || now < self.next_walk {
            return;
        }
        let entries = (self.flows.len() + self.time_wait.len()) as u64;
        self.next_walk = now.plus(WALK_PAUSE_NANOS.max(entries * WALK_PAUSE_PER_ENTRY));
        if unsettled {
            self.settle();
        }
        if stale {
            self.reclassify();
        }
    }

    /// Counts everything under the attribution under which it belongs now.
    fn settle(&mut self) {
        self.accounting.begin_settling();
        let attributions = self.accounting.attributions();
        self.time_wait.replace_remembered(|id| attributions.resolve(id));
        let flows: Vec<FlowId> = self.flows.iter().map(|(at, _)| at).collect();
        for at in flows {
            self.settle_flow(at);
        }
        let minisockets: Vec<(TimeWaitId, TimeWaitEntry)> = self.time_wait.iter().collect();
        for (at, entry) in minisockets {
            let due = self.accounting.settle(entry.attribution, &entry.key, &self.ports);
            if due != entry.attribution {
                self.accounting.move_minisocket(&entry, due, &self.ports);
                self.time_wait.set_attribution(at, due);
            }
        }
        for (former, present) in self.pending.replace_attributions(|id| self.accounting.attributions().resolve(id)) {
            self.accounting.retain(present);
            self.accounting.release(former);
        }
        self.accounting.end_settling();
    }

    fn settle_flow(&mut self, at: FlowId) {
        let Some(flow) = self.flows.get(at) else { return };
        let (key, former, state, hold) = (*flow.key(), flow.attribution(), flow.state(), flow.hold());
        let due = self.accounting.settle(former, &key, &self.ports);
        if due == former {
            return;
        }
        if let Some(class) = hold.class {
            self.accounting.vacate(former, &key, state, class);
        }
        let close_wait = u64::from(state == TcpState::CloseWait);
        self.accounting.count(former, |counters| counters.close_wait.lower(close_wait));
        self.reassign_flow(at, due);
        self.accounting.count(due, |counters| counters.close_wait.raise(close_wait));
        if let Some(class) = hold.class {
            self.accounting.occupy(due, &key, (state, class), self.now, &self.ports);
        }
    }

    /// Classifies the ports of stale namespaces anew.
    fn reclassify(&mut self) {
        let stale =
            |ports: &LocalPorts, netns: Netns| ports.namespaces().get(netns).is_some_and(NamespaceEntry::is_stale);
        let Self { flows, time_wait, ports, .. } = self;
        let flows: Vec<FlowId> = flows
            .iter()
            .filter(|(_, flow)| flow.occupies() && stale(ports, flow.key().netns))
            .map(|(at, _)| at)
            .collect();
        let minisockets: Vec<(TimeWaitId, TimeWaitEntry)> =
            time_wait.iter().filter(|(_, entry)| stale(ports, entry.key.netns)).collect();
        for at in flows {
            self.reclassify_flow(at);
        }
        for (at, entry) in minisockets {
            let to = self.ports.class_of(&entry.key);
            if entry.class != to {
                self.accounting.reclassify(entry.attribution, entry.state(), entry.class, to);
                self.time_wait.set_class(at, to);
            }
        }
        self.ports.set_fresh();
    }

    /// Flows that may have a port or not: connect() is looking for one.
    pub fn searching(&self) -> u32 {
        u32::try_from(self.searching.len()).unwrap_or(u32::MAX)
    }

    /// The flow is over: it gives up its port and leaves the tables.
    pub fn close_flow(&mut self, at: FlowId, now: Ktime) -> Option<Flow> {
        if let Some(flow) = self.flows.get(at).filter(|flow| flow.occupies()) {
            self.accounting.note_release(flow.attribution(), now);
        }
        self.vacate(at);
        self.set_state(at, TcpState::Close, now);
        let flow = self.flows.close(at, now)?;
        self.accounting.release(flow.attribution());
        Some(flow)
    }

    /// Something is still to be counted under the attribution of a flow that closes, or of a failure that waits no longer.
    pub fn hold(&mut self, attribution: AttributionId) {
        self.accounting.retain(attribution);
    }

    /// The counterpart of [`Self::hold`].
    pub fn let_go(&mut self, attribution: AttributionId) {
        self.accounting.release(attribution);
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
        if self.searching.len() >= MAX_SEARCHING
            && let Some((_, at)) = self.searching.pop_front()
        {
            self.occupy(at);
        }
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

    /// Enters a minisocket. The port passes to it from the flow that it was, if that is known: in between the port is neither free nor
    /// taken twice. `new`: it counts as a begin, not as the continuation of one that was there. `entry.class` is found here.
    pub fn begin_minisocket(&mut self, mut entry: TimeWaitEntry, former: Option<FlowId>, new: bool) {
        let TimeWaitEntry { key, user, .. } = entry;
        self.ports.acquire(&key, user);
        if let Some(at) = former {
            self.vacate(at);
        }
        entry.class = self.ports.class_of(&key);
        if self.time_wait.insert(entry).is_none() {
            self.ports.release(&key, user);
            self.anomalies.evicted += 1;
            return;
        }
        self.accounting.begin_minisocket(&entry, new, &self.ports);
    }

    /// The timer of a minisocket was started again.
    pub fn restart_minisocket(&mut self, at: TimeWaitId, now: Ktime, fin_wait2: bool) {
        if !fin_wait2 {
            self.set_orphan(at, false);
        }
        if let Some((before, attribution)) = self.time_wait.restart_timer(at, now, fin_wait2) {
            self.accounting.restart_minisocket(attribution, before, now);
        }
    }

    /// The minisocket is in sub-state `FIN_WAIT2`, or in `TIME_WAIT`.
    pub fn set_orphan(&mut self, at: TimeWaitId, orphan: bool) {
        let Some(entry) = self.time_wait.get(at) else { return };
        self.time_wait.set_orphan(at, orphan);
        if entry.orphan != orphan {
            self.accounting.change_minisocket_state(entry.attribution, orphan, entry.class);
        }
    }

    /// Takes out a minisocket.
    pub fn end_minisocket(&mut self, at: TimeWaitId, now: Ktime) -> Option<TimeWaitEntry> {
        let mut entry = self.time_wait.remove(at)?;
        let present = self.accounting.attributions().resolve(entry.attribution);
        self.accounting.end_minisocket(&entry, now);
        entry.attribution = present;
        self.ports.release(&entry.key, entry.user);
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
        let mut failed = self.pending.remove(tid)?;
        let former = failed.attribution;
        failed.attribution = self.accounting.attributions().resolve(former);
        self.accounting.release(former);
        Some(failed)
    }

    /// Takes out a failure whose call should have returned by now.
    pub fn take_overdue_failure(&mut self, now: Ktime) -> Option<FailedAttempt> {
        let tid = self.pending.next_due(now)?;
        self.take_pending(tid)
    }
}

/// Kernels from 6.18 on open a bucket again once its last bound socket is gone. An unknown release counts as older.
fn reopens_buckets(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 18)
}
