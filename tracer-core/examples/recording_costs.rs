//! Measures recording and replaying with synthetic churn: bytes and CPU time per event, events per second of one core.
//!
//! `cargo run --release -p tracer-core --features testing --example recording_costs [CONNECTIONS] [FILE]`
//! prints one line per figure: name and value. With FILE it only writes a recording of that many connections there.
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::fs::File;
use std::io::Cursor;
use std::time::{Duration, Instant};

use tracer_core::input::feed;
use tracer_core::playback;
use tracer_core::recording::{Reader, Writer};
use tracer_core::synthetic::{RecordedChurn, header};
use tracer_core::tracker::snapshot::NoticeKinds;

/// CPU time of this thread on Linux, so that other processes do not spoil the figures; elsewhere wall time.
struct Stopwatch(Option<Duration>, Instant);

impl Stopwatch {
    fn cpu() -> Option<Duration> {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    }

    fn start() -> Self {
        Self(Self::cpu(), Instant::now())
    }

    fn seconds(&self) -> f64 {
        let cpu = self.0.zip(Self::cpu()).map(|(before, after)| after.saturating_sub(before));
        cpu.unwrap_or_else(|| self.1.elapsed()).as_secs_f64()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let connections: u64 = arguments.next().map_or(Ok(200_000), |count| count.parse())?;
    if let Some(path) = arguments.next() {
        let mut writer = Writer::new(File::create(path)?, &header())?;
        for step in RecordedChurn::new(connections) {
            writer.step(&step)?;
        }
        println!("bytes {}", writer.finish()?.0.bytes);
        return Ok(());
    }
    let steps: Vec<_> = RecordedChurn::new(connections).collect();
    let events = steps.len() as f64;
    println!("events {events}");

    let watch = Stopwatch::start();
    let mut writer = Writer::new(Cursor::new(Vec::new()), &header())?;
    for step in &steps {
        writer.step(step)?;
    }
    let (written, sink) = writer.finish()?;
    println!("record_ns_per_event {:.1}", watch.seconds() * 1e9 / events);
    println!("bytes_per_event {:.2}", written.bytes as f64 / events);

    let bytes = sink.into_inner();
    let watch = Stopwatch::start();
    let mut reader = Reader::open(&bytes[..])?;
    let mut read = 0_u64;
    while reader.next_step()?.is_some() {
        read += 1;
    }
    println!("read_events_per_second {:.0}", read as f64 / watch.seconds());

    let watch = Stopwatch::start();
    let mut tracker = playback::tracker(&header(), None, NoticeKinds::default());
    for step in &steps {
        feed(&mut tracker, step);
    }
    println!("track_events_per_second {:.0}", events / watch.seconds());

    let watch = Stopwatch::start();
    let mut reader = Reader::open(&bytes[..])?;
    let mut tracker = playback::tracker(reader.header(), None, NoticeKinds::default());
    while let Some(step) = reader.next_step()? {
        feed(&mut tracker, &step);
    }
    tracker.finish();
    let snapshot = tracker.snapshot();
    println!("report_events_per_second {:.0}", snapshot.events.read as f64 / watch.seconds());
    Ok(())
}
