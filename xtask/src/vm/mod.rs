//! `cargo xtask e2e vm`: the end-to-end tests on stock Debian kernels in virtual machines.
//!
//! The README promises kernels and hooks; these tests prove the promise. Each machine is a stock kernel with an archive
//! in memory that holds the statically linked programs under test. QEMU boots it in software emulation.

mod initramfs;
mod kernels;
mod qemu;
mod scenarios;
mod table;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use e2e_protocol::{MACHINE_PLAN_PATH, MachineLine, MachinePlan, MachineStep};

use crate::kernel_results::{self, KernelResult, KernelResults};
use crate::shell::{build_static, root, say, static_cargo};
use crate::suites::{Suite, Tally, build_suites, verdict};
use initramfs::Archive;
pub use kernels::mirror;
use kernels::{Kernel, Series};
use table::DoctorReport;

#[derive(Args, Default)]
pub struct MachineOptions {
    /// Stock kernels to boot, as many at a time as there are CPUs.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "6.1")]
    kernel: Vec<Series>,
    /// All stock kernels.
    #[arg(long, conflicts_with = "kernel")]
    all: bool,
    /// Look for newer packages of kernels that are there already.
    #[arg(long)]
    update: bool,
    /// Test this statically linked portchurn in place of one that is built.
    #[arg(long, value_name = "FILE")]
    portchurn: Option<PathBuf>,
}

/// Limit of a whole machine from power-on to power-off, which takes a few minutes on an idle host.
const MACHINE_LIMIT: Duration = Duration::from_secs(1200);
/// Limit of one suite in a machine.
const STEP_LIMIT_SECONDS: u64 = 600;
/// Debian's programs that the scenarios call.
const TOOLS: [&str; 14] = [
    "ip", "ss", "tc", "nsenter", "unshare", "setpriv", "ethtool", "curl", "sh", "env", "mount", "sleep", "head", "true",
];
/// Files that the tests read from the source tree.
const SOURCES: [&str; 3] = ["tests/Cargo.toml", "tracer-core/schema/report.schema.json", "tracer-ebpf/src/probes"];
const DOCTOR: &str = "doctor";
/// Name of this machine's kernel in the results.
const OWN: &str = "own";
const PORTCHURN: &str = "/usr/bin/portchurn";

/// The programs under test, built for a machine.
struct Programs {
    portchurn: PathBuf,
    suites: Vec<Suite>,
    churn: PathBuf,
    init: PathBuf,
}

/// Boots the kernels that `options` name. With `record` or `--all` a run is written to the results: whole without a filter, else what
/// the programs cost the verifier.
pub fn vm(options: &MachineOptions, filter: Option<&str>, strict: bool, record: bool) -> Result<()> {
    let series = if options.all { Series::ALL.to_vec() } else { options.kernel.clone() };
    let record = record || options.all;
    machines(&series, options, filter, strict, record)
}

/// Boots the kernels of a CI run: the default one and one of the others, by the day, so that each of them runs twice a
/// week and a run takes the minutes of two.
pub fn kernels_of_ci() -> Result<()> {
    let others: Vec<Series> = Series::ALL.into_iter().filter(|series| *series != Series::default()).collect();
    let today = usize::try_from(day()?).context("the clock")? % others.len();
    machines(&[Series::default(), others[today]], &MachineOptions::default(), None, true, false)
}

/// Days since 1970, by which the heavy checks of CI take turns.
pub fn day() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH).context("the clock")?.as_secs() / 86_400)
}

/// Boots as many machines at a time as this host has CPUs, because each machine has one CPU.
fn machines(
    series: &[Series],
    options: &MachineOptions,
    filter: Option<&str>,
    strict: bool,
    record: bool,
) -> Result<()> {
    let programs = build(options.portchurn.as_deref())?;
    // One after the other, because they share apt's lists.
    let kernels: Vec<_> = series.iter().map(|&one| (one, kernels::kernel(one, options.update))).collect();
    let waiting = Mutex::new(kernels.into_iter());
    let results = Mutex::new(kernel_results::read()?);
    let failed = Mutex::new(Vec::new());
    let work = || {
        while let Some((one, kernel)) = { locked(&waiting).next() } {
            let begun = Instant::now();
            let outcome = kernel
                .and_then(|kernel| machine(&kernel, &programs, filter, record && filter.is_none()))
                .and_then(|seen| judge(&seen, one, &mut locked(&results), filter, strict, record));
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

/// Locks also what a panicked thread has locked: shared values are replaced as a whole, so none is half changed.
fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Fails unless a machine's results are as expected. With `record` they become the recorded results.
fn judge(
    seen: &MachineResult,
    one: Series,
    results: &mut KernelResults,
    filter: Option<&str>,
    strict: bool,
    record: bool,
) -> Result<()> {
    let regressions = seen.check(one, results, filter, strict)?;
    if !record {
        ensure!(regressions.is_empty(), "{}", regressions.join("; "));
        return Ok(());
    }
    // The new numbers replace the old ones; the review of that change shows both.
    for line in &regressions {
        say(&format!("vm {}: {line}", one.name()));
    }
    match filter {
        None => kernel_results::enter(results, one.name(), seen.result()?),
        Some(_) => kernel_results::enter_costs(results, one.name(), &seen.tally.costs),
    }
    kernel_results::write(results)
}

fn build(given: Option<&Path>) -> Result<Programs> {
    let portchurn = given.map_or_else(build_static, |given| Ok(given.to_path_buf()))?;
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

fn machine(kernel: &Kernel, programs: &Programs, filter: Option<&str>, record: bool) -> Result<MachineResult> {
    let series = kernel.series;
    let directory = kernels::directory(series);
    let initramfs = directory.join("initramfs");
    archive(kernel, programs, filter, record, &initramfs)?;
    let power_on = Instant::now();
    let mut seen =
        MachineResult { kernel: format!("{} ({})", kernel.version, series.release()), ..MachineResult::default() };
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
    // Under the path of the source tree, which is compiled into the tests.
    for source in SOURCES {
        let path = root().join(source);
        archive.tree(&path)?;
    }
    archive.text("/etc/passwd", "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")?;
    archive.text("/etc/group", "root:x:0:\nnogroup:x:65534:\n")?;
    let plan = serde_json::to_string(&MachinePlan { modules, steps }).context("writing the plan")?;
    archive.text(MACHINE_PLAN_PATH, &plan)?;
    archive.finish()
}

fn step(name: &str, program: &str, arguments: &[&str]) -> MachineStep {
    let variables = [("PATH", "/usr/bin:/usr/sbin:/bin:/sbin"), ("HOME", "/root"), ("PORTCHURN_BIN", PORTCHURN)];
    MachineStep {
        name: name.into(),
        program: program.into(),
        arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
        directory: "/root".into(),
        environment: variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        limit_seconds: STEP_LIMIT_SECONDS,
    }
}

/// What a machine printed, read line by line.
#[derive(Default)]
struct MachineResult {
    kernel: String,
    step: String,
    tally: Tally,
    broken: Vec<String>,
    /// What `portchurn doctor --json` printed.
    doctor: String,
}

impl MachineResult {
    fn read(&mut self, name: &str, line: MachineLine<'_>, power_on: Instant) {
        match line {
            MachineLine::Up(uptime) => say(&format!(
                "vm {name}: first process at work {:.1} s after power-on ({uptime} s by its own clock)",
                power_on.elapsed().as_secs_f64()
            )),
            MachineLine::Begin(step) => step.clone_into(&mut self.step),
            MachineLine::End { step, seconds, outcome } => {
                say(&format!("vm {name}: {step}: {outcome} in {seconds} s"));
                // Doctor's exit code says whether something is lost, which vm/table.rs judges.
                if outcome != "ok" && step != DOCTOR {
                    self.broken.push(step.to_owned());
                }
            }
            MachineLine::Done(_) => {
                say(&format!("vm {name}: done {:.1} s after power-on", power_on.elapsed().as_secs_f64()));
            }
            MachineLine::Error(error) => self.broken.push(error.to_owned()),
            MachineLine::Output(line) if self.step == DOCTOR => {
                self.doctor.push_str(line);
                self.doctor.push('\n');
            }
            MachineLine::Output(line) => {
                println!("{name} | {line}");
                self.tally.read(line, &self.step);
            }
        }
    }

    fn doctor_report(&self) -> Result<DoctorReport> {
        serde_json::from_str(&self.doctor).with_context(|| format!("doctor printed: {}", self.doctor))
    }

    /// Fails unless hooks, degradations and scenarios are as they must be. Returns the programs that got more
    /// expensive.
    fn check(
        &self,
        series: Series,
        results: &KernelResults,
        filter: Option<&str>,
        strict: bool,
    ) -> Result<Vec<String>> {
        let differences = table::differences(series, &self.doctor_report()?);
        ensure!(differences.is_empty(), "not as xtask/src/vm/table.rs has it: {}", differences.join("; "));
        verdict(&self.tally, &self.broken, filter, strict)?;
        Ok(kernel_results::regressions(results, series.name(), &self.tally.costs))
    }

    fn result(&self) -> Result<KernelResult> {
        Ok(kernel_result(self.kernel.clone(), self.doctor_report()?, &self.tally))
    }
}

fn kernel_result(kernel: String, doctor: DoctorReport, tally: &Tally) -> KernelResult {
    KernelResult {
        kernel,
        tier: doctor.tier.unwrap_or_default(),
        hooks: doctor.hooks.into_iter().collect(),
        lost: doctor.degraded.into_iter().map(|degradation| degradation.lost).collect(),
        programs: tally.costs.clone(),
        passed: tally.passed,
    }
}

/// Writes what the programs cost on the kernel of this machine, which has been recorded whole before.
pub fn record_own_costs(tally: &Tally) -> Result<()> {
    let mut results = kernel_results::read()?;
    kernel_results::enter_costs(&mut results, OWN, &tally.costs);
    kernel_results::write(&results)
}

/// Writes the kernel of this machine into the results; `doctor` is the output of `portchurn doctor --json`.
pub fn record_own(doctor: &str, tally: &Tally) -> Result<()> {
    let report: DoctorReport = serde_json::from_str(doctor).with_context(|| format!("doctor printed: {doctor}"))?;
    // Without the local version, which means nothing on other machines.
    let version = report.kernel.split('-').next().unwrap_or_default();
    let refuses = if report.tier.as_deref() == Some("exact") { "" } else { ", which refuses fentry and fexit" };
    let kernel = format!("{version} (the development machine{refuses})");
    let mut results = kernel_results::read()?;
    kernel_results::enter(&mut results, OWN, kernel_result(kernel, report, tally));
    kernel_results::write(&results)
}
