//! Two traces side by side: before and after a deploy or a sysctl, as a verdict. What got better, what got worse, what it costs, and what
//! speaks against the comparison; then row by row, those with failures first.
//!
//! Counts are compared per second of what was recorded, because no two traces are equally long. The text and the JSON are made from one
//! structure. Not for: conclusions about one trace (`verdict`).

mod comparable;
mod render;
mod settings;
mod side;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::damage::Damage;
use crate::event::Endpoint;
use crate::layout::human::{self, number, rate};
use crate::tracker::snapshot::{Destination, Snapshot, Workload};
use settings::SettingChange;
pub use side::Side;
use side::occupancy;

/// Value of the field `schema`.
pub const SCHEMA_NAME: &str = "portchurn.diff/1";
/// A value that changes by a smaller share than this is called the same: rates of equal loads differ by as much.
const SAME: f64 = 0.1;
/// Fewer failures per second than this are none: one in a quarter of an hour.
const NO_FAILURES: f64 = 0.001;

/// A count, all digits.
fn whole(count: f64) -> String {
    let digits = format!("{count:.0}");
    digits.parse().map(number).unwrap_or(digits)
}

/// How a comparison ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DiffWord {
    /// Less fails, or less of the ports is in use.
    Better,
    /// More fails, or more of the ports is in use.
    Worse,
    /// Neither.
    Same,
    /// One side shows nothing that could be compared.
    Unknown,
}

impl DiffWord {
    fn as_str(self) -> &'static str {
        match self {
            Self::Better => "BETTER",
            Self::Worse => "WORSE",
            Self::Same => "SAME",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// One number that changed, in a sentence.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct DiffChange {
    what: &'static str,
    before: Option<f64>,
    after: Option<f64>,
    text: String,
}

#[derive(Debug, Serialize)]
struct DiffVerdict {
    word: DiffWord,
    text: String,
}

/// The comparison.
#[derive(Debug, Serialize)]
pub struct Diff {
    schema: &'static str,
    before: Window,
    after: Window,
    verdict: DiffVerdict,
    better: Vec<DiffChange>,
    worse: Vec<DiffChange>,
    /// What changed and is neither: load, connections kept open, `TIME_WAIT`.
    cost: Vec<DiffChange>,
    settings: Vec<SettingChange>,
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
    files: u64,
    filter: Option<String>,
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

impl Pair {
    /// The difference as a share of the larger value; 0 if both are below `floor`.
    fn change(self, floor: f64) -> f64 {
        let (before, after) = (self.before.unwrap_or(0.0), self.after.unwrap_or(0.0));
        let larger = before.max(after);
        if larger <= floor { 0.0 } else { (after - before).abs() / larger }
    }
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

const DESTINATION: [Metric<Destination>; 6] = [
    ("connects_per_second", 0.1, |d, seconds| Some(d.connects as f64 / seconds)),
    ("exhausted_per_second", 0.01, |d, seconds| Some(d.failed.without_port() as f64 / seconds)),
    ("failed_per_second", 0.01, |d, seconds| Some(d.failed.total() as f64 / seconds)),
    ("ports_peak", 10.0, |d, _| Some(f64::from(d.ports.peak))),
    ("capacity", 0.0, |d, _| d.ports.capacity.map(f64::from)),
    ("occupancy_peak", 0.01, |d, _| occupancy(d)),
];

/// Metrics in the order in which they decide which row comes first.
const DECISIVE: [&str; 3] = ["exhausted_per_second", "failed_per_second", "occupancy_peak"];

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
    let mut rows: Vec<(Row, [f64; 5])> = pairs
        .into_iter()
        .map(|(name, (before, after))| {
            let mut row = Row { name, change: 0.0, metrics: BTreeMap::new() };
            let mut weight = 0.0_f64;
            for (metric, floor, value) in metrics {
                let pair = Pair {
                    before: before.and_then(|before| value(before, seconds.0)),
                    after: after.and_then(|after| value(after, seconds.1)),
                };
                let change = pair.change(*floor);
                row.change = row.change.max(change);
                // Of two values that were 0 before, the greater one is the larger change.
                let factor = pair.before.unwrap_or(0.0).max(pair.after.unwrap_or(0.0)) / floor.max(1.0);
                weight = weight.max(change * factor.max(1.0).log10());
                row.metrics.insert(metric, pair);
            }
            let moved = DECISIVE.map(|metric| {
                let Pair { before, after } = row.metrics.get(metric).copied().unwrap_or_default();
                (after.unwrap_or(0.0) - before.unwrap_or(0.0)).abs()
            });
            // A stranger that came or went is no effect of what was changed between the two.
            let on_both = f64::from(u8::from(before.is_some() && after.is_some()));
            let [exhausted, failed, occupied] = moved;
            (row, [exhausted, failed, on_both * occupied, on_both, weight])
        })
        .collect();
    rows.sort_by(|(left, a), (right, b)| {
        let order = b.iter().zip(a).map(|(b, a)| b.total_cmp(a)).find(|order| order.is_ne());
        order.unwrap_or(std::cmp::Ordering::Equal).then_with(|| left.name.cmp(&right.name))
    });
    rows.into_iter().map(|(row, _)| row).collect()
}

impl Diff {
    /// Compares two traces.
    pub fn new(before: Side<'_>, after: Side<'_>) -> Self {
        let seconds = (before.seconds(), after.seconds());
        let (mut better, mut worse, mut cost) = (Vec::new(), Vec::new(), Vec::new());
        for (change, is_better) in [
            failures(&before, &after, "exhausted_per_second", "for lack of a port", |w| w.failed.without_port()),
            failures(&before, &after, "failed_for_other_reasons_per_second", "for other reasons", |w| {
                w.failed.total() - w.failed.without_port()
            }),
            fullest(&before, &after),
            quantile(&before, &after),
        ]
        .into_iter()
        .flatten()
        {
            if is_better { better.push(change) } else { worse.push(change) }
        }
        cost.extend(costs(&before, &after));
        let verdict = verdict(&before, &after, &better, &worse);
        Self {
            schema: SCHEMA_NAME,
            before: Window::new(&before),
            after: Window::new(&after),
            verdict,
            better,
            worse,
            cost,
            settings: settings::changes(&before, &after),
            not_comparable: comparable::objections(&before, &after),
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
}

/// Failures per second of one kind. `None` if there are none, or as many.
fn failures(
    before: &Side<'_>,
    after: &Side<'_>,
    what: &'static str,
    why: &str,
    of: fn(&Workload) -> u64,
) -> Option<(DiffChange, bool)> {
    let (a, b) = (before.per_second(of), after.per_second(of));
    if a.max(b) < NO_FAILURES || (a - b).abs() <= SAME * a.max(b) {
        return None;
    }
    let sum = |side: &Side<'_>| whole(side.sum(of));
    let text = if b < NO_FAILURES {
        format!("no connect fails {why} any more: {}/s before ({}), none after", rate(a), sum(before))
    } else if a < NO_FAILURES {
        format!("connects fail {why}: none before, {}/s after ({})", rate(b), sum(after))
    } else {
        let word = if b < a { "fewer" } else { "more" };
        format!(
            "{word} connects fail {why}: {}/s before ({}), {}/s after ({})",
            rate(a),
            sum(before),
            rate(b),
            sum(after)
        )
    };
    Some((DiffChange { what, before: Some(a), after: Some(b), text }, b < a))
}

/// How full the fullest destination was.
fn fullest(before: &Side<'_>, after: &Side<'_>) -> Option<(DiffChange, bool)> {
    let ((a, from), (b, to)) = (before.fullest()?, after.fullest()?);
    // Below half of the ports nobody is in need.
    if (a - b).abs() < SAME || a.max(b) < 0.5 {
        return None;
    }
    let told = |share: f64, dest: &Destination| {
        let remote = Endpoint { addr: dest.remote_addr, port: dest.remote_port };
        let (peak, capacity) = (u64::from(dest.ports.peak), u64::from(dest.ports.capacity.unwrap_or_default()));
        (remote, format!("{} of {} ports ({:.0} %)", number(peak), number(capacity), (share * 100.0).floor()))
    };
    let ((first, was), (second, is)) = (told(a, from), told(b, to));
    let (at, then) = if first == second {
        (String::new(), String::new())
    } else {
        (format!(" of {first}"), format!(" of {second}"))
    };
    let text = format!("at most {was}{at} in use before, {is}{then} after");
    Some((DiffChange { what: "occupancy_peak", before: Some(a), after: Some(b), text }, b < a))
}

/// How long connects took at worst, of the workloads on both sides.
fn quantile(before: &Side<'_>, after: &Side<'_>) -> Option<(DiffChange, bool)> {
    let pairs = before.snapshot.workloads.iter().filter_map(|workload| {
        let other = after.snapshot.workloads.iter().find(|other| other.name == workload.name)?;
        Some((workload, workload.connect_ms.p99?, other.connect_ms.p99?))
    });
    let moved = |a: f64, b: f64| if a.max(b) < 1.0 { 0.0 } else { (a - b).abs() / a.max(b) };
    let (workload, a, b) = pairs.max_by(|(_, a, b), (_, c, d)| moved(*a, *b).total_cmp(&moved(*c, *d)))?;
    // Half as long, or twice as long: the rest is the network's weather.
    if moved(a, b) < 0.5 {
        return None;
    }
    let text = format!(
        "connects of {} took {} before and {} after (99 of 100 no longer)",
        workload.name,
        human::brief(a),
        human::brief(b)
    );
    Some((DiffChange { what: "connect_p99_ms", before: Some(a), after: Some(b), text }, b < a))
}

/// What changed and is neither better nor worse in itself.
fn costs(before: &Side<'_>, after: &Side<'_>) -> Vec<DiffChange> {
    let change = |what, floor: f64, (a, b): (f64, f64), told: &dyn Fn(f64) -> String, noun: &str| {
        let moved = Pair { before: Some(a), after: Some(b) }.change(floor);
        (moved > SAME).then(|| {
            let more = if b > a { "more" } else { "fewer" };
            let text = format!("{more} {noun}: {} before, {} after", told(a), told(b));
            DiffChange { what, before: Some(a), after: Some(b), text }
        })
    };
    let per_second = |value: f64| format!("{}/s", rate(value));
    let established = (before.per_second(|w| w.established), after.per_second(|w| w.established));
    let open = |side: &Side<'_>| side.snapshot.flows as f64;
    [
        change(
            "connects_per_second",
            0.1,
            (before.per_second(|w| w.connects), after.per_second(|w| w.connects)),
            &per_second,
            "connects",
        ),
        change("established_per_second", 0.1, established, &per_second, "connections established"),
        change("flows", 10.0, (open(before), open(after)), &whole, "connections open at the end"),
        change(
            "time_wait_peak",
            10.0,
            (before.sum(|w| w.time_wait.peak), after.sum(|w| w.time_wait.peak)),
            &whole,
            "TIME_WAIT entries at most",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn verdict(before: &Side<'_>, after: &Side<'_>, better: &[DiffChange], worse: &[DiffChange]) -> DiffVerdict {
    let shows_nothing = |side: &Side<'_>| {
        let Snapshot { events, workloads, filter, .. } = side.snapshot;
        events.read == 0 || (filter.is_some() && workloads.is_empty())
    };
    for (side, word) in [(before, "BEFORE"), (after, "AFTER")] {
        if shows_nothing(side) {
            let what = if side.snapshot.filter.is_some() { "nothing inside the filter" } else { "no event" };
            return DiffVerdict {
                word: DiffWord::Unknown,
                text: format!("there is {what} in {word}: nothing can be compared"),
            };
        }
    }
    let damaged = |side: &Side<'_>| side.snapshot.damage.as_ref().is_some_and(Damage::loses_events);
    let decides = |changes: &[DiffChange], what: &str| changes.iter().find(|change| change.what == what).cloned();
    for what in ["exhausted_per_second", "occupancy_peak", "failed_for_other_reasons_per_second", "connect_p99_ms"] {
        let (word, change) = match (decides(worse, what), decides(better, what)) {
            (Some(change), _) => (DiffWord::Worse, change),
            (_, Some(change)) => (DiffWord::Better, change),
            (None, None) => continue,
        };
        if word == DiffWord::Better && damaged(after) {
            let text = format!("{}, but a part of AFTER cannot be read", change.text);
            return DiffVerdict { word: DiffWord::Unknown, text };
        }
        let mut text = change.text;
        let (a, b) = (before.per_second(|w| w.connects), after.per_second(|w| w.connects));
        if word == DiffWord::Better && b < a / 2.0 {
            let _ = write!(
                text,
                "; but connects fell from {}/s to {}/s: connections that are kept do that, and so does less load",
                rate(a),
                rate(b)
            );
        }
        return DiffVerdict { word, text };
    }
    let exhausted = before.per_second(|w| w.failed.without_port()).max(after.per_second(|w| w.failed.without_port()));
    let text = if exhausted < NO_FAILURES {
        "no connect failed for lack of a port, before or after".to_owned()
    } else {
        format!("as many connects fail for lack of a port as before: about {}/s", rate(exhausted))
    };
    DiffVerdict { word: DiffWord::Same, text }
}

impl Window {
    fn new(side: &Side<'_>) -> Self {
        let Side { snapshot, host, clock, .. } = side;
        Self {
            start: clock.rfc3339(snapshot.start),
            end: clock.rfc3339(snapshot.now),
            seconds: snapshot.now.seconds_since(snapshot.start),
            hostname: host.hostname.clone(),
            kernel: host.kernel.clone(),
            tier: host.tier.clone(),
            lost: snapshot.events.lost.certain(),
            files: snapshot.coverage.as_ref().map_or(1, |coverage| coverage.files),
            filter: snapshot.filter.as_ref().map(|filter| filter.text.to_string()),
        }
    }
}

#[cfg(test)]
mod tests;
