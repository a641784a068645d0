//! Lists the TCP sockets of the calling thread's network namespace (net/ipv4/inet_diag.c), minisockets included.
//!
//! A dump that asks for `TIME_WAIT` alone would miss minisockets whose peer has not sent its FIN: they are listed under their
//! sub-state `FIN_WAIT2` with the `TIME_WAIT` timer.

use std::io;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags, Timer};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};

use tracer_core::event::{AcceptQueue, Addr, Endpoint, FlowKey, Netns, SocketCookie, SocketRow, TcpState};

/// A socket and the number by which `/proc` finds its process.
#[derive(Clone, Copy, Debug)]
pub struct ListedSocket {
    /// The socket, without its owner.
    pub row: SocketRow,
    /// Inode number of the socket; 0 for minisockets and orphans.
    pub inode: u32,
}

/// What include/net/tcp_states.h calls a socket that is bound and neither connects nor listens; listed since 6.8.
const TCP_BOUND_INACTIVE: u8 = 13;
/// The kernel fills at most this much per read (net/netlink/af_netlink.c `netlink_dump`); a larger buffer gains nothing.
const READ_BYTES: usize = 32 * 1024;
/// `struct nlmsghdr`, then `idiag_expires` of `struct inet_diag_msg` behind 4 one-byte fields and the 48-byte socket id.
const EXPIRES_AT: usize = 16 + 4 + 48;

/// All TCP sockets in every state; those that are only bound since Linux 6.8.
///
/// # Errors
/// The netlink call that failed; `NotFound` where the kernel has no `tcp_diag` (module missing and not loadable).
pub fn dump(netns: Netns) -> io::Result<Vec<ListedSocket>> {
    dump_states(netns, &StateFlags::from_bits_retain(StateFlags::all().bits() | 1 << TCP_BOUND_INACTIVE))
}

/// Minisockets in sub-state `FIN_WAIT2`: closed by this side and not by the peer.
///
/// # Errors
/// As of [`dump`].
pub fn orphans(netns: Netns) -> io::Result<Vec<SocketRow>> {
    let rows = dump_states(netns, &StateFlags::FIN_WAIT2)?;
    Ok(rows.into_iter().map(|listed| listed.row).filter(|row| row.minisocket).collect())
}

fn dump_states(netns: Netns, states: &StateFlags) -> io::Result<Vec<ListedSocket>> {
    let mut rows = Vec::new();
    for family in [AF_INET, AF_INET6] {
        dump_family(netns, family, states.clone(), &mut rows)?;
    }
    Ok(rows)
}

fn dump_family(netns: Netns, family: u8, states: StateFlags, rows: &mut Vec<ListedSocket>) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut request = NetlinkMessage::new(
        header,
        SockDiagMessage::InetRequest(InetRequest {
            family,
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
            states,
            socket_id: if family == AF_INET { SocketId::new_v4() } else { SocketId::new_v6() },
        })
        .into(),
    );
    request.finalize();
    let mut buffer = vec![0; request.buffer_len()];
    request.serialize(&mut buffer);
    socket.send(&buffer, 0)?;

    let mut buffer = vec![0; READ_BYTES];
    loop {
        let size = socket.recv(&mut &mut buffer[..], 0)?;
        let mut rest = buffer.get(..size).unwrap_or_default();
        if rest.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        while !rest.is_empty() {
            let message = <NetlinkMessage<SockDiagMessage>>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) => {
                    let expires = rest
                        .get(EXPIRES_AT..)
                        .and_then(|bytes| bytes.first_chunk())
                        .map(|bytes| u32::from_ne_bytes(*bytes));
                    rows.extend(row(netns, &response.header, expires));
                }
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                _ => {}
            }
            let length = usize::try_from(message.header.length).unwrap_or(usize::MAX).next_multiple_of(4);
            rest = rest.get(length.max(16)..).unwrap_or_default();
        }
    }
}

fn row(netns: Netns, header: &InetResponseHeader, expires_ms: Option<u32>) -> Option<ListedSocket> {
    let id = &header.socket_id;
    let state = if header.state == TCP_BOUND_INACTIVE { TcpState::Close } else { TcpState::from_raw(header.state)? };
    let minisocket = header.timer == Some(Timer::TimeWait) && header.inode == 0;
    Some(ListedSocket {
        row: SocketRow {
            sock: 0,
            cookie: SocketCookie::new(u64::from_ne_bytes(id.cookie)),
            key: FlowKey {
                netns,
                device: id.interface_id,
                local: Endpoint { addr: Addr::from(id.source_address), port: id.source_port },
                remote: Endpoint { addr: Addr::from(id.destination_address), port: id.destination_port },
            },
            state,
            minisocket,
            remaining: expires_ms.filter(|_| minisocket).map(|ms| u64::from(ms) * 1_000_000),
            owner: None,
            has_descriptor: Some(header.inode != 0),
            named: None,
            // bind() or listen() took the port, whatever has become of it since.
            closed: matches!(state, TcpState::Listen | TcpState::Close).then_some(true),
            timestamps: None,
            queue: (state == TcpState::Listen)
                .then_some(AcceptQueue { waiting: header.recv_queue, backlog: header.send_queue }),
        },
        inode: header.inode,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listening_socket_of_this_test_is_listed_with_its_inode() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        let rows = match dump(Netns::of_inode(1)) {
            Ok(rows) => rows,
            // sock_diag is a module that an unprivileged build machine may lack.
            Err(error) => return println_skip(&error),
        };
        let found = rows.iter().find(|row| row.row.key.local.port == port && row.row.state == TcpState::Listen);
        let found = found.expect("the listener is listed");
        assert_ne!(found.inode, 0);
        assert!(!found.row.minisocket && found.row.remaining.is_none());
    }

    #[test]
    fn a_bound_socket_is_listed_as_closed_with_its_port() {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, socket};
        use std::os::fd::AsRawFd as _;
        let bound = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).expect("a socket");
        bind(bound.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).expect("bind");
        let port = getsockname::<SockaddrIn>(bound.as_raw_fd()).expect("address").port();
        let rows = match dump(Netns::of_inode(1)) {
            Ok(rows) => rows,
            Err(error) => return println_skip(&error),
        };
        match rows.iter().find(|row| row.row.key.local.port == port) {
            Some(found) => assert_eq!((found.row.state, found.row.key.remote.port), (TcpState::Close, 0)),
            None => eprintln!("SKIPPED: not listed before Linux 6.8"),
        }
    }

    fn println_skip(error: &io::Error) {
        eprintln!("SKIPPED: no sock_diag here: {error}");
    }
}
