//! `cargo xtask e2e vm`: the end-to-end tests on stock Debian kernels in virtual machines.
//!
//! Which kernels portchurn works on, and with which hooks, is a promise; this is what keeps it. Each machine is a stock kernel with
//! an archive in memory that holds the statically linked programs under test, booted by QEMU in software emulation.

mod initramfs;
mod kernels;
mod qemu;
mod scenarios;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde::Serialize;

use crate::e2e::{Suite, Tally, build_suites, verdict};
use crate::shell::{build_static, root, say};
use initramfs::Archive;
use kernels::{Kernel, Series};
use qemu::Line;

#[derive(Args, Default)]
pub struct Machines {
    /// Stock kernel to boot.
    #[arg(long, value_enum, default_value_t = Series::V6_1)]
    kernel: Series,
    /// All stock kernels, one after the other.
    #[arg(long, conflicts_with = "kernel")]
    all: bool,
    /// Look for newer packages of kernels that are there already.
    #[arg(long)]
    update: bool,
}

/// A whole machine, from power-on to power-off.
const MACHINE_LIMIT: Duration = Duration::from_secs(600);
/// One suite in it.
const STEP_LIMIT_SECONDS: u64 = 300;
/// Programs of Debian that the scenarios call.
const TOOLS: [&str; 14] = [
    "ip", "ss", "tc", "nsenter", "unshare", "setpriv", "ethtool", "curl", "sh", "env", "mount", "sleep", "head", "true",
];
const PORTCHURN: &str = "/usr/bin/portchurn";

/// What the machine is to do, for `tests/src/bin/vm-init.rs`.
#[derive(Serialize)]
struct Plan {
    modules: Vec<PathBuf>,
    steps: Vec<Step>,
}

#[derive(Serialize)]
struct Step {
    name: String,
    program: PathBuf,
    arguments: Vec<String>,
    directory: PathBuf,
    environment: BTreeMap<String, String>,
    limit_seconds: u64,
}

/// Everything that goes into a machine.
struct Programs {
    portchurn: PathBuf,
    suites: Vec<Suite>,
    churn: PathBuf,
    init: PathBuf,
}

pub fn vm(options: &Machines, filter: Option<&str>, strict: bool) -> Result<()> {
    let programs = build()?;
    let series = if options.all { Series::ALL.to_vec() } else { vec![options.kernel] };
    let mut failed = Vec::new();
    for &one in &series {
        let begun = Instant::now();
        let outcome = machine(one, options, &programs, filter, strict);
        let seconds = begun.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => say(&format!("vm {}: passed in {seconds:.0} s", one.name())),
            Err(error) => {
                say(&format!("vm {}: FAILED in {seconds:.0} s: {error:#}", one.name()));
                failed.push(one.name());
            }
        }
    }
    ensure!(failed.is_empty(), "failed on: {}", failed.join(", "));
    Ok(())
}

fn build() -> Result<Programs> {
    let portchurn = build_static()?;
    let suites = build_suites(Some(crate::shell::STATIC_TARGET))?;
    let beside = |name: &str| {
        let directory = suites.first().and_then(|suite| suite.executable.parent()?.parent());
        let path = directory.map(|directory| directory.join(name)).filter(|path| path.is_file());
        path.with_context(|| format!("cargo built the tests but not {name}"))
    };
    Ok(Programs { portchurn, churn: beside("churn")?, init: beside("vm-init")?, suites })
}

fn machine(series: Series, options: &Machines, programs: &Programs, filter: Option<&str>, strict: bool) -> Result<()> {
    let kernel = kernels::kernel(series, options.update)?;
    let directory = kernels::directory(series);
    let initramfs = directory.join("initramfs");
    archive(&kernel, programs, filter, &initramfs)?;
    let power_on = Instant::now();
    let mut seen = Seen::default();
    let ended = qemu::boot(&kernel, &initramfs, &directory.join("console.log"), MACHINE_LIMIT, |line| {
        seen.read(series.name(), line, power_on);
    });
    seen.tally.say();
    ended?;
    verdict(&seen.tally, &seen.broken, filter, strict)
}

fn archive(kernel: &Kernel, programs: &Programs, filter: Option<&str>, path: &Path) -> Result<()> {
    let scratch = path.with_extension("stripped");
    let mut archive = Archive::create(path)?;
    archive.program(&programs.init, Path::new("/init"), &scratch)?;
    archive.program(&programs.portchurn, Path::new(PORTCHURN), &scratch)?;
    archive.program(&programs.churn, Path::new("/e2e/churn"), &scratch)?;
    let mut modules = Vec::new();
    for module in &kernel.modules {
        let to = Path::new("/modules").join(module.file_name().unwrap_or_default());
        archive.copy(module, &to)?;
        modules.push(to);
    }
    let mut steps = vec![step("doctor", PORTCHURN, &["doctor", "--json"])];
    for suite in &programs.suites {
        let Some(skipped) = scenarios::skipped(&suite.name) else { continue };
        let to = Path::new("/e2e/deps").join(&suite.name);
        archive.program(&suite.executable, &to, &scratch)?;
        let mut arguments = vec!["--test-threads=1", "--show-output"];
        for test in skipped {
            arguments.extend(["--skip", test]);
        }
        arguments.extend(filter);
        steps.push(step(&suite.name, &to.to_string_lossy(), &arguments));
    }
    for tool in TOOLS {
        archive.tool(tool)?;
    }
    // Where the tests look for it: in the source tree, whose place they were compiled with.
    let schema = root().join("tracer/schema/report.schema.json");
    archive.copy(&schema, &schema)?;
    archive.text("/etc/passwd", "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")?;
    archive.text("/etc/group", "root:x:0:\nnogroup:x:65534:\n")?;
    let plan = serde_json::to_string(&Plan { modules, steps }).context("writing the plan")?;
    archive.text("/plan.json", &plan)?;
    archive.finish()
}

fn step(name: &str, program: &str, arguments: &[&str]) -> Step {
    let variables = [("PATH", "/usr/bin:/usr/sbin:/bin:/sbin"), ("HOME", "/root"), ("PORTCHURN_BIN", PORTCHURN)];
    Step {
        name: name.into(),
        program: program.into(),
        arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
        directory: "/root".into(),
        environment: variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        limit_seconds: STEP_LIMIT_SECONDS,
    }
}

/// What came out of the machine.
#[derive(Default)]
struct Seen {
    step: String,
    tally: Tally,
    broken: Vec<String>,
    /// What `portchurn doctor --json` printed.
    doctor: String,
}

impl Seen {
    fn read(&mut self, name: &str, line: Line<'_>, power_on: Instant) {
        match line {
            Line::Up(uptime) => say(&format!(
                "vm {name}: first process at work {:.1} s after power-on ({uptime} s by its own clock)",
                power_on.elapsed().as_secs_f64()
            )),
            Line::Begin(step) => step.clone_into(&mut self.step),
            Line::End { step, seconds, outcome } => {
                say(&format!("vm {name}: {step}: {outcome} in {seconds} s"));
                if outcome != "ok" {
                    self.broken.push(step.to_owned());
                }
            }
            Line::Done => say(&format!("vm {name}: done {:.1} s after power-on", power_on.elapsed().as_secs_f64())),
            Line::Error(error) => self.broken.push(error.to_owned()),
            Line::Own(line) if self.step == "doctor" => {
                self.doctor.push_str(line);
                self.doctor.push('\n');
                println!("{line}");
            }
            Line::Own(line) => {
                println!("{line}");
                self.tally.read(line, &self.step);
            }
        }
    }
}
