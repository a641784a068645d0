//! The contract `portchurn.report/1`, for scripts and dashboards that must survive an upgrade.
//!
//! `schema/report.schema.json` is its written form; the tests validate every report against it. The types of the snapshot
//! serialise themselves; this module adds what they do not know: wall times, the window, the host. A version may add fields;
//! renaming or removing one takes a new [`SCHEMA_NAME`]. Not for: layout or rounding; numbers are as the tracker has them.

use serde::Serialize;

use crate::clock::Clock;
use crate::damage::DamageFields;
use crate::event::Ktime;
use crate::host::HostFacts;
use crate::report::verdict::{ReportVerdict, VerdictWord, verdict};
use crate::tracker::snapshot::{
    AppliedFilter, Attribution, Destination, EventCounts, Finding, FindingLife, FindingState, Listener, Namespace,
    Others, Peak, Snapshot, TakenPort, Workload,
};

/// Value of the field `schema`.
pub const SCHEMA_NAME: &str = "portchurn.report/1";

/// JSON Schema (2020-12) of a report.
pub const SCHEMA: &str = include_str!("../../schema/report.schema.json");

/// A report, ready to be serialised.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    schema: &'static str,
    /// What a page begins with.
    verdict: JsonVerdict,
    window: Window,
    host: &'a HostFacts,
    events: &'a EventCounts,
    /// What of the recording could not be read.
    damage: Option<DamageFields<'a>>,
    /// Full sockets and minisockets alive at the end of the window.
    flows: u64,
    time_wait: u64,
    orphans: u64,
    workloads: &'a [Workload],
    destinations: Vec<TimedDestination<'a>>,
    attributions: &'a [Attribution],
    listeners: &'a [Listener],
    namespaces: &'a [Namespace],
    /// What has no row in these lists.
    others: &'a Others,
    taken_ports: &'a [TakenPort],
    findings: Vec<TimedFinding<'a>>,
    /// Null without a filter.
    filter: Option<&'a AppliedFilter>,
    findings_forgotten: u64,
}

#[derive(Debug, Serialize)]
struct JsonVerdict {
    word: VerdictWord,
    text: String,
    /// Index into `findings`.
    finding: Option<usize>,
}

impl JsonVerdict {
    fn new(snapshot: &Snapshot) -> Self {
        let ReportVerdict { word, text, finding } = verdict(snapshot);
        let index = |told: &Finding| snapshot.findings.iter().position(|finding| std::ptr::eq(finding, told));
        Self { word, text, finding: finding.and_then(index) }
    }
}

#[derive(Debug, Serialize)]
struct Window {
    start: String,
    end: String,
    seconds: f64,
    /// Files that were read as one; 1 of a live trace too.
    files: u64,
    /// First and last time of the recording, where the window is a part of it.
    recording: Option<TimeSpan>,
    /// What was open at the start is known from here on.
    known_from: Option<String>,
    /// Times inside the window that no file has.
    gaps: Vec<TimeSpan>,
    /// All of these together.
    gap_seconds: f64,
}

#[derive(Debug, Serialize)]
struct TimeSpan {
    start: String,
    end: String,
}

#[derive(Debug, Serialize)]
struct TimedDestination<'a> {
    #[serde(flatten)]
    destination: &'a Destination,
    first_failure: Option<String>,
    last_failure: Option<String>,
    counted_since: Option<String>,
}

/// A finding with wall times, as it stands in a report and in a stream.
#[derive(Debug, Serialize)]
pub struct TimedFinding<'a> {
    #[serde(flatten)]
    finding: &'a Finding,
    since: Option<String>,
    state: FindingState,
    began: Option<String>,
    ended: Option<String>,
    peak: Option<TimedPeak>,
    total: Option<u64>,
}

#[derive(Debug, Serialize)]
struct TimedPeak {
    value: f64,
    unit: &'static str,
    at: String,
}

impl<'a> TimedFinding<'a> {
    /// `finding` with wall times by `clock`.
    pub fn new(finding: &'a Finding, clock: &Clock) -> Self {
        let wall = |ktime: Option<Ktime>| ktime.map(|ktime| clock.rfc3339(ktime));
        let FindingLife { state, began, ended, peak, total } = finding.life;
        Self {
            finding,
            since: wall(finding.since),
            state,
            began: wall(began),
            ended: wall(ended),
            peak: peak.map(|Peak { value, unit, at }| TimedPeak { value, unit, at: clock.rfc3339(at) }),
            total,
        }
    }
}

/// Value of the field `schema` of several reports.
pub const REPORTS_SCHEMA_NAME: &str = "portchurn.reports/1";

/// Reports on several hosts or boots, in order of their times.
#[derive(Debug, Serialize)]
pub struct Reports<'a> {
    schema: &'static str,
    reports: Vec<Report<'a>>,
}

impl<'a> Reports<'a> {
    /// All of `reports`.
    pub fn new(reports: Vec<Report<'a>>) -> Self {
        Self { schema: REPORTS_SCHEMA_NAME, reports }
    }

    /// The reports as an indented document that ends in a newline.
    ///
    /// # Errors
    /// [`serde_json::Error`] of a value that JSON cannot hold; a report has no such value.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }
}

impl<'a> Report<'a> {
    /// A report on `snapshot`, taken on `host`, with wall times by `clock`. Lists keep the snapshot's order, which is defined.
    pub fn new(snapshot: &'a Snapshot, host: &'a HostFacts, clock: &Clock) -> Self {
        let wall = |ktime: Option<Ktime>| ktime.map(|ktime| clock.rfc3339(ktime));
        let span = |(start, end): (Ktime, Ktime)| TimeSpan { start: clock.rfc3339(start), end: clock.rfc3339(end) };
        let coverage = snapshot.coverage.as_ref();
        Self {
            schema: SCHEMA_NAME,
            verdict: JsonVerdict::new(snapshot),
            window: Window {
                start: clock.rfc3339(snapshot.start),
                end: clock.rfc3339(snapshot.now),
                seconds: snapshot.now.seconds_since(snapshot.start),
                files: coverage.map_or(1, |coverage| coverage.files),
                recording: coverage.and_then(|coverage| coverage.part_of).map(span),
                known_from: wall(coverage.and_then(|coverage| coverage.known_from)),
                gaps: coverage.into_iter().flat_map(|coverage| coverage.gaps.iter().copied().map(span)).collect(),
                gap_seconds: coverage.map_or(0.0, |coverage| coverage.gap_nanos as f64 / 1e9),
            },
            host,
            events: &snapshot.events,
            damage: snapshot.damage.as_ref().map(|damage| damage.fields(clock)),
            flows: snapshot.flows,
            time_wait: snapshot.time_wait,
            orphans: snapshot.orphans,
            workloads: &snapshot.workloads,
            destinations: snapshot
                .destinations
                .iter()
                .map(|destination| TimedDestination {
                    destination,
                    first_failure: wall(destination.first_failure),
                    last_failure: wall(destination.last_failure),
                    counted_since: wall(destination.counted_since),
                })
                .collect(),
            attributions: &snapshot.attributions,
            listeners: &snapshot.listeners,
            namespaces: &snapshot.namespaces,
            others: &snapshot.others,
            taken_ports: &snapshot.taken_ports,
            findings: snapshot.findings.iter().map(|finding| TimedFinding::new(finding, clock)).collect(),
            findings_forgotten: snapshot.findings_forgotten,
            filter: snapshot.filter.as_ref(),
        }
    }

    /// The report as an indented document that ends in a newline.
    ///
    /// # Errors
    /// [`serde_json::Error`] of a value that JSON cannot hold; a report has no such value.
    pub fn to_json(&self) -> serde_json::Result<String> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        Ok(text)
    }
}

#[cfg(test)]
mod tests;
