//! Checks the subjects of commits: a longer one is cut off where git shows lists of commits.

use anyhow::{Context as _, Result, ensure};

use crate::shell::{answer, command, say};

/// Characters of a subject.
const LONGEST: usize = 72;
/// The last commit with a longer subject: the rule holds from here on.
const RULE_SINCE: &str = "9a9d3078a444a37246a01e107e01cbe4bf7bca1a";

pub fn check() -> Result<()> {
    let git = |arguments: &[&str]| answer(command("git").args(arguments));
    // A history that was rewritten or cut off may lack that commit: then all of its commits count.
    let range = if git(&["merge-base", "--is-ancestor", RULE_SINCE, "HEAD"]).is_some() {
        format!("{RULE_SINCE}..HEAD")
    } else {
        "HEAD".to_owned()
    };
    let log = git(&["log", "--no-merges", "--format=%H %s", &range])
        .context("`git log` fails: is this a git clone, owned by the user who runs this?")?;
    let long = too_long(&log);
    ensure!(long.is_empty(), "subjects of more than {LONGEST} characters:\n{}", long.join("\n"));
    say(&format!("commits: {} subjects have at most {LONGEST} characters", log.lines().count()));
    Ok(())
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
