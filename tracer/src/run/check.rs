//! `portchurn check`: exit code by conditions, for CI and cron.

use anyhow::{Context as _, Result};
use serde_json::json;

use super::output;
use crate::cli::{CheckConfig, OutputFormat, exit};
use crate::stdio::say;
use tracer_core::layout::human::between;
use tracer_core::report::check::Held;
use tracer_core::tracker::snapshot::Lost;

/// Prints the conditions that hold, with what shows it; prints nothing if none holds. Returns the exit code.
///
/// # Errors
/// The file is no recording, or stdout could not be written to.
pub fn run(config: &CheckConfig) -> Result<u8> {
    let played = output::play(&config.file, None)?;
    let snapshot = played.tracker.snapshot();
    let held: Vec<Held> = config.fail_if.iter().flat_map(|condition| condition.holds(&snapshot)).collect();
    let text = if config.format == OutputFormat::Json {
        let asked: Vec<_> = config.fail_if.iter().map(ToString::to_string).collect();
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
    if held.is_empty()
        && let Some(caution) = caution(&snapshot.events.lost)
    {
        say(caution);
    }
    Ok(if held.is_empty() { exit::OK } else { exit::FINDING })
}

/// The warning that goes with an answer without a condition that holds; `None` if nothing can have been lost.
fn caution(lost: &Lost) -> Option<String> {
    (lost.upper_bound() > 0).then(|| {
        format!(
            "nothing holds, but {} events were lost: what is missing cannot be checked",
            between(lost.certain(), lost.upper_bound(), |count| count.to_string())
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `check` once said "0 events were lost" where only runs beside the chain had been skipped: the condition asked for the upper
    /// bound, the sentence had the certain losses.
    #[test]
    fn what_may_be_lost_is_never_called_0_events() {
        let caution = |lost| caution(&lost).unwrap_or_default();
        assert_eq!(caution(Lost::default()), "");
        assert!(caution(Lost { other_runs: 7, ..Lost::default() }).contains("but up to 7 events were lost:"));
        assert!(caution(Lost { ring_full: 2, recorder: 1, ..Lost::default() }).contains("but 3 events were lost:"));
        assert!(
            caution(Lost { ring_full: 2, other_runs: 7, ..Lost::default() }).contains("but 2 to 9 events were lost:")
        );
    }
}
