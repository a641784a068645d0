//! `TIME_WAIT`, begin and end: every minisocket lives exactly as long as its timer.
//!
//! Where fentry can be had, the functions that arm the timer and take the minisocket down say so themselves. No tracepoint
//! speaks of minisockets, and fentry is not to be had everywhere; but `timer_start` and `timer_cancel`
//! fire for `tw_timer` on every kernel since 5.10, and the handler's address tells it from all other timers. An expiring
//! timer is cancelled first (kernel/time/timer.c `expire_timers` -> `detach_timer`), so the cancel alone marks the end;
//! whether its time was up tells a natural end from an early one.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_jiffies64;
use aya_ebpf::macros::{btf_tracepoint, fentry};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext};
use tracer_common::{Counter, RecordKind, TimeWaitRecord, flags};

use crate::emit::{header, now, record};
use crate::facts::current;
use crate::maps::{TW_TIMER_HANDLER, offset};
use crate::probes::connecting;
use crate::sock::{Untrusted, bytes, peek};

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

// void __inet_twsk_schedule(struct inet_timewait_sock *tw, int timeo, bool rearm)
#[fentry(function = "__inet_twsk_schedule")]
pub fn minisocket_start(ctx: FEntryContext) -> u32 {
    minisocket(ctx.arg::<*const c_void>(0) as u64, RecordKind::TimeWaitStart, 0);
    0
}

// void inet_twsk_kill(struct inet_timewait_sock *tw)
#[fentry(function = "inet_twsk_kill")]
pub fn minisocket_end(ctx: FEntryContext) -> u32 {
    let tw = ctx.arg::<*const c_void>(0) as u64;
    let timer = tw + u64::from(offset::TW_TIMER.load());
    let expires: u64 = peek(timer, offset::TIMER_EXPIRES.load()).unwrap_or(u64::MAX);
    minisocket(tw, RecordKind::TimeWaitEnd, expired(expires));
    0
}

/// The record flag that says whether a timer that was to expire at `expires` (jiffies) was due.
#[inline(always)]
fn expired(expires: u64) -> u16 {
    // SAFETY: no arguments.
    let due = unsafe { bpf_jiffies64() }.wrapping_sub(expires) as i64 >= 0;
    if due { flags::EXPIRED } else { 0 }
}

/// The minisocket around its timer.
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

#[inline(always)]
fn minisocket(address: u64, kind: RecordKind, flag: u16) {
    let tw = Untrusted(address);
    let (cookie, cookie_flag) = tw.cookie();
    let tuple = tw.tuple();
    let (tgid, tid) = current();
    let netns = tw.netns();
    // `tw_substate` is a `volatile unsigned char`.
    let substate: u8 = peek(address, offset::TW_SUBSTATE.load()).unwrap_or(0);
    record::<TimeWaitRecord>(Counter::TimeWaitRingFull, |out| {
        // SAFETY: ring-buffer memory of this size, written whole.
        unsafe {
            (*out).header = header(kind, tuple.family, flag | cookie_flag, TimeWaitRecord::SIZE, now());
            (*out).cookie = cookie;
            (*out).sock = address;
            (*out).netns = netns;
            (*out).tgid = tgid;
            (*out).tid = tid;
            (*out).lport = tuple.lport;
            (*out).rport = tuple.rport;
            (*out).substate = substate;
            (*out).pad = [0; 7];
            (*out).laddr = bytes(tuple.laddr);
            (*out).raddr = bytes(tuple.raddr);
        }
    });
}
