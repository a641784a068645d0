//! The only reader of kernel structs. Offsets come from the running kernel's BTF through `maps::offset`.
//!
//! There are two ways to read. `Trusted` dereferences a pointer whose type the verifier knows (an argument of a tp_btf
//! program, or a pointer read from one), which costs one load. `peek` copies through `bpf_probe_read_kernel` and works
//! for every pointer.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::helpers::{bpf_probe_read_kernel, generated};
use tracer_common::{Offsets, PROTOCOL_MPTCP, PROTOCOL_TCP, answer, flags};

use crate::maps::{HAVE_COOKIE, HAVE_TASK_REGS, offset};

pub const AF_INET: u16 = 2;
pub const AF_INET6: u16 = 10;

/// Reads a `T` at `base + offset` through `bpf_probe_read_kernel`; `None` on a fault or where this kernel has no such
/// member.
#[inline(always)]
pub fn peek<T: Copy>(base: u64, offset: u32) -> Option<T> {
    if base == 0 || offset == Offsets::MISSING {
        return None;
    }
    // SAFETY: the helper copies into a local and reports a fault as an error.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T).ok() }
}

/// Reads like [`peek`], but without a branch at run time: returns zero on a fault, because the helper zeroes the value,
/// and `absent` where this kernel has no such member, which is a constant to the verifier. Each branch of [`peek`]
/// doubles the verifier's paths: a dozen in a row cost it 200,000 instructions and delay the start of the tracer by 200
/// ms.
#[inline(always)]
pub fn peek_or<T: Copy>(base: u64, offset: u32, absent: T) -> T {
    if offset == Offsets::MISSING {
        return absent;
    }
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes exactly this many bytes, zeroes on a fault; callers read only integers and arrays of
    // integers, for which all bytes are valid values.
    unsafe {
        let from = base.wrapping_add(u64::from(offset)) as *const c_void;
        generated::bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, from);
        value.assume_init()
    }
}

/// Addresses and ports of a socket of either family: what identifies a connection.
#[derive(Clone, Copy)]
pub struct Tuple {
    /// Index of the interface that the socket is bound to, 0 = none.
    pub device: u32,
    pub laddr: [u64; 2],
    pub raddr: [u64; 2],
    pub lport: u16,
    pub rport: u16,
}

/// A network namespace: its inode number and the low half of its cookie, each 0 if unknown.
#[derive(Clone, Copy)]
pub struct Netns {
    pub inode: u32,
    pub cookie: u32,
}

impl Netns {
    pub const UNKNOWN: Self = Self { inode: 0, cookie: 0 };
}

/// `::ffff:a.b.c.d` as two native words.
#[inline(always)]
pub fn mapped(v4: u32) -> [u64; 2] {
    [0, (u64::from(v4) << 32) | 0xffff_0000]
}

/// The bytes of an address held as two native words.
#[inline(always)]
pub fn bytes(words: [u64; 2]) -> [u8; 16] {
    // SAFETY: both are 16 plain bytes.
    unsafe { core::mem::transmute(words) }
}

/// A `struct sock` that the verifier knows by type.
#[derive(Clone, Copy)]
pub struct Trusted(*const c_void);

impl Trusted {
    /// `sk` must be an argument of a `tp_btf` program, with the BTF type `struct sock *`.
    #[inline(always)]
    pub fn new(sk: *const c_void) -> Self {
        Self(sk)
    }

    #[inline(always)]
    pub fn address(self) -> u64 {
        self.0 as u64
    }

    #[inline(always)]
    fn load<T: Copy>(self, offset: u32) -> T {
        // SAFETY: `offset` is a constant to the verifier, which checks that it lies inside the type behind the pointer;
        // a load that faults yields zero.
        unsafe { core::ptr::read_volatile(self.0.cast::<u8>().add(offset as usize).cast::<T>()) }
    }

    #[inline(always)]
    pub fn is_tcp(self) -> bool {
        self.load::<u16>(offset::SK_PROTOCOL.load()) == PROTOCOL_TCP
    }

    /// `skc_num`: the local port held now, host order.
    #[inline(always)]
    pub fn port(self) -> u16 {
        self.load(offset::SKC_NUM.load())
    }

    /// `inet_sport`, host order. It lies behind `struct sock`, where typed loads do not reach.
    #[inline(always)]
    pub fn last_port(self) -> u16 {
        u16::from_be(peek_or(self.address(), offset::INET_SPORT.load(), 0))
    }

    #[inline(always)]
    pub fn sk_err(self) -> u8 {
        let errno: u32 = self.load(offset::SK_ERR.load());
        if errno > 255 { 255 } else { errno as u8 }
    }

    #[inline(always)]
    pub fn shutdown(self) -> bool {
        self.load::<u8>(offset::SK_SHUTDOWN.load()) != 0
    }

    /// [`answer`]: bind() named the port.
    #[inline(always)]
    pub fn named(self) -> u8 {
        let at = offset::SK_USERLOCKS.load();
        if at == Offsets::MISSING { answer::UNKNOWN } else { port_lock(self.load(byte_of(at)), at) }
    }

    #[inline(always)]
    pub fn net(self) -> *const c_void {
        self.load(offset::SKC_NET.load())
    }

    /// The socket's network namespace, whose `struct net` is `net`.
    #[inline(always)]
    pub fn netns(net: *const c_void) -> Netns {
        let net = Self(net);
        let cookie = offset::NET_COOKIE.load();
        Netns {
            inode: net.load(offset::NS_INUM.load()),
            cookie: if cookie == Offsets::MISSING { 0 } else { net.load(cookie) },
        }
    }

    /// The socket cookie and its record flag, 0 if the cookie is unknown. The helper generates the cookie if the socket
    /// has none yet, so that the minisocket of its `TIME_WAIT` has it too.
    #[inline(always)]
    pub fn cookie(self) -> (u64, u16) {
        let cookie = if HAVE_COOKIE.load() != 0 {
            // SAFETY: the pointer is a BTF `struct sock`. On kernels without the helper this branch is dead code to the
            // verifier, because the global is read-only.
            unsafe { generated::bpf_get_socket_cookie(self.0.cast_mut()) }
        } else {
            self.load(offset::SKC_COOKIE.load())
        };
        (cookie, if cookie == 0 { 0 } else { flags::COOKIE })
    }

    #[inline(always)]
    pub fn tuple(self) -> Tuple {
        let family: u16 = self.load(offset::SKC_FAMILY.load());
        let (laddr, raddr) = if family == AF_INET6 {
            (self.load_v6(offset::SKC_V6_RCV_SADDR.load()), self.load_v6(offset::SKC_V6_DADDR.load()))
        } else {
            (mapped(self.load(offset::SKC_RCV_SADDR.load())), mapped(self.load(offset::SKC_DADDR.load())))
        };
        Tuple {
            device: self.load(offset::SKC_BOUND_DEV_IF.load()),
            laddr,
            raddr,
            lport: self.port(),
            rport: u16::from_be(self.load(offset::SKC_DPORT.load())),
        }
    }

    #[inline(always)]
    fn load_v6(self, offset: u32) -> [u64; 2] {
        [self.load(offset), self.load(offset + 8)]
    }
}

/// A `sock_common` whose type the verifier does not know: a socket found through a file descriptor, or a minisocket.
pub trait Untrusted: Copy {
    fn address(&self) -> u64;

    /// A member of `sock_common`, `zero` where this kernel has no such member.
    fn member<T: Copy>(&self, offset: u32, zero: T) -> T;

    #[inline(always)]
    fn family(&self) -> u16 {
        self.member(offset::SKC_FAMILY.load(), 0)
    }

    #[inline(always)]
    fn protocol(&self) -> u16 {
        peek_or(self.address(), offset::SK_PROTOCOL.load(), 0)
    }

    /// The cookie and its record flag, 0 if the kernel has not generated a cookie for this socket.
    #[inline(always)]
    fn cookie(&self) -> (u64, u16) {
        let cookie = self.member(offset::SKC_COOKIE.load(), 0);
        (cookie, if cookie == 0 { 0 } else { flags::COOKIE })
    }

    /// The `struct net` of the socket's network namespace.
    #[inline(always)]
    fn net(&self) -> u64 {
        self.member(offset::SKC_NET.load(), 0)
    }

    #[inline(always)]
    fn netns(&self) -> Netns {
        let net = self.net();
        Netns { inode: peek_or(net, offset::NS_INUM.load(), 0), cookie: peek_or(net, offset::NET_COOKIE.load(), 0) }
    }

    #[inline(always)]
    fn state(&self) -> u8 {
        self.member(offset::SKC_STATE.load(), 0)
    }

    /// `skc_num`: the local port held now, host order.
    #[inline(always)]
    fn port(&self) -> u16 {
        self.member(offset::SKC_NUM.load(), 0)
    }

    /// [`answer`]: bind() named the port.
    #[inline(always)]
    fn named(&self) -> u8 {
        let at = offset::SK_USERLOCKS.load();
        if at == Offsets::MISSING { answer::UNKNOWN } else { port_lock(peek_or(self.address(), byte_of(at), 0), at) }
    }

    /// `IP_LOCAL_PORT_RANGE` of the socket: low end | high end << 16, 0 if it has none.
    #[inline(always)]
    fn own_range(&self) -> u32 {
        peek_or(self.address(), offset::INET_PORT_RANGE.load(), 0)
    }

    #[inline(always)]
    fn tuple(&self) -> Tuple {
        let (laddr, raddr) = if self.family() == AF_INET6 {
            (self.member(offset::SKC_V6_RCV_SADDR.load(), [0; 2]), self.member(offset::SKC_V6_DADDR.load(), [0; 2]))
        } else {
            (mapped(self.member(offset::SKC_RCV_SADDR.load(), 0)), mapped(self.member(offset::SKC_DADDR.load(), 0)))
        };
        Tuple {
            device: self.member(offset::SKC_BOUND_DEV_IF.load(), 0),
            laddr,
            raddr,
            lport: self.port(),
            rport: u16::from_be(self.member(offset::SKC_DPORT.load(), 0)),
        }
    }
}

/// One whose members are read one by one. It takes no room on the stack, which a program that also describes a process has
/// little of: 512 bytes for all functions that call each other, rounded up to 32 each.
#[derive(Clone, Copy)]
pub struct Remote(pub u64);

impl Untrusted for Remote {
    #[inline(always)]
    fn address(&self) -> u64 {
        self.0
    }

    #[inline(always)]
    fn member<T: Copy>(&self, offset: u32, zero: T) -> T {
        peek_or(self.0, offset, zero)
    }
}

/// Words of a `struct sock_common` up to the cookie, its last member of interest.
const COMMON_WORDS: usize = 12;

/// One whose first members are copied at once, because `bpf_probe_read_kernel` costs 30 ns for two bytes and for 96: for
/// programs that run for every connection.
#[derive(Clone, Copy)]
pub struct Copied {
    address: u64,
    common: [u64; COMMON_WORDS],
}

impl Copied {
    #[inline(always)]
    pub fn new(address: u64) -> Self {
        Self { address, common: peek_or(address, 0, [0; COMMON_WORDS]) }
    }
}

impl Untrusted for Copied {
    #[inline(always)]
    fn address(&self) -> u64 {
        self.address
    }

    #[inline(always)]
    fn member<T: Copy>(&self, offset: u32, zero: T) -> T {
        if offset as usize > size_of_val(&self.common) - size_of::<T>() {
            // Known to the verifier, which then leaves out one of both ways.
            return peek_or(self.address, offset, zero);
        }
        // SAFETY: inside of the copy, by the comparison above; members are integers and arrays of them, for which any bytes
        // are a value.
        unsafe { self.common.as_ptr().cast::<u8>().add(offset as usize).cast::<T>().read_volatile() }
    }
}

/// The byte in which a bit field begins.
#[inline(always)]
fn byte_of(offset: u32) -> u32 {
    offset & ((1 << Offsets::BIT_SHIFT) - 1)
}

/// [`answer`] of `SOCK_BINDPORT_LOCK` (include/net/sock.h) in the byte of `sk_userlocks`, whose offset is `at`.
#[inline(always)]
fn port_lock(byte: u8, at: u32) -> u8 {
    const SOCK_BINDPORT_LOCK: u8 = 8;
    let locks = byte >> ((at >> Offsets::BIT_SHIFT) & 7);
    if locks & SOCK_BINDPORT_LOCK == 0 { answer::NO } else { answer::YES }
}

/// First argument of the system call that the current task is in or leaves; `None` before 5.15.
#[inline(always)]
pub fn first_argument() -> Option<u64> {
    if HAVE_TASK_REGS.load() == 0 {
        return None;
    }
    // SAFETY: on kernels without these helpers this is dead code to the verifier, because the global is read-only.
    let regs = unsafe { generated::bpf_task_pt_regs(generated::bpf_get_current_task_btf()) };
    peek(regs as u64, offset::REGS_FIRST_ARG.load())
}

/// Open files of the current task.
pub struct OpenFiles {
    /// `struct file **`.
    array: u64,
    count: u32,
}

impl OpenFiles {
    #[inline(always)]
    pub fn of_current() -> Option<Self> {
        // SAFETY: no arguments.
        let task = unsafe { generated::bpf_get_current_task() };
        let files: u64 = peek(task, offset::TASK_FILES.load())?;
        let fdt: u64 = peek(files, offset::FILES_FDT.load())?;
        Some(Self { array: peek(fdt, offset::FDT_FD.load())?, count: peek(fdt, offset::FDT_MAX_FDS.load())? })
    }

    /// The `struct file` behind a descriptor.
    #[inline(always)]
    fn file(&self, fd: u32) -> Option<u64> {
        if fd >= self.count {
            return None;
        }
        peek(self.array + u64::from(fd) * 8, 0)
    }

    /// The TCP socket (`struct sock`) behind a descriptor, of an MPTCP socket the one that it binds, listens and connects with; `None` if the
    /// descriptor is neither.
    #[inline(always)]
    pub fn tcp_socket(&self, fd: u32) -> Option<u64> {
        const S_IFMT: u16 = 0o170_000;
        const S_IFSOCK: u16 = 0o140_000;
        let file = self.file(fd)?;
        let inode: u64 = peek(file, offset::FILE_INODE.load())?;
        // Only a socket's private_data is a `struct socket`.
        if peek::<u16>(inode, offset::INODE_MODE.load())? & S_IFMT != S_IFSOCK {
            return None;
        }
        let mut sk = sock_of_file(file)?;
        let mut protocol: u16 = peek(sk, offset::SK_PROTOCOL.load())?;
        if protocol == PROTOCOL_MPTCP {
            sk = peek(sk, offset::MPTCP_FIRST.load())?;
            protocol = peek(sk, offset::SK_PROTOCOL.load())?;
        }
        if protocol != PROTOCOL_TCP {
            return None;
        }
        let family: u16 = peek(sk, offset::SKC_FAMILY.load())?;
        (family == AF_INET || family == AF_INET6).then_some(sk)
    }

    /// Address and cookie of the listening TCP socket behind a descriptor that accept() has just used, which therefore is a
    /// socket; zeroes if it listens no more.
    #[inline(always)]
    pub fn listener(&self, fd: u32) -> Option<(u64, u64)> {
        const LISTEN: u8 = 10;
        let mut sk = sock_of_file(self.file(fd)?)?;
        if peek::<u16>(sk, offset::SK_PROTOCOL.load())? == PROTOCOL_MPTCP {
            sk = peek(sk, offset::MPTCP_FIRST.load())?;
        }
        let listens = peek::<u8>(sk, offset::SKC_STATE.load())? == LISTEN;
        listens.then_some((sk, peek_or(sk, offset::SKC_COOKIE.load(), 0)))
    }
}

/// The `struct sock` behind a socket's `struct file`.
#[inline(always)]
fn sock_of_file(file: u64) -> Option<u64> {
    let socket: u64 = peek(file, offset::FILE_PRIVATE.load())?;
    peek(socket, offset::SOCKET_SK.load())
}
