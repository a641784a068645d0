//! One destination that is full or filling: occupancy, rate, holders and victims. Not for: choosing which destinations to show.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use super::context::ReportContext;
use crate::event::Endpoint;
use crate::layout::human::{brief, number, rate, rough_interval, seconds, short};
use crate::layout::occupancy_bar::{PortGroups, bar, letters};
use crate::layout::text::{Paint, cut_name, left};
use crate::layout::text_page::TextPage;
use crate::tracker::snapshot::{Attribution, Destination, FailureCounts, Ports};

/// Columns of the occupancy bar without its brackets: two 32-bit numbers of ports fit beside it.
const BAR: usize = 44;
/// Workloads listed per destination.
const WHO_WORKLOADS: usize = 5;
/// Processes listed per workload and destination.
const WHO_PROCESSES: usize = 3;
/// Columns of the first column of the table of holders and victims.
const WHO: usize = 33;

/// `10.66.0.2:8443`.
pub fn remote(destination: &Destination) -> String {
    Endpoint { addr: destination.remote_addr, port: destination.remote_port }.to_string()
}

/// `1,024 of 1,024 ports (100 %, peak 1,024)`.
pub fn occupancy(ports: &Ports) -> String {
    let (in_use, peak) = (number(u64::from(ports.in_use)), number(u64::from(ports.peak)));
    match (ports.capacity, ports.utilisation) {
        (Some(capacity), Some(share)) if share.is_finite() => {
            format!("{in_use} of {} ports ({}, peak {peak})", number(u64::from(capacity)), percent(share))
        }
        _ => format!("{in_use} ports (peak {peak}, capacity unknown)"),
    }
}

/// Rounded down, so that 100 % means full.
fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 1.0 { "<1 %".into() } else { format!("{} %", percent.floor()) }
}

/// `1,204 EADDRNOTAVAIL, 1 ETIMEDOUT`, most first.
fn failures(failed: &FailureCounts) -> String {
    let mut reasons = failed.by_name();
    // Stable: reasons of one count stay in their order.
    reasons.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    let words: Vec<_> = reasons.iter().map(|(reason, count)| format!("{} {reason}", number(*count))).collect();
    words.join(", ")
}

pub fn write(page: &mut TextPage, context: &ReportContext<'_>, destination: &Destination) {
    title(page, destination);
    occupancy_lines(page, context, destination);
    let mut fact = |label: &str, text: &str| page.paragraph(Paint::Dim, &format!("  {label:<11}"), Paint::Plain, text);
    if !destination.failed.is_empty() {
        let times = match (destination.first_failure, destination.last_failure) {
            (Some(first), Some(last)) if first == last => format!("; at {}", context.time(first)),
            (Some(first), Some(last)) => format!("; first {}, last {}", context.time(first), context.time(last)),
            _ => String::new(),
        };
        fact("failed", &format!("{}{times}", failures(&destination.failed)));
    }
    if let Some(ports) = asides(&destination.ports) {
        fact("ports", &ports);
    }
    fact("rate", &pace(destination));
    fact("exhausted", &exhaustion(destination));
    who(page, context, destination);
}

/// What the occupancy does not show: ports held in ways of their own, and failures that it does not explain.
fn asides(ports: &Ports) -> Option<String> {
    let count = |count: u32, what: &str| (count > 0).then(|| format!("{} {what}", number(u64::from(count))));
    let contradictions =
        (ports.contradictions > 0).then(|| format!("{} failed though ports were free", number(ports.contradictions)));
    let own_range = (ports.failed_own_range > 0).then(|| {
        let range = ports.own_range.map_or_else(String::new, |(lo, hi)| format!(" ({lo}-{hi})"));
        format!("{} failed in a range of the socket's own{range}", number(ports.failed_own_range))
    });
    let pieces = [
        count(ports.orphans, "orphans in FIN_WAIT2"),
        count(ports.without_timestamps, "of TIME_WAIT cannot be re-used: the peer sends no timestamps"),
        count(ports.half_closed, "half-closed by a process"),
        count(ports.outside_range, "outside of the range in force"),
        contradictions,
        own_range,
    ];
    let known: Vec<String> = pieces.into_iter().flatten().collect();
    (!known.is_empty()).then(|| known.join("; "))
}

fn title(page: &mut TextPage, destination: &Destination) {
    let netns = match &destination.netns_name {
        Some(name) => format!(", netns {name}"),
        None if destination.netns.inode == 0 => ", netns unknown".into(),
        None => format!(", netns {}", destination.netns.inode),
    };
    let text = format!("{} from {}{netns}", remote(destination), destination.local_addr);
    page.blank();
    page.paragraph(Paint::Plain, "", Paint::Strong, &text);
}

fn occupancy_lines(page: &mut TextPage, context: &ReportContext<'_>, destination: &Destination) {
    let ports = &destination.ports;
    let groups = PortGroups::new(&ports.by_state, ports.in_use, ports.capacity);
    let known = ports.capacity.is_some();
    let full = match ports.capacity {
        Some(capacity) => format!("] {} of {}", number(u64::from(ports.in_use)), number(u64::from(capacity))),
        None => format!("] {} of unknown", number(u64::from(ports.in_use))),
    };
    let drawn = if known { bar(groups, BAR, page.unicode()) } else { vec![(Paint::Dim, " ".repeat(BAR))] };
    let mut pieces = vec![(Paint::Plain, "  [")];
    pieces.extend(drawn.iter().map(|(paint, text)| (*paint, text.as_str())));
    pieces.push((Paint::Plain, &full));
    page.line(&pieces);

    let [established, time_wait, other, free] = letters(page.unicode());
    let mark = if context.time_wait_inferred(destination.netns) { "~" } else { "" };
    let count = |value: u32| number(u64::from(value));
    let mut legend = format!(
        "{established} ESTABLISHED {}  {time_wait} TIME_WAIT {mark}{}  {other} other {}",
        count(groups.established),
        count(groups.time_wait),
        count(groups.other)
    );
    if known {
        let _ = write!(legend, "  {free} free {}", count(groups.free));
    }
    let _ = write!(legend, "  peak {}", count(ports.peak));
    page.paragraph(Paint::Plain, "  ", Paint::Dim, &legend);
}

fn pace(destination: &Destination) -> String {
    let now = destination.connects_per_second;
    match destination.sustainable_per_second.filter(|bearable| bearable.is_finite()) {
        None => format!("{} connects/s (last 10 s); sustainable: unknown", rate(now)),
        Some(bearable) if bearable > 0.0 && now > bearable => {
            let times = rate(now / bearable);
            format!("{} connects/s (last 10 s), {times} times the sustainable {}/s", rate(now), rate(bearable))
        }
        Some(bearable) => format!("{} connects/s (last 10 s); sustainable: {}/s", rate(now), rate(bearable)),
    }
}

fn coming(destination: &Destination, left: f64) -> String {
    if left > 7_200.0 {
        // An interval of days says no more than its middle.
        return format!("about {}", seconds(left));
    }
    rough_interval(left, destination.exhaustion_soonest_seconds, destination.exhaustion_latest_seconds)
}

/// When the ports run out, in words.
pub fn exhaustion(destination: &Destination) -> String {
    let confidence = |text: String| match destination.forecast_confidence {
        Some(confidence) => format!("{text} (confidence {})", format!("{confidence:?}").to_lowercase()),
        None => text,
    };
    match (destination.seconds_to_exhaustion, destination.sustainable_per_second) {
        (Some(left), _) if left <= 0.0 => "now".into(),
        (Some(left), _) => confidence(format!("in {}", coming(destination, left))),
        (None, Some(bearable)) if destination.connects_per_second <= bearable => "not at this rate".into(),
        (None, _) => "unknown".into(),
    }
}

/// One workload as holder and victim of the destination.
#[derive(Default)]
struct Role<'a> {
    ports: u32,
    failed: u64,
    processes: Vec<&'a Attribution>,
}

/// Holders and victims in one table, because they are often the same workloads.
fn who(page: &mut TextPage, context: &ReportContext<'_>, destination: &Destination) {
    let mut roles: BTreeMap<&Arc<str>, Role<'_>> = BTreeMap::new();
    for holder in &destination.holders {
        let role = roles.entry(&holder.workload).or_default();
        role.ports = role.ports.saturating_add(holder.ports);
    }
    for victim in &destination.victims {
        let role = roles.entry(&victim.workload).or_default();
        role.failed = role.failed.saturating_add(victim.failed);
    }
    for attribution in &context.snapshot.attributions {
        let here = attribution.netns == destination.netns
            && attribution.local_addr == destination.local_addr
            && (attribution.remote_addr, attribution.remote_port) == (destination.remote_addr, destination.remote_port);
        if let (true, Some(role)) = (here, roles.get_mut(&attribution.workload)) {
            role.processes.push(attribution);
        }
    }
    let mut roles: Vec<_> = roles.into_iter().collect();
    roles.sort_by(|(a_name, a), (b_name, b)| (b.ports, b.failed, a_name).cmp(&(a.ports, a.failed, b_name)));
    if roles.is_empty() {
        page.line(&[(Paint::Dim, "  who        "), (Paint::Plain, "unknown: no owner was seen")]);
        return;
    }
    let head = format!("{:WHO$}{:>7}{:>10}{:>10}{:>10}", "who", "ports", "failed", "TIME_WAIT", "life p50");
    page.line(&[(Paint::Plain, "  "), (Paint::Dim, &head)]);
    for (name, role) in roles.iter().take(WHO_WORKLOADS) {
        workload(page, name, role);
    }
    if let Some(more) = roles.len().checked_sub(WHO_WORKLOADS).filter(|&more| more > 0) {
        page.line(&[(Paint::Dim, &format!("  +{more} more"))]);
    }
}

fn workload(page: &mut TextPage, name: &str, role: &Role<'_>) {
    let word = match (role.ports, role.failed) {
        (_, 0) => "holder",
        (0, _) => "victim",
        _ => "holder+victim",
    };
    let room = WHO - word.len() - 2;
    let time_wait = role.processes.iter().fold(0_u64, |sum, process| sum.saturating_add(process.time_wait.now));
    let time_wait = if role.processes.is_empty() { "-".into() } else { short(time_wait) };
    let name = cut_name(&page.safe(name), room);
    let label = left(&format!("{name} {word}"), WHO);
    let (bold, role_word) = label.split_at(name.len());
    let numbers = format!("{:>7}{:>10}{:>10}", short(u64::from(role.ports)), short(role.failed), time_wait);
    let failed = if role.failed > 0 { Paint::Bad } else { Paint::Plain };
    page.line(&[(Paint::Plain, "  "), (Paint::Strong, bold), (Paint::Dim, role_word), (failed, &numbers)]);
    for process in role.processes.iter().take(WHO_PROCESSES) {
        let pid = match (process.pid, process.inferred) {
            (0, _) => "ended".into(),
            (pid, true) => format!("~{pid}"),
            (pid, false) => pid.to_string(),
        };
        let command = match &process.cmdline {
            Some(cmdline) => command(cmdline),
            None => process.comm.to_string(),
        };
        let label = left(&page.safe(&format!("  {pid} {command}")), WHO - 1);
        let line = format!(
            "{label} {:>7}{:>10}{:>10}{:>10}",
            short(u64::from(process.ports_held)),
            short(process.failed.without_port()),
            short(process.time_wait.now),
            life(process)
        );
        page.line(&[(Paint::Plain, "  "), (Paint::Plain, &line)]);
        if let Some(holder) = process.held_by.first() {
            let others = process.held_by.len() - 1;
            let more = if others > 0 { format!(" and {others} more") } else { String::new() };
            let held = format!("      {} held by {}[{}]{more}", holder.flows, page.safe(&holder.comm), holder.pid);
            page.line(&[(Paint::Dim, &held)]);
        }
    }
    if let Some(more) = role.processes.len().checked_sub(WHO_PROCESSES).filter(|&more| more > 0) {
        page.line(&[(Paint::Dim, &format!("    +{more} more"))]);
    }
}

/// How long the flows of a process live: the median of those that ended, else the age of the oldest one.
fn life(process: &Attribution) -> String {
    match (process.lifetime_ms.p50, process.oldest_established_seconds) {
        (Some(p50), _) => brief(p50),
        (None, Some(oldest)) => format!(">{}", brief(oldest * 1_000.0)),
        (None, None) => "-".into(),
    }
}

/// The command line without directories: what distinguishes two processes is usually behind them.
fn command(cmdline: &str) -> String {
    let base = |word| if str::starts_with(word, '/') { word.rsplit('/').next().unwrap_or(word) } else { word };
    cmdline.split(' ').map(base).collect::<Vec<_>>().join(" ")
}
