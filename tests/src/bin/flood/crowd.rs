//! Crowds: many short processes, many network namespaces, many sockets that stay open.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use socket2::{Domain, Socket, Type};

/// The stack of a thread that waits in its namespace.
const STACK: usize = 64 * 1024;

/// Starts processes one after the other for so long, each with a name of its own, each of which connects once and ends. Returns their
/// number.
pub fn forks(to: SocketAddr, duration: Duration) -> Result<u64> {
    let own = std::env::current_exe().context("our own path")?;
    let (began, mut made) = (Instant::now(), 0);
    while began.elapsed() < duration {
        let name = format!("job-{made}");
        let mut child = Command::new(&own);
        child.arg0(&name).args(["--once", &to.to_string(), "--name", &name]);
        let status = child.status().context("a child")?;
        ensure!(status.success(), "a child: {status}");
        made += 1;
    }
    Ok(made)
}

/// A child of [`forks`].
pub fn once(to: SocketAddr, name: &str) -> Result<()> {
    prctl::set_name(&std::ffi::CString::new(name)?).context("PR_SET_NAME")?;
    // A refused connect is traffic as well.
    drop(TcpStream::connect(to));
    Ok(())
}

/// A namespace for the calling thread, in which it can reach itself, and a connection there.
fn namespace(number: u64) -> Result<(TcpListener, TcpStream)> {
    unshare(CloneFlags::CLONE_NEWNET).context("a network namespace")?;
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().context("ip")?;
    ensure!(up.success(), "ip in namespace {number}: {up}");
    let listener = TcpListener::bind("127.0.0.1:9000").context("bind")?;
    let stream = TcpStream::connect("127.0.0.1:9000").context("connect")?;
    Ok((listener, stream))
}

/// Makes so many namespaces one after the other, each with a connection, at most for so long. Returns their number.
pub fn namespaces(count: u64, duration: Duration) -> Result<u64> {
    let (began, mut made) = (Instant::now(), 0);
    while made < count && began.elapsed() < duration {
        std::thread::spawn(move || namespace(made).map(drop)).join().map_err(|_| anyhow::anyhow!("a panic"))??;
        made += 1;
    }
    Ok(made)
}

/// Makes so many namespaces that exist at once, each with an open connection, and keeps them for so long. Returns their number.
pub fn namespaces_at_once(count: u64, duration: Duration) -> Result<u64> {
    let made = Arc::new(AtomicU64::new(0));
    let over = Arc::new(Barrier::new(usize::try_from(count)? + 1));
    let began = Instant::now();
    let mut threads = Vec::new();
    for number in 0..count {
        let (own_made, own_over) = (Arc::clone(&made), Arc::clone(&over));
        let thread = std::thread::Builder::new().stack_size(STACK).spawn(move || {
            let kept = namespace(number);
            own_made.fetch_add(u64::from(kept.is_ok()), Ordering::Relaxed);
            own_over.wait();
            kept.map(drop)
        });
        threads.push(thread.context("a thread")?);
        // One after the other: the kernel has one lock for all of them.
        while made.load(Ordering::Relaxed) <= number && began.elapsed() < duration {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    std::thread::sleep(duration.saturating_sub(began.elapsed()));
    over.wait();
    for thread in threads {
        thread.join().map_err(|_| anyhow::anyhow!("a panic"))??;
    }
    Ok(made.load(Ordering::Relaxed))
}

/// Opens so many connections to a listener that accepts none (the kernel completes the handshake up to its backlog) or to one that does,
/// and keeps them for so long. Returns their number.
pub fn hold(to: &[SocketAddr], count: u64, duration: Duration) -> Result<u64> {
    let began = Instant::now();
    let mut held = Vec::new();
    for number in 0..count {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        let index = usize::try_from(number)? % to.len();
        socket.connect(&to[index].into()).with_context(|| format!("connection {number}"))?;
        held.push(socket);
        if began.elapsed() > duration {
            break;
        }
    }
    std::thread::sleep(duration.saturating_sub(began.elapsed()));
    Ok(held.len() as u64)
}

/// Accepts and keeps connections until as many are closed by their peers as were accepted, after `duration` at the latest.
pub fn keep(listener: &TcpListener, duration: Duration) {
    let mut kept = Vec::new();
    let began = Instant::now();
    // The client of the same process ends it.
    while began.elapsed() < duration {
        let Ok((socket, _)) = listener.accept() else { return };
        kept.push(socket);
    }
}
