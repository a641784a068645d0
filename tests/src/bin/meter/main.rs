//! Measures, as root, what portchurn costs a running kernel: one subcommand per bench, one JSON line per figure on
//! stdout.
//!
//! A figure is a key and its samples, one per round. `cargo xtask bench` runs this program and decides about ratios,
//! goals and rows of the table. Rounds of the contenders are interleaved, so that a slow minute of the machine affects
//! all of them.
//!
//! Not for functions that can be measured without a kernel: their benches are in tracer-core/benches and
//! tracer/benches.
#![deny(unsafe_code)]

mod contender;
mod figures;
mod host;
mod kernel;
mod null_tracer;
mod recording;
mod scale;
mod soak;
mod start;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
    /// Run once and briefly, to see that it runs; the figures mean nothing.
    #[arg(long, global = true)]
    check: bool,
}

#[derive(Subcommand)]
enum Bench {
    /// Nothing, the null tracer, portchurn and bpftrace under full load; and ten million transitions.
    Kernel {
        /// The object with the programs of the null tracer.
        #[arg(long)]
        null_tracer: PathBuf,
    },
    /// Costs of the hooks for processes without TCP connections: timers and system calls.
    Host,
    /// Recording, and reading it again.
    Record {
        /// The program that writes a recording of any size (tracer/examples/recording_costs.rs).
        #[arg(long)]
        generator: PathBuf,
        /// Also a recording of a gigabyte.
        #[arg(long)]
        large: bool,
    },
    /// Exec to ready line; an idle host.
    Startup,
    /// Load from slow to full, on one CPU and on all.
    Scale,
    /// Floods in turn.
    Soak {
        #[arg(long)]
        minutes: u64,
        /// Length of a turn.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Attaches a program of the null tracer and reads its ring (started by the kernel bench).
    #[command(hide = true)]
    NullTracer { object: PathBuf, program: String },
    /// Runs a command and prints what it used (started by the record bench).
    #[command(hide = true)]
    Peak {
        stdout: PathBuf,
        #[arg(last = true)]
        command: Vec<std::ffi::OsString>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("meter: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    match &cli.bench {
        Bench::Kernel { null_tracer } => kernel::run(null_tracer, cli.check),
        Bench::Host => host::run(cli.check),
        Bench::Record { generator, large } => recording::run(generator, *large, cli.check),
        Bench::Startup => start::run(cli.check),
        Bench::Scale => scale::run(cli.check),
        Bench::Soak { minutes, seconds } => soak::run(*minutes, *seconds),
        Bench::NullTracer { object, program } => null_tracer::run(object, program),
        Bench::Peak { stdout, command } => recording::tell_peak(stdout, command),
    }
}
