//! The binary under test: starts it, waits for its ready line, ends it with a signal, and parses its output.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e_protocol::HIDDEN_BY_KERNEL;
use nix::sys::signal::Signal;

use crate::hidden::HiddenTransitions;
use crate::process::{Running, until};
use crate::reported::{ParsedReport, StreamLine};

/// Limit from the start to the ready line: a fraction of a second, under QEMU emulation much longer.
const READY: Duration = Duration::from_secs(60);
/// Limit from the signal to the last byte of a report.
const END: Duration = Duration::from_secs(60);

/// Path of the binary under test: `PORTCHURN_BIN`, else the newest build of this workspace.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("PORTCHURN_BIN").map(PathBuf::from) {
        ensure!(path.is_file(), "PORTCHURN_BIN={} (no such file)", path.display());
        return Ok(path);
    }
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace")?.join("target");
    let built = |profile: &str| Some(target.join(profile).join("portchurn")).filter(|path| path.is_file());
    let age = |path: &PathBuf| path.metadata().and_then(|data| data.modified()).ok();
    [built("release"), built("debug")]
        .into_iter()
        .flatten()
        .max_by_key(age)
        .context("portchurn (build it with `cargo build -p tracer`, or name it in PORTCHURN_BIN)")
}

/// A running `portchurn`.
#[derive(Debug)]
pub struct Tracer {
    running: Running,
    hidden: Option<HiddenTransitions>,
}

impl Tracer {
    /// Starts `portchurn` with `arguments` and waits until it is attached.
    pub fn start(dir: &Path, name: &str, arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary()?);
        command.args(arguments);
        Self::start_command(command, dir, name)
    }

    /// The same for a command that executes `portchurn`, e.g. setpriv.
    pub fn start_command(command: Command, dir: &Path, name: &str) -> Result<Self> {
        let mut running = Running::start(command, dir, name)?;
        until("the line `portchurn: ready`", READY, || {
            if running.stderr().lines().any(|line| line.starts_with("portchurn: ready")) {
                return Ok(Some(()));
            }
            if let Some(status) = running.ended()? {
                bail!("ended before it was ready: {status}: {}", running.stderr());
            }
            Ok(None)
        })
        .with_context(|| format!("stderr so far: {}", running.stderr()))?;
        // Without perf or the program a failed test stays failed.
        let hidden = HiddenTransitions::start(running.pid()).ok();
        Ok(Self { running, hidden })
    }

    pub fn report(dir: &Path) -> Result<Self> {
        Self::start(dir, "report", &["report", "--json", "--for", "600s"])
    }

    /// Reports one workload per process, so that no sum includes processes of other namespaces, i.e. of other tests.
    pub fn report_by_pid(dir: &Path) -> Result<Self> {
        Self::start(dir, "report", &["report", "--json", "--for", "600s", "--by", "pid"])
    }

    pub fn stream(dir: &Path, what: &str) -> Result<Self> {
        Self::start(dir, "stream", &["stream", "--json", "--what", what, "--for", "600s"])
    }

    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// What it has said so far.
    pub fn stderr(&self) -> String {
        self.running.stderr()
    }

    /// The process, for a test that ends it. Hidden transitions are no longer counted, because the counter would keep
    /// the program loaded.
    pub fn running(&mut self) -> &mut Running {
        self.report_hidden();
        &mut self.running
    }

    /// Ends the tracer with SIGTERM and returns its standard output.
    pub fn finish(mut self) -> Result<String> {
        self.report_hidden();
        self.running.signal(Signal::SIGTERM)?;
        let status = self.running.wait(END)?;
        ensure!(status.success(), "{status} after SIGTERM: {}", self.running.stderr());
        Ok(self.running.stdout())
    }

    /// Prints the number of transitions that no tracer could have seen, for `cargo xtask e2e`.
    fn report_hidden(&mut self) {
        match self.hidden.take().map(|mut hidden| hidden.count()) {
            Some(Ok(hidden)) if hidden > 0 => eprintln!("{HIDDEN_BY_KERNEL}: {hidden} transitions"),
            Some(Err(error)) => eprintln!("hidden transitions unknown: {error:#}"),
            _ => {}
        }
    }

    pub fn finish_report(self) -> Result<ParsedReport> {
        let text = self.finish()?;
        serde_json::from_str(&text).with_context(|| format!("a report: {text:.400}"))
    }

    pub fn finish_stream(self) -> Result<Vec<StreamLine>> {
        lines(&self.finish()?)
    }

    /// The lines of a stream so far; a line that is still being written is left out.
    pub fn lines(&self) -> Result<Vec<StreamLine>> {
        let text = self.running.stdout();
        lines(text.rfind('\n').map_or("", |end| &text[..end]))
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.report_hidden();
    }
}

fn lines(text: &str) -> Result<Vec<StreamLine>> {
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("a line of the stream: {line:?}")))
        .collect()
}
