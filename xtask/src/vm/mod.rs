//! `cargo xtask e2e vm`: the end-to-end tests on stock Debian kernels in virtual machines.
//!
//! Which kernels portchurn works on, and with which hooks, is a promise; this is what keeps it. Each machine is a stock kernel with
//! an archive in memory that holds the statically linked programs under test, booted by QEMU in software emulation.

mod initramfs;
mod kernels;
pub mod ledger;
mod qemu;
mod scenarios;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde::Serialize;

use crate::e2e::{Suite, Tally, build_suites, verdict};
use crate::shell::{build_static, root, say, static_cargo};
use initramfs::Archive;
use kernels::{Kernel, Series};
use ledger::{Entry, Ledger};
use qemu::Line;
use table::Diagnosis;

#[derive(Args, Default)]
pub struct Machines {
    /// Stock kernels to boot, as many at a time as there are CPUs.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "6.1")]
    kernel: Vec<Series>,
    /// All stock kernels.
    #[arg(long, conflicts_with = "kernel")]
    all: bool,
    /// Look for newer packages of kernels that are there already.
    #[arg(long)]
    update: bool,
}

/// A whole machine, from power-on to power-off: a few minutes where it has two CPUs to itself.
const MACHINE_LIMIT: Duration = Duration::from_secs(1200);
/// One suite in it.
const STEP_LIMIT_SECONDS: u64 = 600;
/// Programs of Debian that the scenarios call.
const TOOLS: [&str; 14] = [
    "ip", "ss", "tc", "nsenter", "unshare", "setpriv", "ethtool", "curl", "sh", "env", "mount", "sleep", "head", "true",
];
/// What the tests read from the source tree.
const SOURCES: [&str; 3] = ["tests/Cargo.toml", "tracer-core/schema/report.schema.json", "tracer-ebpf/src/probes"];
const DOCTOR: &str = "doctor";
/// In the ledger: the machine that writes it.
const OWN: &str = "own";
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

/// Boots what is asked for; with `record` or `--all` what ran without a filter is written down.
pub fn vm(options: &Machines, filter: Option<&str>, strict: bool, record: bool) -> Result<()> {
    let series = if options.all { Series::ALL.to_vec() } else { options.kernel.clone() };
    let record = (record || options.all) && filter.is_none();
    machines(&series, options.update, filter, strict, record)
}

/// What every CI run boots: the default kernel, and another one every day, so that each comes up twice a week without costing every
/// run its minutes.
pub fn kernels_of_ci() -> Result<()> {
    let others: Vec<Series> = Series::ALL.into_iter().filter(|series| *series != Series::default()).collect();
    let days = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock")?.as_secs() / 86_400;
    let today = usize::try_from(days).context("the clock")? % others.len();
    machines(&[Series::default(), others[today]], false, None, true, false)
}

/// As many machines at a time as there are CPUs: each has one.
fn machines(series: &[Series], update: bool, filter: Option<&str>, strict: bool, record: bool) -> Result<()> {
    let programs = build()?;
    // One after the other: they share apt's lists.
    let kernels: Vec<_> = series.iter().map(|&one| (one, kernels::kernel(one, update))).collect();
    let waiting = Mutex::new(kernels.into_iter());
    let ledger = Mutex::new(ledger::read()?);
    let failed = Mutex::new(Vec::new());
    let work = || {
        while let Some((one, kernel)) = { locked(&waiting).next() } {
            let begun = Instant::now();
            let outcome = kernel
                .and_then(|kernel| machine(&kernel, &programs, filter, record))
                .and_then(|seen| judge(&seen, one, &mut locked(&ledger), filter, strict, record));
            let seconds = begun.elapsed().as_secs_f64();
            match outcome {
                Ok(()) => say(&format!("vm {}: passed in {seconds:.0} s", one.name())),
                Err(error) => {
                    say(&format!("vm {}: FAILED in {seconds:.0} s: {error:#}", one.name()));
                    locked(&failed).push(one.name());
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from).min(series.len()) {
            scope.spawn(work);
        }
    });
    let failed = locked(&failed);
    ensure!(failed.is_empty(), "failed on: {}", failed.join(", "));
    Ok(())
}

/// A thread that panicked has left nothing half done: what is shared here is replaced as a whole.
fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether what a machine showed is what it should, and on record the new truth.
fn judge(
    seen: &Seen,
    one: Series,
    ledger: &mut Ledger,
    filter: Option<&str>,
    strict: bool,
    record: bool,
) -> Result<()> {
    let regressions = seen.check(one, ledger, filter, strict)?;
    if !record {
        ensure!(regressions.is_empty(), "{}", regressions.join("; "));
        return Ok(());
    }
    // The new numbers replace the old ones, and whoever reviews the change sees both.
    for line in &regressions {
        say(&format!("vm {}: {line}", one.name()));
    }
    ledger::enter(ledger, one.name(), seen.entry()?);
    ledger::write(ledger)
}

fn build() -> Result<Programs> {
    let portchurn = build_static()?;
    let mut suites = build_suites(static_cargo())?;
    let directory = suites.first().and_then(|suite| Some(suite.executable.parent()?.parent()?.to_path_buf()));
    let beside = |name: &str| {
        let path = directory.as_ref().map(|directory| directory.join(name)).filter(|path| path.is_file());
        path.with_context(|| format!("cargo built the tests but not {name}"))
    };
    let (churn, init) = (beside("churn")?, beside("vm-init")?);
    suites.retain(|suite| suite.scenarios);
    Ok(Programs { portchurn, suites, churn, init })
}

fn machine(kernel: &Kernel, programs: &Programs, filter: Option<&str>, record: bool) -> Result<Seen> {
    let series = kernel.series;
    let directory = kernels::directory(series);
    let initramfs = directory.join("initramfs");
    archive(kernel, programs, filter, record, &initramfs)?;
    let power_on = Instant::now();
    let mut seen = Seen { kernel: format!("{} ({})", kernel.version, series.release()), ..Seen::default() };
    let ended = qemu::boot(kernel, &initramfs, &directory.join("console.log"), MACHINE_LIMIT, |line| {
        seen.read(series.name(), line, power_on);
    });
    seen.tally.say();
    ended.map(|()| seen)
}

fn archive(kernel: &Kernel, programs: &Programs, filter: Option<&str>, thorough: bool, path: &Path) -> Result<()> {
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
    let mut steps = vec![step(DOCTOR, PORTCHURN, &["doctor", "--json"])];
    for suite in &programs.suites {
        let Some(skipped) = scenarios::skipped(&suite.name, kernel.series, thorough) else { continue };
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
    for source in SOURCES {
        let path = root().join(source);
        archive.tree(&path)?;
    }
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
    kernel: String,
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
                // Doctor's exit code tells of losses, which the table judges.
                if outcome != "ok" && step != DOCTOR {
                    self.broken.push(step.to_owned());
                }
            }
            Line::Done => say(&format!("vm {name}: done {:.1} s after power-on", power_on.elapsed().as_secs_f64())),
            Line::Error(error) => self.broken.push(error.to_owned()),
            Line::Own(line) if self.step == DOCTOR => {
                self.doctor.push_str(line);
                self.doctor.push('\n');
            }
            Line::Own(line) => {
                println!("{name} | {line}");
                self.tally.read(line, &self.step);
            }
        }
    }

    fn diagnosis(&self) -> Result<Diagnosis> {
        serde_json::from_str(&self.doctor).with_context(|| format!("doctor printed: {}", self.doctor))
    }

    /// Fails unless hooks, losses and scenarios are as they must be. What got more expensive is the caller's to judge.
    fn check(&self, series: Series, ledger: &Ledger, filter: Option<&str>, strict: bool) -> Result<Vec<String>> {
        let differences = table::differences(series, &self.diagnosis()?);
        ensure!(differences.is_empty(), "not as xtask/src/vm/table.rs has it: {}", differences.join("; "));
        verdict(&self.tally, &self.broken, filter, strict)?;
        Ok(ledger::regressions(ledger, series.name(), &self.tally.costs))
    }

    fn entry(&self) -> Result<Entry> {
        Ok(entry(self.kernel.clone(), self.diagnosis()?, &self.tally))
    }
}

fn entry(kernel: String, diagnosis: Diagnosis, tally: &Tally) -> Entry {
    Entry {
        kernel,
        tier: diagnosis.tier.unwrap_or_default(),
        hooks: diagnosis.hooks.into_iter().collect(),
        lost: diagnosis.degraded.into_iter().map(|loss| loss.lost).collect(),
        programs: tally.costs.clone(),
        passed: tally.passed,
    }
}

/// Writes the kernel of this machine into the ledger; `doctor` is what `portchurn doctor --json` printed.
pub fn record_own(doctor: &str, tally: &Tally) -> Result<()> {
    let diagnosis: Diagnosis = serde_json::from_str(doctor).with_context(|| format!("doctor printed: {doctor}"))?;
    // Its build says nothing to anybody else.
    let version = diagnosis.kernel.split('-').next().unwrap_or_default();
    let refuses = if diagnosis.tier.as_deref() == Some("exact") { "" } else { ", which refuses fentry and fexit" };
    let kernel = format!("{version} (the development machine{refuses})");
    let mut ledger = ledger::read()?;
    ledger::enter(&mut ledger, OWN, entry(kernel, diagnosis, tally));
    ledger::write(&ledger)
}
