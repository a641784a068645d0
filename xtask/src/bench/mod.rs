//! `cargo xtask bench`: measures in one run what portchurn costs, what it loses and how it scales.
//!
//! The measuring programs run one after the other (`meter` of tests/ as root, the benches of tracer-core/ and tracer/)
//! and print figures. `rows` computes the rows of the table from them and knows their goals. `all` writes
//! bench/RESULTS.md and the picture; a single bench prints its rows. `--check` runs everything once and briefly, in CI:
//! it judges no time, but every row must have a figure.

mod collect;
mod figures;
mod machine;
mod picture;
mod rows;
mod table;

use std::fs;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};

use crate::setup::{self, Needs};
use crate::shell::{root, say};
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

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Bench {
    Kernel,
    /// What programs without connections pay: timers and system calls.
    Host,
    Ingest,
    /// Recording, and reading it again.
    Record,
    /// The same as `record`.
    Replay,
    Memory,
    Startup,
    Reconcile,
    /// Drawing and answering keys.
    View,
    Scale,
    All,
}

impl Bench {
    /// In the order of the table.
    const EACH: [Self; 9] = [
        Self::Ingest,
        Self::Memory,
        Self::Kernel,
        Self::Host,
        Self::Record,
        Self::Startup,
        Self::Reconcile,
        Self::View,
        Self::Scale,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Host => "host",
            Self::Ingest => "ingest",
            Self::Record | Self::Replay => "record",
            Self::Memory => "memory",
            Self::Startup => "startup",
            Self::Reconcile => "reconcile",
            Self::View => "view",
            Self::Scale => "scale",
            Self::All => "all",
        }
    }
}

pub fn bench(options: &BenchOptions) -> Result<()> {
    setup::setup(Needs::Everything)?;
    run(options)
}

/// Runs everything once and briefly.
pub fn check() -> Result<()> {
    run(&BenchOptions { what: Bench::All, check: true, runs: 1 })
}

fn run(options: &BenchOptions) -> Result<()> {
    let wanted: Vec<Bench> = if options.what == Bench::All { Bench::EACH.to_vec() } else { vec![options.what] };
    let rows: Vec<_> = ROWS.iter().filter(|row| wanted.iter().any(|what| row.key().starts_with(what.name()))).collect();
    let collector = Collector::build(options.check)?;
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
