//! stdout and stderr, which may be closed at any time: a reader ends, a terminal hangs up.
//!
//! Nothing that is said on stderr is worth ending for, so a message that nobody takes is dropped (`eprintln!` would panic).

use std::fmt::Display;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::errno::Errno;
use nix::sys::stat::{SFlag, fstat};

use tracer_core::layout::text;

/// Most lines of diagnostics that are printed. One could repeat for every connect; the first few tell enough.
const MAX_LINES: u32 = 20;

/// Lines that wait until the full-screen view ends.
static HELD: Mutex<Option<Vec<String>>> = Mutex::new(None);

/// Says something on stderr, as a line of `portchurn`. Its lines stay lines; every other control character is replaced.
pub fn say(message: impl Display) {
    say_line(format!("portchurn: {message}"));
}

/// Prints a line on stderr as it is, apart from control characters.
pub fn say_line(line: impl Display) {
    let text = line.to_string();
    let safe: Vec<_> = text.split('\n').map(|line| text::safe(line, true)).collect();
    let line = safe.join("\n");
    match &mut *HELD.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(lines) => lines.push(line),
        None => print(&line),
    }
}

/// One write, so that lines of other processes do not come between.
fn print(line: &str) {
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
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
        let lines = HELD.lock().unwrap_or_else(PoisonError::into_inner).take();
        for line in lines.unwrap_or_default() {
            print(&line);
        }
    }
}

/// True if a write to stdout failed because nobody reads any more: the reader of a pipe has ended, or a terminal was closed. The same
/// error of a file (`EIO`) is an error.
pub fn reader_has_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
        || error.raw_os_error() == Some(Errno::EIO as i32)
            && fstat(io::stdout())
                .is_ok_and(|found| SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFCHR)
}

/// The logger for diagnostics of the BPF programs and their loader: a bounded number of lines.
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
            line if line < MAX_LINES => say(record.args()),
            MAX_LINES => say("further diagnostics are not shown"),
            _ => {}
        }
    }

    fn flush(&self) {}
}

static LOGGER: StderrLog = StderrLog { lines: AtomicU32::new(0) };

/// Installs the logger.
pub fn init_log() {
    // Fails only if a logger is installed already, which then stays.
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}
