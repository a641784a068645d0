//! Where the kernel side's rare diagnostics go: stderr, a few a minute at the most.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};

/// A misbehaving kernel could repeat one diagnostic for every connect; the first few say it all.
const MAX_LINES: u32 = 20;

struct StderrLog {
    lines: AtomicU32,
}

impl Log for StderrLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        match self.lines.fetch_add(1, Ordering::Relaxed) {
            line if line < MAX_LINES => say(format!("portchurn: {}", record.args())),
            MAX_LINES => say("portchurn: further diagnostics are not shown".into()),
            _ => {}
        }
    }

    fn flush(&self) {}
}

/// Lines that wait for the screen to be given back; at most [`MAX_LINES`] and one.
static HELD: Mutex<Option<Vec<String>>> = Mutex::new(None);

fn say(line: String) {
    match &mut *HELD.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(lines) => lines.push(line),
        None => eprintln!("{line}"),
    }
}

/// Diagnostics would draw over a full-screen view: while this lives they wait, then they are printed.
pub struct HeldLines;

impl HeldLines {
    /// From here on.
    pub fn begin() -> Self {
        *HELD.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
        Self
    }
}

impl Drop for HeldLines {
    fn drop(&mut self) {
        for line in HELD.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default() {
            eprintln!("{line}");
        }
    }
}

static LOGGER: StderrLog = StderrLog { lines: AtomicU32::new(0) };

/// Takes diagnostics from here on.
pub fn init() {
    // Only a second call could fail, and then the first one stands.
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}
