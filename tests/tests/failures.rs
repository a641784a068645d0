//! Connects that fail for another reason than exhaustion, which the report must not count as exhaustion, and
//! connections that end with an error.

use std::collections::BTreeMap;

use portchurn_tests::compare::{assert_counts, reported};
use portchurn_tests::lab::{Lab, addr};
use portchurn_tests::netns::{RIGHT, TestNamespace, link};
use portchurn_tests::reported::{FailedCounts, ParsedReport, StreamLine};
use portchurn_tests::require;
use portchurn_tests::script::{AfterConnect, ConnectMethod, Log, LoggedCall, ScriptStep, ServerBehaviour};
use portchurn_tests::tracer::Tracer;

type Result = anyhow::Result<()>;

/// Failures of this namespace by name.
fn failed(report: &ParsedReport, netns: u32) -> FailedCounts {
    let mut all = BTreeMap::new();
    for counts in reported(report, netns).values() {
        for (name, count) in &counts.failed {
            *all.entry(name.clone()).or_default() += count;
        }
    }
    all
}

fn only(name: &str, count: u64) -> FailedCounts {
    BTreeMap::from([(name.to_owned(), count)])
}

/// Finished active flows of this namespace by the way they ended.
fn ends(lines: &[StreamLine], netns: u32) -> BTreeMap<String, usize> {
    let mut ends = BTreeMap::new();
    let own = |line: &&StreamLine| {
        line.kind == "flow" && line.netns == Some(netns) && line.opened.as_deref() == Some("active")
    };
    for line in lines.iter().filter(own) {
        *ends.entry(line.ended.clone().unwrap_or_default()).or_default() += 1;
    }
    ends
}

#[test]
fn refused_and_timed_out() -> Result {
    require!();
    let lab = Lab::new()?;
    lab.ns.sysctl(&[("ipv4/tcp_syn_retries", "1")])?;
    if lab.ns.has_sysctl("ipv4/tcp_syn_linear_timeouts")? {
        lab.ns.sysctl(&[("ipv4/tcp_syn_linear_timeouts", "0")])?;
    }
    // Its backlog holds one connection, which nobody accepts; the kernel drops all further SYNs.
    let mut full =
        lab.start("full", vec![ScriptStep::Listen { addr: addr("127.0.0.1:9001"), backlog: 0 }, lab.wait_for("end")])?;
    full.entry(LoggedCall::Waiting)?;
    let report = Tracer::report(lab.dir())?;
    let stream = Tracer::stream(lab.dir(), "all")?;
    let attempt = |to: &str, times| ScriptStep::connect([addr(to)], times, ConnectMethod::Blocking, AfterConnect::Hold);
    let mut slow = lab.start(
        "slow",
        vec![attempt("127.0.0.1:9001", 1), ScriptStep::Threads { count: 4, steps: vec![attempt("127.0.0.1:9001", 1)] }],
    )?;
    let mut log = lab.run("refused", vec![attempt("127.0.0.1:9009", 40), attempt("[::1]:9009", 10)])?;
    log.0.extend(slow.finish()?.0);
    let lines = stream.finish_stream()?;
    let report = report.finish_report()?;
    assert_counts(&report, lab.netns(), &log);
    let expected = BTreeMap::from([("ECONNREFUSED".to_owned(), 50), ("ETIMEDOUT".to_owned(), 4)]);
    assert_eq!(failed(&report, lab.netns()), expected, "the scenario itself");
    let reasons = lines.iter().filter(|line| line.kind == "failure" && line.netns == Some(lab.netns()));
    let mut by_reason: BTreeMap<String, u64> = BTreeMap::new();
    for line in reasons {
        *by_reason.entry(line.reason.clone().unwrap_or_default()).or_default() += 1;
    }
    assert_eq!(by_reason, expected, "the stream tells of each failure once");
    Ok(())
}

#[test]
fn no_neighbour() -> Result {
    require!();
    let lab = Lab::new()?;
    let other = TestNamespace::new()?;
    link(&lab.ns, &other)?;
    let report = Tracer::report(lab.dir())?;
    // An address on the link that no host has.
    let log = lab.run(
        "client",
        vec![ScriptStep::connect([addr("10.77.0.99:80")], 1, ConnectMethod::Blocking, AfterConnect::Hold)],
    )?;
    let report = report.finish_report()?;
    assert_counts(&report, lab.netns(), &log);
    assert_eq!(failed(&report, lab.netns()), only("EHOSTUNREACH", 1));
    Ok(())
}

#[test]
fn resets_from_either_side() -> Result {
    require!();
    let lab = Lab::new()?;
    let _rude = lab.serve("rude", "127.0.0.1:9001", ServerBehaviour::Reset)?;
    let _kind = lab.serve("kind", "127.0.0.1:9002", ServerBehaviour::WaitForPeer)?;
    let report = Tracer::report(lab.dir())?;
    let stream = Tracer::stream(lab.dir(), "flows")?;
    let log = lab.run(
        "client",
        vec![
            ScriptStep::connect([addr("127.0.0.1:9001")], 30, ConnectMethod::Blocking, AfterConnect::PeerResets),
            ScriptStep::connect([addr("127.0.0.1:9002")], 20, ConnectMethod::Blocking, AfterConnect::Linger0),
        ],
    )?;
    let lines = stream.finish_stream()?;
    let report = report.finish_report()?;
    assert_counts(&report, lab.netns(), &log);
    assert_eq!(failed(&report, lab.netns()), FailedCounts::new(), "all were established");
    assert_eq!(ends(&lines, lab.netns()), BTreeMap::from([("reset-by-peer".into(), 30), ("reset-by-us".into(), 20)]));
    let entered: u64 = report.attributions(lab.netns()).map(|entry| entry.time_wait.entered).sum();
    assert_eq!(entered, 0, "a reset leaves no TIME_WAIT on either side");
    Ok(())
}

/// The socket has the state and the error of an exhaustion; only its port and the time of the close distinguish the
/// two.
#[test]
fn closing_in_syn_sent_is_no_exhaustion() -> Result {
    require!();
    let lab = Lab::new()?;
    let other = TestNamespace::new()?;
    link(&lab.ns, &other)?;
    let report = Tracer::report(lab.dir())?;
    let mut log = lab.run("closer", vec![ScriptStep::Abandon { to: addr("10.77.0.99:80"), times: 12, after_ms: 5 }])?;
    // Killed during its connect: no close() and no end of the system call, but the same transition.
    let mut killed = lab.start(
        "killed",
        vec![ScriptStep::connect([addr("10.77.0.99:81")], 1, ConnectMethod::Blocking, AfterConnect::Hold)],
    )?;
    portchurn_tests::process::until("a SYN_SENT socket", portchurn_tests::lab::LIMIT, || {
        let listing = portchurn_tests::ss::SocketListing::take(&lab.ns)?;
        Ok(listing.towards(addr("10.77.0.99:81")).contains_key("SYN_SENT").then_some(()))
    })?;
    killed.running.signal(nix::sys::signal::Signal::SIGKILL)?;
    killed.running.wait(portchurn_tests::lab::LIMIT)?;
    let mut entry = log.0[0].clone();
    (entry.pid, entry.remote) = (killed.pid(), Some(addr("10.77.0.99:81")));
    log.0.push(entry);
    let report = report.finish_report()?;
    assert_counts(&report, lab.netns(), &log);
    assert_eq!(failed(&report, lab.netns()), only("ABORTED", 13));
    Ok(())
}

/// Number of connects that failed with EADDRNOTAVAIL, and all failures of the report; asserts that the report counts
/// them as `name`.
fn renamed(report: &ParsedReport, netns: u32, log: &Log, name: &str) -> (u64, FailedCounts) {
    report.assert_complete();
    let without_port = log.of(LoggedCall::Connect).filter(|entry| entry.errno == 99).count();
    let failures = failed(report, netns);
    assert_eq!(
        failures.get(name).copied(),
        u64::try_from(without_port).ok().filter(|count| *count > 0),
        "{failures:?}"
    );
    (u64::try_from(without_port).expect("fits"), failures)
}

#[test]
fn a_taken_4_tuple_is_no_exhaustion() -> Result {
    require!();
    let lab = Lab::new()?;
    let _server = lab.serve("server", "127.0.0.1:9001", ServerBehaviour::WaitForPeer)?;
    let connect = |times| ScriptStep::Connect {
        to: vec![addr("127.0.0.1:9001")],
        times,
        via: ConnectMethod::Blocking,
        bind: Some(addr("127.0.0.1:45000")),
        reuse_addr: true,
        then: AfterConnect::Hold,
        pause_us: 0,
    };
    let report = Tracer::report(lab.dir())?;
    let log = lab.run("client", vec![connect(6)])?;
    let report = report.finish_report()?;
    let (without_port, failures) = renamed(&report, lab.netns(), &log, "TUPLE_TAKEN");
    assert_eq!((without_port, failures), (5, only("TUPLE_TAKEN", 5)));
    Ok(())
}

#[test]
fn no_source_address_is_no_exhaustion() -> Result {
    require!();
    let lab = Lab::new()?;
    // A route without a source address; without this setting the kernel would give the link an address.
    lab.ns.sysctl(&[("ipv6/conf/default/addr_gen_mode", "1")])?;
    let other = TestNamespace::new()?;
    link(&lab.ns, &other)?;
    lab.ns.ip(&["-6", "addr", "flush", "dev", "v0"])?;
    lab.ns.ip(&["-6", "addr", "flush", "dev", "lo"])?;
    lab.ns.ip(&["-6", "route", "replace", "2001:db8::/32", "dev", "v0"])?;
    let report = Tracer::report(lab.dir())?;
    let stream = Tracer::stream(lab.dir(), "failures")?;
    let log = lab.run(
        "client",
        vec![ScriptStep::connect([addr("[2001:db8::1]:80")], 7, ConnectMethod::Blocking, AfterConnect::Hold)],
    )?;
    let lines = stream.finish_stream()?;
    let report = report.finish_report()?;
    let without_port = log.of(LoggedCall::Connect).filter(|entry| entry.errno == 99).count();
    assert_eq!(without_port, 7, "the scenario itself: {log:?}");
    report.assert_complete();
    assert_eq!(failed(&report, lab.netns()), only("NO_LOCAL_ADDRESS", 7));
    let reasons: Vec<_> = lines
        .iter()
        .filter(|line| line.pid == log.pids().first().copied())
        .map(|line| line.reason.as_deref())
        .collect();
    assert_eq!(reasons, [Some("NO_LOCAL_ADDRESS"); 7]);
    Ok(())
}

#[test]
fn bind_to_port_0_runs_out_by_another_name() -> Result {
    require!();
    let lab = Lab::with_ports(40000, 40031)?;
    let stream = Tracer::stream(lab.dir(), "failures")?;
    let report = Tracer::report_by_pid(lab.dir())?;
    let log = lab.run("binder", vec![ScriptStep::Bind { addr: addr("127.0.0.1:0"), times: 40, reuse_addr: false }])?;
    // An explicit bind to a taken port fails with the same errno and is not an exhaustion.
    let mut holder = lab.start(
        "holder",
        vec![ScriptStep::Bind { addr: addr("127.0.0.1:39000"), times: 1, reuse_addr: false }, lab.wait_for("end")],
    )?;
    holder.entry(LoggedCall::Waiting)?;
    let taken =
        lab.run("taken", vec![ScriptStep::Bind { addr: addr("127.0.0.1:39000"), times: 3, reuse_addr: false }])?;
    lab.go("end")?;
    holder.finish()?;
    assert_eq!(log.of(LoggedCall::Bind).filter(|entry| entry.errno == 98).count(), 8, "the scenario itself");
    assert_eq!(taken.of(LoggedCall::Bind).filter(|entry| entry.errno == 98).count(), 3, "the scenario itself");
    let lines = stream.finish_stream()?;
    let report = report.finish_report()?;
    report.assert_complete();
    let of = |log: &Log, reason| {
        lines
            .iter()
            .filter(|line| line.pid == log.pids().first().copied() && line.reason.as_deref() == Some(reason))
            .count()
    };
    assert_eq!(of(&log, "BIND_EXHAUSTED"), 8);
    assert_eq!(of(&taken, "BIND_EXHAUSTED"), 0);
    let workloads = report.workloads.iter().filter(|workload| workload.netns.contains(&lab.netns()));
    let total: u64 = workloads.filter_map(|workload| workload.failed.get("BIND_EXHAUSTED")).sum();
    assert_eq!(total, 8);
    Ok(())
}

/// Sockets that are bound but not connected block their ports for every destination.
#[test]
fn ports_held_by_bind_exhaust_connect() -> Result {
    require!();
    let lab = Lab::with_ports(40000, 40015)?;
    let _server = lab.serve("server", "127.0.0.1:9001", ServerBehaviour::WaitForPeer)?;
    let report = Tracer::report(lab.dir())?;
    let mut client = lab.start(
        "client",
        vec![
            ScriptStep::Bind { addr: addr("127.0.0.1:0"), times: 10, reuse_addr: false },
            ScriptStep::connect([addr("127.0.0.1:9001")], 10, ConnectMethod::Blocking, AfterConnect::Hold),
            lab.wait_for("end"),
        ],
    )?;
    client.entry(LoggedCall::Waiting)?;
    let log = client.log()?;
    let report = report.finish_report()?;
    assert_counts(&report, lab.netns(), &log);
    assert_eq!(failed(&report, lab.netns()), only("EADDRNOTAVAIL", 4));
    let found = report.destinations.iter().find(|entry| entry.netns == lab.netns() && entry.remote_port == 9001);
    assert_eq!(found.expect("the destination").ports.capacity, Some(6), "what connect() can really get");
    Ok(())
}

/// Connections that nobody has accepted end when their listener closes. The flows belong to the listener's process, and
/// the clients see a reset.
#[test]
fn listener_closed_with_children() -> Result {
    require!();
    let lab = Lab::new()?;
    let report = Tracer::report(lab.dir())?;
    let stream = Tracer::stream(lab.dir(), "flows")?;
    let mut server = lab.start(
        "server",
        vec![
            ScriptStep::Listen { addr: addr("127.0.0.1:9001"), backlog: 16 },
            lab.wait_for("close"),
            ScriptStep::CloseListeners,
        ],
    )?;
    server.entry(LoggedCall::Waiting)?;
    let mut client = lab.start(
        "client",
        vec![
            ScriptStep::connect([addr("127.0.0.1:9001")], 5, ConnectMethod::Blocking, AfterConnect::Hold),
            lab.wait_for("closed"),
            ScriptStep::CloseHeld { then: AfterConnect::PeerResets },
        ],
    )?;
    client.entry(LoggedCall::Waiting)?;
    lab.go("close")?;
    server.finish()?;
    lab.go("closed")?;
    let log = client.finish()?;
    let lines = stream.finish_stream()?;
    let report = report.finish_report()?;
    assert_counts(&report, lab.netns(), &log);
    assert_eq!(ends(&lines, lab.netns()), BTreeMap::from([("reset-by-peer".into(), 5)]));
    let children: Vec<&StreamLine> = lines
        .iter()
        .filter(|line| line.netns == Some(lab.netns()) && line.opened.as_deref() == Some("passive"))
        .collect();
    assert_eq!(children.len(), 5, "{children:?}");
    for child in children {
        assert_eq!(child.ended.as_deref(), Some("reset-by-us"), "{child:?}");
        assert_ne!(child.pid, Some(client.pid()), "the client's task was current when the child was born: {child:?}");
    }
    Ok(())
}

/// The peer's address exists beyond a link, but nothing listens on the port.
#[test]
fn refused_across_a_link() -> Result {
    require!();
    let lab = Lab::new()?;
    let other = TestNamespace::new()?;
    link(&lab.ns, &other)?;
    let report = Tracer::report(lab.dir())?;
    let log = lab.run(
        "client",
        vec![ScriptStep::connect([addr(&format!("{RIGHT}:80"))], 9, ConnectMethod::Poll, AfterConnect::Hold)],
    )?;
    let report = report.finish_report()?;
    assert_counts(&report, lab.netns(), &log);
    assert_eq!(failed(&report, lab.netns()), only("ECONNREFUSED", 9));
    Ok(())
}

/// "Who has 40004?": a port that is asked for by number, and the socket that has it.
#[test]
fn a_named_port_that_is_taken_has_its_holder() -> Result {
    require!();
    let lab = Lab::with_ports(40_004, 40_004)?;
    // From before the start: its process is known from /proc alone.
    let early = lab.ns.enter(|| Ok(std::net::TcpListener::bind("127.0.0.1:9001")?))?;
    let tracer = Tracer::start(lab.dir(), "report", &["report", "--json"])?;
    let (_held, refused) = lab.ns.enter(|| {
        let client = std::net::TcpStream::connect("127.0.0.1:9001")?;
        anyhow::ensure!(client.local_addr()?.port() == 40_004, "the only port");
        let bind = |address: &str| std::net::TcpListener::bind(address).err().and_then(|error| error.raw_os_error());
        let refused = ["0.0.0.0:40004", "127.0.0.1:40004", "127.0.0.1:9001"].map(bind);
        let twins = [(); 2].map(|()| socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None));
        let twins = twins.into_iter().collect::<std::io::Result<Vec<_>>>()?;
        for twin in &twins {
            twin.set_reuse_address(true)?;
            twin.bind(&addr("127.0.0.1:9002").into())?;
        }
        twins[0].listen(8)?;
        let second = twins[1].listen(8).err().and_then(|error| error.raw_os_error());
        Ok(((client, twins), [refused.as_slice(), &[second]].concat()))
    })?;
    assert_eq!(refused, [Some(98); 4], "EADDRINUSE");
    let report: serde_json::Value = serde_json::from_str(&tracer.finish()?)?;
    drop(early);
    let all = report["taken_ports"].as_array().into_iter().flatten();
    let mut found: Vec<_> = all
        .filter(|taken| taken["netns"] == lab.netns())
        .map(|taken| {
            let text = |value: &serde_json::Value| value.to_string().replace('"', "");
            let holder = &taken["holder"];
            [&taken["addr"], &taken["port"], &taken["failed"], &holder["state"], &holder["pid"]].map(text).join(" ")
        })
        .collect();
    found.sort_unstable();
    let pid = std::process::id();
    let want = [
        format!("0.0.0.0 40004 1 ESTABLISHED {pid}"),
        format!("127.0.0.1 40004 1 ESTABLISHED {pid}"),
        format!("127.0.0.1 9001 1 LISTEN {pid}"),
        format!("127.0.0.1 9002 1 LISTEN {pid}"),
    ];
    assert_eq!(found, want);
    let says =
        |finding: &&serde_json::Value| finding["id"] == "port-taken" && finding["evidence"]["netns"] == lab.netns();
    assert_eq!(report["findings"].as_array().into_iter().flatten().filter(says).count(), 4);
    Ok(())
}
