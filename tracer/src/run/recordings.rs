//! What commands share that read recordings: names become series, typed times become a window, and a window becomes a snapshot.

use anyhow::{Result, bail};
use jiff::tz::TimeZone;

use super::output;
use crate::cli::RecordingInput;
use tracer_core::clock::Clock;
use tracer_core::host::HostFacts;
use tracer_core::playback::{self, PlayWindow};
use tracer_core::series::{self, RecordingSeries};
use tracer_core::tracker::snapshot::Snapshot;

/// What a recording shows. Its tracker is dropped, because two trackers may need too much memory.
pub struct Shown {
    /// What is inside of the window and of the filter.
    pub snapshot: Snapshot,
    /// The host that was traced.
    pub host: HostFacts,
    /// Turns instants of the recording into wall time.
    pub clock: Clock,
    /// What made processes one workload: a value of `--by`.
    pub by: String,
    /// The names of the files, for a heading.
    pub name: String,
}

/// Opens a recording of which there can be only one. The window is the one that is asked for.
///
/// # Errors
/// Nothing that can be read together is there ([`series::SeriesError`]), there are several hosts or boots, or the window cannot be had
/// ([`playback::WindowError`]).
pub fn open(input: &RecordingInput) -> Result<(RecordingSeries, PlayWindow)> {
    let mut all = series::open(&input.names)?;
    let (Some(mut only), true) = (all.pop(), all.is_empty()) else {
        let names: Vec<_> = series::open(&input.names)?.iter().map(which).collect();
        bail!(
            "these are recordings of several hosts or boots, which have no common clock; name one of them:\n  {}",
            names.join("\n  ")
        );
    };
    let window = playback::window(&mut only, &input.window, input.filter.as_ref(), &TimeZone::system())?;
    Ok((only, window))
}

/// The host, its boot and its files.
fn which(series: &RecordingSeries) -> String {
    let host = &series.header().host;
    let unknown = || "unknown".to_owned();
    let boot: String = host.boot_id.clone().unwrap_or_else(unknown).chars().take(8).collect();
    let begin = series.clock().rfc3339(series.begin());
    format!("{} (boot {boot}), from {begin}: {}", host.hostname.clone().unwrap_or_else(unknown), series.name())
}

/// Reads the recordings: one result for each boot of each host, in order of their times. What could not be read is said on stderr.
///
/// # Errors
/// As [`open`], but for several hosts and boots. Of these it is an error only if none has the window.
pub fn read(input: &RecordingInput) -> Result<Vec<Shown>> {
    let mut all = series::open(&input.names)?;
    let several = all.len() > 1;
    let (mut shown, mut refused) = (Vec::new(), Vec::new());
    for series in &mut all {
        let window = match playback::window(series, &input.window, input.filter.as_ref(), &TimeZone::system()) {
            Ok(window) => window,
            Err(error) if several => {
                refused.push(format!("{}: {error}", which(series)));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let played = playback::play(series, input.by, window)?;
        output::warn(&played.warnings);
        let snapshot = played.tracker.snapshot();
        let snapshot = input.filter.as_ref().map(|filter| filter.narrow(&snapshot)).unwrap_or(snapshot);
        shown.push(Shown { snapshot, host: played.host, clock: played.clock, by: played.by, name: which(series) });
    }
    if shown.is_empty() {
        bail!("{}", refused.join("\n"));
    }
    output::warn(&refused);
    Ok(shown)
}
