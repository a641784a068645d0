//! Ports that are asked for by number, and who has them.

use super::*;
use crate::tracker::snapshot::{FindingId, TakenPort};

fn bind_fails(lab: &mut Lab, addr_of: Addr, port: u16) {
    lab.now += 1_000;
    lab.ingest(&Event::CallFailed(Box::new(CallFailed {
        ktime: Ktime(lab.now),
        entered: Ktime(lab.now - 500),
        id: SocketId { cookie: SocketCookie::new(9_000), sock: 9_000 },
        netns: NETNS,
        caller: Caller { pid: 300, tid: 300, cgroup: CgroupId(0) },
        comm: "late".into(),
        call: Call::Bind,
        errno: 98,
        target: Some(Endpoint { addr: addr_of, port }),
        local: Endpoint { addr: Addr::UNSPECIFIED, port: 0 },
        device: 0,
        own_range: None,
    })));
}

fn only(lab: &Lab) -> TakenPort {
    let list = lab.tracker.snapshot().taken_ports;
    assert_eq!(list.len(), 1, "{list:#?}");
    list.into_iter().next().expect("one")
}

#[test]
fn who_has_a_port_that_bind_does_not_get() {
    let mut lab = Lab::new();
    let held = |lab: &Lab| only(lab).holder.map(|holder| (holder.state, holder.pid));
    bind_fails(&mut lab, addr(1), 40_004);
    assert_eq!(held(&lab), None, "nobody that was seen");
    let sock = lab.connect(1, 40_004);
    bind_fails(&mut lab, Addr::UNSPECIFIED, 40_004);
    lab.now += SECOND;
    bind_fails(&mut lab, addr(1), 40_004);
    let first = lab.tracker.snapshot().taken_ports.remove(0);
    assert_eq!(first.holder.map(|holder| (holder.state, holder.pid)), Some((Established, Some(sock.pid))));
    assert_eq!((first.failed, first.pid, first.remote_port), (2, Some(300), None));
    let failed: u64 =
        lab.tracker.snapshot().workloads.iter().map(|workload| workload.failed.of(Failure::Errno(98))).sum();
    assert_eq!(failed, 3, "EADDRINUSE, and no lack of ports");
}

#[test]
fn a_listener_is_named_before_its_connections_and_a_finding_says_it() {
    let mut lab = Lab::new();
    lab.connect(1, 40_004);
    let mut listener = Sock { port: 40_004, remote: Endpoint { addr: Addr::UNSPECIFIED, port: 0 }, ..Lab::socket(5) };
    lab.to(&mut listener, Listen);
    bind_fails(&mut lab, addr(1), 40_004);
    let holder = only(&lab).holder.expect("it listens");
    assert_eq!((holder.state, holder.pid), (Listen, Some(listener.pid)));
    lab.tracker.advance(Ktime(lab.now + SECOND));
    let findings = lab.tracker.snapshot().findings;
    let taken = findings.iter().find(|finding| finding.id == FindingId::PortTaken).expect("a finding");
    assert!(taken.summary.contains("40004") && taken.summary.contains("listens there"), "{}", taken.summary);
}

/// connect() of a socket that bind() has given a port, while a minisocket has its 4-tuple.
#[test]
fn who_has_the_4_tuple_of_a_bound_socket() {
    let mut lab = Lab::new();
    let mut sock = lab.connect(1, 32_770);
    lab.close(&mut sock);
    let mut late = Sock { port: 32_770, pid: 300, ..Lab::socket(2) };
    lab.to(&mut late, SynSent);
    lab.fails(&mut late, Close, 0);
    lab.returned(&late, 99);
    let taken = only(&lab);
    let holder = taken.holder.expect("the minisocket");
    assert_eq!((holder.state, holder.pid), (TcpState::TimeWait, Some(sock.pid)));
    assert_eq!((taken.port, taken.remote_port, taken.pid), (32_770, Some(sock.remote.port), Some(300)));
}
