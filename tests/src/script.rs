//! Scripts of the traffic program `churn`, and the log that it writes.
//!
//! A script is a list of [`ScriptStep`]s; `churn` takes it as one JSON argument. Each attempt at something appends a
//! [`LogEntry`] to the log file, one JSON object per line, with the times of the kernel's own clock before and after
//! the call. The tests compare reports with the log, so it holds only what the system calls returned, and no
//! conclusions.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The work of one `churn` process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Script {
    /// File of the log. `churn` appends to it, so that forked children share it.
    pub log: PathBuf,
    /// Keep the log in memory until a step waits or the process ends, for traffic that writing would slow down.
    pub buffered: bool,
    /// Name for the thread; `None` keeps `churn`.
    pub comm: Option<String>,
    pub steps: Vec<ScriptStep>,
}

/// The system calls that make a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConnectMethod {
    Blocking,
    /// `O_NONBLOCK`, `poll()`, `SO_ERROR`.
    Poll,
    /// `sendto(MSG_FASTOPEN)`: there is no connect system call.
    FastOpen,
    /// `io_uring`; `io_uring_enter()` connects.
    Uring,
    /// `io_uring` with `IOSQE_ASYNC`: a kernel worker thread connects.
    UringAsync,
}

/// What the client does with an established connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AfterConnect {
    /// `close()` at once, as the active closer.
    Close,
    /// Read to the peer's FIN, then `close()`, as the passive closer.
    PeerCloses,
    /// Read to the peer's RST, then `close()`.
    PeerResets,
    /// `SO_LINGER` 0 and `close()`: sends RST instead of FIN.
    Linger0,
    /// shutdown(WR), read to the peer's FIN, `close()`.
    HalfClose,
    /// Keep it open until [`ScriptStep::CloseHeld`] or the end of the process.
    Hold,
}

/// What a server does with a connection that it has accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerBehaviour {
    /// Reads to the client's FIN, then closes.
    WaitForPeer,
    /// Answers the first bytes with a small HTTP response, then waits for the client's FIN.
    Answer,
    /// Closes first.
    CloseFirst,
    /// `SO_LINGER` 0: resets the connection.
    Reset,
    /// Never closes: the socket is in `CLOSE_WAIT` as soon as the client closes.
    Leak,
    /// Forks a child that reads to the client's FIN and closes; the parent only accepts.
    ForkEach,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ScriptStep {
    /// Make `times` connects, round robin over `to`.
    Connect {
        to: Vec<SocketAddr>,
        times: u32,
        via: ConnectMethod,
        bind: Option<SocketAddr>,
        reuse_addr: bool,
        then: AfterConnect,
        pause_us: u64,
    },
    /// Close every held connection.
    CloseHeld { then: AfterConnect },
    /// Make `times` connects on one socket, going on after each failure, and hold the socket at the end.
    RetryOneSocket { to: SocketAddr, times: u32, pause_us: u64 },
    /// Start a non-blocking connect, then `close()` after `after_ms`, while the socket is still in `SYN_SENT`.
    Abandon { to: SocketAddr, times: u32, after_ms: u64 },
    /// `bind()` `times` sockets and hold them; port 0 asks for any port.
    Bind { addr: SocketAddr, times: u32, reuse_addr: bool },
    /// Listen without accepting, and hold the socket.
    Listen { addr: SocketAddr, backlog: i32 },
    /// Close the sockets of [`ScriptStep::Listen`].
    CloseListeners,
    /// Listen and serve until killed.
    Serve { addr: SocketAddr, manner: ServerBehaviour },
    /// Listen, fork `workers` that all accept from the same socket, and wait until killed.
    Prefork { addr: SocketAddr, workers: u32, manner: ServerBehaviour },
    /// Run `steps` in `count` threads at once.
    Threads { count: u32, steps: Vec<ScriptStep> },
    /// Run `steps` in `count` forked children (no exec), one after the other or at once.
    Fork { count: u32, at_once: bool, steps: Vec<ScriptStep> },
    /// Write a log entry, then wait until the file exists.
    WaitFor { file: PathBuf },
    /// Carry frames between two interfaces of this namespace, each with a delay of `delay_ms`.
    Relay { left: String, right: String, delay_ms: u64 },
}

impl ScriptStep {
    /// Blocking connects that close at once, the most common churn.
    pub fn churn(to: impl Into<Vec<SocketAddr>>, times: u32) -> Self {
        Self::connect(to, times, ConnectMethod::Blocking, AfterConnect::Close)
    }

    /// Connects from an unbound socket.
    pub fn connect(to: impl Into<Vec<SocketAddr>>, times: u32, via: ConnectMethod, then: AfterConnect) -> Self {
        Self::Connect { to: to.into(), times, via, bind: None, reuse_addr: false, then, pause_us: 0 }
    }
}

/// The call or moment that a [`LogEntry`] is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LoggedCall {
    Connect,
    Close,
    Bind,
    Listening,
    Accept,
    Waiting,
    /// The last entry of a process that ended on its own.
    Done,
}

/// One system call or moment of `churn`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    pub what: LoggedCall,
    /// `CLOCK_MONOTONIC` before and after the system call, nanoseconds.
    pub start_ns: u64,
    pub end_ns: u64,
    pub pid: u32,
    pub tid: u32,
    /// Number of the socket within its process; 0 without a socket.
    pub socket: u64,
    pub local: Option<SocketAddr>,
    pub remote: Option<SocketAddr>,
    /// 0 = success.
    pub errno: i32,
}

/// The log of one or more `churn` processes.
#[derive(Clone, Debug, Default)]
pub struct Log(pub Vec<LogEntry>);

/// A connection from its `connect()` to its `close()`, as the client saw it.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionTimes {
    pub pid: u32,
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub connect: (u64, u64),
    /// From the first call that could end the connection to the return of the last one. The socket of an active closer
    /// may live longer than its `close()`: the peer may delay the ACK of the FIN until it closes too.
    pub close: (u64, u64),
}

/// Converts an IPv4-mapped address to the IPv4 address.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

impl ConnectionTimes {
    /// Lower and upper bound of the lifetime that the kernel measures, in milliseconds: `SYN_SENT` lies inside
    /// `connect()`, and the end inside `close()`.
    pub fn bounds_ms(&self) -> (f64, f64) {
        let ms = |ns: u64| ns as f64 / 1e6;
        (ms(self.close.0.saturating_sub(self.connect.1)), ms(self.close.1.saturating_sub(self.connect.0)))
    }
}

impl Log {
    /// Reads a log file. A last line without its end is still being written and is left out.
    pub fn read(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let parse = |line: &str| serde_json::from_str(line).with_context(|| format!("{}: {line:?}", path.display()));
        whole.lines().map(parse).collect::<Result<_>>().map(Self)
    }

    pub fn of(&self, what: LoggedCall) -> impl Iterator<Item = &LogEntry> {
        self.0.iter().filter(move |entry| entry.what == what)
    }

    /// Process ids in order of appearance.
    pub fn pids(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        for entry in &self.0 {
            if !pids.contains(&entry.pid) {
                pids.push(entry.pid);
            }
        }
        pids
    }

    /// Connections that were established and closed by their process. `peers` is the log of the other side, if it
    /// writes one.
    pub fn lives(&self, peers: &Self) -> Vec<ConnectionTimes> {
        let mut peer_closes: HashMap<(SocketAddr, SocketAddr), Vec<&LogEntry>> = HashMap::new();
        for entry in peers.of(LoggedCall::Close) {
            if let (Some(local), Some(remote)) = (entry.local, entry.remote) {
                peer_closes.entry((canonical(remote), canonical(local))).or_default().push(entry);
            }
        }
        let mut open: HashMap<(u32, u64), &LogEntry> = HashMap::new();
        let mut lives = Vec::new();
        for entry in &self.0 {
            match entry.what {
                LoggedCall::Connect if entry.errno == 0 => {
                    open.insert((entry.pid, entry.socket), entry);
                }
                LoggedCall::Close => {
                    let Some(connect) = open.remove(&(entry.pid, entry.socket)) else { continue };
                    if let (Some(local), Some(remote)) = (connect.local, connect.remote) {
                        let peers = peer_closes.get(&(canonical(local), canonical(remote))).into_iter().flatten();
                        let peer = peers.map(|peer| peer.end_ns).find(|end| *end >= connect.start_ns);
                        lives.push(ConnectionTimes {
                            pid: entry.pid,
                            local,
                            remote,
                            connect: (connect.start_ns, connect.end_ns),
                            close: (entry.start_ns, entry.end_ns.max(peer.unwrap_or(0))),
                        });
                    }
                }
                _ => {}
            }
        }
        lives
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(what: LoggedCall, socket: u64, start_ns: u64, end_ns: u64, errno: i32) -> LogEntry {
        let addr = "127.0.0.1:80".parse().expect("an address");
        LogEntry { what, start_ns, end_ns, pid: 7, tid: 7, socket, local: Some(addr), remote: Some(addr), errno }
    }

    #[test]
    fn a_life_needs_an_established_connect_and_a_close_of_the_same_socket() {
        let log = Log(vec![
            entry(LoggedCall::Connect, 1, 1_000_000, 2_000_000, 0),
            entry(LoggedCall::Connect, 2, 1_000_000, 2_000_000, 99),
            entry(LoggedCall::Close, 2, 3_000_000, 4_000_000, 0),
            entry(LoggedCall::Close, 1, 5_000_000, 6_000_000, 0),
        ]);
        let lives = log.lives(&Log::default());
        assert_eq!(lives.len(), 1);
        let (low, high) = lives[0].bounds_ms();
        assert!((low - 3.0).abs() < 1e-9 && (high - 5.0).abs() < 1e-9, "{low} {high}");
    }

    #[test]
    fn a_half_written_last_line_is_left_out() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        let line = serde_json::to_string(&entry(LoggedCall::Done, 0, 1, 2, 0)).expect("JSON");
        fs::write(&path, format!("{line}\n{{\"what\":\"Con")).expect("written");
        assert_eq!(Log::read(&path).expect("a log").0.len(), 1);
    }
}
