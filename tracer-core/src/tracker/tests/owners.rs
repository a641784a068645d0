//! Whose a flow is, and that many short lives add up.

use super::*;

#[test]
fn the_owner_is_who_connected_whoever_was_running_later() {
    let mut lab = Lab::new();
    let mut sock = lab.connect(1, 32_768);
    sock.pid = 200;
    lab.close(&mut sock);
    let snapshot = lab.tracker.snapshot();
    assert_eq!(snapshot.attributions.len(), 1);
    assert_eq!((snapshot.attributions[0].pid, snapshot.attributions[0].active_closes), (100, 1));
}

#[test]
fn an_accepted_flow_belongs_to_the_listener_until_somebody_accepts_it() {
    let mut lab = Lab::new();
    let mut listener =
        Sock { port: 443, pid: 200, remote: Endpoint { addr: Addr::UNSPECIFIED, port: 0 }, ..Lab::socket(9) };
    lab.to(&mut listener, Listen);
    let peer = Endpoint { addr: addr(3), port: 55_000 };
    // Up to 6.12 the clone carries the listener's cookie in LISTEN -> SYN_RECV.
    let mut child = Sock { state: Listen, port: 443, pid: 1, remote: peer, ..Lab::socket(9) };
    lab.to(&mut child, SynRecv);
    child.cookie = 10;
    lab.to(&mut child, Established);
    let workload = |lab: &Lab, name: &str| {
        lab.tracker
            .snapshot()
            .workloads
            .into_iter()
            .find(|workload| &*workload.name == name)
            .map(|found| found.accepted)
    };
    assert_eq!(workload(&lab, "server"), Some(1));
    lab.ingest(&Event::Process(Box::new(ProcessFacts {
        pid: 201,
        start: 1,
        comm: "worker".into(),
        ..ProcessFacts::default()
    })));
    let accepted = SocketEvent {
        ktime: Ktime(lab.now),
        id: SocketId { cookie: SocketCookie::new(10), sock: 0 },
        key: FlowKey { netns: NETNS, device: 0, local: Endpoint { addr: addr(1), port: 443 }, remote: peer },
        pid: 201,
        tid: 201,
        named: None,
        listener: None,
    };
    lab.ingest(&Event::Accepted(accepted));
    assert_eq!((workload(&lab, "server"), workload(&lab, "worker")), (Some(0), Some(1)));
    assert_eq!(lab.tracker.snapshot().listeners[0].accepted, 1);
    assert_eq!(lab.tracker.snapshot().destinations, [], "an accepted flow takes no ephemeral port of ours");
    lab.to(&mut child, CloseWait);
    lab.to(&mut child, LastAck);
    lab.to(&mut child, Close);
    assert_eq!(lab.ends(), [Ended::PassiveClose]);
    let owner = lab.notices.iter().find_map(|notice| match notice {
        Notice::FlowEnd(end) => end.owner.clone(),
        _ => None,
    });
    assert!(owner.is_some_and(|owner| owner.pid == 201 && !owner.inferred), "accept() named its owner");
}

#[test]
fn many_short_lived_processes_fold_into_their_workload_without_losing_a_count() {
    let mut lab = Lab::new();
    for n in 0..6_000_u32 {
        let pid = 1000 + n;
        lab.ingest(&Event::Process(Box::new(ProcessFacts {
            pid,
            start: 5,
            comm: "curl".into(),
            ..ProcessFacts::default()
        })));
        let mut sock = Sock { pid, ..Lab::socket(u64::from(n) + 1) };
        lab.to(&mut sock, SynSent);
        sock.last_port = 32_768;
        lab.fails(&mut sock, Close, 111);
        lab.pass(SECOND);
    }
    let snapshot = lab.tracker.snapshot();
    assert!(snapshot.attributions.len() <= 4_200, "{}", snapshot.attributions.len());
    let total: u64 = snapshot.attributions.iter().map(|attribution| attribution.connects).sum();
    let refused: u64 = snapshot.attributions.iter().map(|attribution| attribution.failed.of(Failure::Errno(111))).sum();
    assert_eq!((total, refused), (6_000, 6_000));
    let curl = snapshot.workloads.iter().find(|workload| &*workload.name == "curl").expect("curl");
    assert_eq!((curl.connects, curl.failed.of(Failure::Errno(111))), (6_000, 6_000));
}

#[test]
fn an_exec_makes_another_process_and_leaves_the_first_its_deeds() {
    let mut lab = Lab::new();
    lab.connect(1, 32_768);
    lab.ingest(&Event::Process(Box::new(ProcessFacts {
        pid: 100,
        start: 100,
        comm: "other".into(),
        ..ProcessFacts::default()
    })));
    lab.connect(2, 32_770);
    let names: Vec<_> =
        lab.tracker.snapshot().workloads.iter().map(|found| (found.name.to_string(), found.connects)).collect();
    assert_eq!(names, [("client".into(), 1), ("other".into(), 1)]);
}

/// More short-lived clients than attributions are kept apart, each with one connect() that is refused.
fn crowd(lab: &mut Lab, count: u32, pause: u64) {
    for n in 0..count {
        let pid = 1000 + n;
        start(lab, pid, "curl");
        let mut sock = Sock { pid, ..Lab::socket(1_000 + u64::from(n)) };
        lab.to(&mut sock, SynSent);
        sock.last_port = 32_768;
        lab.fails(&mut sock, Close, 111);
        lab.pass(pause);
    }
}

/// A process that starts and is of the same workload as one that is there.
fn start(lab: &mut Lab, pid: u32, comm: &str) {
    lab.ingest(&Event::Process(Box::new(ProcessFacts { pid, start: 5, comm: comm.into(), ..ProcessFacts::default() })));
}

/// An attribution without ports, TIME_WAIT or CLOSE_WAIT was folded although its flows lived on; another process got its id and
/// the credit for their ends.
#[test]
fn the_end_of_an_accepted_flow_is_credited_to_its_process_through_a_crowd() {
    let mut lab = Lab::new();
    let mut listener =
        Sock { port: 443, pid: 200, remote: Endpoint { addr: Addr::UNSPECIFIED, port: 0 }, ..Lab::socket(9) };
    lab.to(&mut listener, Listen);
    start(&mut lab, 201, "server");
    let mut children = [(10, 200), (11, 201)].map(|(cookie, pid)| {
        let peer = Endpoint { addr: addr(3), port: 55_000 };
        let mut child = Sock { state: SynRecv, port: 443, pid: 1, remote: peer, ..Lab::socket(cookie) };
        lab.to(&mut child, Established);
        let key = FlowKey { netns: NETNS, device: 0, local: Endpoint { addr: addr(1), port: 443 }, remote: peer };
        let id = SocketId { cookie: SocketCookie::new(cookie), sock: 0 };
        lab.ingest(&Event::Accepted(SocketEvent {
            ktime: Ktime(lab.now),
            id,
            key,
            pid,
            tid: pid,
            named: None,
            listener: None,
        }));
        child
    });
    crowd(&mut lab, 5_000, SECOND);
    for child in &mut children {
        lab.to(child, CloseWait);
        lab.to(child, LastAck);
        lab.to(child, Close);
    }
    let counted = |name: &str| {
        let list = lab.tracker.snapshot().workloads;
        let found = list.into_iter().find(|workload| &*workload.name == name).expect("has done something");
        (found.accepted, found.passive_closes, found.closed)
    };
    assert_eq!((counted("server"), counted("curl")), ((2, 2, 2), (0, 0, 0)));
    let owners = lab.notices.iter().filter_map(|notice| match notice {
        Notice::FlowEnd(end) => end.owner.as_ref().map(|owner| owner.pid),
        _ => None,
    });
    assert_eq!(owners.collect::<Vec<_>>(), [200, 201]);
}

#[test]
fn a_connect_that_searches_for_its_port_keeps_its_process_through_a_crowd() {
    let mut lab = Lab::with(|config| config.searches_observed = true);
    start(&mut lab, 101, "client");
    let mut searching = [(1, 100), (2, 101)].map(|(cookie, pid)| {
        let mut sock = Sock { pid, ..Lab::socket(cookie) };
        lab.to(&mut sock, SynSent);
        sock
    });
    crowd(&mut lab, 5_000, 0);
    for (sock, port) in searching.iter_mut().zip([32_768, 32_770]) {
        (sock.port, sock.last_port) = (port, port);
        lab.to(sock, Established);
    }
    let snapshot = lab.tracker.snapshot();
    let established = |name: &str| {
        snapshot.workloads.iter().filter(|found| &*found.name == name).map(|found| found.established).sum::<u64>()
    };
    assert_eq!((established("client"), established("curl")), (2, 0));
    let holders: Vec<_> = snapshot.destinations[0].holders.iter().map(|holder| &*holder.workload).collect();
    assert_eq!(holders, ["client"]);
}
