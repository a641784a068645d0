//! Answers a view's questions beyond the snapshot: one destination port by port, one workload, one flow step by step.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::snapshot::detail::{
    DestinationDetail, DetailRequest, Details, FlowDetail, FlowStep, PortUse, WorkloadDetail,
};
use super::snapshot::{Opened, Owner};
use super::tables::Tables;
use super::tables::accounting::Accounting;
use super::tables::attributions::AttributionId;
use super::tables::flows::Flow;
use super::tables::history::{History, StateStep};
use super::tables::namespaces::NamespaceEntry;
use super::tables::processes::UNKNOWN;
use super::tables::time_wait::TimeWaitEntry;
use crate::event::{DestinationKey, FlowKey, Ktime, TcpState};

/// Owners by attribution, numbered as they appear.
#[derive(Default)]
struct Owners {
    numbers: FxHashMap<(AttributionId, bool), u16>,
    list: Vec<Owner>,
}

impl Owners {
    fn number(&mut self, accounting: &Accounting, attribution: AttributionId, inferred: bool) -> u16 {
        let Self { numbers, list } = self;
        *numbers.entry((attribution, inferred)).or_insert_with(|| {
            list.push(accounting.owner(attribution, inferred).unwrap_or_else(|| Owner {
                comm: UNKNOWN.into(),
                workload: UNKNOWN.into(),
                ..Owner::default()
            }));
            // Attributions are bounded far below this.
            u16::try_from(list.len() - 1).unwrap_or(u16::MAX)
        })
    }
}

/// What `request` asks for. Without a history there is no past in it.
pub fn details(tables: &Tables, request: &DetailRequest) -> Details {
    let start = tables.start.unwrap_or(tables.now);
    let history = tables.outbox.history();
    Details {
        seconds: history.map(|history| history.seconds(tables.now, start)).unwrap_or_default(),
        failures: history.map(History::failures).unwrap_or_default(),
        destination: request.destination.as_ref().and_then(|key| destination_detail(tables, key)),
        workload: request.workload.as_ref().and_then(|name| workload_detail(tables, name)),
        flow: request.flow.as_ref().and_then(|key| flow_detail(tables, key)),
    }
}

fn destination_detail(tables: &Tables, key: &DestinationKey) -> Option<DestinationDetail> {
    let accounting = &tables.accounting;
    let id = accounting.destinations().find(key)?;
    let destination = accounting.destinations().get(id)?;
    let towards = |attribution| accounting.attributions().destination(attribution) == Some(id);
    let mut owners = Owners::default();
    let mut used: Vec<PortUse> = Vec::with_capacity(usize::try_from(destination.in_use()).unwrap_or(0));
    for (_, flow) in tables.flows.iter().filter(|(_, flow)| flow.occupies() && towards(flow.attribution())) {
        used.push(PortUse {
            port: flow.key().local.port,
            state: flow.state(),
            owner: owners.number(accounting, flow.attribution(), flow.inferred_owner),
            since: flow.state_since,
        });
    }
    for (_, entry) in tables.time_wait.iter().filter(|(_, entry)| towards(entry.attribution)) {
        used.push(PortUse {
            port: entry.key.local.port,
            state: TcpState::TimeWait,
            owner: owners.number(accounting, entry.attribution, false),
            since: Some(entry.timer_started),
        });
    }
    used.sort_unstable_by_key(|port| port.port);
    let namespace = tables.ports.namespaces().get(key.netns);
    Some(DestinationDetail {
        key: *key,
        range: namespace.and_then(|namespace| namespace.facts.port_range),
        used,
        owners: owners.list,
        blocked: namespace.map(NamespaceEntry::blocked_ports).unwrap_or_default(),
        reserved: namespace.map(NamespaceEntry::reserved_ports).unwrap_or_default(),
        lifetime: destination.counters.lifetime.shape(),
        connect: destination.counters.connect.shape(),
        port_search: destination.search.all.shape(),
    })
}

fn workload_detail(tables: &Tables, name: &Arc<str>) -> Option<WorkloadDetail> {
    let (_, entry) = tables.accounting.processes().workloads().find(|(_, entry)| entry.name == *name)?;
    Some(WorkloadDetail {
        name: Arc::clone(name),
        lifetime: entry.counters.lifetime.shape(),
        connect: entry.counters.connect.shape(),
    })
}

fn flow_detail(tables: &Tables, key: &FlowKey) -> Option<FlowDetail> {
    let entry = tables.time_wait.find(key).and_then(|at| tables.time_wait.get(at));
    let flow = tables.flows.iter().map(|(_, flow)| flow).find(|flow| flow.key() == key);
    let cookie = flow.and_then(|flow| flow.id().cookie).or_else(|| entry.and_then(|entry| entry.cookie));
    let remembered = tables.outbox.history().map(|history| history.steps(cookie, key)).unwrap_or_default();
    if flow.is_none() && entry.is_none() && remembered.is_empty() {
        return None;
    }
    let mut steps: Vec<FlowStep> = Vec::with_capacity(remembered.len() + 2);
    match remembered.first() {
        Some(first) if first.old != TcpState::Close => steps.extend(steps_known_to(flow, first.old)),
        Some(_) => {}
        None => steps.extend(present(flow, entry.as_ref())),
    }
    let begun_before = remembered.first().is_none_or(|first| first.old != TcpState::Close);
    let begin_unknown = begun_before && flow.is_none_or(|flow| flow.began.is_none());
    for step in &remembered {
        add_step(&mut steps, step);
    }
    if let (Some(_), Some(last)) = (entry, steps.last_mut().filter(|step| step.state == TcpState::Close)) {
        // The full socket is gone, its minisocket is not.
        last.state = TcpState::TimeWait;
    }
    let next: Vec<Option<Ktime>> = steps.iter().skip(1).map(|step| step.entered).chain([Some(tables.now)]).collect();
    for (step, next) in steps.iter_mut().zip(next) {
        step.dwell = step.entered.zip(next).map(|(entered, next)| next.since(entered));
    }
    // CLOSE is where it ended, not a state that lasts.
    if let Some(last) = steps.last_mut().filter(|step| step.state == TcpState::Close) {
        last.dwell = None;
    }
    let counted = match (flow, entry) {
        (Some(flow), _) => Some((flow.attribution(), flow.inferred_owner)),
        (None, entry) => entry.map(|entry| (entry.attribution, false)),
    };
    let opened = flow.map_or_else(|| opened(&steps), |flow| flow.opened);
    Some(FlowDetail {
        key: *key,
        owner: counted.and_then(|(attribution, inferred)| tables.accounting.owner(attribution, inferred)),
        opened,
        steps,
        begin_unknown,
        repaired: flow.is_some_and(|flow| flow.repaired),
    })
}

/// Which side opened a flow that is gone, by its first step.
fn opened(steps: &[FlowStep]) -> Opened {
    match steps.first().map(|step| step.state) {
        Some(TcpState::SynSent) => Opened::Active,
        _ => Opened::Unknown,
    }
}

/// Adds a transition. That a full socket closes while its minisocket lives on is no step of the flow.
fn add_step(steps: &mut Vec<FlowStep>, step: &StateStep) {
    match (steps.last_mut(), step.old, step.new) {
        (Some(last), old, TcpState::Close) if last.state == TcpState::TimeWait && old != TcpState::TimeWait => {
            return;
        }
        // The minisocket was inferred: it began when the full socket closed.
        (Some(last), TcpState::TimeWait, _) if last.state == TcpState::Close => last.state = TcpState::TimeWait,
        _ => {}
    }
    steps.push(FlowStep { state: step.new, entered: Some(step.at), dwell: None });
}

/// The states that a flow itself remembers, up to `until`: its steps are longer ago than the history reaches.
fn steps_known_to(flow: Option<&Flow>, until: TcpState) -> Vec<FlowStep> {
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
fn present(flow: Option<&Flow>, entry: Option<&TimeWaitEntry>) -> Vec<FlowStep> {
    match (flow, entry) {
        (Some(flow), _) if flow.state() == TcpState::Established => steps_known_to(Some(flow), TcpState::Established),
        (Some(flow), _) => vec![FlowStep { state: flow.state(), entered: flow.state_since, dwell: None }],
        (None, Some(entry)) => vec![FlowStep { state: TcpState::TimeWait, entered: Some(entry.began), dwell: None }],
        (None, None) => Vec::new(),
    }
}
