//! Proof that `portchurn` says what happened: a harness that makes real TCP traffic whose exact course is known, traces
//! it with the real binary, and compares.
//!
//! * [`script`] is the language of the traffic program `churn` and of the log that it keeps of its own doings;
//! * [`netns`] gives every test network namespaces of its own, with their sysctls, links and delays;
//! * [`process`] starts and ends processes, and polls for conditions with a deadline: nothing here waits by sleeping
//!   alone;
//! * [`tracer`] runs `portchurn` and reads its output; [`ss`] asks the kernel for the same facts on another way;
//! * [`load`] makes the load of the benches and reads what everybody spent meanwhile;
//! * [`recording`] has what the scenarios of recordings share;
//! * [`screen`] is a terminal with the full-screen view in it;
//! * [`hidden`] proves what no tracer could have seen;
//! * [`compare`] holds one against the other.
//!
//! Guards clean up when they are dropped, in reverse order of creation, also when a test panics. A test that lacks
//! something says so and is skipped ([`require!`]); where `CI` or `PORTCHURN_TESTS_NO_SKIP` is set, it fails instead.
//!
//! Not for unit tests of the tracer: those are next to its code and need no root.

#![forbid(unsafe_code)]

pub use e2e_protocol::SKIPPED;

pub mod compare;
pub mod hidden;
pub mod hooks;
pub mod lab;
pub mod load;
pub mod netns;
pub mod process;
pub mod recording;
pub mod reported;
pub mod require;
pub mod screen;
pub mod script;
pub mod ss;
pub mod tracer;
