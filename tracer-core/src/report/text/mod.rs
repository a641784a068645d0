//! The report as text: one sentence with the conclusion, then what could not be seen, then the destinations, then what to do.
//!
//! Eighty columns, ASCII unless the style allows more, colour only on top of words. An unknown value is printed as `unknown` or `-`,
//! an inferred one is marked `~`. Not for: conclusions (they are the tracker's findings) and not for machines
//! ([`json`](super::json)).

mod destination;
mod headline;
mod tables;

use jiff::tz::TimeZone;

use crate::clock::Clock;
use crate::event::{Ktime, Netns};
use crate::host::HostFacts;
use crate::layout::human;
use crate::layout::text::Paint;
use crate::layout::text_page::TextPage;
use crate::tracker::snapshot::{Destination, FailureCounts, Finding, FindingId, Snapshot};

/// Destinations described in full. The reader is in a hurry, and JSON has all of them.
const DESTINATIONS: usize = 4;
/// Workloads listed per destination.
const WHO_WORKLOADS: usize = 5;
/// Processes listed per workload and destination.
const WHO_PROCESSES: usize = 3;
/// Rows of the table of workloads.
const WORKLOADS: usize = 8;
/// From this share on a destination is nearly full. connect() is slower from half of the range on, but still works.
const NEAR_FULL: f64 = 0.8;
/// A forecast further away than this is no reason to act at once.
const SOON_SECONDS: f64 = 3_600.0;
/// Findings that the headline and the destinations describe with more numbers.
const TOLD_BY_DESTINATIONS: [FindingId; 2] = [FindingId::PortExhaustion, FindingId::PortExhaustionSoon];

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

/// What every part of the report reads.
struct Context<'a> {
    snapshot: &'a Snapshot,
    host: &'a HostFacts,
    clock: &'a Clock,
    zone: &'a TimeZone,
}

impl Context<'_> {
    /// Wall time, with the date only if that is not the day on which the window ended.
    fn time(&self, ktime: Ktime) -> String {
        self.clock.time_or_date(ktime, self.snapshot.now, self.zone)
    }

    /// Were some of the `TIME_WAIT` entries of this namespace concluded, not seen?
    fn time_wait_inferred(&self, netns: Netns) -> bool {
        self.snapshot.namespaces.iter().any(|namespace| namespace.netns == netns && namespace.time_wait_inferred > 0)
    }

    /// May the numbers of the report be too low?
    fn incomplete(&self) -> bool {
        let events = &self.snapshot.events;
        events.lost.upper_bound() > 0 || events.skipped > 0 || events.evicted > 0
    }
}

/// Did ports run out towards the destination, or will they soon?
fn in_trouble(destination: &Destination) -> bool {
    destination.failed.without_port() > 0
        || destination.ports.utilisation.is_some_and(|share| share >= NEAR_FULL)
        || destination.seconds_to_exhaustion.is_some_and(|left| left <= SOON_SECONDS)
}

/// `1,204 EADDRNOTAVAIL, 1 ETIMEDOUT`, most first.
fn failures(failed: &FailureCounts) -> String {
    let mut reasons: Vec<_> = failed.iter().collect();
    reasons.sort_by_key(|&(reason, count)| (std::cmp::Reverse(count), reason));
    let words: Vec<_> = reasons.iter().map(|(reason, count)| format!("{} {reason}", human::number(*count))).collect();
    words.join(", ")
}

/// The report as text, every line at most 80 columns.
pub fn render(snapshot: &Snapshot, host: &HostFacts, clock: &Clock, style: &Style) -> String {
    let context = Context { snapshot, host, clock, zone: &style.zone };
    let mut page = TextPage::new(style.colour, style.unicode);
    headline::write(&mut page, &context);
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
fn findings(page: &mut TextPage, context: &Context<'_>, troubled: bool) {
    let told = |finding: &&Finding| {
        (troubled && TOLD_BY_DESTINATIONS.contains(&finding.id))
            || headline::finding(context).is_some_and(|first| std::ptr::eq(first, *finding))
    };
    let others: Vec<_> = context.snapshot.findings.iter().filter(|finding| !told(finding)).collect();
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
