//! Sockets that a script holds, and the ways to end one.

use std::io::{ErrorKind, Read};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use portchurn_tests::process::ktime_ns;
use portchurn_tests::script::{AfterConnect, LoggedCall};
use socket2::{Domain, Socket, Type};

use crate::log::{Logger, SocketEnds};

/// Limit for the peer's FIN or RST; if it takes longer the scenario is broken.
const PEER: Duration = Duration::from_secs(30);

/// A new number for a socket. Unlike descriptors, the numbers are never re-used in a process.
pub fn number() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

/// The open sockets of a thread or process.
#[derive(Default)]
pub struct HeldSockets {
    pub connections: Vec<OpenConnection>,
    /// Bound sockets and sockets whose connect failed, held so that their ports stay taken.
    pub others: Vec<Socket>,
    pub listeners: Vec<Socket>,
}

pub struct OpenConnection {
    pub socket: Socket,
    pub about: SocketEnds,
}

impl HeldSockets {
    pub fn close(&mut self, then: AfterConnect, logger: &Logger) -> Result<()> {
        self.others.clear();
        self.connections.drain(..).try_for_each(|connection| end(connection, then, logger, None))
    }
}

pub fn tcp(domain_of: SocketAddr) -> Result<Socket> {
    Socket::new(Domain::for_address(domain_of), Type::STREAM, None).context("socket")
}

/// The local address; `None` for a socket without a port.
pub fn local(socket: &Socket) -> Option<SocketAddr> {
    socket.local_addr().ok().and_then(|addr| addr.as_socket()).filter(|addr| addr.port() != 0)
}

/// Ends a connection and logs the `close()`; with [`AfterConnect::Hold`] moves it to `keep` instead.
pub fn end(
    connection: OpenConnection,
    then: AfterConnect,
    logger: &Logger,
    keep: Option<&mut HeldSockets>,
) -> Result<()> {
    let mut socket = connection.socket;
    let mut start = ktime_ns();
    match then {
        AfterConnect::Close => {}
        AfterConnect::PeerCloses => drain(&mut socket, false)?,
        AfterConnect::PeerResets => drain(&mut socket, true)?,
        AfterConnect::Linger0 => socket.set_linger(Some(Duration::ZERO)).context("SO_LINGER")?,
        AfterConnect::HalfClose => {
            socket.shutdown(Shutdown::Write).context("shutdown")?;
            drain(&mut socket, false)?;
        }
        AfterConnect::Hold => {
            let keep = keep.context("nothing to hold it in")?;
            keep.connections.push(OpenConnection { socket, about: connection.about });
            return Ok(());
        }
    }
    if then == AfterConnect::PeerCloses {
        // The connection ends only now: the socket was in CLOSE_WAIT.
        start = ktime_ns();
    }
    drop(socket);
    logger.write(LoggedCall::Close, (start, ktime_ns()), connection.about, 0)
}

/// Reads to the peer's FIN, or with `reset` to its RST; fails at the other one.
fn drain(socket: &mut Socket, reset: bool) -> Result<()> {
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(PEER)).context("SO_RCVTIMEO")?;
    let mut bytes = [0; 4096];
    loop {
        match socket.read(&mut bytes) {
            Ok(0) if !reset => return Ok(()),
            Ok(0) => bail!("the peer closed where it should have reset"),
            Ok(_) => {}
            Err(error) if reset && error.kind() == ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error).context("reading to the end"),
        }
    }
}
