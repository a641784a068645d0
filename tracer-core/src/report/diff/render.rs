//! The comparison as text: a verdict, reasons, then each row with its whole name and the numbers that changed.

use super::{Diff, Pair, Row, Window, whole};
use crate::layout::human::{self, rate};
use crate::layout::text::Paint;
use crate::layout::text_page::TextPage;

/// Rows per table; JSON has all rows.
const ROWS: usize = 12;
/// A number of a row is told if it changed by at least this share.
const TOLD: f64 = 0.05;

/// A metric of a row: its name in JSON, its label, and the value below which a change does not matter.
type Shown = (&'static str, &'static str, f64);

const WORKLOAD: [Shown; 7] = [
    ("exhausted_per_second", "no port/s", 0.01),
    ("failed_per_second", "failed/s", 0.01),
    ("connects_per_second", "connects/s", 0.1),
    ("time_wait_peak", "TIME_WAIT peak", 10.0),
    ("ports_held", "ports held", 10.0),
    ("lifetime_p50_ms", "life p50 ms", 1.0),
    ("connect_p99_ms", "connect p99 ms", 1.0),
];

const DESTINATION: [Shown; 5] = [
    ("exhausted_per_second", "no port/s", 0.01),
    ("failed_per_second", "failed/s", 0.01),
    ("connects_per_second", "connects/s", 0.1),
    ("ports_peak", "ports peak", 10.0),
    ("capacity", "of ports", 0.0),
];

impl Diff {
    /// The comparison as text, every line at most 80 columns.
    pub fn text(&self) -> String {
        render(self)
    }
}

fn render(diff: &Diff) -> String {
    let mut page = TextPage::new(false, false);
    let line = |page: &mut TextPage, label: &str, text: &str| {
        let text = page.safe(text);
        page.paragraph(Paint::Plain, &format!("{label:<9} "), Paint::Plain, &text);
    };
    line(&mut page, diff.verdict.word.as_str(), &sentence(&diff.verdict.text));
    line(&mut page, "before", &window(&diff.before));
    line(&mut page, "after", &window(&diff.after));
    if let Some(filter) = diff.before.filter.as_ref().or(diff.after.filter.as_ref()) {
        line(&mut page, "filter", &format!("{filter}. Only what is inside is compared."));
    }
    for why in &diff.not_comparable {
        line(&mut page, "CAUTION", &sentence(why));
    }
    for (label, changes) in [("better", &diff.better), ("worse", &diff.worse), ("cost", &diff.cost)] {
        for change in changes.iter().filter(|change| change.text != diff.verdict.text) {
            line(&mut page, label, &sentence(&change.text));
        }
    }
    for change in &diff.settings {
        let unknown = || "unknown".to_owned();
        let netns = change.netns.as_ref().map(|name| format!(" in {name}")).unwrap_or_default();
        let (was, is) = (change.before.clone().unwrap_or_else(unknown), change.after.clone().unwrap_or_else(unknown));
        line(&mut page, "setting", &format!("{}{netns}: {was} > {is}", change.setting));
    }
    table(&mut page, "WORKLOADS", &diff.workloads, &WORKLOAD);
    table(&mut page, "DESTINATIONS", &diff.destinations, &DESTINATION);
    page.finish()
}

/// With a capital and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().collect::<String>()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

fn window(window: &Window) -> String {
    let host = window.hostname.as_deref().map(|host| format!(", {host}")).unwrap_or_default();
    let files = if window.files > 1 { format!(", {} files", window.files) } else { String::new() };
    // Down to the second: the rest does not help people.
    let start = window.start.split('.').next().unwrap_or_default();
    format!("{start}Z ({}){host}{files}", human::seconds(window.seconds))
}

fn table(page: &mut TextPage, heading: &str, rows: &[Row], shown: &[Shown]) {
    let cells = |row: &Row| -> Vec<String> {
        let told = |&(metric, label, floor): &Shown| {
            let pair = row.metrics.get(metric).copied().unwrap_or_default();
            (pair.change(floor) > TOLD).then(|| format!("{label} {}", cell(pair)))
        };
        shown.iter().filter_map(told).collect()
    };
    let changed: Vec<_> = rows.iter().map(|row| (row, cells(row))).filter(|(_, cells)| !cells.is_empty()).collect();
    let same = rows.len() - changed.len();
    if rows.is_empty() {
        return;
    }
    page.heading(heading);
    for (row, cells) in changed.iter().take(ROWS) {
        let name = page.safe(&row.name);
        page.paragraph(Paint::Plain, "", Paint::Strong, &name);
        page.paragraph(Paint::Plain, "    ", Paint::Plain, &cells.join("; "));
    }
    let more = changed.len().saturating_sub(ROWS);
    if same + more > 0 {
        page.paragraph(Paint::Plain, "", Paint::Dim, &format!("{same} without a change, {more} more with one"));
    }
}

fn cell(pair: Pair) -> String {
    let value = |value: Option<f64>| match value {
        None => "-".to_owned(),
        Some(value) if value.abs() < 0.005 => "0".into(),
        Some(value) if value >= 1_000.0 && value.fract() == 0.0 => whole(value),
        Some(value) => rate(value),
    };
    format!("{} > {}", value(pair.before), value(pair.after))
}
