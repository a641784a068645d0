//! `cargo xtask e2e`: the end-to-end tests, against this machine's kernel or against kernels in virtual machines.

use std::env;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use crate::shell::{as_root, build_release, cargo};
use crate::suites::{Tally, build_suites, run_suite, verdict};
use crate::vm;

#[derive(Args, Default)]
pub struct E2eOptions {
    /// Where the kernel under test is.
    #[arg(value_enum, default_value_t)]
    place: KernelUnderTest,
    /// Only tests whose name contains this.
    filter: Option<String>,
    /// A skipped test fails the run (always so when CI=true).
    #[arg(long)]
    no_skip: bool,
    /// Write the kernel into the table of supported kernels.
    #[arg(long)]
    record: bool,
    #[command(flatten)]
    machines: vm::MachineOptions,
}

impl E2eOptions {
    /// All tests, none of them skipped.
    pub fn strict() -> Self {
        Self { no_skip: true, ..Self::default() }
    }

    /// The tests whose name contains this, none of them skipped.
    pub fn only(filter: &str) -> Self {
        Self { filter: Some(filter.into()), ..Self::strict() }
    }
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum KernelUnderTest {
    /// This machine.
    #[default]
    Local,
    /// Stock Debian kernels in virtual machines.
    Vm,
}

pub fn e2e(options: &E2eOptions) -> Result<()> {
    let strict = options.no_skip || env::var("CI").is_ok_and(|ci| ci == "true");
    let filter = options.filter.as_deref();
    match options.place {
        KernelUnderTest::Local => local(filter, strict, options.record),
        KernelUnderTest::Vm => vm::vm(&options.machines, filter, strict, options.record),
    }
}

fn local(filter: Option<&str>, strict: bool, record: bool) -> Result<()> {
    let portchurn = build_release()?;
    let suites = build_suites(cargo())?;
    let mut tally = Tally::default();
    let mut broken = Vec::new();
    for suite in &suites {
        if !run_suite(suite, filter, &portchurn, &mut tally)? {
            broken.push(suite.name.clone());
        }
    }
    tally.say();
    verdict(&tally, &broken, filter, strict)?;
    if record && filter.is_some() {
        vm::record_own_costs(&tally)?;
    } else if record {
        let output = as_root(portchurn.as_os_str(), &[])?.args(["doctor", "--json"]).output().context("doctor")?;
        vm::record_own(&String::from_utf8_lossy(&output.stdout), &tally)?;
    }
    Ok(())
}
