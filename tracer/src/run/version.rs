//! `portchurn --version`: which portchurn this is, and with `--verbose` what it was built from.

use std::fmt::Write as _;

use anyhow::Result;

use super::output;
use tracer_core::recording;
use tracer_core::report::json::SCHEMA_NAME;

/// Version of the package, as every crate of it has.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Prints the version.
///
/// # Errors
/// stdout could not be written to.
pub fn print(verbose: bool) -> Result<()> {
    output::out(&if verbose { verbosely() } else { format!("portchurn {VERSION}\n") })
}

fn verbosely() -> String {
    // Set by `cargo xtask dist` alone: a development build would be linked anew after every commit.
    let commit = option_env!("PORTCHURN_COMMIT").unwrap_or("not recorded (no release build)");
    let features = if cfg!(target_feature = "crt-static") { "statically linked" } else { "dynamically linked" };
    let checks = if cfg!(debug_assertions) { ", with debug assertions" } else { "" };
    let mut out = format!("portchurn {VERSION}\n");
    for (name, value) in [
        ("commit", commit.to_owned()),
        ("target", env!("PORTCHURN_TARGET").to_owned()),
        ("features", format!("{features}{checks}")),
        ("BPF object", format!("sha256:{}", env!("PORTCHURN_BPF_SHA256"))),
        ("", format!("{} bytes", env!("PORTCHURN_BPF_BYTES"))),
        ("recordings", format!("written as version {}, all versions read", recording::VERSION)),
        ("report", SCHEMA_NAME.to_owned()),
    ] {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{name:<12} {value}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_one_line_and_verbosely_names_the_bpf_object() {
        let text = verbosely();
        assert_eq!(text.lines().next(), Some(format!("portchurn {VERSION}").as_str()));
        let hash = text.lines().find_map(|line| line.strip_prefix("BPF object   sha256:")).expect("a hash");
        assert!(hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{hash}");
        assert!(text.lines().all(|line| line.len() <= 86), "{text}");
    }
}
