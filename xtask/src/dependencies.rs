//! Checks of the dependencies: cargo-deny with deny.toml, and that tracer-core stays independent of the operating
//! system.

use anyhow::{Context as _, Result, ensure};

use crate::setup::python_program;
use crate::shell::{answer, cargo, command, run};

/// Crates of the workspace and others that exist for one operating system, a kernel or a terminal.
const NOT_IN_CORE: [&str; 21] = [
    "aya",
    "aya-log",
    "aya-obj",
    "btfparse",
    "caps",
    "crossterm",
    "io-uring",
    "mio",
    "netlink-packet-core",
    "netlink-packet-sock-diag",
    "netlink-sys",
    "nix",
    "perf-event2",
    "procfs",
    "ratatui",
    "rustix",
    "signal-hook",
    "socket2",
    "tempfile",
    "tokio",
    "tracer",
];

/// Checks licences, versions and sources of all dependencies, then the dependencies of tracer-core.
pub fn check() -> Result<()> {
    let cargo_deny = python_program("cargo-deny");
    ensure!(cargo_deny.is_file(), "{} is missing: run `cargo xtask setup`", cargo_deny.display());
    run(command(cargo_deny).args(["--workspace", "--locked", "check", "licenses", "bans", "sources"]))?;
    let tree = answer(cargo().args(["tree", "-p", "tracer-core", "-e", "normal", "--prefix", "none", "--locked"]))
        .context("`cargo tree -p tracer-core` fails")?;
    let found = not_in_core(&tree);
    ensure!(found.is_empty(), "tracer-core must build on any operating system and depends on: {}", found.join(", "));
    Ok(())
}

/// The crates of [`NOT_IN_CORE`] in the output of cargo tree, which has one `name vVERSION` per line.
fn not_in_core(tree: &str) -> Vec<&str> {
    let names = tree.lines().filter_map(|line| line.split(' ').next());
    let mut found: Vec<&str> = names.filter(|name| NOT_IN_CORE.contains(name)).collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crates_of_an_operating_system_are_found() {
        let tree =
            "tracer-core v0.1.0 (/w/tracer-core)\narrow-array v60.1.0\nnix v0.31.0\nrustix v1.1.6\nnix v0.31.0 (*)\n";
        assert_eq!(not_in_core(tree), ["nix", "rustix"]);
        assert!(not_in_core("tracer-core v0.1.0\ntracer-common v0.1.0\n").is_empty());
    }
}
