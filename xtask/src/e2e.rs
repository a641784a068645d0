//! `cargo xtask e2e`: the end-to-end tests, against this machine's kernel or against kernels in virtual machines.

use std::env;
use std::ffi::OsStr;
use std::process::{Child, Stdio};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use crate::shell::{as_root, build_release, built, cargo, say};
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
    /// Run the tests so many times; the first failure ends it. Here only.
    #[arg(long, default_value_t = 1)]
    repeat: u32,
    /// Beside so many connections a second of somebody else, in a namespace of their own. Here only.
    #[arg(long)]
    beside: Option<u32>,
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
        KernelUnderTest::Local => local(options, filter, strict),
        KernelUnderTest::Vm => vm::vm(&options.machines, filter, strict, options.record),
    }
}

/// Somebody else on this host, who makes connections and has nothing to do with any test.
struct Neighbour(Child);

impl Neighbour {
    fn start(rate: u32) -> Result<Self> {
        // The namespace ends with the process.
        let script =
            format!("ip link set lo up && exec \"$0\" --connections 4000000000 --rate {rate} --destinations 64");
        let flood = built("debug").join("flood");
        let mut command = as_root(OsStr::new("unshare"), &[])?;
        command.args(["--net", "--", "sh", "-c", &script]).arg(&flood).stdout(Stdio::null());
        Ok(Self(command.spawn().context("the neighbour: flood in a namespace")?))
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        // It fails if the process has ended, which is the wanted state.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn local(options: &E2eOptions, filter: Option<&str>, strict: bool) -> Result<()> {
    let portchurn = build_release()?;
    let suites = build_suites(cargo())?;
    let neighbour = options.beside.map(Neighbour::start).transpose()?;
    let mut tally = Tally::default();
    for number in 1..=options.repeat.max(1) {
        if options.repeat > 1 {
            say(&format!("e2e: run {number} of {}", options.repeat));
        }
        tally = Tally::default();
        let mut broken = Vec::new();
        for suite in &suites {
            if !run_suite(suite, filter, &portchurn, &mut tally)? {
                broken.push(suite.name.clone());
            }
        }
        tally.say();
        verdict(&tally, &broken, filter, strict)?;
    }
    drop(neighbour);
    let record = options.record;
    if record && filter.is_some() {
        vm::record_own_costs(&tally)?;
    } else if record {
        let output = as_root(portchurn.as_os_str(), &[])?.args(["doctor", "--json"]).output().context("doctor")?;
        vm::record_own(&String::from_utf8_lossy(&output.stdout), &tally)?;
    }
    Ok(())
}
