//! The one sentence that a page begins with: what is happening now, else what has happened, else that nothing was seen.
//!
//! Report, screen and JSON take it from here, so that they cannot disagree. It concludes nothing itself: it chooses among the findings.

use serde::Serialize;

use crate::damage::Damage;
use crate::event::Endpoint;
use crate::layout::human::{number, plural};
use crate::tracker::snapshot::{Destination, FailureCounts, Finding, Severity, Snapshot};

/// How the sentence begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VerdictWord {
    /// A critical finding holds.
    Critical,
    /// The worst finding that holds is a warning.
    Warning,
    /// Nothing of that kind holds, but something did in the window.
    Over,
    /// Connects failed, too few to be a finding.
    Info,
    /// Nothing failed.
    Ok,
    /// Too little is known to say anything.
    Unknown,
    /// The filter has left nothing.
    Nothing,
}

impl VerdictWord {
    /// In capitals, for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "CRITICAL",
            Self::Warning => "WARNING",
            Self::Over => "OVER",
            Self::Info => "INFO",
            Self::Ok => "OK",
            Self::Unknown => "UNKNOWN",
            Self::Nothing => "NOTHING",
        }
    }
}

/// The sentence.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportVerdict<'a> {
    /// How it begins.
    pub word: VerdictWord,
    /// What it says, without wall times.
    pub text: String,
    /// The finding that it is about, if it is about one.
    pub finding: Option<&'a Finding>,
}

/// The verdict on `snapshot`.
pub fn verdict(snapshot: &Snapshot) -> ReportVerdict<'_> {
    let matters = |finding: &&Finding| finding.severity != Severity::Info;
    let plain = |word, text| ReportVerdict { word, text, finding: None };
    if let Some(now) = snapshot.findings.iter().filter(|finding| finding.is_active()).find(matters) {
        let word = if now.severity == Severity::Critical { VerdictWord::Critical } else { VerdictWord::Warning };
        return about(word, now);
    }
    if let Some(past) = snapshot.findings.iter().filter(|finding| !finding.is_active()).find(matters) {
        return about(VerdictWord::Over, past);
    }
    if snapshot.events.read == 0 {
        return plain(VerdictWord::Unknown, "There is no event at all: nothing can be said.".into());
    }
    if snapshot.damage.as_ref().is_some_and(Damage::loses_events) {
        let text = format!("Nothing wrong was seen in the part that can be read. {}", fullest(snapshot));
        return plain(VerdictWord::Unknown, text);
    }
    let Snapshot { filter, workloads, destinations, listeners, findings, .. } = snapshot;
    if filter.is_some()
        && workloads.is_empty()
        && destinations.is_empty()
        && listeners.is_empty()
        && findings.is_empty()
    {
        return plain(VerdictWord::Nothing, "Nothing in this trace is inside the filter.".into());
    }
    let mut failed = FailureCounts::default();
    for workload in workloads {
        failed.merge(&workload.failed);
    }
    if failed.is_empty() {
        for destination in destinations {
            failed.merge(&destination.failed);
        }
    }
    if !failed.is_empty() {
        return plain(VerdictWord::Info, format!("{} {}", failures(&failed, snapshot), fullest(snapshot)));
    }
    let events = &snapshot.events;
    let incomplete = events.lost.upper_bound() > 0 || events.skipped > 0 || events.evicted > 0;
    let verdict = if incomplete { "Nothing wrong was seen" } else { "Nothing is wrong" };
    let inside = if filter.is_some() { " inside the filter" } else { "" };
    let none = if destinations.is_empty() { String::new() } else { format!(" No connect{inside} failed.") };
    plain(VerdictWord::Ok, format!("{verdict}. {}{none}", fullest(snapshot)))
}

fn about(word: VerdictWord, finding: &Finding) -> ReportVerdict<'_> {
    ReportVerdict { word, text: finding.summary.clone(), finding: Some(finding) }
}

/// `3 connects failed: 2 ECONNREFUSED, 1 ETIMEDOUT.`
fn failures(failed: &FailureCounts, snapshot: &Snapshot) -> String {
    let mut reasons = failed.by_name();
    reasons.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    let words: Vec<_> = reasons.iter().map(|(reason, count)| format!("{} {reason}", number(*count))).collect();
    let inside = if snapshot.filter.is_some() { " inside the filter" } else { "" };
    format!("{}{inside} failed: {}.", plural(failed.total(), "connect"), words.join(", "))
}

/// The fullest destination, where none has a finding.
fn fullest(snapshot: &Snapshot) -> String {
    let share = |destination: &Destination| destination.ports.utilisation.unwrap_or(0.0);
    let fullest = snapshot.destinations.iter().max_by(|a, b| {
        share(a).total_cmp(&share(b)).then(a.ports.in_use.cmp(&b.ports.in_use)).then(b.remote_port.cmp(&a.remote_port))
    });
    let inside = if snapshot.filter.is_some() { " inside the filter" } else { "" };
    let Some(fullest) = fullest else { return format!("No outgoing connection{inside} was seen.") };
    let remote = Endpoint { addr: fullest.remote_addr, port: fullest.remote_port };
    format!(
        "No destination{inside} lacks ports; the fullest is {remote}: {} in use, most by {}.",
        super::text::occupancy(&fullest.ports),
        fullest.holders.first().map_or("unknown", |holder| &holder.workload)
    )
}
