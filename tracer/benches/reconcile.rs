//! One pass of `sock_diag` over a namespace with ten thousand TIME_WAITs, and what the tracker does with it. Needs root; one JSON line per figure.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::Instant;

use nix::sched::{CloneFlags, unshare};
use tracer::probe::NetnsNames;
use tracer::source::baseline::{OwnerScan, PassScope, start};
use tracer_core::event::Event;
use tracer_core::tracker::{Config, Tracker};

const ROUNDS: usize = 20;
const SOCKETS: u16 = 10_000;
/// A pass also asks for what does not depend on the number of sockets.
const PORTS_PER_ADDRESS: u16 = 5_000;

#[expect(clippy::print_stdout, reason = "the program's answer")]
fn main() {
    let check = std::env::args().any(|argument| argument == "--test" || argument == "--check");
    let (rounds, sockets) = if check { (1, 100) } else { (ROUNDS, SOCKETS) };
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace of our own (needs root)");
    assert!(Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("ip").success());
    let empty = (0..rounds).map(|_| measure(0)).collect::<Vec<_>>();
    fill(sockets);
    let full = (0..rounds).map(|_| measure(usize::from(sockets))).collect::<Vec<_>>();
    for (key, samples) in [
        ("pass_empty_ms", empty.iter().map(|sample| sample.0).collect::<Vec<_>>()),
        ("pass_10k_ms", full.iter().map(|sample| sample.0).collect()),
        ("tracker_10k_ms", full.iter().map(|sample| sample.1).collect()),
    ] {
        println!("{{\"key\":\"reconcile.{key}\",\"samples\":{samples:?}}}");
    }
}

/// Leaves a TIME_WAIT on this side of each connection.
fn fill(sockets: u16) {
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 9000));
    let listener = TcpListener::bind(any).expect("bind");
    for number in 0..sockets {
        let [high, low] = (number / PORTS_PER_ADDRESS + 1).to_be_bytes();
        let to = SocketAddr::from((Ipv4Addr::new(127, 1, high, low), 9000));
        drop(TcpStream::connect(to).expect("connect"));
        drop(listener.accept().expect("accept"));
    }
}

/// Milliseconds of a pass, and of the tracker's comparison with its own books, which agree already.
fn measure(expected: usize) -> (f64, f64) {
    let mut tracker = Tracker::new(Config { time_wait_observed: true, ..Config::default() });
    // Only our own namespace.
    let scope = PassScope { initial: false, owners: OwnerScan::Never, names: NetnsNames::Unknown };
    for event in start(scope, None).wait().facts {
        tracker.ingest(&event);
    }
    let found = start(scope, None).wait();
    assert!(found.sockets >= expected, "{} sockets of {expected}", found.sockets);
    let lists: Vec<Event> = found.facts.into_iter().filter(|fact| matches!(fact, Event::Baseline(_))).collect();
    let began = Instant::now();
    for event in &lists {
        tracker.ingest(event);
    }
    (found.nanos as f64 / 1e6, began.elapsed().as_secs_f64() * 1e3)
}
