//! Which failure it was, and that it is one.

use super::*;

#[test]
fn exhaustion_is_one_failure_with_and_without_the_return_value() {
    let mut lab = Lab::new();
    let sock = lab.exhausted(1);
    assert_eq!(lab.failures(), [], "it may still be ENOMEM");
    lab.returned(&sock, 99);
    assert_eq!(lab.failures(), [(Failure::PortsExhausted, true)]);
    // io_uring and MSG_FASTOPEN: no return value comes.
    lab.exhausted(2);
    lab.pass(SECOND);
    assert_eq!(lab.failures()[1..], [(Failure::PortsExhausted, false)]);
    let dest = lab.only_dest();
    assert_eq!((dest.connects, dest.established, dest.failed.of(Failure::PortsExhausted)), (2, 0, 2));
    assert_eq!((dest.ports.in_use, dest.ports.peak), (0, 0), "a failing connect never held a port");
    assert_eq!((dest.victims[0].workload.as_ref(), dest.victims[0].failed), ("client", 2));
}

#[test]
fn the_return_value_corrects_what_the_transitions_look_like() {
    let mut lab = Lab::new();
    let sock = lab.exhausted(1);
    lab.returned(&sock, 12);
    assert_eq!(lab.failures(), [(Failure::Errno(12), true)]);
}

#[test]
fn a_retry_on_the_same_socket_is_another_attempt_and_its_stale_port_no_chosen_one() {
    let mut lab = Lab::new();
    let mut sock = Lab::socket(1);
    lab.to(&mut sock, SynSent);
    sock.last_port = 32_769;
    lab.fails(&mut sock, Close, 111);
    lab.returned(&sock, 111);
    // The second connect() finds no port: inet_sport still shows the first one's.
    lab.to(&mut sock, SynSent);
    lab.to(&mut sock, Close);
    lab.returned(&sock, 99);
    assert_eq!(lab.failures(), [(Failure::Errno(111), true), (Failure::PortsExhausted, true)]);
    assert_eq!(lab.client().connects, 2);
}

#[test]
fn failures_that_are_no_exhaustion_are_told_apart() {
    let mut lab = Lab::new();
    // Refused on a non-blocking socket: no return value, another context.
    let mut sock = Lab::socket(1);
    lab.to(&mut sock, SynSent);
    sock.last_port = 32_768;
    lab.fails(&mut sock, Close, 111);
    // close() in SYN_SENT on a socket whose stale port equals the chosen one.
    let mut sock = Lab::socket(2);
    sock.last_port = 32_770;
    lab.to(&mut sock, SynSent);
    lab.now += 1000;
    let closing = Transition { shutdown: true, ..lab.raw(&sock, Close, 0) };
    lab.ingest(&Event::Transition(closing));
    // bind() then connect() to a 4-tuple in use.
    let mut sock = Lab::socket(3);
    sock.port = 40_000;
    sock.last_port = 40_000;
    lab.to(&mut sock, SynSent);
    let mut taken = lab.raw(&sock, Close, 0);
    taken.key.local.port = 40_000;
    lab.ingest(&Event::Transition(taken));
    lab.returned(&sock, 99);
    // An error collected by a later connect() was counted when it happened.
    lab.pass(SECOND);
    lab.returned(&Lab::socket(1), 111);
    let mut failures: Vec<_> = lab.failures().into_iter().map(|(failure, _)| failure).collect();
    failures.sort_unstable();
    assert_eq!(failures, [Failure::TupleTaken, Failure::Aborted, Failure::Errno(111)]);
}

#[test]
fn failures_without_transitions_come_from_the_return_value_alone() {
    let mut lab = Lab::new();
    lab.returned(&Lab::socket(1), 101);
    let mut v6 = Lab::socket(2);
    v6.remote.addr = Addr::from(std::net::IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]));
    lab.returned(&v6, 99);
    assert_eq!(lab.failures(), [(Failure::Errno(101), true), (Failure::NoLocalAddress, true)]);
    assert_eq!(lab.client().connects, 0, "an attempt is a CLOSE -> SYN_SENT");
}

#[test]
fn a_handshake_in_flight_holds_a_port_once_it_has_outlived_the_call() {
    let mut lab = Lab::new();
    let mut sock = Lab::socket(1);
    lab.to(&mut sock, SynSent);
    assert_eq!(lab.only_dest().ports.in_use, 0);
    lab.pass(30 * MS);
    assert_eq!(lab.only_dest().ports.by_state[&SynSent], 1);
    sock.last_port = 32_768;
    lab.fails(&mut sock, Close, 110);
    assert_eq!(lab.only_dest().ports.in_use, 0);
}
