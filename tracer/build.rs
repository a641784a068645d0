//! Builds the BPF object that the binary contains, so that `cargo build` is enough and no object file is checked in.
//!
//! The BPF programs need three things that a plain Rust installation lacks: a nightly toolchain, its rust-src, and
//! bpf-linker. This script looks for them first, so that a missing one ends the build with one sentence that says what
//! to do, and not with the errors of a compiler or linker.

#[path = "../tracer-ebpf/toolchain.rs"]
mod toolchain;

use std::env;
use std::path::PathBuf;
use std::process::{self, Command};

use anyhow::{Result, bail};

/// Files outside tracer-ebpf, which aya-build watches itself, that the BPF object depends on.
const ALSO_WATCHED: [&str; 4] = ["build.rs", "../tracer-common", "../Cargo.toml", "../Cargo.lock"];

fn main() {
    for path in ALSO_WATCHED {
        println!("cargo::rerun-if-changed={path}");
    }
    if let Err(error) = build() {
        println!("cargo::error={error:#}");
        process::exit(1);
    }
}

fn build() -> Result<()> {
    let package =
        aya_build::Package { name: "tracer-ebpf", root_dir: "../tracer-ebpf", ..aya_build::Package::default() };
    aya_build::build_ebpf([package], aya_build::Toolchain::Custom(nightly()?))
}

/// The toolchain to build with, after a check that everything is installed.
fn nightly() -> Result<&'static str> {
    let pinned = toolchain::pinned_nightly();
    let (name, sysroot) = if output_of("rustup", &["--version"]).is_some() {
        let Some(nightly) = toolchain::installed_nightly() else {
            bail!("the BPF programs need the Rust toolchain {pinned}: run `cargo xtask setup`, which installs it");
        };
        if nightly.name != pinned {
            println!(
                "cargo::warning=the Rust toolchain {pinned} is not installed, so {} compiles the BPF programs; \
                 `cargo xtask setup` installs it",
                nightly.name
            );
        }
        (nightly.name, nightly.sysroot)
    } else {
        // Without rustup aya-build uses the current toolchain.
        let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
        (pinned, PathBuf::from(output_of(&rustc, &["--print", "sysroot"]).unwrap_or_default().trim()))
    };
    if !sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file() {
        bail!("the BPF programs need the component rust-src of {name}: run `cargo xtask setup`, which installs it");
    }
    if output_of("bpf-linker", &["--version"]).is_none() {
        bail!(
            "the BPF programs need bpf-linker on the PATH (cargo's bin directory): run `cargo xtask setup`, which installs it"
        );
    }
    Ok(name)
}

/// Standard output of a command; `None` if the command cannot start or fails.
fn output_of(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
