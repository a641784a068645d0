//! The report as text: one sentence with the verdict, then its evidence (the destinations), then what to do, then what else happened in
//! this window, then the busiest workloads; at the foot what could not be seen.
//!
//! Eighty columns, ASCII unless the style allows more, colour only on top of words. An unknown value is printed as `unknown` or `-`,
//! an inferred one is marked `~`. Not for: conclusions (they are the tracker's findings) and not for machines
//! ([`json`](super::json)).

mod context;
mod destination;
mod headline;
mod tables;

use jiff::tz::TimeZone;

use super::others;
use crate::clock::Clock;
use crate::host::HostFacts;
use crate::layout::human;
use crate::layout::text::Paint;
use crate::layout::text_page::TextPage;
use crate::tracker::snapshot::{Finding, Snapshot};
use context::{ReportContext, in_trouble};
pub(super) use destination::occupancy;

use super::verdict::{ReportVerdict, verdict};

/// Destinations described in full. The reader is in a hurry, and JSON has all of them.
const DESTINATIONS: usize = 4;
/// Findings that are over and told. JSON has more of them.
const PAST: usize = 8;

/// How the text looks.
#[derive(Clone, Debug)]
pub struct Style {
    /// ANSI colours.
    pub colour: bool,
    /// Letters beyond ASCII, in bars and in names.
    pub unicode: bool,
    /// Time zone of the reader, not of the host.
    pub zone: TimeZone,
}

impl Default for Style {
    fn default() -> Self {
        Self { colour: false, unicode: false, zone: TimeZone::UTC }
    }
}

/// The report as text, every line at most 80 columns.
pub fn render(snapshot: &Snapshot, host: &HostFacts, clock: &Clock, style: &Style) -> String {
    let context = ReportContext { snapshot, host, clock, zone: &style.zone };
    let mut page = TextPage::new(style.colour, style.unicode);
    let verdict = verdict(snapshot);
    headline::write(&mut page, &context, &verdict);
    headline::filter(&mut page, &context);
    headline::coverage(&mut page, &context);
    headline::gaps(&mut page, &context);

    let mut troubled: Vec<_> = snapshot.destinations.iter().filter(|destination| in_trouble(destination)).collect();
    // Stable: what a finding of now is about comes before what was in trouble once.
    troubled.sort_by_key(|destination| {
        let key = destination.key();
        let about = |finding: &Finding| finding.subject.destination() == Some(key);
        snapshot.findings.iter().filter(|finding| finding.is_active()).position(about).unwrap_or(usize::MAX)
    });
    for destination in troubled.iter().take(DESTINATIONS) {
        destination::write(&mut page, &context, destination);
    }
    if let Some(more) = troubled.len().checked_sub(DESTINATIONS).filter(|&more| more > 0) {
        page.blank();
        page.line(&[(
            Paint::Warn,
            &format!("+{} that are full or filling", human::plural(more as u64, "destination")),
        )]);
    }

    for sentence in others::sentences(&snapshot.others) {
        page.paragraph(Paint::Dim, "          ", Paint::Plain, &format!("{sentence}."));
    }
    findings(&mut page, &context, &verdict);
    tables::advice(&mut page, snapshot);
    past(&mut page, &context, &verdict);
    tables::workloads(&mut page, snapshot);
    tables::footer(&mut page, &context);
    headline::degraded(&mut page, &context);
    page.finish()
}

/// Is it the finding that the first sentence tells?
fn is_told(verdict: &ReportVerdict<'_>, finding: &Finding) -> bool {
    verdict.finding.is_some_and(|told| std::ptr::eq(told, finding))
}

/// The findings of now that the headline does not tell.
fn findings(page: &mut TextPage, context: &ReportContext<'_>, verdict: &ReportVerdict<'_>) {
    let findings = context.snapshot.findings.iter();
    let others: Vec<_> = findings.filter(|finding| finding.is_active() && !is_told(verdict, finding)).collect();
    if others.is_empty() {
        return;
    }
    page.heading("ALSO");
    for finding in others {
        let (word, paint) = headline::severity(finding.severity);
        page.paragraph(paint, &format!("{word:<9} "), Paint::Plain, &headline::told(context, finding));
    }
}

/// What happened in this window and is over.
fn past(page: &mut TextPage, context: &ReportContext<'_>, verdict: &ReportVerdict<'_>) {
    let findings = context.snapshot.findings.iter();
    let past: Vec<_> = findings.filter(|finding| !finding.is_active() && !is_told(verdict, finding)).collect();
    let forgotten = context.snapshot.findings_forgotten;
    if past.is_empty() && forgotten == 0 {
        return;
    }
    page.heading("OVER (in this window, latest first)");
    for finding in past.iter().take(PAST) {
        let (word, _) = headline::severity(finding.severity);
        page.paragraph(Paint::Dim, &format!("{word:<9} "), Paint::Plain, &headline::told(context, finding));
    }
    let more = past.len().saturating_sub(PAST) as u64 + forgotten;
    if more > 0 {
        page.line(&[(Paint::Dim, &format!("+{more} earlier"))]);
    }
}

#[cfg(test)]
pub(crate) mod tests;
