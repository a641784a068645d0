//! States: sockets are counted in the state that they are in, as `ss` shows them, per destination and per workload.

use std::collections::BTreeMap;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use portchurn_tests::lab::{LIMIT, Lab, addr};
use portchurn_tests::netns::{RIGHT, TestNamespace, link};
use portchurn_tests::process::until;
use portchurn_tests::recording::{printed, record, text};
use portchurn_tests::require;
use portchurn_tests::ss::SocketListing;
use portchurn_tests::tracer::Tracer;
use serde_json::Value;
use socket2::{Domain, Socket, Type};

type Result = anyhow::Result<()>;
type States = BTreeMap<String, u32>;

fn states(row: &Value) -> anyhow::Result<States> {
    Ok(serde_json::from_value(row["by_state"].clone())?)
}

fn destination(report: &Value, netns: u32, remote: SocketAddr) -> anyhow::Result<&Value> {
    let (ip, port) = (remote.ip().to_string(), remote.port());
    let is = |row: &&Value| row["netns"] == netns && row["remote_addr"] == *ip && row["remote_port"] == port;
    report["destinations"].as_array().into_iter().flatten().find(is).with_context(|| format!("nothing about {remote}"))
}

/// Connections with both ends.
fn pairs(server: &TcpListener, count: usize) -> anyhow::Result<Vec<(TcpStream, TcpStream)>> {
    (0..count)
        .map(|_| {
            let client = TcpStream::connect(server.local_addr()?)?;
            Ok((client, server.accept()?.0))
        })
        .collect()
}

/// Sockets in all the states that hold a port for longer than a moment.
#[test]
fn each_destination_has_its_sockets_in_the_states_of_ss() -> Result {
    require!();
    let lab = Lab::new()?;
    let far = TestNamespace::new()?;
    link(&lab.ns, &far)?;
    // Nothing answers behind this route.
    lab.ns.ip(&["addr", "add", "10.99.8.1/32", "dev", "lo"])?;
    lab.ns.ip(&["route", "add", "10.99.9.0/24", "dev", "lo", "src", "10.99.8.1"])?;
    let tracer = Tracer::start(lab.dir(), "report", &["report", "--json"])?;
    let [orphans, half_closed, leaked, silent] =
        ["127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003", "10.99.9.9:80"].map(addr);
    let unacknowledged = addr(&format!("{RIGHT}:9004"));
    let far_server = far.enter(|| Ok(TcpListener::bind(unacknowledged)?))?;
    let (_servers, far_clients, _kept) = lab.ns.enter(|| {
        let servers = [orphans, half_closed, leaked].map(TcpListener::bind);
        let servers = servers.into_iter().collect::<std::io::Result<Vec<_>>>()?;
        let (closed, peers): (Vec<_>, Vec<_>) = pairs(&servers[0], 6)?.into_iter().unzip();
        drop(closed);
        let shut = pairs(&servers[1], 4)?;
        shut.iter().try_for_each(|(client, _)| client.shutdown(Shutdown::Write))?;
        let (open, gone): (Vec<_>, Vec<_>) = pairs(&servers[2], 5)?.into_iter().unzip();
        drop(gone);
        let unanswered = (0..3).map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            let begun = socket.connect(&silent.into());
            ensure!(begun.is_err_and(|error| error.raw_os_error() == Some(115)), "in progress");
            Ok(socket)
        });
        let unanswered = unanswered.collect::<anyhow::Result<Vec<_>>>()?;
        let far = (0..4).map(|_| TcpStream::connect(unacknowledged)).collect::<std::io::Result<Vec<_>>>()?;
        Ok((servers, far, (peers, shut, open, unanswered)))
    })?;
    // Two of the far peers close first, then nobody hears anybody.
    let far_peers = far.enter(|| (0..4).map(|_| Ok(far_server.accept()?.0)).collect::<anyhow::Result<Vec<_>>>())?;
    let mut far_peers = far_peers.into_iter();
    far_peers.by_ref().take(2).for_each(drop);
    until("the peers' FINs", LIMIT, || {
        let states = SocketListing::take(&lab.ns)?.towards(unacknowledged);
        Ok((states.get("CLOSE_WAIT") == Some(&2)).then_some(()))
    })?;
    lab.ns.ip(&["link", "set", "v0", "down"])?;
    drop(far_clients);
    let listing = until("the states", LIMIT, || {
        let listing = SocketListing::take(&lab.ns)?;
        let unsent = listing.towards(unacknowledged);
        Ok((unsent.len() == 2 && !unsent.contains_key("ESTABLISHED")).then_some(listing))
    })?;
    let report: Value = serde_json::from_str(&tracer.finish()?)?;
    let mut client = States::new();
    for (remote, want) in [
        (orphans, [("FIN_WAIT2", 6)].as_slice()),
        (half_closed, &[("FIN_WAIT2", 4)]),
        (leaked, &[("CLOSE_WAIT", 5)]),
        (silent, &[("SYN_SENT", 3)]),
        (unacknowledged, &[("FIN_WAIT1", 2), ("LAST_ACK", 2)]),
    ] {
        let want: States = want.iter().map(|&(state, count)| (state.into(), count)).collect();
        ensure!(listing.towards(remote) == want, "{remote}: the test is wrong: {:?}", listing.towards(remote));
        let row = destination(&report, lab.netns(), remote)?;
        ensure!(states(&row["ports"])? == want, "{remote}: {}", row["ports"]);
        let kinds = ["orphans", "half_closed"].map(|kind| row["ports"][kind].as_u64());
        let known = [(orphans, [6, 0]), (half_closed, [0, 4])].into_iter().find(|(of, _)| *of == remote);
        ensure!(kinds == known.map_or([0, 0], |(_, kinds)| kinds).map(Some), "{remote}: {kinds:?}");
        for (state, count) in want {
            *client.entry(state).or_default() += count;
        }
    }
    // This process is client and server. Peers of the orphans and of the half-closed: CLOSE_WAIT; those that closed first: orphans.
    *client.entry("CLOSE_WAIT".into()).or_default() += 6 + 4;
    *client.entry("FIN_WAIT2".into()).or_default() += 5 + 2;
    let own = |row: &&Value| row["netns"].as_array().is_some_and(|all| all.contains(&lab.netns().into()));
    let workload = report["workloads"].as_array().into_iter().flatten().find(own).context("no workload")?;
    let mut found = states(workload)?;
    found.retain(|state, _| client.contains_key(state));
    ensure!(found == client, "want {client:?}, found {found:?}");
    ensure!(workload["half_closed"] == 4 && workload["orphans"] == 6 + 5 + 2, "{workload}");
    Ok(())
}

/// Orphans begin and end without any event: a list of them every second tells, long before the next full list.
#[test]
fn orphans_are_known_within_a_second() -> Result {
    require!();
    let lab = Lab::new()?;
    let file = lab.file("orphans.arrow");
    let tracer = record(&lab, &file, &[])?;
    let (server, mut peers) = lab.ns.enter(|| {
        let server = TcpListener::bind("127.0.0.1:9001")?;
        let (clients, peers): (Vec<_>, Vec<_>) = pairs(&server, 8)?.into_iter().unzip();
        drop(clients);
        Ok((server, peers))
    })?;
    std::thread::sleep(Duration::from_millis(2_500));
    peers.truncate(3);
    std::thread::sleep(Duration::from_millis(2_500));
    let listing = SocketListing::take(&lab.ns)?;
    tracer.finish()?;
    drop((peers, server));
    let (rows, _) = printed(&["export", "--format", "jsonl", text(&file)])?;
    let rows = rows.lines().map(serde_json::from_str).collect::<std::result::Result<Vec<Value>, _>>()?;
    let told = |fin_wait2: bool| {
        let told = |row: &&Value| row["kind"] == "time_wait_listed" && row["fin_wait2"] == fin_wait2;
        rows.iter().filter(|row| row["netns"] == lab.netns()).filter(told).count()
    };
    ensure!((told(true), told(false)) == (8, 5), "begun {}, over {}", told(true), told(false));
    let (report, _) = printed(&["report", "--json", text(&file)])?;
    let report: Value = serde_json::from_str(&report)?;
    let remote = addr("127.0.0.1:9001");
    let row = destination(&report, lab.netns(), remote)?;
    ensure!(states(&row["ports"])? == listing.towards(remote), "{row} against {listing:?}");
    ensure!(row["ports"]["orphans"] == 3, "{row}");
    Ok(())
}
