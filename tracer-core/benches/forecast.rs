//! How good forecasts of exhaustion are: loads that run out of ports and loads that do not, in event time. It prints one
//! JSON line per figure, like the other measuring programs. Run by `cargo xtask bench forecast`.

use std::time::Instant;

use tracer_core::synthetic::forecasting::{AHEAD, Trial, loads, settling_loads};
use tracer_core::synthetic::loads::PortLoad;

/// Runs of each load.
const SEEDS: u64 = 3;
/// About the default range: 24,000 ports.
const TIMES: u16 = 8;

#[expect(clippy::print_stdout, reason = "the program's answer")]
fn main() {
    let check = std::env::args().any(|argument| argument == "--test" || argument == "--check");
    let (seeds, times) = if check { (1, 1) } else { (SEEDS, TIMES) };
    let print = |key: &str, samples: &[f64]| {
        let samples: Vec<String> = samples.iter().map(ToString::to_string).collect();
        println!("{{\"key\":\"forecast.{key}\",\"samples\":[{}]}}", samples.join(","));
    };
    let runs = |load: &PortLoad| -> Vec<Trial> {
        (1..=seeds).map(|seed| Trial::run(&PortLoad { times, ..*load }, seed)).collect()
    };
    let (began, mut asked) = (Instant::now(), 0);
    let (mut inside, mut all, mut announced) = (0, 0, Vec::new());
    let mut errors: [Vec<f64>; AHEAD.len()] = Default::default();
    for load in loads() {
        let trials = runs(&load);
        let mean = |values: Vec<f64>| {
            // -1: nothing to say.
            if values.is_empty() { -1.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
        };
        let mut row = vec![mean(trials.iter().filter_map(|trial| trial.exhausted).collect())];
        for (ahead, errors) in AHEAD.into_iter().zip(&mut errors) {
            let of: Vec<f64> = trials.iter().filter_map(|trial| Some(trial.error(ahead)? * 100.0)).collect();
            errors.extend(&of);
            row.push(mean(of));
        }
        let (hits, told) = trials.iter().map(Trial::inside).fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
        inside += hits;
        all += told;
        asked += trials.iter().map(|trial| trial.forecasts.len()).sum::<usize>();
        row.push(f64::from(hits) / f64::from(told.max(1)) * 100.0);
        let before: Vec<f64> = trials.iter().filter_map(Trial::announced).collect();
        if load.name.contains("ramp") {
            announced.extend(&before);
        }
        row.push(mean(before));
        print(&format!("load.{}", load.name), &row);
    }
    for (ahead, errors) in AHEAD.into_iter().zip(&errors) {
        print(&format!("error_{ahead}"), errors);
    }
    print("inside", &[f64::from(inside) / f64::from(all.max(1)) * 100.0]);
    print("announced", &[announced.into_iter().fold(f64::INFINITY, f64::min)]);
    let mut alarms = 0;
    for load in settling_loads() {
        let trials = runs(&load);
        asked += trials.iter().map(|trial| trial.forecasts.len()).sum::<usize>();
        let of: u32 = trials.iter().map(Trial::false_alarms).sum();
        let seconds = trials.iter().map(|trial| trial.forecasts.len()).sum::<usize>();
        alarms += of;
        print(&format!("settles.{}", load.name), &[f64::from(of), seconds as f64]);
    }
    print("false_alarms", &[f64::from(alarms)]);
    print("load_ms", &[began.elapsed().as_secs_f64() * 1e3 / asked.max(1) as f64]);
}
