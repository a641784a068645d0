//! Builds the BPF object that the binary contains, so that `cargo build` is enough and no object file is checked in.
//!
//! The BPF programs need three things that a plain Rust installation lacks: a nightly toolchain, its rust-src, and
//! bpf-linker. This script looks for them first, so that a missing one ends the build with one sentence that says what
//! to do, and not with the errors of a compiler or linker.

#[path = "../tracer-ebpf/toolchain.rs"]
mod toolchain;

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use anyhow::{Context as _, Result, bail};
use object::build::elf::{Builder, SectionData};
use object::elf::SHT_STRTAB;
use sha2::{Digest as _, Sha256};

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
    // SAFETY: a build script has one thread, and aya-build, which starts cargo, takes no environment.
    unsafe {
        // Files of the line information are named from the workspace and the package: two directories build the same bytes.
        env::set_var("CARGO_UNSTABLE_TRIM_PATHS", "true");
        env::set_var("CARGO_PROFILE_RELEASE_TRIM_PATHS", "all");
    }
    aya_build::build_ebpf([package], aya_build::Toolchain::Custom(nightly()?))?;
    let object = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?).join("portchurn-ebpf");
    let bytes = without_debug_sections(&object).with_context(|| format!("stripping {}", object.display()))?;
    let mut hash = String::new();
    for byte in Sha256::digest(&bytes) {
        write!(hash, "{byte:02x}")?;
    }
    // For `portchurn --version --verbose`.
    println!("cargo::rustc-env=PORTCHURN_BPF_SHA256={hash}");
    println!("cargo::rustc-env=PORTCHURN_BPF_BYTES={}", bytes.len());
    println!("cargo::rustc-env=PORTCHURN_TARGET={}", env::var("TARGET").unwrap_or_default());
    Ok(())
}

/// Takes DWARF out of the object: nine tenths of its size, which no kernel reads. BTF, from which the verifier's log has its
/// lines, stays.
fn without_debug_sections(path: &Path) -> Result<Vec<u8>> {
    let whole = fs::read(path)?;
    let mut builder = Builder::read(&*whole)?;
    for section in &mut builder.sections {
        section.delete |= [&b".debug_"[..], b".rel.debug_"].iter().any(|prefix| section.name.starts_with(prefix));
    }
    builder.delete_orphans();
    // bpf-linker has one table for the names of symbols and of sections; the builder writes two.
    if !builder.sections.iter().any(|section| matches!(section.data, SectionData::SectionString)) {
        let names = builder.sections.add();
        names.name = b".shstrtab"[..].into();
        names.sh_type = SHT_STRTAB;
        names.sh_addralign = 1;
        names.data = SectionData::SectionString;
    }
    let mut bytes = Vec::new();
    builder.write(&mut bytes)?;
    fs::write(path, &bytes)?;
    Ok(bytes)
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
