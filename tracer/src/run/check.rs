//! `portchurn check`: exit code by conditions, for CI and cron.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::output;
use super::recordings::{self, Shown};
use crate::cli::{CheckConfig, OutputFormat, exit};
use crate::stdio::say;
use tracer_core::damage::Damage;
use tracer_core::layout::human::between;
use tracer_core::report::check::{Condition, Held};
use tracer_core::tracker::snapshot::{Finding, Lost, Snapshot};

/// Prints the conditions that hold, with what shows it; prints nothing if none holds. Returns the exit code.
///
/// # Errors
/// The recordings could not be read (`recordings::read`), or stdout could not be written to.
pub fn run(config: &CheckConfig) -> Result<u8> {
    let mut all = recordings::read(&config.input)?;
    if config.now {
        for shown in &mut all {
            shown.snapshot.findings.retain(Finding::is_active);
        }
    }
    let answers: Vec<Answer<'_>> = all.iter().map(|shown| Answer::new(shown, &config.fail_if)).collect();
    let text = if config.format == OutputFormat::Json {
        let asked: Vec<_> = config.fail_if.iter().map(ToString::to_string).collect();
        let all = answers.iter().map(|answer| answer.json(&asked));
        let answer = match &answers[..] {
            [only] => only.json(&asked),
            _ => json!({ "schema": "portchurn.checks/1", "checks": all.collect::<Vec<_>>() }),
        };
        serde_json::to_string_pretty(&answer).context("serialising the answer")? + "\n"
    } else {
        answers.iter().map(|answer| answer.text(answers.len() > 1)).collect()
    };
    output::out(&text)?;
    let held = answers.iter().any(|answer| !answer.held.is_empty());
    let mut undecided = false;
    for answer in answers.iter().filter(|answer| answer.held.is_empty()) {
        let file = if all.len() > 1 { format!("{}: ", answer.shown.name) } else { String::new() };
        for caution in &answer.unchecked {
            say(format_args!("{file}nothing holds, but {caution}"));
        }
        undecided |= answer.is_undecided();
    }
    Ok(match (held, undecided) {
        (true, _) => exit::FINDING,
        (false, true) => exit::FAILED,
        (false, false) => exit::OK,
    })
}

/// What was found out about one host.
struct Answer<'a> {
    shown: &'a Shown,
    held: Vec<Held>,
    /// What could not be checked, in sentences.
    unchecked: Vec<String>,
}

impl<'a> Answer<'a> {
    fn new(shown: &'a Shown, conditions: &[Condition]) -> Self {
        let held = conditions.iter().flat_map(|condition| condition.holds(&shown.snapshot)).collect();
        Self { shown, held, unchecked: unchecked(&shown.snapshot) }
    }

    /// Nothing holds, and what would decide is missing: neither a yes nor a no.
    fn is_undecided(&self) -> bool {
        let Snapshot { events, damage, .. } = &self.shown.snapshot;
        let missing = events.lost.certain() > 0 || damage.as_ref().is_some_and(Damage::loses_events);
        self.held.is_empty() && (missing || events.read == 0)
    }

    fn json(&self, asked: &[String]) -> Value {
        let Shown { snapshot, clock, host, .. } = self.shown;
        json!({
            "schema": "portchurn.check/1",
            "host": host.hostname,
            "window": { "start": clock.rfc3339(snapshot.start), "end": clock.rfc3339(snapshot.now) },
            "lost": snapshot.events.lost,
            "damage": snapshot.damage.as_ref().map(|damage| damage.fields(clock)),
            "filter": snapshot.filter,
            "conditions": asked,
            "held": self.held,
            "unchecked": self.unchecked,
        })
    }

    fn text(&self, several: bool) -> String {
        let host = if several { format!("{}: ", self.shown.name) } else { String::new() };
        let mut lines: Vec<_> =
            self.held.iter().map(|held| format!("{host}{}: {}\n", held.condition, held.what)).collect();
        let outside = self.shown.snapshot.filter.as_ref().map_or(0, |filter| filter.outside.findings);
        if !self.held.is_empty() && outside > 0 {
            lines.push(format!("{host}{outside} findings outside the filter\n"));
        }
        lines.concat()
    }
}

/// What of the recording could not be checked.
fn unchecked(snapshot: &Snapshot) -> Vec<String> {
    let damage = snapshot.damage.as_ref().filter(|damage| damage.loses_events());
    let nothing = (snapshot.events.read == 0).then(|| "there is no event at all: nothing could be checked".to_owned());
    let not_seen = snapshot.filter.iter().flat_map(|filter| filter.not_seen.iter().cloned());
    loss(&snapshot.events.lost)
        .into_iter()
        .chain(damage.map(|damage| format!("{damage}: what is missing cannot be checked")))
        .chain(nothing)
        .chain(not_seen)
        .collect()
}

/// What was lost while recording, in a sentence; `None` if nothing can have been lost.
fn loss(lost: &Lost) -> Option<String> {
    (lost.upper_bound() > 0).then(|| {
        format!(
            "{} events were lost: what is missing cannot be checked",
            between(lost.certain(), lost.upper_bound(), |count| count.to_string())
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_core::damage::DamageKind;

    /// `check` once said "0 events were lost" where only runs beside the chain had been skipped: the condition asked for the upper
    /// bound, the sentence had the certain losses.
    #[test]
    fn what_may_be_lost_is_never_called_0_events() {
        let loss = |lost| loss(&lost).unwrap_or_default();
        assert_eq!(loss(Lost::default()), "");
        assert!(loss(Lost { other_runs: 7, ..Lost::default() }).contains("up to 7 events were lost:"));
        assert!(loss(Lost { ring_full: 2, recorder: 1, ..Lost::default() }).contains("3 events were lost:"));
        assert!(loss(Lost { ring_full: 2, other_runs: 7, ..Lost::default() }).contains("2 to 9 events were lost:"));
    }

    /// A file whose end is missing, and one without any event, once were an all-clear.
    #[test]
    fn what_is_damaged_or_empty_is_not_decided() {
        let undecided = |snapshot: Snapshot| {
            let shown = Shown {
                snapshot,
                host: tracer_core::host::HostFacts::default(),
                clock: tracer_core::clock::Clock::new(tracer_core::event::Ktime(0), 0),
                by: "auto".into(),
                name: String::new(),
            };
            let answer = Answer::new(&shown, &["port-exhaustion".parse().expect("a condition")]);
            (answer.is_undecided(), answer.unchecked.join(" "))
        };
        let mut snapshot = Snapshot::default();
        assert!(undecided(snapshot.clone()).1.contains("no event at all"));
        snapshot.events.read = 7;
        assert_eq!(undecided(snapshot.clone()), (false, String::new()));
        let mut damage = Damage::new(DamageKind::CutOff, "the file ends in the middle of a batch", 9);
        damage.end_missing = true;
        snapshot.damage = Some(damage);
        let (is, why) = undecided(snapshot.clone());
        assert!(is && why.contains("the file ends in the middle of a batch"), "{why}");
        snapshot.damage = Some(Damage::new(DamageKind::NoFooter, "no footer", 9));
        assert!(!undecided(snapshot.clone()).0, "every event is there");
        snapshot.events.lost.other_runs = 1;
        assert!(!undecided(snapshot.clone()).0, "nearly none of these had an event");
        snapshot.events.lost.ring_full = 1;
        assert!(undecided(snapshot).0);
    }
}
