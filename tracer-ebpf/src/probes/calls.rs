//! connect(), bind(), listen() and accept(): errors that no state transition shows, and which process accepted.
//!
//! Where the kernel supports fexit, the programs run at the return of TCP's own functions, which io_uring and
//! `MSG_FASTOPEN` call too. Elsewhere they run at the system call boundary, on classic tracepoints, because only these
//! fire for one system call instead of all of them (although every task then takes the slow path into all of its system
//! calls). There the programs find the socket through the caller's file descriptor table.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_user};
use aya_ebpf::macros::{fexit, tracepoint};
use aya_ebpf::programs::{FExitContext, TracePointContext};
use tracer_common::{CallRecord, Counter, PROTOCOL_TCP, RecordKind, SocketRecord, answer, call};

use crate::emit::{count, header, now, record};
use crate::facts::{current, current_cgroup, introduce_netns, introduce_task};
use crate::maps::{ACCEPTED, CALLS, PendingCall, offset};
use crate::probes::connecting;
use crate::sock::{
    AF_INET, AF_INET6, Copied, Netns, OpenFiles, Remote, Untrusted, bytes, first_argument, mapped, peek, peek_or,
};

/// Offsets inside the context of `syscalls:sys_enter_*` and `sys_exit_*` (include/trace/syscall.h): `long` fields after
/// the 8 common bytes and the 4-byte number with its padding.
const FIRST_ARG: usize = 16;
const SECOND_ARG: usize = 24;
const RETURN: usize = 16;

const EINTR: i64 = 4;
const EADDRINUSE: i64 = 98;
const EISCONN: i64 = 106;
const EALREADY: i64 = 114;
const EINPROGRESS: i64 = 115;
/// First of the internal restart codes (include/linux/errno.h): a signal interrupted the call, and the kernel will
/// repeat it.
const ERESTARTSYS: i64 = 512;

// long sys_connect(int fd, struct sockaddr *uservaddr, int addrlen)
#[tracepoint(category = "syscalls", name = "sys_enter_connect")]
pub fn connect_enter(ctx: TracePointContext) -> u32 {
    enter(&ctx, call::CONNECT);
    0
}

// long sys_connect(int fd, struct sockaddr *uservaddr, int addrlen)
#[tracepoint(category = "syscalls", name = "sys_exit_connect")]
pub fn connect_exit(ctx: TracePointContext) -> u32 {
    if let Some((pending, ret)) = leave(&ctx)
        && ret < 0
        && !matches!(-ret, EINTR | EISCONN | EALREADY | EINPROGRESS | ERESTARTSYS..)
        && let Some(sk) = tcp_socket(pending.fd)
    {
        let netns = sk.netns();
        introduce_task(&ctx, netns);
        failed(&pending, sockaddr(pending.sockaddr, Memory::User), &sk, netns, -ret);
    }
    0
}

// long sys_bind(int fd, struct sockaddr *umyaddr, int addrlen)
#[tracepoint(category = "syscalls", name = "sys_enter_bind")]
pub fn bind_enter(ctx: TracePointContext) -> u32 {
    enter(&ctx, call::BIND);
    0
}

// long sys_bind(int fd, struct sockaddr *umyaddr, int addrlen)
#[tracepoint(category = "syscalls", name = "sys_exit_bind")]
pub fn bind_exit(ctx: TracePointContext) -> u32 {
    if let Some((pending, ret)) = leave(&ctx)
        && let Some(sk) = tcp_socket(pending.fd)
    {
        // Bound to an address without a port: IP_BIND_ADDRESS_NO_PORT.
        if ret >= 0 && sk.port() == 0 {
            return 0;
        }
        let netns = sk.netns();
        lacks_port(&sk, netns, -ret);
        // One call for both outcomes: the verifier would walk an inlined second call as the whole function again.
        introduce_task(&ctx, netns);
        if ret < 0 {
            failed(&pending, sockaddr(pending.sockaddr, Memory::User), &sk, netns, -ret);
        } else {
            socket(RecordKind::Bound, &sk, netns, NO_LISTENER);
        }
    }
    0
}

// long sys_listen(int fd, int backlog)
#[tracepoint(category = "syscalls", name = "sys_enter_listen")]
pub fn listen_enter(ctx: TracePointContext) -> u32 {
    enter(&ctx, call::LISTEN);
    0
}

// long sys_listen(int fd, int backlog)
#[tracepoint(category = "syscalls", name = "sys_exit_listen")]
pub fn listen_exit(ctx: TracePointContext) -> u32 {
    if let Some((pending, ret)) = leave(&ctx)
        && let Some(sk) = tcp_socket(pending.fd)
    {
        listened(&sk, ret, pending.entered);
    }
    0
}

// long sys_accept(int fd, struct sockaddr *upeer_sockaddr, int *upeer_addrlen)
#[tracepoint(category = "syscalls", name = "sys_exit_accept")]
pub fn accept_exit(ctx: TracePointContext) -> u32 {
    accepted(&ctx);
    0
}

// long sys_accept4(int fd, struct sockaddr *upeer_sockaddr, int *upeer_addrlen, int flags)
#[tracepoint(category = "syscalls", name = "sys_exit_accept4")]
pub fn accept4_exit(ctx: TracePointContext) -> u32 {
    accepted(&ctx);
    0
}

#[inline(always)]
fn accepted(ctx: &TracePointContext) {
    // SAFETY: reads inside the tracepoint's context.
    if let Ok(fd) = unsafe { ctx.read_at::<i64>(RETURN) }
        && fd >= 0
        && let Some(files) = OpenFiles::of_current()
        && let Some(sk) = files.tcp_socket(fd as u32)
    {
        let sk = Copied::new(sk);
        let netns = sk.netns();
        introduce_task(ctx, netns);
        let listener = first_argument().and_then(|fd| files.listener(fd as u32));
        socket(RecordKind::Accepted, &sk, netns, listener.unwrap_or(NO_LISTENER));
    }
}

/// Address and cookie of a listening socket that is none.
const NO_LISTENER: (u64, u64) = (0, 0);

#[inline(always)]
fn tcp_socket(fd: u32) -> Option<Remote> {
    OpenFiles::of_current()?.tcp_socket(fd).map(Remote)
}

// 5.10-6.18: int tcp_v4_connect(struct sock *sk, struct sockaddr *uaddr, int addr_len)
// 6.19+:     int tcp_v4_connect(struct sock *sk, struct sockaddr_unsized *uaddr, int addr_len)
#[fexit(function = "tcp_v4_connect")]
pub fn connected_v4(ctx: FExitContext) -> u32 {
    connected::<false>(&ctx);
    0
}

// 5.10-6.18: int tcp_v6_connect(struct sock *sk, struct sockaddr *uaddr, int addr_len)
// 6.19+:     int tcp_v6_connect(struct sock *sk, struct sockaddr_unsized *uaddr, int addr_len)
#[fexit(function = "tcp_v6_connect")]
pub fn connected_v6(ctx: FExitContext) -> u32 {
    connected::<true>(&ctx);
    0
}

// 5.10-6.18: int inet_bind(struct socket *sock, struct sockaddr *uaddr, int addr_len)
// 6.19+:     int inet_bind(struct socket *sock, struct sockaddr_unsized *uaddr, int addr_len)
#[fexit(function = "inet_bind")]
pub fn bound_v4(ctx: FExitContext) -> u32 {
    bound(&ctx);
    0
}

// 5.10-6.18: int inet6_bind(struct socket *sock, struct sockaddr *uaddr, int addr_len)
// 6.19+:     int inet6_bind(struct socket *sock, struct sockaddr_unsized *uaddr, int addr_len)
#[fexit(function = "inet6_bind")]
pub fn bound_v6(ctx: FExitContext) -> u32 {
    bound(&ctx);
    0
}

// 5.10-5.16: int inet_csk_listen_start(struct sock *sk, int backlog)
#[fexit(function = "inet_csk_listen_start")]
pub fn listening_of_two(ctx: FExitContext) -> u32 {
    listening(&ctx, i64::from(ctx.arg::<i32>(2)));
    0
}

// 5.17+: int inet_csk_listen_start(struct sock *sk)
#[fexit(function = "inet_csk_listen_start")]
pub fn listening_of_one(ctx: FExitContext) -> u32 {
    listening(&ctx, i64::from(ctx.arg::<i32>(1)));
    0
}

// 5.10-6.9: struct sock *inet_csk_accept(struct sock *sk, int flags, int *err, bool kern)
#[fexit(function = "inet_csk_accept")]
pub fn accepted_of_four(ctx: FExitContext) -> u32 {
    accepted_child(&ctx, ctx.arg::<*const c_void>(4) as u64);
    0
}

// 5.10-6.9: struct sock *inet_csk_accept(struct sock *sk, int flags, int *err, bool kern)
#[fexit(function = "inet_csk_accept")]
pub fn accepted_of_four_again(ctx: FExitContext) -> u32 {
    accepted_child(&ctx, ctx.arg::<*const c_void>(4) as u64);
    0
}

// 6.10+: struct sock *inet_csk_accept(struct sock *sk, struct proto_accept_arg *arg)
#[fexit(function = "inet_csk_accept")]
pub fn accepted_of_two(ctx: FExitContext) -> u32 {
    accepted_child(&ctx, ctx.arg::<*const c_void>(2) as u64);
    0
}

// 6.10+: struct sock *inet_csk_accept(struct sock *sk, struct proto_accept_arg *arg)
#[fexit(function = "inet_csk_accept")]
pub fn accepted_of_two_again(ctx: FExitContext) -> u32 {
    accepted_child(&ctx, ctx.arg::<*const c_void>(2) as u64);
    0
}

#[inline(always)]
fn connected<const V6: bool>(ctx: &FExitContext) {
    let sk = ctx.arg::<*const c_void>(0) as u64;
    let ret = i64::from(ctx.arg::<i32>(3));
    let since = connecting::ends(sk);
    if ret == 0 {
        if since != 0 {
            connecting::searched(sk, since);
        }
        return;
    }
    if ret > 0 {
        return;
    }
    let sk = Remote(sk);
    let netns = sk.netns();
    // Before the address is read: the verifier walks all code after a branch twice.
    introduce_task(ctx, netns);
    let target = sockaddr(ctx.arg::<*const c_void>(1) as u64, Memory::Kernel);
    // tcp_v6_connect() passes a mapped address to tcp_v4_connect(), whose return is already recorded.
    let [high, low] = target.addr;
    if V6 && high == 0 && low as u32 == 0xffff_0000 {
        return;
    }
    let entered = if since == 0 { now() } else { since };
    let pending = PendingCall { entered, sockaddr: 0, fd: 0, call: u32::from(call::CONNECT) };
    failed(&pending, target, &sk, netns, -ret);
}

#[inline(always)]
fn bound(ctx: &FExitContext) {
    let socket_of = ctx.arg::<*const c_void>(0) as u64;
    let ret = i64::from(ctx.arg::<i32>(3));
    let Some(sk) = peek(socket_of, offset::SOCKET_SK.load()).map(Remote) else { return };
    if sk.protocol() != PROTOCOL_TCP {
        return;
    }
    if ret >= 0 && sk.port() == 0 {
        return;
    }
    let netns = sk.netns();
    lacks_port(&sk, netns, -ret);
    introduce_task(ctx, netns);
    if ret < 0 {
        let target = sockaddr(ctx.arg::<*const c_void>(1) as u64, Memory::Kernel);
        let pending = PendingCall { entered: now(), sockaddr: 0, fd: 0, call: u32::from(call::BIND) };
        failed(&pending, target, &sk, netns, -ret);
    } else {
        socket(RecordKind::Bound, &sk, netns, NO_LISTENER);
    }
}

/// bind() or listen() may have failed because there is no port left: user space then needs the limits that are in force.
#[inline(always)]
fn lacks_port(sk: &impl Untrusted, netns: Netns, errno: i64) {
    if errno == EADDRINUSE {
        introduce_netns(sk.net(), netns, true);
    }
}

#[inline(always)]
fn listening(ctx: &FExitContext, ret: i64) {
    let sk = Remote(ctx.arg::<*const c_void>(0) as u64);
    if sk.protocol() == PROTOCOL_TCP {
        listened(&sk, ret, now());
    }
}

/// The return of listen(), which takes a port for a socket that has none. CLOSE->LISTEN, which precedes it, has described
/// the process.
#[inline(always)]
fn listened(sk: &impl Untrusted, ret: i64, entered: u64) {
    let netns = sk.netns();
    if ret >= 0 {
        // The return of bind() has told of a named port.
        if sk.named() != answer::YES {
            socket(RecordKind::Bound, sk, netns, NO_LISTENER);
        }
        return;
    }
    lacks_port(sk, netns, -ret);
    let pending = PendingCall { entered, sockaddr: 0, fd: 0, call: u32::from(call::LISTEN) };
    failed(&pending, Asked::UNKNOWN, sk, netns, -ret);
}

/// Two programs are attached to each accept(): where a task can be preempted inside a program, the kernel skips that
/// program for the next task on this CPU. The first of the two that runs records the accept(). If two tasks run between
/// each other's programs, one accept() may be recorded twice, which user space tolerates.
#[inline(always)]
fn accepted_child(ctx: &FExitContext, child: u64) {
    if child == 0 {
        return;
    }
    let Some(slot) = ACCEPTED.get_ptr_mut(0) else { return };
    // SAFETY: this CPU's own slot, one word.
    unsafe {
        if *slot == child {
            *slot = 0;
            return;
        }
        *slot = child;
    }
    let sk = Copied::new(child);
    if sk.protocol() == PROTOCOL_TCP {
        let netns = sk.netns();
        introduce_task(ctx, netns);
        let listener = ctx.arg::<*const c_void>(0) as u64;
        socket(RecordKind::Accepted, &sk, netns, (listener, peek_or(listener, offset::SKC_COOKIE.load(), 0)));
    }
}

#[inline(always)]
fn enter(ctx: &TracePointContext, call: u8) {
    // SAFETY: reads inside the tracepoint's context.
    let (Ok(fd), Ok(sockaddr)) = (unsafe { ctx.read_at::<u64>(FIRST_ARG) }, unsafe { ctx.read_at::<u64>(SECOND_ARG) })
    else {
        return;
    };
    let (_, tid) = current();
    let pending = PendingCall { entered: now(), sockaddr, fd: fd as u32, call: u32::from(call) };
    if CALLS.insert(&tid, &pending, 0).is_err() {
        count(Counter::CallMapFull);
    }
}

/// The call that this thread is leaving, and its return value.
#[inline(always)]
fn leave(ctx: &TracePointContext) -> Option<(PendingCall, i64)> {
    let (_, tid) = current();
    // SAFETY: the entry is this thread's own, and copied before it is removed.
    let pending = unsafe { CALLS.get(&tid) }.copied()?;
    let _ = CALLS.remove(&tid);
    // SAFETY: reads inside the tracepoint's context.
    Some((pending, unsafe { ctx.read_at::<i64>(RETURN) }.ok()?))
}

/// The memory that holds a `sockaddr`.
#[derive(Clone, Copy)]
enum Memory {
    User,
    Kernel,
}

/// What a call was asked for. Not an `Option`: the compiler reads the values before it checks that they exist, and the
/// verifier refuses to let uninitialised ones be read.
#[derive(Clone, Copy)]
struct Asked {
    known: bool,
    port: u16,
    addr: [u64; 2],
}

impl Asked {
    const UNKNOWN: Self = Self { known: false, port: 0, addr: [0; 2] };
}

/// Port and address of a `struct sockaddr_in` or `sockaddr_in6`; unknown if it cannot be read or is of another family.
#[inline(always)]
fn sockaddr(address: u64, memory: Memory) -> Asked {
    let mut raw = [0_u32; 7];
    // SAFETY: copies at most the size of `raw` from the caller's memory.
    let read = |raw: &mut [u32; 7], len: u32| unsafe {
        match memory {
            Memory::User => bpf_probe_read_user(raw.as_mut_ptr().cast(), len, address as *const _),
            Memory::Kernel => bpf_probe_read_kernel(raw.as_mut_ptr().cast(), len, address as *const _),
        }
    };
    // An IPv4 caller may own only 16 bytes.
    if read(&mut raw, 28) != 0 && read(&mut raw, 16) != 0 {
        return Asked::UNKNOWN;
    }
    let family = raw[0] as u16;
    let port = u16::from_be((raw[0] >> 16) as u16);
    let addr = match family {
        AF_INET => mapped(raw[1]),
        AF_INET6 => [u64::from(raw[2]) | (u64::from(raw[3]) << 32), u64::from(raw[4]) | (u64::from(raw[5]) << 32)],
        _ => return Asked::UNKNOWN,
    };
    Asked { known: true, port, addr }
}

#[inline(always)]
fn failed(pending: &PendingCall, target: Asked, sk: &impl Untrusted, netns: Netns, errno: i64) {
    let (cookie, flag) = sk.cookie();
    let tuple = sk.tuple();
    let (tgid, tid) = current();
    // SAFETY: copies the current task's name into a local.
    let comm = aya_ebpf::helpers::bpf_get_current_comm().unwrap_or([0; 16]);
    record::<CallRecord>(Counter::CallRingFull, |out| {
        // SAFETY: ring-buffer memory of this size, written whole.
        unsafe {
            (*out).header = header(RecordKind::CallFailed, flag, netns, now());
            (*out).cookie = cookie;
            (*out).sock = sk.address();
            (*out).entered = pending.entered;
            (*out).cgroup = current_cgroup();
            (*out).netns = netns.inode;
            (*out).device = tuple.device;
            (*out).tgid = tgid;
            (*out).tid = tid;
            (*out).own_range = sk.own_range();
            (*out).errno = errno as u16;
            (*out).port = target.port;
            (*out).lport = tuple.lport;
            (*out).call = pending.call as u8;
            (*out).has_addr = u8::from(target.known);
            (*out).pad = [0; 4];
            (*out).addr = bytes(target.addr);
            (*out).laddr = bytes(tuple.laddr);
            (*out).comm = comm;
        }
    });
}

#[inline(always)]
fn socket(kind: RecordKind, sk: &impl Untrusted, netns: Netns, (listener, listener_cookie): (u64, u64)) {
    let (cookie, flag) = sk.cookie();
    let tuple = sk.tuple();
    let (tgid, tid) = current();
    record::<SocketRecord>(Counter::CallRingFull, |out| {
        // SAFETY: ring-buffer memory of this size, written whole.
        unsafe {
            (*out).header = header(kind, flag, netns, now());
            (*out).cookie = cookie;
            (*out).sock = sk.address();
            (*out).listener_cookie = listener_cookie;
            (*out).listener = listener;
            (*out).netns = netns.inode;
            (*out).device = tuple.device;
            (*out).tgid = tgid;
            (*out).tid = tid;
            (*out).lport = tuple.lport;
            (*out).rport = tuple.rport;
            (*out).named = sk.named();
            (*out).pad = [0; 3];
            (*out).laddr = bytes(tuple.laddr);
            (*out).raddr = bytes(tuple.raddr);
        }
    });
}
