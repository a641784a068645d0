//! `portchurn report`: the verdict on recordings, or on a live trace until its time is up or a signal comes.

use std::io::{self, IsTerminal as _};
use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::session::LiveTrace;
use super::{output, recordings, signals};
use crate::cli::{OutputFormat, ReportConfig, ReportSource, TraceConfig};
use crate::stdio::say;
use tracer_core::clock::Clock;
use tracer_core::host::HostFacts;
use tracer_core::report::json::{Report, Reports};
use tracer_core::tracker::Tracker;
use tracer_core::tracker::snapshot::{NoticeKinds, Snapshot};

/// Prints the report: of recordings of several hosts or boots one for each.
///
/// # Errors
/// The trace could not start ([`super::StartError`]), the recordings could not be read (`recordings::read`), or stdout could not be
/// written to.
pub fn run(config: &ReportConfig) -> Result<()> {
    let input = match &config.source {
        ReportSource::Recording(input) => input,
        ReportSource::Trace { trace, duration, filter } => {
            let (snapshot, host, clock) = traced(trace, *duration)?;
            let snapshot = filter.as_ref().map(|filter| filter.narrow(&snapshot)).unwrap_or(snapshot);
            return output::report(&snapshot, &host, &clock, config.format);
        }
    };
    let all = recordings::read(input)?;
    if let [only] = &all[..] {
        return output::report(&only.snapshot, &only.host, &only.clock, config.format);
    }
    if config.format == OutputFormat::Json {
        let reports = all.iter().map(|one| Report::new(&one.snapshot, &one.host, &one.clock)).collect();
        return output::out(&Reports::new(reports).to_json().context("serialising the reports")?);
    }
    for (number, one) in all.iter().enumerate() {
        let blank = if number > 0 { "\n" } else { "" };
        output::out(&format!("{blank}== {}\n", one.name))?;
        output::report(&one.snapshot, &one.host, &one.clock, config.format)?;
    }
    Ok(())
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
