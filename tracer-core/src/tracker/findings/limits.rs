//! Limits of namespaces and listeners, and ports taken by `bind()`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::advice;
use super::recent::Counted;
use super::rule::{RuleContext, TIME_WAIT_SECONDS, amount, counted, endpoint, evidence};
use crate::event::{Netns, TcpState};
use crate::layout::human::plain_plural;
use crate::tracker::snapshot::{Advice, Finding, FindingId, FindingSubject, Listener, Severity, TakenPort};

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

/// bind() or listen() of a named port fails, and who has the port.
pub(super) fn port_taken(context: RuleContext<'_>) -> Vec<Finding> {
    let since = context.ago(TIME_WAIT_SECONDS);
    let lately = |taken: &&TakenPort| taken.remote_port.is_none() && taken.last >= since;
    context.snapshot.taken_ports.iter().filter(lately).map(|taken| refused_port(context, taken)).collect()
}

fn refused_port(context: RuleContext<'_>, taken: &TakenPort) -> Finding {
    let address = endpoint(taken.addr, taken.port);
    let who = |comm: &Option<Arc<str>>, pid: Option<u32>| match (comm, pid) {
        (Some(comm), Some(pid)) => format!("{comm}[{pid}]"),
        _ => "a process that was not seen".into(),
    };
    let holder = taken.holder.as_ref().map(|holder| (holder.state, who(&holder.comm, holder.pid)));
    let has = match &holder {
        Some((TcpState::Listen, holder)) => format!("{holder} listens there"),
        Some((TcpState::Close, holder)) => format!("{holder} is bound to it"),
        Some((state @ (TcpState::TimeWait | TcpState::FinWait2), holder)) => {
            format!("a connection of {holder} holds it in {}", state.name())
        }
        Some((state, holder)) => format!("{holder} has a connection from it ({})", state.name()),
        None => "portchurn has not seen who has it".into(),
    };
    let summary = format!("{} does not get {address}: {has}.", who(&taken.comm, taken.pid));
    let subject = FindingSubject::Listener(taken.netns, address, taken.workload.clone());
    let mut finding = Finding::new(FindingId::PortTaken, subject, Severity::Warning, summary);
    finding.measure = amount(taken.failed as f64, "failures");
    finding.evidence = evidence! {
        "netns": taken.netns.inode,
        "addr": taken.addr,
        "port": taken.port,
        "workload": taken.workload,
        "pid": taken.pid,
        "failed": taken.failed,
        "holder": taken.holder,
    };
    let ephemeral = context
        .namespace(taken.netns)
        .and_then(|namespace| namespace.port_range)
        .is_some_and(|(low, high)| (low..=high).contains(&taken.port));
    let connected = holder.as_ref().is_some_and(|(state, _)| !matches!(state, TcpState::Listen | TcpState::Close));
    let port = taken.port;
    let (action, why, expected) = if connected && ephemeral {
        (
            format!("Add {port} to net.ipv4.ip_local_reserved_ports"),
            "The port lies in the ephemeral range: connect() takes it while nobody listens there.",
            "No later connection takes it; the present one has to end first, or bind() needs SO_REUSEADDR",
        )
    } else if connected {
        (
            "Set SO_REUSEADDR before bind()".into(),
            "Connections of a former listener, TIME_WAIT among them, keep its port from a bind() without it.",
            "bind() succeeds at once",
        )
    } else {
        (
            format!("Look at `ss -Htanp 'sport = :{port}'` in this namespace, and give one of the two another port"),
            "A port of one address has one listener, unless all of them set SO_REUSEPORT.",
            "Both programs run",
        )
    };
    finding.advice = vec![Advice { action, why: why.into(), expected: expected.into() }];
    finding
}

/// Half-open connections that pile up at a listener.
pub(super) fn syn_recv_pile_up(context: RuleContext<'_>) -> Vec<Finding> {
    let piling = context.snapshot.listeners.iter().filter_map(|listener| {
        listener.syn_recv.filter(|&half_open| half_open >= context.thresholds.syn_recv_count).map(|n| (listener, n))
    });
    piling
        .map(|(listener, half_open)| {
            let address = endpoint(listener.addr, listener.port);
            // Where the accept queue has room, the program is not to blame.
            let flood = listener.queued.zip(listener.backlog).is_some_and(|(queued, backlog)| queued <= backlog / 2);
            let cookies = context.recent.of_namespace(listener.netns).long.of(Counted::SynCookies);
            let cookies = if cookies > 0 { format!(", {cookies} SYN cookies in the last minute") } else { String::new() };
            let why = if flood {
                "its accept queue has room, so peers do not complete the handshake: a SYN flood, or a one-way route"
            } else {
                "peers do not complete the handshake, or the accept queue is full"
            };
            let who = listener.workload.as_ref().map_or_else(String::new, |workload| format!(" ({workload})"));
            let tell = |wait: &str| format!("{half_open} half-open connections {wait} at {address}{who}{cookies}: {why}.");
            let subject = FindingSubject::Listener(listener.netns, address, listener.workload.clone());
            let id = if flood { FindingId::SynFlood } else { FindingId::SynRecvPileUp };
            let mut finding = Finding::new(id, subject, Severity::Warning, tell("wait"));
            finding.past = tell("waited");
            finding.measure = amount(f64::from(half_open), "half-open connections");
            finding.evidence = evidence! {
                "netns": listener.netns.inode,
                "addr": listener.addr,
                "port": listener.port,
                "workload": listener.workload,
                "syn_recv": half_open,
                "accepted": listener.accepted,
            };
            if flood {
                finding.advice = vec![Advice {
                    action: format!("Look whose they are: `ss -tn state syn-recv 'sport = :{}'`, by prefix", listener.port),
                    why: "Few prefixes: filter them. Many: keep net.ipv4.tcp_syncookies=1, which needs no memory for half-open connections."
                        .into(),
                    expected: "With SYN cookies, clients that complete the handshake get through all the same".into(),
                }];
                return finding;
            }
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
        let lost = context.recent.of_namespace(namespace.netns).long.of(Counted::ConntrackLost);
        let depth = namespace.conntrack_buckets.filter(|&buckets| buckets > 0);
        let depth = depth.map(|buckets| f64::from(now) / f64::from(buckets));
        let deep = depth.is_some_and(|depth| depth >= context.thresholds.conntrack_depth);
        if (max == 0 || share < context.thresholds.conntrack_warning) && lost == 0 && !deep {
            continue;
        }
        let severity = if share >= context.thresholds.conntrack_critical || lost > 0 {
            Severity::Critical
        } else {
            Severity::Warning
        };
        let losses = if lost > 0 {
            format!(
                " {lost} connections or packets were refused or thrown out in the last minute (a full table, or NAT without a free tuple)."
            )
        } else {
            String::new()
        };
        let depth_told = depth.filter(|_| deep).map_or_else(String::new, |depth| {
            format!(" Its chains have {depth:.1} entries on average, which every packet walks.")
        });
        let summary = format!(
            "Connection tracking holds {now} of {max} entries ({:.0} %): when it is full, packets of new connections are dropped.{losses}{depth_told}",
            share * 100.0
        );
        let subject = FindingSubject::Namespace(namespace.netns);
        let mut finding = Finding::new(FindingId::ConntrackPressure, subject, severity, summary);
        finding.measure = amount(f64::from(now), "entries");
        finding.evidence = evidence! {
            "netns": namespace.netns.inode,
            "conntrack_count": now,
            "conntrack_max": max,
            "conntrack_buckets": namespace.conntrack_buckets,
            "entries_per_bucket": depth,
            "lost_last_minute": lost,
        };
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

/// Handshakes found an accept queue full, by the kernel's count, which does not say whose. Where a list of sockets shows the listener,
/// [`accept_queue_full`] names it.
pub(super) fn accept_queue_overflows(context: RuleContext<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for namespace in &context.snapshot.namespaces {
        let windows = context.recent.of_namespace(namespace.netns);
        let overflows = windows.long.of(Counted::ListenOverflows);
        if overflows == 0 {
            continue;
        }
        // The fullest queue of now is where to look first.
        let filled = |listener: &&Listener| {
            let (queued, backlog) = (listener.queued.unwrap_or(0), listener.backlog.unwrap_or(0).max(1));
            u64::from(queued) * 1_000 / u64::from(backlog)
        };
        let here = context.snapshot.listeners.iter().filter(|listener| listener.netns == namespace.netns);
        let fullest = here.filter(|listener| filled(listener) > 0).max_by_key(filled).map_or_else(String::new, |it| {
            let who = it.workload.as_deref().unwrap_or("an unseen program");
            format!("; the fullest queue now is that of {who} at {}", endpoint(it.addr, it.port))
        });
        let tell = |is: &str| {
            format!(
                "{} {is} dropped within a minute because an accept queue was full{fullest}.",
                plain_plural(overflows, "handshake")
            )
        };
        let subject = FindingSubject::Namespace(namespace.netns);
        let mut finding = Finding::new(FindingId::AcceptQueueFull, subject, Severity::Warning, tell("were"));
        finding.measure = counted(&windows, Counted::ListenOverflows, "overflows/min");
        finding.evidence = evidence! {
            "netns": namespace.netns.inode,
            "listen_overflows_last_minute": overflows,
            "listen_drops": namespace.counters.listen_drops,
        };
        finding.advice = vec![Advice {
            action: "Watch `ss -lnt`: the listener whose Recv-Q reaches its Send-Q accepts too slowly".into(),
            why: "The kernel counts overflows per network namespace and does not say which listener had them.".into(),
            expected: "Shows whose accept() is too slow, or whose backlog is too small for its bursts".into(),
        }];
        found.push(finding);
    }
    found
}

/// `tcp_max_tw_buckets` cuts TIME_WAIT short.
pub(super) fn time_wait_overflow(context: RuleContext<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for namespace in &context.snapshot.namespaces {
        let windows = context.recent.of_namespace(namespace.netns);
        let overflows = windows.long.of(Counted::TimeWaitOverflows);
        if overflows == 0 {
            continue;
        }
        let most = namespace.max_tw_buckets.map_or_else(|| "unknown".to_owned(), |most| most.to_string());
        let summary = format!(
            "{} had no TIME_WAIT within a minute, because there are at most {most} (net.ipv4.tcp_max_tw_buckets): late segments may reach the next connection on their ports.",
            plain_plural(overflows, "closed connection"),
        );
        let subject = FindingSubject::Namespace(namespace.netns);
        let mut finding = Finding::new(FindingId::TimeWaitOverflow, subject, Severity::Warning, summary);
        finding.measure = counted(&windows, Counted::TimeWaitOverflows, "overflows/min");
        finding.evidence = evidence! {
            "netns": namespace.netns.inode,
            "overflows_last_minute": overflows,
            "max_tw_buckets": namespace.max_tw_buckets,
            "time_wait": namespace.time_wait_kernel,
        };
        finding.advice = vec![Advice {
            action: "Find who closes first so often, and let it re-use its connections; raise net.ipv4.tcp_max_tw_buckets only if the memory is there"
                .into(),
            why: "Each minisocket takes about 250 bytes; without one the port is free at once, and a late segment can reset its next connection."
                .into(),
            expected: "The counter TCPTimeWaitOverflow stands still".into(),
        }];
        found.push(finding);
    }
    found
}
