//! Any bytes as a recording: an error or some steps, never a panic, never memory without bound.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_core::recording::Reader;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(mut reader) = Reader::open(std::io::Cursor::new(bytes)) {
        while let Ok(Some(_)) = reader.next_step() {}
        let _ = reader.damage();
        let _ = reader.batch_positions();
    }
});
