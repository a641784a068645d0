//! Any bytes as the messages of a recording with right checksums: the reader returns errors or steps, and never panics.
//!
//! The input is a list of messages, each a length of its metadata and of its body (u16, little-endian) and then both.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_core::recording::{Reader, seal_for_tests};

fuzz_target!(|bytes: &[u8]| {
    let mut messages = Vec::new();
    let mut rest = bytes;
    while let Some((lengths, tail)) = rest.split_first_chunk::<4>() {
        let [a, b, c, d] = *lengths;
        let (metadata, body) = (usize::from(u16::from_le_bytes([a, b])), usize::from(u16::from_le_bytes([c, d])));
        let (metadata, tail) = tail.split_at(metadata.min(tail.len()));
        let (body, tail) = tail.split_at(body.min(tail.len()));
        messages.push((metadata, body));
        rest = tail;
    }
    let file = seal_for_tests(&messages);
    if let Ok(mut reader) = Reader::open(std::io::Cursor::new(file)) {
        while let Ok(Some(_)) = reader.next_step() {}
    }
});
