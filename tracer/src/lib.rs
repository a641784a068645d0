//! portchurn on a host: the probes, the sources of live events, the screen and the commands.
//!
//! What events mean is `tracer_core`, which knows none of this.

#![forbid(unsafe_code)]
#![warn(missing_docs)]
// A closed stderr would be a panic: `stdio::say`.
#![cfg_attr(not(test), deny(clippy::print_stderr))]

pub mod cli;
pub mod demo;
pub mod export;
pub mod host_clock;
pub mod names;
pub mod probe;
pub mod run;
pub mod source;
pub mod stdio;
pub mod stream;
pub mod tui;
