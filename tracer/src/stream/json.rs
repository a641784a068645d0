//! JSON lines for other programs. `schema/stream.schema.json` is the contract; the tests check every line against it.
//!
//! Unknown values are null, e.g. the port of a connect that got none, or the owner of a flow that began before the trace.

use serde::Serialize;

use tracer_core::clock::Clock;
use tracer_core::event::{Addr, Endpoint, FlowKey, Ktime, Netns, SocketCookie, TcpState};
use tracer_core::report::json::TimedFinding;
use tracer_core::tracker::snapshot::{Ended, Failure, Lost, Notice, Opened, Owner};

/// JSON Schema (2020-12) of a line.
pub const SCHEMA: &str = include_str!("../../schema/stream.schema.json");

#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    time: String,
    ktime_ns: u64,
    cookie: Option<u64>,
    netns: Netns,
    local_addr: Option<Addr>,
    local_port: Option<u16>,
    remote_addr: Option<Addr>,
    remote_port: Option<u16>,
    pid: Option<u32>,
    comm: Option<&'a str>,
    workload: Option<&'a str>,
    inferred: bool,
    #[serde(flatten)]
    detail: Detail,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Detail {
    Failure {
        reason: Failure,
        tid: Option<u32>,
        confirmed: bool,
        after_ms: Option<f64>,
    },
    Flow {
        opened: Opened,
        ended: Ended,
        lifetime_ms: Option<f64>,
        connect_ms: Option<f64>,
        time_wait: bool,
        repaired: bool,
    },
    Transition {
        old: TcpState,
        new: TcpState,
        dwell_ms: Option<f64>,
    },
}

#[derive(Serialize)]
struct LossLine {
    #[serde(rename = "type")]
    kind: &'static str,
    time: String,
    ktime_ns: u64,
    #[serde(flatten)]
    lost: Lost,
}

#[derive(Serialize)]
struct FindingLine<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    time: String,
    ktime_ns: u64,
    #[serde(flatten)]
    finding: TimedFinding<'a>,
}

/// One line, without its newline.
pub fn notice(notice: &Notice, clock: Clock) -> serde_json::Result<String> {
    let line = match notice {
        Notice::Finding(finding) => {
            let ktime = finding.changed_at();
            let (time, finding) = (clock.rfc3339(ktime), TimedFinding::new(finding, &clock));
            return serde_json::to_string(&FindingLine { kind: "finding", time, ktime_ns: ktime.0, finding });
        }
        Notice::FailedConnect(failed) => {
            let detail = Detail::Failure {
                reason: failed.failure,
                tid: known(failed.tid),
                confirmed: failed.confirmed,
                after_ms: failed.after_ms,
            };
            line("failure", failed.ktime, failed.cookie, &failed.key, failed.owner.as_ref(), clock, detail)
        }
        Notice::FlowEnd(flow) => {
            let detail = Detail::Flow {
                opened: flow.opened,
                ended: flow.ended,
                lifetime_ms: flow.lifetime_ms,
                connect_ms: flow.connect_ms,
                time_wait: flow.time_wait,
                repaired: flow.repaired,
            };
            line("flow", flow.ktime, flow.cookie, &flow.key, flow.owner.as_ref(), clock, detail)
        }
        Notice::StateChange(change) => {
            let detail = Detail::Transition { old: change.old, new: change.new, dwell_ms: change.dwell_ms };
            line("transition", change.ktime, change.cookie, &change.key, change.owner.as_ref(), clock, detail)
        }
    };
    serde_json::to_string(&line)
}

/// One line, without its newline.
pub fn loss(ktime: Ktime, lost: Lost, clock: Clock) -> serde_json::Result<String> {
    serde_json::to_string(&LossLine { kind: "loss", time: clock.rfc3339(ktime), ktime_ns: ktime.0, lost })
}

fn line<'a>(
    kind: &'static str,
    ktime: Ktime,
    cookie: Option<SocketCookie>,
    key: &FlowKey,
    owner: Option<&'a Owner>,
    clock: Clock,
    detail: Detail,
) -> Line<'a> {
    Line {
        kind,
        time: clock.rfc3339(ktime),
        ktime_ns: ktime.0,
        cookie: cookie.map(SocketCookie::get),
        netns: key.netns,
        local_addr: addr(key.local),
        local_port: port(key.local),
        remote_addr: addr(key.remote),
        remote_port: port(key.remote),
        pid: owner.and_then(|owner| known(owner.pid)),
        comm: owner.map(|owner| &*owner.comm),
        workload: owner.map(|owner| &*owner.workload),
        inferred: owner.is_some_and(|owner| owner.inferred),
        detail,
    }
}

fn known(id: u32) -> Option<u32> {
    (id != 0).then_some(id)
}

/// `0.0.0.0` with a port is an address (a listener on `0.0.0.0:80`); without a port it means that the address is not known.
fn addr(endpoint: Endpoint) -> Option<Addr> {
    (endpoint.port != 0 || !endpoint.addr.is_unspecified()).then_some(endpoint.addr)
}

fn port(endpoint: Endpoint) -> Option<u16> {
    (endpoint.port != 0).then_some(endpoint.port)
}
