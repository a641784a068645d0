//! The command line: what was typed becomes one plain, validated config per command.
//!
//! Nothing else in this crate knows how options are typed, and no command decides again what is decided here: whether a view is lines,
//! whether a report is on a recording, how a recording is divided into files.

mod args;
mod config;
mod option_values;

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};
use thiserror::Error;

use self::args::{CheckArgs, Cli, CommandArgs, DiffArgs, RecordArgs, ReplayArgs, ReportArgs, TraceArgs, WindowArgs};
pub use self::config::{
    CheckConfig, Command, DiffConfig, DoctorConfig, ExportConfig, FlightWindow, InfoConfig, LiveConfig, OutputFormat,
    RecordConfig, RecordTarget, RecordingInput, ReplayConfig, ReplayLinesConfig, ReplayScreenConfig, ReportConfig,
    ReportSource, RotationBounds, StreamConfig, TraceConfig,
};
pub use self::option_values::{ExportFormat, Exported, Trigger};
use self::option_values::{TierChoice, TimeRange, filter};
use crate::probe;
use crate::stream::{StreamKind, StreamSelection};
use tracer_core::filter::Filter;
use tracer_core::playback::WindowInput;
use tracer_core::report::check::Condition;
use tracer_core::tracker::workload::By;

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
        Some(CommandArgs::Replay(args)) => replay(&args, terminal)?,
        Some(CommandArgs::Export(args)) => Command::Export(ExportConfig {
            input: input(&args.words, &args.window, args.by)?,
            what: args.what,
            format: args.format,
            output: args.output,
            force: args.force,
            partition: args.partition,
            redact: args.redact,
            key_file: args.key_file,
            redact_ports: args.redact_ports,
            redact_times: args.redact_times,
        }),
        Some(CommandArgs::Diff(args)) => Command::Diff(diff(&args)?),
        Some(CommandArgs::Check(args)) => Command::Check(check(args)?),
        Some(CommandArgs::Info(args)) => Command::Info(InfoConfig { names: args.files, format: format(args.json) }),
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

/// How long a report traces that is not told otherwise.
const REPORT_DURATION: Duration = Duration::from_secs(30);

fn report(args: &ReportArgs) -> Result<ReportConfig, UsageError> {
    let (names, words) = split_files(&args.words);
    let format = format(args.json);
    if !names.is_empty() {
        if args.duration.is_some() {
            return Err(usage(
                "--for is the length of a trace, and a recording has its own: --from and --to choose a part of it",
            ));
        }
        let source = ReportSource::Recording(input(&args.words, &args.window, args.trace.by)?);
        return Ok(ReportConfig { source, format });
    }
    if !window(&args.window).is_all() {
        return Err(usage("--from, --to and --around-failures choose a part of a recording: name its file"));
    }
    let (trace, duration) = (trace(&args.trace), args.duration.unwrap_or(REPORT_DURATION));
    Ok(ReportConfig { source: ReportSource::Trace { trace, duration, filter: typed(words)? }, format })
}

/// The recordings that the first words name, and the words of the filter behind them. A word is a name if it is `-`, exists, or holds
/// nothing that a filter would.
fn split_files(words: &[String]) -> (Vec<PathBuf>, &[String]) {
    let named = |word: &String| {
        let filter_like = word.contains('=') || word.starts_with('(') || ["not", "and", "or"].contains(&word.as_str());
        word == "-" || !filter_like || std::fs::metadata(word).is_ok()
    };
    let count = words.iter().take_while(|word| named(word)).count();
    let (names, filter) = words.split_at(count);
    (names.iter().map(Into::into).collect(), filter)
}

fn input(words: &[String], asked: &WindowArgs, by: Option<By>) -> Result<RecordingInput, UsageError> {
    let (names, words) = split_files(words);
    if names.is_empty() {
        return Err(usage("which recording? Its file, its directory or a pattern comes before the filter"));
    }
    Ok(RecordingInput { names, window: window(asked), by, filter: typed(words)? })
}

fn window(args: &WindowArgs) -> WindowInput {
    WindowInput { from: args.from, to: args.to, around_failures: args.around_failures }
}

fn diff(args: &DiffArgs) -> Result<DiffConfig, UsageError> {
    let (names, words) = split_files(&args.words);
    let [before, after] = &names[..] else {
        return Err(usage(&format!(
            "diff compares two recordings and not {}: several files of one side are a directory or a pattern in quotes",
            names.len()
        )));
    };
    let side = |name: &PathBuf, range: Option<TimeRange>| {
        let mut window = window(&args.window);
        if let Some((from, to)) = range {
            (window.from, window.to) = (from, to);
        }
        Ok(RecordingInput { names: vec![name.clone()], window, by: args.by, filter: typed(words)? })
    };
    Ok(DiffConfig { before: side(before, args.before)?, after: side(after, args.after)?, format: format(args.json) })
}

/// The conditions are the first words behind `--fail-if`; behind them may stand recordings and a filter.
fn check(args: CheckArgs) -> Result<CheckConfig, UsageError> {
    let (mut conditions, mut words) = (Vec::new(), Vec::new());
    for word in args.fail_if {
        let condition = word.parse::<Condition>();
        match condition {
            Ok(condition) if words.is_empty() => conditions.push(condition),
            _ if !words.is_empty() || is_input(&word) => words.push(word),
            Ok(condition) => conditions.push(condition),
            Err(error) => return Err(usage(&format!("--fail-if: {error}"))),
        }
    }
    if conditions.is_empty() {
        return Err(usage("--fail-if needs a condition, such as port-exhaustion or 'occupancy>80%'"));
    }
    words.splice(0..0, args.words);
    let input = input(&words, &args.window, None)?;
    Ok(CheckConfig { input, fail_if: conditions, now: args.now, format: format(args.json) })
}

/// Is the word the name of a recording, or does a filter begin with it?
fn is_input(word: &str) -> bool {
    let path = std::path::Path::new(word);
    let name = word == "-" || path.exists() || path.extension().is_some_and(|end| end == "arrow") || word.contains('*');
    let compares_words =
        word.split_once('=').is_some_and(|(field, _)| field.bytes().all(|b| b.is_ascii_alphabetic() || b == b'!'));
    name || compares_words || word.starts_with('(') || word == "not"
}

fn usage(message: &str) -> UsageError {
    UsageError(message.into())
}

fn record(args: RecordArgs) -> RecordConfig {
    let bounds = RotationBounds { size: args.max_size, age: args.max_age };
    let target = if !args.on.is_empty() {
        RecordTarget::Flight {
            window: FlightWindow { before: args.before, after: args.after },
            triggers: args.on,
            rearm: args.rearm,
        }
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
fn replay(args: &ReplayArgs, terminal: bool) -> Result<Command, UsageError> {
    let replay = ReplayConfig { input: input(&args.words, &args.window, args.by)?, speed: args.speed };
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
        assert_eq!(config.replay.input.filter.as_ref().map(Filter::text), Some("dst=:443 and not comm=curl"));
        let error = decided("portchurn stream dst=", true).expect_err("no filter").to_string();
        assert!(error.contains("dst="), "{error}");
    }

    #[test]
    fn the_first_words_of_a_report_are_files_unless_they_look_like_a_filter() {
        let source = |line: &str| match decided(line, true) {
            Ok(Command::Report(config)) => config.source,
            other => panic!("{other:?}"),
        };
        for line in ["portchurn report nightly.arrow dst=:443", "portchurn report -"] {
            assert!(matches!(source(line), ReportSource::Recording(_)), "{line}");
        }
        let ReportSource::Recording(input) = source("portchurn report a.arrow b.arrow not comm=curl --from +90s")
        else {
            panic!("no recording")
        };
        assert_eq!(input.names, [Path::new("a.arrow"), Path::new("b.arrow")]);
        assert_eq!(input.filter.as_ref().map(Filter::text), Some("not comm=curl"));
        assert_eq!(input.window.from, Some(tracer_core::time_input::TimeInput::Forward(90_000_000_000)));
        for line in ["portchurn report --for 5s", "portchurn report not comm=curl", "portchurn report (pid=1)"] {
            assert!(matches!(source(line), ReportSource::Trace { .. }), "{line}");
        }
    }

    /// `report FILE --for 5s` ignored the duration, and `check --fail-if X FILE`, as its usage prints it, took the file for a condition.
    #[test]
    fn what_does_not_fit_together_is_refused_and_what_does_is_done() {
        let refused = |line: &str| decided(line, true).expect_err(line).to_string();
        assert!(refused("portchurn report a.arrow --for 5s").contains("--from and --to"));
        assert!(refused("portchurn report dst=:443 --from 14:02").contains("name its file"));
        assert!(refused("portchurn diff a.arrow b.arrow c.arrow").contains("directory or a pattern"));
        assert!(refused("portchurn diff a.arrow dst=:443").contains("not 1"));
        assert!(refused("portchurn check --fail-if failed>0").contains("which recording"));
        assert!(refused("portchurn check a.arrow --fail-if exhaustion").contains("port-exhaustion"));
        assert!(refused("portchurn check a.arrow --fail-if occupancy>80").contains("occupancy>80%"));
        for line in [
            "portchurn check --fail-if port-exhaustion failed>0 a.arrow b.arrow unit=shop.service",
            "portchurn check a.arrow b.arrow unit=shop.service --fail-if port-exhaustion failed>0",
            "portchurn check --fail-if port-exhaustion --fail-if failed>0 a.arrow b.arrow unit=shop.service",
        ] {
            let Ok(Command::Check(config)) = decided(line, true) else { panic!("{line}") };
            assert_eq!((config.fail_if.len(), config.input.names.len()), (2, 2), "{line}");
            assert_eq!(config.input.filter.as_ref().map(Filter::text), Some("unit=shop.service"), "{line}");
        }
        let line = "portchurn diff day/ day/ --before 14:00..14:10 --after +5m.. netns=shop";
        let Ok(Command::Diff(config)) = decided(line, true) else { panic!("{line}") };
        assert!(config.before.window.to.is_some() && config.after.window.to.is_none());
        assert!(config.after.window.from.is_some() && config.after.filter.is_some());
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
        let RecordTarget::Flight { window, triggers, rearm: false } =
            target("--on exhaustion,forecast --before 10s --after 30s")
        else {
            panic!("no flight recorder")
        };
        assert_eq!(triggers, [Trigger::Exhaustion, Trigger::Forecast]);
        assert_eq!((window.before, window.after), (Duration::from_secs(10), Duration::from_secs(30)));
    }
}
