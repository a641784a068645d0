//! Who keeps a row of a full table.
//!
//! What fails now is worth most, then what is nearly full, what holds many ports, what was used lately; an old failure counts for
//! little. An owner (a uid, a workload, a namespace) that has more than its share of the rows counts for less than anybody who has
//! not. Where a place is needed a hand goes round the table, looks at a few rows and takes the one of least worth, so that the work is
//! the same however full the table is.

use std::hash::Hash;

use rustc_hash::FxHashMap;

use super::slab::{Ref, Slab};
use crate::event::Ktime;

/// Rows that a search for a place looks at. Of a table in which a sixth of the rows is worth less than the newcomer, such a row is among
/// so many in 19 searches of 20, and the next search goes on where this one ended.
const LOOKS: usize = 16;
/// One owner may have this part of a table before its rows count for less.
const SHARE: usize = 4;
/// What having more than a share costs: as much as lies between a row that fails and one that merely is in use.
const PENALTY: i8 = 4;
/// A failure is news for so long: as long as what it was about lasts, a `TIME_WAIT`. Nanoseconds.
pub const FAILING_NANOS: u64 = 60_000_000_000;
/// In use lately: within so many nanoseconds.
const LATELY_NANOS: u64 = 10_000_000_000;

/// One newcomer of so many takes the place of a row that was used lately.
const TURNS: u32 = 16;

/// What a row is worth; the larger one stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Worth {
    class: i8,
    last_used: Ktime,
}

/// What decides about the worth of a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Merits {
    /// When it was last used.
    pub last_used: Ktime,
    /// Something refers to it that will be counted there.
    pub in_use: bool,
    /// Local ports held.
    pub ports: u64,
    /// Ports that can be held; `None` = unknown.
    pub capacity: Option<u32>,
    /// The last failure for lack of a port.
    pub exhausted: Option<Ktime>,
    /// The last failure of another kind, or in a range of the socket's own, which harms nobody else.
    pub failed: Option<Ktime>,
}

impl Merits {
    /// The worth at this time, of an owner who exceeds `over` shares.
    pub fn worth(&self, now: Ktime, over: i8) -> Worth {
        let lately = |at: Option<Ktime>, nanos: u64| at.is_some_and(|at| now.since(at) <= nanos);
        // Without a range: as many as the smallest usual one has.
        let capacity = u64::from(self.capacity.unwrap_or(4_096));
        let class = if lately(self.exhausted, FAILING_NANOS) {
            6
        } else if self.ports > 1 && self.ports * 4 >= capacity * 3 {
            5
        } else if self.ports > 1 && self.ports * 8 >= capacity {
            4
        } else if lately(self.failed, LATELY_NANOS) {
            3
        } else if self.in_use && lately(Some(self.last_used), LATELY_NANOS) {
            2
        } else {
            let lately = lately(Some(self.last_used), LATELY_NANOS);
            i8::from(self.in_use || self.exhausted.is_some() || lately)
        };
        Worth { class: class - over.saturating_mul(PENALTY), last_used: self.last_used }
    }
}

impl Merits {
    /// So many ports are held that it matters.
    pub fn is_filling(&self) -> bool {
        let unused = Self { exhausted: None, failed: None, ..*self };
        unused.worth(self.last_used, 0).class >= 4
    }
}

impl Worth {
    /// A row of this worth makes way for a newcomer: that is worth more, or as much and something that fails now.
    pub fn yields_to(self, newcomer: Self) -> bool {
        self.class < newcomer.class || (self.class == newcomer.class && newcomer.class >= 6)
    }

    /// A newcomer of which nothing speaks but that it is new takes the place of a row that was used lately only now and then: with ten
    /// times as many newcomers as rows each would else cost a row that comes back soon. One that comes back itself gets its turn.
    pub fn waits_for(self, newcomer: Self, turn: &mut u32) -> bool {
        *turn = turn.wrapping_add(1);
        newcomer.class <= 2 && self.class >= 1 && !turn.is_multiple_of(TURNS)
    }
}

/// Where the next search for a place begins.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hand(u32);

impl Hand {
    /// The row of least worth among the next ones. `worth`: `None` for a row that always stays.
    pub fn least<T>(&mut self, slab: &Slab<T>, worth: impl Fn(Ref<T>, &T) -> Option<Worth>) -> Option<(Worth, Ref<T>)> {
        let slots = u32::try_from(slab.slots()).unwrap_or(u32::MAX).max(1);
        let begin = self.0 % slots;
        self.0 = begin.wrapping_add(u32::try_from(LOOKS).unwrap_or(1)) % slots;
        let rows = (0..slots.min(u32::try_from(LOOKS).unwrap_or(1))).filter_map(|step| slab.at((begin + step) % slots));
        rows.filter_map(|(at, row)| Some((worth(at, row)?, at))).min()
    }
}

/// Rows by owner.
#[derive(Clone, Debug)]
pub struct Shares<K> {
    rows: FxHashMap<K, u32>,
    share: u32,
}

impl<K: Eq + Hash> Shares<K> {
    /// Nobody has a row of a table with so many places.
    pub fn of(places: usize) -> Self {
        Self { rows: FxHashMap::default(), share: u32::try_from(places / SHARE).unwrap_or(u32::MAX) }
    }

    /// The owner has one row more.
    pub fn add(&mut self, owner: K) {
        *self.rows.entry(owner).or_default() += 1;
    }

    /// The owner has one row less.
    pub fn remove(&mut self, owner: &K) {
        if let Some(rows) = self.rows.get_mut(owner) {
            *rows -= 1;
            if *rows == 0 {
                self.rows.remove(owner);
            }
        }
    }

    /// 1 if the owner has its share or more.
    pub fn exceeded(&self, owner: &K) -> i8 {
        i8::from(self.rows.get(owner).is_some_and(|&rows| rows >= self.share))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn what_fails_now_stays_and_a_stale_failure_pins_nothing() {
        let now = Ktime(1_000 * SECOND);
        let at = |seconds: u64| Some(Ktime(seconds * SECOND));
        let worth = |merits: Merits| merits.worth(now, 0);
        let failing = Merits { exhausted: at(990), last_used: Ktime(990 * SECOND), ..Merits::default() };
        let full = Merits { ports: 80, capacity: Some(100), in_use: true, ..Merits::default() };
        let many = Merits { ports: 20, ..full };
        let refused = Merits { failed: at(995), ..Merits::default() };
        let busy = Merits { in_use: true, last_used: Ktime(999 * SECOND), ..Merits::default() };
        let quiet = Merits { in_use: true, last_used: Ktime(900 * SECOND), ..Merits::default() };
        let stale = Merits { exhausted: at(100), last_used: Ktime(100 * SECOND), ..Merits::default() };
        let idle = Merits { last_used: Ktime(900 * SECOND), ..Merits::default() };
        let order = [failing, full, many, refused, busy, quiet, stale, idle].map(worth);
        assert!(order.is_sorted_by(|a, b| a > b), "{order:?}");
        assert!(worth(stale).yields_to(worth(busy)), "a failure of a quarter of an hour ago");
        assert!(failing.worth(now, 1).yields_to(worth(refused)), "of an owner who has more than its share");
        assert!(worth(failing).yields_to(worth(Merits { exhausted: at(1_000), ..failing })), "a place is always found");
        assert!(!worth(busy).yields_to(worth(busy)), "no row for a row");
        let mut turn = 0;
        let waits = (0..32).filter(|_| worth(quiet).waits_for(worth(busy), &mut turn)).count();
        assert_eq!((waits, worth(idle).waits_for(worth(busy), &mut turn)), (30, false));
        assert!(!worth(quiet).waits_for(worth(failing), &mut turn), "what fails never waits");
    }

    #[test]
    fn an_owner_exceeds_its_share_with_a_quarter_of_the_rows() {
        let mut shares = Shares::of(8);
        shares.add(1000);
        assert_eq!((shares.exceeded(&1000), shares.exceeded(&0)), (0, 0));
        shares.add(1000);
        assert_eq!(shares.exceeded(&1000), 1);
        shares.remove(&1000);
        assert_eq!(shares.exceeded(&1000), 0);
    }
}
