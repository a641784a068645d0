//! `cargo xtask e2e`: the end-to-end tests against this machine's kernel.
//!
//! They are built as whoever calls, and only the finished test binaries run as root. One test at a time: they share the kernel,
//! its BPF programs and its tracepoints. A test that cannot run says so in a line that starts with `SKIPPED`; those lines are counted here, because
//! libtest calls such a test passed.
//!
//! A failed test that proves that the kernel had hidden transitions from every tracer (tests/src/blind.rs) is run again, a few times
//! at most, and said to have been.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::shell::{as_root, build_release, cargo, line_of, say};
use crate::vm;
use crate::vm::ledger::{self, Cost};

#[derive(Args, Default)]
pub struct Options {
    /// Where the kernel under test is.
    #[arg(value_enum, default_value_t)]
    place: Place,
    /// Only tests whose name contains this.
    filter: Option<String>,
    /// A skipped test fails the run (always so when CI=true).
    #[arg(long)]
    no_skip: bool,
    /// Write the kernel into the table of supported kernels.
    #[arg(long)]
    record: bool,
    #[command(flatten)]
    machines: vm::Machines,
}

impl Options {
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
enum Place {
    /// This machine.
    #[default]
    Local,
    /// Stock Debian kernels in virtual machines.
    Vm,
}

/// What a test prints that has lost transitions to no fault of the tracer (tests/src/blind.rs `MARK`).
const HIDDEN: &str = "HIDDEN BY THE KERNEL";
/// One test in ten is hit by that where it happens at all; three times in a row it is something else.
const REPEATS: u32 = 3;

/// A test binary and the directory that cargo would run it in.
pub struct Suite {
    pub name: String,
    pub executable: PathBuf,
    package: PathBuf,
    /// Scenarios, not unit tests of the harness.
    pub scenarios: bool,
}

/// What the lines of a test run add up to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: u64,
    failed: u64,
    skips: Vec<String>,
    /// What the programs cost the verifier.
    pub costs: BTreeMap<String, Cost>,
    repeats: Vec<String>,
}

pub fn e2e(options: &Options) -> Result<()> {
    let strict = options.no_skip || env::var("CI").is_ok_and(|ci| ci == "true");
    let filter = options.filter.as_deref();
    match options.place {
        Place::Local => local(filter, strict, options.record),
        Place::Vm => vm::vm(&options.machines, filter, strict, options.record),
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
    if record && filter.is_none() {
        let output = as_root(portchurn.as_os_str(), &[])?.args(["doctor", "--json"]).output().context("doctor")?;
        vm::record_own(&String::from_utf8_lossy(&output.stdout), &tally)?;
    }
    Ok(())
}

/// Whether a run of this outcome succeeded.
pub fn verdict(tally: &Tally, broken: &[String], filter: Option<&str>, strict: bool) -> Result<()> {
    ensure!(broken.is_empty(), "end-to-end tests failed in: {}", broken.join(", "));
    // A run of nothing is no success, filtered or not.
    ensure!(
        tally.passed > 0,
        "no end-to-end test ran{}",
        filter.map_or_else(String::new, |filter| format!(": none has {filter:?} in its name"))
    );
    ensure!(
        !strict || tally.skips.is_empty(),
        "{} end-to-end tests were skipped and here none may be: the lines above say what is missing",
        tally.skips.len()
    );
    Ok(())
}

/// Builds the test binaries.
pub fn build_suites(mut build: Command) -> Result<Vec<Suite>> {
    build.args(["test", "-p", "portchurn-tests", "--no-run", "--message-format=json-render-diagnostics"]);
    let line = line_of(&build);
    say(&line);
    let output = build.stderr(Stdio::inherit()).output().with_context(|| format!("starting `{line}`"))?;
    ensure!(output.status.success(), "`{line}` failed ({})", output.status);
    let suites: Vec<Suite> = String::from_utf8_lossy(&output.stdout).lines().filter_map(suite).collect();
    if suites.is_empty() {
        bail!("`{line}` built no test binary");
    }
    Ok(suites)
}

/// The test binary that one of cargo's messages announces, if it does.
fn suite(message: &str) -> Option<Suite> {
    let message: Value = serde_json::from_str(message).ok()?;
    let is_test = message["profile"]["test"].as_bool().unwrap_or(false);
    let executable = message["executable"].as_str().filter(|_| is_test)?;
    Some(Suite {
        name: message["target"]["name"].as_str()?.to_owned(),
        executable: PathBuf::from(executable),
        package: Path::new(message["manifest_path"].as_str()?).parent()?.to_path_buf(),
        scenarios: message["target"]["kind"][0] == "test",
    })
}

/// Runs one test binary and passes its output on; true if it succeeded.
fn run_suite(suite: &Suite, filter: Option<&str>, portchurn: &Path, tally: &mut Tally) -> Result<bool> {
    say(&format!("e2e: {}", suite.name));
    let first = run_tests(suite, &filter.into_iter().collect::<Vec<_>>(), portchurn)?;
    tally.add(&first);
    let mut again = first.hidden_from();
    let mut others_failed = first.failed.len() > again.len() || (!first.succeeded && first.failed.is_empty());
    for name in std::mem::take(&mut again) {
        let passed = (0..REPEATS).try_fold(false, |passed, _| -> Result<bool> {
            if passed {
                return Ok(true);
            }
            say(&format!("e2e: {name} again: the kernel hid transitions from every tracer"));
            let outcome = run_tests(suite, &["--exact", &name], portchurn)?;
            Ok(outcome.succeeded)
        })?;
        if passed {
            tally.repeated(&suite.name, &name);
        }
        others_failed |= !passed;
    }
    Ok(!others_failed)
}

/// One run of a test binary.
#[derive(Default)]
struct Outcome {
    suite: String,
    succeeded: bool,
    lines: Vec<String>,
    failed: Vec<String>,
}

impl Outcome {
    fn read(&mut self, line: String) {
        if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failed.push(name.to_owned());
        }
        self.lines.push(line);
    }

    /// Failed tests in whose output the mark stands.
    fn hidden_from(&self) -> Vec<String> {
        let mut section = None;
        let mut found: Vec<String> = Vec::new();
        for line in &self.lines {
            if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
                section = Some(name);
            } else if let Some(name) = section.filter(|_| line.starts_with(HIDDEN))
                && self.failed.iter().any(|failed| failed == name)
                && !found.iter().any(|known| known == name)
            {
                found.push(name.to_owned());
            }
        }
        found
    }
}

fn run_tests(suite: &Suite, arguments: &[&str], portchurn: &Path) -> Result<Outcome> {
    let ci = env::var_os("CI");
    let path = env::var_os("PATH").unwrap_or_default();
    let mut variables: Vec<(&str, &OsStr)> = vec![
        ("PORTCHURN_BIN", portchurn.as_os_str()),
        ("CARGO_MANIFEST_DIR", suite.package.as_os_str()),
        ("PATH", &path),
    ];
    variables.extend(ci.as_deref().map(|ci| ("CI", ci)));
    let mut command = as_root(suite.executable.as_os_str(), &variables)?;
    // --show-output: what passing tests print, hence also why they were skipped.
    command.current_dir(&suite.package).args(["--test-threads=1", "--show-output"]).args(arguments);
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("starting {}", suite.name))?;
    let stdout = child.stdout.take().context("the test binary's stdout")?;
    let mut outcome = Outcome { suite: suite.name.clone(), ..Outcome::default() };
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.with_context(|| format!("reading what {} prints", suite.name))?;
        let line = String::from_utf8_lossy(&line).into_owned();
        println!("{line}");
        outcome.read(line);
    }
    outcome.succeeded = child.wait().with_context(|| format!("waiting for {}", suite.name))?.success();
    Ok(outcome)
}

impl Tally {
    fn add(&mut self, outcome: &Outcome) {
        for line in &outcome.lines {
            self.read(line, &outcome.suite);
        }
    }

    /// A test that failed where the kernel hid transitions has passed since.
    fn repeated(&mut self, suite: &str, name: &str) {
        self.failed = self.failed.saturating_sub(1);
        self.passed += 1;
        self.repeats
            .push(format!("{suite}: {name} was run again: the kernel had hidden transitions from every tracer"));
    }

    pub fn say(&self) {
        say(&format!("e2e: {} passed, {} failed, {} skipped", self.passed, self.failed, self.skips.len()));
        for skip in self.skips.iter().chain(&self.repeats) {
            say(&format!("e2e: {skip}"));
        }
    }

    pub fn read(&mut self, line: &str, suite: &str) {
        if line.starts_with("SKIPPED") {
            self.skips.push(format!("{suite}: {line}"));
        } else if let Some((program, cost)) = ledger::cost(line) {
            self.costs.insert(program, cost);
        } else if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed += count(counts, " passed");
            self.failed += count(counts, " failed");
            let ignored = count(counts, " ignored");
            if ignored > 0 {
                self.skips.push(format!("{suite}: {ignored} tests are marked #[ignore]"));
            }
        }
    }
}

/// The number in front of `what` in libtest's closing line.
fn count(line: &str, what: &str) -> u64 {
    let Some((before, _)) = line.split_once(what) else { return 0 };
    before.rsplit(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(output: &str) -> Tally {
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.read(line, "counts"));
        tally
    }

    #[test]
    fn results_skips_and_ignored_tests_are_counted() {
        let seen = tally(
            "test a ... ok\n---- a stderr ----\nSKIPPED, missing: php-fpm\n\
             test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 9.00s",
        );
        assert_eq!((seen.passed, seen.failed), (12, 3));
        assert_eq!(seen.skips, ["counts: SKIPPED, missing: php-fpm", "counts: 1 tests are marked #[ignore]"]);
    }

    #[test]
    fn only_failed_tests_that_prove_it_are_run_again() {
        let mut outcome = Outcome::default();
        for line in [
            "test a ... ok",
            "test b ... FAILED",
            "test c ... FAILED",
            "---- a stdout ----",
            "HIDDEN BY THE KERNEL: 3 transitions",
            "---- b stdout ----",
            "thread panicked",
            "---- c stdout ----",
            "HIDDEN BY THE KERNEL: 3 transitions",
            "HIDDEN BY THE KERNEL: 3 transitions",
        ] {
            outcome.read(line.to_owned());
        }
        assert_eq!(outcome.hidden_from(), ["c"]);
    }

    #[test]
    fn a_skip_fails_only_a_strict_run() {
        let skipped = tally("SKIPPED: no nsenter\ntest result: ok. 1 passed; 0 failed; 0 ignored;");
        assert!(verdict(&skipped, &[], None, false).is_ok());
        assert!(verdict(&skipped, &[], None, true).is_err());
    }

    #[test]
    fn a_broken_suite_or_a_run_of_nothing_fails() {
        let none = Tally::default();
        assert!(verdict(&none, &["counts".into()], None, false).is_err());
        assert!(verdict(&none, &[], Some("nothing"), false).is_err());
        assert!(verdict(&none, &[], None, false).is_err());
        let one = Tally { passed: 1, ..Tally::default() };
        assert!(verdict(&one, &[], None, true).is_ok());
        assert!(verdict(&one, &["counts".into()], None, false).is_err());
    }

    #[test]
    fn only_test_binaries_of_cargos_messages_are_suites() {
        let message = |test: bool| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/w/tests/Cargo.toml","target":{{"name":"counts"}},
                    "profile":{{"test":{test}}},"executable":"/w/target/debug/deps/counts-1"}}"#
            )
        };
        assert_eq!(suite(&message(true)).map(|suite| suite.package), Some(PathBuf::from("/w/tests")));
        assert!(suite(&message(false)).is_none());
        assert!(suite(r#"{"reason":"build-finished","success":true}"#).is_none());
    }
}
