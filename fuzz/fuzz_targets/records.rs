//! Any bytes as what the kernel wrote: events and counted skips.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer::event::decode;
use tracer::names::Names;

fuzz_target!(|bytes: &[u8]| {
    let _ = decode(bytes, &mut Names::of_records(), |_| {});
});
