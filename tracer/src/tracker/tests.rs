//! The rules, one by one, with the time in hand.

use std::sync::Arc;

use super::snapshot::{Ended, Failure};
use super::*;
use crate::event::{
    Addr, Baseline, Call, CallFailed, Caller, CgroupId, Endpoint, Netns, NetnsFacts, ProcessFacts, SocketCookie,
    SocketEvent, SocketId, SocketRow, TcpState, TimeWaitEvent, Transition,
};
use TcpState::{Close, CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, Listen, SynRecv, SynSent};

mod properties;
mod watching;

const NETNS: Netns = Netns(7);
const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;

fn addr(last: u8) -> Addr {
    Addr::from(std::net::IpAddr::from([10, 0, 0, last]))
}

/// A tracker with a scripted kernel in front of it.
struct Lab {
    tracker: Tracker,
    now: u64,
    notices: Vec<Notice>,
}

/// One socket of the script.
#[derive(Clone, Copy)]
struct Sock {
    cookie: u64,
    pid: u32,
    port: u16,
    remote: Endpoint,
    state: TcpState,
    last_port: u16,
}

impl Lab {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            time_wait_observed: true,
            calls_observed: true,
            notices: Wanted { transitions: true, flows: true, failures: true, history: false },
            ..Config::default()
        };
        change(&mut config);
        let mut tracker = Tracker::new(config);
        tracker.begin(Ktime(SECOND));
        let mut lab = Self { tracker, now: SECOND, notices: Vec::new() };
        lab.ingest(&Event::Netns(Box::new(NetnsFacts {
            netns: NETNS,
            port_range: Some((32_768, 32_775)),
            tw_reuse: Some(0),
            ..NetnsFacts::default()
        })));
        for (pid, comm) in [(100, "client"), (200, "server")] {
            lab.ingest(&Event::Process(Box::new(ProcessFacts {
                pid,
                start: u64::from(pid),
                comm: comm.into(),
                ..ProcessFacts::default()
            })));
        }
        lab
    }

    fn ingest(&mut self, event: &Event) {
        self.tracker.ingest(event);
        self.notices.extend(self.tracker.drain_notices());
    }

    fn pass(&mut self, nanos: u64) {
        self.now += nanos;
        self.tracker.advance(Ktime(self.now));
        self.notices.extend(self.tracker.drain_notices());
    }

    fn socket(cookie: u64) -> Sock {
        Sock { cookie, pid: 100, port: 0, remote: Endpoint { addr: addr(2), port: 443 }, state: Close, last_port: 0 }
    }

    fn raw(&self, sock: &Sock, new: TcpState, sk_err: u16) -> Transition {
        let caller = matches!((sock.state, new), (Close, SynSent | Listen) | (_, FinWait1 | LastAck));
        Transition {
            ktime: Ktime(self.now),
            id: SocketId { cookie: SocketCookie::new(sock.cookie), sock: 0xffff_0000 + sock.cookie },
            key: FlowKey { netns: NETNS, local: Endpoint { addr: addr(1), port: sock.port }, remote: sock.remote },
            last_port: sock.last_port,
            old: sock.state,
            new,
            sk_err,
            shutdown: false,
            caller: caller.then_some(Caller { pid: sock.pid, tid: sock.pid, cgroup: CgroupId(0) }),
            current_tid: sock.pid,
            rescued: false,
            classic: false,
        }
    }

    fn to(&mut self, sock: &mut Sock, new: TcpState) {
        self.fails(sock, new, 0);
    }

    fn fails(&mut self, sock: &mut Sock, new: TcpState, sk_err: u16) {
        self.now += 1000;
        if new == Close {
            sock.port = 0;
        }
        let transition = self.raw(sock, new, sk_err);
        sock.state = new;
        self.ingest(&Event::Transition(transition));
    }

    /// connect() that finds `port`.
    fn connect(&mut self, cookie: u64, port: u16) -> Sock {
        let mut sock = Self::socket(cookie);
        self.to(&mut sock, SynSent);
        sock.port = port;
        sock.last_port = port;
        self.to(&mut sock, Established);
        sock
    }

    fn timer(&mut self, sock: &Sock, begins: bool, expired: bool) {
        self.now += 1000;
        let event = TimeWaitEvent {
            ktime: Ktime(self.now),
            id: SocketId { cookie: SocketCookie::new(sock.cookie), sock: 1 },
            key: FlowKey { netns: NETNS, local: Endpoint { addr: addr(1), port: sock.last_port }, remote: sock.remote },
            fin_wait2: false,
            expired,
            current_pid: 0,
            current_tid: 0,
        };
        self.ingest(&if begins { Event::TimeWaitStart(event) } else { Event::TimeWaitEnd(event) });
    }

    /// close() by us: FIN_WAIT1, FIN_WAIT2, minisocket, CLOSE.
    fn close(&mut self, sock: &mut Sock) {
        self.to(sock, FinWait1);
        self.to(sock, FinWait2);
        self.timer(sock, true, false);
        self.to(sock, Close);
    }

    /// connect() that finds no port, without its system call's return.
    fn exhausted(&mut self, cookie: u64) -> Sock {
        let mut sock = Self::socket(cookie);
        self.to(&mut sock, SynSent);
        self.to(&mut sock, Close);
        sock
    }

    fn returned(&mut self, sock: &Sock, errno: u16) {
        self.now += 1000;
        self.ingest(&Event::CallFailed(Box::new(CallFailed {
            ktime: Ktime(self.now),
            entered: Ktime(self.now - 5000),
            id: SocketId { cookie: SocketCookie::new(sock.cookie), sock: 0xffff_0000 + sock.cookie },
            netns: NETNS,
            caller: Caller { pid: sock.pid, tid: sock.pid, cgroup: CgroupId(0) },
            comm: "client".into(),
            call: Call::Connect,
            errno,
            target: Some(sock.remote),
            local: Endpoint { addr: Addr::UNSPECIFIED, port: 0 },
        })));
    }

    fn row(cookie: u64, port: u16, state: TcpState) -> SocketRow {
        SocketRow {
            cookie: SocketCookie::new(cookie),
            key: FlowKey { netns: NETNS, local: Endpoint { addr: addr(1), port }, remote: Self::socket(0).remote },
            state,
            minisocket: state == TcpState::TimeWait,
            remaining: (state == TcpState::TimeWait).then_some(30 * SECOND),
            owner: (state != TcpState::TimeWait).then_some(100),
        }
    }

    fn list(&mut self, rows: &[SocketRow], initial: bool) {
        self.now += MS;
        let (began, ended) = (Ktime(self.now), Ktime(self.now + MS));
        self.now += MS;
        self.ingest(&Event::Baseline(Baseline { netns: NETNS, began, ended, initial, rows: rows.into() }));
    }

    fn only_dest(&self) -> snapshot::Destination {
        let mut list = self.tracker.snapshot().destinations;
        assert_eq!(list.len(), 1, "{list:#?}");
        list.remove(0)
    }

    fn client(&self) -> snapshot::Workload {
        let list = self.tracker.snapshot().workloads;
        list.into_iter().find(|workload| &*workload.name == "client").expect("the client's workload")
    }

    fn failures(&self) -> Vec<(Failure, bool)> {
        self.notices
            .iter()
            .filter_map(|notice| match notice {
                Notice::FailedConnect(failed) => Some((failed.failure, failed.confirmed)),
                _ => None,
            })
            .collect()
    }

    fn ends(&self) -> Vec<Ended> {
        self.notices
            .iter()
            .filter_map(|notice| match notice {
                Notice::FlowEnd(end) => Some(end.ended),
                _ => None,
            })
            .collect()
    }
}

#[test]
fn an_active_close_keeps_its_port_until_the_minisocket_ends_and_never_counts_it_twice() {
    let mut lab = Lab::new();
    let mut sock = lab.connect(1, 32_768);
    assert_eq!(lab.only_dest().ports.by_state[&Established], 1);
    lab.close(&mut sock);
    let dest = lab.only_dest();
    assert_eq!((dest.ports.in_use, dest.ports.peak, dest.ports.by_state[&TcpState::TimeWait]), (1, 1, 1));
    let client = lab.client();
    assert_eq!((client.connects, client.established, client.active_closes, client.closed), (1, 1, 1, 1));
    assert_eq!((client.time_wait.entered, client.time_wait.now), (1, 1));
    assert_eq!(lab.ends(), [Ended::ActiveClose]);
    lab.pass(60 * SECOND);
    lab.timer(&sock, false, true);
    let dest = lab.only_dest();
    assert_eq!((dest.ports.in_use, dest.ports.by_state.len()), (0, 0));
    assert_eq!((lab.client().time_wait.now, lab.client().time_wait.reused), (0, 0));
    assert_eq!(lab.tracker.snapshot().events.repaired, 0);
}

#[test]
fn without_a_minisocket_announced_fin_wait2_to_close_means_none() {
    // tcp_max_tw_buckets reached: the transitions look the same.
    let mut lab = Lab::new();
    let mut sock = lab.connect(1, 32_768);
    lab.to(&mut sock, FinWait1);
    lab.to(&mut sock, FinWait2);
    lab.to(&mut sock, Close);
    assert_eq!((lab.only_dest().ports.in_use, lab.client().time_wait.entered), (0, 0));
}

#[test]
fn without_timers_time_wait_is_inferred_for_sixty_one_seconds_and_marked() {
    let mut lab = Lab::with(|config| config.time_wait_observed = false);
    let mut sock = lab.connect(1, 32_768);
    lab.to(&mut sock, FinWait1);
    lab.to(&mut sock, FinWait2);
    lab.to(&mut sock, Close);
    lab.pass(60 * SECOND);
    let snapshot = lab.tracker.snapshot();
    assert_eq!((snapshot.time_wait, snapshot.namespaces[0].time_wait_inferred), (1, 1));
    lab.pass(2 * SECOND);
    assert_eq!((lab.tracker.snapshot().time_wait, lab.only_dest().ports.in_use), (0, 0));
    // A reset in FIN_WAIT2 leaves no minisocket.
    let mut sock = lab.connect(2, 32_770);
    lab.to(&mut sock, FinWait1);
    lab.to(&mut sock, FinWait2);
    lab.fails(&mut sock, Close, 104);
    assert_eq!(lab.tracker.snapshot().time_wait, 0);
}

#[test]
fn a_simultaneous_close_leaves_time_wait_too() {
    let mut lab = Lab::new();
    let mut sock = lab.connect(1, 32_768);
    lab.to(&mut sock, FinWait1);
    lab.to(&mut sock, Closing);
    lab.timer(&sock, true, false);
    lab.to(&mut sock, Close);
    assert_eq!((lab.ends(), lab.client().time_wait.now), (vec![Ended::SimultaneousClose], 1));
}

#[test]
fn a_restarted_timer_is_one_minisocket() {
    let mut lab = Lab::new();
    let mut sock = lab.connect(1, 32_768);
    lab.close(&mut sock);
    lab.pass(5 * SECOND);
    lab.timer(&sock, false, false);
    lab.timer(&sock, true, false);
    let client = lab.client();
    assert_eq!((client.time_wait.entered, client.time_wait.now, client.time_wait.peak), (1, 1, 1));
    assert_eq!(lab.only_dest().ports.in_use, 1);
    lab.pass(60 * SECOND);
    lab.timer(&sock, false, true);
    let steps: Vec<_> = lab
        .notices
        .iter()
        .filter_map(|notice| match notice {
            Notice::StateChange(change) => Some((change.old, change.new)),
            _ => None,
        })
        .filter(|&(old, new)| old == TcpState::TimeWait || new == TcpState::TimeWait)
        .collect();
    assert_eq!(steps, [(FinWait2, TcpState::TimeWait), (TcpState::TimeWait, Close)]);
}

#[test]
fn a_new_connection_on_the_tuple_of_a_killed_minisocket_is_a_reuse() {
    let mut lab = Lab::new();
    let mut sock = lab.connect(1, 32_768);
    lab.close(&mut sock);
    lab.pass(2 * SECOND);
    let mut again = Lab::socket(2);
    lab.to(&mut again, SynSent);
    lab.timer(&sock, false, false);
    again.port = 32_768;
    again.last_port = 32_768;
    lab.to(&mut again, Established);
    assert_eq!((lab.client().time_wait.reused, lab.client().time_wait.now), (1, 0));
    // Killed without an heir (RST, ss -K): no reuse.
    lab.close(&mut again);
    lab.timer(&again, false, false);
    lab.pass(60 * MS);
    assert_eq!(lab.client().time_wait.now, 0);
    lab.connect(3, 32_770);
    assert_eq!(lab.client().time_wait.reused, 1);
}

#[test]
fn a_minisocket_whose_end_was_lost_does_not_stay_for_ever() {
    let mut lab = Lab::new();
    let mut sock = lab.connect(1, 32_768);
    lab.close(&mut sock);
    lab.pass(120 * SECOND);
    assert_eq!(lab.tracker.snapshot().time_wait, 1);
    lab.pass(15 * SECOND);
    let snapshot = lab.tracker.snapshot();
    assert_eq!((snapshot.time_wait, snapshot.events.repaired), (0, 1));
}

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
    assert_eq!((dest.connects, dest.established, dest.failed[&Failure::PortsExhausted]), (2, 0, 2));
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
        key: FlowKey { netns: NETNS, local: Endpoint { addr: addr(1), port: 443 }, remote: peer },
        pid: 201,
        tid: 201,
    };
    lab.ingest(&Event::Accepted(accepted));
    assert_eq!((workload(&lab, "server"), workload(&lab, "worker")), (Some(0), Some(1)));
    assert_eq!(lab.tracker.snapshot().listeners[0].accepted, 1);
    assert_eq!(lab.tracker.snapshot().destinations, [], "an accepted flow takes no ephemeral port of ours");
    lab.to(&mut child, CloseWait);
    lab.to(&mut child, LastAck);
    lab.to(&mut child, Close);
    assert_eq!(lab.ends(), [Ended::PassiveClose]);
}

#[test]
fn repeated_records_of_the_rescue_chain_are_recognised_everywhere() {
    let mut lab = Lab::new();
    let mut sock = Lab::socket(1);
    for new in [SynSent, Established, FinWait1, FinWait2, Close] {
        if new == Established {
            sock.port = 32_768;
            sock.last_port = 32_768;
        }
        if new == Close {
            lab.timer(&sock, true, false);
            sock.port = 0;
        }
        lab.now += 1000;
        let first = lab.raw(&sock, new, 0);
        lab.ingest(&Event::Transition(first));
        lab.ingest(&Event::Transition(Transition { rescued: true, ..first }));
        sock.state = new;
    }
    let client = lab.client();
    assert_eq!(
        (client.connects, client.established, client.active_closes, client.closed, client.time_wait.entered),
        (1, 1, 1, 1, 1)
    );
    assert_eq!(lab.tracker.snapshot().events.duplicates, 5);
}

#[test]
fn lost_runs_are_what_no_link_of_the_chain_recorded() {
    let mut lab = Lab::new();
    let sock = Lab::socket(1);
    lab.now += 1000;
    let opened = lab.raw(&sock, SynSent, 0);
    lab.ingest(&Event::Transition(opened));
    lab.ingest(&Event::Transition(Transition { rescued: true, ..opened }));
    // Ten runs missed, eight rescued of which one repeats: three are gone.
    lab.ingest(&Event::Loss(LossCounts {
        chain_missed: 10,
        chain_rescued: 8,
        ring_transitions: 4,
        ..LossCounts::default()
    }));
    let lost = lab.tracker.snapshot().events.lost;
    assert_eq!((lost.missed_runs, lost.ring_full), (3, 4));
}

#[test]
fn a_flow_heals_over_lost_transitions_and_says_so() {
    let mut lab = Lab::new();
    // ESTABLISHED was lost.
    let mut sock = Lab::socket(1);
    lab.to(&mut sock, SynSent);
    sock.state = Established;
    sock.port = 32_768;
    sock.last_port = 32_768;
    lab.close(&mut sock);
    // CLOSE was lost; the socket connects again.
    let mut sock = lab.connect(2, 32_770);
    sock.state = Close;
    sock.port = 0;
    lab.to(&mut sock, SynSent);
    let client = lab.client();
    assert_eq!((client.connects, client.established, client.closed), (3, 2, 2));
    assert_eq!(lab.tracker.snapshot().events.repaired, 2);
    assert_eq!(lab.ends(), [Ended::ActiveClose, Ended::Unknown]);
    assert_eq!(client.lifetime_ms.count, 1, "how long a repaired flow lived is not known");
}

#[test]
fn a_close_that_no_program_saw_is_told_by_the_minisocket_it_left() {
    let mut lab = Lab::new();
    let mut closing = lab.connect(1, 32_768);
    lab.to(&mut closing, FinWait1);
    lab.connect(2, 32_770);
    lab.list(&[Lab::row(1, 32_768, TcpState::TimeWait), Lab::row(2, 32_770, TcpState::TimeWait)], false);
    assert_eq!(lab.ends(), [Ended::ActiveClose, Ended::ActiveClose]);
    let client = lab.client();
    assert_eq!((client.active_closes, client.closed, client.lifetime_ms.count), (2, 2, 0));
    assert_eq!((client.time_wait.entered, client.time_wait.now), (2, 2), "the owner keeps them");
    assert_eq!((lab.only_dest().ports.in_use, lab.tracker.snapshot().events.repaired), (2, 2));
}

#[test]
fn the_first_list_enters_what_existed_and_later_ones_repair() {
    let mut lab = Lab::new();
    let rows =
        [Lab::row(1, 32_768, Established), Lab::row(2, 32_770, TcpState::TimeWait), Lab::row(3, 32_772, CloseWait)];
    lab.list(&rows, true);
    let snapshot = lab.tracker.snapshot();
    assert_eq!((snapshot.flows, snapshot.time_wait, snapshot.events.repaired), (2, 1, 0));
    assert_eq!(lab.only_dest().ports.in_use, 3);
    let client = lab.client();
    assert_eq!((client.connects, client.close_wait.now, client.time_wait.entered), (0, 1, 0));
    assert!(snapshot.attributions.iter().all(|attribution| attribution.inferred));
    // The second list has lost two of them and found another.
    lab.list(&[Lab::row(1, 32_768, CloseWait), Lab::row(4, 32_774, Established)], false);
    let snapshot = lab.tracker.snapshot();
    assert_eq!((snapshot.flows, snapshot.time_wait), (2, 0));
    assert_eq!(snapshot.events.repaired, 4, "one closed, one minisocket gone, one state, one new");
    assert_eq!(lab.only_dest().ports.in_use, 2);
}

#[test]
fn a_stale_row_neither_revives_a_closed_flow_nor_rewinds_a_living_one() {
    let mut lab = Lab::new();
    let mut closed = lab.connect(1, 32_768);
    let mut living = lab.connect(2, 32_770);
    let (began, rows) = (Ktime(lab.now), [Lab::row(1, 32_768, Established), Lab::row(2, 32_770, Established)]);
    lab.close(&mut closed);
    lab.timer(&closed, false, false);
    lab.to(&mut living, CloseWait);
    let ended = Ktime(lab.now);
    lab.ingest(&Event::Baseline(Baseline { netns: NETNS, began, ended, initial: true, rows: Arc::from(rows) }));
    let snapshot = lab.tracker.snapshot();
    assert_eq!((snapshot.flows, snapshot.events.repaired), (1, 0));
    assert_eq!(lab.client().close_wait.now, 1);
}

#[test]
fn a_flow_that_began_during_the_list_is_not_thought_gone() {
    let mut lab = Lab::new();
    let began = Ktime(lab.now);
    lab.connect(1, 32_768);
    lab.ingest(&Event::Baseline(Baseline {
        netns: NETNS,
        began,
        ended: Ktime(lab.now),
        initial: true,
        rows: Arc::from([]),
    }));
    assert_eq!(lab.tracker.snapshot().flows, 1);
}

#[test]
fn capacity_is_the_even_range_without_reserved_bound_and_listening_ports() {
    let mut lab = Lab::new();
    lab.connect(1, 32_768);
    assert_eq!(lab.only_dest().ports.capacity, Some(8));
    lab.ingest(&Event::Netns(Box::new(NetnsFacts {
        netns: NETNS,
        port_range: Some((32_768, 32_776)),
        ..NetnsFacts::default()
    })));
    assert_eq!(lab.only_dest().ports.capacity, Some(8), "an odd range loses one");
    lab.ingest(&Event::ReservedPorts(Ktime(0), NETNS, Arc::from([80, 32_769])));
    assert_eq!(lab.only_dest().ports.capacity, Some(7));
    let mut listener = Sock { port: 32_771, remote: Endpoint { addr: Addr::UNSPECIFIED, port: 0 }, ..Lab::socket(5) };
    lab.to(&mut listener, Listen);
    assert_eq!(lab.only_dest().ports.capacity, Some(6));
    assert!(lab.tracker.snapshot().listeners[0].in_ephemeral_range);
    listener.last_port = 32_771;
    lab.to(&mut listener, Close);
    assert_eq!(lab.only_dest().ports.capacity, Some(7));
}

#[test]
fn a_bound_port_is_blocked_for_others_until_its_socket_is_destroyed() {
    let mut lab = Lab::new();
    lab.connect(1, 32_768);
    let id = SocketId { cookie: None, sock: 42 };
    let key = FlowKey {
        netns: NETNS,
        local: Endpoint { addr: addr(1), port: 32_770 },
        remote: Endpoint { addr: Addr::UNSPECIFIED, port: 0 },
    };
    let event = SocketEvent { ktime: Ktime(lab.now), id, key, pid: 100, tid: 100 };
    lab.ingest(&Event::Bound(event));
    assert_eq!(lab.only_dest().ports.capacity, Some(7));
    lab.ingest(&Event::Released(event));
    assert_eq!(lab.only_dest().ports.capacity, Some(8));
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
    opened.key.netns = Netns(8);
    lab.ingest(&Event::Transition(opened));
    let dest = lab.only_dest();
    assert_eq!((dest.ports.capacity, dest.ports.utilisation, dest.sustainable_per_second), (None, None, None));
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
    let refused: u64 = snapshot.attributions.iter().map(|attribution| attribution.failed[&Failure::Errno(111)]).sum();
    assert_eq!((total, refused), (6_000, 6_000));
    let curl = snapshot.workloads.iter().find(|workload| &*workload.name == "curl").expect("curl");
    assert_eq!((curl.connects, curl.failed[&Failure::Errno(111)]), (6_000, 6_000));
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
