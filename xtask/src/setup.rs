//! `cargo xtask setup`: what building and testing need beyond stable Rust, installed when it is missing.
//!
//! The pins and their reasons: `bpf-linker` 0.10.3 is the last one that links against rustc's own LLVM, so that it installs
//! with cargo alone; `core` for the BPF target is built from the nightly toolchain's `rust-src`.
//!
//! Each step first looks and only then acts, so a second call changes nothing and is fast.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use crate::shell::{self, answer, command, is_root, nightly, root, run, say, target_dir};

const BPF_LINKER: &str = "0.10.3";
const PACKAGES: &str = "tests/packages.txt";
/// `ip`, with which the demo makes its namespaces.
const DEMO_PACKAGE: &str = "iproute2";
const CARGO_FUZZ: &str = "0.13.2";
const PYTHON_PACKAGES: &str = "tests/python-requirements.txt";
/// Below the target directory, where nothing of it can be committed.
const PYTHON: &str = "python";

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// To compile portchurn and to run its demo.
    Demo,
    /// Also what the tests and lints call.
    Everything,
}

pub fn setup(needs: Needs) -> Result<()> {
    rust_version()?;
    nightly_toolchain()?;
    nightly_sources()?;
    bpf_linker()?;
    match needs {
        Needs::Demo if answer(command("ip").arg("-V")).is_none() => install(&[DEMO_PACKAGE])?,
        Needs::Demo => {}
        Needs::Everything => debian_packages()?,
    }
    if needs == Needs::Everything {
        lints()?;
        cargo_fuzz()?;
        python_packages()?;
    }
    say("setup: complete");
    Ok(())
}

fn rust_version() -> Result<()> {
    let needed = env!("CARGO_PKG_RUST_VERSION");
    let found = answer(command("rustc").arg("--version"))
        .context("rustc does not run: install Rust from https://rustup.rs, then repeat `cargo xtask setup`")?;
    ensure!(
        at_least(&found, needed),
        "portchurn needs Rust {needed} or newer and this is {}: run `rustup update stable`",
        found.trim()
    );
    Ok(())
}

/// Whether the output of `rustc --version` names this version or a newer one.
fn at_least(rustc: &str, needed: &str) -> bool {
    let numbers = |version: &str| {
        let mut parts = version.split(['.', '-', '+']).map(|part| part.parse::<u32>().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    };
    rustc.split_whitespace().nth(1).is_some_and(|version| numbers(version) >= numbers(needed))
}

fn nightly_toolchain() -> Result<()> {
    let Some(toolchains) = answer(command("rustup").args(["toolchain", "list"])) else {
        bail!(
            "the BPF programs need a nightly toolchain and rustup is not there: install it from https://rustup.rs, then repeat `cargo xtask setup`"
        );
    };
    if toolchains.lines().any(|line| line.starts_with("nightly")) {
        return Ok(());
    }
    say("setup: installing the nightly toolchain (compiles the BPF programs)");
    run(command("rustup").args(["toolchain", "install", "nightly", "--profile", "minimal"]))
        .context("without a nightly toolchain the BPF programs do not build; can rustup reach its download server?")
}

fn nightly_sources() -> Result<()> {
    if sysroot(&mut nightly("rustc"))?.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file() {
        return Ok(());
    }
    say("setup: installing rust-src of nightly (`core` is compiled for the BPF target)");
    add_component("rust-src", "nightly")
}

fn add_component(component: &str, toolchain: &str) -> Result<()> {
    run(command("rustup").args(["component", "add", component, "--toolchain", toolchain])).with_context(|| {
        format!("adding {component}; if this nightly lacks it, `rustup update {toolchain}` gets a newer one")
    })
}

fn sysroot(rustc: &mut std::process::Command) -> Result<PathBuf> {
    let printed = answer(rustc.args(["--print", "sysroot"]))
        .context("a toolchain is listed but its rustc does not run: `rustup update` repairs it")?;
    Ok(PathBuf::from(printed.trim()))
}

fn bpf_linker() -> Result<()> {
    let found = answer(command("bpf-linker").arg("--version")).unwrap_or_default();
    let found = found.split_whitespace().nth(1).unwrap_or_default();
    if found == BPF_LINKER {
        return Ok(());
    }
    let why = if found.is_empty() { "not there yet".to_owned() } else { format!("in place of {found}") };
    say(&format!("setup: installing bpf-linker {BPF_LINKER} ({why}); this takes some minutes"));
    // --force: another version that cargo did not install would otherwise be in the way.
    let force: &[&str] = if found.is_empty() { &[] } else { &["--force"] };
    run(shell::install("bpf-linker", BPF_LINKER).args(force))
        .context("bpf-linker links the BPF programs; it needs a C++ compiler (`apt-get install g++`) and crates.io")?;
    let installed = answer(command("bpf-linker").arg("--version")).unwrap_or_default();
    ensure!(
        installed.split_whitespace().nth(1) == Some(BPF_LINKER),
        "cargo installed bpf-linker {BPF_LINKER} but the PATH finds {:?} first: remove that one",
        installed.trim()
    );
    Ok(())
}

/// clippy and rustfmt of stable, clippy of nightly (for the BPF target).
fn lints() -> Result<()> {
    let has = |sysroot: &Path, tool: &str| sysroot.join("bin").join(tool).is_file();
    let stable = sysroot(command("rustc").env_remove("RUSTC"))?;
    let nightly = sysroot(&mut nightly("rustc"))?;
    for (sysroot, tool, component) in
        [(&stable, "cargo-clippy", "clippy"), (&stable, "rustfmt", "rustfmt"), (&nightly, "cargo-clippy", "clippy")]
    {
        if has(sysroot, tool) {
            continue;
        }
        // The directory of a rustup toolchain bears its name.
        let toolchain = sysroot.file_name().unwrap_or_default().to_string_lossy();
        say(&format!("setup: installing {component} of {toolchain}"));
        add_component(component, &toolchain)?;
    }
    Ok(())
}

fn debian_packages() -> Result<()> {
    let list = match fs::read_to_string(root().join(PACKAGES)) {
        Ok(list) => list,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context(format!("reading {PACKAGES}")),
    };
    let wanted = packages(&list);
    if wanted.is_empty() {
        return Ok(());
    }
    let mut query = command("dpkg-query");
    query.args(["-W", "-f=${Package} ${db:Status-Status}\n"]).args(&wanted);
    // It exits with 1 when it does not know one of them, so its status says nothing.
    let Ok(output) = query.output() else {
        say(&format!(
            "setup: no dpkg here, so nothing was installed; the end-to-end tests use what Debian has in: {}",
            wanted.join(" ")
        ));
        return Ok(());
    };
    let missing = missing(&wanted, &String::from_utf8_lossy(&output.stdout));
    if missing.is_empty() { Ok(()) } else { install(&missing) }
}

fn install(missing: &[&str]) -> Result<()> {
    let line = format!("apt-get update && apt-get install -y --no-install-recommends {}", missing.join(" "));
    if !is_root() || answer(command("apt-get").arg("--version")).is_none() {
        bail!("Debian packages are missing; run this as root, then repeat:\n  {line}");
    }
    say(&format!("setup: installing Debian packages: {}", missing.join(" ")));
    run(command("apt-get").args(["update", "-qq"])).context("apt-get update; is a package mirror reachable?")?;
    run(command("apt-get")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["install", "-y", "-qq", "--no-install-recommends"])
        .args(missing))
    .with_context(|| format!("installing Debian packages; by hand, as root: {line}"))
}

/// Drives the fuzz targets. 0.13 is the one that has been seen to work with them.
fn cargo_fuzz() -> Result<()> {
    if answer(command("cargo-fuzz").arg("--version")).is_some_and(|found| found.trim().ends_with(CARGO_FUZZ)) {
        return Ok(());
    }
    say(&format!("setup: installing cargo-fuzz {CARGO_FUZZ}"));
    run(shell::install("cargo-fuzz", CARGO_FUZZ).arg("--force"))
        .context("cargo-fuzz runs the fuzz targets; it needs crates.io")
}

/// A Python of our own with what analysts open recordings with.
fn python_packages() -> Result<()> {
    let wanted =
        fs::read_to_string(root().join(PYTHON_PACKAGES)).with_context(|| format!("reading {PYTHON_PACKAGES}"))?;
    let dir = target_dir().join(PYTHON);
    let python = dir.join("bin/python");
    let installed = answer(std::process::Command::new(&python).args(["-m", "pip", "freeze"])).unwrap_or_default();
    let missing = packages(&wanted).into_iter().any(|package| !installed.lines().any(|line| line == package));
    if !missing {
        return Ok(());
    }
    say(&format!("setup: installing the Python packages of {PYTHON_PACKAGES}"));
    run(command("python3").args(["-m", "venv"]).arg(&dir))
        .context("making a Python environment; on Debian: apt-get install python3-venv")?;
    run(std::process::Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
        .arg(root().join(PYTHON_PACKAGES)))
    .with_context(|| format!("installing the packages of {PYTHON_PACKAGES}; is PyPI reachable?"))
}

/// The names in a package list: one per line, `#` starts a comment.
fn packages(list: &str) -> Vec<&str> {
    list.lines().filter_map(|line| line.split('#').next()?.split_whitespace().next()).collect()
}

/// Those of `wanted` that dpkg-query did not call installed.
fn missing<'a>(wanted: &[&'a str], dpkg_query: &str) -> Vec<&'a str> {
    let installed: BTreeSet<&str> = dpkg_query.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    wanted.iter().copied().filter(|name| !installed.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_list_has_comments_and_empty_lines() {
        assert_eq!(packages("# what for\niproute2   # ip, ss\n\n  util-linux\n"), ["iproute2", "util-linux"]);
    }

    #[test]
    fn a_package_that_is_only_configured_or_unknown_is_missing() {
        let dpkg = "iproute2 installed\nphp8.2-fpm config-files\n";
        assert_eq!(missing(&["iproute2", "php8.2-fpm", "ethtool"], dpkg), ["php8.2-fpm", "ethtool"]);
    }

    #[test]
    fn rust_versions_compare_as_numbers() {
        assert!(at_least("rustc 1.88.0 (6b00bc388 2025-06-23)", "1.88"));
        assert!(at_least("rustc 1.100.0-nightly (0 2026-11-01)", "1.88"));
        assert!(!at_least("rustc 1.87.9 (0 2025-06-23)", "1.88"));
        assert!(!at_least("no rustc", "1.88"));
    }
}
