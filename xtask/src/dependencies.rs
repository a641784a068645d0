//! Checks the dependencies with cargo-deny: licences, versions and sources, as deny.toml says.
//!
//! tracer-core/tests/portable.rs checks that tracer-core depends on no operating system.

use anyhow::{Result, ensure};

use crate::setup::python_program;
use crate::shell::{command, run};

pub fn check() -> Result<()> {
    let cargo_deny = python_program("cargo-deny");
    ensure!(cargo_deny.is_file(), "{} is missing: run `cargo xtask setup`", cargo_deny.display());
    run(command(cargo_deny).args(["--workspace", "--locked", "check", "licenses", "bans", "sources"]))
}
