//! The processes of the demo: a backend that echoes, a worker with a pool, a worker without one.
//!
//! Each reads its instructions from standard input, one line each, and answers on standard output (see `protocol`). Once traffic flows, a
//! thread waits for the end of standard input, which ends the process.

use std::ffi::CString;
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::prctl;

use super::net;
use super::protocol::{DemoCounts, Line};

/// The hidden subcommand.
pub const ROLE: &str = "demo-role";
pub(super) const BACKEND: &str = "payments";
pub(super) const CHECKOUT: &str = "checkout-api";
pub(super) const LISTEN: &str = "--listen";
pub(super) const WORKER: &str = "--worker";
pub(super) const POOL: &str = "pool";
pub(super) const LEGACY: &str = "legacy-export";

const POOL_SIZE: u16 = 24;
/// Requests of the pool per second, over all its connections.
const POOL_RATE: u32 = 40;
/// Connects per second of the worker without a pool, which use up the 1,000 ports that the pool leaves within ten seconds.
const LEGACY_RATE: u32 = 120;
/// The worker without a pool goes on this long after its first failure ...
const INTO_FAILURE: Duration = Duration::from_secs(7);
/// ... but ends after this time in any case ...
const LEGACY_LIMIT: Duration = Duration::from_secs(22);
/// ... and after this many calls.
const LEGACY_CALLS: u32 = 3_000;
const REPORT_EVERY: Duration = Duration::from_millis(250);
/// A request that takes longer counts as an error.
const PATIENCE: Duration = Duration::from_secs(2);
const REQUEST: &[u8; 64] = b"POST /v1/charge HTTP/1.1, or whatever else is 64 bytes in length";
/// Echo threads need a few kilobytes.
const STACK: usize = 64 * 1024;

/// The body of `portchurn demo-role ...`; `args` is what follows `demo-role`. Call it before any thread is started.
pub fn role_main<S: AsRef<str>>(args: &[S]) -> Result<()> {
    let args: Vec<&str> = args.iter().map(AsRef::as_ref).collect();
    match args.as_slice() {
        [LISTEN, address] => backend(address.parse().with_context(|| format!("the address {address}"))?),
        [WORKER, POOL] => pool(),
        [WORKER, LEGACY] => legacy(),
        _ => bail!("`{ROLE}` is how `portchurn demo` starts its own processes; there is nothing in it to call by hand"),
    }
}

/// Sets the name that `ps` and the kernel show, which is that of the executable's file at first.
fn be_called(name: &str) -> Result<()> {
    prctl::set_name(&CString::new(name)?).context("setting the name of this process")
}

fn backend(address: SocketAddrV4) -> Result<()> {
    be_called(BACKEND)?;
    net::own_namespace()?;
    say(Line::Ready)?;
    let RoleStep::Listen = next_step()? else { bail!("a backend only listens") };
    net::address(*address.ip())?;
    let listener = TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
    end_with_stdin();
    say(Line::Ready)?;
    for client in listener.incoming() {
        // The client has given up meanwhile, and counts the error itself.
        let Ok(client) = client else { continue };
        // If no thread can be started, the connection is dropped with the closure, and the client counts the error.
        let _ = thread::Builder::new().stack_size(STACK).spawn(move || echo(&client));
    }
    Ok(())
}

/// Sends back what comes in until the client closes. The client closes first, so `TIME_WAIT` is on its side.
fn echo(mut client: &TcpStream) {
    let _ = client.set_nodelay(true);
    let mut buffer = [0_u8; 512];
    while let Ok(read @ 1..) = client.read(&mut buffer) {
        if client.write_all(&buffer[..read]).is_err() {
            return;
        }
    }
}

/// The worker that does it right: a fixed set of connections, used in turn.
fn pool() -> Result<()> {
    be_called(CHECKOUT)?;
    net::own_namespace()?;
    say(Line::Ready)?;
    let RoleStep::Join(backend) = next_step()? else { bail!("the pool must first be joined to a backend") };
    net::join(backend)?;
    say(Line::Ready)?;
    let RoleStep::Go = next_step()? else { bail!("nothing is left but to go") };
    end_with_stdin();

    let mut counts = DemoCounts::default();
    let mut connections = Vec::new();
    for _ in 0..POOL_SIZE {
        connections.push(connect(&mut counts).context("filling the connection pool")?);
    }
    say(Line::Counts(counts))?;
    say(Line::Ready)?;
    let mut pace = Pace::new(Instant::now(), POOL_RATE);
    let mut reported = Instant::now();
    // Without an end: the pool works until standard input ends.
    for at in (0..connections.len()).cycle() {
        pace.wait();
        if request(&connections[at]).is_err() {
            counts.other_errors += 1;
        }
        if reported.elapsed() >= REPORT_EVERY {
            reported = Instant::now();
            say(Line::Counts(counts))?;
        }
    }
    Ok(())
}

/// The worker that does it wrong: a connection per call, even after the first failure.
fn legacy() -> Result<()> {
    be_called(CHECKOUT)?;
    say(Line::Ready)?;
    let RoleStep::Enter(pool) = next_step()? else { bail!("this worker must first enter the namespace of the pool") };
    net::enter(pool)?;
    say(Line::Ready)?;
    let RoleStep::Go = next_step()? else { bail!("nothing is left but to go") };
    end_with_stdin();
    say(Line::Ready)?;

    let mut counts = DemoCounts::default();
    let started = Instant::now();
    let mut first_failure = None;
    let mut pace = Pace::new(started, LEGACY_RATE);
    let mut reported = started;
    for _ in 0..LEGACY_CALLS {
        pace.wait();
        if let Ok(connection) = connect(&mut counts)
            && request(&connection).is_err()
        {
            counts.other_errors += 1;
        }
        let now = Instant::now();
        if counts.exhausted > 0 {
            first_failure.get_or_insert(now);
        }
        if now - started >= LEGACY_LIMIT || first_failure.is_some_and(|first| now - first >= INTO_FAILURE) {
            break;
        }
        if now - reported >= REPORT_EVERY {
            reported = now;
            say(Line::Counts(counts))?;
        }
    }
    say(Line::Counts(counts))?;
    say(Line::Done)?;
    // The process stays, so that its sockets and its name can be seen until the incident is stopped.
    loop {
        thread::park();
    }
}

fn connect(counts: &mut DemoCounts) -> io::Result<TcpStream> {
    let connected = TcpStream::connect(net::backend());
    match &connected {
        Ok(_) => counts.connected += 1,
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => counts.exhausted += 1,
        Err(_) => counts.other_errors += 1,
    }
    connected
}

fn request(mut connection: &TcpStream) -> io::Result<()> {
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(PATIENCE))?;
    connection.write_all(REQUEST)?;
    connection.read_exact(&mut [0; REQUEST.len()])
}

/// An instruction of the parent.
#[derive(Debug, PartialEq, Eq)]
enum RoleStep {
    Join(u32),
    Enter(u32),
    Listen,
    Go,
}

fn next_step() -> Result<RoleStep> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).context("reading the next step")?;
    if line.is_empty() {
        // The parent has ended.
        process::exit(0);
    }
    step(&line)
}

fn step(line: &str) -> Result<RoleStep> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["join", pid] => Ok(RoleStep::Join(pid.parse()?)),
        ["enter", pid] => Ok(RoleStep::Enter(pid.parse()?)),
        ["listen"] => Ok(RoleStep::Listen),
        ["go"] => Ok(RoleStep::Go),
        _ => bail!("{:?} is no step of the demo", line.trim()),
    }
}

/// From here on the end of standard input ends this process.
fn end_with_stdin() {
    thread::spawn(|| {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        process::exit(0);
    });
}

fn say(line: Line) -> Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).context("reporting to `portchurn demo`")
}

/// Even spacing. After a delay there is no burst to catch up, which would be another incident than the one described.
struct Pace {
    next: Instant,
    gap: Duration,
}

impl Pace {
    fn new(start: Instant, per_second: u32) -> Self {
        Self { next: start, gap: Duration::from_secs(1) / per_second }
    }

    fn wait(&mut self) {
        thread::sleep(self.due(Instant::now()));
    }

    /// How long from `now` until the next turn, which this call takes.
    fn due(&mut self, now: Instant) -> Duration {
        let wait = self.next.saturating_duration_since(now);
        self.next = self.next.max(now) + self.gap;
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_evenly_spaced() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 100);
        let waits: Vec<u128> = (0..3).map(|_| pace.due(start).as_millis()).collect();
        assert_eq!(waits, [0, 10, 20]);
    }

    #[test]
    fn a_delay_is_not_made_up_for() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 100);
        let late = start + Duration::from_secs(5);
        assert_eq!(pace.due(late), Duration::ZERO);
        assert_eq!(pace.due(late), Duration::from_millis(10));
    }

    #[test]
    fn steps_are_words_and_a_pid() {
        assert_eq!(step("join 17\n").expect("a step"), RoleStep::Join(17));
        assert_eq!(step("enter 18\n").expect("a step"), RoleStep::Enter(18));
        assert_eq!(step("go\n").expect("a step"), RoleStep::Go);
        for line in ["join", "join me", "stop", "go 1"] {
            assert!(step(line).is_err(), "{line}");
        }
    }

    #[test]
    fn ports_run_out_within_the_limits() {
        let ports = 1024 - u32::from(POOL_SIZE);
        let seconds_to_exhaustion = ports / LEGACY_RATE;
        assert!(seconds_to_exhaustion < 12, "the demo must not be boring");
        let end = Duration::from_secs(u64::from(seconds_to_exhaustion)) + INTO_FAILURE;
        assert!(end < LEGACY_LIMIT && LEGACY_LIMIT <= Duration::from_secs(25), "bounded traffic, with failures in it");
        assert!(LEGACY_CALLS > ports + LEGACY_RATE * 7, "the bound on calls must not cut the failures off");
    }

    #[test]
    fn an_unknown_role_is_refused() {
        assert!(role_main(&["--worker", "other"]).is_err());
        assert!(role_main::<&str>(&[]).is_err());
    }
}
