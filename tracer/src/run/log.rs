//! Where the kernel side's rare diagnostics go: stderr, a few a minute at the most.

use std::sync::atomic::{AtomicU32, Ordering};

use log::{Level, LevelFilter, Log, Metadata, Record};

/// A misbehaving kernel could repeat one diagnostic for every connect; the first few say it all.
const MAX_LINES: u32 = 20;

struct Stderr {
    lines: AtomicU32,
}

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        match self.lines.fetch_add(1, Ordering::Relaxed) {
            line if line < MAX_LINES => eprintln!("portchurn: {}", record.args()),
            MAX_LINES => eprintln!("portchurn: further diagnostics are not shown"),
            _ => {}
        }
    }

    fn flush(&self) {}
}

static LOGGER: Stderr = Stderr { lines: AtomicU32::new(0) };

/// Takes diagnostics from here on.
pub fn init() {
    // Only a second call could fail, and then the first one stands.
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}
