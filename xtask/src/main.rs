//! The development tasks of this repository, as `cargo xtask <task>`: how portchurn is built, tested and checked, for
//! people and for CI alike.
//!
//! Not for: anything that users of portchurn need at run time.
#![expect(clippy::print_stdout, reason = "a command-line tool: its results go to stdout, its progress to stderr")]

mod bench;
mod ci;
mod dependencies;
mod e2e;
mod kernel_results;
mod layers;
mod readme;
mod screenshots;
mod setup;
mod shell;
mod suites;
#[path = "../../tracer-ebpf/toolchain.rs"]
mod toolchain;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::setup::Needs;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "portchurn's development tasks")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing to build and test: a nightly with rust-src, bpf-linker, Debian and Python packages.
    Setup,
    /// Build a release and let it make, watch and explain an incident in network namespaces of its own.
    Demo,
    /// Unit and property tests, then the end-to-end tests.
    Test,
    /// Everything that must hold before a merge, with a summary.
    Ci,
    /// Each fuzz target of the recording reader and the record decoder, for a minute
    Fuzz,
    /// The end-to-end tests: real sockets in network namespaces, as root, here or in virtual machines.
    E2e(e2e::Options),
    /// What portchurn costs, loses and how it scales, measured side by side: a table, bench/RESULTS.md.
    Bench(bench::BenchOptions),
    /// Draw the README's pictures of the full-screen view from what an end-to-end test sees.
    Screenshots,
    /// Check that modules only use the modules that the design lets them use.
    Layers,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    match &cli.task {
        Task::Setup => setup::setup(Needs::Everything),
        Task::Demo => demo(),
        Task::Test => test(),
        Task::Ci => ci::ci(),
        Task::Fuzz => {
            setup::setup(Needs::Everything)?;
            ci::fuzz()
        }
        Task::E2e(options) => {
            setup::setup(Needs::Everything)?;
            e2e::e2e(options)
        }
        Task::Bench(options) => bench::bench(options),
        Task::Screenshots => {
            setup::setup(Needs::Everything)?;
            screenshots::screenshots()
        }
        Task::Layers => layers::check_workspace(),
    }
}

fn demo() -> Result<()> {
    setup::setup(Needs::Demo)?;
    let portchurn = shell::build_release()?;
    if !shell::is_root() {
        shell::say("the demo makes network namespaces and loads BPF programs, so it runs as root (through sudo)");
    }
    shell::run(shell::as_root(portchurn.as_os_str(), &[])?.arg("demo"))
}

fn test() -> Result<()> {
    setup::setup(Needs::Everything)?;
    unit_tests()?;
    e2e::e2e(&e2e::Options::default())
}

/// Unit and property tests.
fn unit_tests() -> Result<()> {
    shell::run(shell::cargo().arg("test"))
}
