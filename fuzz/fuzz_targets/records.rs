//! Any bytes as what the kernel wrote: events and counted skips.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_core::decode::decode;

fuzz_target!(|bytes: &[u8]| {
    let _ = decode(bytes, [], |_| {});
});
