//! Which nightly toolchain compiles the BPF programs. tracer/build.rs and xtask both include this file.

use std::path::PathBuf;
use std::process::Command;

/// A toolchain by the name that `rustup run` takes.
pub struct Nightly {
    pub name: &'static str,
    /// Directory of the toolchain.
    pub sysroot: PathBuf,
}

/// Name of the pinned toolchain, from rust-toolchain.toml in this directory.
pub fn pinned_nightly() -> &'static str {
    let channel = |line: &'static str| line.strip_prefix("channel = \"")?.strip_suffix('"');
    include_str!("rust-toolchain.toml").lines().find_map(channel).unwrap_or("nightly")
}

/// The pinned toolchain if it is installed, else any toolchain that is called `nightly`. `None` without both, or
/// without rustup.
pub fn installed_nightly() -> Option<Nightly> {
    [pinned_nightly(), "nightly"].into_iter().find_map(|name| {
        let mut rustc = Command::new("rustup");
        rustc.args(["run", name, "rustc", "--print", "sysroot"]);
        // cargo sets these for the build scripts and programs that it runs, and they name its own toolchain.
        for variable in ["RUSTC", "RUSTUP_TOOLCHAIN"] {
            rustc.env_remove(variable);
        }
        let output = rustc.output().ok().filter(|output| output.status.success())?;
        Some(Nightly { name, sysroot: PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()) })
    })
}
