//! Builds the BPF object that the binary carries, so that `cargo build` is all it takes and no object file is checked in.
//!
//! The kernel side needs three things that a plain Rust installation lacks. They are looked for first: a missing one ends
//! the build with one sentence that says what to do, in place of whatever a compiler or linker says when it is missing.

fn main() {
    live::build();
}

mod live {
    use std::env;
    use std::path::Path;
    use std::process::{self, Command};

    use anyhow::{Result, bail};

    /// aya-build watches tracer-ebpf itself; these are compiled into it or decide how it is compiled.
    const ALSO_WATCHED: [&str; 4] = ["build.rs", "../tracer-common", "../Cargo.toml", "../Cargo.lock"];

    pub fn build() {
        for path in ALSO_WATCHED {
            println!("cargo::rerun-if-changed={path}");
        }
        if let Err(error) = tools_are_there().and_then(|()| compile()) {
            println!("cargo::error={error:#}");
            process::exit(1);
        }
    }

    fn compile() -> Result<()> {
        let package =
            aya_build::Package { name: "tracer-ebpf", root_dir: "../tracer-ebpf", ..aya_build::Package::default() };
        aya_build::build_ebpf([package], aya_build::Toolchain::default())
    }

    fn tools_are_there() -> Result<()> {
        // Without rustup aya-build takes the current toolchain; whoever builds that way has chosen it.
        let sysroot = if output_of("rustup", &["--version"]).is_some() {
            let Some(sysroot) = output_of("rustup", &["run", "nightly", "rustc", "--print", "sysroot"]) else {
                bail!("the BPF programs need a nightly Rust toolchain: run `cargo xtask setup`, which installs it");
            };
            sysroot
        } else {
            let rustc = env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
            output_of(&rustc, &["--print", "sysroot"]).unwrap_or_default()
        };
        if !Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file() {
            bail!("the BPF programs need the nightly component rust-src: run `cargo xtask setup`, which installs it");
        }
        if output_of("bpf-linker", &["--version"]).is_none() {
            bail!(
                "the BPF programs need bpf-linker on the PATH (cargo's bin directory): run `cargo xtask setup`, which installs it"
            );
        }
        Ok(())
    }

    /// What a command wrote to stdout, if it is there and succeeds.
    fn output_of(program: &str, args: &[&str]) -> Option<String> {
        let output = Command::new(program).args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
