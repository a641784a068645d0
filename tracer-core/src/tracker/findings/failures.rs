//! Connects that fail for another reason than a port: refused, without an answer, without a way, reset. By rate and share, per workload and
//! destination.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::recent::{Counted, Windows};
use super::rule::{RuleContext, endpoint, evidence};
use crate::event::{DestinationKey, TcpState};
use crate::layout::human::plain_plural;
use crate::tracker::snapshot::{Advice, Destination, Finding, FindingId, FindingSubject, Measure, Severity};

/// One reason.
struct Reason {
    id: FindingId,
    kinds: &'static [Counted],
    /// `were refused`, after a number of connects.
    what: &'static str,
    errno: &'static str,
    advice: fn(&str) -> Advice,
}

/// The reasons that are findings.
const REASONS: [Reason; 4] = [
    Reason {
        id: FindingId::ConnectRefused,
        kinds: &[Counted::Refused],
        what: "were refused",
        errno: "ECONNREFUSED",
        advice: |remote| Advice {
            action: format!("See whether the service at {remote} runs and listens there: `ss -lnt` on its host"),
            why: "The peer answered with RST: nobody listens on that port, or a firewall rejects with tcp-reset."
                .into(),
            expected: "Connects succeed once something listens; until then let the client wait longer between attempts"
                .into(),
        },
    },
    Reason {
        id: FindingId::PeerDoesNotAnswer,
        kinds: &[Counted::Unanswered, Counted::GaveUp],
        what: "got no answer",
        errno: "ETIMEDOUT, or given up by the program",
        advice: |remote| {
            Advice {
            action: format!("Look at {remote}: is its accept queue full (`ss -lnt` there: Recv-Q against Send-Q), or are SYNs dropped on the way (firewall, route)?"),
            why: "A full accept queue drops SYNs in silence, as a firewall does; to the client both look like a peer that is not there.".into(),
            expected: "Tells which side to look at; each unanswered connect holds its port until it is given up".into(),
        }
        },
    },
    Reason {
        id: FindingId::PeerUnreachable,
        kinds: &[Counted::Unreachable],
        what: "found no way to the peer",
        errno: "EHOSTUNREACH or ENETUNREACH",
        advice: |remote| Advice {
            action: format!(
                "Look at the route: `ip route get {}`, and `ip neigh` for its next hop",
                remote.rsplit_once(':').map_or(remote, |(addr, _)| addr.trim_matches(['[', ']']))
            ),
            why: "The kernel has no route there, or the next hop does not answer, or a router or firewall has said so."
                .into(),
            expected: "Connects succeed once the route or the neighbour is back".into(),
        },
    },
    Reason {
        id: FindingId::ConnectReset,
        kinds: &[Counted::Reset],
        what: "were reset",
        errno: "ECONNRESET",
        advice: |remote| {
            Advice {
            action: format!("Look at {remote} and at what is between (load balancer, firewall): who sends the RST?"),
            why: "The connection was reset while it was being opened: a listener that overflows (net.ipv4.tcp_abort_on_overflow), or something on the way.".into(),
            expected: "Tells which side to look at; nothing changes yet".into(),
        }
        },
    },
];

/// Connects that failed for other reasons than a port.
pub(super) fn failing(context: RuleContext<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    let relations: BTreeSet<(&Arc<str>, DestinationKey)> = context
        .snapshot
        .attributions
        .iter()
        .filter(|member| member.failed.for_other_reasons() > 0 && member.remote_port != 0)
        .map(|member| (&member.workload, member.key()))
        .collect();
    for (workload, key) in relations {
        let windows = context.recent.relation(workload, key);
        found.extend(REASONS.iter().filter_map(|reason| finding(context, workload, key, &windows, reason)));
    }
    found
}

fn finding(
    context: RuleContext<'_>,
    workload: &Arc<str>,
    key: DestinationKey,
    windows: &Windows,
    reason: &Reason,
) -> Option<Finding> {
    let sum = |of: super::recent::Counts| reason.kinds.iter().map(|kind| of.of(*kind)).sum::<u64>();
    let (failed, lately) = (sum(windows.long), sum(windows.short));
    if failed < context.thresholds.failed_count || lately == 0 {
        return None;
    }
    // A failed call of which only the return was seen is no attempt in the counts.
    let attempts = windows.long.of(Counted::Connects).max(failed);
    let share = failed as f64 / attempts as f64;
    let many = failed >= context.thresholds.failed_many;
    let severity = match share {
        share if many && share >= context.thresholds.failed_critical_share => Severity::Critical,
        share if many || share >= context.thresholds.failed_share => Severity::Warning,
        _ => Severity::Info,
    };
    let remote = endpoint(key.remote_addr, key.remote_port).to_string();
    let summary = format!(
        "{failed} of {} of {workload} to {remote} {} in the last minute ({}).",
        plain_plural(attempts, "connect"),
        reason.what,
        reason.errno,
    );
    let mut finding =
        Finding::new(reason.id, FindingSubject::WorkloadTowards(Arc::clone(workload), key), severity, summary);
    finding.past = format!(
        "At the worst {failed} of {} of {workload} to {remote} {} within a minute ({}).",
        plain_plural(attempts, "connect"),
        reason.what,
        reason.errno,
    );
    finding.measure = Measure {
        value: failed as f64,
        unit: "failures/min",
        weight: failed as f64,
        total: Some(sum(windows.all)),
        recent: sum(windows.new),
    };
    finding.evidence = evidence! {
        "workload": &**workload,
        "netns": key.netns.inode,
        "local_addr": key.local_addr,
        "remote_addr": key.remote_addr,
        "remote_port": key.remote_port,
        "failed_last_minute": failed,
        "failed_last_10s": lately,
        "connects_last_minute": windows.long.of(Counted::Connects),
        "share": share,
    };
    finding.advice = vec![(reason.advice)(&remote)];
    Some(finding)
}

/// Nobody answers, and nothing has failed yet: connect() waits two minutes by default.
pub(super) fn unanswered(context: RuleContext<'_>) -> Vec<Finding> {
    let silent = context.snapshot.destinations.iter().filter_map(|destination| {
        let windows = context.recent.towards(destination.key());
        let waiting = destination.ports.by_state.get(&TcpState::SynSent).copied().unwrap_or(0);
        let answered = windows.short.of(Counted::Established) + windows.short.of(Counted::Refused);
        (waiting >= context.thresholds.unanswered_count && answered == 0).then_some((destination, waiting))
    });
    silent.map(|(destination, waiting)| pending(context, destination, waiting)).collect()
}

fn pending(context: RuleContext<'_>, destination: &Destination, waiting: u32) -> Finding {
    let remote = endpoint(destination.remote_addr, destination.remote_port);
    let who = super::cause::culprit(context, destination);
    let summary = format!(
        "{remote} answers no connect: {waiting} of {} wait in SYN_SENT, and none was answered in the last 10 s.",
        who.name()
    );
    let subject = FindingSubject::Destination(destination.key());
    let mut finding = Finding::new(FindingId::PeerDoesNotAnswer, subject, Severity::Warning, summary);
    finding.past = format!("{remote} answered no connect: {waiting} of {} waited in SYN_SENT.", who.name());
    finding.measure = Measure {
        value: f64::from(waiting),
        unit: "waiting connects",
        weight: f64::from(waiting),
        total: None,
        recent: 0,
    };
    finding.evidence = evidence! {
        "netns": destination.netns.inode,
        "local_addr": destination.local_addr,
        "remote_addr": destination.remote_addr,
        "remote_port": destination.remote_port,
        "syn_sent": waiting,
    };
    finding.advice = vec![super::advice::give_up_sooner(destination, who.plain())];
    finding
}
