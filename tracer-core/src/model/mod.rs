//! What ports do when connections come and go: the one model behind every number that is not an observation.
//!
//! [`pool`] is the exact part: the local ports of one destination, chosen, held, released and re-used as the kernel does it, one event
//! after the other. [`forecast`] says when they run out, as a distribution: [`arrivals`] has what comes, [`holding`] for how long
//! connections hold their ports. [`timing`] has the times that the kernel keeps. Everything is pure: time is an argument, chance comes from a seed,
//! memory is bounded by the number of ports.
//!
//! Not for: what happens on this host. The tracker knows that, and hands it in.

pub mod arrivals;
pub mod forecast;
pub mod holding;
pub mod noise;
pub mod pool;
pub mod timing;
