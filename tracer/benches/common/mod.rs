//! Churn without a kernel: the events of many connections, in the order in which a busy host makes them.

use std::net::IpAddr;

use tracer_core::event::{
    Addr, Caller, CgroupId, Endpoint, Event, FlowKey, Ktime, Netns, NetnsFacts, ProcessFacts, SocketCookie, SocketId,
    TcpState, TimeWaitEvent, Transition,
};
use tracer_core::tracker::snapshot::NoticeKinds;
use tracer_core::tracker::{Config, Tracker};

pub const SECOND: u64 = 1_000_000_000;
const NETNS: Netns = Netns::of_inode(4_026_531_840);
/// Processes that connect.
const CLIENTS: u32 = 8;
/// Where they connect to, unless a bench says otherwise.
const DESTINATIONS: u64 = 32;
/// `TCP_TIMEWAIT_LEN` and a second of the timer wheel.
const TIME_WAIT: u64 = 61 * SECOND;

/// A tracker as `portchurn report` has it, which knows the namespace and the processes.
#[allow(dead_code, reason = "each bench uses its part of this module")]
pub fn tracker() -> Tracker {
    tracker_for(NoticeKinds::default())
}

/// The same for somebody who wants to be told more.
pub fn tracker_for(notices: NoticeKinds) -> Tracker {
    let config = Config { time_wait_observed: true, calls_observed: true, notices, ..Config::default() };
    let mut tracker = Tracker::new(config);
    tracker.begin(Ktime(SECOND));
    tracker.ingest(&Event::Netns(Box::new(NetnsFacts {
        netns: NETNS,
        port_range: Some((1024, 65_535)),
        tw_reuse: Some(0),
        ..NetnsFacts::default()
    })));
    for client in 0..CLIENTS {
        tracker.ingest(&Event::Process(Box::new(ProcessFacts {
            pid: 1000 + client,
            start: 1,
            comm: format!("client{client}").into(),
            ..ProcessFacts::default()
        })));
    }
    tracker
}

/// The client's side of the connection with this number. Numbers a million apart share a 4-tuple.
#[derive(Clone, Copy)]
pub struct Connection {
    number: u64,
    key: FlowKey,
}

impl Connection {
    pub fn new(number: u64) -> Self {
        Self::among(number, DESTINATIONS)
    }

    /// Towards one of so many destinations of 40,000 ports each.
    pub fn among(number: u64, destinations: u64) -> Self {
        let (remote, port) = (number % destinations, number / destinations % 40_000);
        let ip = |host: u64| {
            let [.., high, low] = (256 + host).to_be_bytes();
            Addr::from(IpAddr::from([10, 0, high, low]))
        };
        let remote = Endpoint { addr: ip(remote + 2), port: 443 };
        let local = Endpoint { addr: ip(1), port: 1024 + u16::try_from(port).unwrap_or(0) };
        Self { number, key: FlowKey { netns: NETNS, device: 0, local, remote } }
    }

    fn id(&self) -> SocketId {
        SocketId {
            cookie: SocketCookie::new(self.number + 1),
            sock: 0xffff_8880_0000_0000 + self.number % 1_000_000 * 2048,
        }
    }

    pub fn transition(&self, at: u64, old: TcpState, new: TcpState) -> Event {
        let mut key = self.key;
        let mut last_port = key.local.port;
        if old == TcpState::Close {
            (key.local.port, last_port) = (0, 0);
        } else if new == TcpState::Close {
            key.local.port = 0;
        }
        let pid = 1000 + u32::try_from(self.number % u64::from(CLIENTS)).unwrap_or(0);
        let caller = (old == TcpState::Close || new == TcpState::FinWait1).then_some(Caller {
            pid,
            tid: pid,
            cgroup: CgroupId(1),
        });
        Event::Transition(Transition {
            ktime: Ktime(at),
            id: self.id(),
            key,
            last_port,
            own_range: None,
            old,
            new,
            sk_err: 0,
            shutdown: new == TcpState::Close,
            caller,
            current_tid: pid,
            rescued: false,
            classic: false,
        })
    }

    fn minisocket(&self, at: u64, expired: bool) -> TimeWaitEvent {
        TimeWaitEvent {
            ktime: Ktime(at),
            cookie: self.id().cookie,
            key: self.key,
            fin_wait2: false,
            timestamps: None,
            expired,
        }
    }

    /// connect() and its answer: the flow is live afterwards.
    pub fn opens(&self, at: u64) -> [Event; 2] {
        [
            self.transition(at, TcpState::Close, TcpState::SynSent),
            self.transition(at + 20_000, TcpState::SynSent, TcpState::Established),
        ]
    }

    /// close() and what follows: the flow has become a minisocket.
    pub fn closes(&self, at: u64) -> [Event; 4] {
        [
            self.transition(at, TcpState::Established, TcpState::FinWait1),
            self.transition(at + 10_000, TcpState::FinWait1, TcpState::FinWait2),
            Event::TimeWaitStart(self.minisocket(at + 10_500, false)),
            self.transition(at + 11_000, TcpState::FinWait2, TcpState::Close),
        ]
    }

    /// connect() and a reset: nothing is left.
    #[allow(dead_code, reason = "not every bench needs it")]
    pub fn resets(&self, at: u64) -> [Event; 3] {
        let [first, second] = self.opens(at);
        [first, second, self.transition(at + 50_000, TcpState::Established, TcpState::Close)]
    }

    pub fn time_is_up(&self, at: u64) -> Event {
        Event::TimeWaitEnd(self.minisocket(at, true))
    }
}

/// A steady state: `live` flows stay open while connections come, go, and leave a TIME_WAIT of a minute, at a rate at which `time_waits`
/// minisockets exist at any moment. Seven events a connection.
pub struct Churn {
    next: u64,
    destinations: u64,
    live: u64,
    time_waits: u64,
    now: u64,
}

impl Churn {
    #[allow(dead_code, reason = "each bench uses its part of this module")]
    pub const EVENTS: u64 = 7;

    /// Fills the tracker up to its steady state.
    #[allow(dead_code, reason = "each bench uses its part of this module")]
    pub fn start(tracker: &mut Tracker, live: u64, time_waits: u64) -> Self {
        Self::among(tracker, DESTINATIONS, live, time_waits)
    }

    pub fn among(tracker: &mut Tracker, destinations: u64, live: u64, time_waits: u64) -> Self {
        let mut churn = Self { next: 0, destinations, live, time_waits, now: 2 * SECOND };
        for number in 0..live {
            for event in Connection::among(number, destinations).opens(churn.now) {
                tracker.ingest(&event);
            }
        }
        churn.next = live;
        for _ in 0..time_waits {
            churn.connection(false, |event| tracker.ingest(event));
        }
        churn
    }

    pub fn now(&self) -> u64 {
        self.now
    }

    /// One connection comes, the oldest live one goes, the oldest TIME_WAIT ends.
    pub fn step(&mut self, each: impl FnMut(&Event)) {
        self.connection(true, each);
    }

    fn connection(&mut self, ends: bool, mut each: impl FnMut(&Event)) {
        // The clock moves so that a minute passes while all minisockets are replaced once.
        self.now += TIME_WAIT / self.time_waits.max(1);
        let connection = |number| Connection::among(number, self.destinations);
        connection(self.next).opens(self.now).iter().for_each(&mut each);
        connection(self.next - self.live).closes(self.now + 50_000).iter().for_each(&mut each);
        if ends && let Some(oldest) = (self.next - self.live).checked_sub(self.time_waits) {
            each(&connection(oldest).time_is_up(self.now + 70_000));
        }
        self.next += 1;
    }
}
