//! `portchurn live`: the trace on one side, the screen on the other, a slot with the newest frame between them.
//!
//! The tracker's owner makes the frames, between two batches and never more often than they can be read; the screen has a
//! thread of its own, so that neither waits for the other. Rights are checked, and refused with words, before the
//! terminal is taken.

use std::io::{self, IsTerminal as _};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use jiff::tz::TimeZone;

use super::session::Live;
use super::{colour, log, stream};
use crate::cli::{LiveArgs, ScreenArgs, StreamArgs};
use crate::filter::Filter;
use crate::tracker::Tracker;
use crate::tracker::snapshot::Wanted;
use crate::tracker::snapshot::detail::Wish;
use crate::tui::app::App;
use crate::tui::feed::{self, Frame, Order, Publisher, Status};
use crate::tui::{About, Look, terminal};

/// Frames are made this often while something happens ...
const CADENCE: Duration = Duration::from_millis(100);
/// ... and this often while only the clock moves.
const IDLE_CADENCE: Duration = Duration::from_secs(1);
/// A frame of a huge table costs more: the tracker spends at most one part in so many on frames.
const COST_FACTOR: u32 = 10;

/// The full-screen view of this host, or `stream` where stdout is no terminal.
///
/// # Errors
/// The trace could not start ([`super::StartError`]), or the terminal not be used.
pub fn live(args: &LiveArgs, filter: Option<Filter>) -> Result<()> {
    if !io::stdout().is_terminal() {
        let stream_args =
            StreamArgs { trace: args.trace.clone(), what: None, json: false, duration: None, filter: Vec::new() };
        return stream(&stream_args, filter.as_ref());
    }
    let live = Live::start(&args.trace, Wanted { history: true, ..Wanted::default() })?;
    let about = About { host: live.host().clone(), clock: live.clock };
    let (app, look) = screen(about, &args.screen, filter, args.filter.join(" "));
    show(app, &look, |publisher| {
        let mut desk = Desk::new(publisher);
        live.run(None, move |tracker| desk.tend(tracker)).map(drop)
    })
}

fn screen(about: About, args: &ScreenArgs, filter: Option<Filter>, text: String) -> (App, Look) {
    let look = Look::from_env(colour(), args.ascii);
    (App::new(about, TimeZone::system(), filter, text), look)
}

/// Runs `publish` on this thread and the screen on another, until either ends.
fn show(app: App, look: &Look, publish: impl FnOnce(Publisher) -> Result<()>) -> Result<()> {
    let (publisher, viewer) = feed::feed();
    let _held = log::Hold::new();
    std::thread::scope(|scope| {
        let screen = std::thread::Builder::new()
            .name("screen".into())
            // The viewer goes with the thread, which tells the other side.
            .spawn_scoped(scope, move || terminal::run(&viewer, app, look))
            .context("starting the screen's thread")?;
        let published = publish(publisher);
        let shown = screen.join().map_err(|_| anyhow::anyhow!("the screen's thread panicked"))?;
        published?;
        shown.context("using the terminal")
    })
}

/// Where orders come in and frames go out.
struct Desk {
    publisher: Publisher,
    wish: Wish,
    due: Instant,
    last: Instant,
    read: u64,
}

impl Desk {
    fn new(publisher: Publisher) -> Self {
        let now = Instant::now();
        Self { publisher, wish: Wish::default(), due: now, last: now, read: u64::MAX }
    }

    /// Called after every batch.
    fn tend(&mut self, tracker: &Tracker) -> ControlFlow<()> {
        if self.publisher.over() {
            return ControlFlow::Break(());
        }
        let mut asked = false;
        while let Some(order) = self.publisher.order() {
            if let Order::Look(wish) = order {
                self.wish = wish;
                asked = true;
            }
        }
        let began = Instant::now();
        let quiet = tracker.events_read() == self.read && began < self.last + IDLE_CADENCE;
        if asked || (began >= self.due && !quiet) {
            self.read = tracker.events_read();
            self.last = began;
            self.publisher.publish(Frame {
                snapshot: tracker.snapshot(),
                details: tracker.details(&self.wish),
                status: Status::default(),
            });
            self.due = Instant::now() + CADENCE.max(began.elapsed() * COST_FACTOR);
        }
        ControlFlow::Continue(())
    }
}
