//! Runs a command: threads, bounded channels, signals, privileges.
//!
//! ```text
//! reader (ring buffer) --batches--> tracker (sole owner, also formats) --> stdout
//! baseline (sock_diag) --facts----> reader, which orders them behind the records that came before
//! main: signals and timers (tokio), then stop -> drain -> last word
//! ```

pub mod doctor;
mod privileges;
mod session;
mod signals;

use std::io::{self, IsTerminal as _, Write as _};
use std::ops::ControlFlow;

use anyhow::{Context as _, Result};
use jiff::tz::TimeZone;

pub use session::{Live, StartError};

use crate::cli::{ReportArgs, StreamArgs};
use crate::filter::Filter;
use crate::report;
use crate::stream;
use crate::tracker::{Tracker, Wanted};

/// `portchurn report`: trace until the time is up or a signal comes, then print.
pub fn report(args: &ReportArgs) -> Result<()> {
    let live = Live::start(&args.trace, Wanted::default())?;
    let progress = io::stderr().is_terminal();
    live.ready();
    if progress {
        eprintln!("portchurn: tracing {}; Ctrl-C ends it and prints the report", args.duration.map_or_else(|| "until stopped".into(), |d| format!("for {d:#}")));
    }
    let (clock, zone) = (live.clock, TimeZone::system());
    let finished = live.run(args.duration, |_| ControlFlow::Continue(()))?;
    let mut snapshot = finished.tracker.snapshot();
    if let Some(filter) = &args.filter {
        report::apply(&mut snapshot, filter);
    }
    let mut out = io::stdout().lock();
    let written = if args.json {
        let json = report::Report::new(&snapshot, &finished.host, &clock).to_json().context("serialising the report")?;
        writeln!(out, "{json}")
    } else {
        let style = report::Style::for_terminal(out.is_terminal());
        write!(out, "{}", report::text(&snapshot, &finished.host, &clock, &zone, style))
    };
    match written.and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("writing the report to stdout"),
    }
}
