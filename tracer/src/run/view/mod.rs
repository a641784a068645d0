//! The full-screen view: one thread makes frames, another draws them, and a slot between them holds the newest frame.
//!
//! The tracker's owner makes the frames, at most as often as they can be read. The screen has a thread of its own, so that neither waits
//! for the other. Whatever can fail early (missing capabilities, a file that is no recording) fails before the terminal is taken.

mod checkpoints;
mod live;
mod replay;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

pub use live::live;
pub use replay::replay;

use super::output;
use super::stop::end_process;
use crate::cli::exit;
use crate::stdio::HeldLines;
use crate::tui::app::App;
use crate::tui::channel::{self, Frame, Publisher, Status};
use crate::tui::{RenderOptions, TraceInfo, terminal};
use tracer_core::filter::Filter;
use tracer_core::tracker::Tracker;
use tracer_core::tracker::snapshot::detail::DetailRequest;

/// Least time between two frames.
const CADENCE: Duration = Duration::from_millis(100);
/// The screen looks for its end twenty times a second. After this long it never will.
const FAREWELL: Duration = Duration::from_millis(500);
/// Frames of a large table are made less often: their making takes at most one part in so many of the time.
const COST_FACTOR: u32 = 10;

fn screen(trace: TraceInfo, ascii: bool, filter: Option<&Filter>) -> (App, RenderOptions) {
    let options = RenderOptions::from_env(output::colour(), ascii);
    let text = filter.map(Filter::text).unwrap_or_default().to_owned();
    (App::new(trace, filter.cloned(), text), options)
}

/// Runs `publish` on this thread and the screen on another, until either ends.
fn run(app: App, options: RenderOptions, publish: impl FnOnce(Publisher) -> Result<()>) -> Result<()> {
    let (publisher, viewer) = channel::channel();
    let _held = HeldLines::begin();
    std::thread::scope(|scope| {
        let screen = std::thread::Builder::new()
            .name("screen".into())
            // The viewer is dropped with the thread, by which the publisher knows that the view is over.
            .spawn_scoped(scope, move || terminal::run(&viewer, app, options))
            .context("starting the screen's thread")?;
        let published = publish(publisher);
        // On a terminal that has hung up, the library that reads keys may never return. Everything else is done by now.
        let deadline = Instant::now() + FAREWELL;
        while !screen.is_finished() {
            if Instant::now() >= deadline {
                end_process(if published.is_ok() { exit::OK } else { exit::FAILED });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let shown = screen.join().map_err(|_| anyhow::anyhow!("the screen's thread panicked"))?;
        published?;
        shown.context("using the terminal")
    })
}

/// When the next frame is due, and which details it must have.
pub struct FrameSchedule {
    /// What the view shows in detail.
    pub details: DetailRequest,
    due: Instant,
}

impl Default for FrameSchedule {
    fn default() -> Self {
        Self::new()
    }
}

impl FrameSchedule {
    /// The first frame is due at once, without details.
    pub fn new() -> Self {
        Self { details: DetailRequest::default(), due: Instant::now() }
    }

    /// The next frame is due.
    pub fn is_due(&self) -> bool {
        Instant::now() >= self.due
    }

    /// Makes a frame now and publishes it.
    pub fn publish(&mut self, publisher: &Publisher, tracker: &Tracker, status: Status) {
        let began = Instant::now();
        publisher.publish(Frame { snapshot: tracker.snapshot(), details: tracker.details(&self.details), status });
        self.due = Instant::now() + CADENCE.max(began.elapsed() * COST_FACTOR);
    }
}
