//! portchurn's BPF programs: state transitions, `TIME_WAIT` timers, failed calls, and who the processes are.
//!
//! `maps` holds the tables and settings, `sock` is the only reader of kernel structs, `emit` the only place that reserves
//! ring-buffer space and the only one that counts loss, `probes/*` the programs, one file per hook family. Each
//! program carries the kernel prototype of its hook.
//!
//! The programs record facts. Whether a failed connect means exhaustion, whether a minisocket was re-used: user space decides.
#![no_std]
// Inline assembly for BPF, for the one atomic addition (`emit`).
#![feature(asm_experimental_arch)]
#![no_main]
#![allow(
    clippy::inline_always,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::cast_lossless,
    clippy::cast_ptr_alignment,
    clippy::collapsible_if,
    clippy::needless_borrows_for_generic_args,
    clippy::needless_pass_by_value,
    reason = "the verifier wants flat programs with fixed-width registers: helpers are inlined, casts cut packed words, records are 8-aligned, contexts go by value"
)]

mod emit;
mod facts;
mod maps;
mod probes;
mod sock;

// A loop, not `unreachable_unchecked`: a panic that the compiler could not rule out must be refused by the verifier.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
