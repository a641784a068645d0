//! `cargo xtask ci`: everything that must hold before a merge, the same on every machine.
//!
//! All steps run even when one fails, so that one run shows all failures. A step whose prerequisite failed does not run
//! and counts as failed. The last line is for programs: `N passed, N failed`.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::shell::{
    answer, build_release, cargo, command, nightly, portchurn, root, run, run_quietly, say, target_dir,
};
use crate::{bench, commits, dependencies, dist, documents, e2e, readme, structure, vm};

struct CiStep {
    name: &'static str,
    /// Name of the step that must have passed before.
    after: Option<&'static str>,
    /// The argument: whether nothing may be left for another day.
    work: fn(bool) -> Result<()>,
}

const BUILD: &str = "build";

const STEPS: [CiStep; 17] = [
    CiStep { name: "format", after: None, work: |_| format() },
    CiStep { name: "structure", after: None, work: |_| structure::check_workspace() },
    CiStep { name: "commits", after: None, work: |_| commits::check() },
    CiStep { name: "documents", after: None, work: |_| documents::check() },
    CiStep { name: "dependencies", after: None, work: |_| dependencies::check() },
    CiStep { name: "clippy, host", after: None, work: |_| clippy_host() },
    CiStep { name: "clippy, BPF target", after: None, work: |_| clippy_bpf() },
    CiStep { name: "unit and property tests", after: None, work: |_| unit_tests() },
    CiStep { name: "rustdoc", after: None, work: |_| rustdoc() },
    CiStep { name: BUILD, after: None, work: |_| build_release().map(drop) },
    CiStep { name: "fuzz", after: None, work: |_| fuzz() },
    CiStep { name: "README", after: Some(BUILD), work: |_| readme::check(&portchurn()) },
    CiStep { name: "end to end", after: Some(BUILD), work: |_| e2e::e2e(&e2e::E2eOptions::strict()) },
    CiStep {
        name: "end to end on kernel 6.1 and on that of the day",
        after: Some(BUILD),
        work: |_| vm::kernels_of_ci(),
    },
    CiStep { name: "every bench, once", after: Some(BUILD), work: |_| bench::check() },
    CiStep { name: "packages", after: Some(BUILD), work: packages },
    // The last step, because it checks what the other steps leave behind.
    CiStep { name: "clean tree", after: None, work: |_| clean_tree() },
];

enum StepOutcome {
    Passed(Duration),
    Failed(Duration, String),
    NotRun(&'static str),
}

/// Runs all steps, or those whose name contains one of `words`. With `all` nothing takes turns.
///
/// # Errors
/// A step has failed, or no step has such a name.
pub fn ci(all: bool, words: &[String]) -> Result<()> {
    let named = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let needed = |name: &str| STEPS.iter().any(|step| step.after == Some(name) && named(step.name));
    let wanted: Vec<&CiStep> = STEPS.iter().filter(|step| named(step.name) || needed(step.name)).collect();
    ensure!(!wanted.is_empty(), "no step has a name with {}", words.join(" or "));
    let mut outcomes: Vec<(&str, StepOutcome)> = Vec::new();
    for step in wanted {
        say(&format!("---- {} ----", step.name));
        let outcome = match step.after.filter(|after| !passed(&outcomes, after)) {
            Some(after) => StepOutcome::NotRun(after),
            None => measured(|| (step.work)(all)),
        };
        if let StepOutcome::Failed(_, why) = &outcome {
            say(&format!("{}: {why}", step.name));
        }
        outcomes.push((step.name, outcome));
    }
    summary(&outcomes)
}

fn passed(outcomes: &[(&str, StepOutcome)], name: &str) -> bool {
    outcomes.iter().any(|(other, outcome)| *other == name && matches!(outcome, StepOutcome::Passed(_)))
}

fn measured(work: impl FnOnce() -> Result<()>) -> StepOutcome {
    let start = Instant::now();
    match work() {
        Ok(()) => StepOutcome::Passed(start.elapsed()),
        Err(error) => StepOutcome::Failed(start.elapsed(), format!("{error:#}")),
    }
}

fn summary(outcomes: &[(&str, StepOutcome)]) -> Result<()> {
    println!();
    for (name, outcome) in outcomes {
        match outcome {
            StepOutcome::Passed(took) => println!("passed   {:>7.1} s  {name}", took.as_secs_f64()),
            StepOutcome::Failed(took, why) => println!("FAILED   {:>7.1} s  {name}: {why}", took.as_secs_f64()),
            StepOutcome::NotRun(after) => println!("NOT RUN            {name}: needs the step {after}"),
        }
    }
    let passed = outcomes.iter().filter(|(_, outcome)| matches!(outcome, StepOutcome::Passed(_))).count();
    let failed = outcomes.len() - passed;
    println!("{passed} passed, {failed} failed");
    if failed > 0 {
        bail!("{failed} steps failed");
    }
    Ok(())
}

fn format() -> Result<()> {
    run(cargo().args(["fmt", "--all", "--check"]))
}

fn clippy_host() -> Result<()> {
    let scope = ["clippy", "--workspace", "--exclude", "tracer-ebpf", "--all-targets", "--keep-going"];
    run(cargo().args(scope).args(["--", "-D", "warnings"]))
}

/// Lints the BPF programs with the flags of aya-build, in a directory of its own, because the flags differ from those
/// of the host.
fn clippy_bpf() -> Result<()> {
    let target = if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };
    let mut command = nightly("cargo");
    command
        .args([
            "clippy",
            "-p",
            "tracer-ebpf",
            "--bins",
            "--features",
            "null-tracer",
            "--release",
            "--target",
            target,
            "-Z",
            "build-std=core",
        ])
        .arg("--target-dir")
        .arg(target_dir().join("clippy-bpf"))
        .args(["--", "-D", "warnings"])
        .env("CARGO_ENCODED_RUSTFLAGS", bpf_flags());
    run(&mut command)
}

fn bpf_flags() -> OsString {
    format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH).into()
}

fn unit_tests() -> Result<()> {
    run(cargo().args(["test", "--no-fail-fast"]))
}

/// Runs each fuzz target for a minute, from the corpus in the repository. New inputs are stored elsewhere.
pub fn fuzz() -> Result<()> {
    const SECONDS: u32 = 60;
    // More memory than any input should need, with the overhead of the sanitizer.
    const MEGABYTES: u32 = 2048;
    // A directory of its own, because builds with the sanitizer share nothing with the others.
    let built = target_dir().join("fuzz");
    let fuzz = |command_name: &str| {
        let mut command = nightly("cargo");
        command.args(["fuzz", command_name, "--target-dir"]).arg(&built);
        command
    };
    // One build for all targets; the runs below build nothing.
    run(&mut fuzz("build"))?;
    // All targets run at the same time, each in its own thread.
    let outcomes: Vec<Result<()>> = thread::scope(|scope| {
        let runs = ["recording", "frames", "records"].map(|target| {
            let mut fuzz = fuzz("run");
            scope.spawn(move || {
                let grown = target_dir().join("fuzz-corpus").join(target);
                fs::create_dir_all(&grown).context("a directory for the corpus")?;
                fuzz.arg(target)
                    // New inputs go to the first directory; the seeds are in the second.
                    .arg(&grown)
                    .arg(root().join("fuzz/corpus").join(target))
                    .arg("--")
                    .args([format!("-max_total_time={SECONDS}"), format!("-rss_limit_mb={MEGABYTES}")])
                    .args(["-max_len=65536", "-print_final_stats=1"]);
                run_quietly(&mut fuzz).with_context(|| format!("fuzz target {target}"))
            })
        });
        // A panic of a thread is passed on.
        runs.map(|run| run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).into()
    });
    outcomes.into_iter().collect()
}

fn packages(all: bool) -> Result<()> {
    dist::check_in_ci(all, vm::day()?, &portchurn())
}

fn rustdoc() -> Result<()> {
    run(cargo()
        .args(["doc", "--workspace", "--exclude", "tracer-ebpf", "--no-deps", "--document-private-items"])
        .env("RUSTDOCFLAGS", "-D warnings"))
}

/// In CI the run must not change or add files. Elsewhere somebody may be working on files, so that a change proves
/// nothing.
fn clean_tree() -> Result<()> {
    let status = git_status()?;
    if env::var("CI").is_ok_and(|ci| ci == "true") {
        ensure!(status.is_empty(), "these files were changed or left behind:\n{status}");
    } else if !status.is_empty() {
        say(&format!("not committed:\n{status}"));
    }
    Ok(())
}

fn git_status() -> Result<String> {
    let mut git: Command = command("git");
    answer(git.args(["status", "--porcelain"]))
        .context("`git status` does not work here: is this a git clone, owned by who runs this?")
}
