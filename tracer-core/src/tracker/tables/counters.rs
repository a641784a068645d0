//! What is counted about a process towards a destination, a workload, or a destination.

use hdrhistogram::Histogram;

use crate::event::Ktime;
use crate::tracker::snapshot::detail::{DurationHistogram, HistogramBucket};
use crate::tracker::snapshot::{CloseWaitStats, Durations, Failure, FailureCounts, TimeWaitStats};

/// Two significant digits: percentiles within 1 %, about 9 KiB for durations up to ten seconds. Minimum, mean and maximum are exact.
const SIGNIFICANT_DIGITS: u8 = 2;
/// Values that a histogram of that precision tells apart exactly (a power of two above twice its 100 steps).
const EXACT_BITS: u32 = 8;
/// Durations kept one by one before there is a histogram. Most processes and destinations of a crowded host have so few, and making a
/// histogram for each, or adding one to another, would cost more than all else that is done for them.
const FEW: usize = 4;

/// A count that goes up and down, and its highest value so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gauge {
    /// The present value.
    pub now: u64,
    /// The highest value so far.
    pub peak: u64,
}

impl Gauge {
    /// One more.
    pub fn up(&mut self) {
        self.now += 1;
        self.peak = self.peak.max(self.now);
    }

    /// One less. A gauge never goes below zero, even if the event that raised it was lost.
    pub fn down(&mut self) {
        self.lower(1);
    }

    /// So many more, which were counted elsewhere.
    pub fn raise(&mut self, by: u64) {
        self.now += by;
        self.peak = self.peak.max(self.now);
    }

    /// So many less.
    pub fn lower(&mut self, by: u64) {
        self.now = self.now.saturating_sub(by);
    }
}

/// A distribution of durations.
#[derive(Clone, Debug, Default)]
pub struct Distribution {
    /// Microseconds; made when there are more than [`FEW`].
    histogram: Option<Box<Histogram<u32>>>,
    /// Microseconds of the durations, as long as there is no histogram.
    few: [u64; FEW],
    count: u64,
    sum_nanos: u128,
    min_nanos: u64,
    max_nanos: u64,
}

impl Distribution {
    /// Adds a duration.
    pub fn record(&mut self, nanos: u64) {
        self.min_nanos = if self.count == 0 { nanos } else { self.min_nanos.min(nanos) };
        self.max_nanos = self.max_nanos.max(nanos);
        self.sum_nanos += u128::from(nanos);
        self.place((nanos / 1000).max(1));
    }

    /// Counts a duration of so many microseconds.
    fn place(&mut self, micros: u64) {
        let place = usize::try_from(self.count).unwrap_or(FEW);
        self.count += 1;
        if let Some(histogram) = &mut self.histogram {
            record_into(histogram, micros);
        } else if let Some(place) = self.few.get_mut(place) {
            *place = micros;
        } else {
            self.histogram = histogram_of(&self.few).map(Box::new);
            if let Some(histogram) = &mut self.histogram {
                record_into(histogram, micros);
            }
        }
    }

    /// The durations that are kept one by one, microseconds.
    fn few(&self) -> &[u64] {
        let count = usize::try_from(self.count).unwrap_or(FEW).min(FEW);
        if self.histogram.is_some() { &[] } else { &self.few[..count] }
    }

    /// Adds all durations of `other`.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        self.min_nanos = if self.count == 0 { other.min_nanos } else { self.min_nanos.min(other.min_nanos) };
        self.max_nanos = self.max_nanos.max(other.max_nanos);
        self.sum_nanos += other.sum_nanos;
        let Some(others) = &other.histogram else {
            other.few().iter().for_each(|&micros| self.place(micros));
            return;
        };
        match &mut self.histogram {
            // Both have the same precision and grow on demand: adding cannot fail.
            Some(own) => drop(own.add(others.as_ref())),
            None => {
                let mut merged = others.clone();
                self.few().iter().for_each(|&micros| record_into(&mut merged, micros));
                self.histogram = Some(merged);
            }
        }
        self.count += other.count;
    }

    /// The mean in seconds; `None` without any duration.
    pub fn mean_seconds(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum_nanos as f64 / self.count as f64 / 1e9)
    }

    /// Count, ends, mean and percentiles.
    pub fn summary(&self) -> Durations {
        if self.count == 0 {
            return Durations::default();
        }
        let mut few = [0; FEW];
        let few = &mut few[..self.few().len()];
        few.copy_from_slice(self.few());
        few.sort_unstable();
        let millis = |nanos: f64| Some(nanos / 1e6);
        // The exact ends bound what the histogram rounds.
        let quantile = |q: f64| {
            let micros = match &self.histogram {
                Some(histogram) => histogram.value_at_quantile(q),
                None => {
                    let rank = |place: usize| (place + 1) as f64 >= q * few.len() as f64;
                    let (_, &micros) = few.iter().enumerate().find(|&(place, _)| rank(place))?;
                    as_in_histogram(micros)
                }
            };
            millis((micros as f64 * 1e3).clamp(self.min_nanos as f64, self.max_nanos as f64))
        };
        Durations {
            count: self.count,
            min: millis(self.min_nanos as f64),
            mean: millis(self.sum_nanos as f64 / self.count as f64),
            p50: quantile(0.5),
            p90: quantile(0.9),
            p99: quantile(0.99),
            max: millis(self.max_nanos as f64),
        }
    }

    /// Summary and buckets, to draw a histogram from.
    pub fn shape(&self) -> DurationHistogram {
        DurationHistogram { summary: self.summary(), buckets: self.buckets() }
    }

    fn buckets(&self) -> Vec<HistogramBucket> {
        let made = if self.histogram.is_none() { histogram_of(self.few()) } else { None };
        let Some(histogram) = self.histogram.as_deref().or(made.as_ref()) else { return Vec::new() };
        let mut buckets: Vec<HistogramBucket> =
            bounds().map(|micros| HistogramBucket { upto_ms: micros as f64 / 1e3, count: 0 }).collect();
        let mut at = 0;
        for step in histogram.iter_recorded() {
            let millis = step.value_iterated_to() as f64 / 1e3;
            at += buckets.iter().skip(at).take_while(|bucket| bucket.upto_ms < millis).count();
            if let Some(bucket) = buckets.get_mut(at) {
                bucket.count += step.count_since_last_iteration();
            }
        }
        let used = |bucket: &HistogramBucket| bucket.count > 0;
        let end = buckets.iter().rposition(used).map_or(0, |last| last + 1);
        let begin = buckets.iter().position(used).unwrap_or(end);
        buckets.drain(begin..end).collect()
    }
}

fn histogram_of(micros: &[u64]) -> Option<Histogram<u32>> {
    let mut histogram = Histogram::new(SIGNIFICANT_DIGITS).ok()?;
    for &micros in micros {
        record_into(&mut histogram, micros);
    }
    Some(histogram)
}

fn record_into(histogram: &mut Histogram<u32>, micros: u64) {
    // Grows on demand; saturating_record() would clip to what it has grown to.
    let recorded = histogram.record(micros);
    debug_assert!(recorded.is_ok(), "an auto-resizing histogram takes any value");
}

/// What a histogram would return for the value (`Histogram::highest_equivalent`), so that percentiles do not jump when one is made.
fn as_in_histogram(micros: u64) -> u64 {
    let bits = u64::BITS - micros.leading_zeros();
    micros | ((1 << bits.saturating_sub(EXACT_BITS)) - 1)
}

/// Upper bounds of buckets in microseconds: 10, 20, 50, 100 ... The last one is far above any duration that occurs (4 months).
fn bounds() -> impl Iterator<Item = u64> {
    (1..13).flat_map(|decade| [1, 2, 5].map(|step| step * 10_u64.pow(decade)))
}

/// Attempts in each of the last seconds.
#[derive(Clone, Debug, Default)]
pub struct Rate {
    /// The second that `buckets[second % len]` counts.
    second: u64,
    buckets: [u32; Self::SECONDS + 2],
}

impl Rate {
    /// Long enough to smooth a batch job's beat, short enough to follow a deploy.
    pub const SECONDS: usize = 10;

    fn roll(&mut self, second: u64) {
        let gap = second.saturating_sub(self.second).min(self.buckets.len() as u64);
        for step in 0..gap {
            let index = self.index(second - step);
            self.buckets[index] = 0;
        }
        self.second = self.second.max(second);
    }

    fn index(&self, second: u64) -> usize {
        usize::try_from(second % self.buckets.len() as u64).unwrap_or(0)
    }

    /// Counts an attempt.
    pub fn count(&mut self, at: Ktime) {
        let second = at.0 / 1_000_000_000;
        self.roll(second);
        if self.second - second < self.buckets.len() as u64 {
            let index = self.index(second);
            self.buckets[index] += 1;
        }
    }

    /// Adds the attempts that `other` has counted in the seconds that both still keep.
    pub fn merge(&mut self, other: &Self) {
        self.roll(other.second);
        let kept = self.buckets.len() as u64;
        for second in other.second.saturating_sub(kept - 1)..=other.second {
            if self.second - second < kept {
                let (own, others) = (self.index(second), other.index(second));
                self.buckets[own] = self.buckets[own].saturating_add(other.buckets[others]);
            }
        }
    }

    /// Counts of the last whole seconds before `now`, newest first, no further back than `since`.
    pub fn seconds(&self, now: Ktime, since: Ktime) -> Vec<u32> {
        let (current, first) = (now.0 / 1_000_000_000, since.0 / 1_000_000_000);
        (1..=Self::SECONDS as u64)
            .map_while(|back| current.checked_sub(back).filter(|&second| second >= first))
            .map(|second| {
                let kept = second <= self.second && self.second - second < self.buckets.len() as u64;
                if kept { self.buckets[self.index(second)] } else { 0 }
            })
            .collect()
    }

    /// Events per second over the last whole seconds.
    pub fn per_second(&self, now: Ktime, since: Ktime) -> f64 {
        let seconds = self.seconds(now, since);
        if seconds.is_empty() {
            return 0.0;
        }
        f64::from(seconds.iter().sum::<u32>()) / seconds.len() as f64
    }
}

/// The counters.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Attempts to connect.
    pub connects: u64,
    /// Connections that this side opened and that were established.
    pub established: u64,
    /// Failed attempts by reason.
    pub failed: FailureCounts,
    /// Connections that peers opened.
    pub accepted: u64,
    /// Flows that are over, failed attempts not included.
    pub closed: u64,
    /// Flows that this side closed first.
    pub active_closes: u64,
    /// Flows that the peer closed first.
    pub passive_closes: u64,
    /// Flows that a RST ended, from either side.
    pub resets: u64,
    /// Minisockets that began.
    pub tw_entered: u64,
    /// Minisockets that made way for a new connection on their 4-tuple.
    pub tw_reused: u64,
    /// Minisockets.
    pub time_wait: Gauge,
    /// Flows in `CLOSE_WAIT`.
    pub close_wait: Gauge,
    /// Local ports held towards destinations, by flows and minisockets. Not kept for a destination, which counts its ports by state.
    pub ports: Gauge,
    /// From the begin of a flow to its end.
    pub lifetime: Distribution,
    /// From the begin of a flow to its establishment.
    pub connect: Distribution,
}

impl Counters {
    /// Counts a failed attempt.
    pub fn fail(&mut self, failure: Failure) {
        self.failed.count(failure);
    }

    /// Nothing is going on now: no minisocket, no `CLOSE_WAIT`, no port held.
    pub fn idle(&self) -> bool {
        self.time_wait.now == 0 && self.close_wait.now == 0 && self.ports.now == 0
    }

    /// Counts from zero again; what is open stays.
    pub fn restart(&mut self) {
        let again = |gauge: Gauge| Gauge { now: gauge.now, peak: gauge.now };
        let (time_wait, close_wait, ports) = (again(self.time_wait), again(self.close_wait), again(self.ports));
        *self = Self { time_wait, close_wait, ports, ..Self::default() };
    }

    /// Adds the counters of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.connects += other.connects;
        self.established += other.established;
        self.failed.merge(&other.failed);
        self.accepted += other.accepted;
        self.closed += other.closed;
        self.active_closes += other.active_closes;
        self.passive_closes += other.passive_closes;
        self.resets += other.resets;
        self.tw_entered += other.tw_entered;
        self.tw_reused += other.tw_reused;
        for (own, others) in [
            (&mut self.time_wait, other.time_wait),
            (&mut self.close_wait, other.close_wait),
            (&mut self.ports, other.ports),
        ] {
            own.now += others.now;
            // The peaks of the two need not have coincided: only the larger one is certain.
            own.peak = own.peak.max(others.peak).max(own.now);
        }
        self.lifetime.merge(&other.lifetime);
        self.connect.merge(&other.connect);
    }

    /// The counters about `TIME_WAIT` as the report has them. `window_seconds`: how long was observed.
    pub fn time_wait_stats(&self, window_seconds: f64) -> TimeWaitStats {
        TimeWaitStats {
            entered: self.tw_entered,
            now: self.time_wait.now,
            peak: self.time_wait.peak,
            per_second: if window_seconds > 0.0 { self.tw_entered as f64 / window_seconds } else { 0.0 },
            reused: self.tw_reused,
        }
    }

    /// The counters about `CLOSE_WAIT` as the report has them. `oldest_seconds`: age of the oldest such flow.
    pub fn close_wait_stats(&self, oldest_seconds: Option<f64>) -> CloseWaitStats {
        CloseWaitStats { now: self.close_wait.now, peak: self.close_wait.peak, oldest_seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn rates_count_whole_seconds_only_and_forget_old_ones() {
        let mut rate = Rate::default();
        for second in 0..5 {
            for _ in 0..10 {
                rate.count(Ktime(second * SECOND + 5));
            }
        }
        assert_eq!(rate.seconds(Ktime(5 * SECOND), Ktime(0)), [10, 10, 10, 10, 10]);
        assert!((rate.per_second(Ktime(5 * SECOND), Ktime(0)) - 10.0).abs() < 1e-9);
        // Ten seconds of silence later everything is forgotten, without an event to roll the buckets.
        assert!(rate.per_second(Ktime(16 * SECOND), Ktime(0)).abs() < 1e-9);
        rate.count(Ktime(40 * SECOND));
        assert_eq!(rate.seconds(Ktime(41 * SECOND), Ktime(0)), [1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_rate_is_not_diluted_by_the_time_before_the_start() {
        let mut rate = Rate::default();
        for _ in 0..20 {
            rate.count(Ktime(100 * SECOND));
            rate.count(Ktime(101 * SECOND));
        }
        assert!((rate.per_second(Ktime(102 * SECOND), Ktime(100 * SECOND)) - 20.0).abs() < 1e-9);
    }

    #[test]
    fn rates_of_two_are_added_second_by_second() {
        let (mut early, mut late) = (Rate::default(), Rate::default());
        early.count(Ktime(10 * SECOND));
        early.count(Ktime(20 * SECOND));
        late.count(Ktime(20 * SECOND));
        late.count(Ktime(22 * SECOND));
        let mut other_way_round = late.clone();
        other_way_round.merge(&early);
        early.merge(&late);
        for sum in [early, other_way_round] {
            assert_eq!(sum.seconds(Ktime(23 * SECOND), Ktime(18 * SECOND)), [1, 0, 2, 0, 0]);
        }
    }

    #[test]
    fn distributions_keep_exact_ends_and_merge() {
        let mut a = Distribution::default();
        let mut b = Distribution::default();
        a.record(1_234_567);
        b.record(9_876_543);
        a.merge(&b);
        let summary = a.summary();
        assert_eq!((summary.count, summary.min, summary.max), (2, Some(1.234_567), Some(9.876_543)));
        assert!((summary.p99.expect("two values") - 9.876_543).abs() < 0.1);
        assert_eq!(Distribution::default().summary(), Durations::default());
    }

    #[test]
    fn a_few_durations_have_the_percentiles_that_a_histogram_gives_them() {
        let nanos = [1_234_567_u64, 987, 255_000, 260_123_456, 4_000_000_000, 77_000];
        for count in 1..=nanos.len() {
            let mut distribution = Distribution::default();
            let mut reference = Histogram::<u32>::new(SIGNIFICANT_DIGITS).expect("two digits");
            for &nanos in nanos.iter().take(count) {
                distribution.record(nanos);
                reference.record((nanos / 1000).max(1)).expect("any value");
            }
            assert_eq!(distribution.histogram.is_some(), count > FEW);
            let summary = distribution.summary();
            for (q, found) in [(0.5, summary.p50), (0.9, summary.p90), (0.99, summary.p99)] {
                let micros = reference.value_at_quantile(q) as f64;
                let expected = (micros * 1e3).clamp(distribution.min_nanos as f64, distribution.max_nanos as f64) / 1e6;
                assert_eq!(found, Some(expected), "{q} of {count}");
            }
            assert_eq!(distribution.shape().buckets.iter().map(|bucket| bucket.count).sum::<u64>(), count as u64);
        }
    }

    #[test]
    fn distributions_merge_whether_they_have_a_histogram_or_not() {
        let of = |range: std::ops::Range<u64>| {
            let mut distribution = Distribution::default();
            range.for_each(|millis| distribution.record(millis * 1_000_000));
            distribution
        };
        for (a, b) in [(2, 2), (2, 9), (9, 2), (9, 9), (0, 3), (3, 0)] {
            let mut merged = of(1..1 + a);
            merged.merge(&of(100..100 + b));
            let mut whole = of(1..1 + a);
            (100..100 + b).for_each(|millis| whole.record(millis * 1_000_000));
            assert_eq!(merged.summary(), whole.summary(), "{a} and {b}");
        }
    }

    #[test]
    fn shapes_have_no_gaps() {
        let mut distribution = Distribution::default();
        for micros in [15, 16, 90, 950_000] {
            distribution.record(micros * 1_000);
        }
        let buckets = distribution.shape().buckets;
        let counts: Vec<u64> = buckets.iter().map(|bucket| bucket.count).collect();
        assert_eq!(counts.len(), 15, "{buckets:?}");
        assert_eq!((counts[0], counts[2], counts[14]), (2, 1, 1), "{buckets:?}");
        assert_eq!(counts.iter().sum::<u64>(), 4);
        assert!((buckets[0].upto_ms - 0.02).abs() < 1e-9 && (buckets[14].upto_ms - 1_000.0).abs() < 1e-9);
        assert!(Distribution::default().shape().buckets.is_empty());
    }

    #[test]
    fn gauges_never_go_below_zero() {
        let mut gauge = Gauge::default();
        gauge.down();
        gauge.up();
        gauge.up();
        gauge.down();
        assert_eq!((gauge.now, gauge.peak), (1, 2));
    }
}
