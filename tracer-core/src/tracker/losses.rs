//! How many transitions were lost, settled before it is shown.
//!
//! The number is a difference of counts that are read one after the other while records are still on their way: a run of a probe that the
//! kernel skipped is counted at once, and the record that a later probe wrote instead arrives some milliseconds later. So the difference
//! rises and falls although nothing is lost. What is shown is what it has not been below for a while, and never falls.

use std::collections::VecDeque;

use crate::event::Ktime;

/// A record that makes up for a skipped run is read within some hundred milliseconds, however busy the reader.
const SETTLE_NANOS: u64 = 3_000_000_000;
/// Readings kept: the counts are read up to ten times a second.
const MAX_READINGS: usize = 64;

/// A count of losses that never falls.
#[derive(Clone, Debug, Default)]
pub struct SettledLoss {
    shown: u64,
    /// Those of the last seconds, oldest first, ascending: a reading makes all that are not below it pointless. The first is the least.
    readings: VecDeque<(Ktime, u64)>,
    first: Option<Ktime>,
}

impl SettledLoss {
    /// Takes a reading.
    pub fn take(&mut self, at: Ktime, lost: u64) {
        let first = *self.first.get_or_insert(at);
        while self.readings.back().is_some_and(|(_, before)| *before >= lost) {
            self.readings.pop_back();
        }
        self.readings.push_back((at, lost));
        while self.readings.len() > MAX_READINGS
            || (self.readings.len() > 1
                && self.readings.front().is_some_and(|(begun, _)| at.since(*begun) > SETTLE_NANOS))
        {
            self.readings.pop_front();
        }
        if at.since(first) >= SETTLE_NANOS
            && let Some(&(_, least)) = self.readings.front()
        {
            self.shown = self.shown.max(least);
        }
    }

    /// No record is on its way any more.
    pub fn finish(&mut self, lost: u64) {
        self.shown = self.shown.max(lost);
    }

    /// What is certainly lost.
    pub fn settled(&self) -> u64 {
        self.shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// 1, 0, 2, 0 within seconds, on a trace that lost nothing.
    #[test]
    fn what_comes_and_goes_is_not_shown_and_what_stays_never_falls() {
        let mut loss = SettledLoss::default();
        let mut shown = Vec::new();
        for tick in 0..300_u64 {
            // From 10 s on two transitions are really lost.
            let lost = [1, 0, 2, 0][usize::try_from(tick % 4).expect("small")] + if tick >= 100 { 2 } else { 0 };
            loss.take(Ktime(tick * 100 * MS), lost);
            shown.push(loss.settled());
        }
        assert!(shown[..130].iter().all(|&shown| shown == 0), "{shown:?}");
        assert!(shown.is_sorted() && shown.last() == Some(&2), "{shown:?}");
        loss.finish(3);
        assert_eq!(loss.settled(), 3);
    }
}
