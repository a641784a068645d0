//! Checks the subjects of commits: a longer one is cut off where git shows lists of commits.

use anyhow::{Context as _, Result, ensure};

use crate::shell::{answer, command, say};

/// Characters of a subject.
const LONGEST: usize = 72;
/// The rule holds for commits that were written after this (seconds since 1970, 2026-11-25T12:00:00Z). The time of the author, not a
/// hash: a history may be rewritten or cut off.
const RULE_SINCE: i64 = 1_795_608_000;

pub fn check() -> Result<()> {
    let log = answer(command("git").args(["log", "--no-merges", "--format=%at %H %s"]))
        .context("`git log` fails: is this a git clone, owned by the user who runs this?")?;
    let recent: Vec<&str> = log.lines().filter_map(since_the_rule).collect();
    let long = too_long(&recent.join("\n")).join("\n");
    ensure!(long.is_empty(), "subjects of more than {LONGEST} characters:\n{long}");
    say(&format!("commits: {} subjects have at most {LONGEST} characters", recent.len()));
    Ok(())
}

/// The rest of a line `TIME HASH SUBJECT` to which the rule applies.
fn since_the_rule(line: &str) -> Option<&str> {
    let (time, rest) = line.split_once(' ')?;
    (time.parse::<i64>().ok()? >= RULE_SINCE).then_some(rest)
}

/// The lines of `HASH SUBJECT` with a subject that is too long.
fn too_long(log: &str) -> Vec<&str> {
    log.lines()
        .filter(|line| line.split_once(' ').is_some_and(|(_, subject)| subject.chars().count() > LONGEST))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_of_the_subject_count_and_not_bytes() {
        let (good, bad) = (format!("abc1234 {}", "\u{e9}".repeat(72)), format!("abc1235 {}", "x".repeat(73)));
        assert_eq!(too_long(&format!("{good}\n{bad}\n")), [bad.as_str()]);
    }
}
