//! When the ports towards a destination run out, as a distribution.
//!
//! Possible futures are counted: each has an arrival rate from [`super::arrivals`], holding times from [`super::holding`], and the ends
//! that are scheduled already. A port is out of reach while a connection holds it, and while a minisocket does that nobody may take over
//! yet. The futures are spread evenly over what is uncertain, by a fixed sequence, so that the same facts give the same forecast.

use super::arrivals::{ArrivalPath, ArrivalTrend};
use super::holding::{Holding, LifeTable};
use super::timing::{TIME_WAIT, WHEEL_DELAY};

/// How far ahead a forecast looks, seconds: beyond three lives of a minisocket the load that it stands on is history.
pub const FORECAST_SECONDS: usize = 180;
/// Futures that are counted: enough for a twentieth, few enough for a tenth of a millisecond.
const PATHS: u32 = 100;
/// The interval leaves out this share on either side.
const TAIL: f64 = 0.05;
/// Share of futures in which connections stay for good, while none has been seen to end.
const STAY_SHARE: f64 = 0.85;
/// The ports are first gone at a peak of the chance, not at its mean, and what is not in the model swings too.
const MORE_CHANCE: f64 = 1.5;

/// Minisockets whose timer started in one second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MinisocketCohort {
    /// Seconds since then, on the mean.
    pub age: f64,
    /// All of them.
    pub count: u32,
    /// Of these, orphans.
    pub orphans: u32,
    /// Of these, others that nobody may take over: the peer sends no timestamps.
    pub without_timestamps: u32,
}

/// What is known about the ports of a destination.
#[derive(Clone, Debug)]
pub struct PortDemand<'a> {
    /// Ports that it can have in use.
    pub capacity: u32,
    /// Connects of the last whole seconds that got a port or still look for one, oldest first.
    pub arrivals: &'a [u32],
    /// The connections that hold ports, by age in seconds.
    pub live_by_age: &'a [(f64, u32)],
    /// For how long they live.
    pub lives: &'a LifeTable,
    /// The minisockets.
    pub minisockets: &'a [MinisocketCohort],
    /// Seconds after which a minisocket may be taken over; `None` = never.
    pub reuse_after: Option<f64>,
    /// `tcp_fin_timeout`, seconds.
    pub fin_timeout: f64,
    /// Of new minisockets, the share of orphans, and of those whose peer sends no timestamps.
    pub orphan_share: f64,
    /// See above.
    pub without_timestamps_share: f64,
}

/// When the ports run out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ExhaustionForecast {
    /// The probability that it happens within [`FORECAST_SECONDS`].
    pub probability: f64,
    /// Seconds; earlier than this with a probability of 5 %. `None`: not within [`FORECAST_SECONDS`].
    pub soonest: Option<f64>,
    /// Seconds, as likely earlier as later. `None` as above.
    pub median: Option<f64>,
    /// Seconds; later than this with a probability of 5 %. `None` as above.
    pub latest: Option<f64>,
}

/// One reading of how long ports are held, and what follows from it without any chance.
struct HoldingScenario {
    /// Ports held after 0, 1, ... seconds by what is there now.
    present: Vec<f64>,
    /// The sums of the shares held 0, 1, ... seconds after the begin, once and twice, and of their squares.
    held: Vec<f64>,
    held_sum: Vec<f64>,
    held_squares: Vec<f64>,
    /// Ports held after 0, 1, ... seconds by what the cycle adds.
    cycle: Vec<f64>,
}

impl PortDemand<'_> {
    /// A bound that costs nothing: can the ports run out at all within the time of a forecast, if twice as much came as in the
    /// busiest second, and nothing were released?
    pub fn could_run_out(&self) -> bool {
        let busiest = self.arrivals.iter().copied().max().unwrap_or(0);
        let minisockets: u32 = self.minisockets.iter().map(|cohort| cohort.count).sum();
        let live: u32 = self.live_by_age.iter().map(|&(_, count)| count).sum();
        let in_use = u64::from(live) + u64::from(minisockets);
        let hold = FORECAST_SECONDS as u64;
        in_use + 2 * u64::from(busiest) * hold >= u64::from(self.capacity)
    }

    /// The distribution of the time to exhaustion. `None` without any arrival in the last two minutes.
    pub fn forecast(&self) -> Option<ExhaustionForecast> {
        let trend = ArrivalTrend::of(self.arrivals)?;
        let spread = self.lives.uncertainty();
        let scenarios: Vec<(f64, HoldingScenario)> = if self.lives.ended() == 0 {
            vec![
                (STAY_SHARE, self.scenario(&trend, Holding::Times(0.0))),
                (1.0 - STAY_SHARE, self.scenario(&trend, Holding::AsLongAgain)),
            ]
        } else {
            [(0.25, -1.15), (0.5, 0.0), (0.25, 1.15)]
                .map(|(share, z)| (share, self.scenario(&trend, Holding::Times(f64::exp(z * spread)))))
                .into()
        };
        let mut times: Vec<f64> = (0..PATHS)
            .map(|number| {
                let [pick, end, scenario, noise, first, second, back] = spread_out(number);
                let (level, slope) = normal_pair(first, second);
                let path = trend.path([pick, end, back], [level, slope]);
                let mut left = scenario;
                let chosen = scenarios.iter().find(|(share, _)| {
                    left -= share;
                    left <= 0.0
                });
                let scenario = &chosen.unwrap_or(&scenarios[0]).1;
                self.time_to_exhaustion(scenario, &path, [MORE_CHANCE * normal(noise), trend.dispersion()])
            })
            .collect();
        times.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let position = share * f64::from(PATHS) - 0.5;
            let index = whole(position.ceil()).min(times.len() - 1);
            Some(times[index]).filter(|time| time.is_finite())
        };
        Some(ExhaustionForecast {
            probability: times.iter().filter(|time| time.is_finite()).count() as f64 / f64::from(PATHS),
            soonest: at(TAIL),
            median: at(0.5),
            latest: at(1.0 - TAIL),
        })
    }

    /// Seconds until the ports run out on this path; infinite if they do not. `chance`: by how many standard deviations more is held than
    /// the rate says, and the variance of the connects of a second per connect.
    fn time_to_exhaustion(
        &self,
        scenario: &HoldingScenario,
        path: &ArrivalPath,
        [deviation, dispersion]: [f64; 2],
    ) -> f64 {
        let capacity = f64::from(self.capacity);
        let turns = path.trend_seconds.min(1e6);
        let ramp = |second: f64| interpolate(&scenario.held_sum, second);
        let mut before = scenario.present[0];
        for second in 1..=FORECAST_SECONDS {
            let after = second as f64;
            let mut come = path.rate * scenario.held[second] + path.slope * (ramp(after) - ramp(after - turns));
            if let Some(back_to) = path.back_to.filter(|_| after > turns) {
                come += (back_to - path.rate_after(turns)) * interpolate(&scenario.held, after - turns);
            }
            let rate = f64::midpoint(path.rate, path.rate_after(after));
            // Each connect is held or not on its own; what comes in crowds is held in crowds.
            let crowds = (dispersion - 1.0) * scenario.held_squares[second];
            let chance = deviation * (rate * (scenario.held[second] + crowds)).max(0.0).sqrt();
            let occupied = scenario.present[second] + (come + scenario.cycle[second]).max(0.0) + chance;
            if occupied >= capacity {
                let share = if occupied > before { (capacity - before) / (occupied - before) } else { 1.0 };
                return after - 1.0 + share.clamp(0.0, 1.0);
            }
            before = occupied;
        }
        f64::INFINITY
    }

    fn scenario(&self, trend: &ArrivalTrend, holding: Holding) -> HoldingScenario {
        let n = FORECAST_SECONDS;
        let oldest = self.live_by_age.iter().map(|&(age, _)| age).fold(0.0, f64::max).ceil();
        let hazard = self.lives.hazard(n + whole(oldest) + 2, holding);
        let after = self.lives_of_minisockets();
        let share = self.lives.minisocket_share;
        let mut live = vec![0.0; n + 1];
        for &(age, count) in self.live_by_age {
            let now = interpolate(&hazard, 2.0 * age);
            for (second, live) in live.iter_mut().enumerate() {
                *live += f64::from(count) * (now - interpolate(&hazard, 2.0 * (age + second as f64))).exp();
            }
        }
        let ended: Vec<f64> = live.iter().map(|left| live[0] - left).collect();
        let leave = minisockets_of(|second| interpolate(&ended, second), 0.0, &after);
        let standing = self.standing_minisockets();
        let present: Vec<f64> = (0..=n).map(|second| live[second] + share * leave[second] + standing[second]).collect();
        // What one connect holds, from the middle of its second on.
        let kernel: Vec<f64> = {
            let ended = |age: f64| 1.0 - (-interpolate(&hazard, 2.0 * age)).exp();
            let leave = minisockets_of(ended, 0.5, &after);
            (0..=n).map(|second| 1.0 - ended(second as f64 + 0.5) + share * leave[second]).collect()
        };
        let mut held = vec![0.0; n + 1];
        let (mut held_sum, mut held_squares, mut cycle) = (held.clone(), held.clone(), held.clone());
        for second in 1..=n {
            let k = kernel[second - 1];
            held[second] = held[second - 1] + k;
            held_squares[second] = held_squares[second - 1] + k * k;
            held_sum[second] = held_sum[second - 1] + f64::midpoint(held[second - 1], held[second]);
        }
        let profile = trend.cycle();
        if !profile.is_empty() {
            for second in 1..=n {
                cycle[second] = (0..second).map(|at| profile[at % profile.len()] * kernel[second - 1 - at]).sum();
            }
        }
        HoldingScenario { present, held, held_sum, held_squares, cycle }
    }

    /// New minisockets by how long they keep their port from others: seconds and share.
    fn lives_of_minisockets(&self) -> Vec<(f64, f64)> {
        let orphans = self.orphan_share.clamp(0.0, 1.0);
        let stuck = self.without_timestamps_share.clamp(0.0, 1.0 - orphans);
        let rest = 1.0 - orphans - stuck;
        let mut lives = Vec::new();
        lives.extend(wheel(self.fin_timeout).map(|(seconds, share)| (seconds, share * orphans)));
        lives.extend(wheel(TIME_WAIT.as_secs_f64()).map(|(seconds, share)| (seconds, share * stuck)));
        match self.reuse_after {
            Some(delay) => lives.push((delay, rest)),
            None => lives.extend(wheel(TIME_WAIT.as_secs_f64()).map(|(seconds, share)| (seconds, share * rest))),
        }
        lives.retain(|&(_, share)| share > 0.0);
        lives
    }

    /// Ports that the minisockets of now keep from others after 0, 1, ... seconds.
    fn standing_minisockets(&self) -> Vec<f64> {
        let mut ends = vec![0.0; FORECAST_SECONDS + 2];
        let mut all = 0.0;
        let mut end = |count: u32, age: f64, lives: &[(f64, f64)]| {
            // What is overdue ends with the next second; what waits for its place in the wheel is later.
            let left: f64 = lives.iter().filter(|(life, _)| *life > age).map(|(_, share)| share).sum();
            for &(life, share) in lives {
                let share = if left > 0.0 { if life > age { share / left } else { 0.0 } } else { share };
                let at = whole((life - age).ceil()).min(FORECAST_SECONDS + 1);
                ends[at] += f64::from(count) * share;
            }
            all += f64::from(count);
        };
        let time_wait = wheel(TIME_WAIT.as_secs_f64());
        let reusable: Vec<(f64, f64)> = self.reuse_after.map_or_else(|| time_wait.to_vec(), |delay| vec![(delay, 1.0)]);
        for cohort in self.minisockets {
            let orphans = cohort.orphans.min(cohort.count);
            let stuck = cohort.without_timestamps.min(cohort.count - orphans);
            end(orphans, cohort.age, &wheel(self.fin_timeout));
            end(stuck, cohort.age, &time_wait);
            end(cohort.count - orphans - stuck, cohort.age, &reusable);
        }
        let mut left = all;
        ends.iter()
            .take(FORECAST_SECONDS + 1)
            .map(|ended| {
                left -= ended;
                left
            })
            .collect()
    }
}

/// A life and what the timer wheel makes of it: nothing to twice the mean delay, evenly.
fn wheel(life: f64) -> [(f64, f64); 4] {
    let delay = WHEEL_DELAY.as_secs_f64() / 4.0;
    [1.0, 3.0, 5.0, 7.0].map(|quarter| (life + quarter * delay, 0.25))
}

/// Minisockets that are there after `first`, `first` + 1, ... seconds, if so many connections have ended by then.
fn minisockets_of(ended: impl Fn(f64) -> f64, first: f64, lives: &[(f64, f64)]) -> Vec<f64> {
    let gone = |second: f64| {
        let over = lives.iter().filter(|(life, _)| *life <= second);
        over.map(|&(life, share)| share * ended(second - life)).sum::<f64>()
    };
    let seconds = (0..=FORECAST_SECONDS).map(|second| second as f64 + first);
    seconds.map(|second| (ended(second) - gone(second)).max(0.0)).collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "seconds of some minutes, and never below 0"
)]
fn whole(seconds: f64) -> usize {
    seconds.max(0.0) as usize
}

/// The value between two seconds; before the first one the first.
fn interpolate(values: &[f64], at: f64) -> f64 {
    let last = values.len() - 1;
    if at <= 0.0 {
        return values[0];
    }
    let low = whole(at).min(last);
    let high = (low + 1).min(last);
    values[low] + (values[high] - values[low]) * (at - low as f64).min(1.0)
}

/// Number `number` of a sequence that fills the unit cube of seven dimensions evenly (Roberts, "The unreasonable effectiveness of
/// quasirandom sequences": powers of the root of x^8 = x + 1).
fn spread_out(number: u32) -> [f64; 7] {
    const ROOT: f64 = 1.096_981_557_798_559_8;
    let mut power = 1.0;
    std::array::from_fn(|_| {
        power /= ROOT;
        (0.5 + f64::from(number) * power).fract()
    })
}

/// Two independent standard normal numbers from two uniform ones (Box and Muller).
fn normal_pair(first: f64, second: f64) -> (f64, f64) {
    let radius = (-2.0 * first.max(1e-9).ln()).sqrt();
    let (sin, cos) = (std::f64::consts::TAU * second).sin_cos();
    (radius * cos, radius * sin)
}

/// A standard normal number from a uniform one, within 0.02 (the logistic distribution of the same spread has heavier tails).
fn normal(uniform: f64) -> f64 {
    let p = uniform.clamp(1e-4, 1.0 - 1e-4);
    4.91 * (p.powf(0.14) - (1.0 - p).powf(0.14))
}

#[cfg(test)]
mod tests;
