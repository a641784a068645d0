//! What a destination can hold, and how long it will.

use super::*;

#[test]
fn capacity_is_the_range_in_force_without_reserved_bound_and_listening_ports() {
    let mut lab = Lab::new();
    lab.connect(1, 32_768);
    assert_eq!(lab.only_dest().ports.capacity, Some(8));
    lab.ingest(&Event::Netns(Box::new(NetnsFacts {
        netns: NETNS,
        port_range: Some((32_768, 32_776)),
        ..NetnsFacts::default()
    })));
    assert_eq!(lab.only_dest().ports.capacity, Some(9), "an odd range has its whole size");
    lab.ingest(&Event::ReservedPorts(Ktime(0), NETNS, Arc::from([80, 32_769])));
    assert_eq!(lab.only_dest().ports.capacity, Some(8));
    let mut listener = Sock { port: 32_771, remote: Endpoint { addr: Addr::UNSPECIFIED, port: 0 }, ..Lab::socket(5) };
    lab.to(&mut listener, Listen);
    assert_eq!(lab.only_dest().ports.capacity, Some(7));
    assert!(lab.tracker.snapshot().listeners[0].in_ephemeral_range);
    listener.last_port = 32_771;
    lab.to(&mut listener, Close);
    assert_eq!(lab.only_dest().ports.capacity, Some(8));
}

#[test]
fn a_bound_port_is_blocked_for_others_until_its_socket_is_destroyed() {
    let mut lab = Lab::new();
    lab.connect(1, 32_768);
    let id = SocketId { cookie: None, sock: 42 };
    let key = FlowKey {
        netns: NETNS,
        device: 0,
        local: Endpoint { addr: addr(1), port: 32_770 },
        remote: Endpoint { addr: Addr::UNSPECIFIED, port: 0 },
    };
    let event = SocketEvent { ktime: Ktime(lab.now), id, key, pid: 100, tid: 100, named: None, listener: None };
    lab.ingest(&Event::Bound(event));
    assert_eq!(lab.only_dest().ports.capacity, Some(7));
    lab.ingest(&Event::Released(event));
    assert_eq!(lab.only_dest().ports.capacity, Some(8));
}

#[test]
fn a_port_bound_before_connect_counts_for_its_own_destination_alone() {
    let mut lab = Lab::new();
    let mut sock = Sock { port: 32_770, last_port: 32_770, ..Lab::socket(1) };
    lab.to(&mut sock, SynSent);
    lab.to(&mut sock, Established);
    let own = lab.only_dest().ports;
    assert_eq!((own.capacity, own.in_use), (Some(8), 1), "nobody else gets it, and it holds it");
    let other = Endpoint { addr: addr(3), port: 443 };
    lab.to(&mut Sock { remote: other, ..Lab::socket(2) }, SynSent);
    let snapshot = lab.tracker.snapshot();
    let of_other = snapshot.destinations.iter().find(|dest| dest.remote_addr == other.addr).expect("the other");
    assert_eq!(of_other.ports.capacity, Some(7));
}

fn limits(lab: &mut Lab, range: (u16, u16)) {
    let facts = NetnsFacts { netns: NETNS, port_range: Some(range), tw_reuse: Some(0), ..NetnsFacts::default() };
    lab.ingest(&Event::Netns(Box::new(facts)));
    // Ports are classified anew at most every 100 ms.
    lab.pass(200 * MS);
}

/// 64 TIME_WAITs in 40000-40063, then the range moved to 50000-50063: the report said "exhausted now" with 64 ports free.
#[test]
fn ports_of_a_former_range_cost_nothing() {
    let mut lab = Lab::new();
    for n in 0..8_u16 {
        let mut sock = lab.connect(u64::from(n) + 1, 32_768 + n);
        lab.close(&mut sock);
    }
    lab.exhausted(9);
    limits(&mut lab, (50_000, 50_063));
    let ports = lab.only_dest().ports;
    assert_eq!((ports.in_use, ports.capacity, ports.free, ports.outside_range), (0, Some(64), Some(64), 8));
    assert_eq!(ports.utilisation, Some(0.0));
    lab.connect(20, 50_000);
    let ports = lab.only_dest().ports;
    assert_eq!((ports.in_use, ports.free, ports.outside_range), (1, Some(63), 8));
    // Back again, with the entries still there.
    limits(&mut lab, (32_768, 32_775));
    let ports = lab.only_dest().ports;
    assert_eq!((ports.in_use, ports.capacity, ports.outside_range), (8, Some(8), 1));
}

/// 32 connections, then 32 of the 64 ports were reserved: capacity stayed at 64 for half a minute.
#[test]
fn reserved_ports_that_are_in_use_still_serve_here() {
    let mut lab = Lab::new();
    for n in 0..4_u16 {
        lab.connect(u64::from(n) + 1, 32_768 + n);
    }
    lab.ingest(&Event::ReservedPorts(Ktime(0), NETNS, (32_768..32_776).step_by(2).collect()));
    lab.pass(200 * MS);
    let ports = lab.only_dest().ports;
    // Free: the odd ones of 32772-32775. Two of the four in use are reserved by now.
    assert_eq!((ports.in_use, ports.capacity, ports.free), (4, Some(6), Some(2)));
}

/// 64 times bind, listen, accept, close the listener: every connect() of the namespace failed, with 0 ports in use.
#[test]
fn accepted_connections_keep_the_port_of_their_closed_listener_from_everybody() {
    let mut lab = Lab::new();
    lab.connect(1, 32_768);
    let mut listener = Sock { port: 32_771, pid: 200, ..Lab::socket(5) };
    lab.to(&mut listener, Listen);
    let mut child = Sock { port: 32_771, last_port: 32_771, state: SynRecv, pid: 200, ..Lab::socket(6) };
    lab.to(&mut child, Established);
    listener.last_port = 32_771;
    lab.to(&mut listener, Close);
    let blocked = |lab: &Lab| {
        let namespace = lab.tracker.snapshot().namespaces[0].clone();
        (namespace.blocked, namespace.blocked_by.accepted, namespace.blocked_by.lingering)
    };
    assert_eq!((blocked(&lab), lab.only_dest().ports.capacity), ((1, 1, 0), Some(7)));
    lab.close(&mut child);
    assert_eq!((blocked(&lab), lab.only_dest().ports.capacity), ((1, 0, 1), Some(7)));
    lab.timer(&child, false, true);
    assert_eq!((blocked(&lab), lab.only_dest().ports.capacity), ((0, 0, 0), Some(8)));
}

/// bind(addr, 0) is no lock: 40 such sockets, all closed, left 40 ports blocked for ever.
#[test]
fn a_port_that_bind_chose_is_free_when_its_socket_closes() {
    let mut lab = Lab::new();
    let mut sock = Sock { port: 32_770, last_port: 32_770, ..Lab::socket(1) };
    lab.to(&mut sock, SynSent);
    lab.to(&mut sock, Established);
    // The kernel shows no port at ->CLOSE: it has released it.
    lab.fails(&mut sock, Close, 104);
    let snapshot = lab.tracker.snapshot();
    assert_eq!((snapshot.namespaces[0].blocked, lab.only_dest().ports.capacity), (0, Some(8)));
}

/// Started late, 32 bound and connected sockets of 64 ports: capacity 64 was reported, and no reason for the failures.
#[test]
fn sockets_bound_before_the_start_block_their_ports_for_others() {
    let mut lab = Lab::new();
    let bound =
        |cookie, port| SocketRow { named: Some(true), closed: Some(true), ..Lab::row(cookie, port, Established) };
    let time_wait =
        SocketRow { closed: Some(true), timestamps: Some(false), ..Lab::row(3, 32_770, TcpState::TimeWait) };
    lab.list(&[bound(1, 32_768), bound(2, 32_769), time_wait], true);
    let snapshot = lab.tracker.snapshot();
    let by = snapshot.namespaces[0].blocked_by;
    assert_eq!((snapshot.namespaces[0].blocked, by.bound, by.lingering), (3, 2, 1));
    let ports = lab.only_dest().ports;
    assert_eq!((ports.capacity, ports.in_use, ports.without_timestamps), (Some(8), 3, 1), "they serve here");
    let other = Endpoint { addr: addr(3), port: 443 };
    lab.to(&mut Sock { remote: other, ..Lab::socket(9) }, SynSent);
    let snapshot = lab.tracker.snapshot();
    let of_other = snapshot.destinations.iter().find(|dest| dest.remote_addr == other.addr).expect("the other");
    assert_eq!(of_other.ports.capacity, Some(5));
}

/// A socket that was bound and idle before the start was invisible; one whose end was lost blocked its port for ever.
#[test]
fn an_idle_bound_socket_blocks_its_port_while_the_lists_have_it() {
    let mut lab = Lab::new();
    lab.connect(1, 32_768);
    let connected = Lab::row(1, 32_768, Established);
    let idle = SocketRow { named: Some(true), closed: Some(true), ..Lab::row(2, 32_770, Close) };
    lab.list(&[connected, idle], true);
    assert_eq!((lab.only_dest().ports.capacity, lab.tracker.snapshot().listeners.len()), (Some(7), 0));
    lab.list(&[connected, idle], false);
    assert_eq!(lab.only_dest().ports.capacity, Some(7));
    lab.list(&[connected], false);
    assert_eq!(lab.only_dest().ports.capacity, Some(8), "it is gone, though nothing was heard of that");
}

#[test]
fn a_failure_while_a_port_is_free_is_a_contradiction() {
    let mut lab = Lab::new();
    lab.list(&[], true);
    for n in 0..8_u16 {
        lab.connect(u64::from(n) + 1, 32_768 + n);
    }
    let failed = lab.exhausted(9);
    lab.returned(&failed, 99);
    assert_eq!((lab.only_dest().ports.contradictions, lab.only_dest().ports.free), (0, Some(0)));
    let mut lab = Lab::new();
    lab.list(&[], true);
    lab.connect(1, 32_768);
    // Long after anything was released.
    lab.pass(SECOND);
    let failed = lab.exhausted(9);
    lab.returned(&failed, 99);
    let ports = lab.only_dest().ports;
    assert_eq!((ports.contradictions, ports.free), (1, Some(7)));
}

#[test]
fn a_failure_in_the_sockets_own_range_is_told_apart() {
    let mut lab = Lab::new();
    lab.list(&[], true);
    let mut sock = Lab::socket(1);
    lab.to(&mut sock, SynSent);
    lab.now += 1000;
    let transition = Transition { own_range: Some((32_768, 32_769)), ..lab.raw(&sock, Close, 0) };
    lab.ingest(&Event::Transition(transition));
    lab.tracker.finish();
    let dest = lab.only_dest();
    assert_eq!((dest.failed.of(Failure::OwnRangeExhausted), dest.failed.of(Failure::PortsExhausted)), (1, 0));
    assert_eq!((dest.ports.own_range, dest.ports.contradictions), (Some((32_768, 32_769)), 0));
}

#[test]
fn the_forecast_knows_what_will_be_released() {
    let mut lab = Lab::new();
    lab.ingest(&Event::Netns(Box::new(NetnsFacts {
        netns: NETNS,
        port_range: Some((1024, 2023)),
        tw_reuse: Some(0),
        ..NetnsFacts::default()
    })));
    // Ten a second, each closed at once: steady state is about 610 of 1000 ports. Never exhausted.
    for n in 0..300_u16 {
        let mut sock = lab.connect(u64::from(n) + 1, 1024 + n);
        lab.close(&mut sock);
        lab.pass(SECOND / 10);
    }
    let dest = lab.only_dest();
    assert!((dest.connects_per_second - 10.0).abs() < 0.5, "{}", dest.connects_per_second);
    let sustainable = dest.sustainable_per_second.expect("known");
    assert!((sustainable - 1000.0 / 61.0).abs() < 0.5, "{sustainable}");
    assert_eq!(dest.seconds_to_exhaustion, None);
    // Thirty a second: 400 ports are left in use after ten more seconds; the rest goes in well under a minute.
    for n in 300..600_u16 {
        let mut sock = lab.connect(u64::from(n) + 1, 1024 + n);
        lab.close(&mut sock);
        lab.pass(SECOND / 30);
    }
    let dest = lab.only_dest();
    let seconds = dest.seconds_to_exhaustion.expect("a wave that does not pass");
    assert!((10.0..20.0).contains(&seconds), "{seconds}");
    assert!(dest.forecast_confidence.is_some());
}

#[test]
fn with_reuse_time_wait_does_not_count_against_the_rate() {
    let mut lab = Lab::new();
    lab.ingest(&Event::Netns(Box::new(NetnsFacts { netns: NETNS, tw_reuse: Some(1), ..NetnsFacts::default() })));
    let mut sock = lab.connect(1, 32_768);
    lab.close(&mut sock);
    let sustainable = lab.only_dest().sustainable_per_second.expect("known");
    assert!(sustainable > 7.0, "{sustainable}: 8 ports, one second each");
}

#[test]
fn without_a_namespace_s_range_capacity_is_unknown_not_zero() {
    let mut lab = Lab::new();
    let mut sock = Lab::socket(1);
    sock.port = 0;
    let mut opened = lab.raw(&sock, SynSent, 0);
    opened.key.netns = Netns::of_inode(8);
    lab.ingest(&Event::Transition(opened));
    let dest = lab.only_dest();
    assert_eq!((dest.ports.capacity, dest.ports.utilisation, dest.sustainable_per_second), (None, None, None));
}

#[test]
fn connections_that_nobody_closes_are_forecast_to_stay() {
    let mut lab = Lab::new();
    // Where ports in TIME_WAIT come back after a second: held ones do not.
    lab.ingest(&Event::Netns(Box::new(NetnsFacts {
        netns: NETNS,
        port_range: Some((1024, 2023)),
        tw_reuse: Some(1),
        timestamps: Some(true),
        ..NetnsFacts::default()
    })));
    for n in 0..200_u16 {
        lab.connect(u64::from(n) + 1, 1024 + n);
        lab.pass(SECOND / 10);
    }
    let dest = lab.only_dest();
    let seconds = dest.seconds_to_exhaustion.expect("800 free ports at ten a second");
    assert!((75.0..85.0).contains(&seconds), "{seconds}");
    // They may all be closed in the next second.
    assert_eq!(dest.forecast_confidence, Some(snapshot::Confidence::Medium));
}
