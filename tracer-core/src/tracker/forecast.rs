//! What becomes of the destinations: hands what the tables know to the model.

use rustc_hash::FxHashMap;

use super::snapshot::Confidence;
use super::tables::Tables;
use super::tables::demand::RecentDemand;
use super::tables::destinations::{DestinationEntry, DestinationId};
use super::tables::time_wait::TimeWaitEntry;
use crate::event::{Ktime, TcpState};
use crate::model::forecast::{ExhaustionForecast, MinisocketCohort, PortDemand};
use crate::model::timing::{TIME_WAIT, WHEEL_DELAY};

/// How long `TIME_WAIT` holds a port, on average.
const TIME_WAIT_SECONDS: f64 = TIME_WAIT.as_secs_f64() + WHEEL_DELAY.as_secs_f64();
/// A failure for lack of a port no longer ago than this means that the destination is exhausted now, seconds.
const FAILING_SECONDS: f64 = 2.0;
/// Forecasts made for one snapshot, those first that would be full first if nothing were released. Each takes a quarter of a
/// millisecond, so that all of them take less than the rest of a snapshot of a busy host.
const MAX_FORECASTS: usize = 24;
/// From so many seconds on a rate is one.
const SURE_SECONDS: usize = 10;
/// An interval that is open at its end is a fair one if so many futures run out of ports.
const FAIR_PROBABILITY: f64 = 0.85;
/// Orphans have ended so many seconds after `tcp_fin_timeout`, and so many seconds tell their share.
const ORPHANS_GONE: u64 = 5;
const ORPHANS_TOLD: u64 = 15;
/// An interval no wider than this share of the forecast is a sure one, a wider one up to the second share a fair one.
const SURE_WIDTH: f64 = 0.5;
const FAIR_WIDTH: f64 = 1.0;

/// What becomes of a destination.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Forecast {
    /// Attempts per second.
    pub per_second: f64,
    /// The rate that the destination bears for good; `None` = unknown.
    pub sustainable: Option<f64>,
    /// The probability that no port is left some time within the forecast; `None` = unknown.
    pub probability: Option<f64>,
    /// Seconds until no port is left, 0 = exhausted now; `None` = not to be expected, or unknown.
    pub exhausted_in: Option<f64>,
    /// Not before, and not after, with 90 %; `None` = not within the forecast, or unknown.
    pub soonest: Option<f64>,
    /// See above.
    pub latest: Option<f64>,
    /// How far `exhausted_in` can be relied on.
    pub confidence: Option<Confidence>,
}

/// Minisockets that no connect() takes over, of one destination.
#[derive(Clone, Debug, Default)]
pub struct NotReusable {
    /// Orphans, and minisockets whose peer sends no timestamps.
    pub orphans: u32,
    /// See above.
    pub without_timestamps: u32,
    /// The same two by seconds since their timer started.
    by_age: FxHashMap<u32, (u32, u32)>,
}

/// Of each destination that has some.
pub type AllNotReusable = FxHashMap<DestinationId, NotReusable>;

impl NotReusable {
    /// Counts an orphan, or a minisocket whose peer sends no timestamps.
    pub fn add(&mut self, entry: &TimeWaitEntry, now: Ktime) {
        let age = (now.0 / 1_000_000_000).saturating_sub(entry.timer_started.0 / 1_000_000_000);
        let of_age = self.by_age.entry(u32::try_from(age).unwrap_or(u32::MAX)).or_default();
        let (own, same_age) = if entry.orphan {
            (&mut self.orphans, &mut of_age.0)
        } else {
            (&mut self.without_timestamps, &mut of_age.1)
        };
        *own += 1;
        *same_age += 1;
    }
}

/// The forecasts of all destinations. Only so many are calculated, of those that can matter; of the others the probability is unknown.
pub fn forecasts(tables: &Tables, minisockets: &AllNotReusable) -> FxHashMap<DestinationId, Forecast> {
    let since = tables.start.unwrap_or(tables.now);
    let none = NotReusable::default();
    let mut candidates = Vec::new();
    let mut forecasts = FxHashMap::default();
    let destinations = tables.accounting.destinations().iter();
    for (id, destination) in destinations.filter(|(_, destination)| destination.rest.is_none()) {
        let of = minisockets.get(&id).unwrap_or(&none);
        let (forecast, urgency) = without_the_future(tables, destination, of, since);
        candidates.extend(urgency.map(|urgency| (urgency, id)));
        forecasts.insert(id, forecast);
    }
    if candidates.len() > MAX_FORECASTS {
        candidates.select_nth_unstable_by(MAX_FORECASTS, |a, b| a.0.total_cmp(&b.0));
        candidates.truncate(MAX_FORECASTS);
    }
    for (_, id) in candidates {
        let destination = tables.accounting.destinations().get(id);
        if let (Some(forecast), Some(destination)) = (forecasts.get_mut(&id), destination) {
            look_ahead(tables, destination, minisockets.get(&id).unwrap_or(&none), since, forecast);
        }
    }
    forecasts
}

/// What needs no look ahead; and if one is worth it, after how many seconds the ports would be gone if none were released.
fn without_the_future(
    tables: &Tables,
    destination: &DestinationEntry,
    minisockets: &NotReusable,
    start: Ktime,
) -> (Forecast, Option<f64>) {
    let since = start.max(destination.first_seen());
    let per_second = destination.rate.per_second(tables.now, since);
    let mut forecast = Forecast { per_second, ..Forecast::default() };
    let Some(capacity) = tables.ports.capacity(destination) else { return (forecast, None) };
    let reuse = reuse_after(tables, destination);
    let stuck = minisockets.orphans + minisockets.without_timestamps;
    let reusable = stuck <= u32::midpoint(destination.in_state(TcpState::TimeWait), minisockets.orphans);
    let counters = &destination.counters;
    let lifetime = counters.lifetime.mean_seconds();
    let entered_share =
        if counters.closed > 0 { (counters.tw_entered as f64 / counters.closed as f64).min(1.0) } else { 1.0 };
    // How long one connection keeps its port, once it ends.
    let time_wait = reuse.filter(|_| reusable).unwrap_or(TIME_WAIT_SECONDS);
    let hold = lifetime.map(|lifetime| lifetime + entered_share * time_wait);
    let churning = per_second * lifetime.unwrap_or(0.0);
    let standing = (f64::from(destination.in_state(TcpState::Established)) - churning).max(0.0);
    forecast.sustainable = hold.filter(|&hold| hold > 0.0).map(|hold| (f64::from(capacity) - standing).max(0.0) / hold);
    let failing = destination.last_failure.is_some_and(|at| tables.now.seconds_since(at) <= FAILING_SECONDS);
    if failing || (destination.in_use() >= capacity && reuse.is_none()) {
        forecast.probability = Some(1.0);
        (forecast.exhausted_in, forecast.soonest, forecast.latest) = (Some(0.0), Some(0.0), Some(0.0));
        forecast.confidence = Some(Confidence::High);
        return (forecast, None);
    }
    let free = f64::from(capacity.saturating_sub(destination.in_use()));
    (forecast, destination.demand().map(|_| free / per_second.max(0.1)))
}

fn reuse_after(tables: &Tables, destination: &DestinationEntry) -> Option<f64> {
    tables.ports.namespaces().get(destination.key.netns)?.reuse_after(&destination.key)
}

fn look_ahead(
    tables: &Tables,
    destination: &DestinationEntry,
    not_reusable: &NotReusable,
    start: Ktime,
    forecast: &mut Forecast,
) {
    let now = tables.now;
    let (Some(demand), Some(capacity)) = (destination.demand(), tables.ports.capacity(destination)) else { return };
    let arrivals = demand.arrivals(now, start);
    let minisockets_in_range = destination.in_state(TcpState::TimeWait) + not_reusable.orphans;
    let live = destination.in_use().saturating_sub(minisockets_in_range);
    let mut live_by_age = no_more_than(demand.live_by_age(now), live);
    let mut minisockets = cohorts(demand, minisockets_in_range, not_reusable, now);
    let facts = tables.ports.namespaces().get(destination.key.netns).map(|namespace| &namespace.facts);
    let fin_timeout =
        facts.and_then(|facts| facts.fin_timeout_ms).map_or(TIME_WAIT.as_secs_f64(), |ms| f64::from(ms) / 1e3);
    let reuse_after = reuse_after(tables, destination);
    let (listed, without_timestamps_share) = shares(&minisockets);
    let seen = orphans_seen(demand, now, fin_timeout).filter(|_| reuse_after.is_none());
    let orphan_share = seen.unwrap_or(listed);
    for cohort in minisockets.iter_mut().filter(|cohort| cohort.age < fin_timeout) {
        cohort.orphans = cohort.orphans.max(share_of(cohort.count, orphan_share));
    }
    let younger: u32 = live_by_age.iter().map(|&(_, count)| count).sum();
    let older = (arrivals.len() as f64 + 1.0, live - younger);
    let lives = demand.ends.table(now.0, &live_by_age, older);
    live_by_age.extend((older.1 > 0).then_some(older));
    let input = PortDemand {
        capacity,
        arrivals: &arrivals,
        live_by_age: &live_by_age,
        lives: &lives,
        minisockets: &minisockets,
        reuse_after,
        fin_timeout,
        orphan_share,
        without_timestamps_share,
    };
    if !input.could_run_out() {
        forecast.probability = Some(0.0);
        return;
    }
    let found = input.forecast().unwrap_or_default();
    forecast.probability = Some(found.probability);
    (forecast.exhausted_in, forecast.soonest, forecast.latest) = (found.median, found.soonest, found.latest);
    forecast.confidence = found.median.map(|median| confidence(&found, median, arrivals.len()));
}

/// The share of orphans, from what was left after `tcp_fin_timeout`; `None` if nothing tells.
fn orphans_seen(demand: &RecentDemand, now: Ktime, fin_timeout: f64) -> Option<f64> {
    let timeout = std::time::Duration::try_from_secs_f64(fin_timeout).ok()?.as_secs();
    let from = timeout + ORPHANS_GONE;
    // At the end of a TIME_WAIT nothing tells them apart.
    let to = (from + ORPHANS_TOLD).min(TIME_WAIT.as_secs());
    demand.ended_share(now, from, to)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "no more than the count")]
fn share_of(count: u32, share: f64) -> u32 {
    (f64::from(count) * share.clamp(0.0, 1.0)).round() as u32
}

fn confidence(found: &ExhaustionForecast, median: f64, seconds: usize) -> Confidence {
    match (found.soonest, found.latest) {
        _ if seconds < SURE_SECONDS => Confidence::Low,
        (Some(soonest), Some(latest)) if latest - soonest <= SURE_WIDTH * median.max(1.0) => Confidence::High,
        (Some(soonest), Some(latest)) if latest - soonest <= FAIR_WIDTH * median.max(1.0) => Confidence::Medium,
        (Some(_), None) if found.probability >= FAIR_PROBABILITY => Confidence::Medium,
        _ => Confidence::Low,
    }
}

/// What was counted by second can exceed what is there now if the range has changed meanwhile.
fn no_more_than(mut counts: Vec<(f64, u32)>, limit: u32) -> Vec<(f64, u32)> {
    let mut left = limit;
    for (_, count) in &mut counts {
        *count = (*count).min(left);
        left -= *count;
    }
    counts
}

fn cohorts(demand: &RecentDemand, all: u32, not_reusable: &NotReusable, now: Ktime) -> Vec<MinisocketCohort> {
    let mut left = all;
    demand
        .minisockets_by_age(now)
        .into_iter()
        .map(|(age, count)| {
            let (orphans, without_timestamps) = not_reusable.by_age.get(&age).copied().unwrap_or_default();
            let count = count.min(left);
            left -= count;
            let age = f64::from(age) - 0.5 + (now.0 % 1_000_000_000) as f64 / 1e9;
            MinisocketCohort { age: age.max(0.0), count, orphans, without_timestamps }
        })
        .collect()
}

/// Of new minisockets, the shares of orphans and of those without timestamps: as among those of the time from which any are known.
fn shares(minisockets: &[MinisocketCohort]) -> (f64, f64) {
    let share = |of: fn(&MinisocketCohort) -> u32| {
        let with: Vec<usize> =
            minisockets.iter().enumerate().filter(|(_, cohort)| of(cohort) > 0).map(|(at, _)| at).collect();
        let (Some(&first), Some(&last)) = (with.first(), with.last()) else { return 0.0 };
        let (of_them, all) =
            minisockets[first..=last].iter().fold((0, 0), |sum, cohort| (sum.0 + of(cohort), sum.1 + cohort.count));
        f64::from(of_them) / f64::from(all.max(1))
    };
    (share(|cohort| cohort.orphans), share(|cohort| cohort.without_timestamps))
}
