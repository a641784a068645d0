//! What holds the ports of a destination, and who: the cause that the first sentence names and that advice follows from.

use std::sync::Arc;

use serde::Serialize;

use super::recent::Counted;
use super::rule::RuleContext;
use crate::event::TcpState;
use crate::tracker::snapshot::{Destination, Namespace};
use crate::tracker::tables::processes::UNKNOWN;

/// One way in which ports are not free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// `TIME_WAIT` after this side's close.
    TimeWait,
    /// `FIN_WAIT2` without a descriptor: the peer does not close.
    Orphans,
    /// Connections that stay open.
    Open,
    /// `CLOSE_WAIT`: the program does not close what the peer has closed.
    CloseWait,
    /// `SYN_SENT`: nobody answers.
    Unanswered,
    /// `FIN_WAIT2` with a descriptor: the program has shut down its side and keeps the socket.
    HalfClosed,
    /// `FIN_WAIT1`, `LAST_ACK`, `CLOSING`: the peer does not acknowledge the end.
    Unacknowledged,
    /// bind(), listen() and connections that a listener accepted, which take ports from everybody.
    Blocked,
    /// `net.ipv4.ip_local_reserved_ports`.
    Reserved,
    /// Nobody seen: connects fail while ports are free.
    Unseen,
}

/// How many ports of the range are held in one way.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct HeldPorts {
    /// The way.
    pub cause: Cause,
    /// How many.
    pub ports: u32,
    /// Of the range in force, or of all that are held where the range is unknown.
    pub share: f64,
}

/// The ways in which ports of the range are not free for the destination, most ports first; of equals the commonest first. Where most
/// failures came while ports were free, `Unseen` comes before all of them.
pub fn held_ports(destination: &Destination, namespace: Option<&Namespace>) -> Vec<HeldPorts> {
    let ports = &destination.ports;
    let state = |state| ports.by_state.get(&state).copied().unwrap_or(0);
    let failed = destination.failed.of(crate::tracker::snapshot::Failure::PortsExhausted);
    let unseen = failed > 0 && ports.contradictions.saturating_mul(2) > failed;
    let counts = [
        (Cause::TimeWait, state(TcpState::TimeWait)),
        (Cause::Orphans, ports.orphans),
        (Cause::Open, state(TcpState::Established)),
        (Cause::CloseWait, state(TcpState::CloseWait)),
        (Cause::Unanswered, state(TcpState::SynSent)),
        (Cause::HalfClosed, ports.half_closed),
        (Cause::Unacknowledged, state(TcpState::FinWait1) + state(TcpState::LastAck) + state(TcpState::Closing)),
        (Cause::Blocked, namespace.map_or(0, |namespace| namespace.blocked)),
        (Cause::Reserved, namespace.map_or(0, |namespace| namespace.reserved)),
    ];
    let all: u32 = counts.iter().map(|(_, count)| count).fold(0, |sum, count| sum.saturating_add(*count));
    let range = ports.range.map_or(all, |(lo, hi)| u32::from(hi.saturating_sub(lo)) + 1).max(1);
    let held = |(cause, ports): (Cause, u32)| HeldPorts { cause, ports, share: f64::from(ports) / f64::from(range) };
    let mut list: Vec<HeldPorts> = counts.into_iter().filter(|(_, count)| *count > 0).map(held).collect();
    list.sort_by_key(|held| std::cmp::Reverse(held.ports));
    if unseen {
        list.insert(0, held((Cause::Unseen, ports.free.unwrap_or(0))));
    }
    list
}

/// The holder of most of a destination's ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Culprit {
    /// Its workload; `None` if nobody can say.
    pub workload: Option<Arc<str>>,
    /// Most ports are held by sockets without a seen owner, from before the trace. The workload is the one that connects there now.
    pub inferred: bool,
}

impl Culprit {
    /// `batch.service`, `php-fpm (inferred)`, `the application`.
    pub fn name(&self) -> String {
        match &self.workload {
            Some(name) if self.inferred => format!("{name} (inferred)"),
            Some(name) => name.to_string(),
            None => "an unseen program".into(),
        }
    }

    /// The name for advice, where whether it was seen does not matter.
    pub fn plain(&self) -> &str {
        self.workload.as_deref().unwrap_or("the application")
    }

    /// One sentence on how the workload is known; empty if it was seen.
    pub fn reason(&self) -> &'static str {
        if self.inferred && self.workload.is_some() {
            " The owner of most of these ports was not seen (they are from before the trace); this is who connects there now."
        } else {
            ""
        }
    }
}

/// Who holds most of the ports. Where their owners are unknown, who connects there now: in the last minute, else at all.
pub fn culprit(context: RuleContext<'_>, destination: &Destination) -> Culprit {
    let first = destination.holders.first();
    if let Some(first) = first.filter(|first| &*first.workload != UNKNOWN) {
        return Culprit { workload: Some(Arc::clone(&first.workload)), inferred: false };
    }
    let key = destination.key();
    let here = context.snapshot.attributions.iter().filter(|attribution| attribution.key() == key);
    let busiest = here
        .filter(|attribution| &*attribution.workload != UNKNOWN)
        .map(|attribution| {
            let windows = context.recent.relation(&attribution.workload, key);
            let connects = |windows: super::recent::Counts| windows.of(Counted::Connects);
            ((connects(windows.long), connects(windows.all), attribution.ports_held), &attribution.workload)
        })
        .max_by(|(busy, name), (busier, other)| busy.cmp(busier).then_with(|| other.cmp(name)));
    Culprit { workload: busiest.map(|(_, name)| Arc::clone(name)), inferred: true }
}

/// The cause as part of a sentence. `past`: it is told once it is over.
pub fn sentence(held: &[HeldPorts], destination: &Destination, past: bool) -> String {
    let (are, holds, close) = if past { ("were", "held", "did not close") } else { ("are", "holds", "does not close") };
    let ports = &destination.ports;
    let Some(first) = held.first() else { return format!("nothing is seen that {holds} ports") };
    let of = match (first.cause, ports.range, ports.capacity) {
        (Cause::Blocked | Cause::Reserved, Some((lo, hi)), _) => {
            format!(" of the {} ports {lo}-{hi}", u32::from(hi.saturating_sub(lo)) + 1)
        }
        (_, _, Some(capacity)) => format!(" of {capacity} ports"),
        _ => " ports".into(),
    };
    let what = match first.cause {
        Cause::TimeWait => format!("{are} in TIME_WAIT after this side's close"),
        Cause::Orphans => format!("{are} closed here and in FIN_WAIT2: the peer {close}"),
        Cause::Open => format!("{are} open connections"),
        Cause::CloseWait => format!("{are} in CLOSE_WAIT: the peer has closed, the program {close}"),
        Cause::Unanswered => {
            format!(
                "{} in SYN_SENT: the peer {} answer",
                if past { "waited" } else { "wait" },
                if past { "did not" } else { "does not" }
            )
        }
        Cause::HalfClosed => format!("{are} half-closed: shutdown() without close()"),
        Cause::Unacknowledged => format!(
            "{are} in FIN_WAIT1 or LAST_ACK: the peer {} acknowledge the end",
            if past { "did not" } else { "does not" }
        ),
        Cause::Blocked => format!("{are} blocked by bind(), listen() or accepted connections"),
        Cause::Reserved => format!("{are} reserved (net.ipv4.ip_local_reserved_ports)"),
        Cause::Unseen => format!("{} free as far as can be seen", if past { "were" } else { "are" }),
    };
    let rest: Vec<String> = held
        .iter()
        .skip(1)
        .take(NAMED)
        .filter(|other| f64::from(other.ports) >= f64::from(first.ports) * WORTH_NAMING)
        .map(|other| format!("{} {}", other.ports, short_name(other.cause)))
        .collect();
    let rest = if rest.is_empty() { String::new() } else { format!(" (also {})", rest.join(", ")) };
    format!("{}{of} {what}{rest}", first.ports)
}

/// Causes named beside the first.
const NAMED: usize = 2;
/// Share of the first cause from which on another one is worth naming.
const WORTH_NAMING: f64 = 0.02;

/// A cause in a list.
pub fn short_name(cause: Cause) -> &'static str {
    match cause {
        Cause::TimeWait => "TIME_WAIT",
        Cause::Orphans => "FIN_WAIT2 orphans",
        Cause::Open => "ESTABLISHED",
        Cause::CloseWait => "CLOSE_WAIT",
        Cause::Unanswered => "SYN_SENT",
        Cause::HalfClosed => "half-closed",
        Cause::Unacknowledged => "FIN_WAIT1 or LAST_ACK",
        Cause::Blocked => "blocked by bind() or listen()",
        Cause::Reserved => "reserved",
        Cause::Unseen => "unseen",
    }
}
