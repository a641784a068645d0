//! What programs do with their connections.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::advice;
use super::cause::culprit;
use super::recent::{Counted, Windows};
use super::rule::{RuleContext, TIME_WAIT_SECONDS, amount, endpoint, evidence};
use crate::event::{DestinationKey, Endpoint};
use crate::layout::human::{per_second, plain_plural, rough_seconds};
use crate::tracker::snapshot::{
    Advice, Attribution, Destination, Durations, Finding, FindingId, FindingSubject, Listener, Severity,
};

/// Capacity assumed where the range is unknown: the compiled default 32768-60999.
const DEFAULT_CAPACITY: u32 = 28_232;
/// Processes named in evidence.
const MAX_PIDS: usize = 5;
/// Fewer finished flows than this say nothing about how long flows live.
const MIN_FLOWS: u64 = 20;

/// One workload towards one destination: all its processes together.
struct Relation<'a> {
    workload: &'a Arc<str>,
    key: DestinationKey,
    destination: Option<&'a Destination>,
    members: Vec<&'a Attribution>,
    windows: Windows,
}

impl Relation<'_> {
    fn subject(&self) -> FindingSubject {
        FindingSubject::WorkloadTowards(Arc::clone(self.workload), self.key)
    }

    fn remote(&self) -> Endpoint {
        endpoint(self.key.remote_addr, self.key.remote_port)
    }

    fn sum(&self, of: impl Fn(&Attribution) -> u64) -> u64 {
        self.members.iter().map(|member| of(member)).sum()
    }

    /// Median lifetime of the members' flows, weighted by how many they had; `None` if too few ended to tell.
    fn lifetime_ms(&self) -> Option<f64> {
        let known = self.members.iter().map(|member| &member.lifetime_ms);
        let known: Vec<(&Durations, f64)> =
            known.filter_map(|lifetime| lifetime.p50.map(|median| (lifetime, median))).collect();
        let flows: u64 = known.iter().map(|(lifetime, _)| lifetime.count).sum();
        let weighted: f64 = known.iter().map(|(lifetime, median)| median * lifetime.count as f64).sum();
        (flows >= MIN_FLOWS).then(|| weighted / flows as f64)
    }

    fn capacity(&self) -> u32 {
        self.destination.and_then(|destination| destination.ports.capacity).unwrap_or(DEFAULT_CAPACITY)
    }

    /// Who connects most, for evidence.
    fn busiest(&self) -> Vec<serde_json::Value> {
        let mut members = self.members.clone();
        members.sort_by_key(|member| std::cmp::Reverse(member.connects));
        let shown = members.iter().take(MAX_PIDS);
        shown.map(|m| serde_json::json!({"pid": m.pid, "cmdline": m.cmdline, "connects": m.connects})).collect()
    }

    fn facts(&self) -> BTreeMap<&'static str, serde_json::Value> {
        evidence! {
            "workload": &**self.workload,
            "netns": self.key.netns.inode,
            "local_addr": self.key.local_addr,
            "remote_addr": self.key.remote_addr,
            "remote_port": self.key.remote_port,
            "connects": self.sum(|member| member.connects),
            "lifetime_ms_p50": self.lifetime_ms(),
            "processes": self.busiest(),
        }
    }
}

/// Outgoing relations, in a fixed order.
fn relations<'a>(context: RuleContext<'a>) -> Vec<Relation<'a>> {
    let mut groups: BTreeMap<(&'a Arc<str>, DestinationKey), Vec<&'a Attribution>> = BTreeMap::new();
    for member in context.snapshot.attributions.iter().filter(|member| member.connects > 0) {
        groups.entry((&member.workload, member.key())).or_default().push(member);
    }
    let destination = |key| context.snapshot.destinations.iter().find(|destination| destination.key() == key);
    groups
        .into_iter()
        .map(|((workload, key), members)| {
            let windows = context.recent.relation(workload, key);
            Relation { workload, key, destination: destination(key), members, windows }
        })
        .collect()
}

/// Who fills the range with `TIME_WAIT`.
pub(super) fn time_wait_churn(context: RuleContext<'_>) -> Vec<Finding> {
    let mut found: Vec<(f64, Finding)> = Vec::new();
    for relation in relations(context) {
        let rate = relation.windows.per_second_long(Counted::TimeWait);
        // Where this rate settles: entries begun during one TIME_WAIT.
        let settles = rate * TIME_WAIT_SECONDS;
        let share = settles / f64::from(relation.capacity().max(1));
        let Some(lifetime) = relation.lifetime_ms() else { continue };
        if share < context.thresholds.churn_share || lifetime > context.thresholds.short_lifetime_ms {
            continue;
        }
        let reused = relation.destination.is_some_and(|destination| advice::is_reused(context, destination));
        let severity = match share {
            // connect() takes the ports over before they run out.
            _ if reused => Severity::Info,
            share if share >= context.thresholds.churn_warning_share => Severity::Warning,
            _ => Severity::Info,
        };
        let now = relation.sum(|member| member.time_wait.now);
        let begins = format!(
            "{} leaves {} connections in TIME_WAIT towards {} ({now} now, median lifetime {})",
            relation.workload,
            per_second(rate),
            relation.remote(),
            rough_seconds(lifetime / 1e3),
        );
        let summary = if reused {
            format!(
                "{begins}: net.ipv4.tcp_tw_reuse lets new connections take their ports over, so that they do not run out."
            )
        } else {
            let capacity = relation.capacity();
            if share > 1.0 {
                format!("{begins}: at 60 s each that needs {settles:.0} ports, and there are {capacity}.")
            } else {
                format!("{begins}: at 60 s each that is {settles:.0} ports, {:.0} % of {capacity}.", share * 100.0)
            }
        };
        let subject = relation.subject();
        let mut finding = Finding::new(FindingId::TimeWaitChurn, subject, severity, summary);
        finding.past =
            finding.summary.replacen(" leaves ", " left ", 1).replacen(" now, median", " at that time, median", 1);
        finding.measure = amount(rate, "TIME_WAIT/s");
        finding.evidence = relation.facts();
        finding.evidence.insert("time_wait_per_second", rate.into());
        finding.evidence.insert("time_wait_now", now.into());
        finding.evidence.insert("active_closes", relation.sum(|member| member.active_closes).into());
        finding.advice =
            relation.destination.map(|it| advice::keep_connections(it, relation.workload)).into_iter().collect();
        found.push((share, finding));
    }
    found.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    found.into_iter().map(|(_, finding)| finding).collect()
}

/// Connections that stay open and connections that do not, from one workload to one place.
pub(super) fn pool_bypass(context: RuleContext<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for relation in relations(context) {
        let oldest = relation.members.iter().filter_map(|member| member.oldest_established_seconds).fold(0.0, f64::max);
        let Some(lifetime) = relation.lifetime_ms() else { continue };
        let rate = relation.windows.per_second_long(Counted::Connects);
        let thresholds = context.thresholds;
        let half_of_window = context.snapshot.now.seconds_since(context.snapshot.start) / 2.0;
        let least = thresholds.long_lived_least_seconds;
        let long_lived = half_of_window.clamp(least, thresholds.long_lived_seconds.max(least));
        if oldest < long_lived || lifetime > thresholds.short_lifetime_ms || rate < thresholds.bypass_per_second {
            continue;
        }
        let is_long = |member: &&&Attribution| member.oldest_established_seconds.is_some_and(|age| age >= long_lived);
        let pooling = relation.members.iter().filter(is_long).count();
        let past_the_pool = relation
            .members
            .iter()
            .filter(|member| {
                member.pid != 0 && member.lifetime_ms.p50.is_some_and(|p50| p50 <= thresholds.short_lifetime_ms)
            })
            .max_by_key(|member| member.connects)
            .map_or_else(String::new, |member| format!(", most by {}[{}]", member.comm, member.pid));
        let tell = |keeps: &str, opens: &str, goes: &str| {
            format!(
                "{} {keeps} connections to {} open (the oldest for {}, in {pooling} {}) and {opens} {} short ones (median {}{past_the_pool}): part of it {goes} past its pool.",
                relation.workload,
                relation.remote(),
                rough_seconds(oldest),
                if pooling == 1 { "process" } else { "processes" },
                per_second(rate),
                rough_seconds(lifetime / 1e3),
            )
        };
        let subject = relation.subject();
        let mut finding =
            Finding::new(FindingId::PoolBypass, subject, Severity::Warning, tell("keeps", "still opens", "goes"));
        finding.past = tell("kept", "still opened", "went");
        finding.measure = amount(rate, "connects/s");
        finding.evidence = relation.facts();
        finding.evidence.insert("oldest_established_seconds", oldest.into());
        finding.evidence.insert("processes_with_long_flows", pooling.into());
        finding.evidence.insert("connects_per_second", rate.into());
        finding.advice = vec![Advice {
            action: format!("Find the code of {} that does not use the pool for {}", relation.workload, relation.remote()),
            why: "Usual causes: a client object made per request, a pool whose idle limit is below the concurrency (Go's http.Transport keeps 2 \
                  per host unless MaxIdleConnsPerHost says more), a second library with a connection of its own."
                .into(),
            expected: format!(
                "Up to {} connects fewer, which frees about {:.0} ports",
                per_second(rate),
                rate * TIME_WAIT_SECONDS
            ),
        }];
        found.push(finding);
    }
    found
}

/// Proxies without connections kept to what is behind them: one opened for each accepted.
pub(super) fn proxy_doubles(context: RuleContext<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for workload in &context.snapshot.workloads {
        let windows = context.recent.of_workload(&workload.name).long;
        let (accepted, opened) = (windows.of(Counted::Accepted), windows.of(Counted::Connects));
        let difference = accepted.abs_diff(opened) as f64 / accepted.max(opened).max(1) as f64;
        if opened < context.thresholds.proxy_count || difference > context.thresholds.proxy_difference {
            continue;
        }
        let tell = |opens: &str| {
            format!(
                "{} {opens} one connection for each that it accepts ({accepted} accepted and {opened} opened within a minute): it keeps none \
                 to what is behind it.",
                workload.name,
            )
        };
        let subject = FindingSubject::Workload(Arc::clone(&workload.name));
        let mut finding = Finding::new(FindingId::ProxyDoubles, subject, Severity::Info, tell("opens"));
        finding.past = tell("opened");
        finding.measure = amount(opened as f64, "connects/min");
        finding.evidence = evidence! {
            "workload": &*workload.name,
            "accepted_last_minute": accepted,
            "connects_last_minute": opened,
        };
        finding.advice = vec![Advice {
            action: format!(
                "Let {} keep connections to its upstreams (nginx: `keepalive` in the upstream block and proxy_http_version 1.1; HAProxy: \
                 http-reuse)",
                workload.name
            ),
            why: "A proxy that opens a connection per request doubles the connections of the host and fills the ports towards its upstream."
                .into(),
            expected: format!("Up to {opened} connects a minute fewer"),
        }];
        found.push(finding);
    }
    found
}

/// Programs that do not close.
pub(super) fn close_wait_leak(context: RuleContext<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for workload in &context.snapshot.workloads {
        let Some(oldest) = workload.close_wait.oldest_seconds else { continue };
        let now = workload.close_wait.now;
        let thresholds = context.thresholds;
        if now < thresholds.close_wait_count || oldest < thresholds.close_wait_suspect_seconds {
            continue;
        }
        let half_of_window = context.snapshot.now.seconds_since(context.snapshot.start) / 2.0;
        let least = thresholds.close_wait_least_seconds;
        let old = match now {
            now if now >= thresholds.close_wait_many => least,
            _ => half_of_window.clamp(least, thresholds.close_wait_seconds.max(least)),
        };
        let sure = oldest >= old;
        let mut leaking: Vec<_> = context
            .snapshot
            .attributions
            .iter()
            .filter(|member| member.workload == workload.name && member.close_wait.now > 0)
            .collect();
        leaking.sort_by_key(|member| std::cmp::Reverse(member.close_wait.now));
        // Of accepted connections there is no row by destination.
        let passed_on = workload
            .held_by
            .first()
            .map_or_else(String::new, |holder| format!(", held by {}[{}] ({})", holder.comm, holder.pid, holder.flows));
        let most = leaking.first().map_or(passed_on, |member| {
            let remote = endpoint(member.remote_addr, member.remote_port);
            let count = member.close_wait.now;
            match member.held_by.first() {
                // Who opened it may have ended long ago; who has it open can close it.
                Some(holder) => format!(
                    ", most with {remote} (opened by {}[{}], held by {}[{}], {count})",
                    member.comm, member.pid, holder.comm, holder.pid,
                ),
                None => format!(", most with {remote} (pid {}, {count})", member.pid),
            }
        });
        let listeners = context.snapshot.listeners.iter();
        let mut queues: Vec<(u32, &Listener)> = listeners
            .filter(|listener| listener.workload.as_ref() == Some(&workload.name))
            .filter_map(|listener| Some((listener.close_wait.filter(|&closed| closed > 0)?, listener)))
            .collect();
        queues.sort_by_key(|&(closed, _)| std::cmp::Reverse(closed));
        let unaccepted = queues.first().map_or_else(String::new, |(closed, listener)| {
            let pid = listener.pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
            format!("; {closed} were never accepted at {}{pid}", endpoint(listener.addr, listener.port))
        });
        let tell = |verb: &str, end: &str| {
            format!(
                "{} {verb} {} that its peers closed, the oldest for {}{most}{unaccepted}{end}",
                workload.name,
                plain_plural(now, "connection"),
                rough_seconds(oldest),
            )
        };
        let summary = if sure {
            tell("does not close", ": they hold ports and descriptors until it does.")
        } else {
            tell("may leak", ": too young to be sure.")
        };
        let subject = FindingSubject::Workload(Arc::clone(&workload.name));
        let severity = if sure { Severity::Warning } else { Severity::Info };
        let mut finding = Finding::new(FindingId::CloseWaitLeak, subject, severity, summary);
        finding.past = tell(if sure { "did not close" } else { "was late to close" }, ".");
        finding.since = Some(context.ago(oldest));
        finding.measure = amount(now as f64, "sockets");
        finding.evidence = evidence! {
            "workload": &*workload.name,
            "close_wait_now": now,
            "close_wait_peak": workload.close_wait.peak,
            "oldest_seconds": oldest,
            "held_by": workload.held_by,
            "with": leaking.iter().take(MAX_PIDS).map(|member| serde_json::json!({
                "pid": member.pid,
                "remote_addr": member.remote_addr,
                "remote_port": member.remote_port,
                "close_wait": member.close_wait.now,
                "held_by": member.held_by,
            })).collect::<Vec<_>>(),
            "unaccepted": queues.iter().take(MAX_PIDS).map(|(closed, listener)| serde_json::json!({
                "pid": listener.pid,
                "addr": listener.addr,
                "port": listener.port,
                "close_wait": closed,
            })).collect::<Vec<_>>(),
        };
        finding.advice = vec![Advice {
            action: format!("Make {} close a connection when reading from it returns 0 or an error", workload.name),
            why: "CLOSE_WAIT lasts until the program closes its socket: no setting of the kernel ends it.".into(),
            expected: format!("{} freed; until then a restart frees them once", plain_plural(now, "port")),
        }];
        found.push(finding);
    }
    found
}

/// Peers that do not close.
pub(super) fn fin_wait2_orphans(context: RuleContext<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for destination in &context.snapshot.destinations {
        let waiting = destination.ports.orphans;
        let share = f64::from(waiting) / f64::from(destination.ports.in_use.max(1));
        if waiting < context.thresholds.fin_wait2_count || share < context.thresholds.fin_wait2_share {
            continue;
        }
        let remote = endpoint(destination.remote_addr, destination.remote_port);
        let summary = format!(
            "{remote} does not close its side of {}: {waiting} of the {} ports towards it wait in FIN_WAIT2.",
            plain_plural(u64::from(waiting), "connection"),
            destination.ports.in_use,
        );
        let subject = FindingSubject::Destination(destination.key());
        let mut finding = Finding::new(FindingId::FinWait2Orphans, subject, Severity::Warning, summary);
        finding.past =
            finding.summary.replacen("does not close", "did not close", 1).replacen(" wait in", " waited in", 1);
        finding.measure = amount(f64::from(waiting), "ports");
        finding.evidence = evidence! {
            "netns": destination.netns.inode,
            "local_addr": destination.local_addr,
            "remote_addr": destination.remote_addr,
            "remote_port": destination.remote_port,
            "fin_wait2": waiting,
            "in_use": destination.ports.in_use,
            "holders": destination.holders,
        };
        finding.advice.push(advice::peer_closes(destination));
        finding.advice.extend(advice::shorten_fin_wait2(context, destination));
        found.push(finding);
    }
    found
}

/// Programs that shut down and do not close.
pub(super) fn half_closed(context: RuleContext<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for destination in &context.snapshot.destinations {
        let held = destination.ports.half_closed;
        let share = f64::from(held) / f64::from(destination.ports.in_use.max(1));
        if held < context.thresholds.half_closed_count || share < context.thresholds.fin_wait2_share {
            continue;
        }
        let who = culprit(context, destination);
        let remote = endpoint(destination.remote_addr, destination.remote_port);
        let tell = |keeps: &str| {
            format!(
                "{} {keeps} {} to {remote} half-closed (shutdown() without close()): {held} of the {} ports towards it.",
                who.name(),
                plain_plural(u64::from(held), "connection"),
                destination.ports.in_use,
            )
        };
        let subject = FindingSubject::Destination(destination.key());
        let mut finding = Finding::new(FindingId::HalfClosed, subject, Severity::Warning, tell("keeps"));
        finding.past = tell("kept");
        finding.measure = amount(f64::from(held), "ports");
        finding.evidence = evidence! {
            "netns": destination.netns.inode,
            "local_addr": destination.local_addr,
            "remote_addr": destination.remote_addr,
            "remote_port": destination.remote_port,
            "half_closed": held,
            "in_use": destination.ports.in_use,
            "holders": destination.holders,
        };
        finding.advice = vec![advice::close_half_closed(destination, who.plain())];
        found.push(finding);
    }
    found
}
