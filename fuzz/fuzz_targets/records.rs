//! Any bytes as records of the kernel: the decoder yields events and counts what it skips, and never panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_core::decode::decode;

fuzz_target!(|bytes: &[u8]| {
    let _ = decode(bytes, [], |_| {});
});
