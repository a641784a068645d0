//! `portchurn report`: the verdict on a recording, or on a live trace until its time is up or a signal comes.

use std::io::{self, IsTerminal as _};
use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::Result;

use super::session::LiveTrace;
use super::{output, signals};
use crate::cli::{ReportConfig, ReportSource, TraceConfig};
use crate::stdio::say;
use tracer_core::clock::Clock;
use tracer_core::host::HostFacts;
use tracer_core::tracker::Tracker;
use tracer_core::tracker::snapshot::{NoticeKinds, Snapshot};

/// Prints the report.
///
/// # Errors
/// The trace could not start ([`super::StartError`]), the recording could not be read
/// ([`ReplayError`](tracer_core::replay::ReplayError)), or stdout could not be written to.
pub fn run(config: &ReportConfig) -> Result<()> {
    let (snapshot, host, clock) = match &config.source {
        ReportSource::Recording { file, by } => {
            let played = output::play(file, *by)?;
            (played.tracker.snapshot(), played.host, played.clock)
        }
        ReportSource::Trace { trace, duration } => traced(trace, *duration)?,
    };
    let snapshot = config.filter.as_ref().map_or_else(|| snapshot.clone(), |filter| filter.narrow(&snapshot));
    output::report(&snapshot, &host, &clock, config.format)
}

fn traced(trace: &TraceConfig, duration: Duration) -> Result<(Snapshot, HostFacts, Clock)> {
    let live = LiveTrace::start(trace, NoticeKinds::default(), &signals::watch()?)?;
    live.ready();
    if io::stderr().is_terminal() {
        say(format_args!("tracing for {duration:?}; Ctrl-C ends it early and prints the report"));
    }
    let clock = live.clock;
    let finished = live.run(Some(duration), &mut |_: &mut Tracker| ControlFlow::Continue(()))?;
    Ok((finished.tracker.snapshot(), finished.host, clock))
}
