//! `cargo xtask layers`: the arrows between the modules of `tracer`, checked.
//!
//! [`MODULES`] is the table of the design in code. The sources are read as tokens, so comments and strings are no trouble, macro bodies are
//! seen, and grouped imports (`use crate::{event::Event, names}`) count each of their heads. `super::` is followed across the
//! crate root. What `#[cfg(test)]` guards, and files named `tests.rs`, are left out: tests may look upwards.
//!
//! Not for: what rustc knows (privacy, unused imports), and re-exports: a name that travels through an allowed module is that module's business.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use proc_macro2::{Delimiter, Ident, TokenStream, TokenTree};

use crate::shell::{root, say};

/// One module of `tracer` and what it may use of the others.
struct Module {
    name: &'static str,
    layer: u8,
    uses: Uses,
}

enum Uses {
    /// Whatever lies in a lower layer.
    Lower,
    /// Whatever lies in a lower layer or in its own.
    LowerAndPeers,
    /// These and nothing else; `a::b` means that part of `a`.
    Only(&'static [&'static str]),
}

const MODULES: [Module; 19] = [
    Module { name: "event", layer: 0, uses: Uses::Only(&[]) },
    Module { name: "sys", layer: 0, uses: Uses::Only(&[]) },
    Module { name: "layout", layer: 0, uses: Uses::Only(&[]) },
    Module { name: "clock", layer: 1, uses: Uses::Lower },
    // Time and facts are its arguments; it never sees where they come from or who looks.
    Module { name: "tracker", layer: 1, uses: Uses::Only(&["event"]) },
    Module { name: "probe", layer: 1, uses: Uses::Lower },
    Module { name: "names", layer: 1, uses: Uses::Lower },
    Module { name: "recording", layer: 2, uses: Uses::Only(&["event", "clock", "sys"]) },
    Module { name: "source", layer: 3, uses: Uses::Only(&["probe", "recording", "names", "clock", "event", "sys"]) },
    // Views see the snapshot and nothing behind it. `event` is the vocabulary that the snapshot itself is written in.
    Module { name: "filter", layer: 3, uses: Uses::Only(&["tracker::snapshot", "names", "event"]) },
    // Its rows are those of the recording.
    Module { name: "export", layer: 3, uses: Uses::Only(&["tracker::snapshot", "recording", "clock", "event"]) },
    Module {
        name: "report",
        layer: 3,
        uses: Uses::Only(&["tracker::snapshot", "names", "event", "filter", "clock", "layout"]),
    },
    Module {
        name: "stream",
        layer: 3,
        uses: Uses::Only(&["tracker::snapshot", "names", "event", "filter", "clock", "layout"]),
    },
    // Host facts are the report's words for where one looks.
    Module {
        name: "tui",
        layer: 3,
        uses: Uses::Only(&["tracker::snapshot", "names", "event", "filter", "clock", "layout", "host"]),
    },
    Module { name: "run", layer: 4, uses: Uses::LowerAndPeers },
    Module { name: "cli", layer: 4, uses: Uses::LowerAndPeers },
    Module { name: "demo", layer: 4, uses: Uses::LowerAndPeers },
    Module { name: "doctor", layer: 4, uses: Uses::LowerAndPeers },
    Module { name: "main", layer: 5, uses: Uses::Lower },
];

/// The crates that talk to the kernel's BPF side, and the only modules that may name them.
const AYA: [&str; 3] = ["aya", "aya_log", "aya_obj"];
const MAY_NAME_AYA: [&str; 2] = ["probe", "source"];

/// A use of `target` (a path from the crate root) at a line.
#[derive(Debug, PartialEq, Eq)]
struct Arrow {
    target: Vec<String>,
    line: usize,
}

#[derive(Debug, PartialEq, Eq)]
struct Violation {
    file: String,
    line: usize,
    what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

pub fn check_workspace() -> Result<()> {
    let sources = root().join("tracer/src");
    let mut violations = Vec::new();
    let mut files = 0_usize;
    visit(&sources, &mut |file| {
        let path = file.strip_prefix(&sources).unwrap_or(file).to_string_lossy().into_owned();
        let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        violations.extend(check(&path, &text)?);
        files += 1;
        Ok(())
    })?;
    for violation in &violations {
        eprintln!("tracer/src/{violation}");
    }
    if !violations.is_empty() {
        bail!("{} arrows against the layers; the table is in xtask/src/layers.rs", violations.len());
    }
    say(&format!("layers: {files} files keep to the arrows"));
    Ok(())
}

fn visit(dir: &Path, each: &mut impl FnMut(&Path) -> Result<()>) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            visit(&path, each)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            each(&path)?;
        }
    }
    Ok(())
}

/// The violations in one file, named relative to `tracer/src`.
fn check(file: &str, text: &str) -> Result<Vec<Violation>> {
    let path = module_path(file);
    // The crate root only declares modules and re-exports; tests may look upwards.
    let (Some(top), false) = (path.first(), path.last().is_some_and(|name| name == "tests")) else {
        return Ok(Vec::new());
    };
    let tokens: TokenStream =
        text.parse().map_err(|error| anyhow::anyhow!("tracer/src/{file} is not Rust: {error}"))?;
    let mut scan = Scan { module: path.clone(), arrows: Vec::new(), aya: Vec::new() };
    scan.tokens(tokens);

    let violation = |line, what| Violation { file: file.to_owned(), line, what };
    let Some(module) = MODULES.iter().find(|module| module.name == top) else {
        return Ok(vec![violation(1, format!("module `{top}` is not in the table of layers"))]);
    };
    let mut violations: Vec<Violation> = scan
        .arrows
        .iter()
        .filter(|arrow| !module.may_use(&arrow.target))
        .map(|arrow| violation(arrow.line, format!("`{top}` must not use `{}`", arrow.target.join("::"))))
        .collect();
    if !MAY_NAME_AYA.contains(&module.name) {
        violations.extend(scan.aya.iter().map(|&line| violation(line, format!("`{top}` must not name aya"))));
    }
    Ok(violations)
}

impl Module {
    fn may_use(&self, target: &[String]) -> bool {
        let Some(head) = target.first().filter(|head| *head != self.name) else { return true };
        // Not a module: a macro or another item of the crate root.
        let Some(other) = MODULES.iter().find(|module| module.name == head) else { return true };
        match self.uses {
            Uses::Lower => other.layer < self.layer,
            Uses::LowerAndPeers => other.layer <= self.layer,
            Uses::Only(allowed) => allowed.iter().any(|allowed| begins_with(target, allowed)),
        }
    }
}

/// Whether a path begins with all parts of another, written `a::b`.
fn begins_with(path: &[String], beginning: &str) -> bool {
    let mut path = path.iter();
    beginning.split("::").all(|part| path.next().is_some_and(|found| found == part))
}

/// `tracker/findings/mod.rs` -> `[tracker, findings]`; the crate root is empty.
fn module_path(file: &str) -> Vec<String> {
    let mut path: Vec<String> = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if path.last().is_some_and(|last| last == "mod") || path == ["lib"] {
        path.pop();
    }
    path
}

struct Scan {
    /// Where we are, inline modules included; `super` counts from here.
    module: Vec<String>,
    arrows: Vec<Arrow>,
    aya: Vec<usize>,
}

impl Scan {
    fn tokens(&mut self, stream: TokenStream) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            if is_cfg_test(&tokens[at..]) {
                at = end_of_item(&tokens, at);
                continue;
            }
            match token {
                TokenTree::Ident(ident) if starts_path(&tokens, at) => at = self.ident(ident, &tokens, at),
                TokenTree::Group(group) => {
                    self.tokens(group.stream());
                    at += 1;
                }
                _ => at += 1,
            }
        }
    }

    /// Reads on from an identifier that no `::` precedes; returns where to go on.
    fn ident(&mut self, ident: &Ident, tokens: &[TokenTree], at: usize) -> usize {
        let name = ident.to_string();
        if AYA.contains(&name.as_str()) {
            self.aya.push(ident.span().start().line);
        }
        let in_main = self.module.first().is_some_and(|top| top == "main");
        match name.as_str() {
            "mod" => {
                if let (Some(TokenTree::Ident(module)), Some(TokenTree::Group(body))) =
                    (tokens.get(at + 1), tokens.get(at + 2))
                {
                    self.module.push(module.to_string());
                    self.tokens(body.stream());
                    self.module.pop();
                    return at + 3;
                }
                at + 1
            }
            // The binary sees the library under its package's name.
            "tracer" if in_main => self.path(Vec::new(), tokens, at + 1),
            "crate" if !in_main => self.path(Vec::new(), tokens, at + 1),
            "self" => self.path(self.module.clone(), tokens, at + 1),
            "super" => self.path(parent(&self.module), tokens, at + 1),
            _ => at + 1,
        }
    }

    /// Follows `::a::b`, `::{a, b::c}` behind a head that stands for `prefix`; records what it names.
    fn path(&mut self, mut prefix: Vec<String>, tokens: &[TokenTree], mut at: usize) -> usize {
        let mut line = None;
        while is_path_separator(tokens, at) {
            match tokens.get(at + 2) {
                Some(TokenTree::Ident(ident)) => {
                    line = Some(ident.span().start().line);
                    if ident == "super" {
                        prefix = parent(&prefix);
                    } else {
                        prefix.push(ident.to_string());
                    }
                    at += 3;
                }
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    self.group(&prefix, group.stream());
                    return at + 3;
                }
                // `::*`, or the turbofish of a generic function.
                _ => break,
            }
        }
        if let Some(line) = line {
            self.arrows.push(Arrow { target: prefix, line });
        }
        at
    }

    /// The inside of `{...}` in a path: comma-separated tails.
    fn group(&mut self, prefix: &[String], stream: TokenStream) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        for tail in tokens.split(|token| matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',')) {
            let Some(TokenTree::Ident(head)) = tail.first() else { continue };
            let mut target = prefix.to_vec();
            if head != "self" {
                target.push(head.to_string());
            }
            let line = head.span().start().line;
            match tail.get(3) {
                // `a::b...` names more than `a`; `a`, `a as b` and `a::*` name just that.
                Some(TokenTree::Ident(_) | TokenTree::Group(_)) if is_path_separator(tail, 1) => {
                    self.path(target, tail, 1);
                }
                _ => self.arrows.push(Arrow { target, line }),
            }
        }
    }
}

fn parent(path: &[String]) -> Vec<String> {
    path.split_last().map_or_else(Vec::new, |(_, parent)| parent.to_vec())
}

fn is_punct(token: Option<&TokenTree>, wanted: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

fn is_path_separator(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':')
}

/// Whether the identifier here is the head of a path, not a field, a method or a later part.
fn starts_path(tokens: &[TokenTree], at: usize) -> bool {
    let before = |distance: usize| at.checked_sub(distance).and_then(|at| tokens.get(at));
    let leading_separator = is_punct(before(1), ':') && is_punct(before(2), ':');
    // `::aya` names the crate; `a::aya` would be an item called so.
    let named_part = leading_separator && matches!(before(3), Some(TokenTree::Ident(ident)) if ident != "use");
    !named_part && !is_punct(before(1), '.')
}

/// Whether `#[cfg(test)]`, or a cfg that demands it among others, begins here.
fn is_cfg_test(tokens: &[TokenTree]) -> bool {
    let (true, Some(TokenTree::Group(attribute))) = (is_punct(tokens.first(), '#'), tokens.get(1)) else {
        return false;
    };
    let text = attribute.stream().to_string().replace(' ', "");
    text == "cfg(test)" || text.starts_with("cfg(all(test,")
}

/// The index behind the item that starts (with its attributes) at `at`: behind its braces or its semicolon.
fn end_of_item(tokens: &[TokenTree], at: usize) -> usize {
    let is_end = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        other => is_punct(Some(other), ';'),
    };
    // `use a::{b};` ends at its semicolon, not at its braces.
    let is_use = tokens[at..]
        .iter()
        .take_while(|token| !is_end(token))
        .any(|token| matches!(token, TokenTree::Ident(ident) if ident == "use"));
    let end = |token: &TokenTree| if is_use { is_punct(Some(token), ';') } else { is_end(token) };
    tokens[at..].iter().position(end).map_or(tokens.len(), |length| at + length + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(file: &str, text: &str) -> Vec<String> {
        let violations = check(file, text).expect("a sample that is Rust");
        violations.into_iter().map(|violation| violation.to_string()).collect()
    }

    fn good(file: &str, text: &str) {
        assert_eq!(complaints(file, text), Vec::<String>::new(), "{file}: {text}");
    }

    fn bad(file: &str, text: &str, expected: &str) {
        assert_eq!(complaints(file, text), [expected], "{file}: {text}");
    }

    #[test]
    fn arrows_that_the_design_draws() {
        good(
            "tracker/flow.rs",
            "use crate::event::{Event, FlowKey}; use super::slab::Slab; use crate::tracker::cell::Cell;",
        );
        good("report/text.rs", "use crate::{clock::Anchor, tracker::snapshot::{Snapshot, Finding}};");
        good("source/live.rs", "use aya::maps::RingBuf; use crate::{names, probe::Session, recording::Reader};");
        good("run/mod.rs", "use crate::{cli::Config, source, tui};");
        good("main.rs", "use tracer::{cli, run};");
        good("lib.rs", "pub use crate::tracker::snapshot::Snapshot;");
    }

    #[test]
    fn the_tracker_sees_events_only() {
        bad(
            "tracker/mod.rs",
            "\nuse crate::source::Source;",
            "tracker/mod.rs:2: `tracker` must not use `source::Source`",
        );
        bad("tracker/mod.rs", "use crate::{event::Event, names};", "tracker/mod.rs:1: `tracker` must not use `names`");
        bad(
            "tracker/flow.rs",
            "use super::super::probe::Plan;",
            "tracker/flow.rs:1: `tracker` must not use `probe::Plan`",
        );
        bad(
            "tracker/flow.rs",
            "fn f() -> crate::clock::Anchor {}",
            "tracker/flow.rs:1: `tracker` must not use `clock::Anchor`",
        );
    }

    #[test]
    fn groups_macros_and_inline_modules_hide_nothing() {
        bad("tracker/mod.rs", "use crate::{event, tui as t};", "tracker/mod.rs:1: `tracker` must not use `tui`");
        bad("report/mod.rs", "use crate::{event, tracker::*};", "report/mod.rs:1: `report` must not use `tracker`");
        bad(
            "tracker/mod.rs",
            "fn f() { assert!(crate::export::ok()); }",
            "tracker/mod.rs:1: `tracker` must not use `export::ok`",
        );
        bad(
            "tracker/mod.rs",
            "mod a { use super::super::recording::R; }",
            "tracker/mod.rs:1: `tracker` must not use `recording::R`",
        );
        assert_eq!(complaints("tracker/mod.rs", "use crate::{source::{live, replay}};").len(), 2);
    }

    #[test]
    fn comments_strings_and_tests_are_no_arrows() {
        good("tracker/mod.rs", "//! see crate::source\n/* use crate::tui; */ const S: &str = \"crate::export::X\";");
        good("tracker/mod.rs", "#[cfg(test)] mod tests { use crate::source::Synthetic; }");
        good("tracker/findings/tests.rs", "use crate::source::Synthetic;");
        bad(
            "tracker/mod.rs",
            "#[cfg(test)] use crate::source::{A}; use crate::names::B;",
            "tracker/mod.rs:1: `tracker` must not use `names::B`",
        );
    }

    #[test]
    fn views_see_the_snapshot_and_nothing_behind_it() {
        good("tui/render.rs", "use crate::tracker::snapshot::Snapshot;");
        bad("tui/render.rs", "use crate::tracker::Tracker;", "tui/render.rs:1: `tui` must not use `tracker::Tracker`");
        bad("tui/render.rs", "use crate::probe::Host;", "tui/render.rs:1: `tui` must not use `probe::Host`");
        bad("export/mod.rs", "use crate::report::Report;", "export/mod.rs:1: `export` must not use `report::Report`");
    }

    #[test]
    fn lower_layers_never_look_up() {
        bad(
            "event.rs",
            "use crate::tracker::snapshot::Snapshot;",
            "event.rs:1: `event` must not use `tracker::snapshot::Snapshot`",
        );
        bad("source/mod.rs", "use crate::run::Config;", "source/mod.rs:1: `source` must not use `run::Config`");
        bad(
            "recording/mod.rs",
            "use crate::tracker::Tracker;",
            "recording/mod.rs:1: `recording` must not use `tracker::Tracker`",
        );
    }

    #[test]
    fn only_probe_and_source_name_aya() {
        good("probe/attach.rs", "use aya::Ebpf;");
        good("run/mod.rs", "// aya\nfn f() -> &'static str { report.aya(); \"aya\" }");
        bad("run/mod.rs", "fn f(e: &aya::Ebpf) {}", "run/mod.rs:1: `run` must not name aya");
        bad("main.rs", "use ::aya_log::EbpfLogger;", "main.rs:1: `main` must not name aya");
    }

    #[test]
    fn a_module_outside_the_table_is_a_violation() {
        bad("helpers/mod.rs", "fn f() {}", "helpers/mod.rs:1: module `helpers` is not in the table of layers");
    }
}
