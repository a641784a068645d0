//! Limits of namespaces and listeners, and ports taken by `bind()`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::advice;
use super::recent::Counted;
use super::rule::{RuleContext, amount, endpoint, evidence};
use crate::event::Netns;
use crate::layout::human::plain_plural;
use crate::tracker::snapshot::{Advice, Finding, FindingId, FindingSubject, Listener, Severity};

/// Ports named in a sentence.
const MAX_PORTS_NAMED: usize = 8;
/// Bytes of one entry of the connection-tracking table, about (`struct nf_conn` with its extensions).
const CONNTRACK_ENTRY_BYTES: u64 = 320;

/// `bind()` before `connect()` takes a port away from all destinations.
pub(super) fn bind_before_connect(context: RuleContext<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for workload in &context.snapshot.workloads {
        let lately = context.recent.of_workload(&workload.name).long;
        let (exhausted, taken) = (lately.of(Counted::NoBindPort), lately.of(Counted::TupleTaken));
        if exhausted + taken == 0 {
            continue;
        }
        let summary = format!(
            "{} binds its sockets before it connects: in the last minute {} found no port, {} found its exact 4-tuple in use.",
            workload.name,
            plain_plural(exhausted, "bind"),
            plain_plural(taken, "connect"),
        );
        let subject = FindingSubject::Workload(Arc::clone(&workload.name));
        let mut finding = Finding::new(FindingId::BindBeforeConnect, subject, Severity::Warning, summary);
        finding.measure = amount((exhausted + taken) as f64, "failures/min");
        finding.evidence = evidence! {"workload": &*workload.name, "bind_exhausted": exhausted, "tuple_taken": taken};
        finding.advice = vec![advice::bind_no_port(&workload.name)];
        found.push(finding);
    }
    for namespace in &context.snapshot.namespaces {
        let Some((lo, hi)) = namespace.port_range else { continue };
        let range = u32::from(hi.saturating_sub(lo)) + 1;
        let share = f64::from(namespace.blocked) / f64::from(range);
        if share < context.thresholds.blocked_share {
            continue;
        }
        let summary = format!(
            "{} of the {range} ports {lo}-{hi} are held by bind() or listen(): connect() cannot use them towards any destination.",
            namespace.blocked,
        );
        let subject = FindingSubject::Namespace(namespace.netns);
        let mut finding = Finding::new(FindingId::BindBeforeConnect, subject, Severity::Warning, summary);
        finding.measure = amount(f64::from(namespace.blocked), "ports");
        finding.evidence = evidence! {
            "netns": namespace.netns.inode,
            "blocked": namespace.blocked,
            "range": [lo, hi],
            "capacity": namespace.capacity,
        };
        finding.advice = vec![advice::bind_no_port("whoever binds them")];
        found.push(finding);
    }
    found
}

/// Half-open connections that pile up at a listener.
pub(super) fn syn_recv_pile_up(context: RuleContext<'_>) -> Vec<Finding> {
    let piling = context.snapshot.listeners.iter().filter_map(|listener| {
        listener.syn_recv.filter(|&half_open| half_open >= context.thresholds.syn_recv_count).map(|n| (listener, n))
    });
    piling
        .map(|(listener, half_open)| {
            let address = endpoint(listener.addr, listener.port);
            let summary = format!(
                "{half_open} half-open connections wait at {address}{}: peers do not complete the handshake, or the accept queue is full.",
                listener.workload.as_ref().map_or_else(String::new, |workload| format!(" ({workload})")),
            );
            let subject = FindingSubject::Listener(listener.netns, address, listener.workload.clone());
            let mut finding = Finding::new(FindingId::SynRecvPileUp, subject, Severity::Warning, summary);
            finding.measure = amount(f64::from(half_open), "half-open connections");
            finding.evidence = evidence! {
                "netns": listener.netns.inode,
                "addr": listener.addr,
                "port": listener.port,
                "workload": listener.workload,
                "syn_recv": half_open,
                "accepted": listener.accepted,
            };
            finding.advice = vec![Advice {
                action: format!("Compare Recv-Q with Send-Q in `ss -lnt 'sport = :{}'`", listener.port),
                why: "Equal: the program accepts too slowly, and its backlog and net.core.somaxconn bound the queue. Empty: the peers do not \
                      answer, as in a SYN flood or behind a one-way route."
                    .into(),
                expected: "Tells which side to look at; nothing changes yet".into(),
            }];
            finding
        })
        .collect()
}

/// Services whose port may be taken while they restart.
pub(super) fn listener_in_ephemeral_range(context: RuleContext<'_>) -> Vec<Finding> {
    let mut groups: BTreeMap<Netns, Vec<&Listener>> = BTreeMap::new();
    for listener in context.snapshot.listeners.iter().filter(|listener| listener.in_ephemeral_range) {
        groups.entry(listener.netns).or_default().push(listener);
    }
    groups
        .into_iter()
        .map(|(netns, listeners)| {
            let ports: BTreeSet<u16> = listeners.iter().map(|listener| listener.port).collect();
            let owners: BTreeSet<&str> = listeners.iter().filter_map(|listener| listener.workload.as_deref()).collect();
            let crowded = context.snapshot.destinations.iter().any(|destination| {
                destination.netns == netns
                    && destination
                        .ports
                        .utilisation
                        .is_some_and(|share| share >= context.thresholds.churn_warning_share)
            });
            let mut named: Vec<String> = ports.iter().take(MAX_PORTS_NAMED).map(ToString::to_string).collect();
            let list = named.join(",");
            if let more @ 1.. = ports.len().saturating_sub(MAX_PORTS_NAMED) {
                named.push(format!("{more} more"));
            }
            let summary = format!(
                "{} inside the ephemeral range {} ({}){}: while it restarts, an outgoing connection may take its port.",
                if ports.len() == 1 { "A service listens" } else { "Services listen" },
                if ports.len() == 1 { "on one port" } else { "on several ports" },
                named.join(", "),
                if owners.is_empty() {
                    String::new()
                } else {
                    format!(" by {}", owners.iter().copied().collect::<Vec<_>>().join(", "))
                },
            );
            let severity = if crowded { Severity::Warning } else { Severity::Info };
            let subject = FindingSubject::Namespace(netns);
            let mut finding = Finding::new(FindingId::ListenerInEphemeralRange, subject, severity, summary);
            finding.measure = amount(ports.len() as f64, "ports");
            finding.evidence = evidence! {"netns": netns.inode, "ports": ports, "workloads": owners};
            finding.advice.push(Advice {
                action: format!(
                    "Append {list} to net.ipv4.ip_local_reserved_ports{}",
                    context
                        .namespace(netns)
                        .and_then(|namespace| namespace.name.as_ref())
                        .map_or_else(String::new, |name| format!(" in network namespace {name}"))
                ),
                why:
                    "Reserved ports are never chosen by connect() or bind(port 0); an explicit bind() still gets them."
                        .into(),
                expected: format!(
                    "{} fewer for outgoing connections, and a restart always gets its own back",
                    plain_plural(ports.len() as u64, "port")
                ),
            });
            finding
                .advice
                .extend(context.namespace(netns).and_then(|namespace| advice::step_width(context, namespace)));
            finding
        })
        .collect()
}

/// `nf_conntrack` near its limit: a full table drops the packets of new connections, whoever makes them.
pub(super) fn conntrack_pressure(context: RuleContext<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for namespace in &context.snapshot.namespaces {
        let Some((now, max)) = namespace.conntrack else { continue };
        let share = f64::from(now) / f64::from(max.max(1));
        if max == 0 || share < context.thresholds.conntrack_warning {
            continue;
        }
        let severity =
            if share >= context.thresholds.conntrack_critical { Severity::Critical } else { Severity::Warning };
        let summary = format!(
            "Connection tracking holds {now} of {max} entries ({:.0} %): when it is full, packets of new connections are dropped.",
            share * 100.0
        );
        let subject = FindingSubject::Namespace(namespace.netns);
        let mut finding = Finding::new(FindingId::ConntrackPressure, subject, severity, summary);
        finding.measure = amount(f64::from(now), "entries");
        finding.evidence = evidence! {"netns": namespace.netns.inode, "conntrack_count": now, "conntrack_max": max};
        let doubled = u64::from(max) * 2;
        finding.advice = vec![
            Advice {
                action: advice::sysctl(context, namespace.netns, &format!("net.netfilter.nf_conntrack_max={doubled}")),
                why: "The table bounds all connections of this namespace, outgoing, incoming and forwarded.".into(),
                expected: format!("Room for {max} more entries, about {} MB", u64::from(max) * CONNTRACK_ENTRY_BYTES / 1_000_000),
            },
            Advice {
                action: advice::sysctl(context, namespace.netns, "net.netfilter.nf_conntrack_tcp_timeout_time_wait=60"),
                why: "Closed connections stay in the table for 120 s by default, twice as long as in TIME_WAIT of the socket.".into(),
                expected: "Half as many entries of closed connections, if it is at its default".into(),
            },
        ];
        found.push(finding);
    }
    found
}

/// A program that accepts too slowly: its queue is full, and SYNs of further clients are dropped in silence.
pub(super) fn accept_queue_full(context: RuleContext<'_>) -> Vec<Finding> {
    let full = context.snapshot.listeners.iter().filter_map(|listener| {
        let (queued, backlog) = listener.queued.zip(listener.backlog)?;
        // The kernel lets one more wait than the backlog (include/net/sock.h `sk_acceptq_is_full`).
        (backlog > 0 && queued >= backlog).then_some((listener, queued, backlog))
    });
    full.map(|(listener, queued, backlog)| {
        let address = endpoint(listener.addr, listener.port);
        let who = listener.workload.as_deref().unwrap_or("an unseen program");
        let pid = listener.pid.map_or_else(String::new, |pid| format!("[{pid}]"));
        let tell = |is: &str, wait: &str| {
            format!("The accept queue of {who}{pid} at {address} {is} full: {queued} connections {wait}, its backlog is {backlog}.")
        };
        let subject = FindingSubject::Listener(listener.netns, address, listener.workload.clone());
        let mut finding = Finding::new(
            FindingId::AcceptQueueFull,
            subject,
            Severity::Critical,
            format!("{} Clients get no answer.", tell("is", "wait")),
        );
        finding.past = tell("was", "waited");
        finding.measure = amount(f64::from(queued), "waiting connections");
        finding.evidence = evidence! {
            "netns": listener.netns.inode,
            "addr": listener.addr,
            "port": listener.port,
            "pid": listener.pid,
            "workload": listener.workload,
            "queued": queued,
            "backlog": backlog,
            "accepted": listener.accepted,
        };
        finding.advice = vec![Advice {
            action: format!("Find out why {who} does not call accept() (blocked, too few workers, stopped)"),
            why: "The queue holds connections that clients believe are open; what comes on top is dropped without a word.".into(),
            expected: "The queue empties as soon as the program accepts; a larger backlog (listen(), net.core.somaxconn) only helps against bursts"
                .into(),
        }];
        finding
    })
    .collect()
}
