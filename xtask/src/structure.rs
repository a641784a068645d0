//! `cargo xtask structure`: three rules that neither rustc nor the crate boundaries keep.
//!
//! No files of a crate need each other in a circle. No public type name exists twice in the workspace. No type or
//! module has a name that CONTRIBUTING.md's glossary has replaced. Unit tests are left out: they may use whatever they
//! test.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::shell::say;
use crate::sources::{Modules, read, target};

/// Sources of every crate, the root file of each.
const CRATE_ROOTS: [&str; 11] = [
    "tests/protocol/src/lib.rs",
    "tests/src/bin/churn/main.rs",
    "tests/src/bin/flood/main.rs",
    "tests/src/bin/meter/main.rs",
    "tests/src/bin/vm-init.rs",
    "tests/src/lib.rs",
    "tracer-common/src/lib.rs",
    "tracer-core/src/lib.rs",
    "tracer/src/lib.rs",
    "tracer/src/main.rs",
    "xtask/src/main.rs",
];

/// Public names that several crates or modules may have, each with the reason.
const MAY_BE_SHARED: [(&str, &str); 0] = [];

/// Names of types and modules that CONTRIBUTING.md's glossary has replaced with the field's words.
const REPLACED: &str = "About Attr Claim Desk Dest Errand Fed Graves Hits Keep Keeping Kind Ledger Nudge Pairs People Place \
    Places Proc Pulse Rare Second ShortKey Sieve Spot Step Tabler Tap Told Visit Wanted Wish \
    claim floor keep ledger moves pairs people ports show tap values words";

pub fn check_workspace() -> Result<()> {
    let mut problems = Vec::new();
    let mut public: BTreeMap<String, BTreeSet<PathBuf>> = BTreeMap::new();
    let mut files = 0;
    for crate_root in CRATE_ROOTS {
        let mut modules = Modules::new();
        read(Path::new(crate_root), Vec::new(), &mut modules)?;
        files += modules.len();
        problems.extend(circles(&modules));
        for (path, module) in &modules {
            let names = path.last().into_iter().chain(module.types.iter().map(|(name, _)| name));
            let replaced = names.filter(|name| REPLACED.split_whitespace().any(|replaced| replaced == *name));
            problems.extend(replaced.map(|name| format!("{}: the name {name} is replaced", module.file.display())));
            for (name, _) in module.types.iter().filter(|(_, public)| *public) {
                public.entry(name.clone()).or_default().insert(module.file.clone());
            }
        }
    }
    let shared = |name: &str| MAY_BE_SHARED.iter().any(|(shared, _)| *shared == name);
    for (name, places) in public.iter().filter(|(name, places)| places.len() > 1 && !shared(name)) {
        let places: Vec<String> = places.iter().map(|file| file.display().to_string()).collect();
        problems.push(format!("public type {name} exists {} times: {}", places.len(), places.join(", ")));
    }
    for problem in &problems {
        eprintln!("{problem}");
    }
    ensure!(problems.is_empty(), "{} problems; the rules are in xtask/src/structure.rs", problems.len());
    say(&format!("structure: {files} files without circles, doubled or replaced names"));
    Ok(())
}

/// Groups of files that need each other, one sentence each.
fn circles(modules: &Modules) -> Vec<String> {
    let direct: BTreeMap<&Vec<String>, BTreeSet<&Vec<String>>> = modules
        .iter()
        .map(|(path, module)| {
            let targets = module.uses.iter().filter_map(|used| target(modules, used));
            (path, targets.filter(|target| *target != path).collect())
        })
        .collect();
    let mut reached = direct.clone();
    for through in modules.keys() {
        let further = reached[through].clone();
        for targets in reached.values_mut().filter(|targets| targets.contains(through)) {
            targets.extend(&further);
        }
    }
    let mut groups: BTreeSet<BTreeSet<&Vec<String>>> = BTreeSet::new();
    for path in modules.keys().filter(|path| reached[path].contains(path)) {
        groups.insert(reached[path].iter().copied().filter(|other| reached[other].contains(path)).collect());
    }
    let name = |path: &Vec<String>| modules[path].file.display().to_string();
    let sentence = |group: &BTreeSet<&Vec<String>>| {
        let needs = |path: &&Vec<String>| {
            let inside: Vec<String> = direct[path].intersection(group).map(|other| name(other)).collect();
            format!("  {} uses {}", name(path), inside.join(", "))
        };
        format!("these files need each other:\n{}", group.iter().map(needs).collect::<Vec<_>>().join("\n"))
    };
    groups.iter().map(sentence).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::parse;

    fn found(files: &[(&str, &str)]) -> usize {
        let path = |name: &str| name.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        let module =
            |(name, text): &(&str, &str)| (path(name), parse(text, &path(name)).expect("a sample that is Rust"));
        circles(&files.iter().map(module).collect()).len()
    }

    #[test]
    fn files_that_need_each_other_are_a_circle() {
        assert_eq!(found(&[("a", "use crate::b::B;"), ("b", "fn f() { crate::a::f() }")]), 1);
        assert_eq!(found(&[("a", "use crate::{b::B};"), ("b", "use super::c;"), ("c", "type T = crate::a::A;")]), 1);
        assert_eq!(found(&[("a", "mod b; fn f() { b::f() }"), ("a/b", "fn f() { assert!(super::g(), \"g\") }")]), 1);
        assert_eq!(found(&[("a", "use crate::b::B;"), ("b", "use std::fmt;")]), 0);
    }

    #[test]
    fn a_name_counts_for_the_file_that_defines_it() {
        let files =
            [("a", "mod b; mod c; pub use b::B; use c::C;"), ("a/b", "pub struct B;"), ("a/c", "use crate::a::B;")];
        assert_eq!(found(&files), 0);
    }

    #[test]
    fn tests_and_comments_use_nothing() {
        let tests = "#[cfg(test)] mod tests { use crate::b::B; } // crate::b\n#[cfg(test)] use crate::b::C;";
        assert_eq!(found(&[("a", tests), ("b", "use crate::a::A;")]), 0);
    }
}
