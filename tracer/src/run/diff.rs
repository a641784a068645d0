//! `portchurn diff`: two recordings side by side.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::output;
use crate::cli::{DiffConfig, OutputFormat};
use tracer_core::clock::Clock;
use tracer_core::host::HostFacts;
use tracer_core::report::diff::{Diff, Side};
use tracer_core::tracker::snapshot::Snapshot;
use tracer_core::tracker::workload::By;

/// What a recording shows. Its tracker is dropped before the next recording is read, because two trackers may need too much memory.
fn outcome(path: &Path, by: Option<By>) -> Result<(Snapshot, HostFacts, Clock, String)> {
    let played = output::play(path, by)?;
    Ok((played.tracker.snapshot(), played.host, played.clock, played.by))
}

fn side((snapshot, host, clock, by): &(Snapshot, HostFacts, Clock, String)) -> Side<'_> {
    Side { snapshot, host, clock, by }
}

/// Prints what changed from one recording to the other.
///
/// # Errors
/// One of the files is no recording, or stdout could not be written to.
pub fn run(config: &DiffConfig) -> Result<()> {
    let before = outcome(&config.before, config.by)?;
    let after = outcome(&config.after, config.by)?;
    let diff = Diff::new(side(&before), side(&after));
    output::out(&match config.format {
        OutputFormat::Json => diff.to_json().context("serialising the comparison")?,
        OutputFormat::Text => diff.text(),
    })
}
