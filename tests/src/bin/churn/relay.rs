//! Carries Ethernet frames between two interfaces with a delay, through packet sockets.
//!
//! For kernels without netem. Also, the kernel always handles the received segments in the context of this process,
//! which has nothing to do with the connection; netem cannot guarantee that. A tracer that trusts `current` attributes
//! the connection to this process.

use std::collections::VecDeque;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::ifaddrs::getifaddrs;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::SockaddrLike;
use portchurn_tests::script::LoggedCall;
use socket2::{Domain, Protocol, Socket, Type};

use crate::log::Logger;

/// `ETH_P_IP` in network byte order. No other protocol is needed, because the tests configure the neighbours;
/// `ETH_P_ALL` would also return the frames that this process sends.
const IP: u16 = 0x0800_u16.to_be();
/// Bytes of the largest frame of a veth without segmentation offload.
const FRAME: usize = 2048;

struct Frame {
    due: Instant,
    bytes: Vec<u8>,
}

pub fn run(left: &str, right: &str, delay: Duration, logger: &Logger) -> Result<()> {
    let ends = [open(left)?, open(right)?];
    let mut queues: [VecDeque<Frame>; 2] = [VecDeque::new(), VecDeque::new()];
    logger.mark(LoggedCall::Listening)?;
    let mut buffer = [0; FRAME];
    loop {
        let next = queues.iter().filter_map(|queue| queue.front()).map(|frame| frame.due).min();
        let wait = next.map_or(PollTimeout::NONE, |due| {
            let rest = due.saturating_duration_since(Instant::now());
            // Rounded up, because a timeout of 0 would poll busily through the last millisecond.
            u16::try_from(rest.as_millis() + 1).unwrap_or(u16::MAX).into()
        });
        poll(
            &mut [PollFd::new(ends[0].as_fd(), PollFlags::POLLIN), PollFd::new(ends[1].as_fd(), PollFlags::POLLIN)],
            wait,
        )?;
        for (end, queue) in ends.iter().zip(&mut queues) {
            let mut end: &Socket = end;
            while let Ok(count) = end.read(&mut buffer) {
                queue.push_back(Frame { due: Instant::now() + delay, bytes: buffer[..count].to_vec() });
            }
        }
        let now = Instant::now();
        for (queue, other) in queues.iter_mut().zip([&ends[1], &ends[0]]) {
            while queue.front().is_some_and(|frame| frame.due <= now) {
                if let Some(frame) = queue.pop_front() {
                    other.send(&frame.bytes).context("sending a frame")?;
                }
            }
        }
    }
}

fn open(interface: &str) -> Result<Socket> {
    let socket =
        Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(i32::from(IP)))).context("packet socket")?;
    let addresses = getifaddrs().context("getifaddrs")?;
    let mut link = addresses.filter(|own| own.interface_name == interface).filter_map(|own| own.address);
    let link = link.find_map(|address| address.as_link_addr().copied());
    let link = link.with_context(|| format!("no interface {interface}"))?;
    nix::sys::socket::bind(socket.as_raw_fd(), &link as &dyn SockaddrLike).context("bind")?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
