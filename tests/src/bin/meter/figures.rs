//! The output of `meter`: one JSON line per figure, with its samples.

use anyhow::Result;
use serde::Serialize;

/// One line of the output.
#[derive(Serialize)]
struct Figure<'a> {
    key: &'a str,
    samples: &'a [f64],
}

/// Prints a figure.
#[expect(clippy::print_stdout, reason = "the program's answer")]
pub fn print_figure(key: &str, samples: &[f64]) -> Result<()> {
    println!("{}", serde_json::to_string(&Figure { key, samples })?);
    Ok(())
}

/// Samples of several figures, one per round.
#[derive(Default)]
pub struct Samples(std::collections::BTreeMap<String, Vec<f64>>);

impl Samples {
    pub fn add(&mut self, key: impl Into<String>, value: f64) {
        let key = key.into();
        eprintln!("meter: {key} = {value:.3}");
        self.0.entry(key).or_default().push(value);
    }

    /// Prints all figures.
    pub fn print(&self) -> Result<()> {
        self.0.iter().try_for_each(|(key, samples)| print_figure(key, samples))
    }
}
