//! tracer-core knows no operating system: no crate that it is built from talks to a kernel or to a terminal.

use std::error::Error;
use std::process::Command;

/// Beginnings of the names of crates that make a program depend on Linux, on Unix or on a terminal.
const FOREIGN: [&str; 21] = [
    "aya",
    "btfparse",
    "caps",
    "clap",
    "crossterm",
    "inotify",
    "io-uring",
    "linux-raw-sys",
    "mio",
    "netlink",
    "nix",
    "perf-event",
    "procfs",
    "ratatui",
    "rtnetlink",
    "rustix",
    "signal-hook",
    "socket2",
    "termios",
    "tokio",
    "tracer-ebpf",
];

#[test]
fn nothing_that_it_is_built_from_needs_an_operating_system() -> Result<(), Box<dyn Error>> {
    let mut tree = Command::new(env!("CARGO"));
    tree.args(["tree", "--package", "tracer-core", "--edges", "normal", "--prefix", "none"]);
    tree.args(["--format", "{p}", "--offline", "--locked"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = tree.output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout)?;
    let names: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains(&"tracer-core") && names.contains(&"arrow-ipc"), "no tree: {tree}");
    let foreign: Vec<_> = names.iter().filter(|name| FOREIGN.iter().any(|foreign| name.starts_with(foreign))).collect();
    assert_eq!(foreign, Vec::<&&str>::new());
    Ok(())
}
