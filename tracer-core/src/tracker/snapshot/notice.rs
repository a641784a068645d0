//! What the tracker reports as it happens: flows that end, connects that fail, states that change.

use std::sync::Arc;

use serde::Serialize;

use super::{Failure, Finding};
use crate::event::{FlowKey, Ktime, SocketCookie, TcpState};

/// Which side began a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Opened {
    /// This side sent the SYN.
    Active,
    /// A listener of this side accepted the connection.
    Passive,
    /// The connection existed before the trace, and its ports do not show which side began it.
    Unknown,
}

/// How a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// This side sent the first FIN and owns `TIME_WAIT`.
    ActiveClose,
    /// The peer sent the first FIN.
    PassiveClose,
    /// Both sides sent a FIN before they saw the other's.
    SimultaneousClose,
    /// The peer sent RST.
    ResetByPeer,
    /// This side dropped the connection without a FIN (linger 0, unread data, `AF_UNSPEC`, `ss -K`).
    ResetByUs,
    /// The peer did not answer any more.
    TimedOut,
    /// The connection was never established.
    ConnectFailed,
    /// A transition was lost: that the flow ended is known, how is not.
    Unknown,
}

/// The process that a flow belongs to.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Owner {
    /// Process id; 0 = unknown.
    pub pid: u32,
    /// The kernel's name of the process (15 bytes at most).
    pub comm: Arc<str>,
    /// Name of its workload.
    pub workload: Arc<str>,
    /// systemd unit.
    pub unit: Option<Arc<str>>,
    /// Container, as `runtime:id`.
    pub container: Option<Arc<str>>,
    /// Pod of Kubernetes: `namespace/pod/container`, or its UID.
    pub pod: Option<Arc<str>>,
    /// The owner was concluded, not seen.
    pub inferred: bool,
}

/// The full socket of a flow is gone; `TIME_WAIT` may follow.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowEnd {
    /// When it ended.
    pub ktime: Ktime,
    /// The socket's cookie, as in a recording; `None` if it has none.
    pub cookie: Option<SocketCookie>,
    /// Its namespace and 4-tuple.
    pub key: FlowKey,
    /// Whose it was; `None` = unknown.
    pub owner: Option<Owner>,
    /// Which side began it.
    pub opened: Opened,
    /// How it ended.
    pub ended: Ended,
    /// From the first transition to CLOSE, milliseconds; `None` if the flow began before the trace.
    pub lifetime_ms: Option<f64>,
    /// From `SYN_SENT` to ESTABLISHED, milliseconds; `None` if either was not seen.
    pub connect_ms: Option<f64>,
    /// The flow was set right after a loss.
    pub repaired: bool,
    /// A minisocket holds the 4-tuple now.
    pub time_wait: bool,
}

/// A connect (or a bind to port 0) failed.
#[derive(Clone, Debug, PartialEq)]
pub struct FailedConnect {
    /// When it failed.
    pub ktime: Ktime,
    /// The socket's cookie, as in a recording; `None` if it has none.
    pub cookie: Option<SocketCookie>,
    /// Why.
    pub failure: Failure,
    /// Its namespace and 4-tuple. The local port is 0 if it never had one; after a bind the remote end is unspecified.
    pub key: FlowKey,
    /// Who tried; `None` = unknown.
    pub owner: Option<Owner>,
    /// The thread that tried; 0 = unknown.
    pub tid: u32,
    /// The return value of the system call confirmed the reason; otherwise it was concluded from transitions alone.
    pub confirmed: bool,
    /// From the first transition (or the entry of the system call) to the failure, milliseconds; `None` = unknown.
    pub after_ms: Option<f64>,
}

/// A flow entered another state.
#[derive(Clone, Debug, PartialEq)]
pub struct StateChange {
    /// When.
    pub ktime: Ktime,
    /// The socket's cookie, as in a recording; `None` if it has none.
    pub cookie: Option<SocketCookie>,
    /// Its namespace and 4-tuple.
    pub key: FlowKey,
    /// Whose flow it is; `None` = unknown.
    pub owner: Option<Owner>,
    /// The state that it left.
    pub old: TcpState,
    /// The state that it entered.
    pub new: TcpState,
    /// Time spent in `old`, milliseconds; `None` if its begin was not seen.
    pub dwell_ms: Option<f64>,
}

/// A flow that has not ended.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenFlow {
    /// The socket's cookie; `None` if it has none.
    pub cookie: Option<SocketCookie>,
    /// Its namespace and 4-tuple.
    pub key: FlowKey,
    /// Whose it is; `None` = unknown.
    pub owner: Option<Owner>,
    /// Which side began it.
    pub opened: Opened,
    /// The state that it is in.
    pub state: TcpState,
    /// Its first transition; `None` if it began before the trace.
    pub began: Option<Ktime>,
    /// From `SYN_SENT` to ESTABLISHED, milliseconds; `None` if either was not seen.
    pub connect_ms: Option<f64>,
    /// The flow was set right after a loss.
    pub repaired: bool,
}

/// One thing that the tracker reports as it happens.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// A flow ended.
    FlowEnd(FlowEnd),
    /// A connect or bind failed.
    FailedConnect(FailedConnect),
    /// A flow entered another state.
    StateChange(StateChange),
    /// A finding began to hold, or is over: its life says which.
    Finding(Box<Finding>),
}

/// What the tracker keeps beside its tables. Notices cost time and the past costs memory, so it keeps only what somebody reads.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent choices")]
pub struct NoticeKinds {
    /// Makes a [`StateChange`] of every transition.
    pub transitions: bool,
    /// Makes a [`FlowEnd`] of every flow that ends.
    pub flows: bool,
    /// Makes a [`FailedConnect`] of every failure.
    pub failures: bool,
    /// Makes a notice of every finding that begins or ends.
    pub findings: bool,
    /// Remembers the past that [`Details`](super::detail::Details) shows.
    pub history: bool,
}
