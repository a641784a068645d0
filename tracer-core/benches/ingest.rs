//! Time that the tracker takes for one event, and the decoder for one record, at several sizes of the tables.
//!
//! "fresh": the tables grow from nothing. "steady": flows come and go while their number stays the same. The events are
//! made before the clock starts. Run by `cargo xtask bench ingest`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tracer_common::{Header, RecordKind, TimeWaitRecord, TransitionRecord};
use tracer_core::decode::decode;
use tracer_core::event::{self, Event};
use tracer_core::synthetic::{Churn, Connection, Crowd, CrowdKind, SECOND, Topology, tracker};
use tracer_core::tracker::snapshot::NoticeKinds;

const SIZES: [(u64, &str); 3] = [(1_000, "1k"), (100_000, "100k"), (1_000_000, "1M")];
/// Servers that the connections go to.
const DESTINATIONS: u64 = 32;
/// Connections whose events are made at a time, before the clock starts.
const BATCH: u64 = 2_000;

fn ingest(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ingest");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(3));
    group.throughput(Throughput::Elements(Churn::EVENTS));
    for (flows, name) in SIZES {
        group.bench_function(BenchmarkId::new("steady", name), |bencher| {
            let mut tracker = tracker(NoticeKinds::default());
            // As many TIME_WAITs as live flows.
            let mut churn = Churn::start(&mut tracker, DESTINATIONS, flows, flows);
            bencher.iter_custom(|connections| {
                let mut took = Duration::ZERO;
                let mut events = Vec::new();
                let mut left = connections;
                while left > 0 {
                    let now = BATCH.min(left);
                    left -= now;
                    events.clear();
                    for _ in 0..now {
                        churn.step(|event| events.push(event.clone()));
                    }
                    let began = Instant::now();
                    for event in &events {
                        tracker.ingest(black_box(event));
                    }
                    tracker.advance(event::Ktime(churn.now()));
                    took += began.elapsed();
                }
                took
            });
            let counts = tracker.snapshot().events;
            assert_eq!((counts.repaired, counts.evicted), (0, 0), "the churn itself: {counts:?}");
        });
    }
    group.throughput(Throughput::Elements(1));
    for (flows, name) in SIZES {
        group.bench_function(BenchmarkId::new("fresh", name), |bencher| {
            let connection = |number| Connection::new(number, &Topology::clients(DESTINATIONS));
            let events: Vec<Event> =
                (0..flows).flat_map(|number| connection(number).opens(2 * SECOND + number * 100)).collect();
            bencher.iter_custom(|wanted| {
                let mut took = Duration::ZERO;
                let mut left = wanted;
                while left > 0 {
                    let mut tracker = tracker(NoticeKinds::default());
                    let now = usize::try_from(left).unwrap_or(usize::MAX).min(events.len());
                    let began = Instant::now();
                    for event in events.iter().take(now) {
                        tracker.ingest(black_box(event));
                    }
                    took += began.elapsed();
                    left -= now as u64;
                }
                took
            });
        });
    }
    group.finish();
}

/// What a connection costs on a crowded host: with half as many names, destinations and so on as a table has rows, and with ten times as
/// many. Work per event is constant if the two are alike.
fn crowd(criterion: &mut Criterion) {
    /// Rows of the tables.
    const ROWS: u64 = 4_096;
    let mut group = criterion.benchmark_group("crowd");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    group.throughput(Throughput::Elements(1));
    for (kind, name) in CrowdKind::ALL {
        for (size, of) in [(ROWS / 2, "half"), (ROWS * 10, "tenfold")] {
            group.bench_function(BenchmarkId::new(name, of), |bencher| {
                let mut tracker = tracker(NoticeKinds::default());
                let mut crowd = Crowd::new(kind, size);
                // Every table is as full as it gets.
                for _ in 0..2 * size.max(ROWS) {
                    crowd.step(|event| tracker.ingest(event));
                }
                bencher.iter_custom(|connections| {
                    let mut took = Duration::ZERO;
                    let (mut events, mut left) = (Vec::new(), connections);
                    while left > 0 {
                        let now = BATCH.min(left);
                        left -= now;
                        events.clear();
                        for _ in 0..now {
                            crowd.step(|event| events.push(event.clone()));
                        }
                        let began = Instant::now();
                        for event in &events {
                            tracker.ingest(black_box(event));
                        }
                        tracker.advance(event::Ktime(crowd.now()));
                        took += began.elapsed();
                    }
                    took
                });
            });
        }
    }
    group.finish();
}

/// Records as they lie in the ring buffer: for each eight transitions one beginning and one end of a minisocket.
fn records(count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 0..count {
        let kind = match number % 10 {
            8 => RecordKind::TimeWaitStart,
            9 => RecordKind::TimeWaitEnd,
            _ => RecordKind::Transition,
        };
        let mut record = vec![0; kind.size()];
        record[0] = kind as u8;

        let mut put = |at: usize, value: &[u8]| record[at..at + value.len()].copy_from_slice(value);
        put(std::mem::offset_of!(Header, ktime), &(number as u64).to_ne_bytes());
        if kind == RecordKind::Transition {
            put(std::mem::offset_of!(TransitionRecord, cookie), &(number as u64 + 1).to_ne_bytes());
            put(std::mem::offset_of!(TransitionRecord, states), &[(1 << 4) | 4]);
        } else {
            put(std::mem::offset_of!(TimeWaitRecord, cookie), &(number as u64 + 1).to_ne_bytes());
            put(std::mem::offset_of!(TimeWaitRecord, substate), &[6]);
        }
        bytes.extend(record);
    }
    bytes
}

fn decoding(criterion: &mut Criterion) {
    const RECORDS: usize = 2_000;
    let bytes = records(RECORDS);
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Elements(RECORDS as u64));
    group.bench_function("records", |bencher| {
        bencher.iter(|| {
            let skipped = decode(black_box(&bytes), [], |event| {
                black_box(&event);
            });
            assert_eq!(skipped, 0);
        });
    });
    group.finish();
}

criterion_group!(benches, ingest, crowd, decoding);
criterion_main!(benches);
