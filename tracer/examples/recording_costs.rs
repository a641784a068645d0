//! What recording and replaying cost, on synthetic churn: bytes and nanoseconds per event, events per second.
//!
//! `cargo run --release --example recording_costs --no-default-features [CONNECTIONS] [FILE]`
//! One line per figure: name, value, unit. With FILE it also leaves the recording there.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::fs::File;
use std::io::Cursor;
use std::time::Instant;

use tracer::recording::{Reader, Writer};
use tracer::run::playback;
use tracer::source::synthetic::{Churn, header};
use tracer::tracker::snapshot::Wanted;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let connections: u64 = arguments.next().map_or(Ok(200_000), |count| count.parse())?;
    let steps: Vec<_> = Churn::new(connections).collect();
    let events = steps.len() as f64;

    let began = Instant::now();
    let mut writer = Writer::new(Cursor::new(Vec::new()), &header())?;
    for step in &steps {
        writer.step(step)?;
    }
    let (written, sink) = writer.finish()?;
    let packing = began.elapsed();
    println!("record_ns_per_event {:.1}", packing.as_nanos() as f64 / events);
    println!("bytes_per_event {:.2}", written.bytes as f64 / events);

    let bytes = sink.into_inner();
    let began = Instant::now();
    let mut reader = Reader::open(&bytes[..])?;
    let mut read = 0_u64;
    while reader.next_step()?.is_some() {
        read += 1;
    }
    println!("read_events_per_second {:.0}", read as f64 / began.elapsed().as_secs_f64());

    let began = Instant::now();
    let mut tracker = playback::tracker(&header(), None, Wanted::default());
    for step in &steps {
        playback::apply(&mut tracker, step);
    }
    println!("track_events_per_second {:.0}", events / began.elapsed().as_secs_f64());

    let began = Instant::now();
    let mut reader = Reader::open(&bytes[..])?;
    let mut tracker = playback::tracker(reader.header(), None, Wanted::default());
    while let Some(step) = reader.next_step()? {
        playback::apply(&mut tracker, &step);
    }
    tracker.finish();
    let snapshot = tracker.snapshot();
    println!("report_events_per_second {:.0}", snapshot.events.read as f64 / began.elapsed().as_secs_f64());
    if let Some(path) = arguments.next() {
        std::io::copy(&mut &bytes[..], &mut File::create(path)?)?;
    }
    Ok(())
}
