//! Two traces side by side: before and after a deploy or a sysctl. Largest change first.
//!
//! Counts are compared per second, because no two traces are equally long. Not for: deciding which change matters; a comparison says
//! how large each change is, and when the two traces should not be compared at all.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::clock::Clock;
use crate::event::Endpoint;
use crate::host::HostFacts;
use crate::layout::human;
use crate::layout::text::{cut, left};
use crate::tracker::snapshot::{Destination, Snapshot, Workload};

/// Value of the field `schema`.
pub const SCHEMA_NAME: &str = "portchurn.diff/1";
/// Columns of a name.
const NAME: usize = 30;
/// Rows per table of the text; JSON has all rows.
const ROWS: usize = 20;
/// The longer window may have this many times the length of the shorter one; beyond that, start-up and shutdown distort the rates.
const LENGTHS: f64 = 1.5;

/// One of the two traces that are compared.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// What the tracker concluded.
    pub snapshot: &'a Snapshot,
    /// Where the trace was taken.
    pub host: &'a HostFacts,
    /// Wall time of its instants.
    pub clock: &'a Clock,
    /// What made processes one workload: a value of `--by`.
    pub by: &'a str,
}

impl<'a> Side<'a> {
    fn seconds(&self) -> f64 {
        self.snapshot.now.seconds_since(self.snapshot.start)
    }

    fn workloads(&self) -> Vec<(String, &'a Workload)> {
        self.snapshot.workloads.iter().map(|workload| (workload.name.to_string(), workload)).collect()
    }

    fn destinations(&self) -> Vec<(String, &'a Destination)> {
        let name = |dest: &Destination| {
            let remote = Endpoint { addr: dest.remote_addr, port: dest.remote_port };
            let netns = dest.netns_name.as_ref().map(|name| format!(" in {name}")).unwrap_or_default();
            format!("{remote} from {}{netns}", dest.local_addr)
        };
        self.snapshot.destinations.iter().map(|dest| (name(dest), dest)).collect()
    }
}

/// The comparison.
#[derive(Debug, Serialize)]
pub struct Diff {
    schema: &'static str,
    before: Window,
    after: Window,
    /// Reasons not to compare the two; empty if there is none.
    not_comparable: Vec<String>,
    workloads: Vec<Row>,
    destinations: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Window {
    start: String,
    end: String,
    seconds: f64,
    hostname: Option<String>,
    kernel: Option<String>,
    tier: Option<String>,
    lost: u64,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    /// From 0 (nothing changed) to 1 (something appeared or disappeared).
    change: f64,
    metrics: BTreeMap<&'static str, Pair>,
}

/// One metric before and after. `None` = unknown, or there was no such workload or destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
struct Pair {
    before: Option<f64>,
    after: Option<f64>,
}

/// A metric: its name, the value below which it does not matter, and how to compute it from a row and the seconds of the window.
type Metric<T> = (&'static str, f64, fn(&T, f64) -> Option<f64>);

const WORKLOAD: [Metric<Workload>; 8] = [
    ("connects_per_second", 0.1, |w, seconds| Some(w.connects as f64 / seconds)),
    ("exhausted_per_second", 0.01, |w, seconds| Some(w.failed.without_port() as f64 / seconds)),
    ("failed_per_second", 0.01, |w, seconds| Some(w.failed.total() as f64 / seconds)),
    ("time_wait_peak", 10.0, |w, _| Some(w.time_wait.peak as f64)),
    ("ports_held", 10.0, |w, _| Some(w.ports_held as f64)),
    ("lifetime_p50_ms", 1.0, |w, _| w.lifetime_ms.p50),
    ("lifetime_p99_ms", 1.0, |w, _| w.lifetime_ms.p99),
    ("connect_p99_ms", 1.0, |w, _| w.connect_ms.p99),
];

const DESTINATION: [Metric<Destination>; 5] = [
    ("connects_per_second", 0.1, |d, seconds| Some(d.connects as f64 / seconds)),
    ("exhausted_per_second", 0.01, |d, seconds| Some(d.failed.without_port() as f64 / seconds)),
    ("failed_per_second", 0.01, |d, seconds| Some(d.failed.total() as f64 / seconds)),
    ("ports_peak", 10.0, |d, _| Some(f64::from(d.ports.peak))),
    ("occupancy_peak", 0.01, |d, _| {
        let capacity = d.ports.capacity.filter(|capacity| *capacity > 0)?;
        Some(f64::from(d.ports.peak) / f64::from(capacity))
    }),
];

/// The difference as a share of the larger value; 0 if both are below `floor`.
fn change(pair: Pair, floor: f64) -> f64 {
    let (before, after) = (pair.before.unwrap_or(0.0), pair.after.unwrap_or(0.0));
    let larger = before.max(after);
    if larger <= floor { 0.0 } else { (after - before).abs() / larger }
}

fn rows<T>(
    before: Vec<(String, &T)>,
    after: Vec<(String, &T)>,
    seconds: (f64, f64),
    metrics: &[Metric<T>],
) -> Vec<Row> {
    // A name may occur in several namespaces; the first row of a name is the busiest.
    let mut pairs: BTreeMap<String, (Option<&T>, Option<&T>)> = BTreeMap::new();
    for (name, value) in before {
        pairs.entry(name).or_default().0.get_or_insert(value);
    }
    for (name, value) in after {
        pairs.entry(name).or_default().1.get_or_insert(value);
    }
    let mut rows: Vec<(Row, f64)> = pairs
        .into_iter()
        .map(|(name, (before, after))| {
            let mut row = Row { name, change: 0.0, metrics: BTreeMap::new() };
            let mut weight = 0.0_f64;
            for (metric, floor, value) in metrics {
                let pair = Pair {
                    before: before.and_then(|before| value(before, seconds.0)),
                    after: after.and_then(|after| value(after, seconds.1)),
                };
                let change = change(pair, *floor);
                row.change = row.change.max(change);
                // Of two values that were 0 before, the greater one is the larger change.
                let factor = pair.before.unwrap_or(0.0).max(pair.after.unwrap_or(0.0)) / floor;
                weight = weight.max(change * factor.max(1.0).log10());
                row.metrics.insert(metric, pair);
            }
            (row, weight)
        })
        .collect();
    rows.sort_by(|(left, heavy), (right, heavier)| heavier.total_cmp(heavy).then_with(|| left.name.cmp(&right.name)));
    rows.into_iter().map(|(row, _)| row).collect()
}

impl Diff {
    /// Compares two traces.
    pub fn new(before: Side<'_>, after: Side<'_>) -> Self {
        let seconds = (before.seconds().max(f64::MIN_POSITIVE), after.seconds().max(f64::MIN_POSITIVE));
        Self {
            schema: SCHEMA_NAME,
            before: Window::new(&before),
            after: Window::new(&after),
            not_comparable: objections(&before, &after),
            workloads: rows(before.workloads(), after.workloads(), seconds, &WORKLOAD),
            destinations: rows(before.destinations(), after.destinations(), seconds, &DESTINATION),
        }
    }

    /// One JSON object, indented, that ends in a newline.
    ///
    /// # Errors
    /// [`serde_json::Error`] of a value that JSON cannot hold; a comparison has no such value.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self).map(|text| text + "\n")
    }

    /// The comparison as text, the largest change first.
    pub fn text(&self) -> String {
        let mut lines = vec![
            format!("before  {} ({})", self.before.start, human::seconds(self.before.seconds)),
            format!("after   {} ({})", self.after.start, human::seconds(self.after.seconds)),
        ];
        for why in &self.not_comparable {
            lines.push(format!("CAUTION {why}"));
        }
        let metric = |row: &Row, name: &str| row.metrics.get(name).copied().unwrap_or_default();
        let mut table = |heading: &str, rows: &[Row], shown: &[(&str, &str)]| {
            let columns: Vec<_> = shown.iter().map(|(label, _)| format!("{label:>19}")).collect();
            lines.push(String::new());
            lines.push(format!("{}{}", left(heading, NAME), columns.concat()));
            for row in rows.iter().filter(|row| row.change > 0.0).take(ROWS) {
                let cells: Vec<_> = shown.iter().map(|(_, name)| format!("{:>19}", cell(metric(row, name)))).collect();
                lines.push(format!("{}{}", left(&cut(&row.name, NAME - 1), NAME), cells.concat()));
            }
            let same = rows.iter().filter(|row| row.change <= 0.0).count();
            let more = rows.len().saturating_sub(same).saturating_sub(ROWS);
            if same + more > 0 {
                lines.push(format!("{same} without a change, {more} more with one"));
            }
        };
        table(
            "WORKLOAD",
            &self.workloads,
            &[
                ("CONNECTS/S", "connects_per_second"),
                ("NO PORT/S", "exhausted_per_second"),
                ("TIME_WAIT", "time_wait_peak"),
                ("LIFE P50 MS", "lifetime_p50_ms"),
                ("LIFE P99 MS", "lifetime_p99_ms"),
            ],
        );
        table(
            "DESTINATION",
            &self.destinations,
            &[
                ("CONNECTS/S", "connects_per_second"),
                ("NO PORT/S", "exhausted_per_second"),
                ("PORTS", "ports_peak"),
                ("OCCUPANCY", "occupancy_peak"),
            ],
        );
        lines.join("\n") + "\n"
    }
}

fn cell(pair: Pair) -> String {
    let number = |value: Option<f64>| match value {
        None => "-".to_owned(),
        Some(value) if value.abs() < 0.005 => "0".into(),
        Some(value) if value.abs() < 10.0 => format!("{value:.2}"),
        Some(value) => format!("{value:.0}"),
    };
    format!("{} > {}", number(pair.before), number(pair.after))
}

impl Window {
    fn new(side: &Side<'_>) -> Self {
        Self {
            start: side.clock.rfc3339(side.snapshot.start),
            end: side.clock.rfc3339(side.snapshot.now),
            seconds: side.seconds(),
            hostname: side.host.hostname.clone(),
            kernel: side.host.kernel.clone(),
            tier: side.host.tier.clone(),
            lost: side.snapshot.events.lost.certain(),
        }
    }
}

/// Reasons not to compare the two.
fn objections(before: &Side<'_>, after: &Side<'_>) -> Vec<String> {
    let mut objections = Vec::new();
    let (a, b) = (before.seconds(), after.seconds());
    if a.max(b) > a.min(b) * LENGTHS {
        objections.push(format!(
            "the lengths differ ({} and {}): peaks and percentiles of the longer one had more time",
            human::seconds(a),
            human::seconds(b)
        ));
    }
    for (which, side) in [("before", before), ("after", after)] {
        let lost = side.snapshot.events.lost;
        if lost.upper_bound() > 0 {
            let were = if lost.certain() > 0 { "were" } else { "may have been" };
            objections.push(format!("events {were} lost {which}: its numbers are lower bounds"));
        }
    }
    if before.host.tier != after.host.tier {
        let tier = |side: &Side<'_>| side.host.tier.clone().unwrap_or_else(|| "unknown".into());
        objections.push(format!("the tiers differ ({} and {})", tier(before), tier(after)));
    }
    let what = |side: &Side<'_>| side.host.degraded.iter().map(|one| one.what.clone()).collect::<Vec<_>>();
    if what(before) != what(after) {
        objections.push("what could not be watched differs".into());
    }
    if before.by != after.by {
        objections.push(format!("processes were grouped by {} and by {}: --by makes them alike", before.by, after.by));
    }
    objections
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;
    use crate::tracker::snapshot::FailureCounts;

    #[test]
    fn what_changed_most_comes_first_and_what_did_not_change_is_only_counted() {
        let (incident, host, clock) = (sample::exhaustion(), sample::host(), sample::clock());
        let mut better = incident.clone();
        for dest in &mut better.destinations {
            dest.failed = FailureCounts::default();
        }
        let side = |snapshot| Side { snapshot, host: &host, clock: &clock, by: "auto" };
        let diff = Diff::new(side(&incident), side(&better));
        let first = diff.destinations.first().expect("destinations");
        assert!(first.metrics["exhausted_per_second"].before > Some(0.0), "{first:?}");
        assert_eq!((first.change, first.metrics["exhausted_per_second"].after), (1.0, Some(0.0)));
        assert_eq!(diff.not_comparable, Vec::<String>::new());
        let same = Diff::new(side(&incident), side(&incident));
        assert!(same.workloads.iter().chain(&same.destinations).all(|row| row.change <= 0.0));
        assert!(same.text().contains("without a change"), "{}", same.text());
    }

    #[test]
    fn it_says_when_the_two_are_not_comparable() {
        let (incident, host, clock) = (sample::exhaustion(), sample::host(), sample::clock());
        let mut lossy = incident.clone();
        lossy.events.lost.ring_full = 1;
        lossy.now = lossy.start.plus(1_000_000_000);
        let other = HostFacts { tier: Some("classic".into()), ..host.clone() };
        let diff = Diff::new(
            Side { snapshot: &incident, host: &host, clock: &clock, by: "auto" },
            Side { snapshot: &lossy, host: &other, clock: &clock, by: "pid" },
        );
        let text = diff.text();
        for word in ["lengths", "lost after", "tiers", "grouped"] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
}
