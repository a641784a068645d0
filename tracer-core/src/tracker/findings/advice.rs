//! What can be done about a destination that runs out of ports, and what that will bring.
//!
//! Two settings that the web recommends are missing on purpose. `tcp_tw_recycle` is gone since Linux 4.12 and broke clients behind NAT
//! before. `tcp_fin_timeout` bounds orphans in `FIN_WAIT2`; `TIME_WAIT` lasts 60 s at any value of it.

use super::cause::{Cause, culprit, held_ports};
use super::rule::{RuleContext, TIME_WAIT_SECONDS, endpoint};
use crate::event::{Netns, TcpState};
use crate::layout::human::{per_second, rough_seconds};
use crate::tracker::snapshot::{Advice, Destination, Namespace};
use crate::tracker::tables::processes::UNKNOWN;

/// The widest range that leaves the well-known ports alone.
const WIDE: (u16, u16) = (1024, 65535);
/// A smaller gain than this is not worth a change to a production host.
const WORTHWHILE: f64 = 1.1;
/// Requests that a kept connection carries, for the estimate: a tenth of the default of nginx's `keepalive_requests`.
const REQUESTS_PER_CONNECTION: f64 = 100.0;
/// Kernels without `tcp_tw_reuse_delay` wait for the next full second after the last segment: at most this.
const REUSE_DELAY_SECONDS: f64 = 1.0;
/// The delay to recommend where reuse is on and still too slow: far above any round trip inside a data centre.
const SHORT_REUSE_DELAY_MS: u32 = 250;
/// Below this, lowering `tcp_fin_timeout` further begins to cut off peers that are merely slow.
const SHORT_FIN_TIMEOUT_MS: u32 = 15_000;
/// Listening ports named in a sentence.
const MAX_PORTS_NAMED: usize = 8;

/// Advice for a destination that is out of ports or will be, the best first. Only what fits the cause: nothing in the kernel frees the
/// ports of a leak, and more of them leak away too.
pub(super) fn for_destination(context: RuleContext<'_>, destination: &Destination) -> Vec<Advice> {
    let namespace = context.namespace(destination.netns);
    let culprit = culprit(context, destination);
    let who = culprit.plain();
    let mut advice = Vec::new();
    let cause = held_ports(destination, namespace).first().map_or(Cause::TimeWait, |held| held.cause);
    match cause {
        Cause::Blocked => advice.extend(namespace.map(free_blocked)),
        Cause::Reserved => advice.extend(namespace.map(|namespace| unreserve(context, namespace))),
        Cause::Unseen => advice.push(find_unseen(context, destination)),
        Cause::CloseWait => advice.push(close_leaked(destination, who)),
        Cause::Open => advice.push(bound_pool(destination, who)),
        Cause::Unanswered => advice.push(give_up_sooner(destination, who)),
        Cause::HalfClosed => advice.push(close_half_closed(destination, who)),
        Cause::Unacknowledged => advice.push(unacknowledged(destination)),
        Cause::Orphans => {
            advice.push(peer_closes(destination));
            advice.extend(shorten_fin_wait2(context, destination));
        }
        Cause::TimeWait => {
            advice.push(keep_connections(destination, who));
            advice.extend(reuse_time_wait(context, destination));
        }
    }
    match cause {
        // Whatever is added is held in the same way soon.
        Cause::CloseWait | Cause::HalfClosed | Cause::Unanswered | Cause::Unacknowledged | Cause::Unseen => {}
        // How long one connection holds a port is not what fills the range.
        Cause::Open | Cause::Blocked | Cause::Reserved => {
            advice.extend(widen(context, destination, false));
            advice.extend(separate(context, destination));
            advice.extend(more_addresses(destination, false));
        }
        Cause::TimeWait | Cause::Orphans => {
            advice.extend(widen(context, destination, true));
            advice.extend(separate(context, destination));
            advice.extend(more_addresses(destination, true));
        }
    }
    advice
}

/// Most of the range is reserved.
fn unreserve(context: RuleContext<'_>, namespace: &Namespace) -> Advice {
    let (lo, hi) = namespace.port_range.unwrap_or_default();
    let place = context.namespace(namespace.netns).and_then(|namespace| namespace.name.as_ref());
    Advice {
        action: format!(
            "Shorten net.ipv4.ip_local_reserved_ports{} to the ports that services really use, or move the ephemeral range away from them",
            place.map_or_else(String::new, |name| format!(" in network namespace {name}"))
        ),
        why: format!("{} of the ports {lo}-{hi} are reserved: connect() never chooses them.", namespace.reserved),
        expected: format!("Up to {} more ports towards every destination", namespace.reserved),
    }
}

/// connect() fails while ports are free.
fn find_unseen(context: RuleContext<'_>, destination: &Destination) -> Advice {
    let place = context.namespace(destination.netns).and_then(|namespace| namespace.name.as_ref());
    let place = place.map_or_else(String::new, |name| format!("ip netns exec {name} "));
    Advice {
        action: format!(
            "Compare with `{place}ss -tanp dst {}`, and look for sockets with a port range of their own (IP_LOCAL_PORT_RANGE)",
            remote(destination)
        ),
        why: "connect() failed while ports were free as far as portchurn sees: a limit of the socket's own, or a holder that it cannot see."
            .into(),
        expected: "Shows who holds the ports; nothing changes yet".into(),
    }
}

/// bind() and listen() hold more ports than the destination itself.
fn free_blocked(namespace: &Namespace) -> Advice {
    let by = &namespace.blocked_by;
    let kinds = [
        (by.listening, "by listening sockets"),
        (by.bound, "by bind()"),
        (by.accepted, "by connections of listeners that are closed"),
        (by.lingering, "by minisockets of bound or accepted sockets"),
    ];
    let named: Vec<String> =
        kinds.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    Advice {
        action: "Keep listeners and bound sockets out of the ephemeral port range: give the service ports of its own (passive FTP and RPC \
                 servers have a setting), and list them in net.ipv4.ip_local_reserved_ports"
            .into(),
        why: format!(
            "{} ports of the range are blocked for connect() towards every destination: {}. Such a port is free again when the last socket \
             on it is gone, connections that it accepted and their TIME_WAIT included.",
            namespace.blocked,
            named.join(", ")
        ),
        expected: format!("Up to {} more ports towards every destination", namespace.blocked),
    }
}

/// Nobody answers the SYN.
pub(super) fn give_up_sooner(destination: &Destination, who: &str) -> Advice {
    let waiting = destination.ports.by_state.get(&TcpState::SynSent).copied().unwrap_or(0);
    Advice {
        action: format!(
            "Find out why {} does not answer (firewall, route, service down), and let {} give up sooner: a connect timeout of a few \
                 seconds and a limit of attempts under way",
            remote(destination),
            who
        ),
        why: format!(
            "{waiting} ports wait in SYN_SENT for an answer. Without a timeout of the program each waits for net.ipv4.tcp_syn_retries \
                 (6 = 127 s)."
        ),
        expected: format!("A port is free as soon as its connect() is given up: {waiting} ports within that timeout"),
    }
}

/// A process has shut down its side and keeps the descriptor.
pub(super) fn close_half_closed(destination: &Destination, who: &str) -> Advice {
    Advice {
        action: format!(
            "Let {} close the sockets that it has shut down towards {} (shutdown() without close())",
            who,
            remote(destination)
        ),
        why: format!(
            "{} sockets are half-closed: the program holds their descriptors, so no setting of the kernel ends them.",
            destination.ports.half_closed
        ),
        expected: format!("{} ports are free once the program or the peer closes", destination.ports.half_closed),
    }
}

/// The peer does not acknowledge the end of the connection.
fn unacknowledged(destination: &Destination) -> Advice {
    Advice {
        action: format!("Find out why {} does not acknowledge the end of its connections (route, firewall, host down)", remote(destination)),
        why: "The kernel repeats the last segment for minutes (net.ipv4.tcp_orphan_retries) and keeps the port meanwhile.".into(),
        expected: "The ports are free once the peer acknowledges or the kernel gives up".into(),
    }
}

/// The peer does not close what this side has closed.
pub(super) fn peer_closes(destination: &Destination) -> Advice {
    Advice {
        action: format!(
            "Make the service at {} close its connections when the client has closed (CLOSE_WAIT over there)",
            remote(destination)
        ),
        why: "This side has closed and waits for the peer's FIN.".into(),
        expected: "FIN_WAIT2 lasts one round trip; TIME_WAIT follows as usual".into(),
    }
}

/// `tcp_fin_timeout`, where it is long; `None` where it is unknown.
pub(super) fn shorten_fin_wait2(context: RuleContext<'_>, destination: &Destination) -> Option<Advice> {
    let timeout = context.namespace(destination.netns)?.fin_timeout_ms?;
    if timeout <= SHORT_FIN_TIMEOUT_MS {
        return None;
    }
    let setting = format!("net.ipv4.tcp_fin_timeout={}", SHORT_FIN_TIMEOUT_MS / 1000);
    Some(Advice {
        action: sysctl(context, destination.netns, &setting),
        why: "It bounds how long a closed socket waits in FIN_WAIT2 for a peer that never closes, and nothing else: TIME_WAIT stays at 60 s."
            .into(),
        expected: format!("Such a port is free after {} s instead of {} s", SHORT_FIN_TIMEOUT_MS / 1000, timeout / 1000),
    })
}

/// How long one connect holds a port, in seconds: from the sustainable rate where that is known, else 60 s.
fn hold_seconds(destination: &Destination) -> f64 {
    match (destination.ports.capacity, destination.sustainable_per_second) {
        (Some(capacity), Some(sustainable)) if sustainable > 0.0 => f64::from(capacity) / sustainable,
        _ => TIME_WAIT_SECONDS,
    }
}

fn remote(destination: &Destination) -> String {
    endpoint(destination.remote_addr, destination.remote_port).to_string()
}

pub(super) fn keep_connections(destination: &Destination, holder: &str) -> Advice {
    let how = if holder.starts_with("php-fpm: pool") {
        "persistent connections (PDO::ATTR_PERSISTENT, mysqli host `p:`, pconnect, cURL with one shared handle) or a local proxy"
    } else {
        "HTTP keep-alive or a connection pool"
    };
    let now = destination.connects_per_second;
    let kept = now / REQUESTS_PER_CONNECTION;
    let expected = if now > 0.0 {
        format!(
            "At {REQUESTS_PER_CONNECTION:.0} requests per connection: {} connects instead of {}, about {:.0} ports held instead of {}",
            per_second(kept),
            per_second(now),
            (kept * hold_seconds(destination)).ceil().max(1.0),
            destination.ports.in_use,
        )
    } else {
        format!("One port per connection kept open instead of {} held now", destination.ports.in_use)
    };
    Advice {
        action: format!("Let {holder} re-use its connections to {}: {how}", remote(destination)),
        why: "Each connection that this side closes first holds its port for 60 s in TIME_WAIT; one that stays open holds one port for all \
              its requests."
            .into(),
        expected,
    }
}

fn bound_pool(destination: &Destination, who: &str) -> Advice {
    let established = destination.ports.by_state.get(&TcpState::Established).copied().unwrap_or(0);
    Advice {
        action: format!("Bound the number of connections that {} keeps to {}", who, remote(destination)),
        why: "The ports are held by open connections, not by TIME_WAIT: no setting of the kernel frees them.".into(),
        expected: format!("Each of the {established} open connections that goes frees one port"),
    }
}

fn close_leaked(destination: &Destination, who: &str) -> Advice {
    let leaked = destination.ports.by_state.get(&TcpState::CloseWait).copied().unwrap_or(0);
    Advice {
        action: format!("Make {who} close the connections that {} has closed", remote(destination)),
        why: "CLOSE_WAIT lasts until the program closes its socket: no setting of the kernel ends it.".into(),
        expected: format!("{leaked} ports are free at once; until the program is fixed, a restart does the same"),
    }
}

/// New connections take over the ports of this destination's `TIME_WAIT`: the namespace allows it, the peer's timestamps do, and
/// nothing has failed for lack of a port.
pub(super) fn is_reused(context: RuleContext<'_>, destination: &Destination) -> bool {
    let Some(namespace) = context.namespace(destination.netns) else { return false };
    let loopback = destination.local_addr.is_loopback() || destination.remote_addr.is_loopback();
    let allowed = namespace.tw_reuse == Some(1) || (namespace.tw_reuse == Some(2) && loopback);
    let time_wait = destination.ports.by_state.get(&TcpState::TimeWait).copied().unwrap_or(0);
    let stuck = destination.ports.without_timestamps + destination.ports.orphans;
    allowed
        && namespace.timestamps != Some(false)
        && stuck <= u32::midpoint(time_wait, destination.ports.orphans)
        && destination.failed.without_port() == 0
}

/// `tcp_tw_reuse`, its timestamps, its delay: the first that is not set yet; `None` where the present setting is unknown.
fn reuse_time_wait(context: RuleContext<'_>, destination: &Destination) -> Option<Advice> {
    let namespace = context.namespace(destination.netns)?;
    let (stuck, time_wait) = (
        destination.ports.without_timestamps,
        destination.ports.by_state.get(&TcpState::TimeWait).copied().unwrap_or(0),
    );
    if stuck > time_wait / 2 {
        return Some(Advice {
            action: format!(
                "Switch TCP timestamps on at {} (net.ipv4.tcp_timestamps=1 over there)",
                remote(destination)
            ),
            why: format!(
                "The kernel gives a port in TIME_WAIT to a new connection only if the peer sends timestamps: {stuck} of {time_wait} here are of \
                 a peer that does not, so net.ipv4.tcp_tw_reuse does nothing for them."
            ),
            expected: "With timestamps and net.ipv4.tcp_tw_reuse=1 such a port can be used again after about a second"
                .into(),
        });
    }
    let loopback = destination.local_addr.is_loopback() || destination.remote_addr.is_loopback();
    let on = match namespace.tw_reuse? {
        1 => true,
        2 => loopback,
        _ => false,
    };
    let capacity = f64::from(destination.ports.capacity?);
    let delay = namespace.tw_reuse_delay_ms.map_or(REUSE_DELAY_SECONDS, |ms| f64::from(ms) / 1e3);
    let without_time_wait = (hold_seconds(destination) - TIME_WAIT_SECONDS).max(0.0);
    let expected = |delay: f64| {
        let after = capacity / (without_time_wait + delay).max(0.001);
        format!(
            "A 4-tuple can be used again after about {} instead of 60 s: up to {} connects instead of {}; only for outgoing connections, \
             only while both ends use TCP timestamps",
            rough_seconds(delay),
            per_second(after),
            per_second(capacity / hold_seconds(destination)),
        )
    };
    let timestamps_off = namespace.timestamps == Some(false);
    let (setting, why) = match (on, timestamps_off) {
        (false, timestamps_off) => {
            let value = if loopback { 2 } else { 1 };
            let both = if timestamps_off { "net.ipv4.tcp_timestamps=1 " } else { "" };
            let scope = match (namespace.tw_reuse, loopback) {
                (Some(2), _) => "The present value 2 covers loopback addresses only. ",
                (_, true) => "The value 2 covers loopback addresses and nothing else. ",
                _ => "",
            };
            let why = format!(
                "{scope}connect() may then take over a TIME_WAIT entry of its own, safely, because timestamps tell old segments from new ones."
            );
            (format!("{both}net.ipv4.tcp_tw_reuse={value}"), why)
        }
        (true, true) => (
            "net.ipv4.tcp_timestamps=1".into(),
            "tcp_tw_reuse is on but does nothing without TCP timestamps. New connections only.".into(),
        ),
        (true, false) => {
            let present = namespace.tw_reuse_delay_ms.filter(|_| context.knobs.tw_reuse_delay)?;
            if present <= SHORT_REUSE_DELAY_MS {
                return None;
            }
            return Some(Advice {
                action: sysctl(
                    context,
                    destination.netns,
                    &format!("net.ipv4.tcp_tw_reuse_delay={SHORT_REUSE_DELAY_MS}"),
                ),
                why: format!("tcp_tw_reuse is on and waits {present} ms before it uses a 4-tuple again."),
                expected: expected(f64::from(SHORT_REUSE_DELAY_MS) / 1e3),
            });
        }
    };
    Some(Advice { action: sysctl(context, destination.netns, &setting), why, expected: expected(delay) })
}

fn widen(context: RuleContext<'_>, destination: &Destination, by_rate: bool) -> Option<Advice> {
    let (lo, hi) = destination.ports.range?;
    let capacity = f64::from(destination.ports.capacity.filter(|&capacity| capacity > 0)?);
    let taken = context.namespace(destination.netns).map_or(0, |namespace| namespace.reserved + namespace.blocked);
    let wide = u32::from(WIDE.1 - WIDE.0) + 1;
    let ports = f64::from(wide.saturating_sub(taken));
    if ports < capacity * WORTHWHILE {
        return None;
    }
    let mut listening: Vec<u16> = context
        .snapshot
        .listeners
        .iter()
        .filter(|listener| listener.netns == destination.netns)
        .map(|listener| listener.port)
        .filter(|port| (WIDE.0..=WIDE.1).contains(port) && !(lo..=hi).contains(port))
        .collect();
    listening.sort_unstable();
    listening.dedup();
    let reserve = if listening.is_empty() {
        "Ports that services listen on go into net.ipv4.ip_local_reserved_ports first.".into()
    } else {
        let more = listening.len().saturating_sub(MAX_PORTS_NAMED);
        let mut named: Vec<String> = listening.iter().take(MAX_PORTS_NAMED).map(ToString::to_string).collect();
        if more > 0 {
            named.push(format!("{more} more"));
        }
        format!(
            "Add the ports that services listen on there ({}) to net.ipv4.ip_local_reserved_ports first, keeping what it holds.",
            named.join(", ")
        )
    };
    let setting = format!("net.ipv4.ip_local_port_range=\"{} {}\"", WIDE.0, WIDE.1);
    Some(Advice {
        action: sysctl(context, destination.netns, &setting),
        why: format!("The range is {lo}-{hi}. {reserve}"),
        expected: if by_rate {
            format!(
                "About {ports:.0} ports towards each destination instead of {capacity:.0}: {} connects instead of {}",
                per_second(ports / hold_seconds(destination)),
                per_second(capacity / hold_seconds(destination)),
            )
        } else {
            format!("About {ports:.0} ports towards each destination instead of {capacity:.0}")
        },
    })
}

/// A range of its own for the holder, where another workload suffers.
fn separate(context: RuleContext<'_>, destination: &Destination) -> Option<Advice> {
    if !context.knobs.ip_local_port_range_sockopt {
        return None;
    }
    let holder = destination.holders.first().filter(|holder| &*holder.workload != UNKNOWN)?;
    let victim = destination.victims.iter().find(|victim| victim.workload != holder.workload)?;
    let (lo, hi) = destination.ports.range?;
    let middle = lo + (hi - lo) / 2;
    let half = destination.ports.capacity? / 2;
    Some(Advice {
        action: format!(
            "Confine {} to the ports {lo}-{middle} with setsockopt(IPPROTO_IP, IP_LOCAL_PORT_RANGE) before connect()",
            holder.workload
        ),
        why: format!(
            "{} suffers from ports that {} holds; Linux {} has this option.",
            victim.workload, holder.workload, context.knobs.kernel
        ),
        expected: format!("About {half} ports stay free for {} whatever {} does", victim.workload, holder.workload),
    })
}

/// The program's own limit is the program's to change.
pub(super) fn widen_own_range(who: &str) -> Advice {
    Advice {
        action: format!(
            "Give the sockets of {who} a wider range, or none (setsockopt IP_LOCAL_PORT_RANGE), or let them re-use connections"
        ),
        why: "connect() looks for a port in the range of the socket alone, however many are free beside it.".into(),
        expected: "Each port more in that range is one connection more".into(),
    }
}

fn more_addresses(destination: &Destination, by_rate: bool) -> Option<Advice> {
    let capacity = destination.ports.capacity?;
    Some(Advice {
        action: format!(
            "Spread the connections over a second source address (bind() to it with IP_BIND_ADDRESS_NO_PORT) or over a second address or port \
             of {}",
            remote(destination)
        ),
        why: "Ports run out per (source address, destination address, destination port).".into(),
        expected: if by_rate {
            format!(
                "Each further address brings {capacity} ports: {} more connects",
                per_second(f64::from(capacity) / hold_seconds(destination))
            )
        } else {
            format!("Each further address brings {capacity} ports")
        },
    })
}

/// The command for one namespace. The name of the namespace is used only if a shell takes it as one word.
pub(super) fn sysctl(context: RuleContext<'_>, netns: Netns, setting: &str) -> String {
    let plain =
        |name: &&str| name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) && !name.starts_with('-');
    match context.namespace(netns).and_then(|namespace| namespace.name.as_deref()).filter(plain) {
        Some(name) => format!("ip netns exec {name} sysctl -w {setting}"),
        None if context.snapshot.namespaces.len() > 1 => {
            format!("sysctl -w {setting} (in network namespace {})", netns.inode)
        }
        None => format!("sysctl -w {setting}"),
    }
}

/// `net.ipv4.ip_local_port_step_width` for a namespace with reserved ports; `None` where the kernel has no such setting.
pub(super) fn step_width(context: RuleContext<'_>, namespace: &Namespace) -> Option<Advice> {
    (context.knobs.port_step_width && namespace.reserved > 0).then(|| Advice {
        action: sysctl(
            context,
            namespace.netns,
            &format!("net.ipv4.ip_local_port_step_width={}", namespace.reserved.saturating_mul(3)),
        ),
        why: format!(
            "{} ports are reserved: without it, ports right behind a reserved block are chosen more often than others.",
            namespace.reserved
        ),
        expected: "The same number of ports, used evenly".into(),
    })
}

/// The option exists since Linux 4.2, so on every kernel that portchurn runs on.
pub(super) fn bind_no_port(who: &str) -> Advice {
    Advice {
        action: format!(
            "In {who}: setsockopt(IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1) before bind(address, port 0), or no bind() at all (nginx proxy_bind and \
             HAProxy source do so in current versions)"
        ),
        why: "bind() has to find a port that no destination uses; with the option the port is chosen by connect(), for its destination only."
            .into(),
        expected: "Each source address has the whole range towards each destination, instead of the whole range once".into(),
    }
}
