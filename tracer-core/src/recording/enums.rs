//! The names that a recording stores in place of numbers: kinds of rows and TCP states. Those of errnos are in
//! [`crate::errno`].
//!
//! Kinds and states are dictionaries of the file. A reader looks up the names that the file's dictionary holds, so that
//! a later version may add some. Not for: what a name means; `FORMAT.md` says that.

use std::str::FromStr;

use thiserror::Error;

use crate::event::TcpState;

/// What a row is. The discriminant is the index into [`RowKind::ALL`], which is the file's dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RowKind {
    /// A TCP socket changed its state.
    Transition,
    /// A `TIME_WAIT` minisocket began.
    TimeWaitStart,
    /// A `TIME_WAIT` minisocket ended.
    TimeWaitEnd,
    /// connect(2) returned an error.
    ConnectFailed,
    /// bind(2) returned an error.
    BindFailed,
    /// listen(2) returned an error.
    ListenFailed,
    /// accept(2) returned a socket.
    Accepted,
    /// bind(2) gave a socket a port.
    Bound,
    /// A bound or listening socket was destroyed.
    Released,
    /// Names of a process.
    Process,
    /// Limits of a network namespace.
    Netns,
    /// Ports that connect() never chooses in a namespace.
    ReservedPorts,
    /// A connect() has found its port.
    PortSearch,
    /// The head of a list of the sockets of a namespace.
    Baseline,
    /// One socket of that list.
    Socket,
    /// Totals of what was lost.
    Loss,
    /// The clock of the tracer.
    Tick,
    /// Records of the kernel could not be decoded.
    Skipped,
    /// A list of sockets showed a minisocket in `FIN_WAIT2`, or no longer.
    TimeWaitListed,
}

impl RowKind {
    /// All kinds, in the order of the file's dictionary.
    pub const ALL: [Self; 19] = [
        Self::Transition,
        Self::TimeWaitStart,
        Self::TimeWaitEnd,
        Self::ConnectFailed,
        Self::BindFailed,
        Self::ListenFailed,
        Self::Accepted,
        Self::Bound,
        Self::Released,
        Self::Process,
        Self::Netns,
        Self::ReservedPorts,
        Self::PortSearch,
        Self::Baseline,
        Self::Socket,
        Self::Loss,
        Self::Tick,
        Self::Skipped,
        Self::TimeWaitListed,
    ];

    /// The name in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transition => "transition",
            Self::TimeWaitStart => "time_wait_start",
            Self::TimeWaitEnd => "time_wait_end",
            Self::ConnectFailed => "connect_failed",
            Self::BindFailed => "bind_failed",
            Self::ListenFailed => "listen_failed",
            Self::Accepted => "accepted",
            Self::Bound => "bound",
            Self::Released => "released",
            Self::Process => "process",
            Self::Netns => "netns",
            Self::ReservedPorts => "reserved_ports",
            Self::PortSearch => "port_search",
            Self::Baseline => "baseline",
            Self::Socket => "socket",
            Self::Loss => "loss",
            Self::Tick => "tick",
            Self::Skipped => "skipped",
            Self::TimeWaitListed => "time_wait_listed",
        }
    }
}

/// A name that is no kind of row, or one that only a newer version knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no kind of row has this name")]
pub struct UnknownRowKind;

impl FromStr for RowKind {
    type Err = UnknownRowKind;

    fn from_str(name: &str) -> Result<Self, UnknownRowKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or(UnknownRowKind)
    }
}

/// The TCP state that the kernel spells `name`, without its `TCP_` prefix; `None` if there is none.
pub fn state_from_name(name: &str) -> Option<TcpState> {
    TcpState::ALL.into_iter().find(|state| state.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_back_to_its_value() {
        for (index, kind) in RowKind::ALL.into_iter().enumerate() {
            assert_eq!((kind.as_str().parse(), kind as usize), (Ok(kind), index));
        }
        for state in TcpState::ALL {
            assert_eq!(state_from_name(state.name()), Some(state));
        }
    }
}
