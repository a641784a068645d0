//! The rules, one by one, with the time in hand.

use std::sync::Arc;

use super::snapshot::{Ended, Failure, NoticeKinds};
use super::*;
use crate::event::{
    AcceptQueue, Addr, Baseline, Call, CallFailed, Caller, CgroupId, DestinationKey, Endpoint, FlowKey, Netns,
    NetnsFacts, ProcessFacts, SocketCookie, SocketEvent, SocketId, SocketRow, TcpState, TimeWaitEvent, Transition,
};
use TcpState::{Close, CloseWait, Closing, Established, FinWait1, FinWait2, LastAck, Listen, SynRecv, SynSent};

mod capacity;
mod continuation;
mod crowd;
mod failures;
mod healing;
mod incidents;
mod owners;
mod properties;
mod taken_ports;
mod time_wait;
mod watching;

const NETNS: Netns = Netns::of_inode(7);
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
            notices: NoticeKinds { transitions: true, flows: true, failures: true, findings: false, history: false },
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
            key: FlowKey {
                netns: NETNS,
                device: 0,
                local: Endpoint { addr: addr(1), port: sock.port },
                remote: sock.remote,
            },
            last_port: sock.last_port,
            own_range: None,
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
        let event = TimeWaitEvent { expired, ..self.minisocket(sock) };
        self.ingest(&if begins { Event::TimeWaitStart(event) } else { Event::TimeWaitEnd(event) });
    }

    /// The minisocket of a socket, now.
    fn minisocket(&self, sock: &Sock) -> TimeWaitEvent {
        TimeWaitEvent {
            ktime: Ktime(self.now),
            cookie: SocketCookie::new(sock.cookie),
            key: FlowKey {
                netns: NETNS,
                device: 0,
                local: Endpoint { addr: addr(1), port: sock.last_port },
                remote: sock.remote,
            },
            fin_wait2: false,
            timestamps: None,
            expired: false,
        }
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
            device: 0,
            own_range: None,
        })));
    }

    fn row(cookie: u64, port: u16, state: TcpState) -> SocketRow {
        SocketRow {
            sock: 0,
            cookie: SocketCookie::new(cookie),
            key: FlowKey {
                netns: NETNS,
                device: 0,
                local: Endpoint { addr: addr(1), port },
                remote: Self::socket(0).remote,
            },
            state,
            minisocket: state == TcpState::TimeWait,
            remaining: (state == TcpState::TimeWait).then_some(30 * SECOND),
            owner: (state != TcpState::TimeWait).then_some(100),
            named: None,
            closed: None,
            timestamps: None,
            has_descriptor: None,
            queue: None,
        }
    }

    /// A list of sockets some time after the latest event.
    fn list(&mut self, rows: &[SocketRow], initial: bool) {
        self.now += 100 * MS;
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
