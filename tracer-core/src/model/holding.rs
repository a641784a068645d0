//! For how long a port is held: by a connection, then by what the connection leaves.
//!
//! Connections are seen to end, and others are seen not to end: a life table counts both. Of the connections of the last minutes it
//! says, age by age, which share ended while they had that age. So a pool that is kept open beside connections that live for
//! milliseconds is neither averaged away nor expected to end.

/// Nanoseconds of the finest step of an age.
const STEP_NANOS: u64 = 1 << 26;
/// Four steps below the first octave, four in each of eleven: up to 9 minutes.
const AGES: usize = 48;
/// The last two minutes, in spans of a quarter of a minute.
const SPANS: usize = 8;
const SPAN_SECONDS: u64 = 15;
const SPAN_NANOS: u64 = SPAN_SECONDS * 1_000_000_000;
/// So many ends tell enough: what is older is left out then.
const ENDS_ENOUGH: u32 = 100;
/// The place in an age is the mean of about so many ends.
const PLACE_MEMORY: f64 = 8.0;
/// Fewer connections than this tell nothing of an age.
const FEW: f64 = 0.5;
/// The most that end at one age: somebody may be left.
const ALMOST_ALL: f64 = 0.999_99;

/// Ends of connections in the last two minutes, by the age at which they ended. About 1.6 KiB.
#[derive(Clone, Debug)]
pub struct RecentEnds {
    /// Number of the newest span.
    span: u64,
    by_age: [[u32; AGES]; SPANS],
    /// Where in their age connections ended lately, on the mean, 0 to 255.
    place: [u8; AGES],
    /// Connections that ended, and those of them that left a minisocket.
    left: [(u32, u32); SPANS],
}

impl Default for RecentEnds {
    fn default() -> Self {
        Self { span: 0, by_age: [[0; AGES]; SPANS], place: [128; AGES], left: [(0, 0); SPANS] }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
fn byte(value: f64) -> u8 {
    value.round().clamp(0.0, 255.0) as u8
}

fn age_index(nanos: u64) -> usize {
    let steps = nanos / STEP_NANOS;
    if steps < 4 {
        return usize::try_from(steps).unwrap_or(0);
    }
    let octave = u64::from(steps.ilog2());
    usize::try_from(4 * (octave - 1) + ((steps >> (octave - 2)) & 3)).map_or(AGES - 1, |index| index.min(AGES - 1))
}

/// Seconds at which an age begins.
fn age_begins(index: usize) -> f64 {
    let step = STEP_NANOS as f64 / 1e9;
    if index < 4 {
        return index as f64 * step;
    }
    let (octave, quarter) = (index / 4 + 1, index % 4);
    (4 + quarter) as f64 * f64::powi(2.0, i32::try_from(octave).unwrap_or(0) - 2) * step
}

impl RecentEnds {
    fn roll(&mut self, at: u64) -> usize {
        let span = at / SPAN_NANOS;
        let behind = span.saturating_sub(self.span).min(SPANS as u64);
        for back in 0..behind {
            let index = Self::index(span - back);
            self.by_age[index] = [0; AGES];
            self.left[index] = (0, 0);
        }
        self.span = self.span.max(span);
        Self::index(span)
    }

    fn index(span: u64) -> usize {
        usize::try_from(span % SPANS as u64).unwrap_or(0)
    }

    /// A connection has ended at this time, at this age; `None` if its begin was not seen.
    pub fn ended(&mut self, at: u64, age: Option<u64>) {
        let index = self.roll(at);
        self.left[index].0 += 1;
        if let Some(age) = age {
            let of_age = age_index(age);
            self.by_age[index][of_age] += 1;
            let (begin, width) = (age_begins(of_age), width(of_age));
            let place = ((age as f64 / 1e9 - begin) / width * 255.0).clamp(0.0, 255.0);
            let mean = f64::from(self.place[of_age]);
            self.place[of_age] = byte(mean + (place - mean) / PLACE_MEMORY);
        }
    }

    /// A connection that ended left a minisocket.
    pub fn left_minisocket(&mut self, at: u64) {
        let index = self.roll(at);
        self.left[index].1 += 1;
    }

    /// The spans that count at this time, newest first, and the seconds that they cover.
    fn spans(&self, now: u64) -> (Vec<usize>, f64) {
        let present = now / SPAN_NANOS;
        let kept = |back: u64| {
            let span = present.checked_sub(back)?;
            (span <= self.span && self.span - span < SPANS as u64).then(|| Self::index(span))
        };
        let mut spans = Vec::new();
        let mut ends = 0;
        let mut seconds = (now % SPAN_NANOS) as f64 / 1e9;
        for back in 0..SPANS as u64 {
            spans.extend(kept(back));
            ends += kept(back).map_or(0, |index| self.left[index].0);
            if back > 0 {
                seconds += SPAN_SECONDS as f64;
                if ends >= ENDS_ENOUGH {
                    break;
                }
            }
        }
        (spans, seconds)
    }

    /// The life table at `now`. `live`: ages of the connections that are open, in seconds, and how many have that age. `older`: the same
    /// of those that began before anything was seen, which are at least that old and tell nothing of younger ages.
    pub fn table(&self, now: u64, live: &[(f64, u32)], older: (f64, u32)) -> LifeTable {
        let (spans, seconds) = self.spans(now);
        let mut ends = [0_u32; AGES];
        for &span in &spans {
            ends.iter_mut().zip(&self.by_age[span]).for_each(|(sum, count)| *sum += count);
        }
        let mut passed = [0.0; AGES];
        let mut pass = |from: f64, to: f64, count: u32| {
            for (index, sum) in passed.iter_mut().enumerate() {
                let (begin, end) = (age_begins(index), end_of(index));
                *sum += (to.min(end) - from.max(begin)).max(0.0) / width(index) * f64::from(count);
            }
        };
        for &(age, count) in live {
            pass((age - seconds).max(0.0), age, count);
        }
        pass(older.0, older.0 + seconds, older.1);
        for (index, &count) in ends.iter().enumerate().filter(|(_, count)| **count > 0) {
            // On the mean they ended in the middle of the time. Where they ended they count as ends.
            let age = age_begins(index);
            pass((age - seconds / 2.0).max(0.0), age, count);
        }
        let (ended, left) =
            spans.iter().fold((0, 0), |sum, &span| (sum.0 + self.left[span].0, sum.1 + self.left[span].1));
        let oldest = live.iter().map(|&(age, _)| age).fold(0.0, f64::max).max(older.0);
        let known = ends.iter().rposition(|&count| count > 0).map_or(0.0, |index| age_begins(index + 1));
        LifeTable {
            ends,
            passed,
            place: self.place,
            ended,
            minisocket_share: if ended > 0 { (f64::from(left) / f64::from(ended)).min(1.0) } else { 1.0 },
            oldest: oldest.max(known),
        }
    }
}

/// Seconds that an age takes; of the last one, which has no end, a minute.
fn width(index: usize) -> f64 {
    if index + 1 == AGES { 60.0 } else { age_begins(index + 1) - age_begins(index) }
}

fn end_of(index: usize) -> f64 {
    if index + 1 == AGES { f64::INFINITY } else { age_begins(index + 1) }
}

/// Which share of connections ends at which age.
#[derive(Clone, Debug)]
pub struct LifeTable {
    ends: [u32; AGES],
    /// Connections that went through each age and on, fractions of it included.
    passed: [f64; AGES],
    place: [u8; AGES],
    ended: u32,
    /// Of the connections that end, those that leave a minisocket; 1 while none has ended.
    pub minisocket_share: f64,
    /// The highest age seen, seconds.
    oldest: f64,
}

/// How the life table is read where it leaves room.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Holding {
    /// So many times the rate at which connections were seen to end.
    Times(f64),
    /// As `Times(1.0)`, and a connection that is older than any that was seen to end is expected to live as long again.
    AsLongAgain,
}

impl LifeTable {
    /// Connections that were seen to end.
    pub fn ended(&self) -> u32 {
        self.ended
    }

    /// How much the rate of ends is uncertain, as a factor.
    pub fn uncertainty(&self) -> f64 {
        0.05 + 1.0 / f64::from(self.ended + 1).sqrt()
    }

    /// The cumulative hazard at 0, 0.5, 1, ... seconds of life, up to `seconds`: of the connections that reach an age, the share that is still there at
    /// a higher one is exp(minus the difference).
    pub fn hazard(&self, seconds: usize, holding: Holding) -> Vec<f64> {
        let factor = if let Holding::Times(factor) = holding { factor } else { 1.0 };
        let mut share = [0.0; AGES];
        let mut known = 0.0_f64;
        for (index, share) in share.iter_mut().enumerate() {
            let ends = f64::from(self.ends[index]);
            let reached = ends + self.passed[index];
            if reached >= FEW {
                known = ends / reached;
            }
            *share = 1.0 - (1.0 - known.min(ALMOST_ALL)).powf(factor);
        }
        let mut hazard = Vec::with_capacity(2 * seconds + 1);
        let (mut sum, mut index, mut age) = (0.0, 0, 0.0_f64);
        for half in 0..=2 * seconds {
            let to = half as f64 / 2.0;
            while age < to {
                let step = to.min(end_of(index));
                sum += if holding == Holding::AsLongAgain && step > self.oldest {
                    (step / age.max(self.oldest).max(1e-3)).ln()
                } else {
                    // Evenly to both sides of their mean place in this age.
                    let mean = f64::from(self.place[index]) / 255.0;
                    let spread = mean.min(1.0 - mean).max(0.02);
                    let done = |at: f64| {
                        (((at - age_begins(index)) / width(index) - mean + spread) / (2.0 * spread)).clamp(0.0, 1.0)
                    };
                    let left = |at: f64| (1.0 - share[index] * done(at)).ln();
                    left(age) - left(step)
                };
                age = step;
                if age >= end_of(index) {
                    index += 1;
                }
            }
            hazard.push(sum);
        }
        hazard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn survival(table: &LifeTable, holding: Holding) -> Vec<f64> {
        table.hazard(120, holding).iter().step_by(2).map(|hazard| f64::exp(-hazard)).collect()
    }

    /// Nine of ten end after 50 ms, the tenth never: a tenth stays, whatever the ages are counted in.
    #[test]
    fn a_share_that_is_never_closed_stays() {
        let mut ends = RecentEnds::default();
        let mut live = Vec::new();
        for second in 0..60_u32 {
            (0..90).for_each(|n| ends.ended(u64::from(second) * SECOND + n, Some(SECOND / 20)));
            live.push((f64::from(second) + 0.5, 10));
        }
        let survival = survival(&ends.table(60 * SECOND, &live, (0.0, 0)), Holding::Times(1.0));
        assert!((survival[1] - 0.1).abs() < 0.01 && (survival[50] - 0.1).abs() < 0.01, "{survival:?}");
    }

    /// Lives of 5 s, all of them: nobody ends before, and nobody is left after, but for a few tenths.
    #[test]
    fn equal_lives_end_at_their_age() {
        let mut ends = RecentEnds::default();
        (0..900).for_each(|n| ends.ended(60 * SECOND + n * SECOND / 30, Some(5 * SECOND)));
        let survival = survival(&ends.table(90 * SECOND, &[], (0.0, 0)), Holding::Times(1.0));
        assert!(survival[4] > 0.99 && survival[6] < 0.01 && (survival[5] - 0.5).abs() < 0.1, "{survival:?}");
    }

    #[test]
    fn ages_have_no_gaps() {
        for nanos in (0..200).map(|n| n * STEP_NANOS + 1).chain([SECOND, 60 * SECOND, 600 * SECOND, u64::MAX]) {
            let (index, age) = (age_index(nanos), nanos as f64 / 1e9);
            assert!(age_begins(index) <= age && age < end_of(index), "{age}: {index}");
        }
    }

    /// 900 connections of 2 s, and a pool of 50 that stays: after 10 s those that came are gone, and the pool is not expected to go.
    #[test]
    fn a_pool_beside_short_connections_is_held() {
        let mut ends = RecentEnds::default();
        for n in 0..900 {
            ends.ended(60 * SECOND + n * SECOND / 30, Some(2 * SECOND));
            ends.left_minisocket(60 * SECOND + n * SECOND / 30);
        }
        let table = ends.table(90 * SECOND, &[(0.5, 30), (1.5, 30)], (90.0, 50));
        assert!((table.minisocket_share - 1.0).abs() < 1e-9);
        let survival = survival(&table, Holding::Times(1.0));
        assert!(survival[1] > 0.9 && survival[4] < 0.01, "{survival:?}");
        let hazard = table.hazard(120, Holding::Times(1.0));
        assert!((hazard[240] - hazard[180]).abs() < 1e-9, "nothing ended at that age: {hazard:?}");
    }

    #[test]
    fn ends_of_an_older_load_are_forgotten() {
        let mut ends = RecentEnds::default();
        (0..100).for_each(|n| ends.ended(n * SECOND / 10, Some(SECOND)));
        assert_eq!(ends.table(20 * SECOND, &[], (0.0, 0)).ended(), 100);
        ends.ended(200 * SECOND, Some(SECOND));
        assert_eq!(ends.table(200 * SECOND, &[], (0.0, 0)).ended(), 1);
        assert_eq!(ends.table(900 * SECOND, &[], (0.0, 0)).ended(), 0);
    }

    #[test]
    fn while_nothing_ends_everything_stays_or_stays_as_long_again() {
        let table = RecentEnds::default().table(20 * SECOND, &[(10.0, 100), (20.0, 100)], (0.0, 0));
        assert!((survival(&table, Holding::Times(1.0))[60] - 1.0).abs() < 1e-9);
        let again = survival(&table, Holding::AsLongAgain);
        assert!((again[20] - 1.0).abs() < 1e-9 && (again[40] - 0.5).abs() < 0.01, "{again:?}");
    }
}
