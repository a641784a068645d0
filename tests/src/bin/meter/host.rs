//! Costs of the hooks for processes without TCP connections: every timer of the host runs the timer programs, and one
//! traced system call puts every system call of every task on the kernel's slow path.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use aya::sys::{Stats, enable_stats};
use portchurn_tests::load::programs;
use socket2::SockRef;

use crate::contender::Contender;
use crate::figures::Samples;

const ROUNDS: usize = 7;
const PAIRS: u32 = 1_000_000;
const CALLS: u32 = 5_000_000;

pub fn run(check: bool) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (rounds, pairs, calls) = if check { (1, 1_000, 1_000) } else { (ROUNDS, PAIRS, CALLS) };
    let mut samples = Samples::default();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let socket = TcpStream::connect(listener.local_addr()?)?;
    let _peer = listener.accept()?;
    for _ in 0..rounds {
        for contender in [Contender::Nothing, Contender::Portchurn] {
            round(&contender, &socket, pairs, calls, dir.path(), &mut samples)?;
        }
    }
    samples.print()
}

fn round(
    contender: &Contender,
    socket: &TcpStream,
    pairs: u32,
    calls: u32,
    dir: &Path,
    samples: &mut Samples,
) -> Result<()> {
    let key = |what: &str| format!("host.{}.{what}", contender.name());
    let attached = contender.attach(dir)?;
    samples.add(key("ns_per_timer_pair"), nanos_each(pairs, || timer_pair(socket))?);
    let getppid = || {
        let _ = nix::unistd::getppid();
        Ok(())
    };
    samples.add(key("ns_per_system_call"), nanos_each(calls, getppid)?);
    if let Some(pid) = attached.pid() {
        let _statistics = enable_stats(Stats::RunTime).context("BPF statistics")?;
        let before = programs(pid)?;
        nanos_each(pairs, || timer_pair(socket))?;
        let after = programs(pid)?;
        // With fentry no program of portchurn runs for foreign timers, so their cost is 0.
        for name in ["time_wait_start", "time_wait_end"] {
            let (now, then) =
                (after.get(name).copied().unwrap_or_default(), before.get(name).copied().unwrap_or_default());
            let nanos = (now.nanos - then.nanos) as f64 / (now.runs - then.runs).max(1) as f64;
            samples.add(key(&format!("{name}.ns_per_foreign_timer")), nanos);
        }
    }
    attached.finish(0.0).map(drop)
}

/// Starts and cancels a `timer_list` timer: the keepalive timer of an established connection (net/ipv4/tcp_timer.c
/// `tcp_set_keepalive`).
fn timer_pair(socket: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_keepalive(true)?;
    socket.set_keepalive(false)
}

fn nanos_each(times: u32, mut work: impl FnMut() -> io::Result<()>) -> Result<f64> {
    let began = Instant::now();
    for _ in 0..times {
        work()?;
    }
    Ok(began.elapsed().as_secs_f64() * 1e9 / f64::from(times))
}
