//! What a command is to do: plain values, validated, one type per command.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::option_values::{ExportFormat, Exported, Trigger};
use crate::probe;
use crate::stream::StreamSelection;
use tracer_core::filter::Filter;
use tracer_core::playback::WindowInput;
use tracer_core::replay::Speed;
use tracer_core::report::check::Condition;
use tracer_core::tracker::workload::By;

/// The command that was asked for.
#[derive(Debug)]
pub enum Command {
    /// `live` on a terminal.
    Live(LiveConfig),
    /// `stream`, and `live` without a terminal.
    Stream(StreamConfig),
    /// `report`.
    Report(ReportConfig),
    /// `record`.
    Record(RecordConfig),
    /// `replay` on a terminal.
    ReplayScreen(ReplayScreenConfig),
    /// `replay` without a terminal, or as lines.
    ReplayLines(ReplayLinesConfig),
    /// `export`.
    Export(ExportConfig),
    /// `diff`.
    Diff(DiffConfig),
    /// `check`.
    Check(CheckConfig),
    /// `doctor`.
    Doctor(DoctorConfig),
    /// What is in a recording.
    Info(InfoConfig),
    /// `demo`.
    Demo,
    /// `--version`.
    Version {
        /// With `--verbose`: what this binary was built from, too.
        verbose: bool,
    },
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputFormat {
    /// For people.
    Text,
    /// One JSON object, or one per line.
    Json,
}

/// A trace of this host.
#[derive(Clone, Copy, Debug, Default)]
pub struct TraceConfig {
    /// How processes are grouped into workloads.
    pub by: By,
    /// Which hooks are used, and the size of the ring buffer.
    pub probes: probe::Options,
}

/// The full-screen view of this host.
#[derive(Debug)]
pub struct LiveConfig {
    /// How the host is traced.
    pub trace: TraceConfig,
    /// Draw with ASCII letters alone.
    pub ascii: bool,
    /// Only what matches is shown.
    pub filter: Option<Filter>,
}

/// Lines as things happen.
#[derive(Debug)]
pub struct StreamConfig {
    /// How the host is traced.
    pub trace: TraceConfig,
    /// Which lines are printed.
    pub selection: StreamSelection,
    /// How the output is written.
    pub format: OutputFormat,
    /// `None`: until it is ended.
    pub duration: Option<Duration>,
    /// Only what matches is shown.
    pub filter: Option<Filter>,
}

/// The verdict on a trace or on a recording.
#[derive(Debug)]
pub struct ReportConfig {
    /// What is reported on.
    pub source: ReportSource,
    /// How the output is written.
    pub format: OutputFormat,
}

/// What is reported on.
#[derive(Debug)]
pub enum ReportSource {
    /// Recordings.
    Recording(RecordingInput),
    /// A trace of this host.
    Trace {
        /// How the host is traced.
        trace: TraceConfig,
        /// How long.
        duration: Duration,
        /// Only what matches is shown.
        filter: Option<Filter>,
    },
}

/// A trace into a file.
#[derive(Debug)]
pub struct RecordConfig {
    /// How the host is traced.
    pub trace: TraceConfig,
    /// The file to write.
    pub output: PathBuf,
    /// Replace what is at `output`.
    pub force: bool,
    /// How the recording is divided into files.
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
    /// One file.
    File,
    /// Several files, of which the oldest are removed.
    Rotation(RotationBounds),
    /// A flight recorder: a file for each trigger, or for the first one.
    Flight {
        /// What is written around the trigger.
        window: FlightWindow,
        /// At least one.
        triggers: Vec<Trigger>,
        /// Wait for the next trigger after each window.
        rearm: bool,
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

/// What a flight recorder writes around its trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlightWindow {
    /// Time before the trigger, as far as memory reaches.
    pub before: Duration,
    /// Time after the trigger.
    pub after: Duration,
}

/// Which recordings are read, and what of them.
#[derive(Debug, Default)]
pub struct RecordingInput {
    /// Files, directories and patterns; `-` is stdin.
    pub names: Vec<PathBuf>,
    /// The part of the time.
    pub window: WindowInput,
    /// Group processes otherwise than when it was recorded.
    pub by: Option<By>,
    /// Only what matches is shown.
    pub filter: Option<Filter>,
}

/// A recording that is replayed, and how fast.
#[derive(Debug)]
pub struct ReplayConfig {
    /// The recording and its part.
    pub input: RecordingInput,
    /// How fast the time of the recording passes.
    pub speed: Speed,
}

/// The full-screen view of a recording.
#[derive(Debug)]
pub struct ReplayScreenConfig {
    /// The recording and its part.
    pub replay: ReplayConfig,
    /// Draw with ASCII letters alone.
    pub ascii: bool,
}

/// What `stream` would have printed then.
#[derive(Debug)]
pub struct ReplayLinesConfig {
    /// The recording and its part.
    pub replay: ReplayConfig,
    /// Which lines are printed.
    pub selection: StreamSelection,
    /// How the output is written.
    pub format: OutputFormat,
}

/// A recording for other programs.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct ExportConfig {
    /// The recording and its part.
    pub input: RecordingInput,
    /// Rows or connections.
    pub what: Exported,
    /// How the output is written.
    pub format: ExportFormat,
    /// `None`: stdout.
    pub output: Option<PathBuf>,
    /// Replace what is at `output`.
    pub force: bool,
    /// Write directories by host and hour.
    pub partition: bool,
    /// Put keyed hashes in place of addresses and names.
    pub redact: bool,
    /// The key of these hashes; `None`: a random one.
    pub key_file: Option<PathBuf>,
    /// Replace the ports of services too.
    pub redact_ports: bool,
    /// Replace the date too.
    pub redact_times: bool,
}

/// What is in recordings.
#[derive(Debug)]
pub struct InfoConfig {
    /// Files, directories and patterns; `-` is stdin.
    pub names: Vec<PathBuf>,
    /// How the output is written.
    pub format: OutputFormat,
}

/// Two recordings side by side.
#[derive(Debug)]
pub struct DiffConfig {
    /// The earlier recording.
    pub before: RecordingInput,
    /// The later recording.
    pub after: RecordingInput,
    /// How the output is written.
    pub format: OutputFormat,
}

/// An exit code by conditions.
#[derive(Debug)]
pub struct CheckConfig {
    /// The recordings and their part.
    pub input: RecordingInput,
    /// One that holds is enough.
    pub fail_if: Vec<Condition>,
    /// Findings that are over do not count.
    pub now: bool,
    /// How the output is written.
    pub format: OutputFormat,
}

/// What this host allows.
#[derive(Debug)]
pub struct DoctorConfig {
    /// Try fentry and fexit before tracepoints.
    pub exact: bool,
    /// How the output is written.
    pub format: OutputFormat,
}
