//! What a command is to do: plain values, validated, one type per command.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::option_values::{ExportFormat, Exported, Trigger};
use crate::probe;
use crate::stream::StreamSelection;
use tracer_core::filter::Filter;
use tracer_core::replay::Speed;
use tracer_core::report::check::Condition;
use tracer_core::time_input::TimeInput;
use tracer_core::tracker::workload::By;

/// The command that was asked for.
#[derive(Debug)]
pub enum Command {
    Live(LiveConfig),
    Stream(StreamConfig),
    Report(ReportConfig),
    Record(RecordConfig),
    ReplayScreen(ReplayScreenConfig),
    ReplayLines(ReplayLinesConfig),
    Export(ExportConfig),
    Diff(DiffConfig),
    Check(CheckConfig),
    Doctor(DoctorConfig),
    Demo,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputFormat {
    Text,
    Json,
}

/// A trace of this host.
#[derive(Clone, Copy, Debug, Default)]
pub struct TraceConfig {
    /// How processes are grouped into workloads.
    pub by: By,
    pub probes: probe::Options,
}

/// The full-screen view of this host.
#[derive(Debug)]
pub struct LiveConfig {
    pub trace: TraceConfig,
    /// Draw with ASCII letters alone.
    pub ascii: bool,
    pub filter: Option<Filter>,
}

/// Lines as things happen.
#[derive(Debug)]
pub struct StreamConfig {
    pub trace: TraceConfig,
    pub selection: StreamSelection,
    pub format: OutputFormat,
    /// `None`: until it is ended.
    pub duration: Option<Duration>,
    pub filter: Option<Filter>,
}

/// The verdict on a trace or on a recording.
#[derive(Debug)]
pub struct ReportConfig {
    pub source: ReportSource,
    pub format: OutputFormat,
    pub filter: Option<Filter>,
}

/// What is reported on.
#[derive(Debug)]
pub enum ReportSource {
    /// `by`: group processes otherwise than when it was recorded.
    Recording {
        file: PathBuf,
        by: Option<By>,
    },
    Trace {
        trace: TraceConfig,
        duration: Duration,
    },
}

/// A trace into a file.
#[derive(Debug)]
pub struct RecordConfig {
    pub trace: TraceConfig,
    pub output: PathBuf,
    /// Replace what is at `output`.
    pub force: bool,
    pub target: RecordTarget,
    /// `None`: until it is ended.
    pub duration: Option<Duration>,
    /// Print the report at the end.
    pub report: Option<OutputFormat>,
    /// Record until this command has ended; empty if there is none.
    pub command: Vec<OsString>,
}

/// How a recording is divided into files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordTarget {
    File,
    Rotation(RotationBounds),
    /// Nothing is written until one of the triggers.
    Flight {
        window: FlightWindow,
        triggers: Vec<Trigger>,
    },
}

/// Bounds of a rotation, at least one of them; what is not bounded is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RotationBounds {
    /// Bytes of all files.
    pub size: Option<u64>,
    /// From the end of the oldest file until now.
    pub age: Option<Duration>,
}

/// What the flight recorder keeps around what it waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlightWindow {
    pub before: Duration,
    pub after: Duration,
}

/// Which part of a recording is replayed, and how fast.
#[derive(Debug)]
pub struct ReplayConfig {
    pub file: PathBuf,
    pub speed: Speed,
    pub from: Option<TimeInput>,
    pub to: Option<TimeInput>,
    /// Group processes otherwise than when it was recorded.
    pub by: Option<By>,
    pub filter: Option<Filter>,
}

/// The full-screen view of a recording.
#[derive(Debug)]
pub struct ReplayScreenConfig {
    pub replay: ReplayConfig,
    /// Draw with ASCII letters alone.
    pub ascii: bool,
}

/// What `stream` would have printed then.
#[derive(Debug)]
pub struct ReplayLinesConfig {
    pub replay: ReplayConfig,
    pub selection: StreamSelection,
    pub format: OutputFormat,
}

/// A recording for other programs.
#[derive(Debug)]
pub struct ExportConfig {
    pub file: PathBuf,
    pub what: Exported,
    pub format: ExportFormat,
    /// `None`: stdout.
    pub output: Option<PathBuf>,
    /// Replace what is at `output`.
    pub force: bool,
    /// Write directories by host and hour.
    pub partition: bool,
    /// Put keyed hashes in place of addresses and names.
    pub redact: bool,
    /// Group processes otherwise than when it was recorded.
    pub by: Option<By>,
}

/// Two recordings side by side.
#[derive(Debug)]
pub struct DiffConfig {
    pub before: PathBuf,
    pub after: PathBuf,
    /// Group processes otherwise than when it was recorded.
    pub by: Option<By>,
    pub format: OutputFormat,
}

/// An exit code by conditions.
#[derive(Debug)]
pub struct CheckConfig {
    pub file: PathBuf,
    /// One that holds is enough.
    pub fail_if: Vec<Condition>,
    pub format: OutputFormat,
}

/// What this host allows.
#[derive(Debug)]
pub struct DoctorConfig {
    /// Try fentry and fexit before tracepoints.
    pub exact: bool,
    pub format: OutputFormat,
}
