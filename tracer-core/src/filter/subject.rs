//! What a filter is applied to.

use crate::event::{Addr, FlowKey, Netns, TcpState};
use crate::tracker::snapshot::OpenFlow;
use crate::tracker::snapshot::{
    Attribution, Destination, FailedConnect, Failure, FailureCounts, Finding, FindingSubject, FlowEnd, Listener,
    Notice, Owner, StateChange, StateSet, TakenPort, Workload,
};

/// One thing that may be shown. `None` = unknown, or the thing has no such field.
///
/// The conversions below fill what the thing itself knows; [`Subject::with_workload`] adds what is known about its workload.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    /// The kernel's name of the process.
    pub comm: Option<&'a str>,
    /// Process id.
    pub pid: Option<u32>,
    /// systemd unit.
    pub unit: Option<&'a str>,
    /// Container, as `runtime:id`.
    pub container: Option<&'a str>,
    /// Pod, as `namespace/pod/container` or its UID.
    pub pod: Option<&'a str>,
    /// Name of the workload.
    pub workload: Option<&'a str>,
    /// Network namespace.
    pub netns: Option<Netns>,
    /// Name of the network namespace.
    pub netns_name: Option<&'a str>,
    /// Local address.
    pub src_addr: Option<Addr>,
    /// Local port.
    pub src_port: Option<u16>,
    /// Remote address.
    pub dst_addr: Option<Addr>,
    /// Remote port.
    pub dst_port: Option<u16>,
    /// State of the one flow that this is about.
    pub state: Option<TcpState>,
    /// States of all flows that this sums up; one that matches is enough.
    pub states: Option<StateSet>,
    /// Of `FIN_WAIT2`: some are minisockets, which this side has closed and the peer has not.
    pub orphan: Option<bool>,
    /// Of `FIN_WAIT2`: some are full sockets, which a process has shut down and keeps.
    pub half_closed: Option<bool>,
    /// The one failure that this is about.
    pub failure: Option<Failure>,
    /// Failures that this sums up; one that matches is enough.
    pub failed: Option<&'a FailureCounts>,
}

impl<'a> Subject<'a> {
    /// The subject with what is known about its workload.
    #[must_use]
    pub fn with_workload(mut self, workload: &'a Workload) -> Self {
        self.unit = self.unit.or(workload.unit.as_deref());
        self.container = self.container.or(workload.container.as_deref());
        self.pod = self.pod.or(workload.pod.as_deref());
        self.workload = Some(&workload.name);
        self.comm = self.comm.or(workload.comm.as_deref());
        self
    }

    /// The reasons of its failures; `None` if a subject of this kind has none.
    pub(super) fn failures(&self) -> Option<impl Iterator<Item = Failure> + use<'a>> {
        if self.failure.is_none() && self.failed.is_none() {
            return None;
        }
        Some(
            self.failure
                .into_iter()
                .chain(self.failed.into_iter().flat_map(|failed| failed.iter().map(|(failure, _)| failure))),
        )
    }

    fn of_flow(key: &FlowKey, owner: Option<&'a Owner>) -> Self {
        // Port 0 stands for no port yet, or no port any more.
        let port = |port: u16| (port != 0).then_some(port);
        Self {
            comm: owner.map(|owner| &*owner.comm),
            pid: owner.map(|owner| owner.pid),
            unit: owner.and_then(|owner| owner.unit.as_deref()),
            container: owner.and_then(|owner| owner.container.as_deref()),
            pod: owner.and_then(|owner| owner.pod.as_deref()),
            workload: owner.map(|owner| &*owner.workload),
            netns: known(key.netns),
            src_addr: Some(key.local.addr),
            src_port: port(key.local.port),
            dst_addr: Some(key.remote.addr),
            dst_port: port(key.remote.port),
            ..Self::default()
        }
    }
}

fn known(netns: Netns) -> Option<Netns> {
    (netns != Netns::default()).then_some(netns)
}

impl<'a> From<&'a Attribution> for Subject<'a> {
    fn from(from: &'a Attribution) -> Self {
        Self {
            comm: Some(&from.comm),
            pid: Some(from.pid),
            workload: Some(&from.workload),
            netns: known(from.netns),
            src_addr: Some(from.local_addr),
            dst_addr: Some(from.remote_addr),
            dst_port: Some(from.remote_port),
            states: Some(from.by_state.keys().copied().collect()),
            orphan: Some(from.orphans > 0),
            half_closed: Some(from.half_closed > 0),
            failed: Some(&from.failed),
            ..Self::default()
        }
    }
}

impl<'a> From<&'a Destination> for Subject<'a> {
    fn from(from: &'a Destination) -> Self {
        let states = from.ports.by_state.iter().filter(|(_, count)| **count > 0).map(|(state, _)| *state);
        Self {
            netns: known(from.netns),
            netns_name: from.netns_name.as_deref(),
            src_addr: Some(from.local_addr),
            dst_addr: Some(from.remote_addr),
            dst_port: Some(from.remote_port),
            states: Some(states.collect()),
            orphan: Some(from.ports.orphans > 0),
            half_closed: Some(from.ports.half_closed > 0),
            failed: Some(&from.failed),
            ..Self::default()
        }
    }
}

impl<'a> From<&'a Listener> for Subject<'a> {
    fn from(from: &'a Listener) -> Self {
        Self {
            pid: from.pid,
            workload: from.workload.as_deref(),
            netns: known(from.netns),
            src_addr: Some(from.addr),
            src_port: Some(from.port),
            state: Some(TcpState::Listen),
            ..Self::default()
        }
    }
}

impl<'a> From<&'a Notice> for Subject<'a> {
    fn from(from: &'a Notice) -> Self {
        match from {
            Notice::FlowEnd(end) => end.into(),
            Notice::FailedConnect(failed) => failed.into(),
            Notice::StateChange(change) => change.into(),
            Notice::Finding(finding) => Self::from(&**finding),
        }
    }
}

/// Whom the finding is about.
impl<'a> From<&'a Finding> for Subject<'a> {
    fn from(from: &'a Finding) -> Self {
        let subject = Self { workload: from.subject.workload().map(|name| &**name), ..Self::default() };
        if let Some(key) = from.subject.destination() {
            return Self {
                netns: Some(key.netns),
                src_addr: Some(key.local_addr),
                dst_addr: Some(key.remote_addr),
                dst_port: Some(key.remote_port),
                ..subject
            };
        }
        match &from.subject {
            FindingSubject::Listener(netns, at, _) => {
                Self { netns: Some(*netns), src_addr: Some(at.addr), src_port: Some(at.port), ..subject }
            }
            FindingSubject::Namespace(netns) => Self { netns: Some(*netns), ..subject },
            _ => subject,
        }
    }
}

impl<'a> From<&'a TakenPort> for Subject<'a> {
    fn from(from: &'a TakenPort) -> Self {
        Self {
            comm: from.comm.as_deref(),
            pid: from.pid,
            workload: from.workload.as_deref(),
            netns: known(from.netns),
            src_addr: Some(from.addr),
            src_port: Some(from.port),
            dst_addr: from.remote_addr,
            dst_port: from.remote_port,
            ..Self::default()
        }
    }
}

impl<'a> From<&'a FlowEnd> for Subject<'a> {
    fn from(from: &'a FlowEnd) -> Self {
        let state = if from.time_wait { TcpState::TimeWait } else { TcpState::Close };
        Self { state: Some(state), ..Self::of_flow(&from.key, from.owner.as_ref()) }
    }
}

impl<'a> From<&'a FailedConnect> for Subject<'a> {
    fn from(from: &'a FailedConnect) -> Self {
        Self { failure: Some(from.failure), ..Self::of_flow(&from.key, from.owner.as_ref()) }
    }
}

impl<'a> From<&'a OpenFlow> for Subject<'a> {
    fn from(from: &'a OpenFlow) -> Self {
        Self { state: Some(from.state), ..Self::of_flow(&from.key, from.owner.as_ref()) }
    }
}

/// The state of the subject is the one that the flow entered.
impl<'a> From<&'a StateChange> for Subject<'a> {
    fn from(from: &'a StateChange) -> Self {
        Self { state: Some(from.new), ..Self::of_flow(&from.key, from.owner.as_ref()) }
    }
}
