//! Each rule: once firing, once just below its threshold, by the numbers in its evidence; what advice may never say; and one snapshot of
//! every sentence.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use serde_json::{Value, json};

use super::log::MAX_LISTED_PER_ID;
use super::*;
use crate::event::{Addr, KernelCounters, Ktime, Netns, TcpState};
use crate::tracker::snapshot::{
    Attribution, CloseWaitStats, Confidence, Destination, Durations, Failure, FailureCounts, FindingId, FindingSubject,
    Holder, Listener, Namespace, PortHolder, Ports, PresentHolder, Severity, TakenPort, TimeWaitStats, Victim,
    Workload,
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
            free: Some(232),
            ..Ports::default()
        },
        connects: 50_000,
        established: 49_990,
        failed: FailureCounts::default(),
        first_failure: None,
        last_failure: None,
        failing_since: None,
        counted_since: None,
        connects_per_second: 600.0,
        sustainable_per_second: Some(470.0),
        exhaustion_probability: None,
        seconds_to_exhaustion: None,
        exhaustion_soonest_seconds: None,
        exhaustion_latest_seconds: None,
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
        failing_since: Some(Ktime(42)),
        last_failure: Some(NOW),
        victims: vec![Victim { workload: "php-fpm: pool www".into(), failed: 118, ..Victim::default() }],
        ..destination()
    }
}

fn attribution(pid: u32) -> Attribution {
    Attribution {
        workload: "batch.service".into(),
        pid,
        comm: "batch".into(),
        uid: Some(33),
        cmdline: Some("batch --all".into()),
        netns: NETNS,
        local_addr: addr(2),
        remote_addr: addr(5),
        remote_port: 3306,
        connects: 5_000,
        established: 5_000,
        failed: FailureCounts::default(),
        first_failure: None,
        last_failure: None,
        connects_per_second: 0.0,
        accepted: 0,
        closed: 5_000,
        active_closes: 5_000,
        passive_closes: 0,
        resets: 0,
        flows: 0,
        time_wait: TimeWaitStats { entered: 9_000, now: 4_000, peak: 4_000, per_second: 90.0, reused: 0 },
        close_wait: CloseWaitStats::default(),
        lifetime_ms: Durations { count: 5_000, p50: Some(4.0), ..Durations::default() },
        connect_ms: Durations::default(),
        ports_held: 4_000,
        oldest_established_seconds: None,
        held_by: Vec::new(),
        by_state: BTreeMap::new(),
        orphans: 0,
        half_closed: 0,
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
        queued: None,
        backlog: None,
        close_wait: None,
        in_ephemeral_range: false,
        syn_recv: None,
    }
}

fn snapshot() -> Snapshot {
    Snapshot { start: Ktime(0), now: NOW, namespaces: vec![namespace()], ..Snapshot::default() }
}

/// What is found if everything in the snapshot happened just now.
fn found(snapshot: &Snapshot, knobs: &Knobs, thresholds: &Thresholds) -> Vec<Finding> {
    let mut log = FindingLog::default();
    log.judge(snapshot.start, snapshot.now, judge(snapshot, &Recent::all_of(snapshot), knobs, thresholds));
    log.findings()
}

fn of(snapshot: &Snapshot) -> Vec<Finding> {
    found(snapshot, &all_knobs(), &Thresholds::default())
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

/// The evidence has these facts, whatever else it has.
fn has(finding: &Finding, facts: Value) {
    let Value::Object(facts) = facts else { panic!("facts are an object") };
    for (name, value) in facts {
        let found = finding.evidence.get(&*name);
        assert!(found.is_some_and(|found| contains(found, &value)), "{name} of {}: {found:?}", finding.id);
    }
}

/// Objects may have more fields than are asked for.
fn contains(found: &Value, facts: &Value) -> bool {
    match (found, facts) {
        (Value::Object(found), Value::Object(facts)) => {
            facts.iter().all(|(name, value)| found.get(name).is_some_and(|found| contains(found, value)))
        }
        (Value::Array(found), Value::Array(facts)) => {
            found.len() == facts.len() && found.iter().zip(facts).all(|(found, value)| contains(found, value))
        }
        (found, facts) => found == facts,
    }
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
    assert_eq!(finding.subject, FindingSubject::Destination(destination().key()));
    has(
        &finding,
        json!({"failed": 118, "remote_addr": "10.0.0.5", "remote_port": 3306, "in_use": 28_000, "capacity": 28_232}),
    );
    has(&finding, json!({"by_state": {"TIME_WAIT": 27_000, "ESTABLISHED": 1_000}}));
    has(&finding, json!({"holders": [{"workload": "batch.service", "ports": 27_500}]}));
    has(&finding, json!({"victims": [{"workload": "php-fpm: pool www", "failed": 118}]}));
}

/// One of each kind. The numbers of the advice for the exhausted destination: 600 connects a second at 100 requests each are 6, and
/// each holds its port for 28232/470 = 60 s, which makes 361 ports. 64512 ports less 3100 that are taken bear 1022 connects a second.
fn taken_port() -> TakenPort {
    TakenPort {
        netns: NETNS,
        addr: Addr::from(IpAddr::from([127, 0, 0, 1])),
        port: 40_004,
        remote_addr: None,
        remote_port: None,
        workload: Some("api.service".into()),
        pid: Some(300),
        comm: Some("api".into()),
        failed: 12,
        last: snapshot().now,
        holder: Some(PortHolder {
            state: TcpState::Established,
            workload: Some("batch.service".into()),
            pid: Some(4_711),
            comm: Some("batch".into()),
        }),
    }
}

#[test]
fn a_port_that_is_taken_is_told_with_its_holder_for_a_minute() {
    let with = |change: fn(&mut TakenPort)| {
        let mut taken = taken_port();
        change(&mut taken);
        of(&Snapshot { taken_ports: vec![taken], namespaces: vec![namespace()], ..snapshot() })
    };
    let [now] = &with(|_| {})[..] else { panic!("one finding") };
    says(&now.summary, &["api[300] does not get 127.0.0.1:40004", "batch[4711] has a connection from it"]);
    says(&actions(now), &["ip_local_reserved_ports"]);
    let [unseen] = &with(|taken| taken.holder = None)[..] else { panic!("one finding") };
    says(&unseen.summary, &["has not seen who has it"]);
    let [lingers] = &with(|taken| {
        taken.port = 80;
        taken.holder.as_mut().expect("there is one").state = TcpState::TimeWait;
    })[..] else {
        panic!("one finding")
    };
    says(&actions(lingers), &["SO_REUSEADDR"]);
    assert!(with(|taken| taken.remote_port = Some(443)).is_empty(), "connect() of a bound socket: bind-before-connect");
    assert!(with(|taken| taken.last = Ktime(0)).is_empty(), "long ago");
}

#[test]
fn every_sentence_reads_well() {
    let leak = CloseWaitStats { now: 40, peak: 40, oldest_seconds: Some(90.0) };
    let leaking = Workload {
        name: "batch.service".into(),
        close_wait: leak,
        failed: FailureCounts::from([(Failure::BindExhausted, 3), (Failure::TupleTaken, 1)]),
        ..Workload::default()
    };
    let coming = Destination {
        seconds_to_exhaustion: Some(300.0),
        forecast_confidence: Some(Confidence::High),
        port_search_recent_ms: Some(0.7),
        port_search_quickest_ms: Some(0.05),
        ..destination()
    };
    let mut orphans = Destination { remote_port: 6379, ..destination() };
    orphans.ports.in_use = 400;
    orphans.ports.by_state = BTreeMap::from([(TcpState::FinWait2, 200)]);
    orphans.ports.orphans = 200;
    let proxy = Workload { name: "nginx.service".into(), accepted: 1_000, connects: 990, ..Workload::default() };
    let mut half_closed = Destination { remote_port: 6380, ..destination() };
    half_closed.ports.half_closed = 20_000;
    let other = FailureCounts::from([
        (Failure::Errno(crate::errno::ECONNREFUSED), 141),
        (Failure::Errno(crate::errno::ETIMEDOUT), 40),
        (Failure::Aborted, 2),
        (Failure::Errno(crate::errno::EHOSTUNREACH), 7),
        (Failure::Errno(crate::errno::ECONNRESET), 3),
    ]);
    let counters =
        KernelCounters { listen_overflows: Some(9), time_wait_overflows: Some(4), ..KernelCounters::default() };
    let crowded = Namespace { blocked: 3_000, reserved: 100, conntrack: Some((960, 1_000)), counters, ..namespace() };
    let all = Snapshot {
        destinations: vec![exhausted(), Destination { remote_port: 5432, ..coming }, orphans, half_closed],
        attributions: vec![
            Attribution { oldest_established_seconds: Some(812.0), ..attribution(1) },
            Attribution { close_wait: leak, ..attribution(2) },
            Attribution { workload: "web".into(), connects: 203, failed: other, remote_port: 81, ..attribution(3) },
        ],
        workloads: vec![leaking, proxy],
        listeners: vec![
            Listener { in_ephemeral_range: true, ..listener(50_051) },
            Listener { syn_recv: Some(500), ..listener(8_080) },
            Listener { queued: Some(129), backlog: Some(128), ..listener(8_443) },
            Listener { syn_recv: Some(300), queued: Some(0), backlog: Some(128), ..listener(8_444) },
        ],
        namespaces: vec![crowded],
        taken_ports: vec![taken_port()],
        ..snapshot()
    };
    let found = of(&all);
    let missing: Vec<_> = FindingId::ALL.into_iter().filter(|id| found.iter().all(|one| one.id != *id)).collect();
    assert_eq!(missing, []);
    let text = |finding: &Finding| {
        format!("{} {:?}\n{}\n{}\n", finding.id, finding.severity, finding.summary, actions(finding))
    };
    insta::assert_snapshot!(found.iter().map(text).collect::<Vec<_>>().join("\n"));
}

#[test]
fn advice_never_names_what_is_set_absent_or_wrong() {
    let with = |change: &dyn Fn(&mut Namespace), knobs: &Knobs| {
        let mut snapshot = Snapshot { destinations: vec![exhausted()], ..snapshot() };
        change(&mut snapshot.namespaces[0]);
        found(&snapshot, knobs, &Thresholds::default()).iter().map(actions).collect::<String>()
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
    has(
        &finding,
        json!({"seconds_to_exhaustion": 300.0, "connects_per_second": 600.0, "sustainable_per_second": 470.0}),
    );
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
    has(&finding, json!({"remote_port": 3306, "recent_ms": 0.7, "quickest_ms": 0.05}));
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
    // 300/s for 60 s = 18000 of 28232 ports = 64 %.
    assert_eq!(finding.severity, Severity::Warning);
    has(&finding, json!({"workload": "batch.service", "remote_port": 3306, "lifetime_ms_p50": 4.0}));
    has(&finding, json!({"time_wait_per_second": 300.0, "time_wait_now": 8_000, "connects": 10_000}));
    let half = Snapshot { attributions: vec![attribution(1)], ..two.clone() };
    assert_eq!(one(&half, FindingId::TimeWaitChurn).severity, Severity::Info, "32 %");
    let mut long = attribution(1);
    long.lifetime_ms.p50 = Some(5_000.0);
    none(&Snapshot { attributions: vec![long], ..two.clone() }, FindingId::TimeWaitChurn);
    let mut slow = attribution(1);
    slow.time_wait.entered = 6_000;
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
    has(&finding, json!({"workload": "batch.service", "remote_port": 3306, "lifetime_ms_p50": 4.0}));
    has(
        &finding,
        json!({"oldest_established_seconds": 812.0, "processes_with_long_flows": 1, "connects_per_second": 83.35}),
    );
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
    let worker = PresentHolder { pid: 9, comm: "worker".into(), flows: 40 };
    let with = |now, oldest| {
        let close_wait = CloseWaitStats { now, peak: now, oldest_seconds: Some(oldest) };
        let workload = Workload { name: "batch.service".into(), close_wait, ..Workload::default() };
        Snapshot {
            workloads: vec![workload],
            attributions: vec![Attribution { close_wait, held_by: vec![worker.clone()], ..attribution(7) }],
            ..snapshot()
        }
    };
    let finding = one(&with(40, 90.0), FindingId::CloseWaitLeak);
    has(&finding, json!({"workload": "batch.service", "close_wait_now": 40, "oldest_seconds": 90.0}));
    let remotes = json!([{"pid": 7, "remote_addr": "10.0.0.5", "remote_port": 3306, "close_wait": 40, "held_by": [{"pid": 9, "comm": "worker", "flows": 40}]}]);
    has(&finding, json!({"with": remotes}));
    assert!(finding.summary.contains("[7], held by worker[9], 40)"), "{}", finding.summary);
    assert_eq!(finding.since, Some(Ktime(10_000_000_000)));
    none(&with(15, 90.0), FindingId::CloseWaitLeak);
    // Suspected: in a window of 100 s half of it makes sure, with a hundred of them ten seconds do.
    let suspected = one(&with(40, 49.0), FindingId::CloseWaitLeak);
    assert!(suspected.severity == Severity::Info && suspected.summary.contains("too young"), "{}", suspected.summary);
    none(&with(40, 4.0), FindingId::CloseWaitLeak);
    assert_eq!(one(&with(100, 10.0), FindingId::CloseWaitLeak).severity, Severity::Warning);
}

#[test]
fn fin_wait2_is_the_one_place_for_tcp_fin_timeout() {
    let with = |waiting| {
        let mut destination = destination();
        destination.ports.in_use = 400;
        destination.ports.by_state = BTreeMap::from([(TcpState::FinWait2, waiting)]);
        destination.ports.orphans = waiting;
        Snapshot { destinations: vec![destination], ..snapshot() }
    };
    let finding = one(&with(200), FindingId::FinWait2Orphans);
    has(&finding, json!({"remote_port": 3306, "fin_wait2": 200, "in_use": 400}));
    says(&actions(&finding), &["net.ipv4.tcp_fin_timeout=15"]);
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
    has(&exhaustion, json!({"workload": "proxy", "bind_failed": 3}));
    let habit = one(&snapshot, FindingId::BindBeforeConnect);
    has(&habit, json!({"workload": "proxy", "bind_exhausted": 3, "tuple_taken": 1}));
    says(&actions(&habit), &["IP_BIND_ADDRESS_NO_PORT"]);
}

#[test]
fn many_blocked_ports_are_reported_per_namespace() {
    let with = |blocked| {
        let mut snapshot = snapshot();
        snapshot.namespaces[0].blocked = blocked;
        snapshot
    };
    let finding = one(&with(3_000), FindingId::BindBeforeConnect);
    has(&finding, json!({"blocked": 3_000, "range": [32_768, 60_999], "capacity": 28_232}));
    none(&with(2_000), FindingId::BindBeforeConnect);
}

#[test]
fn listeners_in_the_range_are_one_finding_per_namespace() {
    let inside = |port| Listener { in_ephemeral_range: true, ..listener(port) };
    let mut snapshot = Snapshot { listeners: vec![inside(50_051), inside(33_060), listener(80)], ..snapshot() };
    let finding = one(&snapshot, FindingId::ListenerInEphemeralRange);
    assert_eq!(finding.severity, Severity::Info);
    has(&finding, json!({"ports": [33_060, 50_051], "workloads": ["web.service"]}));
    says(&actions(&finding), &["Append 33060,50051 to net.ipv4.ip_local_reserved_ports"]);
    assert!(!actions(&finding).contains("step_width"), "nothing is reserved");
    snapshot.namespaces[0].reserved = 100;
    says(&actions(&one(&snapshot, FindingId::ListenerInEphemeralRange)), &["ip_local_port_step_width=300"]);
    let old = found(&snapshot, &Knobs::default(), &Thresholds::default());
    assert!(!old.iter().map(actions).collect::<String>().contains("step_width"));
    snapshot.destinations = vec![destination()];
    assert_eq!(one(&snapshot, FindingId::ListenerInEphemeralRange).severity, Severity::Warning, "99 % in use");
}

#[test]
fn half_open_connections_and_conntrack() {
    let with = |syn_recv| Snapshot { listeners: vec![Listener { syn_recv, ..listener(80) }], ..snapshot() };
    let finding = one(&with(Some(500)), FindingId::SynRecvPileUp);
    has(&finding, json!({"syn_recv": 500, "port": 80, "workload": "web.service"}));
    none(&with(Some(127)), FindingId::SynRecvPileUp);
    none(&with(None), FindingId::SynRecvPileUp);
    let tracked = |now| {
        let mut snapshot = snapshot();
        snapshot.namespaces[0].conntrack = Some((now, 1_000));
        snapshot
    };
    let finding = one(&tracked(960), FindingId::ConntrackPressure);
    assert_eq!(finding.severity, Severity::Critical);
    has(&finding, json!({"conntrack_count": 960, "conntrack_max": 1_000}));
    says(&actions(&finding), &["nf_conntrack_max=2000"]);
    assert_eq!(one(&tracked(800), FindingId::ConntrackPressure).severity, Severity::Warning);
    none(&tracked(799), FindingId::ConntrackPressure);
}

#[test]
fn findings_are_bounded_and_the_worst_come_first() {
    let mut destinations: Vec<_> = (1..=12).map(|port| Destination { remote_port: port, ..exhausted() }).collect();
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
    assert_eq!(ids[..MAX_LISTED_PER_ID], [FindingId::PortExhaustion; MAX_LISTED_PER_ID]);
    assert_eq!(ids[MAX_LISTED_PER_ID..], [FindingId::PortExhaustionSoon, FindingId::ListenerInEphemeralRange]);
    has(&all[MAX_LISTED_PER_ID - 1], json!({"others": 7}));
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
    assert_eq!(found(&snapshot, &all_knobs(), &patient).len(), 1);
}

/// A destination that fails, all of whose ports are held in this way.
fn failing(change: impl FnOnce(&mut Snapshot)) -> Finding {
    let mut destination = destination();
    destination.failed = FailureCounts::from([(Failure::PortsExhausted, 7)]);
    let mut snapshot = Snapshot { destinations: vec![destination], ..snapshot() };
    change(&mut snapshot);
    one(&snapshot, FindingId::PortExhaustion)
}

/// Keep-alive and tcp_tw_reuse were advised whatever held the ports: to a black hole, to sockets that a program had shut down.
#[test]
fn advice_follows_from_what_holds_the_ports() {
    let held_in = |state: TcpState| {
        failing(|snapshot| {
            let ports = &mut snapshot.destinations[0].ports;
            ports.by_state = BTreeMap::from([(state, 28_000)]);
            ports.half_closed = if state == TcpState::FinWait2 { 28_000 } else { 0 };
        })
    };
    let unanswered = actions(&held_in(TcpState::SynSent));
    assert!(unanswered.contains("does not answer") && unanswered.contains("tcp_syn_retries"), "{unanswered}");
    let half_closed = actions(&held_in(TcpState::FinWait2));
    assert!(half_closed.contains("shutdown() without close()"), "{half_closed}");
    let unacknowledged = actions(&held_in(TcpState::LastAck));
    assert!(unacknowledged.contains("does not acknowledge"), "{unacknowledged}");
    for text in [&unanswered, &half_closed, &unacknowledged] {
        for wrong in ["keep-alive", "TIME_WAIT", "tcp_tw_reuse", "tcp_fin_timeout"] {
            assert!(!text.contains(wrong), "{wrong}: {text}");
        }
    }
    let orphans = actions(&failing(|snapshot| {
        snapshot.destinations[0].ports.by_state = BTreeMap::from([(TcpState::FinWait2, 27_000)]);
        snapshot.destinations[0].ports.orphans = 27_000;
    }));
    assert!(orphans.contains("tcp_fin_timeout") && !orphans.contains("tcp_tw_reuse"), "{orphans}");
    let blocked = failing(|snapshot| {
        snapshot.namespaces[0].blocked = 28_232;
        snapshot.namespaces[0].blocked_by.accepted = 28_232;
        snapshot.destinations[0].ports.by_state.clear();
        snapshot.destinations[0].ports.in_use = 0;
    });
    assert!(blocked.summary.contains("28232 of the 28232 ports 32768-60999 are blocked by"), "{}", blocked.summary);
    assert!(
        blocked.advice[0].why.contains("28232 by connections of listeners that are closed"),
        "{:?}",
        blocked.advice[0]
    );
}

#[test]
fn reuse_is_not_advised_where_the_peer_sends_no_timestamps() {
    let finding = failing(|snapshot| {
        snapshot.namespaces[0].tw_reuse = Some(1);
        snapshot.destinations[0].ports.without_timestamps = 27_000;
    });
    let text = actions(&finding);
    assert!(text.contains("Switch TCP timestamps on") && !text.contains("tcp_tw_reuse_delay"), "{text}");
}

#[test]
fn a_failure_while_ports_are_free_is_shown_as_a_contradiction() {
    let finding = failing(|snapshot| {
        snapshot.destinations[0].ports.contradictions = 4;
        snapshot.destinations[0].ports.free = Some(55);
        snapshot.destinations[0].ports.capacity = Some(64);
    });
    assert!(finding.summary.contains("4 connects failed though ports were free (55 of 64 now)"), "{}", finding.summary);
    has(&finding, serde_json::json!({"contradictions": 4}));
}

#[test]
fn what_the_kernel_counts_in_a_namespace_is_judged_by_the_last_minute() {
    let with = |change: &dyn Fn(&mut Namespace)| {
        let mut snapshot = snapshot();
        change(&mut snapshot.namespaces[0]);
        snapshot
    };
    let unknown = with(&|_| {});
    for id in [FindingId::AcceptQueueFull, FindingId::TimeWaitOverflow, FindingId::ConntrackPressure] {
        none(&unknown, id);
    }
    let overflows = one(&with(&|it| it.counters.listen_overflows = Some(61)), FindingId::AcceptQueueFull);
    says(&overflows.summary, &["61 handshakes were dropped within a minute because an accept queue was full"]);
    let cut = with(&|it| (it.counters.time_wait_overflows, it.max_tw_buckets) = (Some(7), Some(4_096)));
    says(&one(&cut, FindingId::TimeWaitOverflow).summary, &["7 closed connections had no TIME_WAIT", "at most 4096"]);
    let deep = with(&|it| (it.conntrack, it.conntrack_buckets) = (Some((4_000, 100_000)), Some(1_000)));
    let deep = one(&deep, FindingId::ConntrackPressure);
    assert_eq!(deep.severity, Severity::Warning);
    says(&deep.summary, &["4.0 entries on average"]);
    let nat = with(&|it| (it.conntrack, it.counters.conntrack_insert_failed) = (Some((10, 100_000)), Some(3)));
    assert_eq!(one(&nat, FindingId::ConntrackPressure).severity, Severity::Critical);
}

#[test]
fn a_proxy_that_opens_one_connection_for_each_that_it_accepts() {
    let with = |accepted, connects| {
        let workload = Workload { name: "nginx.service".into(), accepted, connects, ..Workload::default() };
        Snapshot { workloads: vec![workload], ..snapshot() }
    };
    let finding = one(&with(1_000, 990), FindingId::ProxyDoubles);
    says(
        &finding.summary,
        &["nginx.service opens one connection for each that it accepts (1000 accepted and 990 opened"],
    );
    for (accepted, connects) in [(1_000, 100), (100, 1_000), (200, 200), (0, 0)] {
        none(&with(accepted, connects), FindingId::ProxyDoubles);
    }
}

#[test]
fn a_syn_flood_is_told_apart_from_a_slow_accept() {
    let with = |queued| {
        let listener = Listener { syn_recv: Some(500), queued: Some(queued), backlog: Some(128), ..listener(80) };
        Snapshot { listeners: vec![listener], ..snapshot() }
    };
    says(&one(&with(0), FindingId::SynFlood).summary, &["its accept queue has room"]);
    none(&with(0), FindingId::SynRecvPileUp);
    let slow = one(&with(128), FindingId::AcceptQueueFull);
    says(
        &slow.summary,
        &["The accept queue of web.service[1] at [::]:80 is full: 128 connections wait, its backlog is 128"],
    );
    none(&with(128), FindingId::SynFlood);
}

/// 141 of 141 refused connects were "other reasons".
#[test]
fn other_failures_are_judged_by_rate_and_share() {
    let with = |failed: u64, connects: u64, errno: u16| {
        let failed = FailureCounts::from([(Failure::Errno(errno), failed)]);
        Snapshot { attributions: vec![Attribution { connects, failed, ..attribution(1) }], ..snapshot() }
    };
    let refused = one(&with(141, 141, crate::errno::ECONNREFUSED), FindingId::ConnectRefused);
    assert_eq!(refused.severity, Severity::Critical);
    says(&refused.summary, &["141 of 141 connects of batch.service to 10.0.0.5:3306 were refused in the last minute"]);
    let slow = one(&with(61, 62, crate::errno::ETIMEDOUT), FindingId::PeerDoesNotAnswer);
    says(&slow.summary, &["61 of 62 connects of batch.service to 10.0.0.5:3306 got no answer"]);
    assert_eq!(slow.severity, Severity::Critical);
    assert_eq!(one(&with(4, 1_000, crate::errno::EHOSTUNREACH), FindingId::PeerUnreachable).severity, Severity::Info);
    assert_eq!(one(&with(4, 40, crate::errno::ECONNRESET), FindingId::ConnectReset).severity, Severity::Warning);
    none(&with(2, 2, crate::errno::ECONNREFUSED), FindingId::ConnectRefused);
}

/// "unknown exhausts the ports ... Let unknown re-use its connections": the trace began during the incident.
#[test]
fn who_connects_now_is_named_where_the_holders_of_old_ports_are_unknown() {
    let mut destination = exhausted();
    destination.holders = vec![
        Holder { workload: "unknown".into(), ports: 27_000 },
        Holder { workload: "php-fpm: pool www".into(), ports: 1_000 },
    ];
    let here = Attribution { workload: "php-fpm: pool www".into(), connects: 118, ..attribution(9) };
    let snapshot = Snapshot { destinations: vec![destination], attributions: vec![here], ..snapshot() };
    let finding = one(&snapshot, FindingId::PortExhaustion);
    says(&finding.summary, &["php-fpm: pool www (inferred) exhausts the ports", "was not seen"]);
    says(&actions(&finding), &["Let php-fpm: pool www re-use its connections"]);
    has(&finding, json!({"holder": {"workload": "php-fpm: pool www", "inferred": true}}));
    assert!(!actions(&finding).contains("unknown"), "{finding:?}");
}

#[test]
fn the_cause_has_shares_and_the_first_sentence_names_it() {
    let finding = one(&Snapshot { destinations: vec![exhausted()], ..snapshot() }, FindingId::PortExhaustion);
    says(&finding.summary, &["27000 of 28232 ports are in TIME_WAIT after this side's close (also 1000 ESTABLISHED)"]);
    says(&finding.past, &["batch.service exhausted", "27000 of 28232 ports were in TIME_WAIT"]);
    let causes = finding.evidence.get("causes").expect("causes");
    assert_eq!((&causes[0]["cause"], &causes[0]["ports"]), (&json!("time-wait"), &json!(27_000)));
    assert!(causes[0]["share"].as_f64().is_some_and(|share| (share - 27_000.0 / 28_232.0).abs() < 1e-9), "{causes}");
    let reserved = failing(|snapshot| {
        snapshot.namespaces[0].reserved = 28_000;
        snapshot.destinations[0].ports.by_state = BTreeMap::from([(TcpState::Established, 232)]);
    });
    says(&reserved.summary, &["28000 of the 28232 ports 32768-60999 are reserved"]);
    says(&actions(&reserved), &["ip_local_reserved_ports"]);
}

/// A wider range was promised to bear a higher rate where leaked sockets held the ports.
#[test]
fn no_rate_is_promised_where_ports_are_leaked_or_wait() {
    for state in [TcpState::CloseWait, TcpState::SynSent, TcpState::LastAck] {
        let text = actions(&failing(|snapshot| {
            snapshot.destinations[0].ports.by_state = BTreeMap::from([(state, 28_000)]);
        }));
        assert!(!text.contains("ip_local_port_range") && !text.contains("/s connects"), "{state}: {text}");
    }
}

/// An unprivileged program that confines its own sockets was reported as exhaustion of the host.
#[test]
fn failures_in_a_range_of_the_sockets_own_are_no_exhaustion_of_the_namespace() {
    let mut destination = destination();
    destination.failed = FailureCounts::from([(Failure::OwnRangeExhausted, 4)]);
    destination.ports.failed_own_range = 4;
    destination.ports.own_range = Some((42_000, 42_007));
    destination.seconds_to_exhaustion = Some(5.0);
    let snapshot = Snapshot { destinations: vec![destination], ..snapshot() };
    none(&snapshot, FindingId::PortExhaustionSoon);
    let finding = one(&snapshot, FindingId::PortExhaustion);
    assert_eq!(finding.severity, Severity::Warning);
    assert!(finding.summary.contains("IP_LOCAL_PORT_RANGE 42000-42007, 8 ports"), "{}", finding.summary);
    assert!(!actions(&finding).contains("ip_local_port_range"), "{finding:?}");
}
