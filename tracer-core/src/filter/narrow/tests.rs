use super::*;
use crate::report::sample;
use crate::tracker::snapshot::FindingId;

fn narrowed(filter: &str) -> Snapshot {
    Filter::parse(filter).expect("valid").narrow(&sample::exhaustion())
}

fn outside_of(snapshot: &Snapshot) -> Outside {
    snapshot.filter.as_ref().expect("narrowed").outside
}

/// One workload of a destination that two share: its connects, its failures, and the ports of both.
#[test]
fn numbers_are_of_what_matches_and_ports_are_in_use_whoever_holds_them() {
    let all = sample::exhaustion();
    let inside = narrowed("workload=pool.service");
    let names: Vec<_> = inside.workloads.iter().map(|workload| &*workload.name).collect();
    assert_eq!((names, inside.attributions.len()), (vec!["pool.service"], 1));
    let destination = &inside.destinations[0];
    assert_eq!((destination.connects, destination.failed.without_port()), (146, 104));
    assert_eq!(
        destination.victims,
        [Victim { workload: "pool.service".into(), failed: 104, failed_own_range: 0, uids: vec![33] }]
    );
    assert_eq!((&destination.ports, &destination.holders), (&all.destinations[0].ports, &all.destinations[0].holders));
    let outside = outside_of(&inside);
    assert_eq!((outside.workloads, outside.connects, outside.failed_without_port), (1, 3_661, 1_100));
    assert_eq!(
        (outside.destinations, outside.findings),
        (0, 0),
        "the tenant's port runs out, in the tenant's namespace"
    );
}

/// `report dst=...` once showed the findings, the advice and the listeners of everybody else.
#[test]
fn findings_advice_and_listeners_of_others_are_outside_and_counted() {
    let all = sample::exhaustion();
    for filter in ["dst=192.0.2.1", "workload=nobody", "netns=1", "netns=nowhere", "comm=nobody"] {
        let inside = narrowed(filter);
        assert!(inside.findings.is_empty() && inside.destinations.is_empty(), "{filter}");
        assert!(inside.listeners.is_empty() && inside.namespaces.is_empty(), "{filter}");
        assert_eq!((inside.flows, inside.time_wait), (0, 0), "{filter}");
        let connects = all.workloads.iter().map(|workload| workload.connects).sum();
        let expected =
            Outside { findings: 2, workloads: 2, destinations: 1, connects, failed: 1_204, failed_without_port: 1_204 };
        assert_eq!(outside_of(&inside), expected, "{filter}");
    }
}

/// What one process of several does: the workload counts that process alone.
#[test]
fn a_workload_of_which_a_part_matches_counts_that_part() {
    let inside = narrowed("pid=4212");
    let workload = &inside.workloads[0];
    assert_eq!((workload.connects, workload.established, workload.failed.total()), (1_661, 1_161, 500));
    assert_eq!((workload.time_wait.entered, workload.time_wait.now, workload.ports_held), (1_161, 442, 442));
    assert_eq!(workload.pids.iter().map(|process| process.pid).collect::<Vec<_>>(), [4_212]);
    assert_eq!(workload.lifetime_ms, inside.attributions[0].lifetime_ms);
    assert_eq!(inside.destinations[0].connects, 1_661);
    let all = sample::exhaustion();
    assert_eq!(narrowed("dst=10.66.0.2").workloads, all.workloads, "nothing of them is outside");
}

/// Only destinations knew the names of namespaces, so `netns=NAME` had no workload and no attribution.
#[test]
fn a_namespace_is_known_by_its_name_wherever_it_is_known_by_its_number() {
    let mut all = sample::exhaustion();
    all.destinations[0].netns_name = None;
    let narrowed = |filter: &str| Filter::parse(filter).expect("valid").narrow(&all);
    let (by_name, by_inode) = (narrowed("netns=web"), narrowed(&format!("netns={}", sample::NETNS.inode)));
    assert_eq!(by_name.workloads, by_inode.workloads);
    assert_eq!(by_name.attributions, by_inode.attributions);
    assert_eq!(by_name.destinations, by_inode.destinations);
    assert_eq!((by_name.listeners, by_name.namespaces), (by_inode.listeners, by_inode.namespaces));
    assert_eq!(by_name.findings, by_inode.findings);
    assert_eq!((by_name.workloads.len(), by_name.findings.len()), (2, 2));
}

#[test]
fn a_name_that_nothing_has_is_told() {
    let told = |filter: &str| narrowed(filter).filter.expect("narrowed").not_seen;
    assert_eq!(told("netns=blue"), ["no network namespace `blue` was seen; there are `web`"]);
    assert_eq!(
        told("not comm=curl and netns=web"),
        [
            "no process of the name `curl` was seen; there are `bypass.py --upstream 10.66.0.2:8443`, `pool.py --size 42`, `python3`"
        ]
    );
    assert_eq!(told("pid=1 or pid=4001"), ["no process `1` was seen"]);
    assert_eq!(told("container=docker:*"), ["no container `docker:*` was seen"]);
    for known in ["netns=web", "workload=pool*", "unit=pool", "dst=192.0.2.1", "state=LISTEN"] {
        assert_eq!(told(known), [""; 0], "{known}");
    }
}

#[test]
fn durations_of_several_keep_what_is_exact_and_lie_between_their_percentiles() {
    let part = |count, p50: f64| Durations {
        count,
        min: Some(p50 / 2.0),
        mean: Some(p50),
        p50: Some(p50),
        p90: Some(p50 * 2.0),
        p99: Some(p50 * 3.0),
        max: Some(p50 * 4.0),
    };
    let near = |value: Option<f64>, expected: f64| (value.expect("known") / expected - 1.0).abs() < 0.01;
    let same = Durations::merged([part(10, 2.0), part(30, 2.0), Durations::default()].iter());
    assert_eq!((same.count, same.min, same.mean, same.max), (40, Some(1.0), Some(2.0), Some(8.0)));
    assert!(near(same.p50, 2.0) && near(same.p90, 4.0) && near(same.p99, 6.0), "{same:?}");
    let mixed = Durations::merged([part(90, 1.0), part(10, 1_000.0)].iter());
    assert!(near(mixed.mean, 100.9) && mixed.p50 < Some(1.5) && mixed.p99 > Some(1_000.0), "{mixed:?}");
    assert_eq!(Durations::merged([Durations::default()].iter()), Durations::default());
    assert_eq!(Durations::merged([part(1, 7.0)].iter()), part(1, 7.0), "a single part is not changed");
}

#[test]
fn a_finding_that_is_kept_is_told_whole() {
    let inside = narrowed("workload=pool.service");
    let finding = inside.findings.iter().find(|finding| finding.id == FindingId::PortExhaustion).expect("kept");
    assert_eq!(
        Some(finding),
        sample::exhaustion().findings.iter().find(|finding| finding.id == FindingId::PortExhaustion)
    );
}
