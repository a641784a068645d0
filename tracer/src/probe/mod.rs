//! What this host lets us see, decided before anything is loaded.
//!
//! Three steps, each a function: [`host`] collects facts, [`mod@plan`] decides from them alone (and so can be tested for any
//! kernel), [`attach`] loads and yields a [`Session`]. A hook that cannot be had becomes a [`Degradation`](tracer_core::host::Degradation) that every
//! output carries; only a host that cannot show state transitions at all is an error.

pub mod attach;
pub mod hooks;
pub mod host;
pub mod plan;

pub use attach::{HookState, ProbeError, Session, Tier};
pub use hooks::Hook;
pub use host::Host;
pub use plan::{NetnsNames, Options, Plan, plan};
