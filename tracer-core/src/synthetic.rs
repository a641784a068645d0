//! Synthetic traffic: connection churn of any length, the same every time.
//!
//! [`Connection`] knows the events of one connection, [`Churn`] begins and ends connections at a steady rate, and
//! [`RecordedChurn`] is that as the steps of a recording. Measurements of the tracker and of recordings use them, and
//! tests that need more events than a kernel makes in their time. Not for: correctness of the tracker, which real
//! traffic decides.

pub mod forecasting;
pub mod incident;
pub mod loads;

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use crate::event::{
    Addr, Caller, CgroupId, Endpoint, Event, FlowKey, Ktime, Netns, NetnsFacts, ProcessFacts, SocketCookie,
    SocketEvent, SocketId, TcpState, TimeWaitEvent, Transition,
};
use crate::model::noise::Noise;
use crate::recording::RecordingHeader;
use crate::recording::header::{Anchor, RecordedConfig};
use crate::step::TrackerStep;
use crate::tracker::snapshot::NoticeKinds;
use crate::tracker::{Config, TIME_WAIT, Tracker};

/// Nanoseconds of a second.
pub const SECOND: u64 = 1_000_000_000;
/// `TIME_WAIT` and a second of the timer wheel.
const TIME_WAIT_NANOS: u64 = (TIME_WAIT.as_secs() + 1) * SECOND;
const CGROUP: CgroupId = CgroupId(5_001);

/// When a recording of churn begins.
const RECORDED_BEGIN: u64 = 100 * SECOND;
/// In a recording a connection begins this often on the mean ...
const RECORDED_PERIOD: u64 = 60_000;
/// ... so that this many end within 60 seconds.
const RECORDED_TIME_WAITS: u64 = 1_000_000;
/// In a recording the clock moves this often.
const TICK_NANOS: u64 = 20_000_000;

/// Who connects to whom, and from which ports.
#[derive(Clone, Copy, Debug)]
pub struct Topology {
    netns: Netns,
    /// Addresses begin above this one: the client's, then the servers'.
    network: Ipv4Addr,
    destinations: u64,
    server_port: u16,
    first_port: u16,
    /// Local ports of the client, and the step from one to the next. The ports are walked with a stride that visits
    /// each.
    ports: u64,
    port_step: u64,
    port_stride: u64,
    /// Processes that connect, numbered upwards.
    first_client: u32,
    clients: u32,
    /// The servers are on the traced host, too.
    both_ends: bool,
}

/// The process of the servers.
const SERVER_PID: u32 = 77;

impl Topology {
    /// Eight processes that connect to `destinations` servers elsewhere, from 40,000 ports: one socket a connection is
    /// seen.
    pub const fn clients(destinations: u64) -> Self {
        Self {
            netns: Netns::of_inode(4_026_531_840),
            network: Ipv4Addr::new(10, 0, 1, 0),
            destinations,
            server_port: 443,
            first_port: 1_024,
            ports: 40_000,
            port_step: 1,
            port_stride: 1,
            first_client: 1_000,
            clients: 8,
            both_ends: false,
        }
    }

    /// A client and a server on one host, and its default range of ephemeral ports: two sockets a connection are seen.
    pub const fn both_ends() -> Self {
        Self {
            netns: Netns::new(4_026_532_522, 9),
            network: Ipv4Addr::new(10, 66, 0, 0),
            destinations: 1,
            server_port: 8_443,
            first_port: 32_768,
            ports: 14_116,
            port_step: 2,
            port_stride: 5_171,
            first_client: 4_242,
            clients: 1,
            both_ends: true,
        }
    }

    /// Address number `host` of the network.
    fn addr(&self, host: u64) -> Addr {
        let number = u32::from(self.network).wrapping_add(u32::try_from(host).unwrap_or(0));
        Addr::from(std::net::IpAddr::from(Ipv4Addr::from(number)))
    }
}

/// A connection and its sockets. Numbers so far apart that the ports have been used up in between share a 4-tuple.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// From the client's side.
    key: FlowKey,
    client: SocketId,
    server: SocketId,
    client_pid: u32,
}

impl Connection {
    /// Number `number` of this topology, with sockets at addresses that no other of the last half million has.
    pub fn new(number: u64, topology: &Topology) -> Self {
        let (server, turn) = (number % topology.destinations, number / topology.destinations);
        let port = turn.wrapping_mul(topology.port_stride) % topology.ports * topology.port_step;
        let local = Endpoint { addr: topology.addr(1), port: topology.first_port + u16::try_from(port).unwrap_or(0) };
        let remote = Endpoint { addr: topology.addr(2 + server), port: topology.server_port };
        let sockets = 1 + u64::from(topology.both_ends);
        let socket = |end: u64| {
            let socket = number * sockets + end;
            SocketId { cookie: SocketCookie::new(socket + 1), sock: 0xffff_8880_0000_0000 + socket % 1_000_000 * 2_048 }
        };
        Self {
            key: FlowKey { netns: topology.netns, device: 0, local, remote },
            client: socket(0),
            server: socket(1),
            client_pid: topology.first_client + u32::try_from(number % u64::from(topology.clients)).unwrap_or(0),
        }
    }

    /// The client's socket changes its state.
    fn client_changes(&self, ktime: Ktime, old: TcpState, new: TcpState) -> Event {
        let mut key = self.key;
        if old == TcpState::Close || new == TcpState::Close {
            key.local.port = 0;
        }
        let last_port = if old == TcpState::Close { 0 } else { self.key.local.port };
        self.change(ktime, self.client, key, last_port, old, new)
    }

    /// The server's socket changes its state.
    fn server_changes(&self, ktime: Ktime, old: TcpState, new: TcpState) -> Event {
        let key = FlowKey { local: self.key.remote, remote: self.key.local, ..self.key };
        self.change(ktime, self.server, key, key.local.port, old, new)
    }

    fn change(&self, ktime: Ktime, id: SocketId, key: FlowKey, last_port: u16, old: TcpState, new: TcpState) -> Event {
        let caller = match (old, new) {
            (TcpState::Close, _) | (_, TcpState::FinWait1) => Some(self.client_pid),
            (_, TcpState::LastAck) => Some(SERVER_PID),
            _ => None,
        };
        Event::Transition(Transition {
            ktime,
            id,
            key,
            last_port,
            own_range: None,
            old,
            new,
            sk_err: 0,
            shutdown: matches!(new, TcpState::FinWait1 | TcpState::FinWait2 | TcpState::LastAck | TcpState::Close),
            caller: caller.map(|pid| Caller { pid, tid: pid, cgroup: CGROUP }),
            current_tid: self.client_pid,
            rescued: false,
            classic: false,
        })
    }

    fn minisocket(&self, ktime: Ktime, expired: bool) -> TimeWaitEvent {
        let Self { key, client: SocketId { cookie, .. }, .. } = *self;
        TimeWaitEvent { ktime, cookie, key, fin_wait2: false, timestamps: Some(true), expired }
    }

    /// connect() and its answer, as the client's socket shows them: the flow is live afterwards.
    pub fn opens(&self, at: u64) -> [Event; 2] {
        [
            self.client_changes(Ktime(at), TcpState::Close, TcpState::SynSent),
            self.client_changes(Ktime(at + 20_000), TcpState::SynSent, TcpState::Established),
        ]
    }

    /// close() and what follows, as the client's socket shows them: the flow is a minisocket afterwards.
    pub fn closes(&self, at: u64) -> [Event; 4] {
        [
            self.client_changes(Ktime(at), TcpState::Established, TcpState::FinWait1),
            self.client_changes(Ktime(at + 10_000), TcpState::FinWait1, TcpState::FinWait2),
            Event::TimeWaitStart(self.minisocket(Ktime(at + 10_500), false)),
            self.client_changes(Ktime(at + 11_000), TcpState::FinWait2, TcpState::Close),
        ]
    }

    /// connect() and a reset: nothing is left.
    pub fn resets(&self, at: u64) -> [Event; 3] {
        let [first, second] = self.opens(at);
        [first, second, self.client_changes(Ktime(at + 50_000), TcpState::Established, TcpState::Close)]
    }

    /// The minisocket's time is up.
    pub fn time_wait_ends(&self, at: u64) -> Event {
        Event::TimeWaitEnd(self.minisocket(Ktime(at), true))
    }

    /// The whole connection as both sockets show it, closed at once by the client; `later` is the time of the next
    /// event.
    fn at_both_ends(&self, mut later: impl FnMut() -> Ktime) -> [Event; 11] {
        use TcpState::{Close, CloseWait, Established, FinWait1, FinWait2, LastAck, SynRecv, SynSent};
        let key = FlowKey { local: self.key.remote, remote: self.key.local, ..self.key };
        [
            self.client_changes(later(), Close, SynSent),
            self.server_changes(later(), SynRecv, Established),
            self.client_changes(later(), SynSent, Established),
            self.client_changes(later(), Established, FinWait1),
            self.server_changes(later(), Established, CloseWait),
            self.server_changes(later(), CloseWait, LastAck),
            self.client_changes(later(), FinWait1, FinWait2),
            Event::TimeWaitStart(self.minisocket(later(), false)),
            self.client_changes(later(), FinWait2, Close),
            self.server_changes(later(), LastAck, Close),
            Event::Accepted(SocketEvent {
                ktime: later(),
                id: self.server,
                key,
                pid: SERVER_PID,
                tid: SERVER_PID,
                named: Some(false),
                listener: Some(LISTENER),
            }),
        ]
    }
}

/// The socket that accepts every connection.
const LISTENER: SocketId = SocketId { cookie: None, sock: 0xffff_8880_ffff_0000 };

/// A steady state: `live` flows stay open while connections come, go, and leave a TIME_WAIT of a minute, at a rate at
/// which `time_waits` minisockets exist at any moment. It keeps no list of them, so that it takes no memory that a
/// measurement would count.
#[derive(Debug)]
pub struct Churn {
    topology: Topology,
    live: u64,
    time_waits: u64,
    /// Number of the next connection.
    next: u64,
    now: u64,
    noise: Noise,
}

impl Churn {
    /// Events of one connection in the steady state of [`Topology::clients`].
    pub const EVENTS: u64 = 7;

    /// Fills `tracker` up to the steady state of [`Topology::clients`] with this many destinations.
    pub fn start(tracker: &mut Tracker, destinations: u64, live: u64, time_waits: u64) -> Self {
        let topology = Topology::clients(destinations);
        let mut churn = Self { topology, live, time_waits, next: live, now: 2 * SECOND, noise: Noise::new(7) };
        for number in 0..live {
            for event in Connection::new(number, &topology).opens(churn.now) {
                tracker.ingest(&event);
            }
        }
        for _ in 0..time_waits {
            churn.step(|event| tracker.ingest(event));
        }
        churn
    }

    /// Connections of [`Topology::both_ends`], each closed at once.
    fn at_both_ends() -> Self {
        Self {
            topology: Topology::both_ends(),
            live: 0,
            time_waits: RECORDED_TIME_WAITS,
            next: 0,
            now: RECORDED_BEGIN,
            noise: Noise::new(7),
        }
    }

    /// `CLOCK_MONOTONIC` nanoseconds at which the next connection begins.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// The oldest TIME_WAIT ends, one connection comes, the oldest live one goes.
    pub fn step(&mut self, mut each: impl FnMut(&Event)) {
        let topology = self.topology;
        let connection = |number| Connection::new(number, &topology);
        let oldest_live = self.next - self.live;
        if let Some(oldest) = oldest_live.checked_sub(self.time_waits) {
            each(&connection(oldest).time_wait_ends(self.now));
        }
        let (noise, mut at) = (&mut self.noise, self.now);
        if topology.both_ends {
            // The kernel's slabs hand out the addresses of the sockets that were freed last.
            let mut address = || 0xffff_8881_0400_0000 + noise.below(24) * 2_304;
            let mut connection = connection(self.next);
            (connection.client.sock, connection.server.sock) = (address(), address());
            let events = connection.at_both_ends(|| {
                at += 1_000 + noise.below(4_000);
                Ktime(at)
            });
            events.iter().for_each(each);
            self.now += RECORDED_PERIOD / 2 + noise.below(RECORDED_PERIOD);
        } else {
            connection(self.next).opens(at).iter().for_each(&mut each);
            connection(oldest_live).closes(at + 50_000).iter().for_each(&mut each);
            // The clock moves so that a minute passes while all minisockets are replaced once.
            self.now += TIME_WAIT_NANOS / self.time_waits.max(1);
        }
        self.next += 1;
    }
}

/// Of what there are many on a crowded host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrowdKind {
    /// Each connection is of a process of its own, and each process has one of many names.
    Names,
    /// Connections go to many destinations.
    Destinations,
    /// Connections are made in many network namespaces.
    Namespaces,
    /// Connections to many destinations fail for lack of a port.
    Failing,
    /// Each connection is of a process in one of many containers, each in a namespace of its own.
    Pods,
}

impl CrowdKind {
    /// All kinds, with their names.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::Names, "names"),
        (Self::Destinations, "destinations"),
        (Self::Namespaces, "namespaces"),
        (Self::Failing, "failing"),
        (Self::Pods, "pods"),
    ];
}

/// Short connections of a crowded host, a hundred microseconds apart: one after the other of `size` names, destinations and so on.
#[derive(Debug)]
pub struct Crowd {
    kind: CrowdKind,
    size: u64,
    next: u64,
    now: u64,
}

impl Crowd {
    /// A crowd of so many.
    pub fn new(kind: CrowdKind, size: u64) -> Self {
        Self { kind, size, next: 0, now: 2 * SECOND }
    }

    /// `CLOCK_MONOTONIC` nanoseconds at which the next connection begins.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// The next connection, from begin to end.
    pub fn step(&mut self, mut each: impl FnMut(&Event)) {
        let (number, at) = (self.next, self.now);
        let who = number % self.size;
        let of_crowd = |kind: CrowdKind| if self.kind == kind { who } else { 0 };
        let own_netns = of_crowd(CrowdKind::Namespaces) + of_crowd(CrowdKind::Pods);
        let small = |number: u64| u32::try_from(number).unwrap_or(0);
        let far = self.kind == CrowdKind::Destinations || self.kind == CrowdKind::Failing;
        let topology = Topology {
            netns: Netns::of_inode(4_026_531_840 + small(own_netns)),
            destinations: 1,
            clients: 1,
            // Neither of these is the same for long.
            first_client: 1_000_000 + small(number % 3_000_000),
            ..Topology::clients(1)
        };
        let mut connection = Connection::new(number, &topology);
        if far {
            connection.key.remote.addr = topology.addr(2 + who);
            connection.client_pid = 1_000;
        }
        let with_process = matches!(self.kind, CrowdKind::Names | CrowdKind::Pods);
        if with_process {
            each(&Event::Process(Box::new(ProcessFacts {
                ktime: Ktime(at),
                pid: connection.client_pid,
                start: at,
                comm: format!("job-{}", of_crowd(CrowdKind::Names)).into(),
                container: (self.kind == CrowdKind::Pods).then(|| format!("docker:{who:012x}").into()),
                netns: topology.netns,
                ..ProcessFacts::default()
            })));
        } else {
            connection.client_pid = 1_000;
        }
        if own_netns > 0 {
            each(&Event::Netns(Box::new(NetnsFacts {
                ktime: Ktime(at),
                netns: topology.netns,
                port_range: Some((1_024, 65_535)),
                ..NetnsFacts::default()
            })));
        }
        if self.kind == CrowdKind::Failing {
            each(&connection.client_changes(Ktime(at), TcpState::Close, TcpState::SynSent));
            let failed = connection.client_changes(Ktime(at + 20_000), TcpState::SynSent, TcpState::Close);
            if let Event::Transition(failed) = failed {
                each(&Event::Transition(Transition { last_port: 0, shutdown: false, ..failed }));
            }
        } else {
            connection.resets(at).iter().for_each(each);
        }
        self.next += 1;
        self.now += 100_000;
    }
}

/// A tracker as `portchurn report` has it, which knows the namespace and the processes of [`Topology::clients`].
pub fn tracker(notices: NoticeKinds) -> Tracker {
    let topology = Topology::clients(1);
    let config = Config { time_wait_observed: true, calls_observed: true, notices, ..Config::default() };
    let mut tracker = Tracker::new(config);
    tracker.begin(Ktime(SECOND));
    tracker.ingest(&Event::Netns(Box::new(NetnsFacts {
        netns: topology.netns,
        port_range: Some((1024, 65_535)),
        tw_reuse: Some(0),
        ..NetnsFacts::default()
    })));
    for client in 0..topology.clients {
        tracker.ingest(&Event::Process(Box::new(ProcessFacts {
            pid: topology.first_client + client,
            start: 1,
            comm: format!("client{client}").into(),
            ..ProcessFacts::default()
        })));
    }
    tracker
}

/// The steps of a recording: connections to one server, each closed at once by the client, as both of their sockets on
/// this host show them. The header to go with it is [`header`].
#[derive(Debug)]
pub struct RecordedChurn {
    churn: Churn,
    left: u64,
    /// When the clock moves next.
    tick: u64,
    pending: VecDeque<TrackerStep>,
}

impl RecordedChurn {
    /// So many connections.
    pub fn new(connections: u64) -> Self {
        let churn = Churn::at_both_ends();
        let process = |(pid, comm): (u32, &str)| {
            TrackerStep::Event(Event::Process(Box::new(ProcessFacts {
                ktime: Ktime(churn.now),
                pid,
                start: 1,
                comm: comm.into(),
                parent_comm: "sh".into(),
                cmdline: Some(format!("/usr/bin/{comm} --port 8443").into()),
                ..ProcessFacts::default()
            })))
        };
        let pending = [(SERVER_PID, "server"), (churn.topology.first_client, "client")].map(process).into();
        Self { left: connections, tick: churn.now, pending, churn }
    }
}

impl Iterator for RecordedChurn {
    type Item = TrackerStep;

    fn next(&mut self) -> Option<TrackerStep> {
        if let Some(step) = self.pending.pop_front() {
            return Some(step);
        }
        let now = self.churn.now;
        if now >= self.tick {
            self.tick = now + TICK_NANOS;
            return Some(TrackerStep::Advance(Ktime(now)));
        }
        self.left = self.left.checked_sub(1)?;
        let pending = &mut self.pending;
        self.churn.step(|event| pending.push_back(TrackerStep::Event(event.clone())));
        self.pending.pop_front()
    }
}

/// The header of a recording of [`RecordedChurn`].
pub fn header() -> RecordingHeader {
    RecordingHeader {
        tool: "portchurn synthetic".into(),
        anchor: Anchor { ktime_ns: RECORDED_BEGIN, unix_ns: 1_773_454_267_000_000_000 },
        begin_ns: RECORDED_BEGIN,
        watch: RecordedConfig {
            by: "auto".into(),
            time_wait_observed: true,
            calls_observed: true,
            ..RecordedConfig::default()
        },
        ..RecordingHeader::default()
    }
}
