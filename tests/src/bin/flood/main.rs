//! The load of the benches: a fixed number of loopback connections, as fast as possible or at a given rate.
//!
//! Each client connects and closes at once; the server reads to the FIN and closes. So each connection has exactly ten
//! state transitions and one TIME_WAIT on the client's side. The connections go to many destinations (addresses of
//! 127/8 behind one listener), so that none of them has half of its ports in use, where the kernel's search for a free
//! port becomes slow.
//!
//! Other floods last a given time: SYNs that nobody follows up, short processes, network namespaces, sockets that stay open. Each is what
//! a hostile or a crowded host does to a tracer.
//!
//! Prints its speed as one JSON line. Not for traffic whose exact course matters: that is the job of `churn`.

mod crowd;
mod syn;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use hdrhistogram::Histogram;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use portchurn_tests::load::FloodResult;
use socket2::{Domain, Socket, Type};

const PORT: u16 = 9000;
/// Backlog of the listener. The kernel caps it at somaxconn.
const BACKLOG: i32 = 4096;
/// Longest connect() that the histogram holds: slower ones count as a second.
const SLOWEST_US: u64 = 1_000_000;

/// What is made.
#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum FloodKind {
    /// Connections that are closed at once, as many as `--connections`.
    #[default]
    Connects,
    /// SYN segments with made-up sources, for `--seconds`.
    Syns,
    /// Processes of different names that connect once, for `--seconds`.
    Forks,
    /// As many network namespaces as `--connections`, one after the other, at most for `--seconds`.
    Namespaces,
    /// As many network namespaces as `--connections` at once, for `--seconds`.
    NamespacesAtOnce,
    /// As many connections as `--connections` that stay open for `--seconds`.
    Hold,
}

#[derive(Parser)]
struct Options {
    #[arg(long, value_enum, default_value_t)]
    kind: FloodKind,
    #[arg(long, default_value_t = 0)]
    connections: u64,
    /// How long the kinds last that are no connections.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Started by `--kind forks`: connect there once and end.
    #[arg(long, hide = true, requires = "name")]
    once: Option<SocketAddr>,
    #[arg(long, hide = true)]
    name: Option<String>,
    #[arg(long, default_value_t = 2)]
    clients: u64,
    #[arg(long, default_value_t = 2)]
    servers: u64,
    #[arg(long, default_value_t = 64)]
    destinations: u32,
    /// Connections per second; as fast as possible if absent.
    #[arg(long)]
    rate: Option<u64>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flood: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "a program whose answer is read from stdout")]
fn run(options: &Options) -> Result<()> {
    // The load must not outlive its bench.
    prctl::set_pdeathsig(Signal::SIGKILL).context("PR_SET_PDEATHSIG")?;
    if let (Some(to), Some(name)) = (options.once, &options.name) {
        return crowd::once(to, name);
    }
    if options.kind != FloodKind::Connects {
        let began = Instant::now();
        let made = crowded(options)?;
        let answer = FloodResult { connections: made, seconds: began.elapsed().as_secs_f64(), connect_us: [0; 5] };
        println!("{}", serde_json::to_string(&answer)?);
        return Ok(());
    }
    let listener = listen()?;
    let closed = AtomicU64::new(0);
    std::thread::scope(|scope| -> Result<()> {
        for _ in 0..options.servers {
            scope.spawn(|| serve(&listener, &closed, options.connections));
        }
        let started = Instant::now();
        let threads: Vec<_> =
            (0..options.clients).map(|client| scope.spawn(move || connect(options, client, started))).collect();
        let mut latency = Histogram::<u64>::new_with_max(SLOWEST_US, 3)?;
        for thread in threads {
            latency.add(&thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))??)?;
        }
        let seconds = started.elapsed().as_secs_f64();
        ensure!(latency.len() == options.connections, "{} of {} connections", latency.len(), options.connections);
        let at = |quantile: f64| latency.value_at_quantile(quantile);
        let answer = FloodResult {
            connections: options.connections,
            seconds,
            connect_us: [at(0.5), at(0.9), at(0.99), at(0.999), latency.max()],
        };
        println!("{}", serde_json::to_string(&answer)?);
        Ok(())
    })
}

/// The kinds that last a given time; returns how much was made.
fn crowded(options: &Options) -> Result<u64> {
    let duration = Duration::from_secs(options.seconds);
    match options.kind {
        FloodKind::Connects => Ok(0),
        FloodKind::Syns => syn::flood(&listen()?, duration),
        FloodKind::Forks => {
            let (listener, closed) = (listen()?, AtomicU64::new(0));
            std::thread::scope(|scope| {
                scope.spawn(|| serve(&listener, &closed, u64::MAX));
                let made = crowd::forks(destination(1, 0)?, duration);
                let _ = socket2::SockRef::from(&listener).shutdown(std::net::Shutdown::Both);
                made
            })
        }
        FloodKind::Namespaces => crowd::namespaces(options.connections, duration),
        FloodKind::NamespacesAtOnce => crowd::namespaces_at_once(options.connections, duration),
        FloodKind::Hold => {
            let listener = listen()?;
            let to = (0..u64::from(options.destinations)).map(|number| destination(options.destinations, number));
            let to = to.collect::<Result<Vec<_>>>()?;
            std::thread::scope(|scope| {
                scope.spawn(|| crowd::keep(&listener, duration));
                let held = crowd::hold(&to, options.connections, duration);
                let _ = socket2::SockRef::from(&listener).shutdown(std::net::Shutdown::Both);
                held
            })
        }
    }
}

fn listen() -> Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
    socket.bind(&any.into()).with_context(|| format!("bind {any}"))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts and closes connections until all are closed.
fn serve(listener: &TcpListener, closed: &AtomicU64, connections: u64) {
    let mut bytes = [0; 16];
    while closed.load(Ordering::Relaxed) < connections {
        // Another server has accepted the last connection; the process ends with its clients.
        let Ok((mut socket, _)) = listener.accept() else { return };
        while std::io::Read::read(&mut socket, &mut bytes).is_ok_and(|count| count > 0) {}
        drop(socket);
        if closed.fetch_add(1, Ordering::Relaxed) + 1 == connections {
            // Wakes the other servers, which wait in accept().
            let _ = socket2::SockRef::from(listener).shutdown(std::net::Shutdown::Both);
        }
    }
}

fn connect(options: &Options, client: u64, started: Instant) -> Result<Histogram<u64>> {
    let mut latency = Histogram::new_with_max(SLOWEST_US, 3)?;
    let share = (options.connections + options.clients - 1 - client) / options.clients;
    let pause = options.rate.map(|rate| Duration::from_secs(options.clients) / u32::try_from(rate).unwrap_or(u32::MAX));
    let mut due = started;
    for number in 0..share {
        if let Some(pause) = pause {
            due += pause;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let to = destination(options.destinations, number * options.clients + client)?;
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let began = Instant::now();
        socket.connect(&to.into()).with_context(|| format!("connect {number} of {share} to {to}"))?;
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        latency.saturating_record(took.max(1));
        drop(socket);
    }
    Ok(latency)
}

/// An address in 127.1.0.0/16, so that it differs from the source address 127.0.0.1.
fn destination(destinations: u32, number: u64) -> Result<SocketAddr> {
    let index = u32::try_from(number % u64::from(destinations))?;
    let addr = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 1, 0, 1)) + index);
    Ok(SocketAddr::V4(SocketAddrV4::new(addr, PORT)))
}
