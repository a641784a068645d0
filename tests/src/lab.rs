//! A network namespace and a scratch directory for the traffic of one test.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::netns::TestNamespace;
use crate::process::{Running, until};
use crate::script::{Log, LogEntry, LoggedCall, Script, ScriptStep, ServerBehaviour};
use crate::ss::SocketListing;

/// Limit of one script, enough for the slowest one on an emulated machine.
pub const LIMIT: Duration = Duration::from_secs(120);

/// A namespace and a directory. The directory is the last field, so that it is removed after everything that writes
/// into it.
#[derive(Debug)]
pub struct Lab {
    pub ns: TestNamespace,
    dir: TempDir,
}

impl Lab {
    /// Creates both, with `tcp_rfc1337` set, so that each `TIME_WAIT` lasts its minute. Without it a late ACK from
    /// another CPU reaches the minisocket, which answers after the peer's socket has gone; the RST that comes back ends
    /// the minisocket early (RFC 1337), and scenarios that count ports were off by one now and then.
    pub fn new() -> Result<Self> {
        let ns = TestNamespace::new()?;
        ns.sysctl(&[("ipv4/tcp_rfc1337", "1")])?;
        Ok(Self { ns, dir: tempfile::Builder::new().prefix("portchurn-tests-").tempdir()? })
    }

    /// The same with a small port range, so that exhaustion takes milliseconds. The range must start on an even port
    /// and have an even size.
    pub fn with_ports(low: u16, high: u16) -> Result<Self> {
        let lab = Self::new()?;
        lab.ns.port_range(low, high)?;
        Ok(lab)
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn netns(&self) -> u32 {
        self.ns.inode()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Creates the file for which scripts wait in [`Lab::wait_for`].
    pub fn go(&self, name: &str) -> Result<()> {
        File::create(self.file(name)).map(drop).context("the signal file")
    }

    pub fn wait_for(&self, name: &str) -> ScriptStep {
        ScriptStep::WaitFor { file: self.file(name) }
    }

    /// Starts `churn` in this lab's namespace.
    pub fn start(&self, name: &str, steps: Vec<ScriptStep>) -> Result<Traffic> {
        self.start_in(&self.ns, name, steps)
    }

    pub fn start_in(&self, ns: &TestNamespace, name: &str, steps: Vec<ScriptStep>) -> Result<Traffic> {
        self.start_script(ns, name, &Script { log: self.log_path(name), buffered: false, comm: None, steps })
    }

    pub fn log_path(&self, name: &str) -> PathBuf {
        self.file(&format!("{name}.log"))
    }

    pub fn start_script(&self, ns: &TestNamespace, name: &str, script: &Script) -> Result<Traffic> {
        let log = script.log.clone();
        let mut command = ns.command(churn()?);
        command.arg(serde_json::to_string(script)?);
        Ok(Traffic { running: Running::start(command, self.dir(), name)?, log })
    }

    /// Starts a server and waits until it listens.
    pub fn serve(&self, name: &str, addr: &str, manner: ServerBehaviour) -> Result<Traffic> {
        self.serve_in(&self.ns, name, addr, manner)
    }

    pub fn serve_in(&self, ns: &TestNamespace, name: &str, addr: &str, manner: ServerBehaviour) -> Result<Traffic> {
        let addr: SocketAddr = addr.parse().context("an address")?;
        let mut server = self.start_in(ns, name, vec![ScriptStep::Serve { addr, manner }])?;
        server.entry(LoggedCall::Listening)?;
        Ok(server)
    }

    /// Runs steps in this lab's namespace to their end.
    pub fn run(&self, name: &str, steps: Vec<ScriptStep>) -> Result<Log> {
        self.start(name, steps)?.finish()
    }

    /// Waits until at most `staying` full sockets are left: a connection ends when its server closes it, which may be
    /// long after the client's close().
    pub fn quiet(&self, staying: usize) -> Result<SocketListing> {
        until("the last full sockets to go", LIMIT, || {
            let listing = SocketListing::take(&self.ns)?;
            let full = listing.rows.iter().filter(|row| !row.minisocket).count();
            Ok((full <= staying).then_some(listing))
        })
    }
}

/// Path of the traffic program, which cargo puts one directory above the test binaries.
fn churn() -> Result<PathBuf> {
    let test = std::env::current_exe().context("this test's own path")?;
    let found = test.ancestors().skip(1).take(2).map(|dir| dir.join("churn")).find(|path| path.is_file());
    found.context("churn (build it with `cargo build -p portchurn-tests`)")
}

/// A running `churn`.
#[derive(Debug)]
pub struct Traffic {
    pub running: Running,
    log: PathBuf,
}

impl Traffic {
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    pub fn log(&self) -> Result<Log> {
        Log::read(&self.log)
    }

    /// Waits for the first entry of a kind.
    pub fn entry(&mut self, what: LoggedCall) -> Result<LogEntry> {
        self.entries(what, 1).map(|mut entries| entries.remove(0))
    }

    /// Waits for `count` entries of a kind.
    pub fn entries(&mut self, what: LoggedCall, count: usize) -> Result<Vec<LogEntry>> {
        let (log, running) = (&self.log, &mut self.running);
        until(&format!("{count} x {what:?} in {}", log.display()), LIMIT, || {
            let found: Vec<LogEntry> = Log::read(log)?.of(what).cloned().collect();
            if found.len() >= count {
                return Ok(Some(found));
            }
            if let Some(status) = running.ended()? {
                bail!("ended with {status}: {}", running.stderr());
            }
            Ok(None)
        })
    }

    /// Waits for the end of the script; fails if the script failed.
    pub fn finish(&mut self) -> Result<Log> {
        self.running.succeed(LIMIT)?;
        self.log()
    }
}

/// Parses an address of a scenario.
///
/// # Panics
///
/// If it is none.
#[track_caller]
pub fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}
