//! The line of progress of `portchurn record`, on a terminal.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::tee::RecorderProgress;
use tracer_core::layout::human::{self, between};
use tracer_core::tracker::Tracker;

/// The line is drawn again this often.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// A line on stderr that is drawn over again and again; nothing where stderr is no terminal.
pub struct ProgressLine {
    terminal: bool,
    began: Instant,
    shown: Instant,
    /// Events read when the line was last drawn.
    events: u64,
}

impl ProgressLine {
    /// Begins to count seconds.
    pub fn new() -> Self {
        let now = Instant::now();
        Self { terminal: io::stderr().is_terminal(), began: now, shown: now, events: 0 }
    }

    /// Draws the line if that is due.
    pub fn show(&mut self, tracker: &Tracker, progress: &RecorderProgress) {
        let passed = self.shown.elapsed();
        if !self.terminal || passed < PROGRESS_EVERY {
            return;
        }
        let (events, lost) = (tracker.read(), tracker.lost());
        let rate = events.saturating_sub(self.events) as f64 / passed.as_secs_f64();
        (self.shown, self.events) = (Instant::now(), events);
        // A terminal that cannot be written to is no reason to end a recording.
        let _ = write!(
            io::stderr(),
            "\r\x1b[Krecording {} s  {rate:.0} events/s  {} lost  {}",
            self.began.elapsed().as_secs(),
            between(lost.certain(), lost.upper_bound(), |count| count.to_string()),
            human::bytes(progress.bytes.load(Ordering::Relaxed)),
        );
    }

    /// Removes the line, for other output.
    pub fn clear(&self) {
        if self.terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
