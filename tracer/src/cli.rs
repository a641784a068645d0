//! Arguments, as typed and as validated.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::filter::Filter;
use crate::stream::What;
use crate::tracker::workload::By;

/// Exit codes, the same for every command.
pub mod exit {
    pub const OK: u8 = 0;
    pub const FAILED: u8 = 1;
    pub const USAGE: u8 = 2;
    /// Not permitted, or the kernel is not supported.
    pub const REFUSED: u8 = 3;
}

const AFTER_HELP: &str = "\
Exit codes: 0 ok, 1 failed, 2 usage, 3 not permitted or kernel unsupported.

Examples:
  portchurn                                      the full-screen view
  portchurn report --for 30s                     who burns ports, towards whom, what would help
  portchurn stream dst=:443 and comm=php-fpm*    failures and finished flows as they happen
  portchurn doctor                               what this host allows";

/// Who is burning the ephemeral ports of this host, towards which destination, how soon that runs out, and what would fix it.
#[derive(Debug, Parser)]
#[command(version, about, after_help = AFTER_HELP)]
pub struct Cli {
    /// Without a command: live
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
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
    /// Trace for a while, then print the verdict
    ///
    /// Ends after --for, on Ctrl-C or on TERM, and then prints.
    #[command(after_help = FILTER_HELP)]
    Report(ReportArgs),
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
  comm= pid= unit= container= workload=   who       netns=   inode number or name
  src= dst=    address, CIDR, :port, address:port   state=   TCP state    errno=   EADDRNOTAVAIL, ...
  dst=10.0.0.0/8:443 and not comm=curl";

/// What every live command takes.
#[derive(Clone, Debug, Args)]
pub struct TraceArgs {
    /// Group processes into workloads by: auto, pool, unit, container, comm, exe, cmdline, pid, cgroup
    ///
    /// auto takes the first that is known of php-fpm pool, container, systemd unit, comm.
    #[arg(long, value_name = "WHAT", default_value = "auto")]
    pub by: By,
    /// Bytes of the kernel's event buffer: a power of two, suffixes K and M allowed
    ///
    /// What does not fit is counted as lost and shown.
    #[arg(long, value_name = "BYTES", default_value = "16M", value_parser = ring_size)]
    pub ring_size: u32,
}

/// 16 MiB hold 150,000 transitions: half a second of the fastest loopback churn that two CPUs can make.
const DEFAULT_RING_SIZE: u32 = 16 << 20;

impl Default for TraceArgs {
    fn default() -> Self {
        Self { by: By::default(), ring_size: DEFAULT_RING_SIZE }
    }
}

/// How the full-screen view looks.
#[derive(Clone, Debug, Default, Args)]
pub struct ScreenArgs {
    /// Draw with ASCII letters alone (the default where the locale is not UTF-8)
    #[arg(long)]
    pub ascii: bool,
}

#[derive(Debug, Default, Args)]
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
    /// What to print: failures and flows by default
    #[arg(long, value_name = "WHAT")]
    pub what: Option<What>,
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
pub struct ReportArgs {
    #[command(flatten)]
    pub trace: TraceArgs,
    /// The report as one JSON object (schema portchurn.report/1)
    #[arg(long)]
    pub json: bool,
    /// Trace for this long, e.g. 30s or 5m
    #[arg(long = "for", value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub duration: Duration,
    /// Only what matches, e.g. dst=10.0.0.0/8:443 and not comm=curl
    #[arg(value_name = "FILTER", num_args = 0..)]
    pub filter: Vec<String>,
}

#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// One JSON object
    #[arg(long)]
    pub json: bool,
}

/// The filter given as words.
///
/// # Errors
/// The words are no filter; the message points at the place.
pub fn filter(words: &[String]) -> Result<Option<Filter>, String> {
    if words.is_empty() {
        return Ok(None);
    }
    let text = words.join(" ");
    Filter::parse(&text).map(Some).map_err(|error| error.marked(&text))
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration =
        text.parse().map_err(|_| "expected a duration such as 30s, 5m or 1h30m".to_owned())?;
    Duration::try_from(parsed)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "expected a duration above zero".into())
}

/// The kernel wants a power of two that is a multiple of the page size (kernel/bpf/ringbuf.c `ringbuf_map_alloc`).
fn ring_size(text: &str) -> Result<u32, String> {
    const SMALLEST: u32 = 4096;
    const LARGEST: u32 = 1 << 30;
    let (digits, unit) = match text.strip_suffix(['K', 'k']) {
        Some(digits) => (digits, 1 << 10),
        None => text.strip_suffix(['M', 'm']).map_or((text, 1), |digits| (digits, 1 << 20)),
    };
    digits
        .parse::<u32>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .filter(|size| size.is_power_of_two() && (SMALLEST..=LARGEST).contains(size))
        .ok_or_else(|| format!("expected a power of two from {SMALLEST} to {LARGEST}, such as 65536, 512K or 16M"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn ring_sizes_are_powers_of_two_within_bounds() {
        assert_eq!(ring_size("16M"), Ok(16 << 20));
        assert_eq!(ring_size("4096"), Ok(4096));
        for wrong in ["0", "12288", "2048", "4G", "99999999999", "-1", ""] {
            assert!(ring_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_are_friendly_and_positive() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        for wrong in ["0s", "-5s", "soon", ""] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn filter_words_need_no_quotes() {
        let cli = Cli::try_parse_from(["portchurn", "stream", "dst=:443", "and", "not", "comm=curl"]).expect("parses");
        let Some(Command::Stream(args)) = cli.command else { panic!("not stream") };
        assert!(filter(&args.filter).expect("a filter").is_some());
        assert!(filter(&["dst=".into()]).is_err());
    }
}
