//! Answers to what a view wishes to see beyond the snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::Tracker;
use super::flow::Flow;
use super::history::{History, Trace};
use super::people::{AttrId, WorkloadId};
use super::ports::DestId;
use super::snapshot::detail::{
    DestinationDetail, DetailRequest, Details, FailureRecord, FlowDetail, FlowStep, PastHolder, PortUse, WorkloadDetail,
};
use super::snapshot::{FailedConnect, Opened, Owner};
use super::time_wait::Entry;
use crate::event::{DestinationKey, Event, FlowKey, Ktime, TcpState};

/// Holders told per failure.
const MAX_HOLDERS: usize = 16;

/// Owners by attribution, numbered as they appear.
#[derive(Default)]
struct Owners {
    numbers: FxHashMap<(Option<AttrId>, bool), u16>,
    list: Vec<Owner>,
}

impl Owners {
    fn number(&mut self, tracker: &Tracker, attr: Option<AttrId>, inferred: bool) -> u16 {
        let Self { numbers, list } = self;
        *numbers.entry((attr, inferred)).or_insert_with(|| {
            list.push(tracker.owner(attr, inferred).unwrap_or_else(|| Owner {
                comm: super::people::UNKNOWN.into(),
                workload: super::people::UNKNOWN.into(),
                ..Owner::default()
            }));
            // Attributions are bounded far below this.
            u16::try_from(list.len() - 1).unwrap_or(u16::MAX)
        })
    }
}

impl Tracker {
    /// What `wish` asks for. Without [`super::snapshot::NoticeKinds::history`] there is no past in it.
    pub fn details(&self, wish: &DetailRequest) -> Details {
        let start = self.start.unwrap_or(self.now);
        let history = self.history.as_deref();
        Details {
            seconds: history.map(|history| history.seconds(self.now, start)).unwrap_or_default(),
            failures: history.map(History::failures).unwrap_or_default(),
            destination: wish.destination.as_ref().and_then(|place| self.destination_detail(place)),
            workload: wish.workload.as_ref().and_then(|name| self.workload_detail(name)),
            flow: wish.flow.as_ref().and_then(|key| self.flow_detail(key)),
        }
    }

    /// Who the processes are, how the namespaces are limited and what was lost so far: what somebody has to know who hears of
    /// events from here on only.
    pub fn facts(&self) -> Vec<Event> {
        let processes = self.people.processes().map(|facts| Event::Process(Box::new(facts.clone())));
        let namespaces = self.places.namespaces().flat_map(|namespace| {
            let facts = Event::Netns(Box::new(namespace.facts.clone()));
            [facts, Event::ReservedPorts(self.now, namespace.facts.netns, namespace.all_reserved().into())]
        });
        processes.chain(namespaces).chain([Event::Loss(self.loss)]).collect()
    }

    fn destination_detail(&self, place: &DestinationKey) -> Option<DestinationDetail> {
        let id = self.places.find(place)?;
        let dest = self.places.get(id)?;
        let mut owners = Owners::default();
        let mut used: Vec<PortUse> = Vec::with_capacity(usize::try_from(dest.in_use()).unwrap_or(0));
        for (_, flow) in self.flows.iter().filter(|(_, flow)| flow.occupies && flow.dest == Some(id)) {
            used.push(PortUse {
                port: flow.key.local.port,
                state: flow.state,
                owner: owners.number(self, flow.attr, flow.inferred_owner),
                since: flow.state_since,
            });
        }
        for (_, entry) in self.ledger.iter().filter(|(_, entry)| entry.dest == Some(id)) {
            used.push(PortUse {
                port: entry.key.local.port,
                state: TcpState::TimeWait,
                owner: owners.number(self, entry.attr, false),
                since: Some(entry.armed),
            });
        }
        used.sort_unstable_by_key(|port| port.port);
        let namespace = self.places.known_namespace(place.netns);
        Some(DestinationDetail {
            key: *place,
            range: namespace.and_then(|namespace| namespace.facts.port_range),
            used,
            owners: owners.list,
            blocked: namespace.map(super::ports::Namespace::blocked_ports).unwrap_or_default(),
            reserved: namespace.map(super::ports::Namespace::reserved_ports).unwrap_or_default(),
            lifetime: dest.cell.lifetime.shape(),
            connect: dest.cell.connect.shape(),
            port_search: dest.search.all.shape(),
        })
    }

    fn workload_detail(&self, name: &Arc<str>) -> Option<WorkloadDetail> {
        let (_, entry) = self.people.workloads().find(|(_, entry)| entry.name == *name)?;
        Some(WorkloadDetail {
            name: Arc::clone(name),
            lifetime: entry.cell.lifetime.shape(),
            connect: entry.cell.connect.shape(),
        })
    }

    fn flow_detail(&self, key: &FlowKey) -> Option<FlowDetail> {
        let entry = self.ledger.find(key).and_then(|at| self.ledger.get(at));
        let flow = self.flows.iter().map(|(_, flow)| flow).find(|flow| flow.key == *key);
        let cookie = flow.and_then(|flow| flow.id.cookie).or_else(|| entry.and_then(|entry| entry.cookie));
        let traces = self.history.as_deref().map(|history| history.steps(cookie, key)).unwrap_or_default();
        if flow.is_none() && entry.is_none() && traces.is_empty() {
            return None;
        }
        let mut steps: Vec<FlowStep> = Vec::with_capacity(traces.len() + 2);
        match traces.first() {
            Some(first) if first.old != TcpState::Close => steps.extend(told_by_flow(flow, first.old)),
            Some(_) => {}
            None => steps.extend(present(flow, entry.as_ref())),
        }
        let begun_before = traces.first().is_none_or(|first| first.old != TcpState::Close);
        let begin_unknown = begun_before && flow.is_none_or(|flow| flow.began.is_none());
        for trace in &traces {
            walk(&mut steps, trace);
        }
        if let (Some(_), Some(last)) = (entry, steps.last_mut().filter(|step| step.state == TcpState::Close)) {
            // The full socket is gone, its minisocket is not.
            last.state = TcpState::TimeWait;
        }
        let next: Vec<Option<Ktime>> = steps.iter().skip(1).map(|step| step.entered).chain([Some(self.now)]).collect();
        for (step, next) in steps.iter_mut().zip(next) {
            step.dwell = step.entered.zip(next).map(|(entered, next)| next.since(entered));
        }
        // CLOSE is where it ended, not a state that lasts.
        if let Some(last) = steps.last_mut().filter(|step| step.state == TcpState::Close) {
            last.dwell = None;
        }
        let (attr, inferred) = match (flow, entry) {
            (Some(flow), _) => (flow.attr, flow.inferred_owner),
            (None, entry) => (entry.and_then(|entry| entry.attr), false),
        };
        let opened = flow.map_or_else(|| opened(&steps), |flow| flow.opened);
        Some(FlowDetail {
            key: *key,
            owner: self.owner(attr, inferred),
            opened,
            steps,
            begin_unknown,
            repaired: flow.is_some_and(|flow| flow.repaired),
        })
    }

    /// Who holds the ports of `dest`, for the log of failures.
    fn holders_of(&mut self, dest: DestId) -> Arc<[PastHolder]> {
        let now = self.now;
        if let Some(known) = self.history.as_ref().and_then(|history| history.holders(dest, now)) {
            return known;
        }
        let mut sums: BTreeMap<WorkloadId, (u64, u64)> = BTreeMap::new();
        for (_, attr) in self.people.attrs().filter(|(_, attr)| attr.dest == Some(dest) && attr.cell.ports.now > 0) {
            if let Some(proc) = self.people.proc(attr.proc) {
                let sum = sums.entry(proc.workload).or_default();
                sum.0 += attr.cell.ports.now;
                sum.1 += attr.cell.time_wait.now;
            }
        }
        let small = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
        let mut holders: Vec<PastHolder> = sums
            .into_iter()
            .filter_map(|(id, (ports, time_wait))| {
                let workload = Arc::clone(&self.people.workload_entry(id)?.name);
                Some(PastHolder { workload, ports: small(ports), time_wait: small(time_wait) })
            })
            .collect();
        holders.sort_by(|a, b| (b.ports, &a.workload).cmp(&(a.ports, &b.workload)));
        holders.truncate(MAX_HOLDERS);
        let holders: Arc<[PastHolder]> = holders.into();
        if let Some(history) = &mut self.history {
            history.keep_holders(dest, now, &holders);
        }
        holders
    }

    /// Enters a failure for lack of a port into the log.
    pub(super) fn log_failure(&mut self, failed: FailedConnect, dest: Option<DestId>) {
        if self.history.is_none() {
            return;
        }
        let holders = match dest {
            Some(dest) => self.holders_of(dest),
            None => Arc::from([]),
        };
        let dest = dest.and_then(|dest| self.places.get(dest));
        let in_use = dest.map_or(0, super::ports::Dest::in_use);
        let capacity = dest.and_then(|dest| self.places.capacity(dest));
        if let Some(history) = &mut self.history {
            history.fail(FailureRecord { failed, holders, in_use, capacity });
        }
    }
}

/// Who began a flow that is gone, by its first step.
fn opened(steps: &[FlowStep]) -> Opened {
    match steps.first().map(|step| step.state) {
        Some(TcpState::SynSent) => Opened::Active,
        _ => Opened::Unknown,
    }
}

/// Adds a transition. A full socket closes while its minisocket lives on: that is no step of the flow.
fn walk(steps: &mut Vec<FlowStep>, trace: &Trace) {
    match (steps.last_mut(), trace.old, trace.new) {
        (Some(last), old, TcpState::Close) if last.state == TcpState::TimeWait && old != TcpState::TimeWait => {
            return;
        }
        // The minisocket was inferred: it began when the full socket closed.
        (Some(last), TcpState::TimeWait, _) if last.state == TcpState::Close => last.state = TcpState::TimeWait,
        _ => {}
    }
    steps.push(FlowStep { state: trace.new, entered: Some(trace.at), dwell: None });
}

/// The states that a flow itself remembers, up to `until`: its steps are longer ago than the memory of steps reaches.
fn told_by_flow(flow: Option<&Flow>, until: TcpState) -> Vec<FlowStep> {
    let step = |state, entered| FlowStep { state, entered, dwell: None };
    match flow {
        Some(Flow { began: Some(began), established: Some(established), opened: Opened::Active, .. })
            if until == TcpState::Established =>
        {
            vec![step(TcpState::SynSent, Some(*began)), step(TcpState::Established, Some(*established))]
        }
        Some(Flow { established, .. }) if until == TcpState::Established => vec![step(until, *established)],
        _ => vec![step(until, None)],
    }
}

/// What is known of a flow without any step of it.
fn present(flow: Option<&Flow>, entry: Option<&Entry>) -> Vec<FlowStep> {
    match (flow, entry) {
        (Some(flow), _) if flow.state == TcpState::Established => told_by_flow(Some(flow), TcpState::Established),
        (Some(flow), _) => vec![FlowStep { state: flow.state, entered: flow.state_since, dwell: None }],
        (None, Some(entry)) => vec![FlowStep { state: TcpState::TimeWait, entered: Some(entry.began), dwell: None }],
        (None, None) => Vec::new(),
    }
}
