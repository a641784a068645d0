//! The development tasks of this repository, as `cargo xtask <task>`: how portchurn is built, tested and checked, for
//! people and for CI alike.
//!
//! Not for: anything that users of portchurn need at run time.
#![expect(clippy::print_stdout, reason = "a command-line tool: its results go to stdout, its progress to stderr")]

mod bench;
mod ci;
mod cli;
mod commits;
mod dependencies;
mod dist;
mod documents;
mod e2e;
mod kernel_results;
mod readme;
mod screenshots;
mod setup;
mod shell;
mod soak;
mod sources;
mod structure;
mod suites;
#[path = "../../tracer-ebpf/toolchain.rs"]
mod toolchain;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;

use crate::cli::{CommandLine, Task};
use crate::setup::Needs;

fn main() -> ExitCode {
    match run(&CommandLine::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &CommandLine) -> Result<()> {
    match &cli.task {
        Task::Setup => setup::setup(Needs::Everything),
        Task::Demo => demo(),
        Task::Test => test(),
        Task::Ci { all, steps } => ci::ci(*all, steps),
        Task::Fuzz => {
            setup::setup(Needs::Everything)?;
            ci::fuzz()
        }
        Task::E2e(options) => {
            setup::setup(Needs::Everything)?;
            e2e::e2e(options)
        }
        Task::Dist(options) => dist::dist(options),
        Task::Bench(options) => bench::bench(options),
        Task::Soak(options) => soak::soak(options),
        Task::Screenshots => {
            setup::setup(Needs::Everything)?;
            screenshots::screenshots()
        }
        Task::Structure => structure::check_workspace(),
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
    e2e::e2e(&e2e::E2eOptions::default())
}

/// Unit and property tests.
fn unit_tests() -> Result<()> {
    shell::run(shell::cargo().arg("test"))
}
