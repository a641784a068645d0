//! The harness of the end-to-end tests: it makes real TCP traffic whose exact course is known, traces it with the real
//! binary, and compares. tests/README.md says what each suite proves.
//!
//! * [`script`] has the scripts of the traffic program `churn` and the log that `churn` writes;
//! * [`netns`] creates network namespaces for one test, with sysctls, links and delays;
//! * [`process`] starts and ends processes, and polls for conditions with a deadline: no test waits by sleeping alone;
//! * [`tracer`] runs `portchurn`, [`reported`] has its parsed output, [`ss`] gets the same facts from the kernel in
//!   another way;
//! * [`lab`] puts these together: a namespace, a directory, and traffic in them;
//! * [`load`] makes the load of the benches and reads the costs of programs and processes;
//! * [`recording`] has what the recording scenarios share;
//! * [`screen`] runs the full-screen view in a terminal;
//! * [`hooks`] reads the hooks and prototypes that the sources of the BPF programs declare;
//! * [`hidden`] counts transitions that no tracer could see;
//! * [`compare`] compares the log of the traffic with the report;
//! * [`mod@require`] skips tests that lack something.
//!
//! Guards clean up when they are dropped, in reverse order of creation, also when a test panics. A test that lacks
//! something is skipped and prints what it lacks ([`require!`]); where `CI` or `PORTCHURN_TESTS_NO_SKIP` is set, it
//! fails instead.
//!
//! Not for unit tests of the tracer: they are next to its code and need no root.

#![forbid(unsafe_code)]

pub mod compare;
pub mod floods;
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
