//! `portchurn demo`: a real exhaustion in network namespaces of its own, traced like any other.

use std::io;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::output::{self, colour};
use super::session::LiveTrace;
use super::signals;
use super::stop::Patience;
use crate::cli::{OutputFormat, TraceConfig};
use crate::demo::{DemoCounts, Incident};
use crate::stdio::say_line;
use crate::stream::{Stream, StreamFormat, StreamKind, StreamSelection, StreamState};
use tracer_core::filter::{self, Filter};
use tracer_core::tracker::Tracker;
use tracer_core::tracker::snapshot::{Notice, NoticeKinds};

/// Failures shown one by one; the rest is in the report.
const SHOWN_FAILURES: u32 = 5;
/// The workload's own counts are printed this often.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);
/// The trace goes on this long after the traffic has ended. The last records arrive well within it.
const AFTERMATH: Duration = Duration::from_millis(500);

/// Builds the incident, traces it, explains it, removes it.
///
/// # Errors
/// The trace could not start ([`super::StartError`]), the incident could not be built, or Ctrl-C ended it before its first connection.
pub fn run() -> Result<()> {
    let notices = NoticeKinds { failures: true, ..NoticeKinds::default() };
    let stop = signals::watch()?;
    let live = LiveTrace::start(&TraceConfig::default(), notices, &stop)?;
    live.ready();
    say("Two network namespaces, a backend, and checkout-api with 1,024 ports to reach it.")?;
    say("One worker uses a pool; the other opens a connection per call. Failures as they happen:\n")?;
    let clock = live.clock;
    let format = StreamFormat::Text { colour: colour(), width: output::width(), zone: jiff::tz::TimeZone::system() };
    let mut lines =
        Stream::new(io::stdout(), format, [StreamKind::Failures].into_iter().collect::<StreamSelection>(), clock, true);
    // Dropped on every way out of here, which ends all its processes.
    stop.set_patience(Patience::Short);
    let mut incident = Incident::start().context("building the incident")?;
    stop.set_patience(Patience::Unlimited);
    let netns = Filter::parse(&format!("netns={}", incident.netns().inode)).context("the demo's own filter")?;
    let mut watcher = IncidentWatcher { shown: 0, told: Instant::now(), over: None, counts: None };
    let mut trouble = None;
    let finished =
        live.run(
            None,
            &mut |tracker: &mut Tracker| match watcher.on_fed(tracker, &mut incident, &netns, &mut lines) {
                Ok(flow) => flow,
                Err(error) => {
                    trouble = Some(error);
                    ControlFlow::Break(())
                }
            },
        )?;
    if let Some(error) = trouble {
        return Err(error);
    }
    let own = match watcher.counts {
        Some(counts) => counts,
        None => incident.poll()?.total(),
    };
    drop(incident);
    if own.connected == 0 {
        bail!("ended before the workload had made a connection");
    }
    let snapshot = netns.narrow(&finished.tracker.snapshot());
    say("")?;
    output::report(&snapshot, &finished.host, &clock, OutputFormat::Text)?;
    let seen: u64 = snapshot.destinations.iter().map(|dest| dest.failed.without_port()).sum();
    let established: u64 = snapshot.destinations.iter().map(|dest| dest.established).sum();
    say(&format!(
        "\nThe workload itself counted {} connections and {} EADDRNOTAVAIL; portchurn saw {established} and {seen}.\n\
         Everything that the demo made is gone again.",
        own.connected, own.exhausted
    ))
}

/// Prints the first failures and the workload's counts while the incident runs.
struct IncidentWatcher {
    shown: u32,
    told: Instant,
    over: Option<Instant>,
    counts: Option<DemoCounts>,
}

impl IncidentWatcher {
    fn on_fed<W: io::Write>(
        &mut self,
        tracker: &mut Tracker,
        incident: &mut Incident,
        netns: &Filter,
        lines: &mut Stream<W>,
    ) -> Result<ControlFlow<()>> {
        for notice in filter::notices(tracker, Some(netns)) {
            if self.shown < SHOWN_FAILURES && matches!(notice, Notice::FailedConnect(_)) {
                self.shown += 1;
                if lines.notice(&notice).context("writing to stdout")? == StreamState::Closed {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        if let Some(over) = self.over {
            return Ok(if over.elapsed() > AFTERMATH { ControlFlow::Break(()) } else { ControlFlow::Continue(()) });
        }
        let progress = incident.poll()?;
        let counts = progress.total();
        if progress.finished {
            self.over = Some(Instant::now());
            self.counts = Some(counts);
        } else if self.told.elapsed() >= PROGRESS_EVERY {
            self.told = Instant::now();
            say_line(format_args!(
                "checkout-api says: {} connections, {} times no port",
                counts.connected, counts.exhausted
            ));
        }
        Ok(ControlFlow::Continue(()))
    }
}

fn say(text: &str) -> Result<()> {
    output::out(&format!("{text}\n"))
}
