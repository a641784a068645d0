//! Realistic snapshots for the tests of every view, so that all of them are looked at with the same incidents.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use crate::clock::Clock;
use crate::damage::{Damage, DamageGap, DamageKind};
use crate::event::{Addr, DestinationKey, Ktime, Netns, TcpState};
use crate::host::{Degradation, HostFacts};
use crate::tracker::snapshot::{
    Advice, Attribution, CloseWaitStats, Confidence, Destination, Durations, EventCounts, Failure, FailureCounts,
    Finding, FindingId, FindingLife, FindingState, FindingSubject, Holder, Listener, Lost, Measure, Namespace,
    OtherAttributions, OtherDestinations, OtherNamespaces, Others, Peak, Ports, Process, Severity, Snapshot,
    TimeWaitStats, Victim, Workload,
};

/// Nanoseconds.
pub const SECOND: u64 = 1_000_000_000;
/// The windows of all samples begin here.
pub const START: Ktime = Ktime(1_000 * SECOND);
/// The namespace of all samples.
pub const NETNS: Netns = Netns::of_inode(4_026_532_281);

/// `START` was 2026-03-14 03:11:07 UTC.
pub fn clock() -> Clock {
    Clock::new(START, 1_773_457_867_000_000_000)
}

/// A host on which everything can be watched.
pub fn host() -> HostFacts {
    HostFacts {
        hostname: Some("web-07".into()),
        kernel: Some("6.12.107-amd64".into()),
        boot_id: Some("7b6c9f0e-1a52-4c52-9f0e-3a8f2f1c77aa".into()),
        tier: Some("exact".into()),
        degraded: Vec::new(),
    }
}

/// A host whose `TIME_WAIT` cannot be traced.
pub fn degraded_host() -> HostFacts {
    HostFacts {
        tier: Some("tracepoint".into()),
        degraded: vec![Degradation {
            what: "TIME_WAIT hooks".into(),
            why: "/proc/kallsyms hides addresses (kptr_restrict=2)".into(),
            lost: "early ends of TIME_WAIT; they are inferred and reconciled every 10 s".into(),
        }],
        ..host()
    }
}

/// An address as tests write it.
#[expect(clippy::missing_panics_doc, reason = "for tests, which write addresses")]
pub fn addr(text: &str) -> Addr {
    text.parse::<std::net::IpAddr>().expect("an address").into()
}

fn name(text: &str) -> Arc<str> {
    text.into()
}

fn durations(count: u64, p50: f64) -> Durations {
    let of = |factor: f64| Some(p50 * factor);
    Durations { count, min: of(0.5), mean: of(1.25), p50: of(1.0), p90: of(2.0), p99: of(4.0), max: of(8.0) }
}

fn exhausted(count: u64) -> FailureCounts {
    FailureCounts::from([(Failure::PortsExhausted, count)])
}

fn occupancy(capacity: u32, established: u32, time_wait: u32, peak: u32) -> Ports {
    let in_use = established + time_wait;
    Ports {
        range: Some((40_000, 41_023)),
        capacity: Some(capacity),
        in_use,
        free: Some(capacity.saturating_sub(in_use)),
        peak,
        utilisation: Some(f64::from(in_use) / f64::from(capacity)),
        by_state: BTreeMap::from([(TcpState::Established, established), (TcpState::TimeWait, time_wait)]),
        ..Ports::default()
    }
}

/// A crawler and a port scan beside the service of most samples.
fn rests() -> Others {
    let failed = FailureCounts::from([(Failure::Errno(111), 700), (Failure::OwnRangeExhausted, 12)]);
    let time_wait = TimeWaitStats { entered: 8_000, now: 1_150, peak: 4_000, per_second: 266.7, reused: 0 };
    Others {
        destinations: vec![OtherDestinations {
            netns: NETNS,
            netns_name: Some(name("web")),
            destinations: 12_345,
            in_use: 1_200,
            outside_range: 3,
            by_state: BTreeMap::from([(TcpState::Established, 50), (TcpState::TimeWait, 1_150)]),
            connects: 48_000,
            established: 47_288,
            failed: failed.clone(),
            connects_per_second: 1_600.0,
            time_wait,
        }],
        attributions: vec![OtherAttributions {
            workload: name("crawler.service"),
            netns: NETNS,
            connects: 48_000,
            established: 47_288,
            failed,
            active_closes: 8_000,
            time_wait,
            close_wait: CloseWaitStats::default(),
            ports_held: 1_203,
        }],
        namespaces: OtherNamespaces { namespaces: 904, time_wait_ledger: 17, time_wait_inferred: 2 },
    }
}

/// The destination of most samples, with these ports and nothing that has happened yet.
pub fn destination(ports: Ports) -> Destination {
    Destination {
        netns: NETNS,
        netns_name: Some(name("web")),
        local_addr: addr("10.66.0.1"),
        remote_addr: addr("10.66.0.2"),
        remote_port: 8443,
        ports,
        connects: 0,
        established: 0,
        failed: FailureCounts::default(),
        first_failure: None,
        last_failure: None,
        failing_since: None,
        counted_since: None,
        connects_per_second: 0.0,
        sustainable_per_second: None,
        exhaustion_probability: None,
        seconds_to_exhaustion: None,
        exhaustion_soonest_seconds: None,
        exhaustion_latest_seconds: None,
        forecast_confidence: None,
        port_search_ms: Durations::default(),
        port_search_recent_ms: None,
        port_search_quickest_ms: None,
        holders: Vec::new(),
        victims: Vec::new(),
    }
}

/// A process that has done nothing yet towards the destination of most samples.
pub fn attribution(workload: &str, pid: u32, cmdline: &str) -> Attribution {
    Attribution {
        workload: name(workload),
        pid,
        comm: name(cmdline.rsplit('/').next().unwrap_or_default()),
        uid: Some(33),
        cmdline: Some(name(cmdline)),
        netns: NETNS,
        local_addr: addr("10.66.0.1"),
        remote_addr: addr("10.66.0.2"),
        remote_port: 8443,
        connects: 0,
        established: 0,
        failed: FailureCounts::default(),
        first_failure: None,
        last_failure: None,
        connects_per_second: 0.0,
        accepted: 0,
        closed: 0,
        active_closes: 0,
        passive_closes: 0,
        resets: 0,
        flows: 0,
        time_wait: TimeWaitStats::default(),
        close_wait: CloseWaitStats::default(),
        lifetime_ms: Durations::default(),
        connect_ms: Durations::default(),
        ports_held: 0,
        oldest_established_seconds: None,
        held_by: Vec::new(),
        by_state: BTreeMap::new(),
        orphans: 0,
        half_closed: 0,
        inferred: false,
    }
}

fn workload(text: &str, pids: &[(u32, &str)]) -> Workload {
    let process = |&(pid, cmdline): &(u32, &str)| Process { pid, cmdline: Some(name(cmdline)), ..Process::default() };
    Workload {
        name: name(text),
        comm: Some(name("python3")),
        exe: Some(name("/usr/bin/python3")),
        unit: Some(name(text)),
        cgroup: Some(format!("/system.slice/{text}").into()),
        netns: vec![NETNS],
        pids: pids.iter().map(process).collect(),
        ..Workload::default()
    }
}

fn namespace() -> Namespace {
    Namespace {
        netns: NETNS,
        name: Some(name("web")),
        port_range: Some((40_000, 41_023)),
        capacity: Some(1_024),
        tw_reuse: Some(2),
        timestamps: Some(true),
        max_tw_buckets: Some(262_144),
        fin_timeout_ms: Some(60_000),
        time_wait_kernel: Some(982),
        time_wait_ledger: 982,
        ..Namespace::default()
    }
}

fn snapshot(seconds: u64) -> Snapshot {
    Snapshot {
        generation: 7,
        start: START,
        now: START.plus(seconds * SECOND),
        events: EventCounts { read: 45_210, ..EventCounts::default() },
        namespaces: vec![namespace()],
        ..Snapshot::default()
    }
}

const BYPASS: &str = "/usr/bin/python3 /srv/shop/bypass.py --upstream 10.66.0.2:8443";
const POOL: &str = "/usr/bin/python3 /srv/shop/pool.py --size 42";

/// A pool of long connections shares 1,024 ports with a job that opens one per request; both suffer.
#[expect(clippy::too_many_lines, reason = "one literal")]
pub fn exhaustion() -> Snapshot {
    let bypass_time_wait = TimeWaitStats { entered: 2_561, now: 982, peak: 982, per_second: 85.4, reused: 0 };
    Snapshot {
        workloads: vec![
            Workload {
                connects: 3_661,
                established: 2_561,
                failed: exhausted(1_100),
                closed: 2_561,
                active_closes: 2_561,
                time_wait: bypass_time_wait,
                lifetime_ms: durations(2_561, 2.1),
                connect_ms: durations(2_561, 0.4),
                ports_held: 982,
                connects_per_second: 122.0,
                ..workload("bypass.service", &[(4211, BYPASS), (4212, BYPASS)])
            },
            Workload {
                connects: 146,
                established: 42,
                failed: exhausted(104),
                ports_held: 42,
                connects_per_second: 4.9,
                ..workload("pool.service", &[(4001, POOL)])
            },
        ],
        destinations: vec![Destination {
            connects: 3_807,
            established: 2_603,
            failed: FailureCounts::from([
                (Failure::PortsExhausted, 1_204),
                (Failure::TupleTaken, 3),
                (Failure::Errno(110), 1),
            ]),
            first_failure: Some(START.plus(12 * SECOND + 204_000_000)),
            last_failure: Some(START.plus(30 * SECOND - 2_000_000)),
            failing_since: Some(START.plus(12 * SECOND + 204_000_000)),
            counted_since: None,
            connects_per_second: 126.9,
            sustainable_per_second: Some(16.1),
            exhaustion_probability: Some(1.0),
            seconds_to_exhaustion: Some(0.0),
            exhaustion_soonest_seconds: Some(0.0),
            exhaustion_latest_seconds: Some(0.0),
            forecast_confidence: Some(Confidence::High),
            port_search_ms: Durations::default(),
            port_search_recent_ms: None,
            port_search_quickest_ms: None,
            holders: vec![
                Holder { workload: name("bypass.service"), ports: 982 },
                Holder { workload: name("pool.service"), ports: 42 },
            ],
            victims: vec![
                Victim { workload: name("bypass.service"), failed: 1_100, failed_own_range: 0, uids: vec![33] },
                Victim { workload: name("pool.service"), failed: 104, failed_own_range: 0, uids: vec![33, 1000] },
            ],
            ..destination(occupancy(1_024, 42, 982, 1_024))
        }],
        attributions: vec![
            Attribution {
                connects_per_second: 66.7,
                connects: 2_000,
                established: 1_400,
                failed: exhausted(600),
                active_closes: 1_400,
                time_wait: TimeWaitStats { entered: 1_400, now: 540, peak: 540, per_second: 46.7, reused: 0 },
                lifetime_ms: durations(1_400, 2.1),
                ports_held: 540,
                by_state: BTreeMap::from([(TcpState::TimeWait, 540)]),
                ..attribution("bypass.service", 4211, BYPASS)
            },
            Attribution {
                connects_per_second: 55.3,
                connects: 1_661,
                established: 1_161,
                failed: exhausted(500),
                active_closes: 1_161,
                time_wait: TimeWaitStats { entered: 1_161, now: 442, peak: 442, per_second: 38.7, reused: 0 },
                lifetime_ms: durations(1_161, 2.2),
                ports_held: 442,
                by_state: BTreeMap::from([(TcpState::TimeWait, 442)]),
                inferred: true,
                ..attribution("bypass.service", 4212, BYPASS)
            },
            Attribution {
                connects_per_second: 4.9,
                connects: 146,
                established: 42,
                failed: exhausted(104),
                ports_held: 42,
                oldest_established_seconds: Some(612.0),
                by_state: BTreeMap::from([(TcpState::Established, 42)]),
                ..attribution("pool.service", 4001, POOL)
            },
        ],
        listeners: vec![Listener {
            netns: NETNS,
            addr: addr("0.0.0.0"),
            port: 40_080,
            workload: Some(name("nginx.service")),
            pid: None,
            accepted: 12,
            queued: Some(0),
            backlog: Some(128),
            close_wait: Some(0),
            in_ephemeral_range: true,
            syn_recv: None,
        }],
        findings: vec![
            exhaustion_finding(),
            Finding {
                evidence: BTreeMap::from([("port", json!(40_080))]),
                ..Finding::new(
                    FindingId::ListenerInEphemeralRange,
                    FindingSubject::Namespace(NETNS),
                    Severity::Info,
                    "nginx.service listens on port 40080 inside the ephemeral port range 40000-41023".into(),
                )
            },
        ],
        flows: 42,
        time_wait: 982,
        ..snapshot(30)
    }
}

fn exhaustion_finding() -> Finding {
    let began = START.plus(12 * SECOND + 204_000_000);
    Finding {
        past: "bypass.service exhausted the ports towards 10.66.0.2:8443".into(),
        since: Some(began),
        until: Some(START.plus(30 * SECOND - 2_000_000)),
        measure: Measure { value: 1_204.0, unit: "failures/min", weight: 1_204.0, total: Some(1_204), recent: 67 },
        life: FindingLife {
            state: FindingState::Active,
            began: Some(began),
            ended: None,
            peak: Some(Peak { value: 1_204.0, unit: "failures/min", at: START.plus(30 * SECOND) }),
            total: Some(1_204),
        },
        evidence: BTreeMap::from([("in_use", json!(1_024)), ("capacity", json!(1_024))]),
        advice: vec![
            Advice {
                action: "let bypass.service keep its connections to 10.66.0.2:8443 (HTTP keep-alive or a pool)".into(),
                why: "2,561 of its connections lived 2.1 ms (median) and each left a TIME_WAIT of 60 s".into(),
                expected: "about 85 TIME_WAIT per second fewer; 42 ports in use instead of 1,024".into(),
            },
            Advice {
                action: "sysctl -w net.ipv4.ip_local_port_range='32768 60999'".into(),
                why: "the range 40000-41023 has 1,024 ports".into(),
                expected: "capacity 28,232; bears 463 connects/s instead of 16.1/s".into(),
            },
        ],
        ..Finding::new(
            FindingId::PortExhaustion,
            FindingSubject::Destination(destination(Ports::default()).key()),
            Severity::Critical,
            "bypass.service exhausts the ports towards 10.66.0.2:8443".into(),
        )
    }
}

/// Nothing has failed yet, but it will within a minute.
pub fn forecast() -> Snapshot {
    Snapshot {
        destinations: vec![Destination {
            connects: 731,
            established: 731,
            connects_per_second: 24.4,
            sustainable_per_second: Some(16.9),
            exhaustion_probability: Some(0.99),
            seconds_to_exhaustion: Some(39.1),
            exhaustion_soonest_seconds: Some(33.6),
            exhaustion_latest_seconds: Some(58.0),
            forecast_confidence: Some(Confidence::Medium),
            port_search_ms: Durations::default(),
            port_search_recent_ms: None,
            port_search_quickest_ms: None,
            holders: vec![Holder { workload: name("bypass.service"), ports: 731 }],
            ..destination(occupancy(1_024, 1, 730, 731))
        }],
        attributions: vec![Attribution {
            connects: 731,
            established: 731,
            active_closes: 730,
            time_wait: TimeWaitStats { entered: 730, now: 730, peak: 730, per_second: 24.3, reused: 0 },
            lifetime_ms: durations(730, 3.4),
            ports_held: 731,
            by_state: BTreeMap::from([(TcpState::Established, 1), (TcpState::TimeWait, 730)]),
            ..attribution("bypass.service", 4211, BYPASS)
        }],
        workloads: vec![Workload {
            connects: 731,
            established: 731,
            closed: 730,
            active_closes: 730,
            time_wait: TimeWaitStats { entered: 730, now: 730, peak: 730, per_second: 24.3, reused: 0 },
            lifetime_ms: durations(730, 3.4),
            ports_held: 731,
            connects_per_second: 24.4,
            ..workload("bypass.service", &[(4211, BYPASS)])
        }],
        findings: vec![Finding {
            since: Some(START.plus(21 * SECOND)),
            measure: Measure { value: 731.0, unit: "ports in use", weight: 731.0, total: None, recent: 0 },
            life: FindingLife {
                began: Some(START.plus(21 * SECOND)),
                peak: Some(Peak { value: 731.0, unit: "ports in use", at: START.plus(30 * SECOND) }),
                ..FindingLife::default()
            },
            ..Finding::new(
                FindingId::PortExhaustionSoon,
                FindingSubject::Destination(destination(Ports::default()).key()),
                Severity::Warning,
                "Local ports towards 10.66.0.2:8443 run out in about 39 s at 24.4 connects/s (last 10 s), where 17/s can be \
                 sustained. bypass.service fills them: 730 of 1024 ports are in TIME_WAIT after this side's close."
                    .into(),
            )
        }],
        flows: 1,
        time_wait: 730,
        ..snapshot(30)
    }
}

/// A quiet host.
pub fn quiet() -> Snapshot {
    Snapshot {
        destinations: vec![Destination {
            connects: 1,
            established: 1,
            connects_per_second: 0.03,
            holders: vec![Holder { workload: name("backup.service"), ports: 12 }],
            ..destination(occupancy(28_232, 12, 0, 14))
        }],
        workloads: vec![Workload {
            connects: 1,
            established: 1,
            ports_held: 12,
            lifetime_ms: durations(1, 61_000.0),
            connects_per_second: 0.03,
            ..workload("backup.service", &[(812, "/usr/sbin/backupd")])
        }],
        flows: 12,
        ..snapshot(30)
    }
}

/// One batch of the file cannot be read.
fn damage() -> Damage {
    let mut damage =
        Damage::new(DamageKind::Corrupt, "a batch is not as it was written (its checksum differs)", 61_440);
    (damage.bytes, damage.rows) = (51_204, 16_384);
    damage.gap(DamageGap { from: START.plus(4 * SECOND), to: START.plus(5 * SECOND) });
    damage
}

/// The incident, watched badly: events lost, `TIME_WAIT` inferred, no limits known.
pub fn lossy() -> Snapshot {
    let mut snapshot = exhaustion();
    snapshot.events.lost = Lost { ring_full: 1_234, missed_runs: 1, other_runs: 0, recorder: 0 };
    snapshot.events.skipped = 2;
    snapshot.damage = Some(damage());
    snapshot.events.evicted = 17;
    snapshot.events.lag_ms = Some(2_300);
    snapshot.events.lag_peak_ms = Some(4_100);
    snapshot.events.details_skipped = 12_000;
    snapshot.others = rests();
    snapshot.events.repaired = 31;
    for namespace in &mut snapshot.namespaces {
        *namespace = Namespace { netns: NETNS, time_wait_ledger: 982, time_wait_inferred: 40, ..Namespace::default() };
    }
    for destination in &mut snapshot.destinations {
        destination.netns_name = None;
        destination.ports.range = None;
        destination.ports.capacity = None;
        destination.ports.utilisation = None;
        destination.sustainable_per_second = None;
        destination.seconds_to_exhaustion = None;
        destination.forecast_confidence = None;
    }
    snapshot
}

/// A service forgets to close what its peer has closed.
pub fn close_wait_leak() -> Snapshot {
    let leak = CloseWaitStats { now: 4_812, peak: 4_812, oldest_seconds: Some(7_384.0) };
    let mut snapshot = quiet();
    snapshot.workloads.insert(
        0,
        Workload {
            accepted: 4_900,
            passive_closes: 88,
            closed: 88,
            close_wait: leak,
            lifetime_ms: durations(88, 412.0),
            ..workload("orders.service", &[(990, "/usr/bin/java -jar orders.jar")])
        },
    );
    snapshot.findings.push(Finding {
        since: Some(START.plus(SECOND)),
        measure: Measure { value: 4_812.0, unit: "sockets", weight: 4_812.0, total: None, recent: 0 },
        life: FindingLife {
            began: Some(START.plus(SECOND)),
            peak: Some(Peak { value: 4_812.0, unit: "sockets", at: START.plus(30 * SECOND) }),
            ..FindingLife::default()
        },
        evidence: BTreeMap::from([("now", json!(4_812))]),
        advice: vec![Advice {
            action: "find the code path in orders.service that drops a response without closing it".into(),
            why: "CLOSE_WAIT has no timeout: only close() ends it".into(),
            expected: "CLOSE_WAIT falls to 0; a restart empties it at once, for about 2 h".into(),
        }],
        ..Finding::new(
            FindingId::CloseWaitLeak,
            FindingSubject::Workload(name("orders.service")),
            Severity::Warning,
            "orders.service (pid 990) holds 4,812 sockets in CLOSE_WAIT, the oldest for 2 h 3 min: \
             its peers have closed and it never does"
                .into(),
        )
    });
    snapshot
}

/// Long addresses, long names, foreign letters, numbers at their limits.
pub fn nasty() -> Snapshot {
    let endless = "a-very-long-workload-name-without-any-space-that-goes-on-and-on-and-on-and-on-and-on-and-on.service";
    let cmdline = "/opt/vendor/produit-\u{e9}t\u{e9}/\u{65e5}\u{672c}/bin/server --config=/etc/vendor/very/deep/path/server.conf --verbose";
    let mut snapshot = exhaustion();
    snapshot.now = START.plus(400 * 86_400 * SECOND);
    snapshot.events = EventCounts {
        read: u64::MAX,
        lost: Lost { ring_full: u64::MAX, missed_runs: u64::MAX, other_runs: u64::MAX, recorder: u64::MAX },
        skipped: u64::MAX,
        evicted: u64::MAX,
        repaired: u64::MAX,
        duplicates: u64::MAX,
        lag_ms: Some(u64::MAX),
        lag_peak_ms: Some(u64::MAX),
        details_skipped: u64::MAX,
    };
    let big = TimeWaitStats { entered: u64::MAX, now: u64::MAX, peak: u64::MAX, per_second: 1e15, reused: u64::MAX };
    for destination in &mut snapshot.destinations {
        destination.netns = Netns::of_inode(u32::MAX);
        destination.netns_name = Some(name(endless));
        destination.local_addr = addr("2001:db8:aaaa:bbbb:cccc:dddd:eeee:1111");
        destination.remote_addr = addr("2001:db8:aaaa:bbbb:cccc:dddd:eeee:2222");
        destination.remote_port = u16::MAX;
        destination.ports = Ports {
            in_use: u32::MAX,
            peak: u32::MAX,
            utilisation: Some(f64::from(u32::MAX) / 1_024.0),
            by_state: TcpState::ALL.into_iter().map(|state| (state, u32::MAX)).collect(),
            ..destination.ports.clone()
        };
        destination.failed = FailureCounts::from([
            (Failure::PortsExhausted, u64::MAX),
            (Failure::TupleTaken, u64::MAX),
            (Failure::NoLocalAddress, u64::MAX),
            (Failure::BindExhausted, u64::MAX),
            (Failure::Aborted, u64::MAX),
            (Failure::Errno(111), u64::MAX),
            (Failure::Errno(u16::MAX), u64::MAX),
            (Failure::Unknown, u64::MAX),
        ]);
        destination.connects_per_second = 1e15;
        destination.sustainable_per_second = Some(f64::NAN);
        destination.seconds_to_exhaustion = Some(1e15);
        for holder in &mut destination.holders {
            holder.workload = name(endless);
            holder.ports = u32::MAX;
        }
        for victim in &mut destination.victims {
            victim.workload = name(endless);
            victim.failed = u64::MAX;
        }
    }
    for attribution in &mut snapshot.attributions {
        attribution.netns = Netns::of_inode(u32::MAX);
        attribution.local_addr = addr("2001:db8:aaaa:bbbb:cccc:dddd:eeee:1111");
        attribution.remote_addr = addr("2001:db8:aaaa:bbbb:cccc:dddd:eeee:2222");
        attribution.remote_port = u16::MAX;
        attribution.workload = name(endless);
        attribution.cmdline = Some(name(cmdline));
        attribution.pid = u32::MAX;
        attribution.inferred = true;
        attribution.failed = exhausted(u64::MAX);
        attribution.ports_held = u32::MAX;
        attribution.time_wait = big;
        attribution.lifetime_ms = durations(u64::MAX, 1e15);
    }
    for workload in &mut snapshot.workloads {
        workload.name = name(endless);
        workload.netns = vec![Netns::of_inode(0)];
        workload.pids.push(Process { pid: 0, cmdline: Some(name(cmdline)), connects: u64::MAX, failed: exhausted(1) });
        workload.connects = u64::MAX;
        workload.connects_per_second = 1e15;
        workload.failed = exhausted(u64::MAX);
        workload.time_wait = big;
        workload.close_wait = CloseWaitStats { now: u64::MAX, peak: u64::MAX, oldest_seconds: Some(f64::INFINITY) };
        workload.lifetime_ms = durations(u64::MAX, 1e15);
    }
    for finding in &mut snapshot.findings {
        finding.summary = format!("{endless} \u{2192} {cmdline}\u{1b}[2J");
    }
    snapshot
}

/// The exhaustion is over, and another destination is filling up.
pub fn over() -> Snapshot {
    let mut snapshot = forecast();
    snapshot.now = START.plus(300 * SECOND);
    for destination in &mut snapshot.destinations {
        destination.remote_addr = addr("10.66.0.3");
    }
    for attribution in &mut snapshot.attributions {
        attribution.remote_addr = addr("10.66.0.3");
    }
    for finding in &mut snapshot.findings {
        let place = DestinationKey { remote_addr: addr("10.66.0.3"), ..destination(Ports::default()).key() };
        finding.subject = FindingSubject::Destination(place);
        finding.summary = finding.summary.replace("10.66.0.2", "10.66.0.3");
        finding.since = Some(START.plus(280 * SECOND));
        finding.life.began = finding.since;
    }
    snapshot.destinations.push(Destination {
        connects: 3_807,
        established: 2_603,
        failed: exhausted(1_204),
        first_failure: Some(START.plus(12 * SECOND)),
        last_failure: Some(START.plus(161 * SECOND)),
        failing_since: Some(START.plus(12 * SECOND)),
        victims: vec![Victim { workload: name("bypass.service"), failed: 1_204, ..Victim::default() }],
        ..destination(occupancy(1_024, 0, 0, 1_024))
    });
    let mut past = exhaustion_finding();
    past.summary =
        "bypass.service exhausted the ports towards 10.66.0.2:8443: 982 of 1024 ports were in TIME_WAIT after this \
                    side's close (also 42 ESTABLISHED)."
            .into();
    past.life = FindingLife {
        state: FindingState::Past,
        began: Some(START.plus(12 * SECOND)),
        ended: Some(START.plus(161 * SECOND)),
        peak: Some(Peak { value: 841.0, unit: "failures/min", at: START.plus(90 * SECOND) }),
        total: Some(1_204),
    };
    snapshot.findings.push(past);
    snapshot
}

/// All of them with their hosts, by name.
pub fn all() -> Vec<(&'static str, Snapshot, HostFacts)> {
    vec![
        ("empty", Snapshot::default(), HostFacts::default()),
        ("exhaustion", exhaustion(), host()),
        ("forecast", forecast(), host()),
        ("over", over(), host()),
        ("quiet", quiet(), host()),
        ("lossy", lossy(), degraded_host()),
        ("close_wait", close_wait_leak(), host()),
        ("nasty", nasty(), degraded_host()),
    ]
}
