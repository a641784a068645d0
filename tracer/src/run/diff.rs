//! `portchurn diff`: two recordings side by side.

use anyhow::{Context as _, Result, bail};

use super::output;
use super::recordings::{self, Shown};
use crate::cli::{DiffConfig, OutputFormat, RecordingInput};
use tracer_core::report::diff::{Diff, Side};

/// One side of the comparison.
fn side(input: &RecordingInput) -> Result<Shown> {
    let mut all = recordings::read(input)?;
    match (all.pop(), all.is_empty()) {
        (Some(only), true) => Ok(only),
        (last, _) => {
            all.extend(last);
            let names: Vec<_> = all.into_iter().map(|one| one.name).collect();
            bail!("one side of a comparison is one host; name the files of one of these:\n  {}", names.join("\n  "))
        }
    }
}

impl Shown {
    fn side(&self) -> Side<'_> {
        Side { snapshot: &self.snapshot, host: &self.host, clock: &self.clock, by: &self.by }
    }
}

/// Prints what changed from one recording to the other.
///
/// # Errors
/// One of the files is no recording, or stdout could not be written to.
pub fn run(config: &DiffConfig) -> Result<()> {
    let before = side(&config.before)?;
    let after = side(&config.after)?;
    let diff = Diff::new(before.side(), after.side());
    output::out(&match config.format {
        OutputFormat::Json => diff.to_json().context("serialising the comparison")?,
        OutputFormat::Text => diff.text(),
    })
}
