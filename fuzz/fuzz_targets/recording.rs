//! Any bytes as a recording: the reader returns errors or steps, never panics, and bounds its memory.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_core::recording::Reader;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(mut reader) = Reader::open(std::io::Cursor::new(bytes)) {
        while let Ok(Some(_)) = reader.next_step() {}
        let _ = reader.damage();
        let _ = reader.batch_index();
    }
});
