//! How long connect() searches for a local port towards one destination.
//!
//! The search walks the range from a hashed offset and tries every port of the preferred parity before the first of the other one
//! (net/ipv4/inet_hashtables.c `__inet_hash_connect`): while half of the range is free it costs microseconds, from then on the whole
//! half is walked by every connect(), long before one fails.

use super::counters::Distribution;

/// Searches that one median is taken over: a few milliseconds where thousands connect each second, a minute where one does.
const RECENT: usize = 64;

/// Search times of one destination.
#[derive(Clone, Debug, Default)]
pub struct PortSearchTimes {
    /// All searches, with a port or in vain.
    pub all: Distribution,
    recent: Vec<u64>,
    /// Median of the last full window of `RECENT` searches, nanoseconds.
    pub median: Option<u64>,
    /// The smallest of those medians, nanoseconds.
    pub quickest: Option<u64>,
}

impl PortSearchTimes {
    /// A search has ended after so many nanoseconds, with a port or without.
    pub fn record(&mut self, nanos: u64) {
        self.all.record(nanos);
        self.recent.push(nanos);
        if self.recent.len() == RECENT {
            let (_, &mut median, _) = self.recent.select_nth_unstable(RECENT / 2);
            self.median = Some(median);
            self.quickest = Some(self.quickest.map_or(median, |quickest| quickest.min(median)));
            self.recent.clear();
        }
    }

    /// Adds the searches of `other`. Medians of different destinations say nothing together.
    pub fn merge(&mut self, other: &Self) {
        self.all.merge(&other.all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_follows_slow_searches_and_the_quickest_one_stays() {
        let mut times = PortSearchTimes::default();
        for nanos in [50_000, 700_000] {
            for outlier in 0..RECENT {
                times.record(if outlier % 8 == 0 { 9_000_000 } else { nanos });
            }
        }
        times.record(1);
        assert_eq!((times.median, times.quickest, times.all.summary().count), (Some(700_000), Some(50_000), 129));
    }
}
