//! What a filter keeps of a snapshot: the one place that decides it, for reports, checks, comparisons and screens alike.
//!
//! What one process does towards one destination is inside or outside. A workload or a destination is inside if one of its rows is, or
//! if it matches itself; if a part of its rows is outside, it counts those inside alone. Ports are no matter of the filter: those of a
//! destination are in use whoever holds them, so its occupancy and its holders stay whole, and so does what a finding says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use super::Filter;
use super::subject::Subject;
use crate::event::{DestinationKey, Netns};
use crate::tracker::Tracker;
use crate::tracker::snapshot::{
    AppliedFilter, Attribution, Destination, Durations, Failure, FailureCounts, Finding, FindingSubject, Listener,
    Namespace, Notice, Others, Outside, PresentHolder, Process, Snapshot, TimeWaitStats, Victim, Workload,
};

/// A filter applied to one snapshot.
#[derive(Debug)]
pub struct SnapshotFilter<'a> {
    filter: &'a Filter,
    workloads: FxHashMap<&'a str, &'a Workload>,
    namespaces: FxHashMap<Netns, &'a str>,
    /// Names of the workloads that do something which matches.
    kept_workloads: FxHashSet<&'a str>,
    /// Destinations of something that matches.
    kept_destinations: FxHashSet<DestinationKey>,
    /// Namespaces of something that matches.
    kept_namespaces: FxHashSet<Netns>,
    /// Workloads and what they do towards a destination, where that matches.
    kept_pairs: FxHashSet<(&'a str, DestinationKey)>,
}

impl<'a> SnapshotFilter<'a> {
    /// Applies `filter` to everything that the snapshot attributes to a process.
    pub fn new(snapshot: &'a Snapshot, filter: &'a Filter) -> Self {
        let named = |namespace: &'a Namespace| Some((namespace.netns, namespace.name.as_deref()?));
        let mut this = Self {
            filter,
            workloads: snapshot.workloads.iter().map(|workload| (&*workload.name, workload)).collect(),
            namespaces: snapshot.namespaces.iter().filter_map(named).collect(),
            kept_workloads: FxHashSet::default(),
            kept_destinations: FxHashSet::default(),
            kept_namespaces: FxHashSet::default(),
            kept_pairs: FxHashSet::default(),
        };
        for attribution in &snapshot.attributions {
            if this.keeps_attribution(attribution) {
                this.kept_workloads.insert(&attribution.workload);
                this.kept_destinations.insert(attribution.key());
                this.kept_namespaces.insert(attribution.netns);
                this.kept_pairs.insert((&attribution.workload, attribution.key()));
            }
        }
        this
    }

    /// Does the filter match `subject`, with what the snapshot knows about the workload of this name and about its namespace?
    pub fn matches(&self, subject: Subject<'_>, workload: &str) -> bool {
        let known = self.workloads.get(workload);
        self.holds(known.map_or(subject, |known| subject.with_workload(known)))
    }

    fn holds(&self, subject: Subject<'_>) -> bool {
        self.filter.matches(&self.named(subject))
    }

    fn named<'b>(&'b self, subject: Subject<'b>) -> Subject<'b> {
        let name = || subject.netns.and_then(|netns| self.namespaces.get(&netns).copied());
        Subject { netns_name: subject.netns_name.or_else(name), ..subject }
    }

    /// Does it keep what one process does towards one destination?
    pub fn keeps_attribution(&self, attribution: &Attribution) -> bool {
        self.matches(Subject::from(attribution), &attribution.workload)
    }

    /// Does it keep this destination?
    pub fn keeps_destination(&self, destination: &Destination) -> bool {
        self.kept_destinations.contains(&destination.key()) || self.holds(Subject::from(destination))
    }

    /// Does it keep this workload?
    pub fn keeps_workload(&self, workload: &Workload) -> bool {
        self.keeps_workload_named(&workload.name)
            || self.holds(Subject::default().with_workload(workload))
            || workload
                .netns
                .iter()
                .any(|&netns| self.holds(Subject { netns: Some(netns), ..Subject::default() }.with_workload(workload)))
    }

    /// Does something that a workload of this name does match?
    pub fn keeps_workload_named(&self, name: &str) -> bool {
        self.kept_workloads.contains(name)
    }

    /// Does it keep this listener?
    pub fn keeps_listener(&self, listener: &Listener) -> bool {
        self.matches(Subject::from(listener), listener.workload.as_deref().unwrap_or_default())
    }

    /// Does it keep this namespace?
    pub fn keeps_namespace(&self, netns: Netns) -> bool {
        self.kept_namespaces.contains(&netns) || self.holds(Subject { netns: Some(netns), ..Subject::default() })
    }

    /// Is what the finding is about inside?
    pub fn keeps_finding(&self, snapshot: &Snapshot, finding: &Finding) -> bool {
        let workload = |name: &Arc<str>| {
            let known = self.workloads.get(&**name);
            known.is_some_and(|workload| self.keeps_workload(workload))
        };
        match &finding.subject {
            FindingSubject::Destination(key) => {
                let known = snapshot.destinations.iter().find(|destination| destination.key() == *key);
                self.kept_destinations.contains(key) || known.is_some_and(|known| self.keeps_destination(known))
            }
            FindingSubject::Workload(name) => workload(name),
            FindingSubject::WorkloadTowards(name, key) => self.kept_pairs.contains(&(&**name, *key)),
            FindingSubject::Listener(netns, endpoint, name) => {
                let subject = Subject {
                    netns: Some(*netns),
                    src_addr: Some(endpoint.addr),
                    src_port: Some(endpoint.port),
                    ..Subject::default()
                };
                self.matches(subject, name.as_deref().unwrap_or_default())
            }
            FindingSubject::Namespace(netns) => self.keeps_namespace(*netns),
        }
    }
}

impl Filter {
    /// The part of `snapshot` that is inside of the filter, with how much is outside.
    #[must_use]
    pub fn narrow(&self, snapshot: &Snapshot) -> Snapshot {
        let kept = SnapshotFilter::new(snapshot, self);
        let attributions = collected(&snapshot.attributions, |row| kept.keeps_attribution(row));
        let rows = Rows::new(&snapshot.attributions, &attributions);
        let mut inside = Snapshot {
            generation: snapshot.generation,
            start: snapshot.start,
            now: snapshot.now,
            events: snapshot.events,
            damage: snapshot.damage.clone(),
            coverage: snapshot.coverage.clone(),
            workloads: collected(&snapshot.workloads, |workload| kept.keeps_workload(workload)),
            destinations: collected(&snapshot.destinations, |destination| kept.keeps_destination(destination)),
            listeners: collected(&snapshot.listeners, |listener| kept.keeps_listener(listener)),
            namespaces: collected(&snapshot.namespaces, |namespace| kept.keeps_namespace(namespace.netns)),
            taken_ports: collected(&snapshot.taken_ports, |taken| {
                kept.matches(Subject::from(taken), taken.workload.as_deref().unwrap_or_default())
            }),
            findings: collected(&snapshot.findings, |finding| kept.keeps_finding(snapshot, finding)),
            findings_forgotten: snapshot.findings_forgotten,
            flows: attributions.iter().map(|row| row.flows).sum(),
            time_wait: attributions.iter().map(|row| row.time_wait.now).sum(),
            orphans: attributions.iter().map(|row| u64::from(row.orphans)).sum(),
            attributions: Vec::new(),
            others: Others {
                destinations: collected(&snapshot.others.destinations, |rest| kept.holds(of_rest(rest.netns))),
                attributions: collected(&snapshot.others.attributions, |rest| {
                    kept.matches(of_rest(rest.netns), &rest.workload)
                }),
                namespaces: snapshot.others.namespaces,
            },
            filter: None,
        };
        inside.workloads.iter_mut().for_each(|workload| rows.narrow_workload(workload));
        inside.destinations.iter_mut().for_each(|destination| rows.narrow_destination(destination));
        let not_seen = self.not_seen(snapshot, &kept);
        inside.filter = Some(AppliedFilter { text: self.text().into(), outside: outside(snapshot, &inside), not_seen });
        inside.attributions = attributions;
        inside
    }

    /// Sentences on names in the filter that nothing in the whole of `snapshot` has.
    pub fn names_not_seen(&self, snapshot: &Snapshot) -> Vec<String> {
        self.not_seen(snapshot, &SnapshotFilter::new(snapshot, self))
    }

    fn not_seen(&self, snapshot: &Snapshot, kept: &SnapshotFilter<'_>) -> Vec<String> {
        let workload = |name: &str| kept.workloads.get(name).copied();
        let rows = snapshot.attributions.iter().map(|row| {
            let subject = Subject::from(row);
            workload(&row.workload).map_or(subject, |workload| subject.with_workload(workload))
        });
        let workloads = snapshot.workloads.iter().flat_map(|workload| {
            let pids = workload.pids.iter().map(|process| Subject { pid: Some(process.pid), ..Subject::default() });
            pids.chain([Subject::default().with_workload(workload)])
        });
        let listeners = snapshot.listeners.iter().map(|listener| {
            let subject = Subject { pid: listener.pid, ..Subject::from(listener) };
            listener.workload.as_deref().and_then(workload).map_or(subject, |known| subject.with_workload(known))
        });
        let namespaces = snapshot.namespaces.iter().map(|namespace| Subject {
            netns: Some(namespace.netns),
            netns_name: namespace.name.as_deref(),
            ..Subject::default()
        });
        let destinations = snapshot.destinations.iter().map(Subject::from);
        let everything: Vec<_> = rows
            .chain(workloads)
            .chain(listeners)
            .chain(namespaces)
            .chain(destinations)
            .map(|subject| kept.named(subject))
            .collect();
        let mut tests = Vec::new();
        self.node.tests(&mut tests);
        tests
            .into_iter()
            .filter(|test| !everything.iter().any(|subject| test.holds(subject) == Some(true)))
            .filter_map(|test| test.not_seen(&everything))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }
}

/// What `tracker` has reported since the last call, in order; with a filter what is inside of it.
pub fn notices(tracker: &mut Tracker, filter: Option<&Filter>) -> Vec<Notice> {
    let mut notices: Vec<Notice> = tracker.drain_notices().collect();
    if let Some(filter) = filter {
        notices.retain(|notice| {
            let subject = Subject::from(notice);
            let name = subject.netns.and_then(|netns| tracker.namespace_name(netns));
            filter.matches(&Subject { netns_name: name.as_deref(), ..subject })
        });
    }
    notices
}

/// A rest is of a namespace, unless it is of several.
fn of_rest<'a>(netns: Netns) -> Subject<'a> {
    Subject { netns: Some(netns).filter(|netns| netns.inode != 0), ..Subject::default() }
}

fn collected<T: Clone>(all: &[T], keeps: impl Fn(&T) -> bool) -> Vec<T> {
    all.iter().filter(|one| keeps(one)).cloned().collect()
}

fn outside(all: &Snapshot, inside: &Snapshot) -> Outside {
    let less = |all: usize, inside: usize| all.saturating_sub(inside) as u64;
    let sum = |of: fn(&Workload) -> u64| {
        let total = |snapshot: &Snapshot| snapshot.workloads.iter().map(of).fold(0_u64, u64::saturating_add);
        total(all).saturating_sub(total(inside))
    };
    Outside {
        findings: less(all.findings.len(), inside.findings.len()),
        workloads: less(all.workloads.len(), inside.workloads.len()),
        destinations: less(all.destinations.len(), inside.destinations.len()),
        connects: sum(|workload| workload.connects),
        failed: sum(|workload| workload.failed.total()),
        failed_without_port: sum(|workload| workload.failed.without_port()),
    }
}

/// The rows inside by what they are added up to. Nothing is listed of what has no row outside: that stays as it is.
struct Rows<'a> {
    of_workload: FxHashMap<&'a str, Vec<&'a Attribution>>,
    of_destination: FxHashMap<DestinationKey, Vec<&'a Attribution>>,
}

impl<'a> Rows<'a> {
    fn new(all: &[Attribution], inside: &'a [Attribution]) -> Self {
        let (mut workloads, mut destinations) = (FxHashMap::<&str, usize>::default(), FxHashMap::default());
        for row in all {
            *workloads.entry(&*row.workload).or_default() += 1;
            *destinations.entry(row.key()).or_insert(0_usize) += 1;
        }
        let mut rows = Self { of_workload: FxHashMap::default(), of_destination: FxHashMap::default() };
        for row in inside {
            rows.of_workload.entry(&*row.workload).or_default().push(row);
            rows.of_destination.entry(row.key()).or_default().push(row);
        }
        rows.of_workload.retain(|name, rows| workloads.get(name).is_some_and(|all| rows.len() < *all));
        rows.of_destination.retain(|key, rows| destinations.get(key).is_some_and(|all| rows.len() < *all));
        rows
    }

    fn narrow_workload(&self, workload: &mut Workload) {
        let Some(rows) = self.of_workload.get(&*workload.name) else { return };
        let sum = |of: fn(&Attribution) -> u64| total(rows, of);
        let most = |of: fn(&Attribution) -> u64| rows.iter().map(|row| of(row)).max().unwrap_or(0);
        workload.netns = rows.iter().map(|row| row.netns).collect::<BTreeSet<_>>().into_iter().collect();
        workload.pids = processes(rows);
        workload.connects = sum(|row| row.connects);
        workload.established = sum(|row| row.established);
        workload.failed = failures(rows);
        workload.accepted = sum(|row| row.accepted);
        workload.closed = sum(|row| row.closed);
        workload.active_closes = sum(|row| row.active_closes);
        workload.passive_closes = sum(|row| row.passive_closes);
        workload.resets = sum(|row| row.resets);
        workload.time_wait = TimeWaitStats {
            entered: sum(|row| row.time_wait.entered),
            now: sum(|row| row.time_wait.now),
            // The peaks of two rows need not have coincided: only the highest one is certain.
            peak: most(|row| row.time_wait.peak).max(sum(|row| row.time_wait.now)),
            per_second: rows.iter().map(|row| row.time_wait.per_second).sum(),
            reused: sum(|row| row.time_wait.reused),
        };
        workload.close_wait.now = sum(|row| row.close_wait.now);
        workload.close_wait.peak = most(|row| row.close_wait.peak).max(workload.close_wait.now);
        workload.close_wait.oldest_seconds =
            rows.iter().filter_map(|row| row.close_wait.oldest_seconds).reduce(f64::max);
        workload.by_state = BTreeMap::new();
        for (&state, &count) in rows.iter().flat_map(|row| &row.by_state) {
            let sum = workload.by_state.entry(state).or_default();
            *sum = sum.saturating_add(count);
        }
        workload.held_by = holders(rows);
        workload.orphans = rows.iter().fold(0, |sum, row| sum.saturating_add(row.orphans));
        workload.half_closed = rows.iter().fold(0, |sum, row| sum.saturating_add(row.half_closed));
        workload.lifetime_ms = Durations::merged(rows.iter().map(|row| &row.lifetime_ms));
        workload.connect_ms = Durations::merged(rows.iter().map(|row| &row.connect_ms));
        workload.ports_held = sum(|row| u64::from(row.ports_held));
        workload.connects_per_second = rows.iter().map(|row| row.connects_per_second).sum();
    }

    fn narrow_destination(&self, destination: &mut Destination) {
        let Some(rows) = self.of_destination.get(&destination.key()) else { return };
        destination.connects = total(rows, |row| row.connects);
        destination.established = total(rows, |row| row.established);
        destination.failed = failures(rows);
        destination.first_failure = rows.iter().filter_map(|row| row.first_failure).min();
        destination.last_failure = rows.iter().filter_map(|row| row.last_failure).max();
        destination.connects_per_second = rows.iter().map(|row| row.connects_per_second).sum();
        destination.ports.failed_own_range = destination.failed.of(Failure::OwnRangeExhausted);
        // Whose these were is not kept.
        destination.ports.contradictions = destination.ports.contradictions.min(destination.failed.without_port());
        destination.victims = victims(rows);
    }
}

fn total(rows: &[&Attribution], of: fn(&Attribution) -> u64) -> u64 {
    rows.iter().map(|row| of(row)).fold(0, u64::saturating_add)
}

fn failures(rows: &[&Attribution]) -> FailureCounts {
    let mut failed = FailureCounts::default();
    for row in rows {
        failed.merge(&row.failed);
    }
    failed
}

fn holders(rows: &[&Attribution]) -> Vec<PresentHolder> {
    let mut holders: BTreeMap<u32, PresentHolder> = BTreeMap::new();
    for holder in rows.iter().flat_map(|row| &row.held_by) {
        let fresh = || PresentHolder { flows: 0, ..holder.clone() };
        let sum = &mut holders.entry(holder.pid).or_insert_with(fresh).flows;
        *sum = sum.saturating_add(holder.flows);
    }
    let mut list: Vec<_> = holders.into_values().collect();
    list.sort_by_key(|holder| std::cmp::Reverse(holder.flows));
    list
}

fn processes(rows: &[&Attribution]) -> Vec<Process> {
    let mut processes: BTreeMap<u32, Process> = BTreeMap::new();
    for row in rows {
        let process = processes.entry(row.pid).or_default();
        process.pid = row.pid;
        process.cmdline.clone_from(&row.cmdline);
        process.connects = process.connects.saturating_add(row.connects);
        process.failed.merge(&row.failed);
    }
    let mut list: Vec<_> = processes.into_values().collect();
    list.sort_by_key(|process| (std::cmp::Reverse(process.connects), process.pid));
    list
}

fn victims(rows: &[&Attribution]) -> Vec<Victim> {
    let mut failed: BTreeMap<&Arc<str>, Victim> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.failed.without_port() > 0) {
        let victim = failed.entry(&row.workload).or_default();
        victim.failed = victim.failed.saturating_add(row.failed.without_port());
        let own_range = row.failed.of(Failure::OwnRangeExhausted);
        victim.failed_own_range = victim.failed_own_range.saturating_add(own_range);
        victim.uids.extend(row.uid);
    }
    let mut list: Vec<_> = failed
        .into_iter()
        .map(|(workload, mut victim)| {
            victim.uids.sort_unstable();
            victim.uids.dedup();
            Victim { workload: Arc::clone(workload), ..victim }
        })
        .collect();
    list.sort_by(|a, b| (b.failed, &a.workload).cmp(&(a.failed, &b.workload)));
    list
}

#[cfg(test)]
mod tests;
