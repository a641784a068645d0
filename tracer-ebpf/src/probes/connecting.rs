//! How long connect() searches for a port: from CLOSE->SYN_SENT, which comes before the search, to the first sign that it is over.
//!
//! The search runs in the caller's context with the socket locked, so the CPU that saw the transition nearly always sees the sign
//! too. After a migration in between the time of that one connect stays unknown, and what this CPU remembers of it must not be
//! taken for the beginning of anything later: only the same thread, with the socket still in SYN_SENT, ends a search.

use tracer_common::{Counter, Offsets, PortSearchRecord, RecordKind};

use crate::emit::{header, now, record};
use crate::facts::current;
use crate::maps::{CONNECTING, offset};
use crate::sock::{Untrusted, peek_or};

const SYN_SENT: u8 = 2;

/// CLOSE->SYN_SENT of `sock`.
#[inline(always)]
pub fn begins(sock: u64, ktime: u64) {
    if let Some(slot) = CONNECTING.get_ptr_mut(0) {
        // SAFETY: this CPU's own slot. An interrupt has no connect() to begin; a thread that takes over the CPU may, and then the
        // search of the first one stays unknown.
        unsafe {
            (*slot).since = ktime;
            (*slot).tid = current().1;
            (*slot).sock = sock;
        }
    }
}

/// When this thread's search for `sock` began, 0 if this CPU does not know; forgets it. No `Option`: the compiler spills the number
/// of a `None` that never was one, which the verifier refuses to see read.
#[inline(always)]
pub fn ends(sock: u64) -> u64 {
    let Some(slot) = CONNECTING.get_ptr_mut(0) else { return 0 };
    // SAFETY: as above.
    unsafe {
        if (*slot).sock != sock {
            return 0;
        }
        (*slot).sock = 0;
        if (*slot).tid == current().1 { (*slot).since } else { 0 }
    }
}

/// A timer was armed. tcp_connect() arms the retransmission timer as soon as the SYN is out (net/ipv4/tcp_output.c).
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
        searched(Untrusted(sock), since);
    }
}

/// The search that began at `since` found a port.
#[inline(always)]
pub fn searched(sk: Untrusted, since: u64) {
    let (cookie, flag) = sk.cookie();
    let ktime = now();
    record::<PortSearchRecord>(Counter::CallRingFull, |out| {
        // SAFETY: ring-buffer memory of this size, written whole.
        unsafe {
            (*out).header = header(RecordKind::PortSearch, 0, flag, PortSearchRecord::SIZE, ktime);
            (*out).cookie = cookie;
            (*out).sock = sk.0;
            (*out).nanos = ktime.saturating_sub(since);
        }
    });
}
