//! What was counted in the last seconds and the last minute, by whom and towards what: a storm after ten quiet hours is a storm, and it is
//! over when it is over.
//!
//! The tables count from the start of the trace. This module keeps their counts as they were at the judgements of the last minute; the
//! rates of all rules are differences of these. It costs nothing per event.

use std::collections::VecDeque;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::event::{DestinationKey, KernelCounters, Ktime, Netns};
use crate::tracker::snapshot::{Failure, FailureCounts, Snapshot};

use crate::errno::{ECONNREFUSED, ECONNRESET, EHOSTUNREACH, ENETUNREACH, ETIMEDOUT};

/// The short window: smooths the beat of a batch job, follows a deploy.
const SHORT_NANOS: u64 = 10_000_000_000;
/// The long one: as long as `TIME_WAIT` lasts.
const LONG_NANOS: u64 = 60_000_000_000;
/// Slack of the windows, because judgements are not exactly a second apart.
const SLACK_NANOS: u64 = 500_000_000;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Attempts to connect.
    Connects,
    /// Attempts that were established.
    Established,
    /// Attempts for which connect() found no port.
    NoPort,
    /// The same in a range of the socket's own.
    NoOwnPort,
    /// bind() to port 0 without a port.
    NoBindPort,
    /// Attempts on a 4-tuple in use.
    TupleTaken,
    /// Attempts that the peer refused.
    Refused,
    /// Attempts that nobody answered.
    Unanswered,
    /// Attempts for which there was no way to the peer.
    Unreachable,
    /// Attempts that the peer reset.
    Reset,
    /// Attempts that the program gave up before an answer.
    GaveUp,
    /// Attempts that failed for yet another reason.
    OtherFailures,
    /// Minisockets that began.
    TimeWait,
    /// Connections that peers opened.
    Accepted,
    /// Of a namespace: handshakes that found an accept queue full.
    ListenOverflows,
    /// Of a namespace: connections that got no minisocket.
    TimeWaitOverflows,
    /// Of a namespace: SYN cookies.
    SynCookies,
    /// Of a namespace: connections that connection tracking refused or threw out.
    ConntrackLost,
}

const KINDS: usize = 18;

/// One count of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts([u64; KINDS]);

impl Counts {
    /// The count of this kind.
    pub fn of(&self, kind: Counted) -> u64 {
        self.0[kind as usize]
    }

    fn add(&mut self, kind: Counted, more: u64) {
        let count = &mut self.0[kind as usize];
        *count = count.saturating_add(more);
    }

    fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(own, others)| *own = own.saturating_add(others));
    }

    /// What came after `earlier`. A count that fell (a destination was forgotten) has nothing new.
    fn since(&self, earlier: &Self) -> Self {
        let mut counts = *self;
        counts.0.iter_mut().zip(earlier.0).for_each(|(now, then)| *now = now.saturating_sub(then));
        counts
    }

    fn add_failures(&mut self, failed: &FailureCounts) {
        for (failure, count) in failed.iter() {
            let kind = match failure {
                Failure::PortsExhausted => Counted::NoPort,
                Failure::OwnRangeExhausted => Counted::NoOwnPort,
                Failure::BindExhausted => Counted::NoBindPort,
                Failure::TupleTaken => Counted::TupleTaken,
                Failure::Errno(ECONNREFUSED) => Counted::Refused,
                Failure::Errno(ETIMEDOUT) => Counted::Unanswered,
                Failure::Errno(EHOSTUNREACH | ENETUNREACH) => Counted::Unreachable,
                Failure::Errno(ECONNRESET) => Counted::Reset,
                Failure::Aborted => Counted::GaveUp,
                Failure::NoLocalAddress | Failure::Errno(_) | Failure::Unknown => Counted::OtherFailures,
            };
            self.add(kind, count);
        }
    }
}

/// What a series is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SeriesKey {
    /// A workload towards a destination.
    Towards(Arc<str>, DestinationKey),
    /// A workload, with what has no destination.
    Workload(Arc<str>),
    /// A namespace's destination, whoever connects to it.
    Destination(DestinationKey),
    /// What the kernel counts in a namespace.
    Namespace(Netns),
}

/// The windows of one series.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Windows {
    /// Since the judgement before.
    pub new: Counts,
    /// The last ten seconds.
    pub short: Counts,
    /// How many seconds these were: fewer at the begin of a trace.
    pub short_seconds: f64,
    /// The last minute.
    pub long: Counts,
    /// How many seconds these were.
    pub long_seconds: f64,
    /// Since the begin of the trace.
    pub all: Counts,
}

impl Windows {
    /// Per second over the last ten seconds.
    pub fn per_second(&self, kind: Counted) -> f64 {
        self.short.of(kind) as f64 / self.short_seconds.max(1.0)
    }

    /// Per second over the last minute.
    pub fn per_second_long(&self, kind: Counted) -> f64 {
        self.long.of(kind) as f64 / self.long_seconds.max(1.0)
    }
}

/// The windows at one judgement.
#[derive(Clone, Debug, Default)]
pub struct Recent(FxHashMap<SeriesKey, Windows>);

impl Recent {
    /// The windows of this series: empty if nobody knows it.
    pub fn of(&self, counter: &SeriesKey) -> Windows {
        self.0.get(counter).copied().unwrap_or_default()
    }

    /// Towards this destination, whoever connects.
    pub fn towards(&self, key: DestinationKey) -> Windows {
        self.of(&SeriesKey::Destination(key))
    }

    /// Of this namespace, as the kernel counts.
    pub fn of_namespace(&self, netns: Netns) -> Windows {
        self.of(&SeriesKey::Namespace(netns))
    }

    /// Of this workload, wherever it connects to.
    pub fn of_workload(&self, name: &Arc<str>) -> Windows {
        self.of(&SeriesKey::Workload(Arc::clone(name)))
    }

    /// Of this workload towards this destination.
    pub fn relation(&self, name: &Arc<str>, key: DestinationKey) -> Windows {
        self.of(&SeriesKey::Towards(Arc::clone(name), key))
    }

    /// Everything in the snapshot happened just now.
    #[cfg(test)]
    pub fn all_of(snapshot: &Snapshot) -> Self {
        let seconds = snapshot.now.seconds_since(snapshot.start);
        let windows = |all: Counts| Windows {
            new: all,
            short: all,
            short_seconds: seconds.min(10.0),
            long: all,
            long_seconds: seconds.min(60.0),
            all,
        };
        Self(counts(snapshot).into_iter().map(|(counter, all)| (counter, windows(all))).collect())
    }
}

/// What every series has counted since the begin of the trace.
fn counts(snapshot: &Snapshot) -> FxHashMap<SeriesKey, Counts> {
    let mut all: FxHashMap<SeriesKey, Counts> = FxHashMap::default();
    for attribution in &snapshot.attributions {
        let mut counts = Counts::default();
        counts.add(Counted::Connects, attribution.connects);
        counts.add(Counted::Established, attribution.established);
        counts.add(Counted::TimeWait, attribution.time_wait.entered);
        counts.add_failures(&attribution.failed);
        let towards = SeriesKey::Towards(Arc::clone(&attribution.workload), attribution.key());
        all.entry(towards).or_default().merge(&counts);
    }
    for destination in &snapshot.destinations {
        let counts = all.entry(SeriesKey::Destination(destination.key())).or_default();
        counts.add(Counted::Connects, destination.connects);
        counts.add(Counted::Established, destination.established);
        counts.add_failures(&destination.failed);
    }
    for workload in &snapshot.workloads {
        let counts = all.entry(SeriesKey::Workload(Arc::clone(&workload.name))).or_default();
        counts.add(Counted::Connects, workload.connects);
        counts.add(Counted::Established, workload.established);
        counts.add(Counted::Accepted, workload.accepted);
        counts.add(Counted::TimeWait, workload.time_wait.entered);
        counts.add_failures(&workload.failed);
    }
    for namespace in &snapshot.namespaces {
        let counts = all.entry(SeriesKey::Namespace(namespace.netns)).or_default();
        let KernelCounters { conntrack_insert_failed, conntrack_drops, conntrack_early_drops, .. } = namespace.counters;
        let mut add = |kind, count: Option<u64>| counts.add(kind, count.unwrap_or(0));
        add(Counted::ListenOverflows, namespace.counters.listen_overflows);
        add(Counted::TimeWaitOverflows, namespace.counters.time_wait_overflows);
        add(Counted::SynCookies, namespace.counters.syn_cookies_sent);
        add(Counted::ConntrackLost, conntrack_insert_failed);
        add(Counted::ConntrackLost, conntrack_drops);
        add(Counted::ConntrackLost, conntrack_early_drops);
    }
    all
}

/// The counts at the judgements of the last minute, of one series. Only judgements at which something was new are kept.
#[derive(Clone, Debug, Default)]
struct Series {
    /// Oldest first. One of them may be older than the minute: what was known at its begin.
    kept: VecDeque<(Ktime, Counts)>,
}

impl Series {
    /// The counts that were known at `at`; zero before the first of them.
    fn at(&self, at: Ktime) -> Counts {
        let later = self.kept.partition_point(|(of, _)| *of <= at);
        later.checked_sub(1).and_then(|index| self.kept.get(index)).map(|(_, counts)| *counts).unwrap_or_default()
    }

    fn add(&mut self, now: Ktime, counts: Counts) {
        if self.kept.back().is_none_or(|(_, last)| *last != counts) {
            self.kept.push_back((now, counts));
        }
        let begin = Ktime(now.0.saturating_sub(LONG_NANOS + SLACK_NANOS));
        while self.kept.get(1).is_some_and(|(at, _)| *at <= begin) {
            self.kept.pop_front();
        }
    }
}

/// The counts of the last minute. There are as many series as there are attributions, destinations and workloads, which are bounded, and
/// a series has an entry for each judgement of the last minute at which it had grown.
#[derive(Clone, Debug, Default)]
pub struct RecentCounts {
    series: FxHashMap<SeriesKey, Series>,
    judged: Ktime,
}

impl RecentCounts {
    /// Takes the counts of `snapshot`, and returns the windows that end there.
    pub fn take(&mut self, snapshot: &Snapshot) -> Recent {
        let (now, start) = (snapshot.now, snapshot.start);
        let all = counts(snapshot);
        self.series.retain(|counter, _| all.contains_key(counter));
        let before = |nanos: u64| Ktime(now.0.saturating_sub(nanos)).max(start);
        let (short, long) = (before(SHORT_NANOS), before(LONG_NANOS));
        let judged = self.judged;
        let windows = all.into_iter().map(|(counter, counts)| {
            let series = self.series.entry(counter.clone()).or_default();
            series.add(now, counts);
            let since = |at: Ktime| counts.since(&series.at(at));
            let windows = Windows {
                new: since(judged),
                short: since(short),
                short_seconds: now.seconds_since(short),
                long: since(long),
                long_seconds: now.seconds_since(long),
                all: counts,
            };
            (counter, windows)
        });
        let recent = Recent(windows.collect());
        self.judged = now;
        recent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::snapshot::Workload;

    const SECOND: u64 = 1_000_000_000;

    fn at(second: u64, connects: u64) -> Snapshot {
        let workload = Workload { name: "batch".into(), connects, ..Workload::default() };
        Snapshot { now: Ktime(second * SECOND), workloads: vec![workload], ..Snapshot::default() }
    }

    #[test]
    fn a_storm_after_quiet_hours_is_a_storm_and_ends() {
        let (mut recent, name) = (RecentCounts::default(), Arc::from("batch"));
        recent.take(&at(1, 10));
        let mut windows = Windows::default();
        for second in 36_000..36_005 {
            windows = recent.take(&at(second, 10 + 100 * (second - 35_999))).of_workload(&name);
        }
        assert_eq!((windows.new.of(Counted::Connects), windows.short.of(Counted::Connects)), (100, 500));
        assert!((windows.per_second(Counted::Connects) - 50.0).abs() < 1e-9, "{windows:?}");
        let after = recent.take(&at(36_020, 510)).of_workload(&name);
        assert_eq!((after.short.of(Counted::Connects), after.long.of(Counted::Connects)), (0, 500));
        let long_after = recent.take(&at(36_080, 510)).of_workload(&name);
        assert_eq!((long_after.long.of(Counted::Connects), long_after.all.of(Counted::Connects)), (0, 510));
        assert_eq!(recent.series.values().map(|series| series.kept.len()).sum::<usize>(), 1);
    }

    #[test]
    fn windows_begin_with_the_trace() {
        let windows = RecentCounts::default().take(&at(3, 30)).of_workload(&"batch".into());
        assert!((windows.per_second(Counted::Connects) - 10.0).abs() < 1e-9, "{windows:?}");
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let mut recent = RecentCounts::default();
        recent.take(&at(1, 10));
        recent.take(&Snapshot { now: Ktime(2 * SECOND), ..Snapshot::default() });
        assert!(recent.series.is_empty());
    }
}
