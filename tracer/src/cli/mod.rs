//! The command line: what was typed becomes one plain, validated config per command.
//!
//! Nothing else in this crate knows how options are typed, and no command decides again what is decided here: whether a view is lines,
//! whether a report is on a recording, how a recording is divided into files.

mod args;
mod config;
mod option_values;

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use clap::{CommandFactory as _, Parser as _};
use thiserror::Error;

use self::args::{Cli, CommandArgs, RecordArgs, ReplayArgs, ReportArgs, TraceArgs};
pub use self::config::{
    CheckConfig, Command, DiffConfig, DoctorConfig, ExportConfig, FlightWindow, LiveConfig, OutputFormat, RecordConfig,
    RecordTarget, ReplayConfig, ReplayLinesConfig, ReplayScreenConfig, ReportConfig, ReportSource, RotationBounds,
    StreamConfig, TraceConfig,
};
pub use self::option_values::{ExportFormat, Exported, Trigger};
use self::option_values::{TierChoice, filter};
use crate::probe;
use crate::stream::{StreamKind, StreamSelection};
use tracer_core::filter::Filter;

/// Exit codes, the same for every command.
pub mod exit {
    /// Everything was done.
    pub const OK: u8 = 0;
    /// Something could not be done; stderr says what.
    pub const FAILED: u8 = 1;
    /// The command line asks for nothing that can be done.
    pub const USAGE: u8 = 2;
    /// Not permitted, or the kernel is not supported.
    pub const REFUSED: u8 = 3;
    /// `check`: a condition holds.
    pub const FINDING: u8 = 4;
}

/// The command line asks for nothing that can be done; the message says why.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct UsageError(String);

/// The command that this process was started with. What clap itself finds wrong, and `--help`, end the process.
///
/// # Errors
/// [`UsageError`]: the words of a filter are no filter.
pub fn parse() -> Result<Command, UsageError> {
    command(Cli::parse(), io::stdout().is_terminal())
}

/// The command line as clap knows it, from which man pages and completions are made.
pub fn definition() -> clap::Command {
    Cli::command()
}

/// `terminal`: stdout is one, so there is room for a full-screen view.
fn command(cli: Cli, terminal: bool) -> Result<Command, UsageError> {
    if cli.version {
        return Ok(Command::Version { verbose: cli.verbose });
    }
    Ok(match cli.command {
        None => live(TraceConfig::default(), false, None, terminal),
        Some(CommandArgs::Live(args)) => live(trace(&args.trace), args.screen.ascii, typed(&args.filter)?, terminal),
        Some(CommandArgs::Stream(args)) => Command::Stream(StreamConfig {
            trace: trace(&args.trace),
            selection: selection(args.what),
            format: format(args.json),
            duration: args.duration,
            filter: typed(&args.filter)?,
        }),
        Some(CommandArgs::Report(args)) => Command::Report(report(&args)?),
        Some(CommandArgs::Record(args)) => Command::Record(record(args)),
        Some(CommandArgs::Replay(args)) => replay(args, terminal)?,
        Some(CommandArgs::Export(args)) => Command::Export(ExportConfig {
            file: args.file,
            what: args.what,
            format: args.format,
            output: args.output,
            force: args.force,
            partition: args.partition,
            redact: args.redact,
            by: args.by,
        }),
        Some(CommandArgs::Diff(args)) => {
            Command::Diff(DiffConfig { before: args.before, after: args.after, by: args.by, format: format(args.json) })
        }
        Some(CommandArgs::Check(args)) => {
            Command::Check(CheckConfig { file: args.file, fail_if: args.fail_if, format: format(args.json) })
        }
        Some(CommandArgs::Doctor(args)) => {
            Command::Doctor(DoctorConfig { exact: exact(args.tier), format: format(args.json) })
        }
        Some(CommandArgs::Demo) => Command::Demo,
    })
}

/// Where stdout is no terminal, the live view is a stream.
fn live(trace: TraceConfig, ascii: bool, filter: Option<Filter>, terminal: bool) -> Command {
    if terminal {
        return Command::Live(LiveConfig { trace, ascii, filter });
    }
    let (selection, format) = (StreamSelection::default(), OutputFormat::Text);
    Command::Stream(StreamConfig { trace, selection, format, duration: None, filter })
}

fn report(args: &ReportArgs) -> Result<ReportConfig, UsageError> {
    let (file, words) = split_file(&args.words);
    let source = match file {
        Some(file) => ReportSource::Recording { file, by: args.trace.by },
        None => ReportSource::Trace { trace: trace(&args.trace), duration: args.duration },
    };
    Ok(ReportConfig { source, format: format(args.json), filter: typed(words)? })
}

/// The recording that the first word may name, and the words of the filter. A word is a file if it is `-`, exists, or holds
/// nothing that a filter would.
fn split_file(words: &[String]) -> (Option<PathBuf>, &[String]) {
    let Some((first, rest)) = words.split_first() else { return (None, words) };
    let filter_like = first.contains('=') || first.starts_with('(') || first == "not";
    let named = first == "-" || !filter_like || std::fs::metadata(first).is_ok();
    if named { (Some(first.into()), rest) } else { (None, words) }
}

fn record(args: RecordArgs) -> RecordConfig {
    let bounds = RotationBounds { size: args.max_size, age: args.max_age };
    let target = if !args.on.is_empty() {
        RecordTarget::Flight { window: FlightWindow { before: args.before, after: args.after }, triggers: args.on }
    } else if bounds == RotationBounds::default() {
        RecordTarget::File
    } else {
        RecordTarget::Rotation(bounds)
    };
    RecordConfig {
        trace: trace(&args.trace),
        output: args.output,
        force: args.force,
        target,
        duration: args.duration,
        report: (args.report || args.json).then(|| format(args.json)),
        command: args.command,
    }
}

/// A replay is lines where stdout is no terminal and where lines are asked for.
fn replay(args: ReplayArgs, terminal: bool) -> Result<Command, UsageError> {
    let replay = ReplayConfig {
        file: args.file,
        speed: args.speed,
        from: args.from,
        to: args.to,
        by: args.by,
        filter: typed(&args.filter)?,
    };
    Ok(if terminal && !args.json && args.what.is_none() {
        Command::ReplayScreen(ReplayScreenConfig { replay, ascii: args.screen.ascii })
    } else {
        Command::ReplayLines(ReplayLinesConfig { replay, selection: selection(args.what), format: format(args.json) })
    })
}

fn trace(args: &TraceArgs) -> TraceConfig {
    let probes = probe::Options { ring_size: args.ring_size, exact: exact(args.tier) };
    TraceConfig { by: args.by.unwrap_or_default(), probes }
}

fn exact(tier: TierChoice) -> bool {
    tier == TierChoice::Auto
}

fn selection(what: Option<StreamKind>) -> StreamSelection {
    what.map_or_else(StreamSelection::default, |what| [what].into_iter().collect())
}

fn format(json: bool) -> OutputFormat {
    if json { OutputFormat::Json } else { OutputFormat::Text }
}

fn typed(words: &[String]) -> Result<Option<Filter>, UsageError> {
    filter(words).map_err(UsageError)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use clap::CommandFactory as _;

    use super::*;

    fn decided(line: &str, terminal: bool) -> Result<Command, UsageError> {
        command(Cli::try_parse_from(line.split_whitespace()).expect("well formed"), terminal)
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_a_command_it_is_the_live_view_with_the_same_defaults() {
        let Ok(Command::Live(bare)) = decided("portchurn", true) else { panic!("not live") };
        let Ok(Command::Live(live)) = decided("portchurn live", true) else { panic!("not live") };
        assert_eq!(format!("{bare:?}"), format!("{live:?}"));
    }

    #[test]
    fn views_are_lines_where_there_is_no_terminal_or_lines_are_asked_for() {
        for line in ["portchurn", "portchurn live"] {
            assert!(matches!(decided(line, false), Ok(Command::Stream(_))), "{line}");
        }
        assert!(matches!(decided("portchurn replay FILE", true), Ok(Command::ReplayScreen(_))));
        for (line, terminal) in [("", false), ("--json", true), ("--what flows", true)] {
            let line = format!("portchurn replay FILE {line}");
            assert!(matches!(decided(&line, terminal), Ok(Command::ReplayLines(_))), "{line}");
        }
    }

    #[test]
    fn filter_words_need_no_quotes() {
        let Ok(Command::ReplayScreen(config)) = decided("portchurn replay FILE dst=:443 and not comm=curl", true)
        else {
            panic!("not replay")
        };
        assert_eq!(config.replay.filter.as_ref().map(Filter::text), Some("dst=:443 and not comm=curl"));
        let error = decided("portchurn stream dst=", true).expect_err("no filter").to_string();
        assert!(error.contains("dst="), "{error}");
    }

    #[test]
    fn the_first_word_of_a_report_is_a_file_unless_it_looks_like_a_filter() {
        let source = |line: &str| match decided(line, true) {
            Ok(Command::Report(config)) => config.source,
            other => panic!("{other:?}"),
        };
        for line in ["portchurn report nightly.arrow dst=:443", "portchurn report -"] {
            assert!(matches!(source(line), ReportSource::Recording { .. }), "{line}");
        }
        for line in ["portchurn report --for 5s", "portchurn report not comm=curl", "portchurn report (pid=1)"] {
            assert!(matches!(source(line), ReportSource::Trace { .. }), "{line}");
        }
    }

    #[test]
    fn a_recording_is_one_file_a_rotation_or_a_flight_recorder() {
        let target = |line: &str| match decided(&format!("portchurn record -o a.arrow {line}"), true) {
            Ok(Command::Record(config)) if config.output == Path::new("a.arrow") => config.target,
            other => panic!("{other:?}"),
        };
        assert_eq!(target(""), RecordTarget::File);
        let bounds = RotationBounds { size: None, age: Some(Duration::from_secs(90)) };
        assert_eq!(target("--max-age 90s"), RecordTarget::Rotation(bounds));
        let RecordTarget::Flight { window, triggers } = target("--on exhaustion,forecast --before 10s --after 30s")
        else {
            panic!("no flight recorder")
        };
        assert_eq!(triggers, [Trigger::Exhaustion, Trigger::Forecast]);
        assert_eq!((window.before, window.after), (Duration::from_secs(10), Duration::from_secs(30)));
    }
}
