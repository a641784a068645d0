//! How long connect() searches for a port: from CLOSE->SYN_SENT, which precedes the search, to the first event after
//! it.
//!
//! The search runs in the caller's context with the socket locked, so the CPU that saw the transition nearly always
//! sees that event too. If the thread migrates in between, the time of this connect stays unknown, and the slot of the
//! first CPU must not count as the beginning of a later search: only the same thread, with the socket still in
//! SYN_SENT, ends a search.

use tracer_common::{Counter, Offsets, PortSearchRecord, RecordKind, flags};

use crate::emit::{header, now, record};
use crate::facts::current;
use crate::maps::{CONNECTING, offset};
use crate::sock::{Netns, peek_or};

const SYN_SENT: u8 = 2;

/// Notes CLOSE->SYN_SENT of `sock`.
#[inline(always)]
pub fn begins(sock: u64, ktime: u64) {
    if let Some(slot) = CONNECTING.get_ptr_mut(0) {
        // SAFETY: this CPU's own slot. No interrupt begins a connect(). A thread that takes over the CPU may begin one;
        // then the time of the first thread's search stays unknown.
        unsafe {
            (*slot).since = ktime;
            (*slot).tid = current().1;
            (*slot).sock = sock;
        }
    }
}

/// Takes the time at which this thread's search for `sock` began out of the slot; 0 if this CPU does not know it. Not
/// an `Option`: the compiler would spill the uninitialised value of a `None`, and the verifier refuses to let that be
/// read.
#[inline(always)]
pub fn ends(sock: u64) -> u64 {
    let Some(slot) = CONNECTING.get_ptr_mut(0) else { return 0 };
    // SAFETY: as in `begins`.
    unsafe {
        if (*slot).sock != sock {
            return 0;
        }
        (*slot).sock = 0;
        if (*slot).tid == current().1 { (*slot).since } else { 0 }
    }
}

/// Handles the start of a timer. tcp_connect() starts the retransmission timer when the SYN is out
/// (net/ipv4/tcp_output.c).
#[inline(always)]
pub fn timer_armed(timer: u64) {
    let own = offset::ICSK_RETRANSMIT.load();
    let offset = if own == Offsets::MISSING { offset::SK_RETRANSMIT.load() } else { own };
    if offset == Offsets::MISSING {
        return;
    }
    let sock = timer - u64::from(offset);
    let since = ends(sock);
    if since != 0 && peek_or::<u8>(sock, offset::SKC_STATE.load(), 0) == SYN_SENT {
        searched(sock, since);
    }
}

/// Records that the search which began at `since` found a port.
#[inline(always)]
pub fn searched(sock: u64, since: u64) {
    let cookie: u64 = peek_or(sock, offset::SKC_COOKIE.load(), 0);
    let flag = if cookie == 0 { 0 } else { flags::COOKIE };
    let ktime = now();
    record::<PortSearchRecord>(Counter::CallRingFull, |out| {
        // SAFETY: ring-buffer memory of this size, written whole.
        unsafe {
            (*out).header = header(RecordKind::PortSearch, flag, Netns::UNKNOWN, ktime);
            (*out).cookie = cookie;
            (*out).sock = sock;
            (*out).nanos = ktime.saturating_sub(since);
        }
    });
}
