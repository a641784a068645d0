//! portchurn's BPF programs: they record state transitions, `TIME_WAIT` timers, failed calls, and descriptions of
//! processes.
//!
//! `maps` holds the tables and settings. `sock` is the only reader of kernel structs. `emit` is the only module that
//! reserves ring-buffer space and the only one that counts lost records. `facts` describes processes and namespaces.
//! `probes/*` holds the programs, one file per hook family; each program carries the kernel prototype of its hook.
//!
//! The programs record facts. User space decides whether a failed connect means exhaustion or whether a minisocket was
//! re-used.
#![no_std]
// Inline assembly for BPF: `emit` needs it for its atomic addition.
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

// A loop, not `unreachable_unchecked`: the verifier must refuse a panic that the compiler could not rule out.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
