//! The active side: every way to ask for a connection that the kernel knows.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use io_uring::IoUring;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use portchurn_tests::process::ktime_ns;
use portchurn_tests::script::{Then, Via, What};
use socket2::{SockAddr, Socket};

use crate::log::{About, Logger};
use crate::raw;
use crate::sockets::{Connection, Held, end, local, number, tcp};

/// How a connection is to be made and ended.
pub struct Plan {
    pub via: Via,
    pub bind: Option<SocketAddr>,
    pub reuse_addr: bool,
    pub then: Then,
}

/// What a kind of connect needs besides the socket.
pub enum Connector {
    Plain,
    Uring(Box<IoUring>),
}

impl Connector {
    pub fn new(via: Via) -> Result<Self> {
        Ok(match via {
            Via::Uring | Via::UringAsync => Self::Uring(Box::new(IoUring::new(8).context("io_uring_setup")?)),
            Via::Blocking | Via::Poll | Via::FastOpen => Self::Plain,
        })
    }

    /// One connect to its end; the errno on failure.
    fn connect(&mut self, socket: &Socket, to: SocketAddr, via: Via) -> Result<i32> {
        let target = SockAddr::from(to);
        match (via, self) {
            (Via::Blocking, _) => Ok(errno(socket.connect(&target))),
            (Via::Poll, _) => {
                socket.set_nonblocking(true)?;
                let first = errno(socket.connect(&target));
                if first != Errno::EINPROGRESS as i32 {
                    return Ok(first);
                }
                poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE)?;
                Ok(socket.take_error()?.and_then(|error| error.raw_os_error()).unwrap_or(0))
            }
            (Via::FastOpen, _) => {
                Ok(errno(socket.send_to_with_flags(b"hello", &target, nix::libc::MSG_FASTOPEN).map(drop)))
            }
            (Via::Uring | Via::UringAsync, Self::Uring(ring)) => {
                Ok(-raw::uring_connect(ring, socket.as_fd(), &target, via == Via::UringAsync)?)
            }
            (Via::Uring | Via::UringAsync, Self::Plain) => anyhow::bail!("no ring"),
        }
    }
}

fn errno(result: io::Result<()>) -> i32 {
    result.err().and_then(|error| error.raw_os_error()).unwrap_or(0)
}

pub fn connect(to: SocketAddr, plan: &Plan, connector: &mut Connector, logger: &Logger, held: &mut Held) -> Result<()> {
    let socket = tcp(to)?;
    socket.set_reuse_address(plan.reuse_addr)?;
    if let Some(bind) = plan.bind {
        socket.bind(&bind.into()).context("bind before connect")?;
    }
    let start = ktime_ns();
    let errno = connector.connect(&socket, to, plan.via)?;
    let time = (start, ktime_ns());
    let about = About { socket: number(), local: local(&socket), remote: Some(to) };
    logger.write(What::Connect, time, about, errno)?;
    if errno == 0 { end(Connection { socket, about }, plan.then, logger, Some(held)) } else { Ok(()) }
}

/// Many connects on one socket: its cookie and its stale port stay while connections come and go.
pub fn retry(to: SocketAddr, times: u32, pause: Duration, logger: &Logger, held: &mut Held) -> Result<()> {
    let socket = tcp(to)?;
    for _ in 0..times {
        let start = ktime_ns();
        let errno = errno(socket.connect(&to.into()));
        let about = About { socket: number(), local: local(&socket), remote: Some(to) };
        logger.write(What::Connect, (start, ktime_ns()), about, errno)?;
        if errno == 0 {
            held.connections.push(Connection { socket, about });
            return Ok(());
        }
        std::thread::sleep(pause);
    }
    held.others.push(socket);
    Ok(())
}

/// Closes while the handshake is still on its way.
pub fn abandon(to: SocketAddr, after: Duration, logger: &Logger) -> Result<()> {
    let socket = tcp(to)?;
    socket.set_nonblocking(true)?;
    let start = ktime_ns();
    let errno = errno(socket.connect(&to.into()));
    let about = About { socket: number(), local: local(&socket), remote: Some(to) };
    logger.write(What::Connect, (start, ktime_ns()), about, errno)?;
    std::thread::sleep(after);
    let mut state = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    ensure!(poll(&mut state, PollTimeout::ZERO)? == 0, "the handshake was over before it could be abandoned");
    let start = ktime_ns();
    drop(socket);
    logger.write(What::Close, (start, ktime_ns()), about, 0)
}

pub fn bind(addr: SocketAddr, reuse_addr: bool, logger: &Logger, held: &mut Held) -> Result<()> {
    let socket = tcp(addr)?;
    socket.set_reuse_address(reuse_addr)?;
    let start = ktime_ns();
    let errno = errno(socket.bind(&addr.into()));
    let about = About { socket: number(), local: local(&socket), remote: None };
    logger.write(What::Bind, (start, ktime_ns()), about, errno)?;
    held.others.push(socket);
    Ok(())
}
