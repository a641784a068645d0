//! What can be watched on this host, decided before anything is loaded.
//!
//! Three steps, each a function: [`host`] collects facts, [`mod@plan`] decides from them alone (and so can be tested for any
//! kernel), [`attach`] loads the programs and returns a [`Session`]. A hook that cannot be attached becomes a
//! [`Degradation`](tracer_core::host::Degradation) that every output shows; only a host whose state transitions cannot be
//! seen at all is an error.

pub mod attach;
pub mod capabilities;
pub mod hooks;
pub mod host;
pub mod plan;
pub mod sockets;

pub use attach::{HookState, ProbeError, Session, Tier};
pub use hooks::Hook;
pub use host::Host;
pub use plan::{NetnsNames, Options, Plan, plan};
pub use sockets::{SocketFacts, SocketIterator};
