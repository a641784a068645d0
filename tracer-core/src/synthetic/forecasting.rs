//! The forecast on trial: loads that run out of ports and loads that do not, and what was forecast second by second.

use super::SECOND;
use super::loads::{BEGIN, Life, PortLoad, PortTraffic};
use crate::event::Ktime;
use crate::model::forecast::FORECAST_SECONDS;
use crate::tracker::snapshot::Confidence;
use crate::tracker::{Config, Tracker};

/// A forecast with fewer seconds behind it is none.
const FIRST_SECONDS: f64 = 5.0;
/// Seconds before the exhaustion at which the error is taken.
pub const AHEAD: [u32; 4] = [120, 60, 30, 10];
const TAU: f64 = std::f64::consts::TAU;

/// What was forecast at one second.
#[derive(Clone, Copy, Debug)]
pub struct Forecasted {
    /// Seconds since the begin.
    pub at: f64,
    /// As in [`crate::tracker::snapshot::Destination`].
    pub seconds: Option<f64>,
    /// Likewise.
    pub soonest: Option<f64>,
    /// Likewise.
    pub latest: Option<f64>,
    /// Likewise.
    pub confidence: Option<Confidence>,
}

/// What came of one run.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The load.
    pub load: PortLoad,
    /// Second of the first connect without a port.
    pub exhausted: Option<f64>,
    /// One a second.
    pub forecasts: Vec<Forecasted>,
}

impl Trial {
    /// Runs a load and asks for a forecast every second.
    pub fn run(load: &PortLoad, seed: u64) -> Self {
        let mut traffic = PortTraffic::new(load, seed);
        let mut tracker = Tracker::new(Config { time_wait_observed: true, calls_observed: true, ..Config::default() });
        tracker.begin(Ktime(BEGIN));
        traffic.facts().iter().for_each(|event| tracker.ingest(event));
        let mut forecasts = Vec::new();
        for second in 1..=u64::from(load.seconds) {
            let now = BEGIN + second * SECOND;
            traffic.run(now, |event| tracker.ingest(event));
            if traffic.exhausted().is_some() {
                break;
            }
            tracker.advance(Ktime(now));
            let snapshot = tracker.snapshot();
            if let Some(destination) = snapshot.destinations.first() {
                forecasts.push(Forecasted {
                    at: second as f64,
                    seconds: destination.seconds_to_exhaustion,
                    soonest: destination.exhaustion_soonest_seconds,
                    latest: destination.exhaustion_latest_seconds,
                    confidence: destination.forecast_confidence,
                });
            }
        }
        let exhausted = traffic.exhausted().map(|at| (at - BEGIN) as f64 / 1e9);
        Self { load: *load, exhausted, forecasts }
    }

    /// Forecasts that could know.
    fn told(&self) -> impl Iterator<Item = &Forecasted> {
        let first = FIRST_SECONDS.max(self.load.told_from + FIRST_SECONDS);
        self.forecasts.iter().filter(move |forecast| forecast.at >= first)
    }

    /// The relative error of the forecast so many seconds before the exhaustion; 1 if there was none. `None` if nothing was told then.
    pub fn error(&self, ahead: u32) -> Option<f64> {
        let due = self.exhausted? - f64::from(ahead);
        let forecast = self.told().find(|forecast| forecast.at >= due).filter(|forecast| forecast.at < due + 1.0)?;
        let truth = self.exhausted? - forecast.at;
        Some(forecast.seconds.map_or(1.0, |seconds| ((seconds - truth) / truth).abs()))
    }

    /// Of the forecasts of the last two minutes before the exhaustion, how many have it in their interval, and how many there are.
    pub fn inside(&self) -> (u32, u32) {
        let Some(exhausted) = self.exhausted else { return (0, 0) };
        let horizon = FORECAST_SECONDS as f64;
        let (mut inside, mut all) = (0, 0);
        for forecast in self.told().filter(|forecast| exhausted - forecast.at <= f64::from(AHEAD[0])) {
            let truth = exhausted - forecast.at;
            all += 1;
            // Half a second: connects come one after the other, and are counted by the second.
            let soonest = forecast.soonest.unwrap_or(horizon) - 0.5;
            let latest = forecast.latest.unwrap_or(f64::INFINITY) + 0.5;
            inside += u32::from((soonest..=latest).contains(&truth));
        }
        (inside, all)
    }

    /// Seconds before the exhaustion from which on it was forecast without interruption.
    pub fn announced(&self) -> Option<f64> {
        let exhausted = self.exhausted?;
        let silent = self.forecasts.iter().rev().find(|forecast| forecast.seconds.is_none());
        Some(silent.map_or(exhausted, |forecast| exhausted - forecast.at - 1.0).max(0.0))
    }

    /// Seconds in which an exhaustion was forecast that did not come, with some confidence.
    pub fn false_alarms(&self) -> u32 {
        if self.exhausted.is_some() {
            return 0;
        }
        let alarm = |forecast: &&Forecasted| {
            forecast.seconds.is_some() && !matches!(forecast.confidence, None | Some(Confidence::Low))
        };
        u32::try_from(self.told().filter(alarm).count()).unwrap_or(u32::MAX)
    }
}

/// A uniform number for a whole number: bursts at random times that are the same in every run.
fn dice(n: f64) -> f64 {
    ((n * 12.9898).sin() * 43_758.545_3).rem_euclid(1.0)
}

fn irregular_bursts(t: f64, base: f64, burst: f64) -> f64 {
    if dice((t / 4.0).floor()) < 0.25 { burst } else { base }
}

fn held_leak(load: PortLoad, kept: f64) -> PortLoad {
    PortLoad { kept, ..load }
}

/// Loads that run out of ports, and loads that come to rest below their capacity.
pub fn loads() -> Vec<PortLoad> {
    let exponential = |seconds, load: PortLoad| PortLoad { life: Life::Exponential(seconds), ..load };
    let on = |ports, load: PortLoad| PortLoad { ports, ..load };
    let told = |second, load: PortLoad| PortLoad { told_from: second, ..load };
    let even = |load: PortLoad| PortLoad { random: false, ..load };
    vec![
        even(PortLoad::new("constant, even", |_| 60.0)),
        PortLoad::new("constant", |_| 60.0),
        exponential(40.0, PortLoad::new("constant, lives of 40 s", |_| 38.0)),
        held_leak(PortLoad::new("constant, 15 % never closed", |_| 40.0), 0.15),
        held_leak(PortLoad::new("constant, 30 % never closed", |_| 40.0), 0.3),
        even(PortLoad::new("ramp, even", |t| 20.0 + 0.5 * t)),
        PortLoad::new("ramp, slow", |t| 20.0 + 0.25 * t),
        PortLoad::new("ramp", |t| 20.0 + 0.5 * t),
        PortLoad::new("ramp, steep", |t| 20.0 + t),
        PortLoad { seconds: 600, ..PortLoad::new("ramp, from little", |t| 5.0 + 0.1 * t) },
        told(60.0, PortLoad::new("step", |t| if t < 60.0 { 20.0 } else { 60.0 })),
        told(
            90.0,
            on(4_000, exponential(60.0, PortLoad::new("step, lives of 60 s", |t| if t < 90.0 { 20.0 } else { 44.0 }))),
        ),
        told(
            120.0,
            held_leak(
                on(4_000, PortLoad::new("step, 30 % never closed", |t| if t < 120.0 { 20.0 } else { 48.0 })),
                0.3,
            ),
        ),
        held_leak(PortLoad::new("bursts of 5 s every 20 s", |t| if t % 20.0 < 5.0 { 110.0 } else { 5.0 }), 0.3),
        held_leak(PortLoad::new("bursts of 2 s every 10 s", |t| if t % 10.0 < 2.0 { 120.0 } else { 2.0 }), 0.4),
        held_leak(PortLoad::new("bursts at random", |t| irregular_bursts(t, 5.0, 100.0)), 0.3),
        PortLoad::new("sine of 300 s", |t| 45.0 - 25.0 * (TAU * t / 300.0).cos()),
        told(120.0, held_leak(PortLoad::new("sine of 60 s", |t| 27.0 - 12.0 * (TAU * t / 60.0).cos()), 0.25)),
        exponential(60.0, PortLoad::new("decay, lives of 60 s", |t| 20.0 + 40.0 * (-t / 90.0).exp())),
        held_leak(PortLoad::new("decay, 30 % never closed", |t| 25.0 + 40.0 * (-t / 60.0).exp()), 0.3),
        PortLoad { held: 1_500, ..PortLoad::new("1,500 held and churn", |_| 30.0) },
        PortLoad { held: 1_500, ..PortLoad::new("1,500 held and a ramp", |t| 10.0 + 0.25 * t) },
        PortLoad { orphans: true, fin_timeout: 20, ..PortLoad::new("orphans, ramp", |t| 40.0 + 1.2 * t) },
        PortLoad { orphans: true, ..held_leak(PortLoad::new("orphans, 20 % never closed", |_| 35.0), 0.2) },
        PortLoad { reuse: true, ..held_leak(on(1_000, PortLoad::new("re-use, 10 % never closed", |_| 80.0)), 0.1) },
        PortLoad {
            reuse: true,
            life: Life::Fixed(5.0),
            ..on(1_000, PortLoad::new("re-use, ramp", |t| 40.0 + 1.5 * t))
        },
        PortLoad { reuse: true, timestamps: false, ..PortLoad::new("re-use without timestamps", |t| 20.0 + 0.5 * t) },
    ]
}

/// Loads that come to rest below their capacity.
pub fn settling_loads() -> Vec<PortLoad> {
    let exponential = |seconds, load: PortLoad| PortLoad { life: Life::Exponential(seconds), ..load };
    let told = |second, load: PortLoad| PortLoad { told_from: second, ..load };
    vec![
        PortLoad { random: false, ..PortLoad::new("constant, even, 89 %", |_| 44.0) },
        PortLoad::new("constant, 89 %", |_| 44.0),
        exponential(5.0, PortLoad::new("constant, lives of 5 s, 88 %", |_| 40.0)),
        exponential(20.0, PortLoad::new("constant, lives of 20 s, 81 %", |_| 30.0)),
        held_leak(PortLoad { seconds: 200, ..PortLoad::new("constant, 2 % never closed", |_| 38.0) }, 0.02),
        PortLoad::new("step, 85 %", |t| if t < 90.0 { 20.0 } else { 42.0 }),
        told(40.0, PortLoad::new("bursts of 5 s every 20 s, 85 %", |t| if t % 20.0 < 5.0 { 120.0 } else { 10.0 })),
        PortLoad::new("bursts at random", |t| irregular_bursts(t, 5.0, 60.0)),
        told(120.0, PortLoad::new("sine of 60 s, 81 %", |t| 40.0 - 15.0 * (TAU * t / 60.0).cos())),
        PortLoad::new("sine of 300 s, 85 %", |t| 29.0 - 14.0 * (TAU * t / 300.0).cos()),
        PortLoad::new("decay, 82 %", |t| 20.0 + 32.0 * (-t / 60.0).exp()),
        PortLoad { held: 1_000, ..PortLoad::new("1,000 held and churn, 89 %", |_| 27.0) },
        PortLoad { orphans: true, fin_timeout: 20, ..PortLoad::new("orphans, 84 %", |_| 120.0) },
        PortLoad { reuse: true, life: Life::Fixed(2.0), ports: 1_000, ..PortLoad::new("re-use, 60 %", |_| 200.0) },
        told(60.0, PortLoad::new("a ramp that stops, 81 %", |t| 20.0 + 0.5 * t.min(40.0))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trials(all: &[PortLoad], names: &[&str]) -> Vec<Trial> {
        let named = |name: &&str| all.iter().find(|load| load.name == *name).copied().expect("a load of that name");
        names.iter().map(named).map(|load| Trial::run(&PortLoad { times: 4, ..load }, 1)).collect()
    }

    /// The goals of `cargo xtask bench forecast`, on some of its loads: a worse forecast fails here.
    #[test]
    fn exhaustions_are_forecast_within_a_tenth_a_minute_ahead() {
        let names = [
            "constant, lives of 40 s",
            "constant, 15 % never closed",
            "ramp",
            "step, lives of 60 s",
            "bursts of 2 s every 10 s",
            "orphans, ramp",
            "re-use, 10 % never closed",
        ];
        let trials = trials(&loads(), &names);
        let mut errors: Vec<f64> = trials.iter().filter_map(|trial| trial.error(60)).collect();
        assert_eq!(errors.len(), names.len(), "all of them run out of ports");
        errors.sort_by(f64::total_cmp);
        assert!(errors[errors.len() / 2] <= 0.1, "{errors:?}");
        let (inside, all) = trials.iter().map(Trial::inside).fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
        assert!(f64::from(inside) >= 0.85 * f64::from(all), "{inside} of {all}");
        let announced: Vec<f64> = trials.iter().filter_map(Trial::announced).collect();
        assert!(announced.iter().all(|&seconds| seconds >= 25.0), "{announced:?}");
    }

    #[test]
    fn loads_that_settle_raise_no_alarm() {
        let names = ["constant, 89 %", "step, 85 %", "1,000 held and churn, 89 %", "re-use, 60 %"];
        for trial in trials(&settling_loads(), &names) {
            assert_eq!((trial.exhausted, trial.false_alarms()), (None, 0), "{}", trial.load.name);
        }
    }
}
