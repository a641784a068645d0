//! Copies of the tracker on the way through a recording, so that going back does not mean reading everything again.
//!
//! After the same steps the tracker has the same state, so a copy is as good as a second reading: the numbers on the screen stay those of
//! `report`. The distance between copies grows with their distance from the present position. Going back by one step reads about one step
//! again, going back by half of the file reads about that half, and there are few copies.

use tracer_core::event::Ktime;
use tracer_core::series::SeriesMark;
use tracer_core::tracker::Tracker;

/// Least number of steps between two copies, which are read again in a fraction of a second.
const SPACING: u64 = 500_000;
/// A tracker with many entries is copied only after this many steps for each of them, so that copying stays cheap beside reading.
const STEPS_PER_ENTRY: u64 = 1;
/// Most flows and minisockets in all copies together, 64 to 200 bytes each.
const MAX_ENTRIES: u64 = 4_000_000;

/// One copy.
struct Checkpoint {
    /// Steps read from the beginning to here.
    steps: u64,
    mark: SeriesMark,
    tracker: Tracker,
}

impl Checkpoint {
    fn entries(&self) -> u64 {
        self.tracker.entries()
    }
}

/// The copies that are kept.
pub struct Checkpoints {
    spacing: u64,
    /// Steps read from the beginning to the present position.
    steps: u64,
    /// Earliest first.
    kept: Vec<Checkpoint>,
}

impl Default for Checkpoints {
    fn default() -> Self {
        Self::every(SPACING)
    }
}

impl Checkpoints {
    pub fn every(spacing: u64) -> Self {
        Self { spacing, steps: 0, kept: Vec::new() }
    }

    /// Called after each step that was read; `mark` returns the position behind the step if reading can come back to it.
    pub fn read(&mut self, tracker: &Tracker, mark: impl FnOnce() -> Option<SeriesMark>) {
        self.steps += 1;
        let since = self.steps - self.kept.last().map_or(0, |last| last.steps);
        if since < self.spacing || since < tracker.entries().saturating_mul(STEPS_PER_ENTRY) {
            return;
        }
        if let Some(mark) = mark() {
            self.keep(Checkpoint { steps: self.steps, mark, tracker: tracker.clone() });
        }
    }

    /// Steps from the beginning to the present position.
    #[cfg(test)]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    fn keep(&mut self, new: Checkpoint) {
        let here = new.steps;
        self.kept.push(new);
        // The distance between two copies may be as large as their distance from the present position.
        let mut at = 0;
        while let [before, _, after, ..] = self.kept.get(at..).unwrap_or_default() {
            if after.steps - before.steps <= here - after.steps {
                self.kept.remove(at + 1);
            } else {
                at += 1;
            }
        }
        let mut entries: u64 = self.kept.iter().map(Checkpoint::entries).sum();
        while entries > MAX_ENTRIES && self.kept.len() > 1 {
            // The oldest copy goes: from the beginning everything can be read again, and people mostly go back a little.
            entries -= self.kept.remove(0).entries();
        }
    }

    /// The latest copy before `to`, or `None` if there is only the beginning. Later copies are dropped, because their steps are read again.
    pub fn back(&mut self, to: Ktime) -> Option<(SeriesMark, Tracker)> {
        let before = self.kept.partition_point(|checkpoint| checkpoint.tracker.now() < to);
        self.kept.truncate(before);
        self.steps = self.kept.last().map_or(0, |last| last.steps);
        self.kept.last().map(|last| (last.mark, last.tracker.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_core::tracker::Config;

    /// The copies after so many steps.
    fn after(steps: u64) -> Checkpoints {
        let mut tracker = Tracker::new(Config::default());
        let mut checkpoints = Checkpoints::every(10);
        for step in 1..=steps {
            tracker.advance(Ktime(step));
            checkpoints.read(&tracker, || Some(SeriesMark::default()));
        }
        checkpoints
    }

    #[test]
    fn going_back_costs_about_the_distance_and_memory_grows_with_its_logarithm() {
        let steps = 100_000;
        assert!(after(steps).kept.len() <= 2 * 14, "{}", after(steps).kept.len());
        for distance in [1, 10, 100, 1_000, 10_000, 50_000] {
            let mut checkpoints = after(steps);
            checkpoints.back(Ktime(steps - distance));
            let read_again = steps - distance - checkpoints.steps;
            assert!(read_again <= 2 * distance + 20, "{distance} back reads {read_again} again");
        }
        assert!(after(steps).back(Ktime(5)).is_none(), "before the first state lies the beginning");
    }

    #[test]
    fn a_state_is_earlier_than_what_is_looked_for() {
        let mut checkpoints = after(100);
        let (_, tracker) = checkpoints.back(Ktime(50)).expect("a state");
        assert_eq!(tracker.now(), Ktime(40));
        // Later copies are dropped.
        assert_eq!(checkpoints.steps, 40);
    }
}
