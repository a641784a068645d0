//! The active side: makes connections in every way that the kernel offers.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use io_uring::IoUring;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use portchurn_tests::process::ktime_ns;
use portchurn_tests::script::{AfterConnect, ConnectMethod, LoggedCall};
use socket2::{SockAddr, Socket};

use crate::log::{Logger, SocketEnds};
use crate::raw;
use crate::sockets::{HeldSockets, OpenConnection, end, local, number, tcp};

/// How to make a connection and how to end it.
pub struct ConnectPlan {
    pub via: ConnectMethod,
    pub bind: Option<SocketAddr>,
    pub reuse_addr: bool,
    pub then: AfterConnect,
}

/// What a connect method needs besides the socket.
pub enum Connector {
    Plain,
    Uring(Box<IoUring>),
}

impl Connector {
    pub fn new(via: ConnectMethod) -> Result<Self> {
        Ok(match via {
            ConnectMethod::Uring | ConnectMethod::UringAsync => {
                Self::Uring(Box::new(IoUring::new(8).context("io_uring_setup")?))
            }
            ConnectMethod::Blocking | ConnectMethod::Poll | ConnectMethod::FastOpen => Self::Plain,
        })
    }

    /// Connects and waits for the result: 0, or the errno of the failure.
    fn connect(&mut self, socket: &Socket, to: SocketAddr, via: ConnectMethod) -> Result<i32> {
        let target = SockAddr::from(to);
        match (via, self) {
            (ConnectMethod::Blocking, _) => Ok(errno(socket.connect(&target))),
            (ConnectMethod::Poll, _) => {
                socket.set_nonblocking(true)?;
                let first = errno(socket.connect(&target));
                if first != Errno::EINPROGRESS as i32 {
                    return Ok(first);
                }
                poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE)?;
                Ok(socket.take_error()?.and_then(|error| error.raw_os_error()).unwrap_or(0))
            }
            (ConnectMethod::FastOpen, _) => {
                Ok(errno(socket.send_to_with_flags(b"hello", &target, nix::libc::MSG_FASTOPEN).map(drop)))
            }
            (ConnectMethod::Uring | ConnectMethod::UringAsync, Self::Uring(ring)) => {
                Ok(-raw::uring_connect(ring, socket.as_fd(), &target, via == ConnectMethod::UringAsync)?)
            }
            (ConnectMethod::Uring | ConnectMethod::UringAsync, Self::Plain) => anyhow::bail!("no ring"),
        }
    }
}

fn errno(result: io::Result<()>) -> i32 {
    result.err().and_then(|error| error.raw_os_error()).unwrap_or(0)
}

pub fn connect(
    to: SocketAddr,
    plan: &ConnectPlan,
    connector: &mut Connector,
    logger: &Logger,
    held: &mut HeldSockets,
) -> Result<()> {
    let socket = tcp(to)?;
    socket.set_reuse_address(plan.reuse_addr)?;
    if let Some(bind) = plan.bind {
        socket.bind(&bind.into()).context("bind before connect")?;
    }
    let start = ktime_ns();
    let errno = connector.connect(&socket, to, plan.via)?;
    let time = (start, ktime_ns());
    let about = SocketEnds { socket: number(), local: local(&socket), remote: Some(to) };
    logger.write(LoggedCall::Connect, time, about, errno)?;
    if errno == 0 { end(OpenConnection { socket, about }, plan.then, logger, Some(held)) } else { Ok(()) }
}

/// Makes many connects on one socket, which keeps its cookie and its stale port all the time.
pub fn retry(to: SocketAddr, times: u32, pause: Duration, logger: &Logger, held: &mut HeldSockets) -> Result<()> {
    let socket = tcp(to)?;
    for _ in 0..times {
        let start = ktime_ns();
        let errno = errno(socket.connect(&to.into()));
        let about = SocketEnds { socket: number(), local: local(&socket), remote: Some(to) };
        logger.write(LoggedCall::Connect, (start, ktime_ns()), about, errno)?;
        if errno == 0 {
            held.connections.push(OpenConnection { socket, about });
            return Ok(());
        }
        std::thread::sleep(pause);
    }
    held.others.push(socket);
    Ok(())
}

/// Closes the socket while the handshake is under way.
pub fn abandon(to: SocketAddr, after: Duration, logger: &Logger) -> Result<()> {
    let socket = tcp(to)?;
    socket.set_nonblocking(true)?;
    let start = ktime_ns();
    let errno = errno(socket.connect(&to.into()));
    let about = SocketEnds { socket: number(), local: local(&socket), remote: Some(to) };
    logger.write(LoggedCall::Connect, (start, ktime_ns()), about, errno)?;
    std::thread::sleep(after);
    let mut state = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    ensure!(poll(&mut state, PollTimeout::ZERO)? == 0, "the handshake was over before it could be abandoned");
    let start = ktime_ns();
    drop(socket);
    logger.write(LoggedCall::Close, (start, ktime_ns()), about, 0)
}

pub fn bind(addr: SocketAddr, reuse_addr: bool, logger: &Logger, held: &mut HeldSockets) -> Result<()> {
    let socket = tcp(addr)?;
    socket.set_reuse_address(reuse_addr)?;
    let start = ktime_ns();
    let errno = errno(socket.bind(&addr.into()));
    let about = SocketEnds { socket: number(), local: local(&socket), remote: None };
    logger.write(LoggedCall::Bind, (start, ktime_ns()), about, errno)?;
    held.others.push(socket);
    Ok(())
}
