//! Loads with a name: connects at a rate that changes, held for a time that varies, on ports as the kernel gives them.
//!
//! [`PortTraffic`] is one run of a [`PortLoad`]: events in the order of time, up to the first connect that finds no port.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::{Connection, SECOND, Topology};
use crate::event::{Baseline, Event, Ktime, Netns, NetnsFacts, SocketId, SocketRow, TcpState, TimeWaitEvent};
use crate::model::noise::Noise;
use crate::model::pool::{Left, PoolRules, PortPool, ReuseDelay, ReuseRule};

/// When a run begins.
pub const BEGIN: u64 = 1_000 * SECOND;
/// The ports of a run begin here.
const FIRST_PORT: u16 = 20_000;
/// A pass of `sock_diag` comes this often where orphans are to be told apart.
const LIST_EVERY: u64 = 10 * SECOND;
const MILLISECOND: u64 = 1_000_000;

/// How long connections live.
#[derive(Clone, Copy, Debug)]
pub enum Life {
    /// So many seconds each.
    Fixed(f64),
    /// So many seconds on the mean, without memory.
    Exponential(f64),
}

/// A load.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches of a load")]
pub struct PortLoad {
    /// Its name in tables.
    pub name: &'static str,
    /// Connects per second after so many seconds.
    pub rate: fn(f64) -> f64,
    /// Connects come at random (Poisson) and not evenly.
    pub random: bool,
    /// Of the connections that are closed.
    pub life: Life,
    /// Connections that were there before, and stay.
    pub held: u32,
    /// Share of the others that is never closed.
    pub kept: f64,
    /// The peer does not close: orphans.
    pub orphans: bool,
    /// The peer sends TCP timestamps.
    pub timestamps: bool,
    /// Ports of the range.
    pub ports: u16,
    /// Rate, ports and held connections are so many times as many: the larger, the less chance there is in it.
    pub times: u16,
    /// `tcp_tw_reuse` is 1, otherwise 0.
    pub reuse: bool,
    /// `tcp_fin_timeout`, seconds.
    pub fin_timeout: u32,
    /// How long a run takes if no connect fails, seconds.
    pub seconds: u32,
    /// Nothing before this second tells what comes.
    pub told_from: f64,
}

impl PortLoad {
    /// A load of connections that are closed after 50 ms, on 3,000 ports, for five minutes.
    pub const fn new(name: &'static str, rate: fn(f64) -> f64) -> Self {
        Self {
            name,
            rate,
            random: true,
            life: Life::Fixed(0.05),
            held: 0,
            kept: 0.0,
            orphans: false,
            timestamps: true,
            ports: 3_000,
            times: 1,
            reuse: false,
            fin_timeout: 60,
            seconds: 300,
            told_from: 0.0,
        }
    }
}

impl PortLoad {
    fn ports(&self) -> u16 {
        self.ports * self.times
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Planned {
    Close(u16),
    Connect,
    List,
}

/// What is on a port.
#[derive(Clone, Copy, Debug)]
struct OnPort {
    connection: Connection,
    state: TcpState,
}

/// One run of a load.
#[derive(Debug)]
pub struct PortTraffic {
    load: PortLoad,
    topology: Topology,
    pool: PortPool,
    noise: Noise,
    plan: BinaryHeap<Reverse<(u64, u64, Planned)>>,
    planned: u64,
    connections: u64,
    on_port: BTreeMap<u16, OnPort>,

    exhausted: Option<u64>,
}

impl PortTraffic {
    /// A run with chance from this seed.
    pub fn new(load: &PortLoad, seed: u64) -> Self {
        let topology = Topology { first_port: FIRST_PORT, ports: u64::from(load.ports()), ..Topology::clients(1) };
        let reuse = load.reuse.then_some(ReuseRule { delay: ReuseDelay::After(1_000 * MILLISECOND), orphans: false });
        let rules = PoolRules {
            range: (FIRST_PORT, FIRST_PORT + load.ports() - 1),
            reuse,
            fin_timeout: u64::from(load.fin_timeout) * SECOND,
            ..PoolRules::default()
        };
        let mut traffic = Self {
            load: *load,
            topology,
            pool: PortPool::new(rules, seed),
            noise: Noise::new(seed ^ 0x5eed),
            plan: BinaryHeap::new(),
            planned: 0,
            connections: 0,
            on_port: BTreeMap::new(),
            exhausted: None,
        };
        traffic.plan_next_connect(BEGIN);
        for _ in 0..load.held * u32::from(load.times) {
            traffic.connect(BEGIN, true, |_| {});
        }
        if load.orphans {
            traffic.plan(BEGIN + LIST_EVERY, Planned::List);
        }
        traffic
    }

    /// What a tracker knows before the first event.
    pub fn facts(&self) -> Vec<Event> {
        let facts = NetnsFacts {
            netns: self.netns(),
            port_range: Some((FIRST_PORT, FIRST_PORT + self.load.ports() - 1)),
            tw_reuse: Some(u8::from(self.load.reuse)),
            tw_reuse_delay_ms: Some(1_000),
            timestamps: Some(true),
            fin_timeout_ms: Some(self.load.fin_timeout * 1_000),
            ..NetnsFacts::default()
        };
        vec![Event::Netns(Box::new(facts)), self.list(BEGIN, true)]
    }

    fn netns(&self) -> Netns {
        self.topology.netns
    }

    /// When a connect found no port, if one did.
    pub fn exhausted(&self) -> Option<u64> {
        self.exhausted
    }

    fn plan(&mut self, at: u64, what: Planned) {
        self.planned += 1;
        self.plan.push(Reverse((at, self.planned, what)));
    }

    /// Plans the next connect after `now`: where the sum of the rate has risen by one, or by a random number of that mean.
    fn plan_next_connect(&mut self, now: u64) {
        let step = 0.005;
        let mut rise = if self.load.random { -(1.0 - self.noise.unit()).ln() } else { 1.0 };
        let mut at = (now - BEGIN) as f64 / 1e9;
        while at < f64::from(self.load.seconds) {
            let rate = (self.load.rate)(at).max(0.0) * f64::from(self.load.times);
            if rate * step >= rise {
                return self.plan(BEGIN + nanos(at + rise / rate), Planned::Connect);
            }
            rise -= rate * step;
            at += step;
        }
    }

    /// Makes everything happen until `until`, or until a connect finds no port.
    pub fn run(&mut self, until: u64, mut each: impl FnMut(&Event)) {
        while let Some(&Reverse((at, _, what))) = self.plan.peek() {
            if at > until || self.exhausted.is_some() {
                break;
            }
            self.plan.pop();
            self.expire(at, &mut each);
            match what {
                Planned::Connect => {
                    self.connect(at, false, &mut each);
                    self.plan_next_connect(at);
                }
                Planned::Close(port) => self.close(port, at, &mut each),
                Planned::List => {
                    each(&self.list(at, false));
                    self.plan(at + LIST_EVERY, Planned::List);
                }
            }
        }
        self.expire(until, &mut each);
    }

    fn expire(&mut self, now: u64, mut each: impl FnMut(&Event)) {
        let (on_port, load) = (&mut self.on_port, &self.load);
        self.pool.expire(now, |port, at| {
            if let Some(gone) = on_port.remove(&port) {
                each(&Event::TimeWaitEnd(minisocket(&gone, load, at, true)));
            }
        });
    }

    fn connect(&mut self, at: u64, held: bool, mut each: impl FnMut(&Event)) {
        self.connections += 1;
        let mut connection = Connection::new(self.connections, &self.topology);
        let Ok(found) = self.pool.connect(at) else {
            self.exhausted = Some(at);
            return;
        };
        connection.key.local.port = found.port;
        let kept = held || self.noise.unit() < self.load.kept;
        let before = self.on_port.insert(found.port, OnPort { connection, state: TcpState::Established });
        let [opens, established] = connection.opens(at);
        each(&opens);
        if let Some(before) = before.filter(|_| found.reused) {
            each(&Event::TimeWaitEnd(minisocket(&before, &self.load, at + 1_000, false)));
        }
        each(&established);
        if !kept {
            let life = match self.load.life {
                Life::Fixed(seconds) => seconds,
                Life::Exponential(mean) => -mean * (1.0 - self.noise.unit()).ln(),
            };
            self.plan(at + nanos(life.max(0.000_1)), Planned::Close(found.port));
        }
    }

    fn close(&mut self, port: u16, at: u64, mut each: impl FnMut(&Event)) {
        let timestamps = self.load.timestamps;
        let left = if self.load.orphans { Left::Orphan { timestamps } } else { Left::TimeWait { timestamps } };
        self.pool.close(port, at, left);
        let Some(on_port) = self.on_port.get_mut(&port) else { return };
        on_port.state = if self.load.orphans { TcpState::FinWait2 } else { TcpState::TimeWait };
        for event in on_port.connection.closes(at) {
            match event {
                Event::TimeWaitStart(start) => {
                    each(&Event::TimeWaitStart(minisocket(on_port, &self.load, start.ktime.0, false)));
                }
                event => each(&event),
            }
        }
    }

    fn list(&self, at: u64, initial: bool) -> Event {
        let row = |on_port: &OnPort| {
            let minisocket = on_port.state != TcpState::Established;
            let SocketId { cookie, sock } = on_port.connection.client;
            SocketRow {
                sock: if minisocket { 0 } else { sock },
                cookie,
                key: on_port.connection.key,
                state: on_port.state,
                minisocket,
                remaining: minisocket.then_some(SECOND),
                owner: None,
                named: None,
                closed: None,
                timestamps: None,
                has_descriptor: None,
                queue: None,
            }
        };
        let rows: Vec<SocketRow> = self.on_port.values().map(row).collect();
        Event::Baseline(Baseline {
            netns: self.netns(),
            began: Ktime(at),
            ended: Ktime(at + 1_000),
            initial,
            rows: rows.into(),
        })
    }
}

fn minisocket(on_port: &OnPort, load: &PortLoad, at: u64, expired: bool) -> TimeWaitEvent {
    // Nobody can tell at its begin whether the peer will close.
    let timestamps = Some(load.timestamps);
    TimeWaitEvent { fin_wait2: true, timestamps, ..on_port.connection.minisocket(Ktime(at), expired) }
}

fn nanos(seconds: f64) -> u64 {
    std::time::Duration::try_from_secs_f64(seconds).map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}
