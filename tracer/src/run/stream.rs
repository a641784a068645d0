//! `portchurn stream`: one line per notice, as things happen.

use std::io::{self, IsTerminal as _};
use std::ops::ControlFlow;

use anyhow::{Context as _, Result};

use super::session::LiveTrace;
use super::stop::Patience;
use super::{output, signals};
use crate::cli::StreamConfig;
use crate::stream::{Stream, StreamState};
use tracer_core::tracker::Tracker;

/// Prints lines until the time is up, a signal comes, or nobody reads any more.
///
/// # Errors
/// The trace could not start ([`super::StartError`]), or a line could not be written.
pub fn run(config: &StreamConfig) -> Result<()> {
    let stop = signals::watch()?;
    let live = LiveTrace::start(&config.trace, config.selection.wanted(), &stop)?;
    let format = output::stream_format(config.format);
    let mut lines = Stream::new(io::stdout(), format, config.selection, live.clock, io::stdout().is_terminal());
    let mut failure = lines.header().err();
    live.ready();
    stop.set_patience(Patience::Short);
    let finished = live.run(config.duration, &mut |tracker: &mut Tracker| {
        let outcome = match &failure {
            None => output::notices(&mut lines, tracker, config.filter.as_ref()),
            Some(_) => return ControlFlow::Break(()),
        };
        match outcome {
            Ok(StreamState::Open) => ControlFlow::Continue(()),
            Ok(StreamState::Closed) => ControlFlow::Break(()),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    output::note_names_not_seen(&finished.tracker, config.filter.as_ref());
    failure.map_or(Ok(()), |error| Err(error).context("writing to stdout"))
}
