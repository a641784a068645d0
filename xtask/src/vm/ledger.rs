//! What ran, written down: `docs/kernels.json`, and made from it `docs/VERIFIER.md` and the table of kernels in the README.
//!
//! So that the README promises what was seen and nothing else, and so that a program that costs the verifier more than it did shows
//! in review. Runs with `--all` or `--record` write, others compare.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::shell::root;

const LEDGER: &str = "docs/kernels.json";
const VERIFIER: &str = "docs/VERIFIER.md";
const README: &str = "README.md";
const BEGIN: &str = "<!-- kernels: written by `cargo xtask e2e vm --all` -->\n";
const END: &str = "<!-- /kernels -->\n";

/// A program may cost this much more to verify than written down before it counts as a regression: a point release of a kernel
/// or of the compiler moves the numbers a little.
const TOLERANCE: (u64, u64) = (10, 64);
/// Bytes of stack, of 512.
const STACK_TOLERANCE: u64 = 32;

/// By the name that `--kernel` takes; `own` is the machine that wrote it.
pub type Ledger = BTreeMap<String, Entry>;

/// One kernel.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct Entry {
    /// What people call it: `6.1.170-3 (Debian 12)`.
    pub kernel: String,
    pub tier: String,
    pub hooks: BTreeSet<String>,
    /// What is lost on it, in doctor's words.
    pub lost: Vec<String>,
    pub programs: BTreeMap<String, Cost>,
    /// End-to-end tests that passed on it.
    pub passed: u64,
}

/// What a program costs the verifier.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Cost {
    pub instructions: u64,
    pub stack: u64,
}

impl Cost {
    fn worse_than(self, before: Self) -> bool {
        let (percent, instructions) = TOLERANCE;
        self.instructions > before.instructions + before.instructions * percent / 100 + instructions
            || self.stack > before.stack + STACK_TOLERANCE
    }

    /// Neither is worse than the other.
    fn about(self, other: Self) -> bool {
        !self.worse_than(other) && !other.worse_than(self)
    }
}

/// `VERIFIED state_first 11102 168`, as tests/tests/kernel.rs prints it.
pub fn cost(line: &str) -> Option<(String, Cost)> {
    let mut words = line.strip_prefix("VERIFIED ")?.split(' ');
    let name = words.next()?.to_owned();
    Some((name, Cost { instructions: words.next()?.parse().ok()?, stack: words.next()?.parse().ok()? }))
}

pub fn read() -> Result<Ledger> {
    match fs::read_to_string(root().join(LEDGER)) {
        Ok(text) => serde_json::from_str(&text).context(LEDGER),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Ledger::new()),
        Err(error) => Err(error).context(LEDGER),
    }
}

/// Programs that cost more than is written down, in sentences.
pub fn regressions(ledger: &Ledger, name: &str, programs: &BTreeMap<String, Cost>) -> Vec<String> {
    // A run with a filter may not have asked the verifier at all.
    let Some(before) = ledger.get(name).filter(|_| !programs.is_empty()) else { return Vec::new() };
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

/// Puts an entry in place of the one before. Costs that moved within the tolerance stay as they were written.
pub fn enter(ledger: &mut Ledger, name: &str, mut entry: Entry) {
    if let Some(before) = ledger.get(name) {
        for (program, cost) in &mut entry.programs {
            if let Some(&written) = before.programs.get(program).filter(|written| written.about(*cost)) {
                *cost = written;
            }
        }
    }
    ledger.insert(name.to_owned(), entry);
}

pub fn write(ledger: &Ledger) -> Result<()> {
    fs::create_dir_all(root().join("docs")).context("creating docs")?;
    let text = serde_json::to_string_pretty(ledger).context(LEDGER)? + "\n";
    fs::write(root().join(LEDGER), text).context(LEDGER)?;
    fs::write(root().join(VERIFIER), verifier(ledger)).context(VERIFIER)?;
    let readme = fs::read_to_string(root().join(README)).context(README)?;
    let readme =
        with_block(&readme, &kernels(ledger)).with_context(|| format!("{README} lacks the lines {BEGIN}{END}"))?;
    fs::write(root().join(README), readme).context(README)
}

fn with_block(readme: &str, block: &str) -> Option<String> {
    let (before, rest) = readme.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{block}{END}{after}"))
}

/// Oldest first: 6.12 is newer than 6.1 and `newest` than both.
fn in_order(ledger: &Ledger) -> Vec<(&String, &Entry)> {
    let number = |entry: &Entry| -> Vec<u32> {
        entry.kernel.split(|c: char| !c.is_ascii_digit()).map_while(|digits| digits.parse().ok()).take(2).collect()
    };
    let mut entries: Vec<_> = ledger.iter().collect();
    entries.sort_by_key(|(_, entry)| number(entry));
    entries
}

fn kernels(ledger: &Ledger) -> String {
    let mut out =
        String::from("| kernel | tier | hooks | what is lost | tests passed |\n| --- | --- | --- | --- | --- |\n");
    for (_, entry) in in_order(ledger) {
        let hooks: Vec<String> = entry.hooks.iter().map(|hook| format!("`{hook}`")).collect();
        let hooks = hooks.join(", ");
        let lost = if entry.lost.is_empty() { "-".to_owned() } else { entry.lost.join("; ") };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "| {} | {} | {hooks} | {lost} | {} |", entry.kernel, entry.tier, entry.passed);
    }
    out
}

fn verifier(ledger: &Ledger) -> String {
    let entries = in_order(ledger);
    let mut out = String::from(
        "# What the programs cost the verifier\n\n\
         Instructions that the kernel processes to verify a program (limit 1,000,000), and bytes of stack (limit 512), by its own log. \
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

    fn entry(kernel: &str, instructions: u64, stack: u64) -> Entry {
        Entry {
            kernel: kernel.into(),
            tier: "tracepoint".into(),
            programs: BTreeMap::from([("p".into(), Cost { instructions, stack })]),
            ..Entry::default()
        }
    }

    #[test]
    fn a_program_that_costs_more_is_a_regression_and_a_little_more_is_none() {
        let ledger = Ledger::from([("6.1".to_owned(), entry("6.1.1", 1000, 100))]);
        let told = |instructions, stack| regressions(&ledger, "6.1", &entry("", instructions, stack).programs).len();
        assert_eq!((told(1000, 100), told(1164, 132), told(1165, 100), told(900, 133)), (0, 0, 1, 1));
        let other = BTreeMap::from([("q".to_owned(), Cost { instructions: 1, stack: 1 })]);
        assert!(regressions(&ledger, "6.1", &other)[0].starts_with("p: the kernel took it"));
        assert!(regressions(&ledger, "6.12", &entry("", 9999, 500).programs).is_empty(), "nothing to compare with");
    }

    #[test]
    fn small_changes_leave_the_books_as_they_are() {
        let mut ledger = Ledger::from([("6.1".to_owned(), entry("6.1.1", 1000, 100))]);
        enter(&mut ledger, "6.1", entry("6.1.2", 1010, 100));
        assert_eq!(ledger["6.1"], entry("6.1.2", 1000, 100));
        enter(&mut ledger, "6.1", entry("6.1.3", 500, 100));
        assert_eq!(ledger["6.1"], entry("6.1.3", 500, 100));
    }

    #[test]
    fn a_line_of_the_test_is_a_cost() {
        assert_eq!(cost("VERIFIED a 12 34"), Some(("a".into(), Cost { instructions: 12, stack: 34 })));
        assert_eq!(cost("REFUSED a no"), None);
    }

    #[test]
    fn kernels_come_oldest_first() {
        let of = |kernel: &str| (kernel.to_owned(), entry(kernel, 1, 1));
        let ledger = Ledger::from([of("6.12.107-1"), of("5.10.223-1"), of("6.1.170-3"), of("7.2.13-1")]);
        let order: Vec<&str> = in_order(&ledger).iter().map(|(_, entry)| entry.kernel.as_str()).collect();
        assert_eq!(order, ["5.10.223-1", "6.1.170-3", "6.12.107-1", "7.2.13-1"]);
    }

    /// Whoever edits the tables by hand is told so.
    #[test]
    fn the_pages_are_as_the_ledger_has_it() {
        let ledger = read().expect("the ledger");
        let text = |name: &str| fs::read_to_string(root().join(name)).expect(name);
        assert_eq!(text(VERIFIER), verifier(&ledger), "{VERIFIER}");
        let readme = text(README);
        assert_eq!(with_block(&readme, &kernels(&ledger)).as_ref(), Some(&readme), "{README}");
    }
}
