//! The local ports of one destination, as the kernel gives them to connect().
//!
//! [`PortPool`] mirrors net/ipv4/inet_hashtables.c `__inet_hash_connect` for one (namespace, local address, remote address, remote
//! port): where a search begins, in which order it walks, what it passes over, and which minisockets it takes over. The places where
//! searches begin are drawn from a seed, because the kernel's `table_perturb` cannot be known from outside.
//!
//! A search takes the first port of its walk that it may have. It therefore takes over a re-usable minisocket although other ports are
//! free: being free is no advantage.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::noise::Noise;
use super::timing::TIME_WAIT;

/// Nanoseconds that a minisocket in `TIME_WAIT` lives at least.
const TIME_WAIT_NANOS: u64 = TIME_WAIT.as_secs() * 1_000_000_000;
const SECOND: u64 = 1_000_000_000;
/// Random extra steps between one search's result and the next search's begin (`__inet_hash_connect`: `get_random_u32_below(8)`).
const EXTRA_STEPS: u64 = 8;
/// What is due is kept for each port at most twice; above so many times the number of ports the list is rid of what is void.
const DUE_PER_PORT: usize = 4;
const EVEN: u64 = 0x5555_5555_5555_5555;

/// When connect() may take over a minisocket (net/ipv4/tcp_ipv4.c `tcp_twsk_unique`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReuseDelay {
    /// Later than so many nanoseconds after it began (kernels that have `tcp_tw_reuse_delay`).
    After(u64),
    /// From the next full second of the clock on (older kernels).
    NextSecond,
}

/// Re-use of minisockets where it is allowed at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReuseRule {
    /// From when on.
    pub delay: ReuseDelay,
    /// Orphans too (5.10; later kernels refuse them).
    pub orphans: bool,
}

/// The settings that decide who gets a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolRules {
    /// First and last port, `ip_local_port_range` or `IP_LOCAL_PORT_RANGE`. A range that is the wrong way round has one port.
    pub range: (u16, u16),
    /// Ports of the parity of the first one come first. Not for a range of the socket's own, from 6.12 on.
    pub parity: bool,
    /// `None`: a minisocket keeps its port to its end.
    pub reuse: Option<ReuseRule>,
    /// How long an orphan waits for the peer, `tcp_fin_timeout`, nanoseconds.
    pub fin_timeout: u64,
    /// The most that the timer wheel adds to the life of a minisocket, nanoseconds (kernel/time/timer.c).
    pub wheel_delay: u64,
}

impl Default for PoolRules {
    /// A kernel's defaults at 250 Hz, towards an address that is not loopback.
    fn default() -> Self {
        Self {
            range: (32_768, 60_999),
            parity: true,
            reuse: None,
            fin_timeout: TIME_WAIT_NANOS,
            wheel_delay: 2_050_000_000,
        }
    }
}

/// What a connection leaves on its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Nothing: the peer closed first, or a reset ended it.
    Nothing,
    /// A minisocket in `TIME_WAIT`. `timestamps`: the peer sends TCP timestamps.
    TimeWait {
        /// Without them nobody takes the minisocket over.
        timestamps: bool,
    },
    /// An orphan: the peer has not closed yet.
    Orphan {
        /// As above.
        timestamps: bool,
    },
}

/// The port that a connect() got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortFound {
    /// The port.
    pub port: u16,
    /// A minisocket was taken over.
    pub reused: bool,
    /// Ports that the search looked at.
    pub probes: u32,
}

/// No port: connect() fails with `EADDRNOTAVAIL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoPort {
    /// Ports that the search looked at.
    pub probes: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Use {
    #[default]
    Free,
    Live,
    TimeWait,
    Orphan,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    used: Use,
    timestamps: bool,
    /// Reserved, or in a bucket that bind() or listen() closed.
    closed: bool,
    /// connect() may take the minisocket over now.
    reusable: bool,
    /// Raised whenever what is due for the port becomes void.
    turn: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Reusable,
    End,
}

/// The pool. Work per operation grows with the number of ports divided by 64 at most, memory with the number of ports.
#[derive(Clone, Debug)]
pub struct PortPool {
    rules: PoolRules,
    slots: Vec<Slot>,
    /// One bit for each port that a search may take.
    takeable: Vec<u64>,
    due: BinaryHeap<Reverse<(u64, usize, u32, Due)>>,
    counts: [u32; 4],
    perturb: u64,
    noise: Noise,
}

impl PortPool {
    /// A pool with every port free.
    pub fn new(rules: PoolRules, seed: u64) -> Self {
        let (low, high) = rules.range;
        let size = usize::from(high.saturating_sub(low)) + 1;
        let mut noise = Noise::new(seed);
        let mut pool = Self {
            slots: vec![Slot::default(); size],
            takeable: vec![0; size.div_ceil(64)],
            due: BinaryHeap::new(),
            counts: [0; 4],
            perturb: noise.below(1 << 32),
            noise,
            rules,
        };
        (0..size).for_each(|at| pool.refresh(at));
        pool
    }

    /// Reserves a port, or closes it as bind() and listen() do (docs/KERNEL.md 4.1). Who has it keeps it.
    pub fn close_port(&mut self, port: u16) {
        self.set_closed(port, true);
    }

    /// The counterpart of [`Self::close_port`].
    pub fn open_port(&mut self, port: u16) {
        self.set_closed(port, false);
    }

    fn set_closed(&mut self, port: u16, closed: bool) {
        if let Some(at) = self.index(port) {
            self.slots[at].closed = closed;
            self.refresh(at);
        }
    }

    /// connect() at this time. Times must not go back.
    pub fn connect(&mut self, now: u64) -> Result<PortFound, NoPort> {
        self.expire(now, |_, _| {});
        let size = self.slots.len();
        let step = 1 + usize::from(self.rules.parity);
        // remaining = high + 1 - low; if (remaining > 1) remaining &= ~1U;
        let remaining = if size > 1 { size & !1 } else { 1 };
        let passes = if self.rules.parity && remaining > 1 { 2 } else { 1 };
        let start = usize::try_from(self.perturb % remaining as u64).unwrap_or(0);
        let start = if self.rules.parity { start & !1 } else { start };
        let mut probes = 0;
        for pass in 0..passes {
            let Some((at, walked)) = self.walk(start + pass, remaining, step) else {
                probes += remaining.div_ceil(step);
                continue;
            };
            probes += walked / step + 1;
            let extra = self.noise.below(EXTRA_STEPS) * step as u64;
            self.perturb = (self.perturb + extra.max(walked as u64) + step as u64) & 0xffff_ffff;
            let reused = self.slots[at].used != Use::Free;
            self.enter(at, Use::Live, false);
            return Ok(PortFound { port: self.port(at), reused, probes: u32::try_from(probes).unwrap_or(u32::MAX) });
        }
        Err(NoPort { probes: u32::try_from(probes).unwrap_or(u32::MAX) })
    }

    /// The first takeable port from `start` on, and the distance walked. Beyond the end of the range the walk steps back by
    /// `remaining`, which in an odd range misses a port.
    fn walk(&self, start: usize, remaining: usize, step: usize) -> Option<(usize, usize)> {
        let (size, end) = (self.slots.len(), start + remaining);
        if let Some(at) = self.next_takeable(start, end.min(size), step) {
            return Some((at, at - start));
        }
        let beyond = start + (size.saturating_sub(start)).div_ceil(step) * step;
        let again = beyond.checked_sub(remaining).filter(|_| beyond < end)?;
        self.next_takeable(again, end - remaining, step).map(|at| (at, at + remaining - start))
    }

    fn next_takeable(&self, from: usize, until: usize, step: usize) -> Option<usize> {
        if from >= until {
            return None;
        }
        let mask = match (step, from % 2) {
            (1, _) => u64::MAX,
            (_, 0) => EVEN,
            _ => !EVEN,
        };
        let first = from / 64;
        for (word, bits) in self.takeable.iter().enumerate().take(until.div_ceil(64)).skip(first) {
            let mut bits = bits & mask;
            if word == first {
                bits &= u64::MAX << (from % 64);
            }
            if bits != 0 {
                let at = word * 64 + bits.trailing_zeros() as usize;
                return Some(at).filter(|&at| at < until);
            }
        }
        None
    }

    /// The connection on this port is over at this time. Nothing happens if there is none.
    pub fn close(&mut self, port: u16, now: u64, left: Left) {
        self.expire(now, |_, _| {});
        let Some(at) = self.index(port).filter(|&at| self.slots[at].used == Use::Live) else { return };
        match left {
            Left::Nothing => self.enter(at, Use::Free, false),
            Left::TimeWait { timestamps } => self.enter_minisocket(at, now, Use::TimeWait, timestamps, TIME_WAIT_NANOS),
            Left::Orphan { timestamps } => {
                self.enter_minisocket(at, now, Use::Orphan, timestamps, self.rules.fin_timeout);
            }
        }
    }

    /// The peer of an orphan closes: the minisocket stays for another `TIME_WAIT`.
    pub fn peer_closes(&mut self, port: u16, now: u64) {
        self.expire(now, |_, _| {});
        let Some(at) = self.index(port).filter(|&at| self.slots[at].used == Use::Orphan) else { return };
        let timestamps = self.slots[at].timestamps;
        self.enter_minisocket(at, now, Use::TimeWait, timestamps, TIME_WAIT_NANOS);
    }

    fn enter_minisocket(&mut self, at: usize, now: u64, used: Use, timestamps: bool, life: u64) {
        self.enter(at, used, timestamps);
        let turn = self.slots[at].turn;
        let end = now + life + self.noise.below(self.rules.wheel_delay + 1);
        self.due.push(Reverse((end, at, turn, Due::End)));
        let reuse = self.rules.reuse.filter(|rule| timestamps && (used == Use::TimeWait || rule.orphans));
        if let Some(rule) = reuse {
            let from = match rule.delay {
                // time_after32(): later, not at.
                ReuseDelay::After(nanos) => now + nanos + 1,
                ReuseDelay::NextSecond => (now / SECOND + 1) * SECOND,
            };
            self.due.push(Reverse((from, at, turn, Due::Reusable)));
        }
        if self.due.len() > DUE_PER_PORT * self.slots.len() {
            let slots = &self.slots;
            self.due.retain(|Reverse((_, at, turn, _))| slots[*at].turn == *turn);
        }
    }

    /// What is due until this time, inclusive, happens. `ended` gets each port whose minisocket has ended, and when.
    pub fn expire(&mut self, now: u64, mut ended: impl FnMut(u16, u64)) {
        while let Some(&Reverse((at_time, at, turn, due))) = self.due.peek() {
            if at_time > now {
                break;
            }
            self.due.pop();
            if self.slots[at].turn != turn {
                continue;
            }
            match due {
                Due::End => {
                    self.enter(at, Use::Free, false);
                    ended(self.port(at), at_time);
                }
                Due::Reusable => {
                    self.slots[at].reusable = true;
                    self.refresh(at);
                }
            }
        }
    }

    fn enter(&mut self, at: usize, used: Use, timestamps: bool) {
        let slot = &mut self.slots[at];
        let before = slot.used;
        if before != Use::Free {
            self.counts[before as usize] -= 1;
        }
        if used != Use::Free {
            self.counts[used as usize] += 1;
        }
        *slot = Slot { used, timestamps, closed: slot.closed, reusable: false, turn: slot.turn.wrapping_add(1) };
        self.refresh(at);
    }

    fn refresh(&mut self, at: usize) {
        let slot = self.slots[at];
        let takeable = !slot.closed && (slot.used == Use::Free || slot.reusable);
        let (word, bit) = (at / 64, 1 << (at % 64));
        if takeable {
            self.takeable[word] |= bit;
        } else {
            self.takeable[word] &= !bit;
        }
    }

    fn port(&self, at: usize) -> u16 {
        self.rules.range.0.saturating_add(u16::try_from(at).unwrap_or(u16::MAX))
    }

    fn index(&self, port: u16) -> Option<usize> {
        let at = usize::from(port.checked_sub(self.rules.range.0)?);
        (at < self.slots.len()).then_some(at)
    }

    /// Ports in use, in any state.
    pub fn in_use(&self) -> u32 {
        self.counts.iter().sum()
    }

    /// Ports with a connection.
    pub fn live(&self) -> u32 {
        self.counts[Use::Live as usize]
    }

    /// Ports with a minisocket in `TIME_WAIT`.
    pub fn time_wait(&self) -> u32 {
        self.counts[Use::TimeWait as usize]
    }

    /// Ports with an orphan.
    pub fn orphans(&self) -> u32 {
        self.counts[Use::Orphan as usize]
    }

    /// Ports that a search may take now: free ones, and minisockets that may be taken over.
    pub fn takeable(&self) -> u32 {
        self.takeable.iter().map(|word| word.count_ones()).sum()
    }
}

#[cfg(test)]
mod tests;
