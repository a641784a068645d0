//! Destinations that are out of ports, will be soon, or are slow to give one.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::advice;
use super::cause::{Cause, culprit, held_ports, sentence};
use super::recent::Counted;
use super::rule::{RuleContext, amount, counted, endpoint, evidence};
use super::thresholds::Thresholds;
use crate::layout::human::{per_second, plain_plural, rate, rough_interval, rough_seconds};
use crate::tracker::snapshot::{Confidence, Destination, Finding, FindingId, FindingSubject, Severity};

/// States named in a sentence.
const STATES_NAMED: usize = 2;

/// `connect()` found no free port.
pub(super) fn exhausted(context: RuleContext<'_>) -> Vec<Finding> {
    let failing = context.snapshot.destinations.iter().filter_map(|destination| {
        let windows = context.recent.towards(destination.key());
        (windows.new.of(Counted::NoPort) > 0).then_some((destination, windows))
    });
    failing
        .map(|(destination, windows)| {
            let held = held_ports(destination, context.namespace(destination.netns));
            let culprit = culprit(context, destination);
            let remote = endpoint(destination.remote_addr, destination.remote_port);
            let victims = victims(context, destination);
            let who = culprit.name();
            let tell = |past: bool| {
                let begin = match held.first().map(|held| held.cause) {
                    // Not the doing of who connects there.
                    Some(Cause::Blocked | Cause::Reserved | Cause::Unseen) | None => {
                        format!("Connects to {remote} {} no local port", if past { "found" } else { "find" })
                    }
                    _ => format!("{who} {} the ports towards {remote}", if past { "exhausted" } else { "exhausts" }),
                };
                format!("{begin}: {}.", sentence(&held, destination, past))
            };
            let summary = format!(
                "{} {}{victims} failed with EADDRNOTAVAIL in the last minute.{}{}",
                tell(false),
                plain_plural(windows.long.of(Counted::NoPort), "connect"),
                culprit.reason(),
                contradiction(destination),
            );
            let subject = FindingSubject::Destination(destination.key());
            let mut finding = Finding::new(FindingId::PortExhaustion, subject, Severity::Critical, summary);
            finding.past = format!("{}{}{}", tell(true), culprit.reason(), contradiction(destination));
            (finding.since, finding.until) = (destination.failing_since, destination.last_failure);
            finding.measure = counted(&windows, Counted::NoPort, "failures/min");
            finding.measure.weight = held.iter().map(|held| f64::from(held.ports)).sum();
            finding.evidence = facts(destination);
            finding.evidence.insert("failed", windows.all.of(Counted::NoPort).into());
            finding.evidence.insert("failed_last_minute", windows.long.of(Counted::NoPort).into());
            finding.evidence.insert("causes", serde_json::json!(held));
            finding
                .evidence
                .insert("holder", serde_json::json!({"workload": culprit.workload, "inferred": culprit.inferred}));
            if destination.ports.contradictions > 0 {
                finding.evidence.insert("contradictions", destination.ports.contradictions.into());
            }
            finding.advice = advice::for_destination(context, destination);
            finding
        })
        .collect()
}

/// Whose connects failed in the last minute: ` of web (118) and 2 others`.
fn victims(context: RuleContext<'_>, destination: &Destination) -> String {
    let key = destination.key();
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for victim in &destination.victims {
        let failed = context.recent.relation(&victim.workload, key).long.of(Counted::NoPort);
        if failed > 0 {
            counts.insert(&victim.workload, failed);
        }
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|&(name, failed)| (std::cmp::Reverse(failed), name));
    match counts.as_slice() {
        [] => String::new(),
        [(only, _)] => format!(" of {only}"),
        [(first, failed), rest @ ..] => {
            format!(" of {first} ({failed}) and {}", plain_plural(rest.len() as u64, "other"))
        }
    }
}

/// A failure while ports are free is shown, not explained away.
fn contradiction(destination: &Destination) -> String {
    match (destination.ports.contradictions, destination.ports.free, destination.ports.capacity) {
        (0, ..) => String::new(),
        (count, Some(free), Some(capacity)) => format!(
            " {} failed though ports were free ({free} of {capacity} now): a limit of the socket's own, or a holder that portchurn cannot see.",
            plain_plural(count, "connect"),
        ),
        (count, ..) => format!(" {} failed though ports were free.", plain_plural(count, "connect")),
    }
}

/// connect() found no free port in the range that its socket had confined itself to, which says nothing of the namespace's ports.
pub(super) fn own_range_exhausted(context: RuleContext<'_>) -> Vec<Finding> {
    let failing = context.snapshot.destinations.iter().filter_map(|destination| {
        let windows = context.recent.towards(destination.key());
        (windows.new.of(Counted::NoOwnPort) > 0).then_some((destination, windows))
    });
    failing
        .map(|(destination, windows)| {
            let failed = destination.ports.failed_own_range;
            let range = destination.ports.own_range.map_or_else(String::new, |(lo, hi)| {
                format!(" {lo}-{hi}, {} ports", u32::from(hi.saturating_sub(lo)) + 1)
            });
            let free = match (destination.ports.free, destination.ports.capacity) {
                (Some(free), Some(capacity)) => format!(" {free} of the {capacity} ports of the namespace are free."),
                _ => String::new(),
            };
            let who = destination.victims.first().map_or("a program", |victim| &*victim.workload);
            let summary = format!(
                "{} of {who} to {} failed with EADDRNOTAVAIL in a port range of their own (IP_LOCAL_PORT_RANGE{range}).{free}",
                plain_plural(failed, "connect"),
                endpoint(destination.remote_addr, destination.remote_port),
            );
            let subject = FindingSubject::WorkloadTowards(who.into(), destination.key());
            // Only the program that confines itself suffers.
            let mut finding = Finding::new(FindingId::PortExhaustion, subject, Severity::Warning, summary);
            finding.measure = counted(&windows, Counted::NoOwnPort, "failures/min");
            finding.evidence = facts(destination);
            finding.evidence.insert("failed", failed.into());
            finding.evidence.insert("own_range", serde_json::json!(destination.ports.own_range));
            finding.advice = vec![advice::widen_own_range(who)];
            finding
        })
        .collect()
}

/// bind(port 0) found no free port: a failure without a destination.
pub(super) fn bind_exhausted(context: RuleContext<'_>) -> Vec<Finding> {
    let failing = context.snapshot.workloads.iter().filter_map(|workload| {
        let windows = context.recent.of_workload(&workload.name);
        (windows.new.of(Counted::NoBindPort) > 0).then_some((workload, windows))
    });
    failing
        .map(|(workload, windows)| {
            let failed = windows.all.of(Counted::NoBindPort);
            let summary = format!(
                "{} of {} to port 0 failed with EADDRINUSE: no port of the range was free on its source address, whatever the destination.",
                plain_plural(failed, "bind"),
                workload.name
            );
            let subject = FindingSubject::Workload(Arc::clone(&workload.name));
            let mut finding = Finding::new(FindingId::PortExhaustion, subject, Severity::Critical, summary);
            finding.measure = counted(&windows, Counted::NoBindPort, "failures/min");
            finding.evidence = evidence! {
                "workload": &*workload.name,
                "bind_failed": failed,
                "ports_held": workload.ports_held,
                "netns": workload.netns.iter().map(|netns| netns.inode).collect::<Vec<_>>(),
            };
            finding.advice = vec![advice::bind_no_port(&workload.name)];
            finding
        })
        .collect()
}

/// Ports will run out soon.
pub(super) fn soon(context: RuleContext<'_>) -> Vec<Finding> {
    let coming = context.snapshot.destinations.iter().filter_map(|destination| {
        let seconds = destination.seconds_to_exhaustion?;
        // Attempts that fail in a range of the socket's own are part of the rate, though they will never take a port.
        let lately = context.recent.towards(destination.key()).short;
        let quiet = lately.of(Counted::NoPort) + lately.of(Counted::NoOwnPort) == 0;
        (quiet && seconds <= context.thresholds.soon_seconds).then_some((destination, seconds))
    });
    coming
        .map(|(destination, seconds)| {
            let held = held_ports(destination, context.namespace(destination.netns));
            let culprit = culprit(context, destination);
            let severity = match destination.forecast_confidence {
                None | Some(Confidence::Low) => Severity::Info,
                Some(_) if seconds <= context.thresholds.soon_critical_seconds => Severity::Critical,
                Some(_) => Severity::Warning,
            };
            let bears = destination.sustainable_per_second.map_or_else(String::new, |sustainable| {
                format!(", where {} can be sustained", per_second(sustainable))
            });
            let when = if seconds > 0.0 {
                let (soonest, latest) = (destination.exhaustion_soonest_seconds, destination.exhaustion_latest_seconds);
                format!("run out in {}", rough_interval(seconds, soonest, latest))
            } else {
                "have run out (no connect has failed yet)".into()
            };
            let summary = format!(
                "Local ports towards {} {when} at {} connects/s (last 10 s){bears}. {} fills them: {}.{}",
                endpoint(destination.remote_addr, destination.remote_port),
                rate(destination.connects_per_second),
                culprit.name(),
                sentence(&held, destination, false),
                culprit.reason(),
            );
            let subject = FindingSubject::Destination(destination.key());
            let mut finding = Finding::new(FindingId::PortExhaustionSoon, subject, severity, summary);
            finding.evidence = facts(destination);
            finding.past = format!(
                "Local ports towards {} came close to their end, {} filled them: {}.",
                endpoint(destination.remote_addr, destination.remote_port),
                culprit.name(),
                sentence(&held, destination, true),
            );
            finding.measure = amount(f64::from(destination.ports.in_use), "ports in use");
            finding.evidence.insert("causes", serde_json::json!(held));
            finding.evidence.insert("seconds_to_exhaustion", seconds.into());
            finding.evidence.insert("exhaustion_soonest_seconds", destination.exhaustion_soonest_seconds.into());
            finding.evidence.insert("exhaustion_latest_seconds", destination.exhaustion_latest_seconds.into());
            finding.evidence.insert("exhaustion_probability", destination.exhaustion_probability.into());
            finding.evidence.insert("confidence", serde_json::json!(destination.forecast_confidence));
            finding.advice = advice::for_destination(context, destination);
            finding
        })
        .collect()
}

/// connect() walks half of the range before it finds a port.
pub(super) fn search_slow(context: RuleContext<'_>) -> Vec<Finding> {
    let Thresholds { search_slow_ms, search_slow_factor, .. } = *context.thresholds;
    let slow = context.snapshot.destinations.iter().filter_map(|destination| {
        let recent = destination.port_search_recent_ms.filter(|&recent| recent >= search_slow_ms)?;
        let quickest = destination.port_search_quickest_ms?;
        let fallen = recent >= search_slow_factor * quickest;
        let crowded = destination.ports.utilisation.is_some_and(|share| share >= 0.5);
        let failing = context.recent.towards(destination.key()).short.of(Counted::NoPort) > 0;
        ((fallen || crowded) && !failing).then_some((destination, recent, quickest))
    });
    slow.map(|(destination, recent, quickest)| {
        let before =
            if recent > quickest { format!(", at best {}", rough_seconds(quickest / 1e3)) } else { String::new() };
        let summary = format!(
            "connect() to {} {{takes}} {} to find a local port{before}: {}{}.",
            endpoint(destination.remote_addr, destination.remote_port),
            rough_seconds(recent / 1e3),
            occupancy(destination),
            holders(destination),
        );
        let subject = FindingSubject::Destination(destination.key());
        let past = summary.replace("{takes}", "took");
        let summary = summary.replace("{takes}", "now takes");
        let mut finding = Finding::new(FindingId::PortSearchSlow, subject, Severity::Warning, summary);
        finding.past = past;
        finding.evidence = facts(destination);
        finding.measure = amount(recent, "ms per port search");
        finding.evidence.insert("recent_ms", recent.into());
        finding.evidence.insert("quickest_ms", quickest.into());
        finding.evidence.insert("port_search_ms", serde_json::json!(destination.port_search_ms));
        finding.advice = advice::for_destination(context, destination);
        finding
    })
    .collect()
}

/// `28231 of 28232 ports of 10.0.0.2 in use (27390 TIME_WAIT, 841 ESTABLISHED)`.
fn occupancy(destination: &Destination) -> String {
    let ports = &destination.ports;
    let mut states: Vec<_> = ports.by_state.iter().filter(|(_, count)| **count > 0).collect();
    states.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let named: Vec<String> =
        states.into_iter().take(STATES_NAMED).map(|(state, count)| format!("{count} {state}")).collect();
    let states = if named.is_empty() { String::new() } else { format!(" ({})", named.join(", ")) };
    match ports.capacity {
        Some(capacity) => format!("{} of {capacity} ports of {} in use{states}", ports.in_use, destination.local_addr),
        None => format!("{} ports of {} in use{states}", ports.in_use, destination.local_addr),
    }
}

fn holders(destination: &Destination) -> String {
    destination
        .holders
        .first()
        .map_or_else(String::new, |first| format!(", {} held by {}", first.ports, first.workload))
}

fn facts(destination: &Destination) -> BTreeMap<&'static str, serde_json::Value> {
    let ports = &destination.ports;
    evidence! {
        "netns": destination.netns.inode,
        "local_addr": destination.local_addr,
        "remote_addr": destination.remote_addr,
        "remote_port": destination.remote_port,
        "in_use": ports.in_use,
        "capacity": ports.capacity,
        "peak": ports.peak,
        "by_state": ports.by_state.iter().map(|(state, count)| (state.name(), *count)).collect::<BTreeMap<_, _>>(),
        "holders": destination.holders,
        "victims": destination.victims,
        "connects_per_second": destination.connects_per_second,
        "sustainable_per_second": destination.sustainable_per_second,
    }
}
