//! The only module that reserves ring-buffer space, and the only one that counts lost records.

use core::arch::asm;

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use tracer_common::{Counter, Header, RecordKind};

use crate::maps::{COUNTERS, EVENTS};
use crate::sock::Netns;

/// User space polls on a timer, because a wake-up per record costs ten times as much as the record.
const BPF_RB_NO_WAKEUP: u64 = 1;

/// Adds one to this CPU's counter.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(slot) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the instruction writes an aligned slot of this map and nothing else. It is one instruction
        // (`BPF_ATOMIC | BPF_ADD`), because an interrupt between a load, an add and a store may run hundreds of
        // programs that count too; core has no fetch_add for this target.
        unsafe {
            asm!("lock *(u64 *)({slot} + 0) += {one}", slot = in(reg) slot, one = in(reg) 1_u64, options(nostack));
        }
    }
}

/// `CLOCK_MONOTONIC`, nanoseconds.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: no arguments, no memory.
    unsafe { bpf_ktime_get_ns() }
}

/// Header of a record about the namespace `netns`.
#[inline(always)]
pub fn header(kind: RecordKind, flags: u16, netns: Netns, ktime: u64) -> Header {
    Header { kind: kind as u8, pad: 0, flags, netns_cookie: netns.cookie, ktime }
}

/// Reserves a record, lets `fill` initialise it, and submits it. With a full ring it adds one to `lost` and returns
/// false.
///
/// `fill` gets a pointer to uninitialised memory and must write every field.
#[inline(always)]
pub fn record<T: 'static>(lost: Counter, fill: impl FnOnce(*mut T)) -> bool {
    record_if(lost, |out| {
        fill(out);
        true
    })
}

/// The same for a record that `fill` may decide not to send, by returning false. False means a full ring here too.
#[inline(always)]
pub fn record_if<T: 'static>(lost: Counter, fill: impl FnOnce(*mut T) -> bool) -> bool {
    let Some(mut entry) = EVENTS.reserve::<T>(0) else {
        count(lost);
        return false;
    };
    if fill(entry.as_mut_ptr()) {
        entry.submit(BPF_RB_NO_WAKEUP);
    } else {
        entry.discard(BPF_RB_NO_WAKEUP);
    }
    true
}
