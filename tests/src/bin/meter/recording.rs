//! Costs of recording on top of tracing, size of a recording, and time and memory to read it.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::panic::resume_unwind;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use portchurn_tests::load::{Load, namespace, user_nanos};
use portchurn_tests::reported::ParsedReport;
use portchurn_tests::tracer::binary;
use serde::{Deserialize, Serialize};

use crate::contender::Contender;
use crate::figures::Samples;

const ROUNDS: usize = 3;
const CONNECTIONS: u64 = 150_000;
/// Connections of the large file; twelve events each make more than a gigabyte.
const SYNTHETIC: u64 = 14_500_000;
/// Pause after which the recorder has written its last batch and the tracker has finished its passes.
const SETTLE: Duration = Duration::from_secs(3);

pub fn run(generator: &Path, large: bool, check: bool) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (rounds, connections, synthetic, settle) =
        if check { (1, 500, 2_000, Duration::ZERO) } else { (ROUNDS, CONNECTIONS, SYNTHETIC, SETTLE) };
    let file = dir.path().join("churn.arrow");
    let mut samples = Samples::default();
    for _ in 0..rounds {
        for contender in [Contender::Portchurn, Contender::Recorder(file.clone())] {
            let attached = contender.attach(dir.path())?;
            let pid = attached.pid().context("no process")?;
            let before = user_nanos(pid)?;
            let flood = Load::fast(connections).run(&namespace()?, dir.path())?;
            thread::sleep(settle);
            let spent = user_nanos(pid)? - before;
            let (lost, report) = attached.finish(flood.transitions())?;
            let read = report.context("no report")?.events.read as f64;
            samples.add(format!("record.{}.user_us_per_event", contender.name()), spent as f64 / read / 1e3);
            samples.add(format!("record.{}.lost", contender.name()), lost);
        }
        let bytes = file.metadata().context("the recording")?.len();
        let (events, peak) = report(&file)?;
        samples.add("record.bytes_per_event", bytes as f64 / events);
        samples.add("record.read.million_events_per_second", events / peak.cpu_seconds / 1e6);
    }
    if large {
        read_large(generator, synthetic, dir.path(), &mut samples)?;
    }
    samples.print()
}

/// Runs every command on a file that is larger than the memory that any of them may use.
fn read_large(generator: &Path, connections: u64, dir: &Path, samples: &mut Samples) -> Result<()> {
    let file = dir.join("large.arrow");
    let mut make = Command::new(generator);
    make.arg(connections.to_string()).arg(&file).stdout(Stdio::null());
    ensure!(make.status().context("the generator")?.success(), "the generator failed");
    samples.add("record.large.mib", file.metadata()?.len() as f64 / f64::from(1 << 20));
    let (events, peak) = report(&file)?;
    samples.add("record.large.report.peak_mib", peak.mebibytes);
    samples.add("record.large.million_events_per_second", events / peak.cpu_seconds / 1e6);
    let (events, flows) = (dir.join("events.parquet"), dir.join("flows.parquet"));
    let (events, flows) = (events.to_str().context("a path")?, flows.to_str().context("a path")?);
    let commands: [(&str, &[&str], &[&str]); 7] = [
        ("replay", &["replay"], &["--speed", "max", "--json"]),
        ("check", &["check"], &["--fail-if", "close-wait-leak"]),
        ("jsonl", &["export"], &["--format", "jsonl"]),
        ("csv", &["export"], &["--format", "csv"]),
        ("parquet", &["export"], &["--format", "parquet", "-o", events]),
        ("flows", &["export"], &["--format", "parquet", "--what", "flows", "-o", flows]),
        ("diff", &["diff"], &[]),
    ];
    // Two at a time, because only their memory is measured.
    for pair in commands.chunks(2) {
        let peaks: Vec<Result<Peak>> = thread::scope(|scope| {
            let start = |(name, command, options): &(&str, &[&str], &[&str])| {
                let mut arguments: Vec<OsString> = command.iter().map(OsString::from).collect();
                let files = if *name == "diff" { 2 } else { 1 };
                arguments.extend(std::iter::repeat_n(file.as_os_str().to_owned(), files));
                arguments.extend(options.iter().map(OsString::from));
                scope.spawn(move || used_by(&arguments, Path::new("/dev/null")))
            };
            let running: Vec<_> = pair.iter().map(start).collect();
            running.into_iter().map(|one| one.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
        });
        for ((name, ..), peak) in pair.iter().zip(peaks) {
            samples.add(format!("record.large.{name}.peak_mib"), peak?.mebibytes);
        }
    }
    Ok(fs::remove_file(&file)?)
}

/// Number of events in a recording, and the costs of a report from it.
fn report(file: &Path) -> Result<(f64, Peak)> {
    let answer = file.with_extension("report");
    let peak = used_by(&[OsStr::new("report"), OsStr::new("--json"), file.as_os_str()], &answer)?;
    let report: ParsedReport = serde_json::from_slice(&fs::read(&answer)?).context("a report")?;
    Ok((report.events.read as f64, peak))
}

/// CPU time and memory that a command has used.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Peak {
    cpu_seconds: f64,
    mebibytes: f64,
}

/// Runs `portchurn` as the only child of another process, because the kernel reports the peak memory of all children
/// together.
fn used_by(arguments: &[impl AsRef<OsStr>], stdout: &Path) -> Result<Peak> {
    let mut command = Command::new(std::env::current_exe().context("our own path")?);
    command.arg("peak").arg(stdout).arg("--").arg(binary()?).args(arguments);
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{command:?}: {}", output.status);
    serde_json::from_slice(&output.stdout).context("a peak")
}

/// The process that [`used_by`] starts: runs the command and prints its costs.
#[expect(clippy::print_stdout, reason = "the program's answer")]
pub fn tell_peak(stdout: &Path, command: &[OsString]) -> Result<()> {
    let Some((program, arguments)) = command.split_first() else { bail!("no command") };
    let status = Command::new(program).args(arguments).stdout(File::create(stdout)?).status()?;
    ensure!(status.success(), "{command:?}: {status}");
    let usage: Usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let micros = (usage.user_time() + usage.system_time()).num_microseconds();
    let peak = Peak { cpu_seconds: micros as f64 / 1e6, mebibytes: usage.max_rss() as f64 / 1024.0 };
    println!("{}", serde_json::to_string(&peak)?);
    Ok(())
}
