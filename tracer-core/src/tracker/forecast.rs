//! What becomes of a destination at its present rate.

use super::snapshot::Confidence;
use super::tables::destinations::{DestinationEntry, SCHEDULE_SECONDS};
use super::tables::local_ports::LocalPorts;
use crate::event::{Ktime, TcpState};
use crate::model::timing::{TIME_WAIT, WHEEL_DELAY};

/// How long `TIME_WAIT` holds a port, on average.
const TIME_WAIT_SECONDS: f64 = TIME_WAIT.as_secs_f64() + WHEEL_DELAY.as_secs_f64();
/// How far ahead a forecast looks: beyond two `TIME_WAIT` lives the rate that it stands on is history.
const FORECAST_SECONDS: u32 = 180;
/// A failure for lack of a port no longer ago than this means that the destination is exhausted now, seconds.
const FAILING_SECONDS: f64 = 2.0;

/// What becomes of a destination at its present rate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Forecast {
    /// Attempts per second.
    pub per_second: f64,
    /// The rate that the destination bears for good; `None` = unknown.
    pub sustainable: Option<f64>,
    /// Seconds until no port is left, 0 = exhausted now; `None` = not at this rate, or unknown.
    pub exhausted_in: Option<f64>,
    /// How far `exhausted_in` can be relied on.
    pub confidence: Option<Confidence>,
}

/// Simulates the coming minutes second by second: what is in `TIME_WAIT` now ends on schedule, what comes at the present rate is held
/// for as long as ports were held so far. (Little's law, but with the transient that decides whether the wave passes.) `start` is
/// when observation began. `reusable`: most minisockets are such that connect() may take them over where the namespace allows it.
pub fn forecast(
    destination: &DestinationEntry,
    ports: &LocalPorts,
    reusable: bool,
    now: Ktime,
    start: Ktime,
) -> Forecast {
    let counters = &destination.counters;
    let since = start.max(destination.first_seen());
    let seconds = destination.rate.seconds(now, since);
    let per_second = destination.rate.per_second(now, since);
    let mut forecast = Forecast { per_second, ..Forecast::default() };
    let Some(capacity) = ports.capacity(destination) else { return forecast };
    let namespace = ports.namespaces().get(destination.key.netns);
    let reuse = namespace.and_then(|namespace| namespace.reuse_after(&destination.key)).filter(|_| reusable);
    let time_wait = reuse.unwrap_or(TIME_WAIT_SECONDS);
    let lifetime = counters.lifetime.mean_seconds();
    let entered_share =
        if counters.closed > 0 { (counters.tw_entered as f64 / counters.closed as f64).min(1.0) } else { 1.0 };
    // How long one connection keeps its port, once it ends.
    let hold = lifetime.map(|lifetime| lifetime + entered_share * time_wait);
    let churning = per_second * lifetime.unwrap_or(0.0);
    let established = f64::from(destination.in_state(TcpState::Established));
    let standing = (established - churning).max(0.0);
    forecast.sustainable = hold.filter(|&hold| hold > 0.0).map(|hold| (f64::from(capacity) - standing).max(0.0) / hold);
    let failing = destination.last_failure.is_some_and(|at| now.seconds_since(at) <= FAILING_SECONDS);
    if failing || (destination.in_use() >= capacity && reuse.is_none()) {
        forecast.exhausted_in = Some(0.0);
        forecast.confidence = Some(Confidence::High);
        return forecast;
    }
    if per_second <= 0.0 {
        return forecast;
    }
    // Nothing has been closed yet: as far as can be seen ports are kept for good.
    let endless = counters.closed == 0;
    let hold = if endless { f64::INFINITY } else { hold.unwrap_or(time_wait) };
    let mut occupied = f64::from(destination.in_use());
    let now_second = now.0 / 1_000_000_000;
    for ahead in 1..=FORECAST_SECONDS {
        occupied += per_second;
        if f64::from(ahead) > hold {
            occupied -= per_second;
        }
        occupied -= releases(destination, now_second, ahead, time_wait);
        if occupied >= f64::from(capacity) {
            forecast.exhausted_in = Some(f64::from(ahead));
            let sure = confidence(&seconds);
            forecast.confidence = Some(if endless && sure == Confidence::High { Confidence::Medium } else { sure });
            break;
        }
    }
    forecast
}

/// Minisockets of now that end `ahead` seconds from now.
fn releases(destination: &DestinationEntry, now_second: u64, ahead: u32, time_wait: f64) -> f64 {
    let life = std::time::Duration::from_secs_f64(time_wait).as_secs().max(1);
    let ends = now_second + u64::from(ahead);
    let at = |began: u64| f64::from(destination.timers_started(began));
    let due = ends.checked_sub(life).filter(|&began| began <= now_second).map_or(0.0, at);
    if ahead > 1 {
        return due;
    }
    // In the first second everything that is overdue: what could be re-used, or waits for its wheel slot.
    (0..ends.saturating_sub(life))
        .rev()
        .take(SCHEDULE_SECONDS - 1 - usize::try_from(life).unwrap_or(0).min(SCHEDULE_SECONDS - 1))
        .map(at)
        .sum::<f64>()
        + due
}

/// From how much the rate swung.
fn confidence(seconds: &[u32]) -> Confidence {
    if seconds.len() < 5 {
        return Confidence::Low;
    }
    let mean = f64::from(seconds.iter().sum::<u32>()) / seconds.len() as f64;
    let variance = seconds.iter().map(|&n| (f64::from(n) - mean).powi(2)).sum::<f64>() / seconds.len() as f64;
    match variance.sqrt() / mean {
        swing if swing > 0.5 => Confidence::Low,
        swing if swing > 0.25 => Confidence::Medium,
        _ => Confidence::High,
    }
}
