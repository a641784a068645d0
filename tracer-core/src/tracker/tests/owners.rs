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

/// A socket that listens on port 443 of any address, of this process.
fn listen(lab: &mut Lab, cookie: u64, pid: u32) -> SocketId {
    let remote = Endpoint { addr: Addr::UNSPECIFIED, port: 0 };
    let mut listener = Sock { port: 443, pid, remote, ..Lab::socket(cookie) };
    let id = lab.raw(&listener, Listen, 0).id;
    lab.to(&mut listener, Listen);
    id
}

/// A connection that has reached port 443.
fn arrive(lab: &mut Lab, cookie: u64) -> Sock {
    let remote = Endpoint { addr: addr(3), port: u16::try_from(cookie).expect("a port") };
    let mut child = Sock { state: SynRecv, port: 443, pid: 1, remote, ..Lab::socket(cookie) };
    lab.to(&mut child, Established);
    child
}

fn accept(lab: &mut Lab, child: &Sock, pid: u32, listener: Option<SocketId>) {
    let event = lab.raw(child, child.state, 0);
    let (ktime, id, key) = (event.ktime, event.id, event.key);
    lab.ingest(&Event::Accepted(SocketEvent { ktime, id, key, pid, tid: pid, named: None, listener }));
}

/// The row of a listener with so many connections in its queue, and that of a connection which nobody has accepted.
fn listening_row(lab: &Lab, cookie: u64, waiting: u32) -> SocketRow {
    let remote = Endpoint { addr: Addr::UNSPECIFIED, port: 0 };
    let key = FlowKey { remote, ..lab.raw(&Sock { port: 443, ..Lab::socket(cookie) }, Listen, 0).key };
    let queue = Some(AcceptQueue { waiting, backlog: 128 });
    SocketRow { key, owner: None, queue, ..Lab::row(cookie, 443, Listen) }
}

fn waiting_row(lab: &Lab, child: &Sock) -> SocketRow {
    let key = lab.raw(child, child.state, 0).key;
    SocketRow { key, owner: None, has_descriptor: Some(false), ..Lab::row(child.cookie, 443, child.state) }
}

/// pid, accepted, queued, CLOSE_WAIT in the queue.
type ListenerNumbers = (Option<u32>, u64, Option<u32>, Option<u32>);

fn listeners(lab: &Lab) -> Vec<ListenerNumbers> {
    let list = lab.tracker.snapshot().listeners;
    list.iter().map(|found| (found.pid, found.accepted, found.queued, found.close_wait)).collect()
}

/// Two workers share a port by SO_REUSEPORT and one hangs: everything was credited to the first, the hung one's queue was nobody's.
#[test]
fn each_socket_of_a_reuseport_group_has_its_own_queue_and_count() {
    let mut lab = Lab::new();
    start(&mut lab, 201, "hung");
    let good = listen(&mut lab, 9, 200);
    listen(&mut lab, 10, 201);
    let mut children: Vec<Sock> = (20..26).map(|cookie| arrive(&mut lab, cookie)).collect();
    for child in &children[..4] {
        accept(&mut lab, child, 200, Some(good));
    }
    for child in &mut children {
        lab.to(child, CloseWait);
    }
    let mut rows = vec![listening_row(&lab, 9, 0), listening_row(&lab, 10, 2)];
    rows.extend(children[4..].iter().map(|child| waiting_row(&lab, child)));
    rows.extend(children[..4].iter().map(|child| SocketRow {
        has_descriptor: Some(true),
        owner: Some(200),
        ..waiting_row(&lab, child)
    }));
    lab.list(&rows, false);
    assert_eq!(listeners(&lab), [(Some(200), 4, Some(0), Some(0)), (Some(201), 0, Some(2), Some(2))]);
    let close_wait = |name: &str| {
        let list = lab.tracker.snapshot().workloads;
        list.iter().find(|found| &*found.name == name).map(|found| found.close_wait.now)
    };
    assert_eq!(
        (close_wait("server"), close_wait("hung")),
        (Some(4), Some(2)),
        "what nobody accepted is the listener's"
    );
}

#[test]
fn which_of_several_queues_has_the_closed_connections_is_not_guessed() {
    let mut lab = Lab::new();
    for (cookie, pid) in [(9, 200), (10, 201)] {
        listen(&mut lab, cookie, pid);
    }
    let mut children: Vec<Sock> = (20..24).map(|cookie| arrive(&mut lab, cookie)).collect();
    lab.to(&mut children[0], CloseWait);
    let mut rows = vec![listening_row(&lab, 9, 1), listening_row(&lab, 10, 3)];
    rows.extend(children.iter().map(|child| waiting_row(&lab, child)));
    lab.list(&rows, false);
    assert_eq!(listeners(&lab), [(Some(200), 0, Some(1), None), (Some(201), 0, Some(3), None)]);
    for child in &mut children[1..] {
        lab.to(child, CloseWait);
    }
    assert_eq!(listeners(&lab), [(Some(200), 0, Some(1), Some(1)), (Some(201), 0, Some(3), Some(3))], "all are closed");
}

#[test]
fn a_listener_of_the_address_counts_before_one_of_any_and_each_accept_once() {
    let mut lab = Lab::new();
    let any_v6 = listen(&mut lab, 9, 200);
    start(&mut lab, 201, "exact");
    let mut exact = Sock { port: 443, pid: 201, remote: Endpoint { addr: addr(3), port: 0 }, ..Lab::socket(10) };
    lab.to(&mut exact, Listen);
    let child = arrive(&mut lab, 20);
    accept(&mut lab, &child, 201, None);
    let other = arrive(&mut lab, 21);
    assert_eq!(listeners(&lab).iter().map(|found| found.1).sum::<u64>(), 1, "a handshake is no accept()");
    accept(&mut lab, &other, 200, Some(any_v6));
    assert_eq!(listeners(&lab).iter().map(|found| found.1).sum::<u64>(), 2);
}

#[test]
fn an_accept_whose_record_was_lost_is_counted_when_a_list_shows_its_descriptor() {
    let mut lab = Lab::new();
    listen(&mut lab, 9, 200);
    let child = arrive(&mut lab, 20);
    let row = SocketRow { has_descriptor: Some(true), owner: Some(200), ..waiting_row(&lab, &child) };
    lab.list(&[listening_row(&lab, 9, 0), row], false);
    lab.list(&[listening_row(&lab, 9, 0), row], false);
    assert_eq!(listeners(&lab), [(Some(200), 1, Some(0), Some(0))]);
}

fn worker(pid: u32, ppid: u32) -> ProcessFacts {
    let (comm, parent_comm) = ("php-fpm8.2".into(), "php-fpm8.2".into());
    ProcessFacts {
        pid,
        ppid,
        start: u64::from(pid),
        comm,
        parent_comm,
        pool: Some("www".into()),
        ..ProcessFacts::default()
    }
}

fn connects(lab: &Lab) -> Vec<(String, u64)> {
    let list = lab.tracker.snapshot().workloads;
    list.iter().filter(|found| found.connects > 0).map(|found| (found.name.to_string(), found.connects)).collect()
}

/// Two masters that both have a pool `www` were one workload.
#[test]
fn pools_of_one_name_under_two_masters_are_two_workloads() {
    let mut lab = Lab::new();
    let connect = |lab: &mut Lab, facts: &ProcessFacts, cookie: u64| {
        lab.ingest(&Event::Process(Box::new(facts.clone())));
        let mut sock = Sock { pid: facts.pid, ..Lab::socket(cookie) };
        lab.to(&mut sock, SynSent);
    };
    connect(&mut lab, &worker(300, 20), 1);
    connect(&mut lab, &worker(301, 20), 2);
    assert_eq!(connects(&lab), [("php-fpm: pool www".into(), 2)]);
    connect(&mut lab, &worker(302, 300), 3);
    assert_eq!(connects(&lab), [("php-fpm: pool www".into(), 3)], "a child of a worker, with its title");
    connect(&mut lab, &ProcessFacts { ppid: 1, ..worker(301, 1) }, 4);
    assert_eq!(connects(&lab), [("php-fpm: pool www".into(), 4)], "the master has died");
    connect(&mut lab, &worker(400, 30), 5);
    let expected = [("php-fpm: pool www [master 20]".into(), 4), ("php-fpm: pool www [master 30]".into(), 1)];
    assert_eq!(connects(&lab), expected);
}

/// A shell of a unit that becomes curl is in the same workload, and was shown as curl from its first connect on.
#[test]
fn programs_of_one_process_are_kept_apart_within_a_workload() {
    let mut lab = Lab::new();
    let program = |comm: &str, exec_id| ProcessFacts {
        pid: 500,
        start: 5,
        exec_id,
        ktime: Ktime(u64::from(exec_id)),
        comm: comm.into(),
        unit: Some("sync.service".into()),
        ..ProcessFacts::default()
    };
    for (cookie, facts) in
        (1..).zip([program("sh", 8), program("curl", 9), ProcessFacts { exec_id: 0, ..program("sh", 8) }])
    {
        lab.ingest(&Event::Process(Box::new(facts)));
        let mut sock = Sock { pid: 500, ..Lab::socket(cookie) };
        lab.to(&mut sock, SynSent);
    }
    let mut found: Vec<_> =
        lab.tracker.snapshot().attributions.iter().map(|entry| (entry.comm.to_string(), entry.connects)).collect();
    found.sort();
    assert_eq!(found, [("curl".into(), 2), ("sh".into(), 1)], "what /proc said earlier is no news");
}

/// A broker connects, passes the descriptors on and ends: the leak was blamed on a process that is gone.
#[test]
fn the_process_that_has_a_flow_open_is_named_beside_the_one_that_opened_it() {
    let mut lab = Lab::new();
    let mut socks = [lab.connect(1, 32_768), lab.connect(2, 32_770)];
    start(&mut lab, 300, "worker");
    let row = |sock: &Sock, owner| SocketRow {
        owner,
        has_descriptor: Some(true),
        ..Lab::row(sock.cookie, sock.port, sock.state)
    };
    let held_by = |lab: &Lab| {
        let list = lab.tracker.snapshot().attributions;
        let of = |found: &snapshot::Attribution| {
            found.held_by.iter().map(|holder| (holder.pid, holder.comm.to_string(), holder.flows)).collect::<Vec<_>>()
        };
        list.iter().map(|found| (found.pid, of(found))).collect::<Vec<_>>()
    };
    lab.list(&socks.each_ref().map(|sock| row(sock, Some(100))), false);
    assert_eq!(held_by(&lab), [(100, vec![])]);
    lab.list(&socks.each_ref().map(|sock| row(sock, Some(300))), false);
    assert_eq!(held_by(&lab), [(100, vec![(300, "worker".into(), 2)])]);
    lab.list(&socks.each_ref().map(|sock| row(sock, None)), false);
    assert_eq!(held_by(&lab), [(100, vec![(300, "worker".into(), 2)])], "a pass that has not looked");
    lab.close(&mut socks[0]);
    assert_eq!(held_by(&lab), [(100, vec![(300, "worker".into(), 1)])]);
    lab.list(&[row(&socks[1], Some(100))], false);
    assert_eq!(held_by(&lab), [(100, vec![])]);
}

/// The kernel gives the inode number of a namespace that has ended to the next one at once.
#[test]
fn two_namespaces_of_one_inode_number_are_two() {
    let mut lab = Lab::new();
    for (cookie, (netns_cookie, range)) in
        (1..).zip([(10, (40_000, 40_007)), (11, (41_000, 41_063)), (11, (41_000, 41_063))])
    {
        let netns = Netns::new(4_711, netns_cookie);
        lab.ingest(&Event::Netns(Box::new(NetnsFacts { netns, port_range: Some(range), ..NetnsFacts::default() })));
        let mut sock = Lab::socket(cookie);
        for new in [SynSent, Close] {
            let mut transition = lab.raw(&sock, new, 0);
            transition.key.netns = netns;
            lab.now += 1000;
            sock.state = new;
            lab.ingest(&Event::Transition(transition));
        }
    }
    lab.tracker.finish();
    let snapshot = lab.tracker.snapshot();
    let of_number = |netns: &Netns| netns.inode == 4_711;
    let mut rows: Vec<_> = snapshot.destinations.iter().filter(|row| of_number(&row.netns)).collect();
    rows.sort_by_key(|row| row.netns);
    let found: Vec<_> = rows.iter().map(|row| (row.failed.without_port(), row.ports.capacity)).collect();
    assert_eq!(found, [(1, Some(8)), (2, Some(64))]);
    assert_eq!(snapshot.namespaces.iter().filter(|row| of_number(&row.netns)).count(), 2);
    let filter: crate::filter::Filter = "netns=4711".parse().expect("a filter");
    let kept = filter.narrow(&snapshot);
    assert_eq!(kept.destinations.len(), 2, "people name both by the same number");
}
