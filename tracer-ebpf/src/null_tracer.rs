//! The null tracer: the least that any tracer of state transitions costs, for `cargo xtask bench kernel` to compare
//! with.
//!
//! `submit_only` reserves a record as large as portchurn's and submits it without reading anything. `empty` does
//! nothing at all, which shows what the hook and the kernel's own statistics cost. Not part of portchurn: only the
//! benches build it.
#![no_std]
#![no_main]
#![allow(clippy::needless_pass_by_value, reason = "contexts go by value")]

use aya_ebpf::macros::{btf_tracepoint, map};
use aya_ebpf::maps::RingBuf;
use aya_ebpf::programs::BtfTracePointContext;
use tracer_common::TransitionRecord;

/// The same as in `emit`.
const BPF_RB_NO_WAKEUP: u64 = 1;

/// As large as portchurn's default.
#[map]
static RECORDS: RingBuf = RingBuf::with_byte_size(16 << 20, 0);

// void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn submit_only(_ctx: BtfTracePointContext) -> i32 {
    if let Some(entry) = RECORDS.reserve::<TransitionRecord>(0) {
        entry.submit(BPF_RB_NO_WAKEUP);
    }
    0
}

// void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn empty(_ctx: BtfTracePointContext) -> i32 {
    0
}

// A loop, not `unreachable_unchecked`: the verifier must refuse a panic that the compiler could not rule out.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
