//! The command line of `cargo xtask`.

use clap::{Parser, Subcommand};

use crate::bench::BenchOptions;
use crate::dist::DistOptions;
use crate::e2e::E2eOptions;
use crate::soak::SoakOptions;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "portchurn's development tasks")]
pub struct CommandLine {
    #[command(subcommand)]
    pub task: Task,
}

#[derive(Subcommand)]
pub enum Task {
    /// Install what is missing to build and test: a nightly with rust-src, bpf-linker, Debian and Python packages.
    Setup,
    /// Build a release and let it make, watch and explain an incident in network namespaces of its own.
    Demo,
    /// Unit and property tests, then the end-to-end tests.
    Test,
    /// Everything that must hold before a merge, with a summary.
    Ci {
        /// Also what else takes turns by the day: packages of the musl binary in every chroot, built twice.
        #[arg(long)]
        all: bool,
        /// Only the steps whose name contains one of these, and the steps that they need.
        steps: Vec<String>,
    },
    /// Each fuzz target of the recording reader and the record decoder, for a minute
    Fuzz,
    /// The end-to-end tests: real sockets in network namespaces, as root, here or in virtual machines.
    E2e(E2eOptions),
    /// What people install, into target/dist: tarball, .deb, .rpm, OCI image, SBOM.
    Dist(DistOptions),
    /// What portchurn costs, loses and how it scales, measured side by side: a table, bench/RESULTS.md.
    Bench(BenchOptions),
    /// Floods of every kind in turn, for an hour: what the tracer uses and loses meanwhile, a curve.
    Soak(SoakOptions),
    /// Draw the README's pictures of the full-screen view from what an end-to-end test sees.
    Screenshots,
    /// Check that no files need each other in a circle and that names are plain and unique.
    Structure,
}
