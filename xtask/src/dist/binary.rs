//! The binary of all packages: statically linked with musl, so that it runs on any Linux, also in an empty container.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::source::Source;
use crate::shell::{answer, cargo, command, run, say};

const TARGET: &str = "x86_64-unknown-linux-musl";

/// Builds the binary of a source tree.
pub fn build(source: &Source, target_dir: &Path) -> Result<PathBuf> {
    prerequisites()?;
    let home = |variable: &str, name: &str| {
        env::var_os(variable)
            .map(PathBuf::from)
            .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(name)))
            .with_context(|| format!("neither {variable} nor HOME is set"))
    };
    // Messages of panics and debug information name files; these are the names that do not depend on this machine.
    let flags: Vec<String> = [
        (source.root.clone(), "/portchurn"),
        (home("CARGO_HOME", ".cargo")?.join("registry/src"), "/registry"),
        (home("RUSTUP_HOME", ".rustup")?.join("toolchains"), "/toolchains"),
    ]
    .into_iter()
    .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()))
    .collect();
    let mut build = cargo();
    build
        .current_dir(&source.root)
        .args(["build", "--release", "--locked", "-p", "tracer", "--bin", "portchurn", "--target", TARGET])
        .arg("--target-dir")
        .arg(target_dir)
        .env_remove("CARGO_BUILD_TARGET")
        .env_remove("RUSTFLAGS")
        .env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_RUSTFLAGS", flags.join(" "))
        .env("PORTCHURN_COMMIT", &source.commit)
        .env("SOURCE_DATE_EPOCH", source.epoch.to_string());
    run(&mut build)?;
    Ok(target_dir.join(TARGET).join("release/portchurn"))
}

/// The standard library of the target and a C compiler for it (zstd is C).
fn prerequisites() -> Result<()> {
    let installed = answer(command("rustup").args(["target", "list", "--installed"])).unwrap_or_default();
    if !installed.lines().any(|line| line == TARGET) {
        say(&format!("dist: installing the standard library of {TARGET}"));
        run(command("rustup").args(["target", "add", TARGET]))?;
    }
    ensure!(
        answer(command("musl-gcc").arg("--version")).is_some(),
        "there is no musl-gcc: `cargo xtask setup` installs it (Debian package musl-tools)"
    );
    Ok(())
}

/// The binary without debug information, which is written to `symbols`: gdb and perf take that beside it.
pub fn strip(built: &Path, work: &Path, symbols: &Path) -> Result<PathBuf> {
    let stripped = work.join("portchurn");
    let debug = work.join("portchurn.debug");
    run(command("objcopy").args(["--only-keep-debug", "--compress-debug-sections"]).arg(built).arg(&debug))?;
    run(command("strip").args(["--strip-all", "--remove-section=.comment", "-o"]).arg(&stripped).arg(built))?;
    run(command("objcopy").arg("--add-gnu-debuglink").arg(&debug).arg(&stripped))?;
    run(command("xz").args(["-1", "--threads=1", "--keep"]).arg(&debug))?;
    fs::rename(debug.with_extension("debug.xz"), symbols).context("moving the debug symbols")?;
    let kind = answer(command("readelf").args(["--program-headers", "--wide"]).arg(&stripped)).unwrap_or_default();
    ensure!(!kind.is_empty() && !kind.contains("INTERP"), "{} is not statically linked", built.display());
    Ok(stripped)
}
