//! What any tracer of state transitions has to pay: the yardstick of `cargo xtask bench kernel`.
//!
//! `floor` reserves a record of the size of ours and submits it without having read anything; `empty` does nothing at all, which shows what
//! the hook and the kernel's own statistics cost. Not part of portchurn: built by the benches alone.
#![no_std]
#![no_main]
#![allow(clippy::needless_pass_by_value, reason = "contexts go by value")]

use aya_ebpf::macros::{btf_tracepoint, map};
use aya_ebpf::maps::RingBuf;
use aya_ebpf::programs::BtfTracePointContext;
use tracer_common::TransitionRecord;

/// As `emit` has it.
const BPF_RB_NO_WAKEUP: u64 = 1;

/// As large as portchurn's default.
#[map]
static FLOOR: RingBuf = RingBuf::with_byte_size(16 << 20, 0);

// void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn floor(_ctx: BtfTracePointContext) -> i32 {
    if let Some(entry) = FLOOR.reserve::<TransitionRecord>(0) {
        entry.submit(BPF_RB_NO_WAKEUP);
    }
    0
}

// void inet_sock_set_state(const struct sock *sk, const int oldstate, const int newstate)
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn empty(_ctx: BtfTracePointContext) -> i32 {
    0
}

// A loop, not `unreachable_unchecked`: a panic that the compiler could not rule out must be refused by the verifier.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
