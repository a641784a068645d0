//! `portchurn check`: exit code by conditions, for CI and cron.

use anyhow::{Context as _, Result};
use serde_json::json;

use super::output;
use crate::cli::{CheckArgs, exit};
use tracer_core::playback;
use tracer_core::report::check::Held;

/// Prints what holds, and nothing if nothing does.
///
/// # Errors
/// It is no recording, or stdout could not be written to.
pub fn run(args: &CheckArgs) -> Result<u8> {
    let played = playback::play(&args.file, None)?;
    let snapshot = played.tracker.snapshot();
    let held: Vec<Held> = args.fail_if.iter().flat_map(|condition| condition.holds(&snapshot)).collect();
    let text = if args.json {
        let asked: Vec<_> = args.fail_if.iter().map(ToString::to_string).collect();
        let answer = json!({
            "schema": "portchurn.check/1",
            "window": { "start": played.clock.rfc3339(snapshot.start), "end": played.clock.rfc3339(snapshot.now) },
            "lost": snapshot.events.lost,
            "conditions": asked,
            "held": held,
        });
        serde_json::to_string_pretty(&answer).context("serialising the answer")? + "\n"
    } else {
        let lines: Vec<_> = held.iter().map(|held| format!("{}: {}\n", held.condition, held.what)).collect();
        lines.concat()
    };
    output::out(&text)?;
    let lost = snapshot.events.lost;
    if held.is_empty() && lost.any() {
        eprintln!(
            "portchurn: nothing holds, but {} events were lost: what is missing cannot be checked",
            lost.ring_full + lost.missed_runs + lost.recorder
        );
    }
    Ok(if held.is_empty() { exit::OK } else { exit::FINDING })
}
