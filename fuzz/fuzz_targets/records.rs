//! Any bytes as what the kernel wrote: events and counted skips.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_core::event::decode;
use tracer_core::names::RecordNames;

fuzz_target!(|bytes: &[u8]| {
    let _ = decode(bytes, &mut RecordNames, |_| {});
});
