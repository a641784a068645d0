//! Reports: one snapshot as text for people ([`text`]) or as JSON for machines ([`json`]).
//!
//! Text and JSON say the same, because both read the same [`Snapshot`](crate::tracker::snapshot::Snapshot); neither concludes
//! anything that is not in it. Not for: following events as they happen (`stream`), or colours and keys (`tui`).

pub mod check;
pub mod diff;
pub mod json;
pub mod others;
pub mod text;
pub mod verdict;

#[cfg(any(test, feature = "testing"))]
pub mod sample;

#[cfg(test)]
mod tests {
    use super::diff::{Diff, Side};
    use super::sample;
    use crate::tracker::snapshot::Lost;

    /// Each output once added up what was lost by hand: the report had the upper bound, `diff` and `check` what is certain.
    #[test]
    fn every_output_has_the_same_losses() {
        let (mut snapshot, host, clock) = (sample::exhaustion(), sample::host(), sample::clock());
        snapshot.events.lost = Lost { ring_full: 1, missed_runs: 2, other_runs: 7, recorder: 4 };
        let text = super::text::render(&snapshot, &host, &clock, &super::text::Style::default());
        assert!(text.contains("7 to 14 lost"), "{text}");
        let held = "lost>0".parse::<super::check::Condition>().expect("valid").holds(&snapshot);
        assert_eq!(held.first().map(|held| held.what.as_str()), Some("7 events"));
        let side = Side { snapshot: &snapshot, host: &host, clock: &clock, by: "auto" };
        let diff = Diff::new(side, side).to_json().expect("JSON");
        assert_eq!(diff.matches("\"lost\": 7").count(), 2, "{diff}");
        snapshot.events.lost = Lost { other_runs: 7, ..Lost::default() };
        let text = super::text::render(&snapshot, &host, &clock, &super::text::Style::default());
        assert!(text.contains("up to 7 lost"), "{text}");
    }
}
