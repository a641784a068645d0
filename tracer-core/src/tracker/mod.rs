//! Events in, conclusions out.
//!
//! [`Tracker`] is a plain value with one owner. It reads no clock ([`Tracker::advance`] gives it the time), does no I/O and holds no
//! lock, so that live and replayed events mean the same. All its tables are bounded: a flood makes the answer less complete, not the
//! host slower. Readers get what was concluded so far as an immutable [`Snapshot`], and what happens just now as [`Notice`]s.
//!
//! From the ground up:
//!
//! - `tables`: what is known, each table with its invariants.
//! - The rules by which events change the tables: `lifecycle` (transitions), `minisockets`, `sockets` (accept, listen, bind),
//!   `failures` (failed calls), `reconcile` (lists of sockets). Each is a set of functions over the tables.
//! - [`Tracker`]: hands each event to its rule, and time to all of them.
//! - `assemble` and `details` read the tables for a [`Snapshot`] and for a view; `forecast` looks ahead; [`findings`] judge a snapshot.

mod assemble;
mod config;
mod details;
mod failures;
pub mod findings;
mod forecast;
mod lifecycle;
mod losses;
mod minisockets;
mod open_sockets;
pub mod port_buckets;
mod reconcile;
pub mod snapshot;
mod sockets;
mod tables;
mod taken_ports;
pub mod workload;

pub use crate::model::timing::TIME_WAIT;
pub use config::Config;

use std::sync::Arc;

use findings::{FindingLog, RecentCounts};
use losses::SettledLoss;
use snapshot::detail::{DetailRequest, Details};
use snapshot::{EventCounts, Notice, Snapshot, WindowCoverage};
use tables::Tables;

use crate::damage::Damage;
use crate::event::{Event, Ktime, LossCounts, Netns};

/// The findings are judged once a second of the events' clock.
const JUDGE_NANOS: u64 = 1_000_000_000;
/// A judgement reads all flows and minisockets, some tens of nanoseconds each: with millions of them it is made less often.
const JUDGE_NANOS_PER_ENTRY: u64 = 5_000;

/// A tracker that is further behind than this leaves details out. A busy host's tracker is some milliseconds behind; seconds later the ring
/// is full.
const LAG_NANOS: u64 = 1_000_000_000;
/// The findings are judged at once where an incident begins, but with many of them not more often than this.
const INCIDENT_PAUSE_NANOS: u64 = 100_000_000;

/// The tracker.
#[derive(Clone, Debug)]
pub struct Tracker {
    config: Config,
    tables: Tables,
    recent: RecentCounts,
    log: FindingLog,
    /// The findings are judged next at this instant.
    next_judgement: Ktime,
    /// They were judged last at this one.
    judged: Ktime,
    generation: u64,
    read: u64,
    skipped: u64,
    loss: LossCounts,
    /// Lost before the window began.
    loss_before: LossCounts,
    losses: SettledLoss,
    damage: Option<Damage>,
    coverage: Option<WindowCoverage>,
    /// How far the tracker is behind the events, and was at most, nanoseconds.
    lag: Option<(u64, u64)>,
}

impl Tracker {
    /// A tracker that has seen nothing yet.
    pub fn new(config: Config) -> Self {
        let tables = Tables::new(&config);
        Self {
            config,
            tables,
            recent: RecentCounts::default(),
            log: FindingLog::default(),
            next_judgement: Ktime(0),
            judged: Ktime(0),
            generation: 0,
            read: 0,
            skipped: 0,
            loss: LossCounts::default(),
            loss_before: LossCounts::default(),
            losses: SettledLoss::default(),
            damage: None,
            coverage: None,
            lag: None,
        }
    }

    /// Observation begins: rates and the window count from here.
    pub fn begin(&mut self, at: Ktime) {
        self.tables.start = Some(at);
        self.tables.now = self.tables.now.max(at);
    }

    /// The window begins at `at`: everything is counted from zero again. What is open, who has it, and what the limits are stays known.
    pub fn begin_window(&mut self, at: Ktime) {
        self.advance(at);
        // What was pending before belongs to the time before.
        failures::settle_overdue(&mut self.tables, Ktime(u64::MAX));
        self.tables.restart(at);
        (self.recent, self.log) = (RecentCounts::default(), FindingLog::default());
        self.next_judgement = Ktime(at.0 / JUDGE_NANOS * JUDGE_NANOS).plus(JUDGE_NANOS);
        (self.read, self.skipped, self.loss_before) = (0, 0, self.loss);
        self.losses = SettledLoss::default();
        self.generation += 1;
    }

    /// What of its recording the window covers, so that every view can say it.
    pub fn covers(&mut self, coverage: WindowCoverage) {
        self.coverage = Some(coverage);
        self.generation += 1;
    }

    /// Takes one event.
    pub fn ingest(&mut self, event: &Event) {
        self.read += 1;
        if let Some(at) = happened_at(event) {
            self.observe(at);
        }
        let tables = &mut self.tables;
        match event {
            Event::Transition(transition) => lifecycle::transition(tables, transition),
            Event::TimeWaitStart(begin) => minisockets::begins(tables, begin),
            Event::TimeWaitEnd(end) => minisockets::ends(tables, end),
            Event::TimeWaitListed(listed) => minisockets::listed(tables, listed),
            Event::CallFailed(call) => failures::call_failed(tables, call),
            Event::Accepted(accepted) => sockets::accepted(tables, accepted),
            Event::Bound(bound) => sockets::port_bound(tables, bound),
            Event::Released(released) => sockets::port_released(tables, released.id),
            Event::PortSearch(search) => failures::port_found(tables, search),
            Event::Process(facts) => tables.accounting.learn(facts),
            Event::Netns(facts) => tables.ports.learn(facts),
            Event::ReservedPorts(_, netns, ports) => tables.ports.reserve(*netns, ports),
            Event::Baseline(baseline) => reconcile::reconcile(tables, baseline),
            Event::Loss(loss) => {
                self.loss = *loss;
                let missed = self.missed_runs();
                self.losses.take(loss.ktime.max(self.tables.now), missed);
            }
        }
        let now = self.tables.now;
        self.tables.walk(now);
        self.tables.outbox.count(now, |second| second.events += 1);
        self.generation += 1;
        // An incident may be over within the second: whoever holds the ports has to be seen while it begins.
        if self.tables.accounting.take_incident() && now.since(self.judged) >= INCIDENT_PAUSE_NANOS {
            self.judge();
        }
    }

    /// Counts records that could not be decoded.
    pub fn skipped(&mut self, records: u64) {
        self.skipped += records;
    }

    /// What of the recording could not be read, so that every view can say it.
    pub fn damaged(&mut self, damage: Damage) {
        self.damage = Some(damage);
        self.generation += 1;
    }

    /// How far the tracker is behind the events, nanoseconds, as its feeder knows. Beyond a second it leaves out steps of flows and notices
    /// of their ends until it has caught up: what it counts, and failures for lack of a port, are worth more.
    pub fn lags(&mut self, nanos: u64) {
        let peak = self.lag.map_or(0, |(_, peak)| peak).max(nanos);
        self.lag = Some((nanos, peak));
        if nanos > LAG_NANOS {
            self.tables.outbox.be_brief(true);
        } else if nanos < LAG_NANOS / 4 {
            self.tables.outbox.be_brief(false);
        }
    }

    /// Moves the clock to `now`: what is due by the rules happens, what was pending is settled.
    pub fn advance(&mut self, now: Ktime) {
        if now <= self.tables.now && self.tables.start.is_some() {
            return;
        }
        self.observe(now);
        self.settle(now);
        self.generation += 1;
    }

    /// Settles what is pending: nothing more will come.
    pub fn finish(&mut self) {
        failures::settle_overdue(&mut self.tables, Ktime(u64::MAX));
        self.tables.walk(Ktime(u64::MAX));
        let missed = self.missed_runs();
        self.losses.finish(missed);
        self.judge();
    }

    /// What is due by the rules at `now` happens.
    fn settle(&mut self, now: Ktime) {
        failures::settle_overdue(&mut self.tables, now);
        minisockets::end_overdue(&mut self.tables, now);
        self.tables.walk(now);
    }

    /// Judges the findings as of now.
    fn judge(&mut self) {
        let snapshot = assemble::snapshot(&self.tables);
        let recent = self.recent.take(&snapshot);
        let found = findings::judge(&snapshot, &recent, &self.config.knobs, &self.config.thresholds);
        let changed = self.log.judge(snapshot.start, snapshot.now, found);
        self.tables.outbox.findings_changed(changed);
        self.judged = snapshot.now;
        let pause = JUDGE_NANOS.max(self.entries().saturating_mul(JUDGE_NANOS_PER_ENTRY));
        self.next_judgement = Ktime((snapshot.now.0 / JUDGE_NANOS).saturating_mul(JUDGE_NANOS)).plus(pause);
    }

    /// Everything concluded so far.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = assemble::snapshot(&self.tables);
        snapshot.generation = self.generation;
        snapshot.events = self.event_counts();
        snapshot.damage.clone_from(&self.damage);
        snapshot.coverage.clone_from(&self.coverage);
        snapshot.findings = self.log.findings();
        snapshot.findings_forgotten = self.log.forgotten();
        snapshot
    }

    /// What a view asks for beyond the snapshot. Without [`snapshot::NoticeKinds::history`] there is no past in it.
    pub fn details(&self, request: &DetailRequest) -> Details {
        details::details(&self.tables, request)
    }

    /// Who the processes are, how the namespaces are limited and what was lost so far: what a reader needs to know who sees the
    /// events from here on only.
    pub fn facts(&self) -> Vec<Event> {
        let processes = self.tables.accounting.processes().facts().map(|facts| Event::Process(Box::new(facts.clone())));
        let namespaces = self.tables.ports.namespaces().iter().flat_map(|namespace| {
            let facts = Event::Netns(Box::new(namespace.facts.clone()));
            [facts, Event::ReservedPorts(self.tables.now, namespace.facts.netns, namespace.all_reserved().into())]
        });
        processes.chain(namespaces).chain([Event::Loss(self.loss)]).collect()
    }

    /// The name of a network namespace, if it has one.
    pub fn namespace_name(&self, netns: Netns) -> Option<Arc<str>> {
        self.tables.ports.namespaces().name(netns)
    }

    /// Complete lists of what is open now, with who opened it, for a reader who sees the events from here on only. Empty if there is
    /// too much of it.
    pub fn open_sockets(&self) -> Vec<Event> {
        open_sockets::lists(&self.tables)
    }

    /// The flows that have not ended, in no order.
    pub fn open_flows(&self) -> impl Iterator<Item = snapshot::OpenFlow> + '_ {
        open_sockets::flows(&self.tables)
    }

    /// What happened since the last call, in order.
    pub fn drain_notices(&mut self) -> std::vec::Drain<'_, Notice> {
        self.tables.outbox.drain()
    }

    /// The latest instant seen.
    pub fn now(&self) -> Ktime {
        self.tables.now
    }

    /// What was lost so far.
    pub fn lost(&self) -> snapshot::Lost {
        self.event_counts().lost
    }

    /// Flows and minisockets held in memory, to which the memory of the tracker and the time to copy it are proportional.
    pub fn entries(&self) -> u64 {
        self.tables.flows.len() as u64 + self.tables.time_wait.len() as u64
    }

    /// Events ingested so far.
    pub fn read(&self) -> u64 {
        self.read
    }

    /// Rises whenever anything may have changed.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Time has come to `at`. On the way the findings are judged, at whole seconds of the events' clock: what is read later from a
    /// recording of these events, in which an idle clock moves in larger steps, is judged at the same instants.
    fn observe(&mut self, at: Ktime) {
        if at >= self.next_judgement && self.tables.start.is_some() {
            let second = Ktime(at.0 / JUDGE_NANOS * JUDGE_NANOS);
            if second > self.tables.now {
                self.move_to(second);
                self.settle(second);
            }
            self.judge();
        }
        self.move_to(at);
    }

    fn move_to(&mut self, at: Ktime) {
        let tables = &mut self.tables;
        tables.start.get_or_insert(at);
        tables.now = tables.now.max(at);
        let now = tables.now;
        tables.end_overdue_searches(now);
        minisockets::end_all_cancelled(tables, now);
    }

    /// Transitions that every link of the chain missed, as far as the counts at hand tell. They are read one after the other while records
    /// are still on their way, so that a missed run is counted before the record that makes up for it.
    fn missed_runs(&self) -> u64 {
        let loss = self.loss.since(&self.loss_before);
        loss.chain_missed.saturating_sub(loss.chain_rescued.saturating_sub(self.tables.anomalies.duplicates))
    }

    /// How complete the picture is.
    fn event_counts(&self) -> EventCounts {
        let (loss, anomalies) = (self.loss.since(&self.loss_before), &self.tables.anomalies);
        EventCounts {
            read: self.read,
            lost: snapshot::Lost {
                ring_full: loss.ring_transitions + loss.ring_time_wait + loss.ring_calls + loss.ring_facts,
                missed_runs: self.losses.settled(),
                other_runs: loss.other_missed,
                recorder: loss.recorder,
            },
            skipped: self.skipped,
            evicted: self.tables.evicted() + loss.call_map_full,
            repaired: anomalies.repaired,
            duplicates: anomalies.duplicates,
            lag_ms: self.lag.map(|(now, _)| now / 1_000_000),
            lag_peak_ms: self.lag.map(|(_, peak)| peak / 1_000_000),
            details_skipped: self.tables.outbox.skipped(),
        }
    }
}

/// When it happened, for events that move the clock. Facts and lists are gathered beside the stream of events.
fn happened_at(event: &Event) -> Option<Ktime> {
    match event {
        Event::Transition(transition) => Some(transition.ktime),
        Event::TimeWaitStart(event) | Event::TimeWaitEnd(event) => Some(event.ktime),
        Event::CallFailed(call) => Some(call.ktime),
        Event::Accepted(event) | Event::Bound(event) | Event::Released(event) => Some(event.ktime),
        Event::PortSearch(search) => Some(search.ktime),
        Event::TimeWaitListed(_)
        | Event::Process(_)
        | Event::Netns(_)
        | Event::ReservedPorts(..)
        | Event::Baseline(_)
        | Event::Loss(_) => None,
    }
}

#[cfg(test)]
mod tests;
