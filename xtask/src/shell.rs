//! Starts other programs: cargo, the nightly cargo, programs as root. Each command is printed before it runs, so that a
//! failure can be repeated by hand.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::toolchain::{installed_nightly, pinned_nightly};

/// The workspace root, in which every command runs.
pub fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_path_buf()
}

pub fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Directory of cargo's output for a profile (`debug` or `release`).
pub fn built(profile: &str) -> PathBuf {
    let target = target_dir();
    env::var_os(BUILD_TARGET).map_or_else(|| target.clone(), |triple| target.join(triple)).join(profile)
}

pub fn portchurn() -> PathBuf {
    built("release").join("portchurn")
}

/// Prints one line of progress.
pub fn say(line: &str) {
    eprintln!("xtask: {line}");
}

/// A command in the workspace root whose PATH includes cargo's bin directory.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    // .cargo/config.toml sets it for the cargo inside tracer/build.rs; here the progress must be visible.
    command.current_dir(root()).env_remove("CARGO_TERM_QUIET").env("PATH", path());
    command
}

fn path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let Some(bin) = cargo_home.map(|home| home.join("bin")) else { return path };
    if env::split_paths(&path).any(|dir| dir == bin) {
        return path;
    }
    env::join_paths(env::split_paths(&path).chain([bin])).unwrap_or(path)
}

/// The cargo that runs xtask.
pub fn cargo() -> Command {
    command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A tool of the nightly toolchain that compiles the BPF programs. The variables in which cargo names its own toolchain
/// to its children are removed.
pub fn nightly(program: &str) -> Command {
    let toolchain = installed_nightly().map_or_else(pinned_nightly, |nightly| nightly.name);
    let mut command = command("rustup");
    for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTC_WORKSPACE_WRAPPER", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(name);
    }
    command.args(["run", toolchain, program]);
    command
}

/// Runs a command with the stdin, stdout and stderr of xtask; fails unless it succeeds.
pub fn run(command: &mut Command) -> Result<()> {
    let line = line_of(command);
    say(&line);
    let status = command.status().with_context(|| format!("starting `{line}`"))?;
    ensure!(status.success(), "`{line}` failed ({status})");
    Ok(())
}

/// Runs a command and prints its output after its end, for commands that run at the same time.
pub fn run_quietly(command: &mut Command) -> Result<()> {
    let line = line_of(command);
    say(&line);
    let output = command.output().with_context(|| format!("starting `{line}`"))?;
    let mut text = format!("xtask: `{line}` printed:\n");
    text += &String::from_utf8_lossy(&output.stdout);
    text += &String::from_utf8_lossy(&output.stderr);
    eprint!("{text}");
    ensure!(output.status.success(), "`{line}` failed ({})", output.status);
    Ok(())
}

/// Standard output of a command; `None` if the command cannot start or fails.
pub fn answer(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command as one can type it in a shell.
pub fn line_of(command: &Command) -> String {
    let short = |part: &OsStr| {
        let text = part.to_string_lossy();
        let text = text.strip_prefix(&format!("{}/", root().display())).unwrap_or(&text).to_owned();
        if text.is_empty() || text.contains(char::is_whitespace) { format!("'{text}'") } else { text }
    };
    let program = Path::new(command.get_program());
    let program =
        if program.file_name() == Some(OsStr::new("cargo")) { OsStr::new("cargo") } else { program.as_os_str() };
    [program].into_iter().chain(command.get_args()).map(short).collect::<Vec<_>>().join(" ")
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// `program` as root with these variables: directly, or through sudo, which drops most of the environment, so that the
/// variables are named.
pub fn as_root(program: &OsStr, variables: &[(&str, &OsStr)]) -> Result<Command> {
    if is_root() {
        let mut command = command(program);
        command.envs(variables.iter().copied());
        return Ok(command);
    }
    if answer(command("sudo").arg("-V")).is_none() {
        bail!("this needs root and there is no sudo: run the same `cargo xtask` command as root");
    }
    let mut command = command("sudo");
    command.args(["-E", "env"]);
    for (name, value) in variables {
        let mut pair = OsString::from(format!("{name}="));
        pair.push(value);
        command.arg(pair);
    }
    command.arg(program);
    Ok(command)
}

/// Builds the release binary and returns its path.
pub fn build_release() -> Result<PathBuf> {
    run(cargo().args(["build", "--release", "-p", "tracer", "--bin", "portchurn"]))?;
    let portchurn = portchurn();
    ensure!(portchurn.is_file(), "the build succeeded but {} is not there", portchurn.display());
    Ok(portchurn)
}

/// The same with [`static_cargo`].
pub fn build_static() -> Result<PathBuf> {
    run(static_cargo().args(["build", "--release", "-p", "tracer", "--bin", "portchurn"]))?;
    Ok(target_dir().join(STATIC_TARGET).join("release/portchurn"))
}

const STATIC_TARGET: &str = "x86_64-unknown-linux-gnu";
const STATIC_FLAGS: &str = "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS";
const BUILD_TARGET: &str = "CARGO_BUILD_TARGET";

/// A cargo that links statically, so that a binary runs on any Linux of this architecture, also without libraries.
/// `.ci/run` sets the same variables for all of its builds, so that nothing is built twice there.
pub fn static_cargo() -> Command {
    let mut cargo = cargo();
    // With a named target the flags do not reach proc macros, which cannot be static.
    cargo.env(BUILD_TARGET, STATIC_TARGET).env(STATIC_FLAGS, "-C target-feature=+crt-static");
    cargo
}

/// A cargo that installs a tool, without the variables of [`static_cargo`].
pub fn install(tool: &str, version: &str) -> Command {
    let mut cargo = cargo();
    cargo.env_remove(BUILD_TARGET).env_remove(STATIC_FLAGS);
    cargo.args(["install", tool, "--version", version, "--locked"]);
    cargo
}
