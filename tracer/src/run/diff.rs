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
struct Shown {
    snapshot: Snapshot,
    host: HostFacts,
    clock: Clock,
    by: String,
}

impl Shown {
    fn read(path: &Path, by: Option<By>) -> Result<Self> {
        let played = output::play(path, by)?;
        Ok(Self { snapshot: played.tracker.snapshot(), host: played.host, clock: played.clock, by: played.by })
    }

    fn side(&self) -> Side<'_> {
        Side { snapshot: &self.snapshot, host: &self.host, clock: &self.clock, by: &self.by }
    }
}

/// Prints what changed from one recording to the other.
///
/// # Errors
/// One of the files is no recording, or stdout could not be written to.
pub fn run(config: &DiffConfig) -> Result<()> {
    let before = Shown::read(&config.before, config.by)?;
    let after = Shown::read(&config.after, config.by)?;
    let diff = Diff::new(before.side(), after.side());
    output::out(&match config.format {
        OutputFormat::Json => diff.to_json().context("serialising the comparison")?,
        OutputFormat::Text => diff.text(),
    })
}
