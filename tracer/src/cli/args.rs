//! What can be typed, with its help.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::option_values::{
    ExportFormat, Exported, TierChoice, TimeRange, Trigger, byte_count, duration, ring_size, time, time_range,
};
use crate::stream::StreamKind;
use tracer_core::replay::Speed;
use tracer_core::time_input::TimeInput;
use tracer_core::tracker::workload::By;

const AFTER_HELP: &str = "\
Exit codes: 0 ok, 1 failed, 2 usage, 3 not permitted or kernel unsupported, 4 finding (check).

Examples:
  portchurn                                      the full-screen view
  portchurn report --for 30s                     who burns ports, towards whom, what would help
  portchurn stream dst=:443 and comm=php-fpm*    failures and finished flows as they happen
  portchurn record -o incident.arrow --for 10m   evidence to look at later
  portchurn report incident.arrow                the same verdict from it
  portchurn doctor                               what this host allows";

/// Who is burning the ephemeral ports of this host, towards which destination, how soon that runs out, and what would fix it.
#[derive(Debug, Parser)]
#[command(name = "portchurn", about, after_help = AFTER_HELP)]
pub struct Cli {
    /// Print the version and end
    #[arg(short = 'V', long)]
    pub version: bool,
    /// With --version: also the commit, the target, the BPF object and the formats
    #[arg(long, requires = "version")]
    pub verbose: bool,
    /// Without a command: live, where it can be had
    #[command(subcommand)]
    pub command: Option<CommandArgs>,
}

#[derive(Debug, Subcommand)]
pub enum CommandArgs {
    /// The full-screen view (also without a command); ? lists its keys
    ///
    /// Where stdout is no terminal it is `stream`.
    #[command(after_help = FILTER_HELP)]
    Live(LiveArgs),
    /// One line per connect failure and finished flow, as they happen
    ///
    /// A flow's lifetime runs from its first transition (SYN_SENT, or ESTABLISHED for accepted ones) to the end of its full
    /// socket; TIME_WAIT comes after it. An owner marked ~ is inferred (a listener in place of the process that accepted,
    /// a socket that existed before the start).
    #[command(after_help = FILTER_HELP)]
    Stream(StreamArgs),
    /// Trace for a while, or read a recording, then print the verdict
    ///
    /// A trace ends after --for, on Ctrl-C or on TERM, and then prints. With FILE (- is stdin) nothing is traced and nothing
    /// needs to be permitted.
    #[command(after_help = FILTER_HELP)]
    Report(ReportArgs),
    /// Trace into a file: an Arrow table that pandas, polars and DuckDB open as it is
    ///
    /// Ends after --for, on Ctrl-C or on TERM, or with the command behind --, whose exit code it passes on. With --max-size or
    /// --max-age it writes FILE.000001.arrow and so on, and removes the oldest. With --on it holds the last minutes in memory and
    /// writes them when it happens. A crash takes the last two seconds with it, a power cut the last four; the rest is read.
    Record(RecordArgs),
    /// The full-screen view of a recording, or what stream would have printed then
    ///
    /// Lines where stdout is no terminal, and with --what or --json.
    #[command(after_help = FILTER_HELP)]
    Replay(ReplayArgs),
    /// Turn a recording into Parquet, JSON lines, CSV, or a recording without names
    Export(ExportArgs),
    /// What is in a recording, in ten lines: host, time, parts, losses, damage, incidents
    Info(InfoArgs),
    /// Two recordings side by side: before and after a deploy or a sysctl
    Diff(DiffArgs),
    /// Look into a recording for CI and cron: exit code 4 if a condition holds
    #[command(after_help = CHECK_HELP)]
    Check(CheckArgs),
    /// What this host allows, and what is lost without the rest
    ///
    /// Exit code 0: everything; 1: portchurn works with the losses listed; 2: it cannot trace this host.
    Doctor(DoctorArgs),
    /// Build an incident in network namespaces of its own, trace it, explain it, remove it
    ///
    /// Takes about half a minute and touches nothing outside its namespaces.
    Demo,
}

const FILTER_HELP: &str = "\
Filters: field=value joined by and, or, not and parentheses; != negates, * matches anything.
  comm= pid= unit= container= pod= workload=   who       netns=   inode number or name
  src= dst=    address, CIDR, :port, address:port   state=   TCP state    errno=   EADDRNOTAVAIL, ...
  dst=10.0.0.0/8:443 and not comm=curl";

const CHECK_HELP: &str = "\
Conditions: the id of a finding (port-exhaustion, port-exhaustion-soon, close-wait-leak, ...), or a number compared with > or <:
  occupancy   highest share of a destination's ports in use: 0.8 or 80%   ttx      least time to exhaustion, e.g. ttx<10m
  failed      connects that failed for lack of a port                     errors   connects that failed for any reason
  time_wait   highest number of TIME_WAIT entries of a workload           connects_per_second, close_wait, lost, repaired

Exit code 1: nothing holds, and events are missing that would decide.

  portchurn check --fail-if port-exhaustion 'occupancy>80%' 'ttx<10m' nightly.arrow unit=shop.service";

/// What every live command takes.
#[derive(Clone, Debug, Args)]
pub struct TraceArgs {
    /// Group processes into workloads by: auto, pool, unit, container, comm, exe, cmdline, pid, cgroup
    ///
    /// auto, the default, takes the first that is known of php-fpm pool, container, systemd unit, comm. A recording is grouped as it
    /// was when it was made unless this says otherwise.
    #[arg(long, value_name = "WHAT")]
    pub by: Option<By>,
    /// Bytes of the kernel's event buffer: a power of two, suffixes K and M allowed
    ///
    /// What does not fit is counted as lost and shown.
    #[arg(long, value_name = "BYTES", default_value = "16M", value_parser = ring_size)]
    pub ring_size: u32,
    /// Which kernel hooks to use: tracepoints only, or the best that this kernel lets in
    #[arg(long, value_name = "TIER", value_enum, default_value_t)]
    pub tier: TierChoice,
}

/// Which part of a recording.
#[derive(Clone, Debug, Args)]
pub struct WindowArgs {
    /// Of a recording: begin here, e.g. +90s, 3m ago (before the end), 14:02 or 2026-03-14T14:02:00Z
    ///
    /// What was open then is known from the nearest list of sockets before.
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    pub from: Option<TimeInput>,
    /// Of a recording: end here
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    pub to: Option<TimeInput>,
    /// Of a recording: the minutes around the worst incident, from a minute before the first connect that found no port
    #[arg(long)]
    pub around_failures: bool,
}

/// How the full-screen view looks.
#[derive(Clone, Debug, Args)]
pub struct ScreenArgs {
    /// Draw with ASCII letters alone (the default where the locale is not UTF-8)
    #[arg(long)]
    pub ascii: bool,
}

#[derive(Debug, Args)]
pub struct LiveArgs {
    #[command(flatten)]
    pub trace: TraceArgs,
    #[command(flatten)]
    pub screen: ScreenArgs,
    /// Only what matches, e.g. dst=10.0.0.0/8:443 and not comm=curl
    #[arg(value_name = "FILTER", num_args = 0..)]
    pub filter: Vec<String>,
}

#[derive(Debug, Args)]
pub struct StreamArgs {
    #[command(flatten)]
    pub trace: TraceArgs,
    /// What to print: findings, failures and flows by default
    #[arg(long, value_name = "WHAT")]
    pub what: Option<StreamKind>,
    /// One JSON object per line
    #[arg(long)]
    pub json: bool,
    /// Stop after this long, e.g. 30s or 5m
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Only what matches, e.g. dst=10.0.0.0/8:443 and not comm=curl
    #[arg(value_name = "FILTER", num_args = 0..)]
    pub filter: Vec<String>,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct RecordArgs {
    #[command(flatten)]
    pub trace: TraceArgs,
    /// The file; it must not exist and only you will be able to read it
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Replace the file if it exists; of a rotation all its parts
    #[arg(long)]
    pub force: bool,
    /// Stop after this long, e.g. 30s or 5m
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Keep at most so many bytes in several files; suffixes K, M and G
    #[arg(long, value_name = "BYTES", value_parser = byte_count)]
    pub max_size: Option<u64>,
    /// Keep files until their last event is this old
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub max_age: Option<Duration>,
    /// Flight recorder: write only what surrounds the first of these, or of the signal USR1
    #[arg(long, value_name = "WHAT", value_delimiter = ',', conflicts_with_all = ["max_size", "max_age"])]
    pub on: Vec<Trigger>,
    /// With --on: what to keep from before it happened, as far as 64 MiB of memory reach
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub before: Duration,
    /// With --on: how long to go on afterwards
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = duration)]
    pub after: Duration,
    /// With --on: wait for the next incident then, which gets a file of its own (FILE.000001.arrow)
    ///
    /// A failure is another incident if none came for as long as --after says.
    #[arg(long, requires = "on")]
    pub rearm: bool,
    /// Print the report at the end
    #[arg(long)]
    pub report: bool,
    /// Print the report at the end as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Record until this command has ended; if --for ends first, the command gets TERM
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// So many times as fast as it happened, or max
    #[arg(long, value_name = "FACTOR", default_value = "1")]
    pub speed: Speed,
    #[command(flatten)]
    pub window: WindowArgs,
    /// Group processes otherwise than when it was recorded
    #[arg(long, value_name = "WHAT")]
    pub by: Option<By>,
    /// Print lines, and what: failures, flows, transitions, all
    #[arg(long, value_name = "WHAT")]
    pub what: Option<StreamKind>,
    /// Print lines: one JSON object each
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub screen: ScreenArgs,
    /// Recordings (files, a directory, a 'pattern*', - is stdin), then only what matches, e.g. dst=10.0.0.0/8:443
    #[arg(value_name = "FILE... FILTER", num_args = 1.., required = true)]
    pub words: Vec<String>,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct ExportArgs {
    /// Recordings (files, a directory, a 'pattern*', - is stdin), then only what matches, e.g. dst=10.0.0.0/8:443
    #[arg(value_name = "FILE... FILTER", num_args = 1.., required = true)]
    pub words: Vec<String>,
    #[command(flatten)]
    pub window: WindowArgs,
    /// Rows of the recording, or one row per connection that ended or failed
    #[arg(long, value_name = "WHAT", default_value = "events")]
    pub what: Exported,
    #[arg(long, value_name = "FORMAT")]
    pub format: ExportFormat,
    /// Where to; JSON lines and CSV go to stdout without it
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,
    /// Replace the file if it exists
    #[arg(long)]
    pub force: bool,
    /// Write a Hive-partitioned dataset below -o: host=NAME/hour=2026-03-14T02/...parquet
    #[arg(long)]
    pub partition: bool,
    /// Put keyed hashes in place of addresses, names and command lines; the key is thrown away
    #[arg(long)]
    pub redact: bool,
    /// With --redact: the key is made of this file, so that several redacted recordings can be compared
    #[arg(long, value_name = "FILE", requires = "redact")]
    pub key_file: Option<PathBuf>,
    /// With --redact: replace the ports of services too, those below 32768
    #[arg(long, requires = "redact")]
    pub redact_ports: bool,
    /// With --redact: begin in 1970, so that nobody knows when it was
    #[arg(long, requires = "redact")]
    pub redact_times: bool,
    /// With --what flows: group processes otherwise than when it was recorded
    #[arg(long, value_name = "WHAT")]
    pub by: Option<By>,
}

#[derive(Debug, Args)]
pub struct InfoArgs {
    /// Recordings: files, a directory, a 'pattern*', - is stdin
    #[arg(value_name = "FILE", num_args = 1.., required = true)]
    pub files: Vec<PathBuf>,
    /// One JSON object (schema portchurn.info/1)
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct DiffArgs {
    /// Two recordings (each a file, a directory or a 'pattern*'), then only what matches
    #[arg(value_name = "BEFORE AFTER FILTER", num_args = 1.., required = true)]
    pub words: Vec<String>,
    #[command(flatten)]
    pub window: WindowArgs,
    /// The part of BEFORE alone, e.g. 14:00..14:10 or +5m..+8m
    #[arg(long, value_name = "FROM..TO", value_parser = time_range, allow_hyphen_values = true)]
    pub before: Option<TimeRange>,
    /// The part of AFTER alone
    #[arg(long, value_name = "FROM..TO", value_parser = time_range, allow_hyphen_values = true)]
    pub after: Option<TimeRange>,
    /// Group processes otherwise than when it was recorded
    #[arg(long, value_name = "WHAT")]
    pub by: Option<By>,
    /// One JSON object (schema portchurn.diff/1)
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Recordings (files, a directory, a 'pattern*', - is stdin), then only what matches, e.g. dst=10.0.0.0/8:443
    #[arg(value_name = "FILE... FILTER", num_args = 0..)]
    pub words: Vec<String>,
    /// Conditions; one that holds is enough
    #[arg(long, value_name = "EXPR", num_args = 1.., required = true)]
    pub fail_if: Vec<String>,
    #[command(flatten)]
    pub window: WindowArgs,
    /// Of findings, only those that hold at the end of the recording, not those that are over
    #[arg(long)]
    pub now: bool,
    /// One JSON object (schema portchurn.check/1)
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ReportArgs {
    #[command(flatten)]
    pub trace: TraceArgs,
    /// The report as one JSON object (schema portchurn.report/1)
    #[arg(long)]
    pub json: bool,
    /// Trace for this long, e.g. 30s or 5m (30s without it)
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub duration: Option<Duration>,
    #[command(flatten)]
    pub window: WindowArgs,
    /// Recordings instead of a trace (files, a directory, a 'pattern*', - is stdin), then only what matches, e.g. dst=10.0.0.0/8:443
    #[arg(value_name = "FILE... FILTER", num_args = 0..)]
    pub words: Vec<String>,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// One JSON object
    #[arg(long)]
    pub json: bool,
    /// Which kernel hooks to try: tracepoints only, or the best that this kernel lets in
    #[arg(long, value_name = "TIER", value_enum, default_value_t)]
    pub tier: TierChoice,
}
