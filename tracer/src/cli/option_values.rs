//! Values of options: the words among which some of them choose, and how the others are read.
//!
//! The doc comments of the enums' variants are shown by `--help`.

use std::time::Duration;

use clap::ValueEnum;

use tracer_core::filter::Filter;
use tracer_core::time_input::TimeInput;

/// `--tier`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TierChoice {
    /// fentry and fexit where the kernel lets them in, tracepoints elsewhere
    #[default]
    Auto,
    /// Tracepoints alone
    Tracepoint,
}

/// What a flight recorder waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Trigger {
    /// The first connect (or bind to port 0) that finds no port
    Exhaustion,
    /// The first forecast, from a few seconds of steady traffic, that ports will run out
    Forecast,
    /// Nothing but the signal USR1, which triggers whatever else is waited for, too
    Signal,
}

impl Trigger {
    /// As it is typed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exhaustion => "exhaustion",
            Self::Forecast => "forecast",
            Self::Signal => "signal",
        }
    }
}

/// What is exported.
#[expect(missing_docs, reason = "doc comments would be shown by --help")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Exported {
    Events,
    Flows,
}

impl Exported {
    /// As it is typed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Flows => "flows",
        }
    }
}

/// What an export is written as.
#[expect(missing_docs, reason = "doc comments would be shown by --help")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    Parquet,
    Jsonl,
    Csv,
    /// Another recording: whole again, or redacted
    Arrow,
}

/// The filter given as words; `None` without words.
///
/// # Errors
/// The words are no filter. The message points at the place.
pub fn filter(words: &[String]) -> Result<Option<Filter>, String> {
    if words.is_empty() {
        return Ok(None);
    }
    let text = words.join(" ");
    Filter::parse(&text).map(Some).map_err(|error| error.marked(&text))
}

/// A time in a recording.
///
/// # Errors
/// The text is no time. The message gives examples.
pub fn time(text: &str) -> Result<TimeInput, String> {
    TimeInput::parse(text).ok_or_else(|| {
        let text = text.trim();
        format!("`{text}` is no time: expected +90s, 3m ago (before the end), 14:02, 14:02:30 or 2026-03-14T14:02:00Z")
    })
}

/// Begin and end of a part of a recording; `None` = its beginning, its end.
pub type TimeRange = (Option<TimeInput>, Option<TimeInput>);

/// `FROM..TO`, either of which may be missing.
///
/// # Errors
/// The text is none. The message gives examples.
pub fn time_range(text: &str) -> Result<TimeRange, String> {
    let (from, to) = text.split_once("..").ok_or("expected FROM..TO, such as 14:00..14:10, +5m..+8m or ..+90s")?;
    let end = |text: &str| if text.trim().is_empty() { Ok(None) } else { time(text).map(Some) };
    Ok((end(from)?, end(to)?))
}

/// A duration above zero.
///
/// # Errors
/// The text is no duration, or the duration is not above zero. The message says which.
pub fn duration(text: &str) -> Result<Duration, String> {
    // A span may have days, which are 24 hours here: no date is meant.
    let parsed = text.parse().and_then(|span: jiff::Span| span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()));
    let parsed = parsed.map_err(|_| "expected a duration such as 30s, 5m, 1h30m or 7d".to_owned())?;
    Duration::try_from(parsed)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "expected a duration above zero".into())
}

/// Bytes of recordings, at least 1 MiB.
///
/// # Errors
/// The text is no such number. The message gives examples.
pub fn byte_count(text: &str) -> Result<u64, String> {
    const SMALLEST: u64 = 1 << 20;
    with_suffix(text, &['K', 'M', 'G'])
        .filter(|bytes| *bytes >= SMALLEST)
        .ok_or_else(|| "expected a number of bytes from 1M on, such as 64M or 2G".into())
}

/// Bytes of the ring buffer. The kernel wants a power of two that is a multiple of the page size (kernel/bpf/ringbuf.c
/// `ringbuf_map_alloc`).
///
/// # Errors
/// The text is no such number. The message gives the bounds.
pub fn ring_size(text: &str) -> Result<u32, String> {
    const SMALLEST: u32 = 4096;
    const LARGEST: u32 = 1 << 30;
    with_suffix(text, &['K', 'M'])
        .and_then(|size| u32::try_from(size).ok())
        .filter(|size| size.is_power_of_two() && (SMALLEST..=LARGEST).contains(size))
        .ok_or_else(|| format!("expected a power of two from {SMALLEST} to {LARGEST}, such as 65536, 512K or 16M"))
}

/// A number with one of `suffixes` in either case, each of which stands for 1024 times the one before it.
fn with_suffix(text: &str, suffixes: &[char]) -> Option<u64> {
    let last = text.chars().last()?.to_ascii_uppercase();
    let (digits, unit) = match suffixes.iter().position(|suffix| *suffix == last) {
        Some(at) => (text.get(..text.len() - 1)?, 1024_u64.checked_pow(u32::try_from(at).ok()? + 1)?),
        None => (text, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_sizes_are_powers_of_two_within_bounds() {
        assert_eq!(ring_size("16M"), Ok(16 << 20));
        assert_eq!(ring_size("512k"), Ok(512 << 10));
        assert_eq!(ring_size("4096"), Ok(4096));
        for wrong in ["0", "12288", "2048", "4G", "99999999999", "-1", "", "M", "1MM", "1µ"] {
            assert!(ring_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn byte_counts_have_suffixes_and_a_least() {
        assert_eq!(byte_count("2G"), Ok(2 << 30));
        assert_eq!(byte_count("1048576"), Ok(1 << 20));
        for wrong in ["1K", "1T", "G", "99999999999G", "-1M", ""] {
            assert!(byte_count(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_are_friendly_and_positive() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for wrong in ["0s", "-5s", "soon", ""] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_time_is_told_what_is_one() {
        let error = time(" soon ").expect_err("no time");
        assert!(error.starts_with("`soon` is no time: expected +90s, 3m ago"), "{error}");
    }
}
