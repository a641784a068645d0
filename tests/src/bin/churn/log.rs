//! Writes the log of one process and its children.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use portchurn_tests::process::ktime_ns;
use portchurn_tests::script::{LogEntry, LoggedCall};

/// More bytes than any buffered script logs between two waits, so that no write disturbs the traffic.
const BUFFER: usize = 64 << 20;

pub struct Logger {
    out: Mutex<BufWriter<File>>,
    buffered: bool,
}

/// The socket of a system call, and its two ends.
#[derive(Clone, Copy, Default)]
pub struct SocketEnds {
    pub socket: u64,
    pub local: Option<SocketAddr>,
    pub remote: Option<SocketAddr>,
}

impl Logger {
    pub fn open(path: &Path, buffered: bool) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.with_context(|| format!("opening {}", path.display()))?;
        Ok(Self { out: Mutex::new(BufWriter::with_capacity(if buffered { BUFFER } else { 4096 }, file)), buffered })
    }

    /// Logs a call with the times before and after it.
    pub fn write(&self, what: LoggedCall, (start_ns, end_ns): (u64, u64), about: SocketEnds, errno: i32) -> Result<()> {
        let entry = LogEntry {
            what,
            start_ns,
            end_ns,
            pid: std::process::id(),
            tid: u32::try_from(nix::unistd::gettid().as_raw())?,
            socket: about.socket,
            local: about.local,
            remote: about.remote,
            errno,
        };
        let mut line = serde_json::to_vec(&entry)?;
        line.push(b'\n');
        let mut out = self.lock();
        out.write_all(&line)?;
        if !self.buffered {
            // One write() per line, so that lines of several processes do not mix.
            out.flush()?;
        }
        Ok(())
    }

    /// Logs a moment that has no socket.
    pub fn mark(&self, what: LoggedCall) -> Result<()> {
        let now = ktime_ns();
        self.write(what, (now, now), SocketEnds::default(), 0)
    }

    pub fn flush(&self) -> Result<()> {
        self.lock().flush().context("writing the log")
    }

    fn lock(&self) -> MutexGuard<'_, BufWriter<File>> {
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
