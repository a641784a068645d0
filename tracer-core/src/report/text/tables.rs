//! Advice, the busiest workloads, and the footer: host, window and number of events.

use super::context::ReportContext;
use crate::layout::human::{between, brief, number, plural, rate, seconds, short};
use crate::layout::text::{Paint, cut_name, left};
use crate::layout::text_page::TextPage;
use crate::tracker::snapshot::{Advice, Severity, Snapshot};

/// Rows of the table of workloads.
const WORKLOADS: usize = 8;
/// Columns of a workload's name.
const NAME: usize = 24;

/// The advice of the findings of now, else of those that are over, numbered, most severe finding first, each action once.
pub fn advice(page: &mut TextPage, snapshot: &Snapshot) {
    let mut all: Vec<&Advice> = Vec::new();
    let now = snapshot.findings.iter().any(|finding| finding.is_active() && finding.severity != Severity::Info);
    let told = snapshot.findings.iter().filter(|finding| finding.is_active() || !now);
    for advice in told.flat_map(|finding| &finding.advice) {
        if !all.iter().any(|known| known.action == advice.action) {
            all.push(advice);
        }
    }
    if all.is_empty() {
        return;
    }
    page.heading(if now { "DO" } else { "DO (so that it does not come back)" });
    for (index, advice) in all.iter().enumerate() {
        page.paragraph(Paint::Strong, &format!("{:>2}. ", index + 1), Paint::Strong, &advice.action);
        for (label, text) in [("why       ", &advice.why), ("expected  ", &advice.expected)] {
            if !text.is_empty() {
                page.paragraph(Paint::Dim, &format!("    {label}"), Paint::Plain, text);
            }
        }
    }
}

pub fn workloads(page: &mut TextPage, snapshot: &Snapshot) {
    if snapshot.workloads.is_empty() {
        return;
    }
    page.blank();
    let head = [("CONNECTS", 10), ("/S", 7), ("FAILED", 10), ("TIME_WAIT", 10), ("CL_WAIT", 9), ("LIFE P50", 10)];
    let head = head.map(|(title, width)| format!("{title:>width$}")).concat();
    page.line(&[(Paint::Strong, &left("WORKLOADS (/s: 10 s)", NAME)), (Paint::Dim, &head)]);
    for workload in snapshot.workloads.iter().take(WORKLOADS) {
        let failed = workload.failed.total();
        let numbers = format!("{:>10}{:>7}", short(workload.connects), rate(workload.connects_per_second));
        let rest = format!(
            "{:>10}{:>9}{:>10}",
            short(workload.time_wait.now),
            short(workload.close_wait.now),
            workload.lifetime_ms.p50.map_or_else(|| "-".into(), brief)
        );
        let name = match workload.stands_for {
            Some(count) => format!("{} {}", short(count), workload.name),
            None => page.safe(&workload.name),
        };
        let name = left(&cut_name(&name, NAME), NAME);
        let paint = if failed > 0 { Paint::Bad } else { Paint::Plain };
        page.line(&[
            (Paint::Plain, &name),
            (Paint::Plain, &numbers),
            (paint, &format!("{:>10}", short(failed))),
            (Paint::Plain, &rest),
        ]);
    }
    if let Some(more) = snapshot.workloads.len().checked_sub(WORKLOADS).filter(|&more| more > 0) {
        page.line(&[(Paint::Dim, &format!("+{more} more"))]);
    }
}

pub fn footer(page: &mut TextPage, context: &ReportContext<'_>) {
    let ReportContext { snapshot, host, clock, zone } = context;
    let known = |fact: &Option<String>| fact.clone().unwrap_or_else(|| "unknown".into());
    let events = &snapshot.events;
    page.blank();
    let window = format!(
        "{}, {} to {} {} ({})",
        known(&host.hostname),
        clock.date_time(snapshot.start, zone),
        clock.time_or_date(snapshot.now, snapshot.start, zone),
        clock.zone_name(snapshot.now, zone),
        seconds(snapshot.now.seconds_since(snapshot.start))
    );
    page.paragraph(Paint::Plain, "", Paint::Dim, &window);
    let basis = format!(
        "{} read, {} lost; tier {}, kernel {}",
        plural(events.read, "event"),
        between(events.lost.certain(), events.lost.upper_bound(), number),
        known(&host.tier),
        known(&host.kernel)
    );
    page.paragraph(Paint::Plain, "", Paint::Dim, &basis);
}
