//! Ports that somebody asked for by number and did not get.

use std::sync::Arc;

use serde::Serialize;

use super::Owner;
use crate::event::{Addr, Ktime, Netns, TcpState};

/// A port that a process asked for by number and did not get.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TakenPort {
    /// Network namespace of the socket.
    pub netns: Netns,
    /// The address that bind() named; unspecified = all.
    pub addr: Addr,
    /// The port that bind() named.
    pub port: u16,
    /// Where connect() of the bound socket went, whose 4-tuple is taken; `None`: bind() or listen() failed.
    pub remote_addr: Option<Addr>,
    /// The port there.
    pub remote_port: Option<u16>,
    /// Name of the workload that asked; `None` = unknown.
    pub workload: Option<Arc<str>>,
    /// The process that asked; `None` = unknown.
    pub pid: Option<u32>,
    /// The kernel's name of that process.
    pub comm: Option<Arc<str>>,
    /// How often it failed.
    pub failed: u64,
    /// When it failed last.
    #[serde(skip)]
    pub last: Ktime,
    /// Who had the port then; `None` = nobody that was seen.
    pub holder: Option<PortHolder>,
}

/// The socket that has a port.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PortHolder {
    /// Its state; CLOSE is a socket that is bound and does nothing yet.
    pub state: TcpState,
    /// Name of its workload; `None` = unknown.
    pub workload: Option<Arc<str>>,
    /// Its process; `None` = unknown.
    pub pid: Option<u32>,
    /// The kernel's name of that process.
    pub comm: Option<Arc<str>>,
}

impl PortHolder {
    /// A socket in `state` of this owner.
    pub fn new(state: TcpState, owner: Option<&Owner>) -> Self {
        Self {
            state,
            workload: owner.map(|owner| Arc::clone(&owner.workload)),
            pid: owner.map(|owner| owner.pid),
            comm: owner.map(|owner| Arc::clone(&owner.comm)),
        }
    }
}
