//! The logger for diagnostics of the BPF programs and their loader: a bounded number of lines on stderr.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};

/// Most lines that are printed. A diagnostic could repeat for every connect; the first few tell enough.
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

/// Lines that wait until the full-screen view ends; at most [`MAX_LINES`] and one.
static HELD: Mutex<Option<Vec<String>>> = Mutex::new(None);

fn say(line: String) {
    match &mut *HELD.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(lines) => lines.push(line),
        None => eprintln!("{line}"),
    }
}

/// Holds lines back while it lives, because they would be drawn over a full-screen view. Dropping it prints them.
pub struct HeldLines;

impl HeldLines {
    /// Holds lines back from here on.
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

/// Installs the logger.
pub fn init() {
    // Fails only if a logger is installed already, which then stays.
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}
