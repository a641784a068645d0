//! `inet_sock_set_state`: every state transition. It fires before `sk_state` is written; for ->CLOSE after the port is
//! released.
//!
//! The kernel skips a program that is already running on this CPU (recursion guard, kernel/trace/bpf_trace.c
//! `__bpf_trace_run`): the transitions of a softirq that interrupts the program would go unrecorded. Therefore a chain
//! of three programs is attached to the hook. The first program always notes in `LAST` which transition it handles,
//! then records it. A later program returns if `LAST` holds its transition; otherwise the kernel skipped the earlier
//! programs, and it records the transition with a mark. An interrupt between two programs can cause a marked
//! repetition, which user space recognises. The number of transitions that are still lost is exactly
//! `recursion_misses(first) - (marked - repeated)`.

use core::ffi::c_void;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::macros::{btf_tracepoint, tracepoint};
use aya_ebpf::programs::{BtfTracePointContext, TracePointContext};
use tracer_common::{Counter, PROTOCOL_TCP, RecordKind, SocketRecord, TransitionRecord, flags};

use crate::emit::{count, header, now, record};
use crate::facts::{current, current_cgroup, introduce_netns, introduce_task};
use crate::maps::LAST;
use crate::maps::offset;
use crate::probes::connecting;
use crate::sock::{Netns, Trusted, bytes, mapped, peek_or};

const SYN_SENT: i32 = 2;
const FIN_WAIT1: i32 = 4;
const CLOSE: i32 = 7;
const LAST_ACK: i32 = 9;
const LISTEN: i32 = 10;

/// Positions in the chain; the program at the last one clears `LAST`.
const FIRST: u8 = 0;
const LAST_LINK: u8 = 2;

/// Transitions that only happen in a system call of the socket's user (docs/KERNEL.md#current: never seen in a
/// softirq).
#[inline(always)]
fn in_callers_context(old: i32, new: i32) -> bool {
    (old == CLOSE && (new == SYN_SENT || new == LISTEN))
        || new == FIN_WAIT1
        || new == LAST_ACK
        || old == LISTEN && new == CLOSE
}

// void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn state_first(ctx: BtfTracePointContext) -> i32 {
    transition::<FIRST>(&ctx);
    0
}

// void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn state_second(ctx: BtfTracePointContext) -> i32 {
    transition::<1>(&ctx);
    0
}

// void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn state_third(ctx: BtfTracePointContext) -> i32 {
    transition::<LAST_LINK>(&ctx);
    0
}

/// Both states in one byte. A state that four bits do not hold becomes 0, which is none.
#[inline(always)]
fn states(old: i32, new: i32) -> u8 {
    let bits = |state: i32| if state as u32 > 15 { 0 } else { state as u8 };
    bits(old) << 4 | bits(new)
}

/// Notes the transition in `LAST`; true if this program has to record it.
#[inline(always)]
fn mine<const LINK: u8>(sock: u64, old: i32, new: i32) -> bool {
    let Some(last) = LAST.get_ptr_mut(0) else { return LINK == FIRST };
    // SAFETY: this CPU's own slot. An interrupt between these accesses runs the chain for other transitions and may
    // leave one of them in the slot: then a later program repeats this one with a mark, and user space drops the
    // repetition.
    unsafe {
        if LINK != FIRST && (*last).sock == sock && (*last).old == old as u32 && (*last).new == new as u32 {
            if LINK == LAST_LINK {
                // Clear it: the same socket may make the same transition on this CPU again, after others on another
                // CPU.
                (*last).sock = 0;
            }
            return false;
        }
        (*last).sock = sock;
        (*last).old = old as u32;
        (*last).new = new as u32;
    }
    true
}

#[inline(always)]
fn transition<const LINK: u8>(ctx: &BtfTracePointContext) {
    let sk = Trusted::new(ctx.arg::<*const c_void>(0));
    let old: i32 = ctx.arg(1);
    let new: i32 = ctx.arg(2);
    if !sk.is_tcp() || !mine::<LINK>(sk.address(), old, new) {
        return;
    }
    let net = sk.net();
    let netns = Trusted::netns(net);
    // connect() has found no port, or was given up while it waited for an answer.
    let failed = old == SYN_SENT && new == CLOSE && sk.port() == 0 && sk.sk_err() == 0;
    if LINK == FIRST && (old == CLOSE || failed) {
        // First, because the verifier walks its loop once for each way to it.
        introduce_netns(net as u64, netns, failed);
        if !failed {
            introduce_task(ctx, netns);
        }
    }
    let (cookie, cookie_flag) = sk.cookie();
    let (tgid, tid) = current();
    let caller = in_callers_context(old, new);
    let tuple = sk.tuple();
    // Only these two need the last port: in all other states it equals the port held now.
    let sport = if new == CLOSE || new == SYN_SENT { sk.last_port() } else { tuple.lport };
    let mut flag = cookie_flag;
    let own_range: u32 = if failed { peek_or(sk.address(), offset::INET_PORT_RANGE.load(), 0) } else { 0 };
    if own_range != 0 {
        flag |= flags::OWN_RANGE;
    }
    if sk.shutdown() {
        flag |= flags::SHUTDOWN;
    }
    if caller {
        flag |= flags::CALLER;
    }
    if LINK != FIRST {
        flag |= flags::RESCUED;
        count(Counter::Rescued);
    }
    let ktime = now();
    if old == CLOSE && new == SYN_SENT {
        connecting::begins(sk.address(), ktime);
    } else if old == SYN_SENT && new == CLOSE {
        // The connect failed: user space computes the time from the two transitions.
        connecting::ends(sk.address());
    }
    record::<TransitionRecord>(Counter::TransitionRingFull, |out| {
        // SAFETY: ring-buffer memory of this size, written whole.
        unsafe {
            (*out).header = header(RecordKind::Transition, flag, netns, ktime);
            (*out).cookie = cookie;
            (*out).sock = sk.address();
            (*out).netns = netns.inode;
            (*out).device = tuple.device;
            (*out).tgid = tgid;
            (*out).tid = tid;
            (*out).lport = tuple.lport;
            (*out).rport = tuple.rport;
            (*out).sport = sport;
            (*out).sk_err = sk.sk_err();
            (*out).states = states(old, new);
            (*out).cgroup = if caller { current_cgroup() } else { u64::from(own_range) };
            (*out).laddr = bytes(tuple.laddr);
            (*out).raddr = bytes(tuple.raddr);
        }
    });
}

/// A socket that still holds a port here got it by bind() or listen(): all other ports were released at ->CLOSE.
// void tcp_destroy_sock(struct sock *sk)
#[btf_tracepoint(function = "tcp_destroy_sock")]
pub fn socket_destroyed(ctx: BtfTracePointContext) -> i32 {
    let sk = Trusted::new(ctx.arg::<*const c_void>(0));
    if sk.port() == 0 {
        return 0;
    }
    let (cookie, flag) = sk.cookie();
    let (tgid, tid) = current();
    let tuple = sk.tuple();
    let netns = Trusted::netns(sk.net());
    record::<SocketRecord>(Counter::CallRingFull, |out| {
        // SAFETY: ring-buffer memory of this size, written whole.
        unsafe {
            (*out).header = header(RecordKind::Released, flag, netns, now());
            (*out).cookie = cookie;
            (*out).sock = sk.address();
            (*out).listener_cookie = 0;
            (*out).listener = 0;
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
    0
}

/// For kernels without BTF: the same record, but without cookie, netns and errno, and with a port that may be stale.
///
/// Field offsets are those of /sys/kernel/tracing/events/sock/inet_sock_set_state/format since 5.6; the tests compare
/// them on every supported kernel.
// void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[tracepoint(category = "sock", name = "inet_sock_set_state")]
pub fn state_classic(ctx: TracePointContext) -> u32 {
    // SAFETY: reads inside the tracepoint's context, checked by the helper.
    let read = || unsafe {
        let family: u16 = ctx.read_at(28).ok()?;
        let v6 = family == crate::sock::AF_INET6;
        Some((
            ctx.read_at::<u64>(8).ok()?,
            ctx.read_at::<[i32; 2]>(16).ok()?,
            ctx.read_at::<[u16; 4]>(24).ok()?,
            if v6 { ctx.read_at::<[u64; 2]>(40).ok()? } else { mapped(ctx.read_at(32).ok()?) },
            if v6 { ctx.read_at::<[u64; 2]>(56).ok()? } else { mapped(ctx.read_at(36).ok()?) },
        ))
    };
    let Some((sock, [old, new], [sport, dport, _, protocol], laddr, raddr)) = read() else { return 0 };
    if protocol != PROTOCOL_TCP {
        return 0;
    }
    let (tgid, tid) = current();
    let caller = in_callers_context(old, new);
    if old == CLOSE {
        introduce_task(&ctx, Netns::UNKNOWN);
    }
    record::<TransitionRecord>(Counter::TransitionRingFull, |out| {
        let flag = flags::CLASSIC | if caller { flags::CALLER } else { 0 };
        // SAFETY: ring-buffer memory of this size, written whole.
        unsafe {
            (*out).header = header(RecordKind::Transition, flag, Netns::UNKNOWN, now());
            (*out).cookie = 0;
            (*out).sock = sock;
            (*out).netns = 0;
            (*out).device = 0;
            (*out).tgid = tgid;
            (*out).tid = tid;
            // The tracepoint's sport is `inet_sport`: not yet chosen or stale at ->SYN_SENT, already released at
            // ->CLOSE.
            (*out).lport = if new == SYN_SENT || new == CLOSE { 0 } else { sport };
            (*out).rport = dport;
            (*out).sport = sport;
            (*out).sk_err = 0;
            (*out).states = states(old, new);
            (*out).cgroup = if caller { current_cgroup() } else { 0 };
            (*out).laddr = bytes(laddr);
            (*out).raddr = bytes(raddr);
        }
    });
    let _ = ctx.as_ptr();
    0
}
