//! Skips that nobody can overlook: a test names what it needs; where something is missing, the test is skipped with a
//! line on the terminal, or fails where skipping is not allowed.

use std::env;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use e2e_protocol::SKIPPED;

/// True where a missing prerequisite fails the test: `CI` or `PORTCHURN_TESTS_NO_SKIP` is set.
pub fn skips_fail() -> bool {
    ["CI", "PORTCHURN_TESTS_NO_SKIP"].iter().any(|name| env::var_os(name).is_some_and(|value| !value.is_empty()))
}

/// The missing ones of `needs` in one line; `None` if nothing is missing.
pub fn missing(needs: &[Need]) -> Option<String> {
    let missing: Vec<String> = needs.iter().filter_map(Need::missing).collect();
    (!missing.is_empty()).then(|| missing.join("; "))
}

/// Reports that the running test is skipped, twice: in the test's captured output, where `cargo xtask e2e` counts it,
/// and directly on standard error, because libtest shows no output of a test that passes.
pub fn report_skip(missing: &str) {
    eprintln!("{SKIPPED}, missing: {missing}");
    let thread = std::thread::current();
    let line =
        format!("\n!!! {} proves nothing: it was skipped, missing: {missing}\n", thread.name().unwrap_or("a test"));
    // Without standard error there is nowhere to report to.
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// A prerequisite of a test.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    Root,
    /// A program on PATH, and its Debian package.
    Program(&'static str, &'static str),
    /// The binary under test.
    Portchurn,
    /// A Python with the packages of `python-requirements.txt`.
    Python,
    /// A file of the kernel, and what it stands for.
    File(&'static str, &'static str),
}

/// The prerequisites of every scenario with a tracer.
pub const TRACING: &[Need] = &[
    Need::Root,
    Need::Portchurn,
    Need::Program("ip", "iproute2"),
    Need::Program("ss", "iproute2"),
    Need::Program("nsenter", "util-linux"),
    Need::File("/sys/kernel/btf/vmlinux", "the kernel's type information (CONFIG_DEBUG_INFO_BTF)"),
];

impl Need {
    fn missing(&self) -> Option<String> {
        match *self {
            Self::Root => (!nix::unistd::geteuid().is_root()).then(|| "root".into()),
            Self::Program(name, package) => find(name).is_none().then(|| format!("{name} (Debian package {package})")),
            Self::Portchurn => crate::tracer::binary().err().map(|error| error.to_string()),
            Self::Python => {
                python().is_none().then(|| "Python with pyarrow, polars and duckdb (cargo xtask setup)".into())
            }
            Self::File(path, what) => (!PathBuf::from(path).exists()).then(|| format!("{path}: {what}")),
        }
    }
}

/// The Python of `cargo xtask setup`, or the one that `PORTCHURN_PYTHON` names.
pub fn python() -> Option<PathBuf> {
    let named = env::var_os("PORTCHURN_PYTHON").map(PathBuf::from);
    let made = || Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(|root| root.join("target/python/bin/python"));
    named.or_else(made).filter(|path| path.is_file())
}

/// Finds a program on PATH or in the directories of root's programs.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]).collect();
    dirs.into_iter().map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Skips the test when something is missing: returns success from it, or fails it where [`skips_fail`]. Checks
/// [`TRACING`] and the needs in the arguments.
#[macro_export]
macro_rules! require {
    ($($need:expr),* $(,)?) => {
        let needs = [$crate::require::TRACING, &[$($need),*]].concat();
        if let Some(missing) = $crate::require::missing(&needs) {
            assert!(!$crate::require::skips_fail(), "missing: {missing}");
            $crate::require::report_skip(&missing);
            return Ok(());
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_and_nothing_else() {
        let needs = [
            Need::Program("sh", "dash"),
            Need::Program("no-such-program", "no-such-package"),
            Need::File("/no/such/file", "a thing"),
        ];
        let missing = missing(&needs).expect("two are missing");
        assert_eq!(missing, "no-such-program (Debian package no-such-package); /no/such/file: a thing");
    }
}
