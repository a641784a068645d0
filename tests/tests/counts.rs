//! Counts and lifetimes: per process and destination, the report equals the log of the clients.

use std::net::SocketAddr;

use portchurn_tests::compare::{assert_counts, assert_flows, assert_lifetimes, logged};
use portchurn_tests::lab::{Lab, addr};
use portchurn_tests::reported::{ParsedReport, ReportedPorts};
use portchurn_tests::require;
use portchurn_tests::script::{AfterConnect, ConnectMethod, Log, LoggedCall, ScriptStep, ServerBehaviour};
use portchurn_tests::tracer::Tracer;

type Result = anyhow::Result<()>;

/// Failures with this name in a log, of all processes and destinations.
fn total(log: &Log, name: &str) -> u64 {
    logged(log).values().filter_map(|counts| counts.failed.get(name)).sum()
}

fn report_of(lab: &Lab, run: impl FnOnce() -> anyhow::Result<Log>) -> anyhow::Result<(Log, ParsedReport)> {
    let tracer = Tracer::report(lab.dir())?;
    let log = run()?;
    Ok((log, tracer.finish_report()?))
}

#[test]
fn counts_and_lifetimes_of_either_closer_are_exact() -> Result {
    require!();
    let lab = Lab::new()?;
    let patient = lab.serve("patient", "127.0.0.1:9001", ServerBehaviour::WaitForPeer)?;
    let hasty = lab.serve("hasty", "127.0.0.1:9002", ServerBehaviour::CloseFirst)?;
    let report = Tracer::report(lab.dir())?;
    let stream = Tracer::stream(lab.dir(), "flows")?;
    let mut slow = ScriptStep::churn([addr("127.0.0.1:9001")], 20);
    if let ScriptStep::Connect { pause_us, .. } = &mut slow {
        *pause_us = 3_000;
    }
    let active = lab.run("active", vec![ScriptStep::churn([addr("127.0.0.1:9001")], 300), slow])?;
    let passive = lab.run(
        "passive",
        vec![ScriptStep::connect([addr("127.0.0.1:9002")], 300, ConnectMethod::Blocking, AfterConnect::PeerCloses)],
    )?;
    // Held for a while, so that the lifetime is longer than the noise of a handshake.
    let mut held = lab.start(
        "held",
        vec![
            ScriptStep::connect([addr("127.0.0.1:9001")], 10, ConnectMethod::Blocking, AfterConnect::Hold),
            lab.wait_for("go"),
            ScriptStep::CloseHeld { then: AfterConnect::Close },
        ],
    )?;
    held.entry(LoggedCall::Waiting)?;
    let more = lab.run("more", vec![ScriptStep::churn([addr("127.0.0.1:9001")], 50)])?;
    lab.go("go")?;
    let held = held.finish()?;
    lab.quiet(0)?;
    let lines = stream.finish_stream()?;
    let report = report.finish_report()?;
    let all = Log([&active, &passive, &held, &more].iter().flat_map(|log| log.0.clone()).collect());
    let peers = Log([patient.log()?.0, hasty.log()?.0].concat());
    assert_counts(&report, lab.netns(), &all);
    assert_lifetimes(&report, lab.netns(), &all, &peers);
    for (port, log, ended) in [
        (9001, Log([active.0.clone(), held.0, more.0].concat()), "active-close"),
        (9002, passive.clone(), "passive-close"),
    ] {
        let own: Vec<_> = lines.iter().filter(|line| line.remote_port == Some(port)).cloned().collect();
        assert_flows(&own, lab.netns(), &log, &peers, ended);
    }
    let of = |pid: u32| {
        report
            .attributions(lab.netns())
            .find(|entry| entry.pid == Some(pid) && entry.connects > 0)
            .expect("an attribution")
    };
    assert_eq!(of(all.pids()[0]).active_closes, 320, "the first client closed first");
    assert_eq!(of(passive.pids()[0]).active_closes, 0, "the second waited for its peer");
    assert_eq!(of(passive.pids()[0]).time_wait.entered, 0, "whoever closes second has no TIME_WAIT");
    Ok(())
}

#[test]
fn two_destinations_run_out_of_one_range_each_on_its_own() -> Result {
    require!();
    let lab = Lab::with_ports(32768, 32831)?;
    lab.ns.sysctl(&[("ipv4/tcp_tw_reuse", "0")])?;
    let _one = lab.serve("one", "127.0.0.1:9001", ServerBehaviour::WaitForPeer)?;
    let _two = lab.serve("two", "127.0.0.1:9002", ServerBehaviour::WaitForPeer)?;
    let to = [addr("127.0.0.1:9001"), addr("127.0.0.1:9002")];
    // 64 ports, which both destinations use; then 36 and 86 connects fail.
    let (log, report) = report_of(&lab, || {
        let mut log = lab.run("both", vec![ScriptStep::churn(to, 200)])?;
        log.0.extend(lab.run("second", vec![ScriptStep::churn([to[1]], 50)])?.0);
        Ok(log)
    })?;
    assert_eq!(total(&log, "EADDRNOTAVAIL"), 36 + 36 + 50, "the scenario itself: {:?}", logged(&log));
    assert_counts(&report, lab.netns(), &log);
    for remote in to {
        let found = report.destinations.iter().find(|entry| {
            entry.netns == lab.netns() && entry.remote_port == remote.port() && entry.remote_addr == remote.ip()
        });
        let found = found.expect("the destination");
        assert_eq!(found.ports.range, Some((32768, 32831)));
        assert_eq!((found.ports.in_use, found.ports.peak, found.ports.capacity), (64, 64, Some(64)), "{remote}");
        assert_eq!(found.holders.iter().map(|holder| holder.ports).sum::<u32>(), 64, "{remote}: {:?}", found.holders);
    }
    Ok(())
}

/// Exhaustion with each connect method: 64 ports and 80 attempts, so 16 fail.
fn exhaustion(via: ConnectMethod, range: (u16, u16), listen: &str, to: &str) -> Result {
    let lab = Lab::with_ports(range.0, range.1)?;
    lab.ns.sysctl(&[("ipv4/tcp_tw_reuse", "0")])?;
    let _server = lab.serve("server", listen, ServerBehaviour::WaitForPeer)?;
    let (log, report) =
        report_of(&lab, || lab.run("client", vec![ScriptStep::connect([addr(to)], 80, via, AfterConnect::Hold)]))?;
    assert_eq!(total(&log, "EADDRNOTAVAIL"), 16, "the scenario itself: {:?}", logged(&log));
    assert_counts(&report, lab.netns(), &log);
    Ok(())
}

#[test]
fn non_blocking() -> Result {
    require!();
    exhaustion(ConnectMethod::Poll, (40000, 40063), "127.0.0.1:9001", "127.0.0.1:9001")
}

#[test]
fn fast_open_has_no_connect_call() -> Result {
    require!();
    exhaustion(ConnectMethod::FastOpen, (40000, 40063), "127.0.0.1:9001", "127.0.0.1:9001")
}

#[test]
fn io_uring_has_no_connect_call() -> Result {
    require!();
    exhaustion(ConnectMethod::Uring, (40000, 40063), "127.0.0.1:9001", "127.0.0.1:9001")
}

#[test]
fn io_uring_worker_threads_belong_to_their_process() -> Result {
    require!();
    exhaustion(ConnectMethod::UringAsync, (40000, 40063), "127.0.0.1:9001", "127.0.0.1:9001")
}

#[test]
fn ipv6() -> Result {
    require!();
    exhaustion(ConnectMethod::Blocking, (40000, 40063), "[::1]:9001", "[::1]:9001")
}

#[test]
fn mapped_addresses_are_the_v4_destination() -> Result {
    require!();
    let lab = Lab::with_ports(40000, 40063)?;
    lab.ns.sysctl(&[("ipv4/tcp_tw_reuse", "0")])?;
    let _server = lab.serve("server", "[::]:9001", ServerBehaviour::WaitForPeer)?;
    let mapped: SocketAddr = addr("[::ffff:127.0.0.1]:9001");
    // 32 connections of each family fill the range for both; then both families fail.
    let (log, report) = report_of(&lab, || {
        let hold = |to, times| ScriptStep::connect([to], times, ConnectMethod::Blocking, AfterConnect::Hold);
        lab.run(
            "client",
            vec![hold(mapped, 32), hold(addr("127.0.0.1:9001"), 32), hold(mapped, 5), hold(addr("127.0.0.1:9001"), 6)],
        )
    })?;
    assert_eq!(total(&log, "EADDRNOTAVAIL"), 11, "the scenario itself: {:?}", logged(&log));
    assert_counts(&report, lab.netns(), &log);
    Ok(())
}

#[test]
fn retries_on_one_socket_are_attempts_of_their_own() -> Result {
    require!();
    let lab = Lab::with_ports(40000, 40063)?;
    lab.ns.sysctl(&[("ipv4/tcp_tw_reuse", "0")])?;
    let _server = lab.serve("server", "127.0.0.1:9001", ServerBehaviour::WaitForPeer)?;
    let (full, refused) = (addr("127.0.0.1:9001"), addr("127.0.0.1:9009"));
    let (log, report) = report_of(&lab, || {
        let mut holder = lab.start(
            "holder",
            vec![
                ScriptStep::connect([full], 64, ConnectMethod::Blocking, AfterConnect::Hold),
                lab.wait_for("free"),
                ScriptStep::CloseHeld { then: AfterConnect::Linger0 },
            ],
        )?;
        holder.entry(LoggedCall::Waiting)?;
        // Refused first, so that the socket has the stale port of its last attempt when connects fail for lack of a
        // port.
        let mut retries = lab.run(
            "retries",
            vec![
                ScriptStep::RetryOneSocket { to: refused, times: 7, pause_us: 500 },
                ScriptStep::RetryOneSocket { to: full, times: 9, pause_us: 500 },
            ],
        )?;
        // Succeeds at last on the same socket.
        let mut late = lab.start("late", vec![ScriptStep::RetryOneSocket { to: full, times: 5000, pause_us: 2000 }])?;
        late.entries(LoggedCall::Connect, 3)?;
        lab.go("free")?;
        retries.0.extend(holder.finish()?.0);
        retries.0.extend(late.finish()?.0);
        Ok(retries)
    })?;
    assert_eq!(total(&log, "ECONNREFUSED"), 7);
    assert!(total(&log, "EADDRNOTAVAIL") >= 12);
    assert_counts(&report, lab.netns(), &log);
    Ok(())
}

/// Thirty connections with the same addresses and ports, one after the other: only their order distinguishes them.
#[test]
fn one_4_tuple_has_many_lives() -> Result {
    require!();
    let lab = Lab::new()?;
    let server = lab.serve("server", "127.0.0.1:9001", ServerBehaviour::WaitForPeer)?;
    let stream = Tracer::stream(lab.dir(), "flows")?;
    let report = Tracer::report(lab.dir())?;
    let life = |then| ScriptStep::Connect {
        to: vec![addr("127.0.0.1:9001")],
        times: 30,
        via: ConnectMethod::Blocking,
        bind: Some(addr("127.0.0.1:45000")),
        reuse_addr: true,
        then,
        // TCP timestamps must advance before the kernel re-uses a 4-tuple in TIME_WAIT.
        pause_us: 2_000,
    };
    let reset = lab.run("reset", vec![life(AfterConnect::Linger0)])?;
    let closed = lab.run("closed", vec![life(AfterConnect::HalfClose)])?;
    lab.quiet(0)?;
    let lines = stream.finish_stream()?;
    let report = report.finish_report()?;
    let all = Log([&reset.0[..], &closed.0].concat());
    assert_eq!(all.of(LoggedCall::Close).count(), 60, "the scenario itself: {:?}", logged(&all));
    assert_counts(&report, lab.netns(), &all);
    let peers = server.log()?;
    assert_lifetimes(&report, lab.netns(), &all, &peers);
    let of = |log: &Log| -> Vec<_> {
        lines.iter().filter(|line| line.pid == log.pids().first().copied()).cloned().collect()
    };
    assert_flows(&of(&reset), lab.netns(), &reset, &peers, "reset-by-us");
    assert_flows(&of(&closed), lab.netns(), &closed, &peers, "active-close");
    let now: u64 = report.attributions(lab.netns()).map(|entry| entry.time_wait.now).sum();
    assert_eq!(now, 1, "one 4-tuple, one TIME_WAIT");
    Ok(())
}

/// Makes `attempts` connects in a port range and holds them. Returns the log and the ports of the destination.
fn fill(range: (u16, u16), reserved: &str, attempts: u32) -> anyhow::Result<(Log, ReportedPorts)> {
    let lab = Lab::with_ports(range.0, range.1)?;
    lab.ns.sysctl(&[("ipv4/tcp_tw_reuse", "0"), ("ipv4/ip_local_reserved_ports", reserved)])?;
    let _server = lab.serve("server", "127.0.0.1:9001", ServerBehaviour::WaitForPeer)?;
    let hold = ScriptStep::connect([addr("127.0.0.1:9001")], attempts, ConnectMethod::Blocking, AfterConnect::Hold);
    let tracer = Tracer::report(lab.dir())?;
    let mut client = lab.start("client", vec![hold, lab.wait_for("end")])?;
    client.entry(LoggedCall::Waiting)?;
    let log = client.log()?;
    let report = tracer.finish_report()?;
    assert_counts(&report, lab.netns(), &log);
    let found = report.destinations.iter().find(|entry| entry.netns == lab.netns() && entry.remote_port == 9001);
    let ports = found.expect("the destination").ports.clone();
    Ok((log, ports))
}

#[test]
fn reserved_ports_are_no_capacity() -> Result {
    require!();
    let (log, ports) = fill((40000, 40063), "40000-40019,40030,50000", 53)?;
    assert_eq!(total(&log, "EADDRNOTAVAIL"), 10, "the scenario itself: {:?}", logged(&log));
    assert_eq!((ports.capacity, ports.in_use), (Some(43), 43), "{ports:?}");
    Ok(())
}

/// After a change of the range the report said "exhausted now" with all of its ports free.
#[test]
fn ports_of_a_former_range_cost_nothing() -> Result {
    require!();
    let lab = Lab::with_ports(40000, 40063)?;
    lab.ns.sysctl(&[("ipv4/tcp_tw_reuse", "0")])?;
    let _server = lab.serve("server", "127.0.0.1:9001", ServerBehaviour::WaitForPeer)?;
    let to = addr("127.0.0.1:9001");
    let tracer = Tracer::report(lab.dir())?;
    let mut log = lab.run("before", vec![ScriptStep::churn([to], 70)])?;
    assert_eq!(total(&log, "EADDRNOTAVAIL"), 6, "the scenario itself: {:?}", logged(&log));
    lab.ns.port_range(50000, 50063)?;
    let hold = ScriptStep::connect([to], 3, ConnectMethod::Blocking, AfterConnect::Hold);
    let mut client = lab.start("after", vec![hold, lab.wait_for("end")])?;
    client.entry(LoggedCall::Waiting)?;
    log.0.extend(client.log()?.0);
    let report = tracer.finish_report()?;
    assert_counts(&report, lab.netns(), &log);
    let found = report.destinations.iter().find(|entry| entry.netns == lab.netns() && entry.remote_port == 9001);
    let ports = &found.expect("the destination").ports;
    assert_eq!((ports.range, ports.capacity), (Some((50000, 50063)), Some(64)), "{ports:?}");
    assert_eq!((ports.in_use, ports.outside_range, ports.contradictions), (3, 64, 0), "{ports:?}");
    Ok(())
}

/// A port search probes an even number of ports from a random start. With eight of nine ports taken most attempts fail
/// although a port is free, and some find it.
#[test]
fn an_odd_range_has_its_whole_size() -> Result {
    require!();
    let (log, ports) = fill((40000, 40008), "", 18)?;
    let held = u32::try_from(log.of(LoggedCall::Connect).filter(|entry| entry.errno == 0).count())?;
    assert!((8..=9).contains(&held), "the scenario itself: {:?}", logged(&log));
    // One connect() may miss one port of it, several miss none.
    assert_eq!((ports.capacity, ports.in_use), (Some(9), held), "{ports:?}");
    Ok(())
}
