//! The recent past for a view: the last minutes second by second, the last failures with the holders of that instant, the last steps
//! of flows. Bounded, and kept only if [`crate::tracker::snapshot::NoticeKinds::history`] is set.
//!
//! Not for: sums and occupancy. The other tables have those, and forget nothing that a report counts.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::destinations::DestinationId;
use crate::event::{FlowKey, Ktime, SocketCookie, TcpState};
use crate::tracker::snapshot::detail::{FailureRecord, PastHolder, SecondCounts};

/// Five minutes: as wide as a large terminal's sparkline.
const SECONDS: usize = 300;
/// Failures remembered, about 300 bytes each: more than a reader scrolls through, seconds of a heavy exhaustion.
const MAX_FAILURES: usize = 500;
/// Steps remembered, 64 bytes each: 4 MiB, ten thousand short connections from begin to end.
const MAX_STEPS: usize = 65_536;
/// Who holds the ports of a destination is summed up at most this often; failures in between share the answer.
const HOLDERS_NANOS: u64 = 100_000_000;

/// One remembered transition.
#[derive(Clone, Copy, Debug)]
pub struct StateStep {
    /// When.
    pub at: Ktime,
    /// The socket, if it is known by a cookie.
    pub cookie: Option<SocketCookie>,
    /// The 4-tuple at that time.
    pub key: FlowKey,
    /// The state before.
    pub old: TcpState,
    /// The state after.
    pub new: TcpState,
}

/// Counts by second.
#[derive(Clone, Debug)]
struct PerSecondRing {
    /// The second that `ring[second % len]` counts.
    second: u64,
    ring: Box<[SecondCounts]>,
}

impl PerSecondRing {
    fn at(&mut self, at: Ktime) -> Option<&mut SecondCounts> {
        let second = at.0 / 1_000_000_000;
        let len = self.ring.len() as u64;
        for step in 0..second.saturating_sub(self.second).min(len) {
            let index = index(second - step, len);
            if let Some(slot) = self.ring.get_mut(index) {
                *slot = SecondCounts::default();
            }
        }
        self.second = self.second.max(second);
        let index = index(second, len);
        self.ring.get_mut(index).filter(|_| self.second - second < len)
    }

    fn seconds(&self, now: Ktime, since: Ktime) -> Vec<SecondCounts> {
        let (current, first) = (now.0 / 1_000_000_000, since.0 / 1_000_000_000);
        let len = self.ring.len() as u64;
        let oldest = first.max(current.saturating_sub(SECONDS as u64));
        (oldest..current)
            .map(|second| {
                let kept = second <= self.second && self.second - second < len;
                self.ring.get(index(second, len)).copied().filter(|_| kept).unwrap_or_default()
            })
            .collect()
    }
}

fn index(second: u64, len: u64) -> usize {
    usize::try_from(second % len).unwrap_or(0)
}

/// The recent past.
#[derive(Clone, Debug)]
pub struct History {
    seconds: PerSecondRing,
    failures: VecDeque<Arc<FailureRecord>>,
    /// The holders of each destination, and when they were summed up.
    holders: FxHashMap<DestinationId, (Ktime, Arc<[PastHolder]>)>,
    steps: VecDeque<StateStep>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            seconds: PerSecondRing { second: 0, ring: vec![SecondCounts::default(); SECONDS + 2].into() },
            failures: VecDeque::new(),
            holders: FxHashMap::default(),
            steps: VecDeque::new(),
        }
    }
}

impl History {
    /// Counts something in the second of `at`, unless that is longer ago than the history reaches.
    pub fn count(&mut self, at: Ktime, change: impl FnOnce(&mut SecondCounts)) {
        if let Some(second) = self.seconds.at(at) {
            change(second);
        }
    }

    /// Remembers a transition, in place of the oldest one at the bound.
    pub fn step(&mut self, step: StateStep) {
        if self.steps.len() >= MAX_STEPS {
            self.steps.pop_front();
        }
        self.steps.push_back(step);
    }

    /// The holders of a destination, if they were summed up within the last tenth of a second.
    pub fn holders(&self, destination: DestinationId, now: Ktime) -> Option<Arc<[PastHolder]>> {
        let (at, holders) = self.holders.get(&destination)?;
        (now.since(*at) < HOLDERS_NANOS && *at <= now).then(|| Arc::clone(holders))
    }

    /// Remembers the holders of a destination for [`Self::holders`].
    pub fn remember_holders(&mut self, destination: DestinationId, now: Ktime, holders: &Arc<[PastHolder]>) {
        // Otherwise destinations that failed once and never again would stay for good.
        if self.holders.len() >= MAX_FAILURES {
            self.holders.clear();
        }
        self.holders.insert(destination, (now, Arc::clone(holders)));
    }

    /// Remembers a failure, in place of the oldest one at the bound.
    pub fn fail(&mut self, record: FailureRecord) {
        if self.failures.len() >= MAX_FAILURES {
            self.failures.pop_front();
        }
        self.failures.push_back(Arc::new(record));
    }

    /// The remembered failures, newest first.
    pub fn failures(&self) -> Vec<Arc<FailureRecord>> {
        self.failures.iter().rev().map(Arc::clone).collect()
    }

    /// Whole seconds from `since` to `now`, oldest first.
    pub fn seconds(&self, now: Ktime, since: Ktime) -> Vec<SecondCounts> {
        self.seconds.seconds(now, since)
    }

    /// The steps of the last flow on this 4-tuple, oldest first. `cookie` is the flow's, where one is known.
    pub fn steps(&self, cookie: Option<SocketCookie>, key: &FlowKey) -> Vec<StateStep> {
        // The first step of a connect() has no port yet; only the cookie finds it.
        let cookie = cookie.or_else(|| self.steps.iter().rev().find(|step| step.key == *key)?.cookie);
        let same = |step: &&StateStep| match cookie {
            Some(_) => step.cookie == cookie,
            None => step.key == *key,
        };
        let mut steps: Vec<StateStep> = Vec::new();
        for step in self.steps.iter().rev().filter(same) {
            steps.push(*step);
            if step.old == TcpState::Close {
                break;
            }
        }
        steps.reverse();
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn the_ring_has_whole_seconds_without_gaps() {
        let mut history = History::default();
        history.count(Ktime(10 * SECOND), |second| second.connects += 2);
        history.count(Ktime(12 * SECOND + 5), |second| second.exhausted += 1);
        let seconds = history.seconds(Ktime(13 * SECOND), Ktime(9 * SECOND));
        let counts: Vec<_> = seconds.iter().map(|second| (second.connects, second.exhausted)).collect();
        assert_eq!(counts, [(0, 0), (2, 0), (0, 0), (0, 1)]);
        // An hour of silence, and none of it is left.
        let later = history.seconds(Ktime(3_613 * SECOND), Ktime(9 * SECOND));
        assert_eq!(later, vec![SecondCounts::default(); SECONDS]);
    }

    #[test]
    fn the_memory_of_steps_is_bounded() {
        let mut history = History::default();
        let key = FlowKey {
            netns: crate::event::Netns::of_inode(1),
            device: 0,
            local: crate::event::Endpoint { addr: crate::event::Addr::UNSPECIFIED, port: 1 },
            remote: crate::event::Endpoint { addr: crate::event::Addr::UNSPECIFIED, port: 2 },
        };
        for at in 0..MAX_STEPS as u64 + 10 {
            let (old, new) = (TcpState::Established, TcpState::FinWait1);
            history.step(StateStep { at: Ktime(at), cookie: None, key, old, new });
        }
        assert_eq!(history.steps(None, &key).len(), MAX_STEPS);
    }
}
