//! The first sentence of a report, and what was not seen. Not for: detail.

use super::context::{ReportContext, in_trouble};
use super::destination::{self, exhaustion, occupancy};
use crate::event::Ktime;
use crate::layout::human::{number, plural, rate};
use crate::layout::text::Paint;
use crate::layout::text_page::TextPage;
use crate::tracker::snapshot::{Destination, Finding, Severity};

/// A failure this close to the end of the window counts as present. Nanoseconds.
const STILL_NANOS: u64 = 5_000_000_000;

pub fn severity(severity: Severity) -> (&'static str, Paint) {
    match severity {
        Severity::Critical => ("CRITICAL", Paint::Bad),
        Severity::Warning => ("WARNING", Paint::Warn),
        Severity::Info => ("INFO", Paint::Dim),
    }
}

/// The finding that the first sentence is about, if no destination is in trouble.
pub fn finding<'a>(context: &ReportContext<'a>) -> Option<&'a Finding> {
    let quiet = !context.snapshot.destinations.iter().any(in_trouble);
    context.snapshot.findings.first().filter(|finding| quiet && finding.severity != Severity::Info)
}

pub fn write(page: &mut TextPage, context: &ReportContext<'_>) {
    let (word, paint, text) = sentence(context);
    page.paragraph(paint, &format!("{word:<9} "), Paint::Strong, &text);
}

fn sentence(context: &ReportContext<'_>) -> (&'static str, Paint, String) {
    let destinations = &context.snapshot.destinations;
    let since = |ktime: Option<Ktime>| match ktime {
        Some(ktime) => format!(" since {} {}", context.time(ktime), context.clock.zone_name(ktime, context.zone)),
        None => String::new(),
    };
    if let Some(worst) = destinations.iter().find(|destination| destination.failed.without_port() > 0) {
        let now = worst.seconds_to_exhaustion.is_some_and(|left| left <= 0.0)
            || worst.last_failure.is_some_and(|last| context.snapshot.now.since(last) < STILL_NANOS);
        let (word, paint) = severity(if now { Severity::Critical } else { Severity::Warning });
        let text = format!(
            "{} {} the ports towards {}: {} in use; {} failed for lack of a port{}{}.",
            holder(worst),
            if now { "exhausts" } else { "exhausted" },
            destination::remote(worst),
            occupancy(&worst.ports),
            plural(worst.failed.without_port(), "connect"),
            victims(worst),
            since(worst.first_failure)
        );
        return (word, paint, text);
    }
    if let Some(worst) = destinations.iter().find(|destination| in_trouble(destination)) {
        let (word, paint) = severity(Severity::Warning);
        let text = format!(
            "{} fills the ports towards {}: {} in use, exhausted {}; {} connects/s. {} has failed for it yet.",
            holder(worst),
            destination::remote(worst),
            occupancy(&worst.ports),
            exhaustion(worst),
            rate(worst.connects_per_second),
            if context.snapshot.filter.is_some() { "No connect inside the filter" } else { "No connect" }
        );
        return (word, paint, text);
    }
    if let Some(finding) = finding(context) {
        let (word, paint) = severity(finding.severity);
        let since = match since(finding.since) {
            text if text.is_empty() => text,
            text => format!(" ({})", text.trim_start()),
        };
        let summary = finding.summary.trim_end_matches('.');
        return (word, paint, format!("{summary}{since}. {}", fullest(context)));
    }
    if context.snapshot.events.read == 0 {
        return ("UNKNOWN", Paint::Warn, "There is no event at all: nothing can be said.".into());
    }
    if context.damaged() {
        let text = format!("Nothing wrong was seen in the part that can be read. {}", fullest(context));
        return ("UNKNOWN", Paint::Warn, text);
    }
    if context.is_empty_by_filter() {
        return ("NOTHING", Paint::Warn, "Nothing in this trace is inside the filter.".into());
    }
    let verdict = if context.incomplete() { "Nothing wrong was seen" } else { "Nothing is wrong" };
    ("OK", Paint::Good, format!("{verdict}. {}", fullest(context)))
}

/// The workload that holds most of the ports.
fn holder(destination: &Destination) -> &str {
    destination.holders.first().map_or("An unknown workload", |holder| &holder.workload)
}

/// ` (bypass.service 1,100, pool.service 104)`.
fn victims(destination: &Destination) -> String {
    /// Workloads named in the sentence; the table of the destination has all.
    const NAMED: usize = 2;
    let mut names: Vec<_> = destination
        .victims
        .iter()
        .take(NAMED)
        .map(|victim| format!("{} {}", victim.workload, number(victim.failed)))
        .collect();
    match destination.victims.len().saturating_sub(NAMED) {
        0 => {}
        more => names.push(format!("{more} more")),
    }
    if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) }
}

/// The fullest destination of a host that is not in trouble.
fn fullest(context: &ReportContext<'_>) -> String {
    let share = |destination: &Destination| destination.ports.utilisation.unwrap_or(0.0);
    let destinations = &context.snapshot.destinations;
    let fullest = destinations.iter().max_by(|a, b| {
        share(a).total_cmp(&share(b)).then(a.ports.in_use.cmp(&b.ports.in_use)).then(b.remote_port.cmp(&a.remote_port))
    });
    let inside = if context.snapshot.filter.is_some() { " inside the filter" } else { "" };
    let Some(fullest) = fullest else { return format!("No outgoing connection{inside} was seen.") };
    let failed = destinations.iter().map(|destination| destination.failed.total()).fold(0, u64::saturating_add);
    let failures = match failed {
        0 => format!("No connect{inside} failed."),
        some => format!("{}{inside} failed for other reasons.", plural(some, "connect")),
    };
    format!(
        "No destination{inside} lacks ports; the fullest is {}: {} in use, most by {}. {failures}",
        destination::remote(fullest),
        occupancy(&fullest.ports),
        fullest.holders.first().map_or("unknown", |holder| &holder.workload)
    )
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

/// What was lost, and what could not be watched on this host.
pub fn gaps(page: &mut TextPage, context: &ReportContext<'_>) {
    let events = &context.snapshot.events;
    if context.incomplete() {
        let counts = [
            (events.lost.ring_full, "lost: the ring buffer was full"),
            (events.lost.missed_runs, "lost: every probe of the chain was missed"),
            (events.lost.other_runs, "probe runs beside the chain were skipped"),
            (events.lost.recorder, "not recorded"),
            (events.skipped, "skipped: undecodable"),
            (events.evicted, "evicted: a table was full"),
        ];
        let told: Vec<_> = counts
            .into_iter()
            .filter(|&(count, _)| count > 0)
            .map(|(count, what)| format!("{} {what}", number(count)))
            .collect();
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
    for gap in &context.host.degraded {
        let text = format!("{}: {}. Unknown without it: {}.", gap.what, gap.why, gap.lost);
        page.paragraph(Paint::Warn, "DEGRADED  ", Paint::Plain, &text);
    }
}
