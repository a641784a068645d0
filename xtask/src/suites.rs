//! The end-to-end test binaries: building them, running them, counting what their lines say, and the verdict on a run.
//!
//! cargo builds the binaries as the calling user, and only the finished binaries run as root. Tests run one at a time,
//! because they share the kernel, its BPF programs and its tracepoints.
//!
//! A test that cannot run prints a line that starts with [`SKIPPED`]. Those lines are counted here, because libtest
//! counts such a test as passed.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use e2e_protocol::{HIDDEN_BY_KERNEL, SKIPPED, VerifiedProgram};
use serde_json::Value;

use crate::kernel_results::VerifierCost;
use crate::shell::{as_root, line_of, say};

/// Runs of a test after the kernel has hidden transitions from it. Where that happens at all it affects one test in
/// ten, so three failures in a row have another cause.
const REPEATS: u32 = 3;

/// A test binary and the directory in which cargo would run it.
pub struct Suite {
    pub name: String,
    pub executable: PathBuf,
    package: PathBuf,
    /// True for scenarios, false for unit tests of the harness.
    pub scenarios: bool,
}

/// Results of all suites of a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub passed: u64,
    failed: u64,
    skips: Vec<String>,
    /// What the BPF programs cost the verifier, by program.
    pub costs: BTreeMap<String, VerifierCost>,
    repeats: Vec<String>,
}

/// Fails unless a run with these results succeeded. With `strict` a skipped test fails it, too.
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

/// Builds the test binaries with `build`, a cargo command.
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

/// The test binary that one of cargo's messages announces; `None` for other messages.
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
///
/// A failed test whose output proves that the kernel hid transitions from every tracer (tests/src/hidden.rs) runs
/// again, at most [`REPEATS`] times, and the tally says so.
pub fn run_suite(suite: &Suite, filter: Option<&str>, portchurn: &Path, tally: &mut Tally) -> Result<bool> {
    say(&format!("e2e: {}", suite.name));
    let first = run_tests(suite, &filter.into_iter().collect::<Vec<_>>(), portchurn)?;
    tally.add(&first);
    let hidden_from = first.hidden_from();
    let mut others_failed = first.failed.len() > hidden_from.len() || (!first.succeeded && first.failed.is_empty());
    for name in hidden_from {
        let passed = (0..REPEATS).try_fold(false, |passed, _| -> Result<bool> {
            if passed {
                return Ok(true);
            }
            say(&format!("e2e: {name} again: the kernel hid transitions from every tracer"));
            Ok(run_tests(suite, &["--exact", &name], portchurn)?.succeeded)
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
struct TestRun {
    suite: String,
    succeeded: bool,
    lines: Vec<String>,
    failed: Vec<String>,
}

impl TestRun {
    fn read(&mut self, line: String) {
        if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failed.push(name.to_owned());
        }
        self.lines.push(line);
    }

    /// Failed tests whose output has a [`HIDDEN_BY_KERNEL`] line.
    fn hidden_from(&self) -> Vec<String> {
        let mut section = None;
        let mut found: Vec<String> = Vec::new();
        for line in &self.lines {
            if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
                section = Some(name);
            } else if let Some(name) = section.filter(|_| line.starts_with(HIDDEN_BY_KERNEL))
                && self.failed.iter().any(|failed| failed == name)
                && !found.iter().any(|known| known == name)
            {
                found.push(name.to_owned());
            }
        }
        found
    }
}

fn run_tests(suite: &Suite, arguments: &[&str], portchurn: &Path) -> Result<TestRun> {
    let ci = env::var_os("CI");
    let path = env::var_os("PATH").unwrap_or_default();
    let mut variables: Vec<(&str, &OsStr)> = vec![
        ("PORTCHURN_BIN", portchurn.as_os_str()),
        ("CARGO_MANIFEST_DIR", suite.package.as_os_str()),
        ("PATH", &path),
    ];
    variables.extend(ci.as_deref().map(|ci| ("CI", ci)));
    let mut command = as_root(suite.executable.as_os_str(), &variables)?;
    // --show-output: also what passing tests print, because a skipped test passes and prints the reason.
    command.current_dir(&suite.package).args(["--test-threads=1", "--show-output"]).args(arguments);
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("starting {}", suite.name))?;
    let stdout = child.stdout.take().context("the test binary's stdout")?;
    let mut run = TestRun { suite: suite.name.clone(), ..TestRun::default() };
    for line in BufReader::new(stdout).split(b'\n') {
        let line = line.with_context(|| format!("reading what {} prints", suite.name))?;
        let line = String::from_utf8_lossy(&line).into_owned();
        println!("{line}");
        run.read(line);
    }
    run.succeeded = child.wait().with_context(|| format!("waiting for {}", suite.name))?.success();
    Ok(run)
}

impl Tally {
    fn add(&mut self, run: &TestRun) {
        for line in &run.lines {
            self.read(line, &run.suite);
        }
    }

    /// Counts a failed test as passed: it passed when it ran again.
    fn repeated(&mut self, suite: &str, name: &str) {
        self.failed = self.failed.saturating_sub(1);
        self.passed += 1;
        self.repeats
            .push(format!("{suite}: {name} was run again: the kernel had hidden transitions from every tracer"));
    }

    /// Prints the counts, the skips and the repeated tests.
    pub fn say(&self) {
        say(&format!("e2e: {} passed, {} failed, {} skipped", self.passed, self.failed, self.skips.len()));
        for skip in self.skips.iter().chain(&self.repeats) {
            say(&format!("e2e: {skip}"));
        }
    }

    /// Counts a line that a suite printed.
    pub fn read(&mut self, line: &str, suite: &str) {
        if line.starts_with(SKIPPED) {
            self.skips.push(format!("{suite}: {line}"));
        } else if let Some(VerifiedProgram { name, instructions, stack }) = VerifiedProgram::parse(line) {
            self.costs.insert(name, VerifierCost { instructions, stack });
        } else if let Some(counts) = line.strip_prefix("test result: ") {
            self.passed += number_before(counts, " passed");
            self.failed += number_before(counts, " failed");
            let ignored = number_before(counts, " ignored");
            if ignored > 0 {
                self.skips.push(format!("{suite}: {ignored} tests are marked #[ignore]"));
            }
        }
    }
}

/// The number in front of `what` in libtest's closing line; 0 if there is none.
fn number_before(line: &str, what: &str) -> u64 {
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
        let mut run = TestRun::default();
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
            run.read(line.to_owned());
        }
        assert_eq!(run.hidden_from(), ["c"]);
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
