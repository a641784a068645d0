//! Results of the end-to-end tests by kernel: `docs/kernels.json`, from which `docs/VERIFIER.md` and the README's table
//! of kernels are generated.
//!
//! So the README promises only what was tested, and a review shows when a BPF program costs the verifier more than
//! before. Runs with `--all` or `--record` write the results, other runs compare with them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::shell::root;

const RESULTS: &str = "docs/kernels.json";
const VERIFIER: &str = "docs/VERIFIER.md";
const README: &str = "README.md";
const BEGIN: &str = "<!-- kernels: written by `cargo xtask e2e vm --all` -->\n";
const END: &str = "<!-- /kernels -->\n";

/// Percent and instructions by which a program may exceed its recorded cost before that counts as a regression: a point
/// release of a kernel or of the compiler moves the numbers a little.
const TOLERANCE: (u64, u64) = (10, 64);
/// The same in bytes of stack.
const STACK_TOLERANCE: u64 = 32;

/// Results by the name that `--kernel` takes; `own` is the machine that recorded them.
pub type KernelResults = BTreeMap<String, KernelResult>;

/// Result of one kernel.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct KernelResult {
    /// Version and distribution: `6.1.170-3 (Debian 12)`.
    pub kernel: String,
    pub tier: String,
    pub hooks: BTreeSet<String>,
    /// What portchurn cannot see on this kernel, in the words of `portchurn doctor`.
    pub lost: Vec<String>,
    pub programs: BTreeMap<String, VerifierCost>,
    /// Number of end-to-end tests that passed.
    pub passed: u64,
}

/// Instructions that the verifier processed for a program, and the program's bytes of stack.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct VerifierCost {
    pub instructions: u64,
    pub stack: u64,
}

impl VerifierCost {
    fn worse_than(self, before: Self) -> bool {
        let (percent, instructions) = TOLERANCE;
        self.instructions > before.instructions + before.instructions * percent / 100 + instructions
            || self.stack > before.stack + STACK_TOLERANCE
    }

    /// True if neither is worse than the other.
    fn about(self, other: Self) -> bool {
        !self.worse_than(other) && !other.worse_than(self)
    }
}

pub fn read() -> Result<KernelResults> {
    match fs::read_to_string(root().join(RESULTS)) {
        Ok(text) => serde_json::from_str(&text).context(RESULTS),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(KernelResults::new()),
        Err(error) => Err(error).context(RESULTS),
    }
}

/// Programs that cost more than recorded, one sentence each.
pub fn regressions(results: &KernelResults, name: &str, programs: &BTreeMap<String, VerifierCost>) -> Vec<String> {
    // A run with a filter may not have run the verifier's test.
    let Some(before) = results.get(name).filter(|_| !programs.is_empty()) else { return Vec::new() };
    let gone = before.programs.keys().filter(|program| !programs.contains_key(*program));
    let gone = gone.map(|program| format!("{program}: the kernel took it and does not any more"));
    programs
        .iter()
        .filter_map(|(program, now)| Some((program, now, before.programs.get(program)?)))
        .filter(|(_, now, before)| now.worse_than(**before))
        .map(|(program, now, before)| {
            format!(
                "{program}: the verifier processes {} instructions and {} bytes of stack; it was {} and {}",
                now.instructions, now.stack, before.instructions, before.stack
            )
        })
        .chain(gone)
        .collect()
}

/// Replaces the result of a kernel. Costs that moved within the tolerance keep their recorded value.
pub fn enter(results: &mut KernelResults, name: &str, mut entry: KernelResult) {
    if let Some(before) = results.get(name) {
        for (program, cost) in &mut entry.programs {
            if let Some(&written) = before.programs.get(program).filter(|written| written.about(*cost)) {
                *cost = written;
            }
        }
    }
    results.insert(name.to_owned(), entry);
}

/// Replaces what the programs cost the verifier, and nothing else, of a kernel that has been recorded whole before.
pub fn enter_costs(results: &mut KernelResults, name: &str, costs: &BTreeMap<String, VerifierCost>) {
    if let Some(before) = results.get(name).filter(|_| !costs.is_empty()).cloned() {
        enter(results, name, KernelResult { programs: costs.clone(), ..before });
    }
}

pub fn write(results: &KernelResults) -> Result<()> {
    fs::create_dir_all(root().join("docs")).context("creating docs")?;
    let text = serde_json::to_string_pretty(results).context(RESULTS)? + "\n";
    fs::write(root().join(RESULTS), text).context(RESULTS)?;
    fs::write(root().join(VERIFIER), verifier(results)).context(VERIFIER)?;
    let readme = fs::read_to_string(root().join(README)).context(README)?;
    let readme =
        with_block(&readme, &kernels(results)).with_context(|| format!("{README} lacks the lines {BEGIN}{END}"))?;
    fs::write(root().join(README), readme).context(README)
}

fn with_block(readme: &str, block: &str) -> Option<String> {
    let (before, rest) = readme.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{block}{END}{after}"))
}

/// Results sorted by kernel version, oldest first.
fn in_order(results: &KernelResults) -> Vec<(&String, &KernelResult)> {
    let number = |entry: &KernelResult| -> Vec<u32> {
        entry.kernel.split(|c: char| !c.is_ascii_digit()).map_while(|digits| digits.parse().ok()).take(2).collect()
    };
    let mut entries: Vec<_> = results.iter().collect();
    entries.sort_by_key(|(_, entry)| number(entry));
    entries
}

fn kernels(results: &KernelResults) -> String {
    let mut out =
        String::from("| kernel | tier | hooks | what is lost | tests passed |\n| --- | --- | --- | --- | --- |\n");
    for (_, entry) in in_order(results) {
        let hooks: Vec<String> = entry.hooks.iter().map(|hook| format!("`{hook}`")).collect();
        let hooks = hooks.join(", ");
        let lost = if entry.lost.is_empty() { "-".to_owned() } else { entry.lost.join("; ") };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "| {} | {} | {hooks} | {lost} | {} |", entry.kernel, entry.tier, entry.passed);
    }
    out
}

fn verifier(results: &KernelResults) -> String {
    let entries = in_order(results);
    let mut out = String::from(
        "# What the programs cost the verifier\n\n\
         Instructions that the kernel processes to verify a program (limit 1,000,000), and bytes of stack of all its functions together (limit 512 for those that are active at once), by its own log. \
         `cargo xtask e2e vm --all` writes this page; a run of one kernel fails when a program costs more than 10 % more.\n\n| program |",
    );
    for (_, entry) in &entries {
        let _ = write!(out, " {} |", entry.kernel);
    }
    out.push_str("\n| --- |");
    out.push_str(&" --- |".repeat(entries.len()));
    out.push('\n');
    let programs: BTreeSet<&String> = entries.iter().flat_map(|(_, entry)| entry.programs.keys()).collect();
    for program in programs {
        let _ = write!(out, "| `{program}` |");
        for (_, entry) in &entries {
            let _ = match entry.programs.get(program) {
                Some(cost) => write!(out, " {} / {} |", cost.instructions, cost.stack),
                None => write!(out, " refused |"),
            };
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kernel: &str, instructions: u64, stack: u64) -> KernelResult {
        KernelResult {
            kernel: kernel.into(),
            tier: "tracepoint".into(),
            programs: BTreeMap::from([("p".into(), VerifierCost { instructions, stack })]),
            ..KernelResult::default()
        }
    }

    #[test]
    fn a_program_that_costs_more_is_a_regression_and_a_little_more_is_none() {
        let results = KernelResults::from([("6.1".to_owned(), entry("6.1.1", 1000, 100))]);
        let count = |instructions, stack| regressions(&results, "6.1", &entry("", instructions, stack).programs).len();
        assert_eq!((count(1000, 100), count(1164, 132), count(1165, 100), count(900, 133)), (0, 0, 1, 1));
        let other = BTreeMap::from([("q".to_owned(), VerifierCost { instructions: 1, stack: 1 })]);
        assert!(regressions(&results, "6.1", &other)[0].starts_with("p: the kernel took it"));
        assert!(regressions(&results, "6.12", &entry("", 9999, 500).programs).is_empty(), "nothing to compare with");
    }

    #[test]
    fn small_changes_keep_the_recorded_costs() {
        let mut results = KernelResults::from([("6.1".to_owned(), entry("6.1.1", 1000, 100))]);
        enter(&mut results, "6.1", entry("6.1.2", 1010, 100));
        assert_eq!(results["6.1"], entry("6.1.2", 1000, 100));
        enter(&mut results, "6.1", entry("6.1.3", 500, 100));
        assert_eq!(results["6.1"], entry("6.1.3", 500, 100));
    }

    #[test]
    fn kernels_come_oldest_first() {
        let of = |kernel: &str| (kernel.to_owned(), entry(kernel, 1, 1));
        let results = KernelResults::from([of("6.12.107-1"), of("5.10.223-1"), of("6.1.170-3"), of("7.2.13-1")]);
        let order: Vec<&str> = in_order(&results).iter().map(|(_, entry)| entry.kernel.as_str()).collect();
        assert_eq!(order, ["5.10.223-1", "6.1.170-3", "6.12.107-1", "7.2.13-1"]);
    }

    /// Fails when somebody has edited the generated tables by hand.
    #[test]
    fn the_pages_are_generated_from_the_results() {
        let results = read().expect("the results");
        let text = |name: &str| fs::read_to_string(root().join(name)).expect(name);
        assert_eq!(text(VERIFIER), verifier(&results), "{VERIFIER}");
        let readme = text(README);
        assert_eq!(with_block(&readme, &kernels(&results)).as_ref(), Some(&readme), "{README}");
    }
}
