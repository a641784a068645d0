//! Memory of the tracker as Linux counts it: per live flow, per minisocket, with full tables, and after an hour of
//! churn in compressed time. It prints one JSON line per figure, like the other measuring programs. Run by `cargo xtask
//! bench memory`.
//!
//! The program starts itself again for each figure, because freed memory that the allocator keeps would count for the
//! next one.

use std::process::Command;

use tracer_core::event::Ktime;
use tracer_core::synthetic::{Churn, Connection, SECOND, Topology, tracker};
use tracer_core::tracker::snapshot::NoticeKinds;

/// Servers that the connections go to.
const DESTINATIONS: u64 = 32;

const FIGURES: [&str; 4] = ["flow", "time_wait", "full", "hour"];

#[expect(clippy::print_stdout, reason = "the program's answer")]
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let check = arguments.iter().any(|argument| argument == "--test" || argument == "--check");
    let scale = if check { 1_000 } else { 1 };
    match arguments.iter().position(|argument| argument == "--figure").and_then(|at| arguments.get(at + 1)) {
        Some(figure) => {
            for (key, value) in measure(figure, scale) {
                println!("{{\"key\":\"memory.{key}\",\"samples\":[{value}]}}");
            }
        }
        None => {
            let own = std::env::current_exe().expect("our own path");
            for figure in FIGURES {
                let mut command = Command::new(&own);
                command.args(["--figure", figure]).args(check.then_some("--check"));
                assert!(command.status().expect("started").success(), "{figure}");
            }
        }
    }
}

fn measure(figure: &str, scale: u64) -> Vec<(&'static str, f64)> {
    let flows = 200_000 / scale;
    let minisockets = 1_000_000 / scale;
    let mut tracker = tracker(NoticeKinds::default());
    let connection = |number| Connection::new(number, &Topology::clients(DESTINATIONS));
    match figure {
        "flow" => {
            let before = resident();
            for number in 0..flows {
                connection(number).opens(2 * SECOND).iter().for_each(|event| tracker.ingest(event));
            }
            tracker.advance(Ktime(3 * SECOND));
            let bytes = (resident() - before) / flows as f64;
            assert_eq!(tracker.snapshot().flows, flows);
            vec![("bytes_per_flow", bytes)]
        }
        "time_wait" => {
            // The tracker remembers closed flows for a while. That memory is filled first, so that it is not measured.
            for number in minisockets..minisockets + 300_000 / scale {
                connection(number).resets(2 * SECOND).iter().for_each(|event| tracker.ingest(event));
            }
            let before = resident();
            Churn::start(&mut tracker, DESTINATIONS, 0, minisockets);
            assert_eq!(tracker.snapshot().time_wait, minisockets);
            vec![("bytes_per_time_wait", (resident() - before) / minisockets as f64)]
        }
        "full" => {
            Churn::start(&mut tracker, DESTINATIONS, flows, minisockets);
            vec![("full_mib", resident() / f64::from(1 << 20))]
        }
        _ => {
            // 2,000 connections a second for an hour; the first two minutes fill the tables.
            let mut churn = Churn::start(&mut tracker, DESTINATIONS, 10_000 / scale, 120_000 / scale);
            let mut early = 0.0;
            for minute in 0..60 {
                for step in 0..120_000 / scale {
                    churn.step(|event| tracker.ingest(event));
                    if step % 1000 == 0 {
                        tracker.advance(Ktime(churn.now()));
                    }
                }
                if minute == 2 {
                    early = resident();
                }
            }
            vec![("hour_start_mib", early / f64::from(1 << 20)), ("hour_end_mib", resident() / f64::from(1 << 20))]
        }
    }
}

/// Bytes of memory that this process has (`VmRSS`).
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") * 1024.0
}
