//! portchurn's BPF programs: state transitions, `TIME_WAIT` timers, failed calls, and who the processes are.
//!
//! `maps` holds the tables and settings, `sock` is the only reader of kernel structs, `emit` the only place that reserves
//! ring-buffer space and the only one that counts loss, `probes/*` the programs, one file per hook family. Each
//! program carries the kernel prototype of its hook.
//!
//! The programs record facts. Whether a failed connect means exhaustion, whether a minisocket was re-used: user space decides.
#![no_std]
#![no_main]

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
