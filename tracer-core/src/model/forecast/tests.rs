use super::*;
use crate::model::holding::RecentEnds;

const SECOND: u64 = 1_000_000_000;

/// A steady load: `rate` connects a second for 100 s, closed at once but for a share of three in ten, which stays.
fn kept(rate: u32, capacity: u32) -> ExhaustionForecast {
    let now = 1_000 * SECOND;
    let stay = rate * 3 / 10;
    let mut ends = RecentEnds::default();
    let mut live = Vec::new();
    let mut minisockets = Vec::new();
    for age in (0..100_u32).rev() {
        for _ in 0..rate - stay {
            let at = now - u64::from(age) * SECOND - SECOND / 2;
            ends.ended(at, Some(SECOND / 20));
            ends.left_minisocket(at);
        }
        live.push((f64::from(age) + 0.5, stay));
        if age < 61 {
            let count = rate - stay;
            minisockets.push(MinisocketCohort { age: f64::from(age) + 0.5, count, ..MinisocketCohort::default() });
        }
    }
    let demand = PortDemand {
        capacity,
        arrivals: &[rate; 100],
        live_by_age: &live,
        lives: &ends.table(now, &live, (0.0, 0)),
        minisockets: &minisockets,
        reuse_after: None,
        fin_timeout: 60.0,
        orphan_share: 0.0,
        without_timestamps_share: 0.0,
    };
    demand.forecast().expect("a load")
}

/// 40 a second: 12 stay, so that of 4,000 ports 1,200 + 28 * 61 are in use and the rest lasts (4,000 - 2,908) / 12 = 91 s.
#[test]
fn what_stays_fills_the_ports_at_its_own_rate() {
    let forecast = kept(40, 4_000);
    let median = forecast.median.expect("they run out");
    assert!((median - 91.0).abs() < 4.0, "{forecast:?}");
    let (soonest, latest) = (forecast.soonest.expect("soon"), forecast.latest.expect("late"));
    assert!(soonest < 88.0 && soonest > 70.0 && latest > 94.0 && latest < 120.0, "{forecast:?}");
    assert!(forecast.probability > 0.99);
}

#[test]
fn a_load_that_fits_for_three_minutes_never_runs_out() {
    let forecast = kept(40, 8_000);
    assert_eq!((forecast.soonest, forecast.median, forecast.latest), (None, None, None));
}

#[test]
fn chance_is_spread_evenly() {
    let mean = |at: usize| (0..PATHS).map(|n| spread_out(n)[at]).sum::<f64>() / f64::from(PATHS);
    (0..7).for_each(|at| assert!((mean(at) - 0.5).abs() < 0.05, "{at}: {}", mean(at)));
    for (uniform, expected) in [(0.05, -1.645), (0.5, 0.0), (0.95, 1.645), (0.8, 0.842)] {
        assert!((normal(uniform) - expected).abs() < 0.02, "{uniform}: {}", normal(uniform));
    }
}
