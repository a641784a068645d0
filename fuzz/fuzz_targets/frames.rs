//! Any bytes as the messages of a recording with right checksums: the reader returns errors or steps, and never panics. What it returns
//! goes to a tracker and from there to every report, none of which has a character that a terminal obeys.
//!
//! The input is a list of messages, each a length of its metadata and of its body (u16, little-endian) and then both.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer_core::foreign_text::is_unprintable;
use tracer_core::host::HostFacts;
use tracer_core::input::feed;
use tracer_core::playback;
use tracer_core::recording::{Reader, seal_for_tests};
use tracer_core::report::json::Report;
use tracer_core::report::text;
use tracer_core::tracker::snapshot::NoticeKinds;

/// Lines end, and that is all that a terminal is told.
fn assert_inert(text: &str) {
    assert!(text.lines().all(|line| !line.contains(is_unprintable)));
}

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
    let Ok(mut reader) = Reader::open(std::io::Cursor::new(file)) else { return };
    let (clock, host) = (reader.header().clock(), HostFacts::from(&reader.header().host));
    let mut tracker = playback::tracker(reader.header(), None, NoticeKinds::default());
    while let Ok(Some(step)) = reader.next_step() {
        feed(&mut tracker, &step);
    }
    tracker.finish();
    let snapshot = tracker.snapshot();
    let text = text::render(&snapshot, &host, &clock, &text::Style::default());
    assert_inert(&text);
    assert_inert(&Report::new(&snapshot, &host, &clock).to_json().expect("a report is JSON"));
});
