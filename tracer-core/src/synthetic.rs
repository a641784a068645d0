//! Traffic that never was: connection churn of any length, the same every time.
//!
//! For measuring what a recording costs and how large it gets, and for tests that need more events than a kernel makes in their
//! time. Not for: correctness of the tracker, which real traffic decides.

use crate::event::{
    Addr, Caller, CgroupId, Endpoint, Event, FlowKey, Ktime, Netns, ProcessFacts, SocketCookie, SocketEvent, SocketId,
    TcpState, TimeWaitEvent, Transition,
};
use crate::recording::RecordedStep;

/// Events of one connection, both of its ends on this host.
pub const EVENTS: usize = 12;
/// The ephemeral range, walked with a stride that visits every even port.
const FIRST_PORT: u16 = 32_768;
const PORTS: u64 = 14_116;
const STRIDE: u64 = 5_171;
/// A connection begins this often on the mean.
const PERIOD_NANOS: u64 = 60_000;
/// `TCP_TIMEWAIT_LEN`.
const TIME_WAIT_NANOS: u64 = 60_000_000_000;
/// The clock moves this often.
const TICK_NANOS: u64 = 20_000_000;

/// Pseudo-random numbers (splitmix64): jitter that does not depend on the day.
struct Noise(u64);

impl Noise {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

/// Churn: `connections` connects to one server, each closed at once by the client.
pub struct Churn {
    noise: Noise,
    left: u64,
    number: u64,
    now: u64,
    tick: u64,
    /// The events of the connection in the making, latest first.
    pending: Vec<RecordedStep>,
    /// Minisockets and when they end, oldest first.
    waiting: std::collections::VecDeque<(u64, TimeWaitEvent)>,
}

impl Churn {
    pub fn new(connections: u64) -> Self {
        let now = 100_000_000_000;
        let mut pending = Vec::new();
        for (pid, comm) in [(4_242, "client"), (77, "server")] {
            pending.push(RecordedStep::Event(Event::Process(Box::new(ProcessFacts {
                ktime: Ktime(now),
                pid,
                start: 1,
                comm: comm.into(),
                parent_comm: "sh".into(),
                cmdline: Some(format!("/usr/bin/{comm} --port 8443").into()),
                ..ProcessFacts::default()
            }))));
        }
        Self {
            noise: Noise(7),
            left: connections,
            number: 0,
            now,
            tick: now,
            pending,
            waiting: std::collections::VecDeque::new(),
        }
    }

    fn connection(&mut self) {
        let mut at = self.now;
        let mut later = |noise: &mut Noise| {
            at += 1_000 + noise.next(4_000);
            Ktime(at)
        };
        let addr = |last| Addr::from(std::net::IpAddr::from([10, 66, 0, last]));
        let port = FIRST_PORT + u16::try_from(self.number.wrapping_mul(STRIDE) % PORTS * 2).unwrap_or(0);
        let client = Endpoint { addr: addr(1), port };
        let server = Endpoint { addr: addr(2), port: 8_443 };
        let netns = Netns::of_inode(4_026_532_522);
        // Slabs hand out the addresses of the sockets that were freed last.
        let id = |noise: &mut Noise, cookie: u64| SocketId {
            cookie: SocketCookie::new(cookie),
            sock: 0xffff_8881_0400_0000 + noise.next(24) * 2_304,
        };
        let (ours, theirs) = (id(&mut self.noise, 2 * self.number + 1), id(&mut self.noise, 2 * self.number + 2));
        let caller = |pid| Some(Caller { pid, tid: pid, cgroup: CgroupId(5_001) });
        let noise = &mut self.noise;
        let mut steps = Vec::with_capacity(EVENTS);
        let key = FlowKey { netns, device: 0, local: client, remote: server };
        let unbound = FlowKey { local: Endpoint { port: 0, ..client }, ..key };
        let back = FlowKey { netns, device: 0, local: server, remote: client };
        let mut change = |ktime, id, key: FlowKey, old, new, caller: Option<Caller>, shutdown| {
            steps.push(RecordedStep::Event(Event::Transition(Transition {
                ktime,
                id,
                key,
                last_port: if key.local.port == 0 && old != TcpState::Close { port } else { key.local.port },
                own_range: None,
                old,
                new,
                sk_err: 0,
                shutdown,
                caller,
                current_tid: 4_242,
                rescued: false,
                classic: false,
            })));
        };
        change(later(noise), ours, unbound, TcpState::Close, TcpState::SynSent, caller(4_242), false);
        change(later(noise), theirs, back, TcpState::SynRecv, TcpState::Established, None, false);
        change(later(noise), ours, key, TcpState::SynSent, TcpState::Established, None, false);
        change(later(noise), ours, key, TcpState::Established, TcpState::FinWait1, caller(4_242), true);
        change(later(noise), theirs, back, TcpState::Established, TcpState::CloseWait, None, false);
        change(later(noise), theirs, back, TcpState::CloseWait, TcpState::LastAck, caller(77), true);
        change(later(noise), ours, key, TcpState::FinWait1, TcpState::FinWait2, None, true);
        let begins = later(noise);
        change(later(noise), ours, unbound, TcpState::FinWait2, TcpState::Close, None, true);
        change(later(noise), theirs, back, TcpState::LastAck, TcpState::Close, None, true);
        let minisocket = TimeWaitEvent {
            ktime: begins,
            cookie: ours.cookie,
            key,
            fin_wait2: false,
            timestamps: None,
            expired: false,
        };
        steps.insert(7, RecordedStep::Event(Event::TimeWaitStart(minisocket)));
        let accepted =
            SocketEvent { ktime: later(noise), id: theirs, key: back, pid: 77, tid: 77, named: None, listener: None };
        steps.push(RecordedStep::Event(Event::Accepted(accepted)));
        self.waiting.push_back((begins.0 + TIME_WAIT_NANOS, minisocket));
        steps.reverse();
        self.pending.extend(steps);
        self.number += 1;
        self.now += PERIOD_NANOS / 2 + self.noise.next(PERIOD_NANOS);
    }
}

impl Iterator for Churn {
    type Item = RecordedStep;

    fn next(&mut self) -> Option<RecordedStep> {
        if let Some(step) = self.pending.pop() {
            return Some(step);
        }
        if self.now >= self.tick {
            self.tick = self.now + TICK_NANOS;
            return Some(RecordedStep::Advance(Ktime(self.now)));
        }
        if self.waiting.front().is_some_and(|(due, _)| *due <= self.now)
            && let Some((_, minisocket)) = self.waiting.pop_front()
        {
            return Some(RecordedStep::Event(Event::TimeWaitEnd(TimeWaitEvent {
                ktime: Ktime(self.now),
                expired: true,
                ..minisocket
            })));
        }
        self.left = self.left.checked_sub(1)?;
        self.connection();
        self.pending.pop()
    }
}

/// A name for what the steps are recorded as.
pub fn header() -> crate::recording::RecordingHeader {
    let anchor = crate::recording::header::Anchor { ktime_ns: 100_000_000_000, unix_ns: 1_773_454_267_000_000_000 };
    let watch = crate::recording::header::RecordedConfig {
        by: "auto".into(),
        time_wait_observed: true,
        calls_observed: true,
        ..Default::default()
    };
    crate::recording::RecordingHeader {
        tool: "portchurn synthetic".into(),
        anchor,
        begin_ns: 100_000_000_000,
        watch,
        ..Default::default()
    }
}
