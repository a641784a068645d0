//! Each rule: once firing, once just below its threshold; and what advice may never say.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::*;
use crate::event::TcpState;
use crate::tracker::snapshot::{
    Attribution, CloseWaitStats, Confidence, Destination, Durations, Failure, FailureCounts, Holder, Listener, Ports,
    StateSet, TimeWaitStats, Victim, Workload,
};

const NETNS: Netns = Netns::of_inode(4_026_531_840);
const NOW: Ktime = Ktime(100_000_000_000);

fn addr(last: u8) -> Addr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)).into()
}

fn all_knobs() -> Knobs {
    Knobs { tw_reuse_delay: true, ip_local_port_range_sockopt: true, port_step_width: true, kernel: "6.18.44".into() }
}

/// Full of `TIME_WAIT`, held by one workload, another one suffers.
fn destination() -> Destination {
    Destination {
        netns: NETNS,
        netns_name: None,
        local_addr: addr(2),
        remote_addr: addr(5),
        remote_port: 3306,
        ports: Ports {
            range: Some((32_768, 60_999)),
            capacity: Some(28_232),
            in_use: 28_000,
            peak: 28_232,
            utilisation: Some(0.99),
            by_state: BTreeMap::from([(TcpState::TimeWait, 27_000), (TcpState::Established, 1_000)]),
        },
        connects: 50_000,
        established: 49_990,
        failed: FailureCounts::default(),
        first_failure: None,
        last_failure: None,
        connects_per_second: 600.0,
        sustainable_per_second: Some(470.0),
        seconds_to_exhaustion: None,
        forecast_confidence: None,
        port_search_ms: Durations::default(),
        port_search_recent_ms: None,
        port_search_quickest_ms: None,
        holders: vec![Holder { workload: "batch.service".into(), ports: 27_500 }],
        victims: vec![],
    }
}

fn exhausted() -> Destination {
    Destination {
        failed: FailureCounts::from([(Failure::PortsExhausted, 118)]),
        first_failure: Some(Ktime(42)),
        victims: vec![Victim { workload: "php-fpm: pool www".into(), failed: 118 }],
        ..destination()
    }
}

fn attribution(pid: u32) -> Attribution {
    Attribution {
        workload: "batch.service".into(),
        pid,
        comm: "batch".into(),
        cmdline: Some("batch --all".into()),
        netns: NETNS,
        local_addr: addr(2),
        remote_addr: addr(5),
        remote_port: 3306,
        connects: 5_000,
        established: 5_000,
        failed: FailureCounts::default(),
        active_closes: 5_000,
        time_wait: TimeWaitStats { entered: 5_000, now: 4_000, peak: 4_000, per_second: 150.0, reused: 0 },
        close_wait: CloseWaitStats::default(),
        lifetime_ms: Durations { count: 5_000, p50: Some(4.0), ..Durations::default() },
        ports_held: 4_000,
        oldest_established_seconds: None,
        states: StateSet::default(),
        inferred: false,
    }
}

fn namespace() -> Namespace {
    Namespace {
        netns: NETNS,
        port_range: Some((32_768, 60_999)),
        capacity: Some(28_232),
        tw_reuse: Some(2),
        timestamps: Some(true),
        fin_timeout_ms: Some(60_000),
        ..Namespace::default()
    }
}

fn listener(port: u16) -> Listener {
    Listener {
        netns: NETNS,
        addr: Addr::UNSPECIFIED,
        port,
        workload: Some("web.service".into()),
        pid: Some(1),
        accepted: 10,
        in_ephemeral_range: false,
        syn_recv: None,
    }
}

fn snapshot() -> Snapshot {
    Snapshot { start: Ktime(0), now: NOW, namespaces: vec![namespace()], ..Snapshot::default() }
}

fn of(snapshot: &Snapshot) -> Vec<Finding> {
    findings(snapshot, &all_knobs(), &Thresholds::default())
}

fn one(snapshot: &Snapshot, id: FindingId) -> Finding {
    let mut found: Vec<_> = of(snapshot).into_iter().filter(|finding| finding.id == id).collect();
    assert_eq!(found.len(), 1, "{id}: {found:#?}");
    found.remove(0)
}

fn none(snapshot: &Snapshot, id: FindingId) {
    assert!(of(snapshot).iter().all(|finding| finding.id != id), "{id} without reason");
}

fn actions(finding: &Finding) -> String {
    let lines = finding.advice.iter().map(|advice| format!("{} | {} | {}", advice.action, advice.why, advice.expected));
    lines.collect::<Vec<_>>().join("\n")
}

fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is missing in: {text}");
    }
}

#[test]
fn a_quiet_snapshot_has_no_findings() {
    assert!(of(&Snapshot::default()).is_empty());
    assert!(of(&snapshot()).is_empty());
    assert!(of(&Snapshot { destinations: vec![destination()], ..snapshot() }).is_empty());
}

#[test]
fn exhaustion_names_victim_destination_occupancy_and_holder() {
    let finding = one(&Snapshot { destinations: vec![exhausted()], ..snapshot() }, FindingId::PortExhaustion);
    assert_eq!((finding.severity, finding.since), (Severity::Critical, Some(Ktime(42))));
    says(
        &finding.summary,
        &[
            "118 connects",
            "php-fpm: pool www",
            "10.0.0.5:3306",
            "28000 of 28232",
            "27000 TIME_WAIT",
            "27500 held by batch.service",
        ],
    );
    assert_eq!(finding.evidence.get("failed"), Some(&serde_json::json!(118)));
    assert_eq!(finding.evidence.get("remote_addr"), Some(&serde_json::json!("10.0.0.5")));
}

#[test]
fn advice_comes_with_numbers_for_this_destination() {
    let finding = one(&Snapshot { destinations: vec![exhausted()], ..snapshot() }, FindingId::PortExhaustion);
    let advice = actions(&finding);
    // 600/s at 100 requests each, each held 28232/470 = 60 s.
    says(&advice, &["keep-alive", "6.0/s connects instead of 600/s", "about 361 ports"]);
    says(&advice, &["tcp_tw_reuse=1", "up to 26", "instead of 470/s", "timestamps", "only for outgoing"]);
    // 64512 ports at 60 s.
    says(&advice, &["ip_local_port_range=\"1024 65535\"", "About 64512 ports", "1074/s connects instead of 470/s"]);
    says(&advice, &["IP_LOCAL_PORT_RANGE", "14116 ports stay free for php-fpm: pool www"]);
    says(&advice, &["second source address", "IP_BIND_ADDRESS_NO_PORT", "470/s more"]);
}

#[test]
fn advice_never_names_what_is_set_absent_or_wrong() {
    let with = |change: &dyn Fn(&mut Namespace), knobs: &Knobs| {
        let mut snapshot = Snapshot { destinations: vec![exhausted()], ..snapshot() };
        change(&mut snapshot.namespaces[0]);
        findings(&snapshot, knobs, &Thresholds::default()).iter().map(actions).collect::<String>()
    };
    let set = with(&|namespace| namespace.tw_reuse = Some(1), &Knobs::default());
    assert!(!set.contains("tcp_tw_reuse") && !set.contains("IP_LOCAL_PORT_RANGE"), "{set}");
    let unknown = with(&|namespace| namespace.tw_reuse = None, &all_knobs());
    assert!(!unknown.contains("tcp_tw_reuse"), "{unknown}");
    let off = with(&|namespace| namespace.timestamps = Some(false), &all_knobs());
    says(&off, &["net.ipv4.tcp_timestamps=1 net.ipv4.tcp_tw_reuse=1"]);
    let useless = with(&|namespace| (namespace.tw_reuse, namespace.timestamps) = (Some(1), Some(false)), &all_knobs());
    says(&useless, &["sysctl -w net.ipv4.tcp_timestamps=1 |"]);
    let slow = |namespace: &mut Namespace| {
        namespace.tw_reuse = Some(1);
        namespace.tw_reuse_delay_ms = Some(1_000);
    };
    says(&with(&slow, &all_knobs()), &["tcp_tw_reuse_delay=250"]);
    assert!(!with(&slow, &Knobs::default()).contains("tcp_tw_reuse_delay"));
    for advice in [set, unknown, off, useless] {
        assert!(!advice.contains("recycle") && !advice.contains("tcp_fin_timeout"), "{advice}");
    }
}

#[test]
fn on_loopback_the_value_2_is_enough() {
    let local = Addr::from(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let mut snapshot = Snapshot {
        destinations: vec![Destination { local_addr: local, remote_addr: local, ..exhausted() }],
        ..snapshot()
    };
    assert!(!actions(&one(&snapshot, FindingId::PortExhaustion)).contains("tcp_tw_reuse"), "2 is set and applies");
    snapshot.namespaces[0].tw_reuse = Some(0);
    says(&actions(&one(&snapshot, FindingId::PortExhaustion)), &["tcp_tw_reuse=2"]);
}

#[test]
fn a_range_that_is_wide_already_is_not_widened() {
    let mut destination = exhausted();
    destination.ports.range = Some((1_024, 65_535));
    destination.ports.capacity = Some(64_000);
    let finding = one(&Snapshot { destinations: vec![destination], ..snapshot() }, FindingId::PortExhaustion);
    assert!(!actions(&finding).contains("ip_local_port_range=\""));
}

#[test]
fn widening_names_the_listeners_it_would_swallow() {
    let snapshot = Snapshot {
        destinations: vec![exhausted()],
        listeners: vec![listener(8080), listener(3306), listener(443), listener(40_000)],
        ..snapshot()
    };
    says(&actions(&one(&snapshot, FindingId::PortExhaustion)), &["(3306, 8080)"]);
}

#[test]
fn advice_follows_the_state_that_holds_the_ports() {
    let with = |state| {
        let mut destination = exhausted();
        destination.ports.by_state = BTreeMap::from([(state, 28_000)]);
        actions(&one(&Snapshot { destinations: vec![destination], ..snapshot() }, FindingId::PortExhaustion))
    };
    let open = with(TcpState::Established);
    assert!(open.starts_with("Bound the number of connections") && !open.contains("tw_reuse"), "{open}");
    let leaked = with(TcpState::CloseWait);
    assert!(leaked.starts_with("Make batch.service close") && !leaked.contains("tw_reuse"), "{leaked}");
}

#[test]
fn commands_go_to_the_right_namespace() {
    let command = |name: Option<&str>, others: usize| {
        let mut snapshot = Snapshot { destinations: vec![exhausted()], ..snapshot() };
        snapshot.namespaces[0].name = name.map(Arc::from);
        snapshot.namespaces.extend((0..others).map(|_| Namespace::default()));
        actions(&one(&snapshot, FindingId::PortExhaustion))
    };
    says(&command(Some("blue"), 0), &["ip netns exec blue sysctl -w net.ipv4.tcp_tw_reuse=1"]);
    says(&command(None, 1), &["(in network namespace 4026531840)"]);
    assert!(!command(Some("a; reboot"), 0).contains("reboot"));
}

#[test]
fn soon_is_graded_by_time_and_confidence() {
    let with = |seconds, confidence| {
        let coming = Destination {
            seconds_to_exhaustion: Some(seconds),
            forecast_confidence: Some(confidence),
            ..destination()
        };
        Snapshot { destinations: vec![coming], ..snapshot() }
    };
    let finding = one(&with(300.0, Confidence::High), FindingId::PortExhaustionSoon);
    assert_eq!(finding.severity, Severity::Warning);
    says(&finding.summary, &["10.0.0.5:3306", "about 5 min", "600/s connects", "470/s can be sustained"]);
    assert!(!finding.advice.is_empty());
    assert_eq!(one(&with(30.0, Confidence::Medium), FindingId::PortExhaustionSoon).severity, Severity::Critical);
    assert_eq!(one(&with(30.0, Confidence::Low), FindingId::PortExhaustionSoon).severity, Severity::Info);
    none(&with(901.0, Confidence::High), FindingId::PortExhaustionSoon);
    let both = Destination { seconds_to_exhaustion: Some(0.0), ..exhausted() };
    none(&Snapshot { destinations: vec![both], ..snapshot() }, FindingId::PortExhaustionSoon);
}

#[test]
fn a_slow_search_is_told_before_ports_run_out() {
    let with = |recent, quickest, in_use| {
        let mut slow = Destination {
            port_search_recent_ms: Some(recent),
            port_search_quickest_ms: Some(quickest),
            ..destination()
        };
        slow.ports.utilisation = Some(in_use);
        Snapshot { destinations: vec![slow], ..snapshot() }
    };
    let finding = one(&with(0.7, 0.05, 0.52), FindingId::PortSearchSlow);
    says(&finding.summary, &["10.0.0.5:3306", "700 us", "at best 50 us"]);
    assert!(!finding.advice.is_empty());
    one(&with(0.7, 0.7, 0.9), FindingId::PortSearchSlow);
    none(&with(0.7, 0.7, 0.3), FindingId::PortSearchSlow);
    none(&with(0.2, 0.01, 0.9), FindingId::PortSearchSlow);
    let mut failing = with(0.7, 0.05, 1.0);
    failing.destinations[0].failed = exhausted().failed;
    none(&failing, FindingId::PortSearchSlow);
}

#[test]
fn churn_adds_up_the_processes_of_a_workload() {
    let two = Snapshot {
        destinations: vec![destination()],
        attributions: vec![attribution(1), attribution(2)],
        ..snapshot()
    };
    let finding = one(&two, FindingId::TimeWaitChurn);
    // 300/s for 60 s = 18000 of 28232.
    assert_eq!(finding.severity, Severity::Warning);
    says(&finding.summary, &["batch.service", "300/s", "10.0.0.5:3306", "8000 now", "4.0 ms", "18000 ports", "64 %"]);
    let half = Snapshot { attributions: vec![attribution(1)], ..two.clone() };
    assert_eq!(one(&half, FindingId::TimeWaitChurn).severity, Severity::Info, "32 %");
    let mut long = attribution(1);
    long.lifetime_ms.p50 = Some(5_000.0);
    none(&Snapshot { attributions: vec![long], ..two.clone() }, FindingId::TimeWaitChurn);
    let mut slow = attribution(1);
    slow.time_wait.per_second = 100.0;
    none(&Snapshot { attributions: vec![slow], ..two }, FindingId::TimeWaitChurn);
}

#[test]
fn a_pool_and_its_bypass_are_one_workload_to_one_place() {
    let pooled = Attribution {
        connects: 1,
        lifetime_ms: Durations::default(),
        oldest_established_seconds: Some(812.0),
        time_wait: TimeWaitStats::default(),
        ..attribution(10)
    };
    let both = Snapshot { attributions: vec![pooled.clone(), attribution(11)], ..snapshot() };
    let finding = one(&both, FindingId::PoolBypass);
    says(&finding.summary, &["batch.service", "10.0.0.5:3306", "14 min", "1 process)", "50/s", "4.0 ms"]);
    assert_eq!(finding.evidence.get("processes").and_then(|all| all[0]["pid"].as_u64()), Some(11), "the busiest first");
    none(&Snapshot { attributions: vec![pooled.clone()], ..snapshot() }, FindingId::PoolBypass);
    none(&Snapshot { attributions: vec![attribution(11)], ..snapshot() }, FindingId::PoolBypass);
    let elsewhere = Attribution { remote_port: 6379, ..attribution(11) };
    none(&Snapshot { attributions: vec![pooled.clone(), elsewhere], ..snapshot() }, FindingId::PoolBypass);
    let other = Attribution { workload: "other".into(), ..attribution(11) };
    none(&Snapshot { attributions: vec![pooled.clone(), other], ..snapshot() }, FindingId::PoolBypass);
    // One process that does both.
    let mixed = Attribution { oldest_established_seconds: Some(60.0), ..attribution(11) };
    one(&Snapshot { attributions: vec![mixed], ..snapshot() }, FindingId::PoolBypass);
    let young = Attribution { oldest_established_seconds: Some(5.0), ..pooled };
    none(&Snapshot { attributions: vec![young, attribution(11)], ..snapshot() }, FindingId::PoolBypass);
}

#[test]
fn a_close_wait_leak_needs_number_and_age() {
    let with = |now, oldest| {
        let close_wait = CloseWaitStats { now, peak: now, oldest_seconds: Some(oldest) };
        let workload = Workload { name: "batch.service".into(), close_wait, ..Workload::default() };
        Snapshot {
            workloads: vec![workload],
            attributions: vec![Attribution { close_wait, ..attribution(7) }],
            ..snapshot()
        }
    };
    let finding = one(&with(40, 90.0), FindingId::CloseWaitLeak);
    says(&finding.summary, &["batch.service", "40 connections", "90 s ago", "10.0.0.5:3306 (pid 7, 40)"]);
    assert_eq!(finding.since, Some(Ktime(10_000_000_000)));
    none(&with(15, 90.0), FindingId::CloseWaitLeak);
    none(&with(40, 59.0), FindingId::CloseWaitLeak);
}

#[test]
fn fin_wait2_is_the_one_place_for_tcp_fin_timeout() {
    let with = |waiting| {
        let mut destination = destination();
        destination.ports.in_use = 400;
        destination.ports.by_state = BTreeMap::from([(TcpState::FinWait2, waiting)]);
        Snapshot { destinations: vec![destination], ..snapshot() }
    };
    let finding = one(&with(200), FindingId::FinWait2Orphans);
    says(&finding.summary, &["10.0.0.5:3306", "200 connections", "400 ports"]);
    says(&actions(&finding), &["tcp_fin_timeout=15", "instead of 60 s", "TIME_WAIT stays"]);
    none(&with(99), FindingId::FinWait2Orphans);
    let mut set = with(200);
    set.namespaces[0].fin_timeout_ms = Some(10_000);
    assert!(!actions(&one(&set, FindingId::FinWait2Orphans)).contains("tcp_fin_timeout"));
}

#[test]
fn failed_binds_are_exhaustion_and_a_habit_to_give_up() {
    let failed = FailureCounts::from([(Failure::BindExhausted, 3), (Failure::TupleTaken, 1)]);
    let workload = Workload { name: "proxy".into(), failed, ..Workload::default() };
    let snapshot = Snapshot { workloads: vec![workload], ..snapshot() };
    let exhaustion = one(&snapshot, FindingId::PortExhaustion);
    assert_eq!(exhaustion.severity, Severity::Critical);
    says(&exhaustion.summary, &["3 binds of proxy", "EADDRINUSE"]);
    let habit = one(&snapshot, FindingId::BindBeforeConnect);
    says(&habit.summary, &["proxy", "3 binds found no port", "1 connect found"]);
    says(&actions(&habit), &["IP_BIND_ADDRESS_NO_PORT"]);
}

#[test]
fn many_blocked_ports_are_reported_per_namespace() {
    let with = |blocked| {
        let mut snapshot = snapshot();
        snapshot.namespaces[0].blocked = blocked;
        snapshot
    };
    says(&one(&with(3_000), FindingId::BindBeforeConnect).summary, &["3000 of the 28232 ports", "32768-60999"]);
    none(&with(2_000), FindingId::BindBeforeConnect);
}

#[test]
fn listeners_in_the_range_are_one_finding_per_namespace() {
    let inside = |port| Listener { in_ephemeral_range: true, ..listener(port) };
    let mut snapshot = Snapshot { listeners: vec![inside(50_051), inside(33_060), listener(80)], ..snapshot() };
    let finding = one(&snapshot, FindingId::ListenerInEphemeralRange);
    assert_eq!(finding.severity, Severity::Info);
    says(&finding.summary, &["33060, 50051", "web.service"]);
    says(&actions(&finding), &["Append 33060,50051 to net.ipv4.ip_local_reserved_ports"]);
    assert!(!actions(&finding).contains("step_width"), "nothing is reserved");
    snapshot.namespaces[0].reserved = 100;
    says(&actions(&one(&snapshot, FindingId::ListenerInEphemeralRange)), &["ip_local_port_step_width=300"]);
    let old = findings(&snapshot, &Knobs::default(), &Thresholds::default());
    assert!(!old.iter().map(actions).collect::<String>().contains("step_width"));
    snapshot.destinations = vec![destination()];
    assert_eq!(one(&snapshot, FindingId::ListenerInEphemeralRange).severity, Severity::Warning, "99 % in use");
}

#[test]
fn half_open_connections_and_conntrack() {
    let with = |syn_recv| Snapshot { listeners: vec![Listener { syn_recv, ..listener(80) }], ..snapshot() };
    says(
        &one(&with(Some(500)), FindingId::SynRecvPileUp).summary,
        &["500 half-open", "0.0.0.0:80".trim_start_matches("0.0.0.0"), "web.service"],
    );
    none(&with(Some(127)), FindingId::SynRecvPileUp);
    none(&with(None), FindingId::SynRecvPileUp);
    let tracked = |now| {
        let mut snapshot = snapshot();
        snapshot.namespaces[0].conntrack = Some((now, 1_000));
        snapshot
    };
    let finding = one(&tracked(960), FindingId::ConntrackPressure);
    assert_eq!(finding.severity, Severity::Critical);
    says(&finding.summary, &["960 of 1000", "96 %"]);
    says(&actions(&finding), &["nf_conntrack_max=2000"]);
    assert_eq!(one(&tracked(800), FindingId::ConntrackPressure).severity, Severity::Warning);
    none(&tracked(799), FindingId::ConntrackPressure);
}

#[test]
fn findings_are_bounded_and_the_worst_come_first() {
    let mut destinations = vec![exhausted(); 12];
    destinations.push(Destination {
        seconds_to_exhaustion: Some(600.0),
        forecast_confidence: Some(Confidence::High),
        port_search_ms: Durations::default(),
        port_search_recent_ms: None,
        port_search_quickest_ms: None,
        ..destination()
    });
    let inside = Listener { in_ephemeral_range: true, ..listener(50_051) };
    let all = of(&Snapshot { destinations, listeners: vec![inside], ..snapshot() });
    let ids: Vec<_> = all.iter().map(|finding| finding.id).collect();
    assert_eq!(ids[..MAX_PER_ID], [FindingId::PortExhaustion; MAX_PER_ID]);
    assert_eq!(ids[MAX_PER_ID..], [FindingId::PortExhaustionSoon, FindingId::ListenerInEphemeralRange]);
    says(&all[MAX_PER_ID - 1].summary, &["7 more like this"]);
    // A doubtful forecast comes before a leak by rule, and after it by severity.
    let doubtful =
        Destination { seconds_to_exhaustion: Some(600.0), forecast_confidence: Some(Confidence::Low), ..destination() };
    let close_wait = CloseWaitStats { now: 40, peak: 40, oldest_seconds: Some(90.0) };
    let leaking = Workload { name: "a".into(), close_wait, ..Workload::default() };
    let all = of(&Snapshot { destinations: vec![doubtful], workloads: vec![leaking], ..snapshot() });
    assert_eq!(
        all.iter().map(|finding| finding.id).collect::<Vec<_>>(),
        [FindingId::CloseWaitLeak, FindingId::PortExhaustionSoon]
    );
}

#[test]
fn thresholds_can_be_moved() {
    let coming = Destination { seconds_to_exhaustion: Some(2_000.0), ..destination() };
    let snapshot = Snapshot { destinations: vec![coming], ..snapshot() };
    let patient = Thresholds { soon_seconds: 3_600.0, ..Thresholds::default() };
    assert!(of(&snapshot).is_empty());
    assert_eq!(findings(&snapshot, &all_knobs(), &patient).len(), 1);
}
