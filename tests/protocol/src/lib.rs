//! Lines and files that the end-to-end tests and `cargo xtask e2e` exchange, each defined once for the side that writes
//! it and the side that reads it.
//!
//! Why a crate of its own: xtask builds and installs what everything else needs, so it must not depend on the libraries
//! of the tests.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Begins the line that a test prints when it cannot run because something is missing. libtest counts such a test as
/// passed.
pub const SKIPPED: &str = "SKIPPED";

/// Begins the line that a test prints when the kernel has hidden state transitions from every tracing program.
pub const HIDDEN_BY_KERNEL: &str = "HIDDEN BY THE KERNEL";

/// Path of the [`MachinePlan`] inside a virtual machine.
pub const MACHINE_PLAN_PATH: &str = "/plan.json";

/// The work of a virtual machine: xtask writes it, the machine's first process does it.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachinePlan {
    /// Files of kernel modules, each after the modules that it depends on.
    pub modules: Vec<PathBuf>,
    /// Programs to run one after the other.
    pub steps: Vec<MachineStep>,
}

/// One program that a virtual machine runs.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineStep {
    /// Name in [`MachineLine::Begin`] and [`MachineLine::End`], without blanks.
    pub name: String,
    /// The program's file.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its working directory.
    pub directory: PathBuf,
    /// All of its environment.
    pub environment: BTreeMap<String, String>,
    /// Seconds after which it is killed.
    pub limit_seconds: u64,
}

/// Begins every line of the machine's first process, so that no other program's line is taken for one.
const MACHINE_MARK: &str = "@vm ";

/// A line on the serial port of a virtual machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineLine<'a> {
    /// The first process has started; seconds since power-on.
    Up(&'a str),
    /// A step begins.
    Begin(&'a str),
    /// A step has ended.
    End {
        /// Its name.
        step: &'a str,
        /// How long it took.
        seconds: &'a str,
        /// `ok`, or how it failed.
        outcome: &'a str,
    },
    /// The first process cannot go on.
    Error(&'a str),
    /// All steps have ended; seconds since power-on.
    Done(&'a str),
    /// A program of a step printed this line.
    Output(&'a str),
}

impl<'a> MachineLine<'a> {
    /// Reads a line without its end. A line of an unknown form is [`Self::Error`] with the mark, [`Self::Output`]
    /// without it.
    pub fn parse(line: &'a str) -> Self {
        let Some(rest) = line.strip_prefix(MACHINE_MARK) else { return Self::Output(line) };
        let (what, value) = rest.split_once(' ').unwrap_or((rest, ""));
        match what {
            "up" => Self::Up(value),
            "begin" => Self::Begin(value),
            "done" => Self::Done(value),
            "end" => {
                let mut words = value.splitn(3, ' ');
                let mut word = || words.next().unwrap_or_default();
                Self::End { seconds: word(), step: word(), outcome: word() }
            }
            _ => Self::Error(value),
        }
    }
}

impl fmt::Display for MachineLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Up(uptime) => write!(f, "{MACHINE_MARK}up {uptime}"),
            Self::Begin(step) => write!(f, "{MACHINE_MARK}begin {step}"),
            Self::End { step, seconds, outcome } => write!(f, "{MACHINE_MARK}end {seconds} {step} {outcome}"),
            Self::Error(error) => write!(f, "{MACHINE_MARK}error {error}"),
            Self::Done(uptime) => write!(f, "{MACHINE_MARK}done {uptime}"),
            Self::Output(line) => f.write_str(line),
        }
    }
}

/// A BPF program that the verifier has accepted; the kernel tests print one line for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedProgram {
    /// Name of the program in the object.
    pub name: String,
    /// Instructions that the verifier processed.
    pub instructions: u64,
    /// Bytes of stack.
    pub stack: u64,
}

/// Begins the line of a [`VerifiedProgram`].
const VERIFIED: &str = "VERIFIED ";

impl VerifiedProgram {
    /// Reads a line such as `VERIFIED state_first 11102 168`; `None` for any other line.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix(VERIFIED)?.split(' ');
        let name = words.next()?.to_owned();
        Some(Self { name, instructions: words.next()?.parse().ok()?, stack: words.next()?.parse().ok()? })
    }
}

impl fmt::Display for VerifiedProgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERIFIED}{} {} {}", self.name, self.instructions, self.stack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_lines_are_read_as_they_were_written() {
        for (text, line) in [
            ("@vm up 2.31", MachineLine::Up("2.31")),
            ("@vm begin counts", MachineLine::Begin("counts")),
            ("@vm end 12.0 counts exit 101", MachineLine::End { seconds: "12.0", step: "counts", outcome: "exit 101" }),
            ("@vm error no plan", MachineLine::Error("no plan")),
            ("@vm done 9", MachineLine::Done("9")),
            ("test a ... ok", MachineLine::Output("test a ... ok")),
        ] {
            assert_eq!(MachineLine::parse(text), line);
            assert_eq!(line.to_string(), text);
        }
    }

    #[test]
    fn a_verified_program_is_read_as_it_was_written() {
        let program = VerifiedProgram { name: "state_first".into(), instructions: 11_102, stack: 168 };
        assert_eq!(program.to_string(), "VERIFIED state_first 11102 168");
        assert_eq!(VerifiedProgram::parse(&program.to_string()), Some(program));
        assert_eq!(VerifiedProgram::parse("REFUSED state_first no"), None);
    }

    #[test]
    fn a_plan_survives_its_file() {
        let step = MachineStep { name: "doctor".into(), limit_seconds: 600, ..MachineStep::default() };
        let plan = MachinePlan { modules: vec!["/modules/veth.ko".into()], steps: vec![step] };
        let text = serde_json::to_string(&plan).expect("JSON");
        assert_eq!(serde_json::from_str::<MachinePlan>(&text).expect("a plan"), plan);
    }
}
