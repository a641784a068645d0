//! `cargo xtask bench`: measures in one run what portchurn costs, what it loses and how it scales.
//!
//! The measuring programs run one after the other (`meter` of tests/ as root, the benches of tracer-core/ and tracer/)
//! and print figures. `rows` computes the rows of the table from them and knows their goals. `all` writes
//! bench/RESULTS.md and the picture; a single bench prints its rows. `--check` runs everything once and briefly, in CI:
//! it judges no time, but every row must have a figure.

mod benches;
mod collect;
mod figures;
mod machine;
mod picture;
mod rows;
mod table;

use std::fs;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::setup::{self, Needs};
use crate::shell::{root, say};
use benches::Bench;
use collect::Collector;
use figures::Figures;
use rows::{BenchRow, ROWS};

#[derive(Args)]
pub struct BenchOptions {
    #[arg(value_enum, default_value_t = Bench::All)]
    what: Bench,
    /// Run everything once and briefly, to see that it runs; the figures mean nothing.
    #[arg(long)]
    check: bool,
    /// Number of whole runs; the table shows each.
    #[arg(long, default_value_t = 1)]
    runs: usize,
}

pub fn bench(options: &BenchOptions) -> Result<()> {
    if options.what != Bench::Forecast {
        setup::setup(Needs::Everything)?;
    }
    run(options)
}

/// Runs everything once and briefly.
pub fn check() -> Result<()> {
    run(&BenchOptions { what: Bench::All, check: true, runs: 1 })
}

fn run(options: &BenchOptions) -> Result<()> {
    let wanted: Vec<Bench> = if options.what == Bench::All { Bench::EACH.to_vec() } else { vec![options.what] };
    let rows: Vec<_> = ROWS.iter().filter(|row| wanted.iter().any(|what| row.key().starts_with(what.name()))).collect();
    let models = wanted == [Bench::Forecast];
    let collector = if models { Collector::of_models(options.check)? } else { Collector::build(options.check)? };
    let machine = machine::MachineInfo::read();
    let mut runs = Vec::new();
    let mut text = String::new();
    for number in 1..=options.runs.max(1) {
        let mut figures = Figures::default();
        for &what in &wanted {
            say(&format!("bench: {}, run {number} of {}", what.name(), options.runs));
            collector.collect(what, number == 1, &mut figures)?;
        }
        runs.push(figures);
        let samples = |row: &BenchRow| runs.iter().any(|run| row.samples(run).is_some());
        let missing: Vec<&str> = rows.iter().filter(|row| !samples(row)).map(|row| row.key()).collect();
        ensure!(missing.is_empty(), "no figure for: {}", missing.join(", "));
        text = table::render(&machine, &rows, &runs);
        if options.what == Bench::All && !options.check {
            // After each run, because the next one takes a quarter of an hour.
            write(&text, &runs)?;
        }
    }
    if !options.check {
        println!("{text}");
    }
    Ok(())
}

fn write(text: &str, runs: &[Figures]) -> Result<()> {
    let dir = root().join("bench");
    fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    picture::draw(runs, &dir.join(picture::FILE))?;
    let file = dir.join("RESULTS.md");
    fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    say(&format!("bench: {} and {}", file.display(), picture::FILE));
    Ok(())
}
