//! The passive side: one thread with epoll, so that thousands of open connections need no more threads.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{ForkResult, Pid};
use portchurn_tests::process::ktime_ns;
use portchurn_tests::script::{LoggedCall, ServerBehaviour};
use socket2::Socket;

use crate::log::{Logger, SocketEnds};
use crate::raw;
use crate::sockets::tcp;

/// Backlog that no burst overflows. The kernel caps it at somaxconn.
pub const BACKLOG: i32 = 4096;
/// A whole response with its length, so that the client closes first instead of waiting for the server's FIN.
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// Epoll data of the listener; other sockets have their descriptor, which is smaller.
const LISTENER: u64 = u64::MAX;

pub fn listen(addr: SocketAddr, backlog: i32, logger: &Logger) -> Result<Socket> {
    let socket = tcp(addr)?;
    if addr.ip().is_unspecified() && addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into()).with_context(|| format!("bind {addr}"))?;
    socket.listen(backlog).context("listen")?;
    let now = ktime_ns();
    let local = socket.local_addr()?.as_socket();
    logger.write(LoggedCall::Listening, (now, now), SocketEnds { socket: 0, local, remote: None }, 0)?;
    logger.flush()?;
    Ok(socket)
}

/// Serves until killed.
pub fn serve(listener: &Socket, manner: ServerBehaviour, logger: &Logger) -> Result<()> {
    listener.set_nonblocking(true)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(listener.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
    let mut open: HashMap<u64, Socket> = HashMap::new();
    let mut events = vec![EpollEvent::empty(); 1024];
    loop {
        let count = match epoll.wait(&mut events, EpollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            other => other?,
        };
        for event in &events[..count] {
            if event.data() == LISTENER {
                accept_all(listener, manner, logger, &epoll, &mut open)?;
            } else if open
                .get_mut(&event.data())
                .is_some_and(|socket| at_end(socket, manner == ServerBehaviour::Answer))
            {
                // Closing removes it from epoll.
                if let Some(socket) = open.remove(&event.data()) {
                    close(socket, logger)?;
                }
            }
        }
        if manner == ServerBehaviour::ForkEach {
            while let Ok(status) = waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                if status.pid().is_none() {
                    break;
                }
            }
        }
    }
}

fn close(socket: Socket, logger: &Logger) -> Result<()> {
    let address = |addr: std::io::Result<socket2::SockAddr>| addr.ok().and_then(|addr| addr.as_socket());
    let about = SocketEnds { socket: 0, local: address(socket.local_addr()), remote: address(socket.peer_addr()) };
    let start = ktime_ns();
    drop(socket);
    logger.write(LoggedCall::Close, (start, ktime_ns()), about, 0)
}

/// Reads what the peer has sent; true after the peer's FIN or an error. With `answer` it answers the bytes as a
/// request.
fn at_end(socket: &mut Socket, answer: bool) -> bool {
    let mut bytes = [0; 4096];
    loop {
        match socket.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) if answer && socket.write_all(RESPONSE).is_err() => return true,
            Ok(_) => {}
            Err(error) => return !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }
}

fn accept_all(
    listener: &Socket,
    manner: ServerBehaviour,
    logger: &Logger,
    epoll: &Epoll,
    open: &mut HashMap<u64, Socket>,
) -> Result<()> {
    loop {
        let start = ktime_ns();
        let (socket, peer) = match listener.accept() {
            Ok(accepted) => accepted,
            // Another worker has accepted the connection, or the peer has closed it.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => return Ok(()),
            Err(error) => return Err(error).context("accept"),
        };
        let local = socket.local_addr()?.as_socket();
        logger.write(
            LoggedCall::Accept,
            (start, ktime_ns()),
            SocketEnds { socket: 0, local, remote: peer.as_socket() },
            0,
        )?;
        match manner {
            ServerBehaviour::CloseFirst => close(socket, logger)?,
            ServerBehaviour::Reset => socket.set_linger(Some(Duration::ZERO)).context("SO_LINGER")?,
            ServerBehaviour::WaitForPeer | ServerBehaviour::Answer => {
                socket.set_nonblocking(true)?;
                let name = u64::try_from(socket.as_raw_fd())?;
                epoll.add(socket.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, name))?;
                open.insert(name, socket);
            }
            ServerBehaviour::Leak => {
                open.insert(u64::try_from(socket.as_raw_fd())?, socket);
            }
            ServerBehaviour::ForkEach => {
                logger.flush()?;
                if let ForkResult::Child = raw::fork()? {
                    let mut socket = socket;
                    socket.set_nonblocking(false)?;
                    let mut bytes = [0; 4096];
                    while socket.read(&mut bytes).is_ok_and(|count| count > 0) {}
                    drop(socket);
                    std::process::exit(0);
                }
            }
        }
    }
}
