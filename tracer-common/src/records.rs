//! The records of the ring buffer. Integers and byte arrays only: a wire type is not a domain type.
//!
//! Addresses are 16 bytes. IPv4 addresses and v4-mapped IPv6 addresses are both written as `::ffff:a.b.c.d`, because
//! both share one space of 4-tuples (connect() through an `AF_INET6` socket to a mapped address takes the same ports).
//! Ports are in host order.

use crate::wire::{Field as _, wire};

/// `IPPROTO_TCP`. MPTCP (262) fires the same tracepoint for the MPTCP socket and for its subflows. The subflows are TCP
/// and are recorded; the MPTCP socket, DCCP and SCTP are not.
pub const PROTOCOL_TCP: u16 = 6;
/// `IPPROTO_MPTCP`.
pub const PROTOCOL_MPTCP: u16 = 262;
/// `TASK_COMM_LEN`.
pub const COMM_BYTES: usize = 16;
/// Bytes of command line kept per process: enough for `php-fpm: pool NAME` and for the path and first arguments of a
/// script, and small enough that a burst of new processes does not fill the ring.
pub const ARGV_BYTES: usize = 256;
/// Path components kept per cgroup, leaf first. systemd and Kubernetes put the names that matter in the last four.
pub const CGROUP_DEPTH: usize = 4;
/// Bytes per component: `cri-containerd-<64 hex>.scope` with its NUL is 86.
pub const CGROUP_NAME_BYTES: usize = 96;
/// `ip_local_reserved_ports` as the kernel keeps it: one bit per port.
pub const RESERVED_BITMAP_BYTES: usize = 65536 / 8;

/// `Header::flags`.
pub mod flags {
    /// The transition ran in a system call of the socket's user (docs/KERNEL.md#current says which do): `tgid`,
    /// `tid` and `cgroup` are the caller's. Without this flag they belong to the task that a softirq interrupted and
    /// must not be used.
    pub const CALLER: u16 = 1;
    /// Written by a later program of the chain on the hook. Either the only record of this transition or a repetition
    /// of the flow's last record.
    pub const RESCUED: u16 = 2;
    /// `cookie` is the kernel's socket cookie; without it the cookie is 0 and only `sock` identifies the socket.
    pub const COOKIE: u16 = 4;
    /// `TIME_WAIT` end: the timer had reached its expiry, so this is the natural end. A kill within the granularity of
    /// the timer wheel looks the same and means the same for the port.
    pub const EXPIRED: u16 = 8;
    /// From the classic tracepoint: no netns, no cookie, and `sport` may be stale.
    pub const CLASSIC: u16 = 16;
    /// The application had called shutdown() or close() (`sk_shutdown`).
    pub const SHUTDOWN: u16 = 32;
    /// The socket has a port range of its own (`IP_LOCAL_PORT_RANGE`), which `TransitionRecord::cgroup` holds.
    pub const OWN_RANGE: u16 = 64;
}

/// `CallRecord::call`.
pub mod call {
    /// connect(2) failed synchronously.
    pub const CONNECT: u8 = 1;
    /// bind(2) failed.
    pub const BIND: u8 = 2;
    /// listen(2) failed.
    pub const LISTEN: u8 = 3;
}

/// Answers to a yes-or-no question about a socket.
pub mod answer {
    /// No.
    pub const NO: u8 = 0;
    /// Yes.
    pub const YES: u8 = 1;
    /// This kernel's BTF does not describe the member.
    pub const UNKNOWN: u8 = 255;
}

/// What a record describes. The number is the first byte of the record; numbers are never re-used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RecordKind {
    /// [`TransitionRecord`].
    Transition = 1,
    /// [`TimeWaitRecord`]: a minisocket's timer was started.
    TimeWaitStart = 2,
    /// [`TimeWaitRecord`]: a minisocket's timer ended.
    TimeWaitEnd = 3,
    /// [`CallRecord`].
    CallFailed = 4,
    /// [`SocketRecord`]: accept(2) returned this socket to this process.
    Accepted = 5,
    /// [`SocketRecord`]: bind(2), or listen(2) of a socket without a port, gave this socket a port.
    Bound = 6,
    /// [`SocketRecord`]: a socket that held a port by bind(2) or listen(2) was destroyed.
    Released = 7,
    /// [`TaskRecord`].
    Task = 8,
    /// [`NetnsRecord`].
    Netns = 9,
    /// [`ReservedPortsRecord`].
    ReservedPorts = 10,
    /// [`PortSearchRecord`]: connect() has found a port.
    PortSearch = 11,
}

/// The kind that the first byte of a record names; `None` for a number that this version does not know.
pub const fn kind_of(byte: u8) -> Option<RecordKind> {
    Some(match byte {
        1 => RecordKind::Transition,
        2 => RecordKind::TimeWaitStart,
        3 => RecordKind::TimeWaitEnd,
        4 => RecordKind::CallFailed,
        5 => RecordKind::Accepted,
        6 => RecordKind::Bound,
        7 => RecordKind::Released,
        8 => RecordKind::Task,
        9 => RecordKind::Netns,
        10 => RecordKind::ReservedPorts,
        11 => RecordKind::PortSearch,
        _ => return None,
    })
}

impl RecordKind {
    /// Bytes of a record of this kind.
    pub const fn size(self) -> usize {
        match self {
            Self::Transition => TransitionRecord::SIZE,
            Self::TimeWaitStart | Self::TimeWaitEnd => TimeWaitRecord::SIZE,
            Self::CallFailed => CallRecord::SIZE,
            Self::Accepted | Self::Bound | Self::Released => SocketRecord::SIZE,
            Self::Task => TaskRecord::SIZE,
            Self::Netns => NetnsRecord::SIZE,
            Self::ReservedPorts => ReservedPortsRecord::SIZE,
            Self::PortSearch => PortSearchRecord::SIZE,
        }
    }
}

wire! {
    /// First 16 bytes of every record.
    pub struct Header {
        /// [`RecordKind`].
        pub kind: u8,
        /// 0.
        pub pad: u8,
        /// [`flags`].
        pub flags: u16,
        /// Low half of `net->net_cookie` of the namespace whose inode number the record has; 0 = unknown.
        pub netns_cookie: u32,
        /// Time of the event: `CLOCK_MONOTONIC` nanoseconds (`bpf_ktime_get_ns`).
        pub ktime: u64,
    }
}

wire! {
    /// One run of `inet_sock_set_state` (net/ipv4/af_inet.c `inet_sk_set_state`, `inet_sk_state_store`).
    pub struct TransitionRecord {
        /// See [`Header`].
        pub header: Header,
        /// Socket cookie (net/core/sock_diag.c `__sock_gen_cookie`), 0 without [`flags::COOKIE`].
        pub cookie: u64,
        /// Opaque identity of the `struct sock` while it lives; its address is re-used at once afterwards.
        pub sock: u64,
        /// Inode number of the network namespace; 0 = unknown.
        pub netns: u32,
        /// `skc_bound_dev_if`: index of the interface that the socket is bound to, 0 = none.
        pub device: u32,
        /// Thread group that was current; meaningful only with [`flags::CALLER`].
        pub tgid: u32,
        /// Thread that was current; see `tgid`.
        pub tid: u32,
        /// `skc_num`: the port held *now*; already 0 at ->CLOSE if it was chosen by connect().
        pub lport: u16,
        /// Remote port.
        pub rport: u16,
        /// `inet_sport`: the last local port held; stale on a re-used socket.
        pub sport: u16,
        /// `sk_err` at this instant: a positive errno, of which Linux has none above 255 on the supported architectures.
        pub sk_err: u8,
        /// `TCP_*` of include/net/tcp_states.h: the old state in the upper four bits, the new one in the lower four.
        pub states: u8,
        /// With [`flags::CALLER`] the cgroup v2 id of the current task, with [`flags::OWN_RANGE`] the socket's own port range: the
        /// low end in bits 0 to 15, the high end in bits 16 to 31.
        pub cgroup: u64,
        /// Local address.
        pub laddr: [u8; 16],
        /// Remote address.
        pub raddr: [u8; 16],
    }
}

wire! {
    /// Start or end of an `inet_timewait_sock` (net/ipv4/inet_timewait_sock.c), seen at its timer.
    pub struct TimeWaitRecord {
        /// See [`Header`].
        pub header: Header,
        /// The socket's, which the minisocket has kept.
        pub cookie: u64,
        /// Inode number of the network namespace; 0 = unknown.
        pub netns: u32,
        /// Local port.
        pub lport: u16,
        /// Remote port.
        pub rport: u16,
        /// `skc_bound_dev_if`, 0 = none.
        pub device: u32,
        /// `tw_substate`: `FIN_WAIT2` (5) until the peer's FIN arrived, then `TIME_WAIT` (6).
        pub substate: u8,
        /// [`answer`]: the peer has sent TCP timestamps (`tw_ts_recent_stamp` is not 0).
        pub timestamps: u8,
        /// 0.
        pub pad: [u8; 2],
        /// Local address.
        pub laddr: [u8; 16],
        /// Remote address.
        pub raddr: [u8; 16],
    }
}

wire! {
    /// A connect(2), bind(2) or listen(2) that returned an error on a TCP socket.
    pub struct CallRecord {
        /// See [`Header`].
        pub header: Header,
        /// Socket cookie; 0 without [`flags::COOKIE`].
        pub cookie: u64,
        /// Address of the `struct sock`; identifies the socket while it lives.
        pub sock: u64,
        /// `CLOCK_MONOTONIC` at syscall entry.
        pub entered: u64,
        /// cgroup v2 id of the caller.
        pub cgroup: u64,
        /// Inode number of the network namespace; 0 = unknown.
        pub netns: u32,
        /// `skc_bound_dev_if`, 0 = none.
        pub device: u32,
        /// Thread group of the caller.
        pub tgid: u32,
        /// Thread of the caller.
        pub tid: u32,
        /// `IP_LOCAL_PORT_RANGE` of the socket: low end | high end << 16; 0 = none.
        pub own_range: u32,
        /// Positive errno.
        pub errno: u16,
        /// The port asked for: destination of connect, local port of bind.
        pub port: u16,
        /// Local port of the socket after the call, 0 if none.
        pub lport: u16,
        /// [`call`].
        pub call: u8,
        /// 1 if `addr` and `port` could be read from the caller's memory.
        pub has_addr: u8,
        /// 0.
        pub pad: [u8; 4],
        /// The address asked for: destination of connect, local address of bind.
        pub addr: [u8; 16],
        /// Source address of the socket (unspecified if unbound).
        pub laddr: [u8; 16],
        /// Name of the calling *thread*.
        pub comm: [u8; 16],
    }
}

wire! {
    /// A socket was accepted, got a port or gave one back outside a state transition.
    pub struct SocketRecord {
        /// See [`Header`].
        pub header: Header,
        /// Socket cookie; 0 without [`flags::COOKIE`].
        pub cookie: u64,
        /// Address of the `struct sock`; identifies the socket while it lives.
        pub sock: u64,
        /// At accept(): the listening socket's cookie, 0 = unknown or none yet.
        pub listener_cookie: u64,
        /// At accept(): address of the listening socket; 0 = unknown.
        pub listener: u64,
        /// Inode number of the network namespace; 0 = unknown.
        pub netns: u32,
        /// `skc_bound_dev_if`, 0 = none.
        pub device: u32,
        /// Thread group of the caller.
        pub tgid: u32,
        /// Thread of the caller.
        pub tid: u32,
        /// Local port.
        pub lport: u16,
        /// Remote port.
        pub rport: u16,
        /// [`answer`]: bind() named the port (`SOCK_BINDPORT_LOCK` of `sk_userlocks`).
        pub named: u8,
        /// 0.
        pub pad: [u8; 3],
        /// Local address.
        pub laddr: [u8; 16],
        /// Remote address.
        pub raddr: [u8; 16],
    }
}

wire! {
    /// Names and cgroups of a process, read in its own context at its first connect, listen, bind or accept, and again
    /// after exec.
    pub struct TaskRecord {
        /// See [`Header`].
        pub header: Header,
        /// `group_leader->start_boottime`, nanoseconds since boot; with `tgid` it names a process for good.
        pub start_boottime: u64,
        /// cgroup v2 id.
        pub cgroup: u64,
        /// Thread group of the caller.
        pub tgid: u32,
        /// Thread of the caller.
        pub tid: u32,
        /// Parent thread group.
        pub ppid: u32,
        /// Real user id.
        pub uid: u32,
        /// Inode number of the network namespace; 0 = unknown.
        pub netns: u32,
        /// Bytes of `arg_end - arg_start`, which may exceed [`ARGV_BYTES`].
        pub argv_len: u32,
        /// Low half of `self_exec_id`, which exec raises by one (fs/exec.c `begin_new_exec`); 0 = unknown.
        pub exec_id: u32,
        /// 0.
        pub pad: u32,
        /// comm of the group leader.
        pub comm: [u8; COMM_BYTES],
        /// comm of the thread.
        pub thread_comm: [u8; COMM_BYTES],
        /// comm of the parent's group leader.
        pub parent_comm: [u8; COMM_BYTES],
        /// Raw bytes from `arg_start`; a process that set its title may run past `argv_len` to the first NUL.
        pub argv: [u8; ARGV_BYTES],
        /// cgroup v2 path components, leaf first; all zero at and above the root.
        pub cgroup_v2: [[u8; CGROUP_NAME_BYTES]; CGROUP_DEPTH],
        /// The same for the cgroup v1 hierarchy that user space chose at load, if it chose one.
        pub cgroup_v1: [[u8; CGROUP_NAME_BYTES]; CGROUP_DEPTH],
    }
}

impl<const N: usize> crate::wire::Field for [[u8; CGROUP_NAME_BYTES]; N] {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut out = [[0; CGROUP_NAME_BYTES]; N];
        for (index, name) in out.iter_mut().enumerate() {
            *name = *bytes.get(index * CGROUP_NAME_BYTES..)?.first_chunk()?;
        }
        Some(out)
    }
}

wire! {
    /// Limits of a network namespace, read from its `struct net` (include/net/netns/ipv4.h).
    pub struct NetnsRecord {
        /// See [`Header`].
        pub header: Header,
        /// `net->net_cookie` whole, 0 if this kernel has none; inode numbers are recycled, cookies are not.
        pub net_cookie: u64,
        /// `bpf_jiffies64` at `ktime`; two records together give this kernel's `HZ`.
        pub jiffies: u64,
        /// Inode number of the network namespace; 0 = unknown.
        pub netns: u32,
        /// First port of `ip_local_port_range`.
        pub range_lo: u16,
        /// Last port of the range, inclusive.
        pub range_hi: u16,
        /// Minisockets now, `u32::MAX` = unknown.
        pub time_wait: u32,
        /// `tcp_max_tw_buckets`; `u32::MAX` = unknown.
        pub max_tw_buckets: u32,
        /// `tcp_fin_timeout` in jiffies; see `jiffies`. `u32::MAX` = unknown.
        pub fin_timeout: u32,
        /// Milliseconds; `u32::MAX` where this kernel has no such knob.
        pub tw_reuse_delay: u32,
        /// 0 off, 1 on, 2 loopback only; 255 = unknown.
        pub tw_reuse: u8,
        /// 0 off, 1 or 2 on; 255 = unknown.
        pub timestamps: u8,
        /// 0.
        pub pad: [u8; 6],
    }
}

wire! {
    /// `net->ipv4.sysctl_local_reserved_ports`: bit n = port n is never chosen by connect().
    pub struct ReservedPortsRecord {
        /// See [`Header`].
        pub header: Header,
        /// Inode number of the network namespace; 0 = unknown.
        pub netns: u32,
        /// 0.
        pub pad: u32,
        /// The bitmap, in the byte order of the kernel.
        pub bitmap: [u8; RESERVED_BITMAP_BYTES],
    }
}

wire! {
    /// A connect() has found its port and has sent its SYN.
    pub struct PortSearchRecord {
        /// See [`Header`].
        pub header: Header,
        /// Socket cookie; 0 without [`flags::COOKIE`].
        pub cookie: u64,
        /// Address of the `struct sock`; identifies the socket while it lives.
        pub sock: u64,
        /// Nanoseconds since CLOSE->SYN_SENT, which precedes the search (net/ipv4/tcp_ipv4.c `tcp_v4_connect`).
        pub nanos: u64,
    }
}

wire! {
    /// What the list of sockets says of one of them, beside what `sock_diag` says. Not in the ring buffer: the list is a
    /// file of these.
    pub struct SocketFactsRecord {
        /// Socket cookie; 0 if the kernel has not generated one.
        pub cookie: u64,
        /// Address of the `struct sock` or of the minisocket.
        pub sock: u64,
        /// [`answer`]: bind() named the port.
        pub named: u8,
        /// [`answer`]: bind() or listen() made or joined the port's bucket, so that no connect() of another socket
        /// chooses the port.
        pub closed: u8,
        /// [`answer`]: of a minisocket, the peer has sent TCP timestamps.
        pub timestamps: u8,
        /// 0.
        pub pad: [u8; 5],
    }
}

impl SocketFactsRecord {
    /// The records of a list. Bytes behind the last whole record are left out.
    pub fn all(bytes: &[u8]) -> impl Iterator<Item = Self> {
        bytes.chunks_exact(Self::SIZE).filter_map(Self::read)
    }
}

/// A decoded record. The rare, large kinds stay behind a reference to the bytes they were decoded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// [`RecordKind::Transition`].
    Transition(TransitionRecord),
    /// [`RecordKind::TimeWaitStart`].
    TimeWaitStart(TimeWaitRecord),
    /// [`RecordKind::TimeWaitEnd`].
    TimeWaitEnd(TimeWaitRecord),
    /// [`RecordKind::CallFailed`].
    CallFailed(CallRecord),
    /// [`RecordKind::Accepted`].
    Accepted(SocketRecord),
    /// [`RecordKind::Bound`].
    Bound(SocketRecord),
    /// [`RecordKind::Released`].
    Released(SocketRecord),
    /// [`RecordKind::Task`]: the bytes, for [`Record::task`] to decode.
    Task(&'a [u8]),
    /// [`RecordKind::Netns`].
    Netns(NetnsRecord),
    /// [`RecordKind::PortSearch`].
    PortSearch(PortSearchRecord),
    /// [`RecordKind::ReservedPorts`].
    ReservedPorts {
        /// See [`Header`].
        header: Header,
        /// See [`ReservedPortsRecord::netns`].
        netns: u32,
        /// [`RESERVED_BITMAP_BYTES`] bytes.
        bitmap: &'a [u8],
    },
}

/// Why bytes are not a record. The caller counts each as one skipped record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// Fewer bytes than a header.
    NoHeader {
        /// Bytes at hand.
        len: usize,
    },
    /// A kind that this version does not know.
    UnknownKind {
        /// First byte of the record.
        kind: u8,
    },
    /// Fewer bytes than a record of this kind has.
    WrongSize {
        /// First byte of the record.
        kind: u8,
        /// Bytes of a record of this kind.
        expected: usize,
        /// Bytes at hand.
        found: usize,
    },
}

impl core::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match *self {
            Self::NoHeader { len } => write!(f, "record of {len} bytes is shorter than its header"),
            Self::UnknownKind { kind } => write!(f, "record of unknown kind {kind}"),
            Self::WrongSize { kind, expected, found } => {
                write!(f, "record of kind {kind} has {found} bytes, expected {expected}")
            }
        }
    }
}

impl core::error::Error for DecodeError {}

impl<'a> Record<'a> {
    /// Decodes the record at the start of `bytes` and returns it with the bytes that follow it.
    ///
    /// # Errors
    /// [`DecodeError`] if `bytes` does not start with a whole record of a known kind. The caller then counts one
    /// skipped record and gives up the rest of the buffer, because the length of the record is unknown.
    #[inline]
    pub fn split_first(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), DecodeError> {
        let (Some(&kind_byte), true) = (bytes.first(), bytes.len() >= Header::SIZE) else {
            return Err(DecodeError::NoHeader { len: bytes.len() });
        };
        let kind = kind_of(kind_byte).ok_or(DecodeError::UnknownKind { kind: kind_byte })?;
        let wrong = DecodeError::WrongSize { kind: kind_byte, expected: kind.size(), found: bytes.len() };
        let (own, rest) = bytes.split_at_checked(kind.size()).ok_or(wrong)?;
        let record = match kind {
            RecordKind::Transition => TransitionRecord::read(own).map(Self::Transition),
            RecordKind::TimeWaitStart => TimeWaitRecord::read(own).map(Self::TimeWaitStart),
            RecordKind::TimeWaitEnd => TimeWaitRecord::read(own).map(Self::TimeWaitEnd),
            RecordKind::CallFailed => CallRecord::read(own).map(Self::CallFailed),
            RecordKind::Accepted => SocketRecord::read(own).map(Self::Accepted),
            RecordKind::Bound => SocketRecord::read(own).map(Self::Bound),
            RecordKind::Released => SocketRecord::read(own).map(Self::Released),
            RecordKind::Task => Some(Self::Task(own)),
            RecordKind::Netns => NetnsRecord::read(own).map(Self::Netns),
            RecordKind::ReservedPorts => Self::reserved_ports(own),
            RecordKind::PortSearch => PortSearchRecord::read(own).map(Self::PortSearch),
        };
        Ok((record.ok_or(wrong)?, rest))
    }

    fn reserved_ports(own: &'a [u8]) -> Option<Self> {
        Some(Self::ReservedPorts {
            header: Header::read(own)?,
            netns: u32::read(own.get(core::mem::offset_of!(ReservedPortsRecord, netns)..)?)?,
            bitmap: own.get(core::mem::offset_of!(ReservedPortsRecord, bitmap)..)?,
        })
    }

    /// Decodes the bytes of [`Record::Task`].
    ///
    /// # Errors
    /// [`DecodeError::WrongSize`] if there are fewer than [`TaskRecord::SIZE`] bytes.
    pub fn task(bytes: &[u8]) -> Result<TaskRecord, DecodeError> {
        TaskRecord::read(bytes).ok_or(DecodeError::WrongSize {
            kind: RecordKind::Task as u8,
            expected: TaskRecord::SIZE,
            found: bytes.len(),
        })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec;
    use std::vec::Vec;

    fn header_bytes(kind: u8, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        if let Some(first) = bytes.first_mut() {
            *first = kind;
        }
        bytes
    }

    #[test]
    fn every_kind_round_trips_through_its_number_and_size() {
        for byte in 0..=u8::MAX {
            let Some(kind) = kind_of(byte) else { continue };
            assert_eq!(kind as u8, byte);
            let bytes = header_bytes(byte, kind.size() + 3);
            let (_, rest) = Record::split_first(&bytes).expect("whole record");
            assert_eq!(rest.len(), 3, "{kind:?}");
        }
    }

    #[test]
    fn short_and_foreign_bytes_are_named_errors() {
        assert_eq!(Record::split_first(&[]), Err(DecodeError::NoHeader { len: 0 }));
        assert_eq!(Record::split_first(&[1; 15]), Err(DecodeError::NoHeader { len: 15 }));
        assert_eq!(Record::split_first(&[99; 64]), Err(DecodeError::UnknownKind { kind: 99 }));
        let short = header_bytes(1, TransitionRecord::SIZE - 1);
        assert_eq!(
            Record::split_first(&short),
            Err(DecodeError::WrongSize {
                kind: 1,
                expected: TransitionRecord::SIZE,
                found: TransitionRecord::SIZE - 1
            })
        );
    }

    #[test]
    fn fields_are_read_at_their_offsets_at_any_alignment() {
        let mut bytes = header_bytes(RecordKind::Transition as u8, TransitionRecord::SIZE + 1);
        bytes.rotate_right(1); // the record now starts at an odd address
        let at = 1 + core::mem::offset_of!(TransitionRecord, cookie);
        bytes[at..at + 8].copy_from_slice(&0x1122_3344_5566_7788_u64.to_ne_bytes());
        let at = 1 + core::mem::offset_of!(TransitionRecord, lport);
        bytes[at..at + 2].copy_from_slice(&40_000_u16.to_ne_bytes());
        let (Record::Transition(record), _) = Record::split_first(&bytes[1..]).expect("whole") else {
            panic!("wrong kind")
        };
        assert_eq!((record.cookie, record.lport), (0x1122_3344_5566_7788, 40_000));
    }
}
