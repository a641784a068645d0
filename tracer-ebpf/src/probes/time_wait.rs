//! Begin and end of `TIME_WAIT`: every minisocket lives exactly as long as its timer.
//!
//! Where the kernel supports fentry, the programs are attached to the functions that allocate and kill the minisocket.
//! Elsewhere they use the timer: no tracepoint reports minisockets, but `timer_start` and `timer_cancel` fire for
//! `tw_timer` on every kernel since 5.10, and the handler's address distinguishes it from all other timers. The kernel
//! cancels an expiring timer first (kernel/time/timer.c `expire_timers` -> `detach_timer`), so the cancel alone marks
//! the end. Whether the timer was due distinguishes a natural end from an early one.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_jiffies64;
use aya_ebpf::macros::{btf_tracepoint, fentry, fexit};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, FExitContext};
use tracer_common::{Counter, Offsets, RecordKind, TimeWaitRecord, answer, flags};

use crate::emit::{header, now, record};
use crate::maps::{TW_TIMER_HANDLER, offset};
use crate::probes::connecting;
use crate::sock::{Copied, Untrusted, bytes, peek_or};

// 5.10-6.7: void timer_start(struct timer_list *timer, unsigned long expires, unsigned int flags)
// 6.8+:     void timer_start(struct timer_list *timer, unsigned long bucket_expiry)
#[btf_tracepoint(function = "timer_start")]
pub fn time_wait_start(ctx: BtfTracePointContext) -> i32 {
    let timer: *const c_void = ctx.arg(0);
    if is_time_wait(timer) {
        minisocket(of_timer(timer as u64), RecordKind::TimeWaitStart, 0);
    } else {
        connecting::timer_armed(timer as u64);
    }
    0
}

// void timer_cancel(struct timer_list *timer)
#[btf_tracepoint(function = "timer_cancel")]
pub fn time_wait_end(ctx: BtfTracePointContext) -> i32 {
    let timer: *const c_void = ctx.arg(0);
    if is_time_wait(timer) {
        // SAFETY: typed pointer, see is_time_wait.
        let expires: u64 = unsafe { load(timer, offset::TIMER_EXPIRES.load()) };
        minisocket(of_timer(timer as u64), RecordKind::TimeWaitEnd, expired(expires));
    }
    0
}

/// Not on the function that starts the timer: compilers inline it into some of its callers (on 7.2 a program there
/// missed ten of thirteen calls). So this tier does not see the restart when the peer's FIN comes; the end record gives
/// the whole time.
///
/// The minisocket is not filled in yet. Addresses, ports and cookie come from the socket that it replaces.
// struct inet_timewait_sock *inet_twsk_alloc(const struct sock *sk, struct inet_timewait_death_row *dr, const int state)
#[fexit(function = "inet_twsk_alloc")]
pub fn minisocket_start(ctx: FExitContext) -> u32 {
    let (sk, tw) = (ctx.arg::<*const c_void>(0) as u64, ctx.arg::<*const c_void>(3) as u64);
    // 0 when the namespace already has as many as `tcp_max_tw_buckets` allows.
    if tw != 0 {
        let timestamps = timestamps(sk, offset::TCP_TS_RECENT_STAMP.load());
        describe(&Copied::new(sk), ctx.arg::<i32>(2) as u8, timestamps, RecordKind::TimeWaitStart, 0);
    }
    0
}

// void inet_twsk_kill(struct inet_timewait_sock *tw)
#[fentry(function = "inet_twsk_kill")]
pub fn minisocket_end(ctx: FEntryContext) -> u32 {
    let tw = ctx.arg::<*const c_void>(0) as u64;
    let timer = tw + u64::from(offset::TW_TIMER.load());
    let expires: u64 = peek_or(timer, offset::TIMER_EXPIRES.load(), u64::MAX);
    minisocket(tw, RecordKind::TimeWaitEnd, expired(expires));
    0
}

/// [`flags::EXPIRED`] if a timer that was set to expire at `expires` (jiffies) is due, else 0.
#[inline(always)]
fn expired(expires: u64) -> u16 {
    // SAFETY: no arguments.
    let due = unsafe { bpf_jiffies64() }.wrapping_sub(expires) as i64 >= 0;
    if due { flags::EXPIRED } else { 0 }
}

/// Address of the minisocket that contains this timer.
#[inline(always)]
fn of_timer(timer: u64) -> u64 {
    timer - u64::from(offset::TW_TIMER.load())
}

/// # Safety
/// `timer` must be an argument of a `tp_btf` program of type `struct timer_list *`; the verifier bounds the access.
#[inline(always)]
unsafe fn load(timer: *const c_void, offset: u32) -> u64 {
    // SAFETY: by contract.
    unsafe { core::ptr::read_volatile(timer.cast::<u8>().add(offset as usize).cast::<u64>()) }
}

#[inline(always)]
fn is_time_wait(timer: *const c_void) -> bool {
    // SAFETY: the hook's first argument.
    unsafe { load(timer, offset::TIMER_FUNCTION.load()) == TW_TIMER_HANDLER.load() }
}

/// [`answer`]: the peer has sent TCP timestamps; `at` is the offset of the second in which the last one came.
#[inline(always)]
pub fn timestamps(sk: u64, at: u32) -> u8 {
    if at == Offsets::MISSING {
        answer::UNKNOWN
    } else if peek_or::<u32>(sk, at, 0) == 0 {
        answer::NO
    } else {
        answer::YES
    }
}

#[inline(always)]
fn minisocket(address: u64, kind: RecordKind, flag: u16) {
    // `tw_substate` is a `volatile unsigned char`.
    let substate: u8 = peek_or(address, offset::TW_SUBSTATE.load(), 0);
    describe(&Copied::new(address), substate, timestamps(address, offset::TW_TS_RECENT_STAMP.load()), kind, flag);
}

/// Records a minisocket with the addresses, ports and cookie of `sk`, the minisocket itself or the socket that it
/// replaces.
#[inline(always)]
fn describe(sk: &impl Untrusted, substate: u8, timestamps: u8, kind: RecordKind, flag: u16) {
    let (cookie, cookie_flag) = sk.cookie();
    let tuple = sk.tuple();
    let netns = sk.netns();
    record::<TimeWaitRecord>(Counter::TimeWaitRingFull, |out| {
        // SAFETY: ring-buffer memory of this size, written whole.
        unsafe {
            (*out).header = header(kind, flag | cookie_flag, netns, now());
            (*out).cookie = cookie;
            (*out).netns = netns.inode;
            (*out).lport = tuple.lport;
            (*out).rport = tuple.rport;
            (*out).device = tuple.device;
            (*out).substate = substate;
            (*out).timestamps = timestamps;
            (*out).pad = [0; 2];
            (*out).laddr = bytes(tuple.laddr);
            (*out).raddr = bytes(tuple.raddr);
        }
    });
}
