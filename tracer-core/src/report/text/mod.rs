//! The report as text: one sentence with the conclusion, then what could not be seen, then the destinations, then what to do.
//!
//! Eighty columns, ASCII unless the style allows more, colour only on top of words. An unknown value is printed as `unknown` or `-`,
//! an inferred one is marked `~`. Not for: conclusions (they are the tracker's findings) and not for machines
//! ([`json`](super::json)).

mod context;
mod destination;
mod headline;
mod tables;

use jiff::tz::TimeZone;

use crate::clock::Clock;
use crate::host::HostFacts;
use crate::layout::human;
use crate::layout::text::Paint;
use crate::layout::text_page::TextPage;
use crate::tracker::snapshot::{Finding, FindingId, Snapshot};
use context::{ReportContext, in_trouble};

/// Destinations described in full. The reader is in a hurry, and JSON has all of them.
const DESTINATIONS: usize = 4;
/// Findings that the headline and the destinations describe with more numbers.
const DESCRIBED_BY_DESTINATIONS: [FindingId; 2] = [FindingId::PortExhaustion, FindingId::PortExhaustionSoon];

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
    headline::write(&mut page, &context);
    headline::filter(&mut page, &context);
    headline::gaps(&mut page, &context);

    let troubled: Vec<_> = snapshot.destinations.iter().filter(|destination| in_trouble(destination)).collect();
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

    findings(&mut page, &context, !troubled.is_empty());
    tables::advice(&mut page, snapshot);
    tables::workloads(&mut page, snapshot);
    tables::footer(&mut page, &context);
    page.finish()
}

/// The findings that the headline and the destinations do not describe.
fn findings(page: &mut TextPage, context: &ReportContext<'_>, troubled: bool) {
    let described = |finding: &&Finding| {
        (troubled && DESCRIBED_BY_DESTINATIONS.contains(&finding.id))
            || headline::finding(context).is_some_and(|first| std::ptr::eq(first, *finding))
    };
    let others: Vec<_> = context.snapshot.findings.iter().filter(|finding| !described(finding)).collect();
    if others.is_empty() {
        return;
    }
    page.heading("ALSO");
    for finding in others {
        let (word, paint) = headline::severity(finding.severity);
        let since = finding.since.map_or_else(String::new, |since| format!(" (since {})", context.time(since)));
        page.paragraph(paint, &format!("{word:<9} "), Paint::Plain, &format!("{}{since}", finding.summary));
    }
}

#[cfg(test)]
pub(crate) mod tests;
