//! What the ports of a destination went through in the last two minutes, second by second: what a forecast stands on.

use crate::event::Ktime;
use crate::model::arrivals::HISTORY_SECONDS;
use crate::model::holding::RecentEnds;

/// Seconds kept: the history that a trend is drawn from, and the life of a minisocket whose timer was started twice.
const SECONDS: usize = 128;
const _: () = assert!(SECONDS > HISTORY_SECONDS);

/// Counts by second. About 3.6 KiB.
#[derive(Clone, Debug)]
pub struct RecentDemand {
    /// The newest second that the counts know.
    newest: u64,
    /// Connects that got a port, by their begin; those of them that still have it; minisockets, by the start of their timer.
    arrivals: [u32; SECONDS],
    live: [u32; SECONDS],
    minisockets: [u32; SECONDS],
    /// All minisockets of that second, those that have ended included.
    begun: [u32; SECONDS],
    /// Ends of connections.
    pub ends: RecentEnds,
}

impl Default for RecentDemand {
    fn default() -> Self {
        let nothing = [0; SECONDS];
        Self {
            newest: 0,
            arrivals: nothing,
            live: nothing,
            minisockets: nothing,
            begun: nothing,
            ends: RecentEnds::default(),
        }
    }
}

fn second_of(at: Ktime) -> u64 {
    at.0 / 1_000_000_000
}

fn index(second: u64) -> usize {
    usize::try_from(second % SECONDS as u64).unwrap_or(0)
}

impl RecentDemand {
    /// The slot of that second, unless it is forgotten already.
    fn slot(&mut self, at: Ktime) -> Option<usize> {
        let second = second_of(at);
        let ahead = second.saturating_sub(self.newest).min(SECONDS as u64);
        for back in 0..ahead {
            let index = index(second - back);
            (self.arrivals[index], self.live[index]) = (0, 0);
            (self.minisockets[index], self.begun[index]) = (0, 0);
        }
        self.newest = self.newest.max(second);
        self.known(second)
    }

    fn known(&self, second: u64) -> Option<usize> {
        (second <= self.newest && self.newest - second < SECONDS as u64).then(|| index(second))
    }

    /// A connection that began then has got a port.
    pub fn opened(&mut self, began: Ktime) {
        if let Some(index) = self.slot(began) {
            self.arrivals[index] += 1;
            self.live[index] += 1;
        }
    }

    /// A connection has given up its port. `began`: if that was seen.
    pub fn closed(&mut self, began: Option<Ktime>, now: Ktime) {
        if let Some(index) = began.and_then(|began| self.known(second_of(began))) {
            self.live[index] = self.live[index].saturating_sub(1);
        }
        self.ends.ended(now.0, began.map(|began| now.since(began)));
    }

    /// The timer of a minisocket has started.
    pub fn timer_started(&mut self, at: Ktime) {
        if let Some(index) = self.slot(at) {
            self.minisockets[index] += 1;
            self.begun[index] += 1;
        }
    }

    /// The minisocket has ended, or its timer starts again.
    pub fn timer_ended(&mut self, started: Ktime) {
        if let Some(index) = self.known(second_of(started)) {
            self.minisockets[index] = self.minisockets[index].saturating_sub(1);
        }
    }

    /// Of the minisockets whose timer started `from` to `to` seconds ago, the share that has ended; `None` if there were few.
    pub fn ended_share(&self, now: Ktime, from: u64, to: u64) -> Option<f64> {
        const FEW: u32 = 10;
        let seconds = (from..to).filter_map(|back| second_of(now).checked_sub(back));
        let (begun, left) = seconds.fold((0, 0), |sum, second| {
            (sum.0 + self.of(&self.begun, second), sum.1 + self.of(&self.minisockets, second))
        });
        (begun >= FEW).then(|| 1.0 - f64::from(left) / f64::from(begun))
    }

    fn of(&self, counts: &[u32; SECONDS], second: u64) -> u32 {
        self.known(second).map_or(0, |index| counts[index])
    }

    /// Connects that got a port in the whole seconds before `now`, oldest first, no further back than `since`.
    pub fn arrivals(&self, now: Ktime, since: Ktime) -> Vec<u32> {
        let (current, first) = (second_of(now), second_of(since));
        let first = first.max(current.saturating_sub(HISTORY_SECONDS as u64));
        (first..current).map(|second| self.of(&self.arrivals, second)).collect()
    }

    /// The connections that have a port, by age in seconds.
    pub fn live_by_age(&self, now: Ktime) -> Vec<(f64, u32)> {
        by_age(now)
            .map(|(second, age)| ((age - 0.5).max(0.0), self.of(&self.live, second)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// The minisockets, by seconds since their timer started.
    pub fn minisockets_by_age(&self, now: Ktime) -> Vec<(u32, u32)> {
        let current = second_of(now);
        by_age(now)
            .map(|(second, _)| {
                (u32::try_from(current - second).unwrap_or(u32::MAX), self.of(&self.minisockets, second))
            })
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

/// The seconds that are kept, newest first, and how long ago each began.
fn by_age(now: Ktime) -> impl Iterator<Item = (u64, f64)> {
    let current = second_of(now);
    (0..SECONDS as u64)
        .map_while(move |back| current.checked_sub(back))
        .map(move |second| (second, now.0 as f64 / 1e9 - second as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn what_is_two_minutes_old_is_forgotten_and_not_taken_for_new() {
        let mut demand = RecentDemand::default();
        let at = |second: u64| Ktime(second * SECOND + SECOND / 2);
        demand.opened(at(10));
        demand.opened(at(11));
        demand.timer_started(at(11));
        demand.closed(Some(at(11)), at(11));
        assert_eq!(demand.arrivals(Ktime(12 * SECOND), Ktime(9 * SECOND)), [0, 1, 1]);
        assert_eq!(demand.live_by_age(Ktime(12 * SECOND)), [(1.5, 1)]);
        assert_eq!(demand.minisockets_by_age(Ktime(12 * SECOND)), [(1, 1)]);
        demand.opened(at(10 + 128));
        demand.closed(Some(at(10)), at(140));
        assert_eq!(demand.live_by_age(Ktime(139 * SECOND)), [(0.5, 1)], "the one that closed was older");
        assert_eq!(demand.arrivals(Ktime(500 * SECOND), Ktime(0)), vec![0; HISTORY_SECONDS]);
    }
}
