//! Where to: destinations with their port occupancy, and namespaces with their capacity.
//!
//! A plain connect() runs out of ports per (netns, local address, remote address:port) (net/ipv4/inet_hashtables.c
//! `__inet_hash_connect`), which is the key of a destination here. What a namespace can give to each is its range without
//! reserved ports and without ports that some socket holds by bind() or listen(): those are unusable towards everybody.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::cell::{Cell, Rate};
use super::search::Search;
use super::snapshot::Confidence;
use super::{TIME_WAIT, WHEEL_DELAY};
use crate::event::{DestinationKey, Ktime, Netns, NetnsFacts, TcpState};

/// Destinations kept apart, about 12 KiB each with histogram and release schedule. A crawler talks to more: the idle ones
/// without failures are forgotten first, which is counted.
pub const MAX_DESTINATIONS: usize = 4_096;
/// Network namespaces kept; far above what one host runs.
pub const MAX_NAMESPACES: usize = 4_096;
/// Seconds of the release schedule: a minisocket lives 60 s, twice that after a late FIN.
const SCHEDULE_SECONDS: usize = 128;
/// How long a port is held by `TIME_WAIT`, on average.
const TIME_WAIT_SECONDS: f64 = TIME_WAIT.as_secs_f64() + WHEEL_DELAY.as_secs_f64();
/// How far ahead a forecast looks: beyond two `TIME_WAIT` lives the rate that it stands on is history.
const FORECAST_SECONDS: u32 = 180;
/// Reuse of a 4-tuple in `TIME_WAIT` is allowed after this long (`tcp_tw_reuse_delay`, and before it existed, 1 s).
const DEFAULT_REUSE_DELAY: f64 = 1.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
// One more than the index, so that an option of it takes no more room.
pub struct DestId(std::num::NonZeroU32);

impl DestId {
    fn new(index: usize) -> Self {
        Self(std::num::NonZeroU32::MIN.saturating_add(count(index)))
    }

    pub fn index(self) -> usize {
        usize::try_from(self.0.get() - 1).unwrap_or(usize::MAX)
    }
}

#[derive(Clone, Debug)]
pub struct Dest {
    pub key: DestinationKey,
    pub cell: Cell,
    pub rate: Rate,
    pub search: Search,
    /// Ports in use by state number.
    by_state: [u32; 13],
    in_use: u32,
    pub peak: u32,
    /// Ports of explicitly bound sockets among `in_use`: the namespace counts them as blocked, yet here they serve.
    bound: u32,
    /// Minisockets by the second of their begin, modulo `SCHEDULE_SECONDS`.
    schedule: Option<Box<[u32; SCHEDULE_SECONDS]>>,
    pub first_failure: Option<Ktime>,
    pub last_failure: Option<Ktime>,
    first: Ktime,
    last: Ktime,
}

impl Dest {
    pub fn take(&mut self, state: TcpState, bound: bool) {
        self.by_state[usize::from(state as u8)] += 1;
        self.in_use += 1;
        self.bound += u32::from(bound);
        self.peak = self.peak.max(self.in_use);
    }

    pub fn give(&mut self, state: TcpState, bound: bool) {
        let count = &mut self.by_state[usize::from(state as u8)];
        *count = count.saturating_sub(1);
        self.in_use = self.in_use.saturating_sub(1);
        self.bound = self.bound.saturating_sub(u32::from(bound));
    }

    pub fn shift(&mut self, from: TcpState, to: TcpState) {
        let count = &mut self.by_state[usize::from(from as u8)];
        *count = count.saturating_sub(1);
        self.by_state[usize::from(to as u8)] += 1;
    }

    pub fn in_use(&self) -> u32 {
        self.in_use
    }

    pub fn states(&self) -> impl Iterator<Item = (TcpState, u32)> {
        TcpState::ALL
            .into_iter()
            .map(|state| (state, self.by_state[usize::from(state as u8)]))
            .filter(|&(_, count)| count > 0)
    }

    fn scheduled(began: Ktime) -> usize {
        usize::try_from(began.0 / 1_000_000_000).unwrap_or(0) % SCHEDULE_SECONDS
    }

    pub fn schedule(&mut self, began: Ktime) {
        self.schedule.get_or_insert_with(|| Box::new([0; SCHEDULE_SECONDS]))[Self::scheduled(began)] += 1;
    }

    pub fn unschedule(&mut self, began: Ktime) {
        if let Some(schedule) = &mut self.schedule {
            let count = &mut schedule[Self::scheduled(began)];
            *count = count.saturating_sub(1);
        }
    }

    pub fn fail(&mut self, at: Ktime) {
        self.first_failure.get_or_insert(at);
        self.last_failure = Some(at);
    }

    pub fn touch(&mut self, at: Ktime) {
        self.last = self.last.max(at);
    }

    fn idle(&self) -> bool {
        self.in_use == 0 && self.first_failure.is_none()
    }
}

/// What becomes of a destination at its present rate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Forecast {
    pub per_second: f64,
    pub sustainable: Option<f64>,
    /// 0 = exhausted now.
    pub exhausted_in: Option<f64>,
    pub confidence: Option<Confidence>,
}

/// One network namespace.
#[derive(Clone, Debug, Default)]
pub struct Namespace {
    pub facts: NetnsFacts,
    reserved: Vec<u16>,
    /// Sockets that hold a port by bind() or listen(), by port.
    holders: FxHashMap<u16, u32>,
    /// A complete list of its sockets has been merged once.
    pub baselined: bool,
}

impl Namespace {
    pub fn learn(&mut self, facts: &NetnsFacts) {
        let old = &mut self.facts;
        old.netns = facts.netns;
        old.ktime = old.ktime.max(facts.ktime);
        macro_rules! newer {
            ($($field:ident),+) => {$( if facts.$field.is_some() { old.$field.clone_from(&facts.$field); } )+};
        }
        newer!(
            name,
            cookie,
            port_range,
            tw_reuse,
            tw_reuse_delay_ms,
            timestamps,
            max_tw_buckets,
            fin_timeout_ms,
            time_wait,
            conntrack
        );
    }

    pub fn reserve(&mut self, ports: &[u16]) {
        ports.clone_into(&mut self.reserved);
    }

    pub fn hold(&mut self, port: u16) {
        if port != 0 {
            *self.holders.entry(port).or_default() += 1;
        }
    }

    pub fn release(&mut self, port: u16) {
        if let Some(count) = self.holders.get_mut(&port) {
            *count -= 1;
            if *count == 0 {
                self.holders.remove(&port);
            }
        }
    }

    pub fn in_range(&self, port: u16) -> bool {
        self.facts.port_range.is_some_and(|(low, high)| (low..=high).contains(&port))
    }

    /// Never chosen by connect().
    pub fn is_reserved(&self, port: u16) -> bool {
        self.reserved.binary_search(&port).is_ok()
    }

    /// Reserved ports inside the range.
    pub fn reserved(&self) -> u32 {
        count(self.reserved.iter().filter(|&&port| self.in_range(port)).count())
    }

    /// Ports inside the range that bind() or listen() keeps from connect(), reserved ones not counted twice.
    pub fn blocked(&self) -> u32 {
        count(self.holders.keys().filter(|&&port| self.in_range(port) && !self.is_reserved(port)).count())
    }

    /// The ports of [`Self::blocked`], ascending.
    pub fn blocked_ports(&self) -> Vec<u16> {
        let held = self.holders.keys().copied();
        let mut ports: Vec<u16> = held.filter(|&port| self.in_range(port) && !self.is_reserved(port)).collect();
        ports.sort_unstable();
        ports
    }

    /// Reserved ports, inside the range and outside.
    pub fn all_reserved(&self) -> &[u16] {
        &self.reserved
    }

    /// The ports of [`Self::reserved`], ascending.
    pub fn reserved_ports(&self) -> Vec<u16> {
        self.reserved.iter().copied().filter(|&port| self.in_range(port)).collect()
    }

    /// Ports that connect() can get towards any one destination; `None` if the range is unknown. An odd range loses one: the
    /// search makes an even number of steps (`remaining &= ~1U`).
    pub fn capacity(&self) -> Option<u32> {
        let (low, high) = self.facts.port_range?;
        let size = (u32::from(high) + 1).saturating_sub(u32::from(low)) & !1;
        Some(size.saturating_sub(self.reserved()).saturating_sub(self.blocked()))
    }

    /// Seconds after which a 4-tuple in `TIME_WAIT` may be used again by a new connect(): `None` = only after its end.
    /// net/ipv4/tcp_ipv4.c `tcp_twsk_unique`.
    fn reuse_after(&self, dest: &DestinationKey) -> Option<f64> {
        let allowed = match self.facts.tw_reuse? {
            1 => true,
            2 => dest.local_addr.is_loopback() || dest.remote_addr.is_loopback(),
            _ => false,
        };
        let delay = self.facts.tw_reuse_delay_ms.map_or(DEFAULT_REUSE_DELAY, |millis| f64::from(millis) / 1e3);
        (allowed && self.facts.timestamps != Some(false)).then_some(delay)
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Places {
    dests: Vec<Option<Dest>>,
    free: Vec<DestId>,
    by_key: FxHashMap<DestinationKey, DestId>,
    namespaces: FxHashMap<Netns, Namespace>,
}

impl Places {
    /// The destination of `key`, created at need. `Err` names a destination that had to make room and must be let go of by its
    /// attributions first; `Ok(None)` = the table is full of busy ones.
    pub fn dest(&mut self, key: &DestinationKey, at: Ktime) -> (Option<DestId>, Option<DestId>) {
        if let Some(&id) = self.by_key.get(key) {
            return (Some(id), None);
        }
        let mut forgotten = None;
        if self.by_key.len() >= MAX_DESTINATIONS {
            let oldest =
                self.by_key.values().filter_map(|&id| Some((self.get(id).filter(|dest| dest.idle())?.last, id))).min();
            let Some((_, id)) = oldest else { return (None, None) };
            if let Some(dest) = self.dests.get_mut(id.index()).and_then(Option::take) {
                self.by_key.remove(&dest.key);
                self.free.push(id);
                forgotten = Some(id);
            }
        }
        let dest = Dest {
            key: *key,
            cell: Cell::default(),
            rate: Rate::default(),
            search: Search::default(),
            by_state: [0; 13],
            in_use: 0,
            peak: 0,
            bound: 0,
            schedule: None,
            first_failure: None,
            last_failure: None,
            first: at,
            last: at,
        };
        let id = match self.free.pop() {
            Some(id) => {
                if let Some(slot) = self.dests.get_mut(id.index()) {
                    *slot = Some(dest);
                }
                id
            }
            None => {
                self.dests.push(Some(dest));
                DestId::new(self.dests.len() - 1)
            }
        };
        self.by_key.insert(*key, id);
        (Some(id), forgotten)
    }

    pub fn find(&self, key: &DestinationKey) -> Option<DestId> {
        self.by_key.get(key).copied()
    }

    pub fn get(&self, id: DestId) -> Option<&Dest> {
        self.dests.get(id.index())?.as_ref()
    }

    pub fn get_mut(&mut self, id: DestId) -> Option<&mut Dest> {
        self.dests.get_mut(id.index())?.as_mut()
    }

    pub fn dests(&self) -> impl Iterator<Item = (DestId, &Dest)> {
        self.by_key.values().filter_map(|&id| Some((id, self.get(id)?)))
    }

    /// The namespace, created at need; `None` at the bound.
    pub fn namespace(&mut self, netns: Netns) -> Option<&mut Namespace> {
        if self.namespaces.len() >= MAX_NAMESPACES && !self.namespaces.contains_key(&netns) {
            return None;
        }
        let namespace = self.namespaces.entry(netns).or_default();
        namespace.facts.netns = netns;
        Some(namespace)
    }

    pub fn known_namespace(&self, netns: Netns) -> Option<&Namespace> {
        self.namespaces.get(&netns)
    }

    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.namespaces.values()
    }

    /// What this destination can hold: the namespace's capacity, plus its own bound ports, which only others cannot use.
    pub fn capacity(&self, dest: &Dest) -> Option<u32> {
        Some(self.namespaces.get(&dest.key.netns)?.capacity()? + dest.bound)
    }

    /// Simulates the coming minutes second by second: what is in `TIME_WAIT` now ends on schedule, what comes at the present rate
    /// is held for as long as ports were held so far. (Little's law, but with the transient that decides whether the
    /// wave passes.) `start` is when observation began.
    pub fn forecast(&self, dest: &Dest, now: Ktime, start: Ktime) -> Forecast {
        let since = start.max(dest.first);
        let seconds = dest.rate.seconds(now, since);
        let per_second = dest.rate.per_second(now, since);
        let mut forecast = Forecast { per_second, ..Forecast::default() };
        let Some(capacity) = self.capacity(dest) else { return forecast };
        let reuse = self.namespaces.get(&dest.key.netns).and_then(|namespace| namespace.reuse_after(&dest.key));
        let time_wait = reuse.unwrap_or(TIME_WAIT_SECONDS);
        let lifetime = dest.cell.lifetime.mean_seconds();
        let entered_share =
            if dest.cell.closed > 0 { (dest.cell.tw_entered as f64 / dest.cell.closed as f64).min(1.0) } else { 1.0 };
        // How long one connection keeps its port, once it ends.
        let hold = lifetime.map(|lifetime| lifetime + entered_share * time_wait);
        let churning = per_second * lifetime.unwrap_or(0.0);
        let established = f64::from(dest.by_state[usize::from(TcpState::Established as u8)]);
        let standing = (established - churning).max(0.0);
        forecast.sustainable =
            hold.filter(|&hold| hold > 0.0).map(|hold| (f64::from(capacity) - standing).max(0.0) / hold);
        let failing = dest.last_failure.is_some_and(|at| now.seconds_since(at) <= 2.0);
        if failing || (dest.in_use >= capacity && reuse.is_none()) {
            forecast.exhausted_in = Some(0.0);
            forecast.confidence = Some(Confidence::High);
            return forecast;
        }
        if per_second <= 0.0 {
            return forecast;
        }
        // Nothing has been closed yet: as far as can be seen ports are kept for good.
        let endless = dest.cell.closed == 0;
        let hold = if endless { f64::INFINITY } else { hold.unwrap_or(time_wait) };
        let mut occupied = f64::from(dest.in_use);
        let now_second = now.0 / 1_000_000_000;
        for ahead in 1..=FORECAST_SECONDS {
            occupied += per_second;
            if f64::from(ahead) > hold {
                occupied -= per_second;
            }
            occupied -= self.releases(dest, now_second, ahead, time_wait);
            if occupied >= f64::from(capacity) {
                forecast.exhausted_in = Some(f64::from(ahead));
                let sure = confidence(&seconds);
                forecast.confidence = Some(if endless && sure == Confidence::High { Confidence::Medium } else { sure });
                break;
            }
        }
        forecast
    }

    /// Minisockets of now that end `ahead` seconds from now.
    #[expect(clippy::unused_self, reason = "reads as part of the forecast")]
    fn releases(&self, dest: &Dest, now_second: u64, ahead: u32, time_wait: f64) -> f64 {
        let Some(schedule) = &dest.schedule else { return 0.0 };
        let life = std::time::Duration::from_secs_f64(time_wait).as_secs().max(1);
        let ends = now_second + u64::from(ahead);
        let at = |began: u64| f64::from(schedule[usize::try_from(began % SCHEDULE_SECONDS as u64).unwrap_or(0)]);
        let due = ends.checked_sub(life).filter(|&began| began <= now_second).map_or(0.0, at);
        if ahead > 1 {
            return due;
        }
        // In the first second everything that is overdue: what could be re-used, or waits for its wheel slot.
        (0..ends.saturating_sub(life))
            .rev()
            .take(SCHEDULE_SECONDS - 1 - usize::try_from(life).unwrap_or(0).min(SCHEDULE_SECONDS - 1))
            .map(at)
            .sum::<f64>()
            + due
    }
}

/// From how much the rate swung.
fn confidence(seconds: &[u32]) -> Confidence {
    if seconds.len() < 5 {
        return Confidence::Low;
    }
    let mean = f64::from(seconds.iter().sum::<u32>()) / seconds.len() as f64;
    let variance = seconds.iter().map(|&n| (f64::from(n) - mean).powi(2)).sum::<f64>() / seconds.len() as f64;
    match variance.sqrt() / mean {
        swing if swing > 0.5 => Confidence::Low,
        swing if swing > 0.25 => Confidence::Medium,
        _ => Confidence::High,
    }
}

/// A name for a namespace that has one.
pub fn netns_name(places: &Places, netns: Netns) -> Option<Arc<str>> {
    places.known_namespace(netns)?.facts.name.clone()
}
