use super::*;

/// Mean and 5 % and 95 % quantiles of the rate after so many seconds.
fn after(trend: &ArrivalTrend, seconds: f64) -> [f64; 3] {
    let mut rates: Vec<f64> = (0..200_u32)
        .map(|n| {
            let at = |step: f64| (0.5 + f64::from(n) * step).fract();
            let normal = |u: f64| (u - 0.5) * 4.0;
            let random = [at(0.618_034), at(0.819_173), at(0.450_102)];
            trend.path(random, [normal(at(0.754_878)), normal(at(0.569_840))]).rate_after(seconds)
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    [rates[100], rates[10], rates[190]]
}

fn near(found: f64, expected: f64, share: f64) {
    assert!((found - expected).abs() <= share * expected, "{found} instead of {expected}");
}

#[test]
fn a_constant_rate_stays() {
    let trend = ArrivalTrend::of(&[50; 30]).expect("a trend");
    let [middle, low, high] = after(&trend, 60.0);
    near(middle, 50.0, 0.02);
    assert!(low > 45.0 && high < 55.0, "{low} to {high}");
    assert!(trend.cycle().is_empty());
}

#[test]
fn a_ramp_goes_on_until_it_may_end() {
    let ramp: Vec<u32> = (0..30).map(|t| 20 + t / 2).collect();
    let trend = ArrivalTrend::of(&ramp).expect("a trend");
    near(after(&trend, 0.0)[0], 35.0, 0.05);
    near(after(&trend, 30.0)[0], 50.0, 0.1);
    let [_, low, high] = after(&trend, 120.0);
    assert!(low < 50.0 && high > 70.0, "it may end soon or last: {low} to {high}");
}

#[test]
fn after_a_step_only_the_new_rate_counts() {
    let step: Vec<u32> = (0..60).map(|t| if t < 52 { 20 } else { 90 }).collect();
    near(after(&ArrivalTrend::of(&step).expect("a trend"), 10.0)[0], 90.0, 0.05);
}

#[test]
fn a_cycle_is_taken_out_and_comes_again() {
    let bursts: Vec<u32> = (0..90).map(|t| if t % 15 < 3 { 200 } else { 5 }).collect();
    let trend = ArrivalTrend::of(&bursts).expect("a trend");
    let cycle = trend.cycle();
    assert_eq!(cycle.len(), 15);
    near(after(&trend, 20.0)[0] + cycle[0], 200.0, 0.1);
    assert!((after(&trend, 20.0)[0] + cycle[5] - 5.0).abs() < 8.0);
}

#[test]
fn without_a_connect_there_is_no_trend() {
    assert!(ArrivalTrend::of(&[]).is_none() && ArrivalTrend::of(&[0; 60]).is_none());
    let one = ArrivalTrend::of(&[0, 0, 3]).expect("a trend");
    assert!(after(&one, 10.0)[0].is_finite());
}

/// Whatever the history, every future is a rate that is none below nothing.
#[test]
fn futures_are_finite() {
    let mut noise = crate::model::noise::Noise::new(3);
    for length in 1..200 {
        let history: Vec<u32> =
            (0..length).map(|_| u32::try_from(noise.below(1 << (length % 20))).expect("small")).collect();
        let Some(trend) = ArrivalTrend::of(&history) else { continue };
        for n in 0..20_u32 {
            let u = f64::from(n) / 20.0;
            let path = trend.path([u, u, u], [u - 0.5, 0.5 - u]);
            assert!(path.rate_after(180.0).is_finite() && path.rate_after(180.0) >= 0.0, "{history:?}: {path:?}");
        }
    }
}
