//! `cargo xtask setup`: installs what building and testing need beyond the toolchain of rust-toolchain.toml, which
//! rustup installs.
//!
//! `bpf-linker` 0.10.3 is the last version that links against rustc's own LLVM, so that cargo alone can install it.
//!
//! Each step first checks what is installed, so a second call changes nothing and is fast.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};

use crate::shell::{self, answer, command, is_root, root, run, say, target_dir};
use crate::toolchain::{Nightly, installed_nightly, pinned_nightly};

const BPF_LINKER: &str = "0.10.3";
const PACKAGES: &str = "tests/packages.txt";
const PACKAGING_TOOLS: &str = "xtask/packaging/tools.txt";
/// `ip`, which the demo calls to create its namespaces.
const DEMO_PACKAGE: &str = "iproute2";
const CARGO_FUZZ: &str = "0.13.2";
const PYTHON_PACKAGES: &str = "tests/python-requirements.txt";
/// Directory below the target directory, so that git ignores it.
const PYTHON: &str = "python";

/// Path of a program in the Python environment.
pub fn python_program(name: &str) -> PathBuf {
    target_dir().join(PYTHON).join("bin").join(name)
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// What compiling portchurn and running its demo need.
    Demo,
    /// Also what the tests and checks need.
    Everything,
}

pub fn setup(needs: Needs) -> Result<()> {
    nightly_toolchain(needs)?;
    bpf_linker()?;
    match needs {
        Needs::Demo if answer(command("ip").arg("-V")).is_none() => install(&[DEMO_PACKAGE])?,
        Needs::Demo => {}
        Needs::Everything => debian_packages(PACKAGES)?,
    }
    if needs == Needs::Everything {
        cargo_fuzz()?;
        python_packages()?;
    }
    say("setup: complete");
    Ok(())
}

/// The pinned nightly with the components of tracer-ebpf/rust-toolchain.toml. Where it cannot be installed, any nightly
/// must do.
fn nightly_toolchain(needs: Needs) -> Result<()> {
    let pinned = pinned_nightly();
    let components: &[&str] = if needs == Needs::Demo { &["rust-src"] } else { &["rust-src", "clippy"] };
    if answer(command("rustup").arg("--version")).is_none() {
        bail!(
            "the BPF programs need {pinned} and rustup is not installed: install it from https://rustup.rs, then repeat \
             `cargo xtask setup`"
        );
    }
    if let Some(nightly) = installed_nightly().filter(|nightly| nightly.name == pinned) {
        let missing: Vec<&str> = components.iter().copied().filter(|name| !has(&nightly, name)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        say(&format!("setup: installing {} of {pinned}", missing.join(", ")));
        return run(command("rustup").args(["component", "add", "--toolchain", pinned]).args(missing));
    }
    say(&format!("setup: installing {pinned}, which compiles the BPF programs"));
    let mut install = command("rustup");
    install.args(["toolchain", "install", pinned, "--profile", "minimal", "--no-self-update"]);
    install.args(components.iter().flat_map(|component| ["--component", component]));
    let Err(error) = run(&mut install) else { return Ok(()) };
    let Some(other) = installed_nightly() else {
        return Err(error.context("without a nightly toolchain the BPF programs do not build"));
    };
    say(&format!("setup: {error:#}; the installed {} compiles the BPF programs in place of {pinned}", other.name));
    let missing: Vec<&str> = components.iter().copied().filter(|name| !has(&other, name)).collect();
    ensure!(missing.is_empty(), "{} lacks: {}", other.name, missing.join(", "));
    Ok(())
}

/// Whether a toolchain has `rust-src` or `clippy`.
fn has(nightly: &Nightly, component: &str) -> bool {
    let file = if component == "clippy" { "bin/cargo-clippy" } else { "lib/rustlib/src/rust/library/core/Cargo.toml" };
    nightly.sysroot.join(file).is_file()
}

fn bpf_linker() -> Result<()> {
    let found = answer(command("bpf-linker").arg("--version")).unwrap_or_default();
    let found = found.split_whitespace().nth(1).unwrap_or_default();
    if found == BPF_LINKER {
        return Ok(());
    }
    let why = if found.is_empty() { "not there yet".to_owned() } else { format!("in place of {found}") };
    say(&format!("setup: installing bpf-linker {BPF_LINKER} ({why}); this takes some minutes"));
    // --force replaces a version that cargo has not installed.
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

/// What making and trying packages needs beyond [`Needs::Demo`]. Apart from the rest, because tests do without.
pub fn setup_for_packages() -> Result<()> {
    setup(Needs::Demo)?;
    debian_packages(PACKAGING_TOOLS)?;
    python_packages()
}

fn debian_packages(file: &str) -> Result<()> {
    let list = match fs::read_to_string(root().join(file)) {
        Ok(list) => list,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).context(format!("reading {file}")),
    };
    let wanted = packages(&list);
    if wanted.is_empty() {
        return Ok(());
    }
    let mut query = command("dpkg-query");
    query.args(["-W", "-f=${Package} ${db:Status-Status}\n"]).args(&wanted);
    // dpkg-query exits with 1 when it does not know one of the packages, so its status is ignored.
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

/// Installs cargo-fuzz, which runs the fuzz targets; 0.13 is tested with them.
fn cargo_fuzz() -> Result<()> {
    if answer(command("cargo-fuzz").arg("--version")).is_some_and(|found| found.trim().ends_with(CARGO_FUZZ)) {
        return Ok(());
    }
    say(&format!("setup: installing cargo-fuzz {CARGO_FUZZ}"));
    run(shell::install("cargo-fuzz", CARGO_FUZZ).arg("--force"))
        .context("cargo-fuzz runs the fuzz targets; it needs crates.io")
}

/// Creates a Python environment with the packages of tests/python-requirements.txt.
fn python_packages() -> Result<()> {
    let wanted =
        fs::read_to_string(root().join(PYTHON_PACKAGES)).with_context(|| format!("reading {PYTHON_PACKAGES}"))?;
    let dir = target_dir().join(PYTHON);
    let python = python_program("python");
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

/// The packages in a list: one per line, `#` starts a comment.
fn packages(list: &str) -> Vec<&str> {
    list.lines().filter_map(|line| line.split('#').next()?.split_whitespace().next()).collect()
}

/// The packages of `wanted` that dpkg-query does not report as installed.
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

    /// CI compiles with the version that Cargo.toml promises to be enough.
    #[test]
    fn the_toolchain_is_the_oldest_that_is_supported() {
        let text = fs::read_to_string(root().join("rust-toolchain.toml")).expect("rust-toolchain.toml");
        let channel = text.lines().find_map(|line| line.strip_prefix("channel = \"")?.strip_suffix('"'));
        assert_eq!(channel, Some(concat!(env!("CARGO_PKG_RUST_VERSION"), ".0")));
        assert!(pinned_nightly().starts_with("nightly-"), "{}", pinned_nightly());
    }
}
