//! The heart: events in, conclusions out.
//!
//! A plain type with one owner. It reads no clock ([`Tracker::advance`] tells it the time), does no I/O, holds no lock, and is
//! bounded everywhere, so that live and replayed events mean the same and a flood makes the answer less complete instead
//! of the host worse. What it concluded is read as an immutable [`Snapshot`]; what happens just now as [`Notice`]s.
//!
//! `flow` holds the lives of sockets, `time_wait` the minisockets, `bound` the sockets that block ports, `ports` the
//! destinations and namespaces, `people` the processes and workloads; `lifecycle`, `minisockets`, `sockets`, `failures` and
//! `reconcile` are the rules by which events change them, `assemble` builds the snapshot, `findings` judges it; `history` and
//! `details` serve whoever watches.

mod assemble;
mod bound;
mod cell;
mod details;
mod failures;
pub mod findings;
mod flow;
mod history;
mod lifecycle;
mod minisockets;
mod pairs;
mod people;
pub mod port_buckets;
mod ports;
mod reconcile;
mod search;
mod slab;
pub mod snapshot;
mod sockets;
mod time_wait;
pub mod workload;

use std::collections::VecDeque;
use std::time::Duration;

use bound::BoundSockets;
use failures::Pending;
use findings::Thresholds;

use crate::host::Knobs;
use flow::Flows;
use history::History;
use people::{AttrId, People};
use ports::{DestId, Places};
use slab::Ref;
use snapshot::{EventCounts, Notice, NoticeKinds, Owner, Snapshot};
use time_wait::Ledger;
use workload::By;

use crate::event::{DestinationKey, Event, FlowKey, Ktime, LossCounts};

/// A connect() that fails for lack of a port does so within the call; one that has not failed after this long has a port.
/// (A full scan of the default range takes 2 ms; this leaves room for a preempted thread.)
const SETTLE_NANOS: u64 = 20_000_000;
/// The same where the end of the search is an event of its own: only a search whose end was not seen waits that long.
const SETTLE_UNSEEN_NANOS: u64 = 1_000_000_000;

/// How long a minisocket stays in `TIME_WAIT` (`TCP_TIMEWAIT_LEN`, include/net/tcp.h). No setting changes it.
pub const TIME_WAIT: Duration = Duration::from_secs(60);
/// What the kernel's timer wheel adds to a timer of that length on average, at 250 Hz (kernel/time/timer.c).
const WHEEL_DELAY: Duration = Duration::from_secs(1);

/// What the tracker needs to know beside events.
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub by: By,
    pub thresholds: Thresholds,
    pub knobs: Knobs,
    /// `TIME_WAIT` begins and ends come as events; otherwise they are inferred.
    pub time_wait_observed: bool,
    /// Failed system calls come as events and confirm or correct what transitions say.
    pub calls_observed: bool,
    /// The end of each port search comes as an event.
    pub searches_observed: bool,
    /// Which notices to produce, and whether to remember what [`Tracker::details`] tells of the past.
    pub notices: NoticeKinds,
}

/// The tracker.
#[derive(Clone, Debug)]
pub struct Tracker {
    config: Config,
    start: Option<Ktime>,
    now: Ktime,
    generation: u64,
    flows: Flows,
    ledger: Ledger,
    bound: BoundSockets,
    places: Places,
    people: People,
    pending: Pending,
    /// Flows in `SYN_SENT` that may still fail for lack of a port.
    unsettled: VecDeque<(Ktime, Ref)>,
    /// Minisockets whose timer was cancelled, and when.
    cancelled: VecDeque<(Ktime, Ref)>,
    notices: Vec<Notice>,
    history: Option<Box<History>>,
    read: u64,
    skipped: u64,
    evicted: u64,
    repaired: u64,
    duplicates: u64,
    loss: LossCounts,
    /// Number of the latest pass of `sock_diag`.
    pass: u32,
}

impl Tracker {
    pub fn new(config: Config) -> Self {
        Self {
            start: None,
            now: Ktime(0),
            generation: 0,
            flows: Flows::default(),
            ledger: Ledger::new(config.time_wait_observed),
            bound: BoundSockets::default(),
            places: Places::default(),
            people: People::new(config.by),
            pending: Pending::default(),
            unsettled: VecDeque::new(),
            cancelled: VecDeque::new(),
            notices: Vec::new(),
            history: config.notices.history.then(Box::default),
            read: 0,
            skipped: 0,
            evicted: 0,
            repaired: 0,
            duplicates: 0,
            loss: LossCounts::default(),
            pass: 0,
            config,
        }
    }

    /// Observation begins: rates and the window count from here.
    pub fn begin(&mut self, at: Ktime) {
        self.start = Some(at);
        self.now = self.now.max(at);
    }

    /// Takes one event.
    pub fn ingest(&mut self, event: &Event) {
        self.read += 1;
        match event {
            Event::Transition(transition) => {
                self.observe(transition.ktime);
                self.transition(transition);
            }
            Event::TimeWaitStart(begin) => {
                self.observe(begin.ktime);
                self.time_wait_begins(begin);
            }
            Event::TimeWaitEnd(end) => {
                self.observe(end.ktime);
                self.time_wait_ends(end);
            }
            Event::CallFailed(call) => {
                self.observe(call.ktime);
                self.call_failed(call);
            }
            Event::Accepted(accepted) => {
                self.observe(accepted.ktime);
                self.accepted(accepted);
            }
            Event::Bound(bound) => {
                self.observe(bound.ktime);
                self.port_bound(bound);
            }
            Event::Released(released) => {
                self.observe(released.ktime);
                self.port_released(released.id);
            }
            Event::PortSearch(search) => {
                self.observe(search.ktime);
                self.port_found(search);
            }
            Event::Process(facts) => {
                self.people.introduce(facts);
            }
            Event::Netns(facts) => match self.places.namespace(facts.netns) {
                Some(namespace) => namespace.learn(facts),
                None => self.evicted += 1,
            },
            Event::ReservedPorts(_, netns, ports) => {
                if let Some(namespace) = self.places.namespace(*netns) {
                    namespace.reserve(ports);
                }
            }
            Event::Baseline(baseline) => self.reconcile(baseline),
            Event::Loss(loss) => self.loss = *loss,
        }
        if let Some(history) = &mut self.history {
            history.count(self.now, |second| second.events += 1);
        }
        self.generation += 1;
    }

    /// Counts records that could not be decoded.
    pub fn skipped(&mut self, records: u64) {
        self.skipped += records;
    }

    /// Moves the clock to `now`: what is due by the rules happens, what was pending is settled.
    pub fn advance(&mut self, now: Ktime) {
        if now <= self.now && self.start.is_some() {
            return;
        }
        self.observe(now);
        self.settle(now);
        self.settle_failures(now);
        for at in self.ledger.overdue(now) {
            if self.config.time_wait_observed {
                self.repaired += 1;
            }
            self.end_time_wait(at, now);
        }
        self.generation += 1;
    }

    /// Everything concluded so far.
    pub fn snapshot(&self) -> Snapshot {
        self.assemble()
    }

    /// What happened since the last call, in order.
    pub fn drain_notices(&mut self) -> std::vec::Drain<'_, Notice> {
        self.notices.drain(..)
    }

    /// The latest instant seen.
    pub fn now(&self) -> Ktime {
        self.now
    }

    /// What was lost so far.
    pub fn lost(&self) -> snapshot::Lost {
        self.event_counts().lost
    }

    /// Flows and minisockets held in memory: what the size of this and the time to copy it go by.
    pub fn entries(&self) -> u64 {
        self.flows.len() as u64 + self.ledger.len() as u64
    }

    /// Events ingested so far.
    pub fn read(&self) -> u64 {
        self.read
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    fn observe(&mut self, at: Ktime) {
        if self.start.is_none() {
            self.start = Some(at);
        }
        self.now = self.now.max(at);
        if self.unsettled.front().is_some_and(|&(began, _)| self.now.since(began) > self.settle_nanos()) {
            self.settle(self.now);
        }
        if !self.cancelled.is_empty() {
            self.settle_cancelled(self.now);
        }
    }

    fn settle_nanos(&self) -> u64 {
        if self.config.searches_observed { SETTLE_UNSEEN_NANOS } else { SETTLE_NANOS }
    }

    /// Flows that have been in `SYN_SENT` long enough hold a port.
    fn settle(&mut self, now: Ktime) {
        let nanos = self.settle_nanos();
        while let Some(&(began, at)) = self.unsettled.front() {
            if now.since(began) <= nanos {
                break;
            }
            self.unsettled.pop_front();
            self.occupy(at);
        }
    }

    /// How complete the picture is.
    fn event_counts(&self) -> EventCounts {
        let loss = &self.loss;
        EventCounts {
            read: self.read,
            lost: snapshot::Lost {
                ring_full: loss.ring_transitions + loss.ring_time_wait + loss.ring_calls + loss.ring_facts,
                missed_runs: loss.chain_missed.saturating_sub(loss.chain_rescued.saturating_sub(self.duplicates)),
                other_runs: loss.other_missed,
                recorder: loss.recorder,
            },
            skipped: self.skipped,
            evicted: self.evicted + loss.call_map_full,
            repaired: self.repaired,
            duplicates: self.duplicates,
        }
    }

    fn dest(&mut self, key: &FlowKey, at: Ktime) -> Option<DestId> {
        let (id, forgotten) = self.places.dest(&DestinationKey::from(key), at);
        if let Some(forgotten) = forgotten {
            self.people.forget_destination(forgotten);
            self.evicted += 1;
        }
        if id.is_none() {
            self.evicted += 1;
        }
        id
    }

    /// Applies `change` to the counters of who does it (process and workload) and of where it goes.
    fn count(&mut self, attr: Option<AttrId>, dest: Option<DestId>, change: impl Fn(&mut cell::Cell)) {
        if let Some(attr) = attr {
            self.people.count(attr, &change);
        }
        if let Some(dest) = dest.and_then(|dest| self.places.get_mut(dest)) {
            change(&mut dest.cell);
        }
    }

    fn owner(&self, attr: Option<AttrId>, inferred: bool) -> Option<Owner> {
        let attr = self.people.attr(attr?)?;
        if attr.proc == self.people.unknown() {
            return None;
        }
        let proc = self.people.proc(attr.proc)?;
        Some(Owner {
            pid: proc.facts.pid,
            comm: std::sync::Arc::clone(&proc.facts.comm),
            workload: std::sync::Arc::clone(&self.people.workload_entry(proc.workload)?.name),
            inferred,
        })
    }

    /// Is this local port one that connect() could have chosen and that nobody listens on?
    fn looks_ephemeral(&self, key: &FlowKey) -> bool {
        let listening = self.bound.listener(key.netns, key.local.addr, key.local.port).is_some();
        let in_range = self
            .places
            .known_namespace(key.netns)
            .is_none_or(|namespace| namespace.facts.port_range.is_none() || namespace.in_range(key.local.port));
        !listening && in_range
    }
}

#[cfg(test)]
mod tests;
