//! Checks the documents of the repository: every path and every anchor that they name exists.
//!
//! A path is the target of a link, or code that looks like a path: it begins with a directory of the repository, or it
//! is the name of a Rust, TOML or Markdown file. Code with a placeholder (`*`, `<NAME>`, `#ANCHOR`) is left out. A file
//! may be named by the end of its path (`tracker/mod.rs`), because a document about one crate would otherwise repeat
//! the crate's name in every line.
//!
//! The same anchors are checked in the comments of the sources, where they cite docs/KERNEL.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::shell::{answer, command, root, say};

/// Names that end so are files of this repository even without a directory.
const FILE_SUFFIXES: [&str; 3] = [".md", ".rs", ".toml"];

/// Everything that git tracks or would track, and the directories of it.
struct Repository {
    files: BTreeSet<PathBuf>,
    directories: BTreeSet<PathBuf>,
}

pub fn check() -> Result<()> {
    let listed = answer(command("git").args(["ls-files", "--cached", "--others", "--exclude-standard"]))
        .context("`git ls-files` fails: this check needs a clone")?;
    // A file that was removed but not committed is still listed.
    let files = listed.lines().map(PathBuf::from).filter(|file| root().join(file).is_file()).collect();
    let repository = Repository::new(files);
    let mut texts = BTreeMap::new();
    for file in repository.files.iter().filter(|file| ends_with(file, &[".md", ".rs"])) {
        texts
            .insert(file.as_path(), fs::read_to_string(root().join(file)).with_context(|| file.display().to_string())?);
    }
    let problems = problems(&repository, &texts);
    for problem in &problems {
        eprintln!("{problem}");
    }
    ensure!(problems.is_empty(), "{} paths or anchors that documents name do not exist", problems.len());
    say(&format!("documents: the paths of {} documents exist", texts.keys().filter(|file| is_document(file)).count()));
    Ok(())
}

fn problems(repository: &Repository, texts: &BTreeMap<&Path, String>) -> Vec<String> {
    let anchors: BTreeMap<&Path, BTreeSet<String>> =
        texts.iter().filter(|(file, _)| is_document(file)).map(|(file, text)| (*file, anchors(text))).collect();
    let mut problems = Vec::new();
    for (file, text) in texts {
        let references = if is_document(file) { references(text) } else { cited_anchors(text) };
        for (line, reference) in references {
            let problem = |what: &str| format!("{}:{line}: {what}: {}", file.display(), reference.text);
            let (path, anchor) = reference.text.split_once('#').unwrap_or((&reference.text, ""));
            let found = if path.is_empty() { Some(file.to_path_buf()) } else { repository.find(file, path) };
            match found {
                None if reference.link || repository.looks_like_a_path(path) => problems.push(problem("no such path")),
                Some(target) if anchor.chars().any(char::is_lowercase) => {
                    let known = anchors.get(target.as_path()).is_some_and(|anchors| anchors.contains(anchor));
                    problems.extend((!known).then(|| problem("no such anchor")));
                }
                _ => {}
            }
        }
    }
    problems
}

/// A path that a document may name.
struct Reference {
    text: String,
    /// The target of a link, which must be a path, and not code, which may be anything.
    link: bool,
}

fn is_document(file: &Path) -> bool {
    ends_with(file, &[".md"])
}

fn ends_with(file: &Path, suffixes: &[&str]) -> bool {
    file.to_str().is_some_and(|name| suffixes.iter().any(|suffix| name.ends_with(suffix)))
}

impl Repository {
    fn new(files: BTreeSet<PathBuf>) -> Self {
        let directories = files.iter().flat_map(|file| file.ancestors().skip(1)).map(Path::to_path_buf).collect();
        Self { files, directories }
    }

    /// The file or directory that `path` names in a document: from the root, from the document, or by the end of its
    /// path.
    fn find(&self, document: &Path, path: &str) -> Option<PathBuf> {
        let path = Path::new(path.trim_end_matches('/'));
        let beside = normal(&document.parent()?.join(path));
        let exists = |path: &PathBuf| self.files.contains(path) || self.directories.contains(path);
        let all = || self.files.iter().chain(&self.directories);
        [normal(path), beside].into_iter().find(exists).or_else(|| all().find(|file| file.ends_with(path)).cloned())
    }

    fn looks_like_a_path(&self, code: &str) -> bool {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
        let head = code.split('/').next().unwrap_or_default();
        code.chars().all(is_plain)
            && code.chars().any(char::is_alphabetic)
            && (FILE_SUFFIXES.iter().any(|suffix| code.len() > suffix.len() && code.ends_with(suffix))
                || (code.contains('/') && self.directories.contains(Path::new(head)) && !head.is_empty()))
    }
}

/// A path without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(out.pop()),
            Component::Normal(name) => out.push(name),
            _ => {}
        }
    }
    out
}

/// Code and link targets of a document outside its code blocks, with their line numbers.
fn references(text: &str) -> Vec<(usize, Reference)> {
    let mut found = Vec::new();
    let mut in_block = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        }
        if in_block {
            continue;
        }
        let code = line.split('`').skip(1).step_by(2).map(|code| Reference { text: code.to_owned(), link: false });
        let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let targets = targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:"));
        let links = targets.map(|target| Reference { text: target.to_owned(), link: true });
        found.extend(code.chain(links).map(|reference| (index + 1, reference)));
    }
    found
}

/// What the comments of a source cite: a Markdown file in docs, `#` and an anchor.
fn cited_anchors(text: &str) -> Vec<(usize, Reference)> {
    let cited = |(index, line): (usize, &str)| {
        let (_, comment) = line.split_once("//")?;
        let begin = comment.find("docs/")?;
        let is_part = |c: char| c.is_ascii_alphanumeric() || "/._-#".contains(c);
        let cited: String = comment[begin..].chars().take_while(|c| is_part(*c)).collect();
        let text = cited.trim_end_matches(['.', '-']).to_owned();
        text.contains(".md#").then_some((index + 1, Reference { text, link: true }))
    };
    text.lines().enumerate().filter_map(cited).collect()
}

/// The anchors of a document: its headings as GitHub names them, and its HTML ids.
fn anchors(text: &str) -> BTreeSet<String> {
    let heading = |line: &str| {
        let title = line.strip_prefix('#')?.trim_start_matches('#').strip_prefix(' ')?.to_lowercase();
        let kept = title.trim().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        Some(kept.map(|c| if c == ' ' { '-' } else { c }).collect())
    };
    let ids = text.split("id=\"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()));
    text.lines().filter_map(heading).chain(ids).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: [&str; 5] =
        ["README.md", "docs/KERNEL.md", "tracer/src/run/mod.rs", "tracer/src/run/log.rs", "tracer/README.md"];

    fn found(file: &str, text: &str) -> Vec<String> {
        let repository = Repository::new(FILES.map(PathBuf::from).into());
        let kernel = "# Kernel facts\n<a id=\"current\"></a>\n## 2. Which task is current\n";
        problems(
            &repository,
            &[(Path::new("docs/KERNEL.md"), kernel.to_owned()), (Path::new(file), text.to_owned())].into(),
        )
    }

    #[test]
    fn paths_that_exist_are_fine_from_the_root_from_the_document_and_by_their_end() {
        let text = "`tracer/src/run/mod.rs` [k](docs/KERNEL.md) `run/log.rs` `tracer/src/run/` `mod.rs`";
        assert_eq!(found("README.md", text), [""; 0]);
        assert_eq!(found("tracer/README.md", "[k](../docs/KERNEL.md) `src/run/mod.rs`"), [""; 0]);
    }

    #[test]
    fn paths_that_do_not_exist_are_named_with_their_line() {
        assert_eq!(found("README.md", "\n`tracer/src/gone`"), ["README.md:2: no such path: tracer/src/gone"]);
        assert_eq!(found("README.md", "[x](gone)"), ["README.md:1: no such path: gone"]);
        assert_eq!(found("README.md", "`gone.rs`"), ["README.md:1: no such path: gone.rs"]);
    }

    #[test]
    fn other_code_is_no_path() {
        let text =
            "`net/ipv4/tcp.c` `/proc/net` `tracer/*.rs` `a.b` `portchurn.report/1` `trace.arrow` [x](https://x/y.md)";
        assert_eq!(found("README.md", &format!("{text}\n```\n`tracer/gone.rs`\n```\n")), [""; 0]);
    }

    #[test]
    fn anchors_are_headings_and_ids() {
        let text = "[a](docs/KERNEL.md#2-which-task-is-current) [b](docs/KERNEL.md#current) [c](#here)\n# Here";
        assert_eq!(found("README.md", text), [""; 0]);
        assert_eq!(found("README.md", "[a](#gone)"), ["README.md:1: no such anchor: #gone"]);
        let source = format!("//! See {0}#gone.\n/// ({0}#current: x)", FILES[1]);
        assert_eq!(
            found("tracer/src/run/mod.rs", &source),
            ["tracer/src/run/mod.rs:1: no such anchor: docs/KERNEL.md#gone"]
        );
    }

    #[test]
    fn the_readme_of_the_tests_names_every_suite() {
        let readme = fs::read_to_string(root().join("tests/README.md")).expect("tests/README.md");
        for entry in fs::read_dir(root().join("tests/tests")).expect("the suites") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let suite = path.extension().is_some_and(|extension| extension == "rs");
            assert!(!suite || readme.contains(&format!("| `{name}` |")), "{name}");
        }
    }
}
