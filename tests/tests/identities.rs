//! Identities: a listener is a socket, a flow has an opener and a holder, a namespace may have no process.

use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::ensure;
use portchurn_tests::lab::{LIMIT, Lab, addr};
use portchurn_tests::netns::TestNamespace;
use portchurn_tests::process::until;
use portchurn_tests::require;
use portchurn_tests::ss::SocketListing;
use portchurn_tests::tracer::Tracer;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

type Result = anyhow::Result<()>;

const SERVER: &str = "127.0.0.1:9001";
const CONNECTIONS: usize = 40;

fn rows<'a>(report: &'a Value, list: &str, netns: u32) -> Vec<&'a Value> {
    let all = report[list].as_array().into_iter().flatten();
    all.filter(|row| row["netns"] == netns).collect()
}

/// Two sockets share a port by `SO_REUSEPORT` and one is never accepted from: what waits there is its own.
#[test]
fn a_listener_that_nobody_accepts_from_has_its_queue() -> Result {
    require!();
    let lab = Lab::new()?;
    let tracer = Tracer::start(lab.dir(), "report", &["report", "--json"])?;
    let (accepted, _sockets) = lab.ns.enter(|| {
        let listen = |_| -> anyhow::Result<Socket> {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_reuse_port(true)?;
            socket.bind(&addr(SERVER).into())?;
            socket.listen(64)?;
            Ok(socket)
        };
        let listeners = (0..2).map(listen).collect::<anyhow::Result<Vec<_>>>()?;
        let clients: Vec<_> = (0..CONNECTIONS).map(|_| TcpStream::connect(SERVER)).collect::<std::io::Result<_>>()?;
        listeners[0].set_nonblocking(true)?;
        let accepted: Vec<_> = std::iter::from_fn(|| listeners[0].accept().ok()).collect();
        drop(clients);
        Ok((accepted.len(), (listeners, accepted)))
    })?;
    until("all clients' FINs", LIMIT, || {
        let listing = SocketListing::take(&lab.ns)?;
        let waiting = listing.rows.iter().filter(|row| row.state == "CLOSE_WAIT").count();
        Ok((waiting == CONNECTIONS).then_some(()))
    })?;
    let report: Value = serde_json::from_str(&tracer.finish()?)?;
    let mut found: Vec<_> = rows(&report, "listeners", lab.netns())
        .iter()
        .map(|row| ["accepted", "queued", "close_wait"].map(|field| row[field].as_u64()))
        .collect();
    found.sort_unstable();
    let waiting = (CONNECTIONS - accepted) as u64;
    let hung = [Some(0), Some(waiting), Some(waiting)];
    ensure!(found == [hung, [Some(accepted as u64), Some(0), Some(0)]], "{accepted} accepted: {found:?}");
    Ok(())
}

/// A program connects, and another one, which has inherited the sockets over fork and exec, does not close them.
#[test]
fn who_holds_a_connection_is_named_beside_who_opened_it() -> Result {
    require!();
    let lab = Lab::new()?;
    let tracer = Tracer::start(lab.dir(), "report", &["report", "--json"])?;
    let (mut holder, server) = lab.ns.enter(|| {
        let server = TcpListener::bind(SERVER)?;
        let sockets = (0..8).map(|_| TcpStream::connect(SERVER)).collect::<std::io::Result<Vec<_>>>()?;
        let inherited: Vec<Stdio> =
            sockets.into_iter().take(3).map(|socket| Stdio::from(std::os::fd::OwnedFd::from(socket))).collect();
        let mut command = Command::new("sleep");
        command.arg("600");
        for (at, socket) in inherited.into_iter().enumerate() {
            match at {
                0 => command.stdin(socket),
                1 => command.stdout(socket),
                _ => command.stderr(socket),
            };
        }
        let holder = command.spawn()?;
        Ok((holder, server))
    })?;
    std::thread::sleep(Duration::from_millis(300));
    let report = tracer.finish();
    let pid = holder.id();
    holder.kill()?;
    holder.wait()?;
    drop(server);
    let report: Value = serde_json::from_str(&report?)?;
    let found: Vec<_> = rows(&report, "attributions", lab.netns())
        .iter()
        .map(|row| (row["pid"].clone(), row["held_by"].clone()))
        .collect();
    let held_by = serde_json::json!([{"pid": pid, "comm": "sleep", "flows": 3}]);
    ensure!(found == [(std::process::id().into(), held_by)], "the opener stays: {found:?}");
    Ok(())
}

/// A namespace that only sockets keep alive, from before the start: they are in no list, and the report says so.
#[test]
fn sockets_of_a_namespace_without_processes_are_said_to_be_missing() -> Result {
    require!();
    let lab = Lab::new()?;
    let gone = TestNamespace::new()?;
    let sockets = gone.enter(|| Ok([TcpListener::bind(SERVER)?, TcpListener::bind("127.0.0.1:9002")?]))?;
    drop(gone);
    let tracer = Tracer::start(lab.dir(), "report", &["report", "--json"])?;
    let report: Value = serde_json::from_str(&tracer.finish()?)?;
    drop(sockets);
    let without = report["host"]["degraded"].to_string();
    if nix::sys::utsname::uname()?.release().to_string_lossy().starts_with("5.10") {
        eprintln!("SKIPPED: SO_NETNS_COOKIE is of Linux 5.14");
        return Ok(());
    }
    ensure!(without.contains("no process lives in"), "{without}");
    Ok(())
}
