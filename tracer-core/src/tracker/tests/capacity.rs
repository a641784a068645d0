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
