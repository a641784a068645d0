//! `portchurn diff`: two recordings side by side.

use anyhow::{Context as _, Result};

use super::{playback, show};
use crate::cli::DiffArgs;
use crate::report::diff::{Diff, Side};

/// Prints what changed from one recording to the other.
///
/// # Errors
/// One is no recording, or stdout could not be written to.
pub fn run(args: &DiffArgs) -> Result<()> {
    let before = playback::play(&args.before, args.by)?;
    let after = playback::play(&args.after, args.by)?;
    let (first, second) = (before.tracker.snapshot(), after.tracker.snapshot());
    let diff = Diff::new(
        Side { snapshot: &first, host: &before.host, clock: &before.clock, by: &before.by },
        Side { snapshot: &second, host: &after.host, clock: &after.clock, by: &after.by },
    );
    show::out(&if args.json { diff.to_json().context("serialising the comparison")? } else { diff.text() })
}
