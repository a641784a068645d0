//! The first sentence of a report, and what was not seen. Not for: detail.

use std::fmt::Write as _;

use super::context::ReportContext;
use crate::layout::human::{number, plural, rate, seconds};
use crate::layout::text::Paint;
use crate::layout::text_page::TextPage;
use crate::report::verdict::{ReportVerdict, VerdictWord};
use crate::tracker::snapshot::{Finding, Severity};

/// A lag is worth a line from here on: a tracker that keeps up is some milliseconds behind.
const LAG_SHOWN_MS: u64 = 1_000;

pub fn severity(severity: Severity) -> (&'static str, Paint) {
    match severity {
        Severity::Critical => ("CRITICAL", Paint::Bad),
        Severity::Warning => ("WARNING", Paint::Warn),
        Severity::Info => ("INFO", Paint::Dim),
    }
}

/// Columns of a line.
const LINE: usize = 80;

/// The paint of a word of the verdict.
fn paint(word: VerdictWord) -> Paint {
    match word {
        VerdictWord::Critical => Paint::Bad,
        VerdictWord::Warning | VerdictWord::Over | VerdictWord::Unknown | VerdictWord::Nothing => Paint::Warn,
        VerdictWord::Info => Paint::Dim,
        VerdictWord::Ok => Paint::Good,
    }
}

pub fn write(page: &mut TextPage, context: &ReportContext<'_>, verdict: &ReportVerdict<'_>) {
    let text = match verdict.finding {
        Some(finding) => told(context, finding),
        None => verdict.text.clone(),
    };
    page.paragraph(paint(verdict.word), &format!("{:<9} ", verdict.word.as_str()), Paint::Strong, &text);
}

/// A finding with its times: `... (since 10:04:11 UTC)`, `10:04:11 to 10:06:40 UTC, at its worst 841 failures/min, 1,204 in all: ...`.
pub fn told(context: &ReportContext<'_>, finding: &Finding) -> String {
    let zone = |at| context.clock.zone_name(at, context.zone);
    if finding.is_active() {
        let since = finding.since.map_or_else(String::new, |at| format!(" (since {} {})", context.time(at), zone(at)));
        return format!("{}{since}", finding.summary);
    }
    let mut times = match (finding.life.began, finding.life.ended) {
        (Some(began), Some(ended)) if context.time(began) == context.time(ended) => {
            format!("At {} {}", context.time(began), zone(began))
        }
        (Some(began), Some(ended)) => format!("{} to {} {}", context.time(began), context.time(ended), zone(ended)),
        _ => String::new(),
    };
    if let Some(peak) = finding.life.peak.filter(|peak| !peak.unit.is_empty()) {
        let _ = write!(times, ", at its worst {} {}", rate(peak.value), peak.unit);
    }
    if let Some(total) = finding.life.total {
        let _ = write!(times, ", {} in all", number(total));
    }
    format!("{times}: {}", finding.summary)
}

/// The filter, what is outside of it, and which of its names nothing has.
pub fn filter(page: &mut TextPage, context: &ReportContext<'_>) {
    let Some(filter) = &context.snapshot.filter else { return };
    let outside = &filter.outside;
    let told = |count: u64, what: &str| (count > 0).then(|| plural(count, what));
    let failed = match (outside.failed, outside.failed_without_port) {
        (0, _) => String::new(),
        (failed, 0) => format!(" ({} failed, none for lack of a port)", number(failed)),
        (failed, ports) => format!(" ({} failed, {} for lack of a port)", number(failed), number(ports)),
    };
    let pieces: Vec<_> = [
        told(outside.findings, "finding"),
        told(outside.destinations, "destination"),
        told(outside.workloads, "workload"),
        told(outside.connects, "connect").map(|connects| connects + &failed),
    ]
    .into_iter()
    .flatten()
    .collect();
    let outside = if pieces.is_empty() { "nothing".into() } else { pieces.join(", ") };
    let text = format!("{}. Outside of it: {outside}.", page.safe(&filter.text));
    page.paragraph(Paint::Dim, "FILTER    ", Paint::Plain, &text);
    for sentence in &filter.not_seen {
        let text = format!("{}.", page.safe(sentence));
        page.paragraph(Paint::Warn, "FILTER    ", Paint::Plain, &text);
    }
}

/// What of the recording this is, and what no file has.
pub fn coverage(page: &mut TextPage, context: &ReportContext<'_>) {
    let Some(coverage) = &context.snapshot.coverage else { return };
    let ReportContext { snapshot, clock, zone, .. } = context;
    if let Some((first, last)) = coverage.part_of {
        let known = match coverage.known_from {
            Some(known) => format!(" What was open at the start is known from {} on.", context.time(known)),
            None => String::new(),
        };
        let text = format!(
            "{} of a recording from {} to {}.{known}",
            seconds(snapshot.now.seconds_since(snapshot.start)),
            clock.date_time(first, zone),
            clock.time_or_date(last, first, zone)
        );
        page.paragraph(Paint::Dim, "WINDOW    ", Paint::Plain, &text);
    }
    if coverage.files > 1 || coverage.gap_nanos > 0 {
        let gaps = match coverage.gaps.first() {
            None => ", without a gap between them".to_owned(),
            Some((from, _)) => format!(
                "; {} between them are not recorded (first at {}), so rates are too low",
                seconds(coverage.gap_nanos as f64 / 1e9),
                context.time(*from)
            ),
        };
        let paint = if coverage.gap_nanos > 0 { Paint::Warn } else { Paint::Dim };
        page.paragraph(paint, "PARTS     ", Paint::Plain, &format!("{}{gaps}.", plural(coverage.files, "file")));
    }
}

/// What was lost, and what could not be watched on this host.
pub fn gaps(page: &mut TextPage, context: &ReportContext<'_>) {
    let events = &context.snapshot.events;
    if context.incomplete() {
        let counts =
            [(events.skipped, "skipped (undecodable)"), (events.evicted, "entries evicted (a table was full)")];
        let lost = (events.lost.upper_bound() > 0).then(|| events.lost.words());
        let others = counts.into_iter().filter(|(count, _)| *count > 0);
        let told: Vec<_> =
            lost.into_iter().chain(others.map(|(count, what)| format!("{} {what}", number(count)))).collect();
        let text = format!("{}. Counts are lower bounds; {} repaired.", told.join("; "), number(events.repaired));
        page.paragraph(Paint::Warn, "LOSS      ", Paint::Plain, &text);
    }
    if let Some(damage) = &context.snapshot.damage {
        let text = match damage.gaps.first().filter(|_| damage.loses_events()) {
            Some(gap) => format!("{damage}. The first gap begins at {}.", context.time(gap.from)),
            None => format!("{damage}."),
        };
        page.paragraph(Paint::Warn, "DAMAGED   ", Paint::Plain, &text);
    }
    if let Some(lag) = events.lag_ms.filter(|_| events.lag_peak_ms.is_some_and(|peak| peak >= LAG_SHOWN_MS)) {
        let peak = events.lag_peak_ms.unwrap_or(lag);
        let skipped = match events.details_skipped {
            0 => String::new(),
            steps => format!(" {} steps of flows left out meanwhile; counts are whole.", number(steps)),
        };
        let text = format!(
            "{} behind the events, {} at most.{skipped}",
            seconds(lag as f64 / 1e3),
            seconds(peak as f64 / 1e3)
        );
        page.paragraph(Paint::Warn, "LAG       ", Paint::Plain, &text);
    }
}

/// What could not be watched on this host, in one line.
pub fn degraded(page: &mut TextPage, context: &ReportContext<'_>) {
    let degraded = &context.host.degraded;
    if degraded.is_empty() {
        return;
    }
    let what: Vec<&str> = degraded.iter().map(|gap| &*gap.what).collect();
    let line = format!("Not watched on this host: {}; `portchurn doctor` says why.", what.join(", "));
    let text = if line.len() <= LINE {
        line
    } else {
        format!(
            "{} cannot be watched on this host; `portchurn doctor` says which.",
            plural(degraded.len() as u64, "thing")
        )
    };
    page.paragraph(Paint::Plain, "", Paint::Warn, &text);
}
