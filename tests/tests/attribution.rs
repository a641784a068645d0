//! Attribution: the process of a connection is right with delays, threads, forks, short-lived and killed processes.

use std::process::Command;

use anyhow::Context as _;
use nix::sys::signal::Signal;
use portchurn_tests::compare::{assert_counts, assert_flows, logged};
use portchurn_tests::lab::{LIMIT, Lab, addr};
use portchurn_tests::netns::{LinkDelay, RIGHT, TestNamespace, delayed_link};
use portchurn_tests::process::{Running, until};
use portchurn_tests::reported::StreamLine;
use portchurn_tests::require;
use portchurn_tests::require::Need;
use portchurn_tests::script::{AfterConnect, ConnectMethod, Log, LoggedCall, Script, ScriptStep, ServerBehaviour};
use portchurn_tests::ss::SocketListing;
use portchurn_tests::tracer::Tracer;

type Result = anyhow::Result<()>;

/// Segments arrive 80 ms late in the context of an unrelated task, which never happens on loopback. A tracer that
/// trusted `current` there would attribute the connection to that task.
#[test]
fn a_bystander_is_not_blamed_on_a_slow_link() -> Result {
    require!(Need::Program("ethtool", "ethtool"), Need::Program("tc", "iproute2"));
    let lab = Lab::with_ports(40000, 40015)?;
    lab.ns.sysctl(&[("ipv4/tcp_tw_reuse", "0")])?;
    let far = TestNamespace::new()?;
    let delay = delayed_link(&lab.ns, &far, 40)?;
    let mut bystanders = Vec::new();
    if let LinkDelay::Relay(middle) = &delay {
        let steps = vec![ScriptStep::Relay { left: "r0".into(), right: "r1".into(), delay_ms: 40 }];
        let script = Script { log: lab.log_path("bystander"), buffered: false, comm: Some("bystander".into()), steps };
        let mut relay = lab.start_script(middle, "bystander", &script)?;
        relay.entry(LoggedCall::Listening)?;
        bystanders.push(relay);
    }
    let _server = lab.serve_in(&far, "server", "0.0.0.0:9001", ServerBehaviour::WaitForPeer)?;
    let _hasty = lab.serve_in(&far, "hasty", "0.0.0.0:9002", ServerBehaviour::CloseFirst)?;
    let report = Tracer::report(lab.dir())?;
    let stream = Tracer::stream(lab.dir(), "flows")?;
    let to = |port: u16| addr(&format!("{RIGHT}:{port}"));
    let attempt = |port, times, via, then| ScriptStep::connect([to(port)], times, via, then);
    let active = lab.run(
        "active",
        vec![ScriptStep::Threads {
            count: 4,
            steps: vec![attempt(9001, 3, ConnectMethod::Blocking, AfterConnect::HalfClose)],
        }],
    )?;
    let passive = lab.run("passive", vec![attempt(9002, 4, ConnectMethod::Poll, AfterConnect::PeerCloses)])?;
    let refused = lab.run("refused", vec![attempt(9009, 3, ConnectMethod::Poll, AfterConnect::Hold)])?;
    // 12 ports towards 9001 are in TIME_WAIT, so 4 are free.
    let full = lab.run("full", vec![attempt(9001, 10, ConnectMethod::Blocking, AfterConnect::Hold)])?;
    until("the last passive close, which comes 40 ms after close()", LIMIT, || {
        Ok(SocketListing::take(&lab.ns)?.towards(to(9002)).is_empty().then_some(()))
    })?;
    let lines = stream.finish_stream()?;
    let report = report.finish_report()?;
    assert_eq!(
        logged(&full).values().next().map(|counts| counts.failed.clone()),
        Some([("EADDRNOTAVAIL".to_owned(), 6)].into()),
        "the scenario itself"
    );
    let all = Log([&active.0[..], &passive.0, &refused.0, &full.0].concat());
    assert_counts(&report, lab.netns(), &all);
    let servers: Vec<&StreamLine> = lines.iter().filter(|line| line.netns == Some(far.inode())).collect();
    for line in servers {
        let clients =
            [active.pids(), passive.pids(), bystanders.iter().map(portchurn_tests::lab::Traffic::pid).collect()]
                .concat();
        assert!(!clients.contains(&line.pid.unwrap_or_default()), "the server's side belongs to the server: {line:?}");
    }
    let own: Vec<&StreamLine> = lines
        .iter()
        .filter(|line| line.netns == Some(lab.netns()) && line.ended.as_deref() == Some("active-close"))
        .collect();
    assert!(
        own.iter().all(|line| line.connect_ms.is_some_and(|ms| (80.0..300.0).contains(&ms))),
        "a round trip is 80 ms: {own:?}"
    );
    Ok(())
}

/// A killed process has exited before the kernel closes its sockets.
#[test]
fn killed_with_sockets_open() -> Result {
    require!();
    let lab = Lab::new()?;
    let _server = lab.serve("server", "127.0.0.1:9001", ServerBehaviour::WaitForPeer)?;
    let report = Tracer::report(lab.dir())?;
    let stream = Tracer::stream(lab.dir(), "flows")?;
    let to = addr("127.0.0.1:9001");
    let mut victim = lab.start(
        "victim",
        vec![ScriptStep::connect([to], 25, ConnectMethod::Blocking, AfterConnect::Hold), lab.wait_for("never")],
    )?;
    victim.entry(LoggedCall::Waiting)?;
    victim.running.signal(Signal::SIGKILL)?;
    victim.running.wait(LIMIT)?;
    let listing = until("its last full socket to go", LIMIT, || {
        let listing = SocketListing::take(&lab.ns)?;
        Ok((listing.towards(to).keys().all(|state| state == "TIME_WAIT")).then_some(listing))
    })?;
    let log = victim.log()?;
    let lines = stream.finish_stream()?;
    let report = report.finish_report()?;
    assert_counts(&report, lab.netns(), &log);
    let own: Vec<&StreamLine> =
        lines.iter().filter(|line| line.netns == Some(lab.netns()) && line.pid == Some(victim.pid())).collect();
    assert_eq!(own.len(), 25, "{own:?}");
    assert!(
        own.iter().all(|line| line.ended.as_deref() == Some("active-close") && line.comm.as_deref() == Some("churn")),
        "{own:?}"
    );
    let entry = report.attributions(lab.netns()).find(|entry| entry.pid == Some(victim.pid())).expect("an attribution");
    assert_eq!((entry.active_closes, entry.time_wait.entered, entry.time_wait.now), (25, 25, 25));
    assert_eq!(report.occupancy(lab.netns(), to), listing.towards(to));
    Ok(())
}

#[test]
fn threads_count_for_their_process() -> Result {
    require!();
    let lab = Lab::new()?;
    let server = lab.serve("server", "127.0.0.1:9001", ServerBehaviour::WaitForPeer)?;
    let report = Tracer::report(lab.dir())?;
    let stream = Tracer::stream(lab.dir(), "all")?;
    let log = lab.run(
        "client",
        vec![ScriptStep::Threads {
            count: 6,
            steps: vec![
                ScriptStep::churn([addr("127.0.0.1:9001")], 50),
                ScriptStep::connect([addr("127.0.0.1:9009")], 2, ConnectMethod::Blocking, AfterConnect::Hold),
            ],
        }],
    )?;
    lab.quiet(0)?;
    let lines = stream.finish_stream()?;
    let report = report.finish_report()?;
    assert_eq!(log.pids().len(), 1);
    assert_counts(&report, lab.netns(), &log);
    assert_flows(&lines, lab.netns(), &log, &server.log()?, "active-close");
    let sorted = |mut tids: Vec<u32>| {
        tids.sort_unstable();
        tids
    };
    let expected =
        sorted(log.of(LoggedCall::Connect).filter(|entry| entry.errno != 0).map(|entry| entry.tid).collect());
    let seen = sorted(
        lines
            .iter()
            .filter(|line| line.kind == "failure" && line.netns == Some(lab.netns()))
            .filter_map(|line| line.tid)
            .collect(),
    );
    assert_eq!(expected, seen, "each failure names its thread");
    Ok(())
}

/// Forked children that never call exec and exit within milliseconds.
#[test]
fn forked_children_are_processes_of_their_own() -> Result {
    require!();
    let lab = Lab::with_ports(40000, 40063)?;
    lab.ns.sysctl(&[("ipv4/tcp_tw_reuse", "0")])?;
    let _server = lab.serve("server", "127.0.0.1:9001", ServerBehaviour::WaitForPeer)?;
    let report = Tracer::report(lab.dir())?;
    let log = lab.run(
        "parent",
        vec![ScriptStep::Fork {
            count: 20,
            at_once: false,
            steps: vec![ScriptStep::churn([addr("127.0.0.1:9001")], 4)],
        }],
    )?;
    let report = report.finish_report()?;
    assert_eq!(logged(&log).len(), 20, "the scenario itself");
    assert_counts(&report, lab.netns(), &log);
    let children = report.attributions(lab.netns()).filter(|entry| entry.connects > 0);
    assert!(children.map(|entry| entry.comm.as_str()).all(|comm| comm == "churn"));
    Ok(())
}

/// The commands exit before anybody can read /proc, and the report has their names and command lines.
#[test]
fn short_lived_commands_have_names() -> Result {
    require!(Need::Program("curl", "curl"));
    let lab = Lab::new()?;
    let _server = lab.serve("server", "127.0.0.1:9001", ServerBehaviour::CloseFirst)?;
    let report = Tracer::report(lab.dir())?;
    let mut pids = Vec::new();
    for number in 0..15 {
        let mut command: Command = lab.ns.command("curl");
        command.args([
            "-s",
            "-o",
            "/dev/null",
            "--http0.9",
            "--max-time",
            "10",
            &format!("http://127.0.0.1:9001/order/{number}"),
        ]);
        let mut curl = Running::start(command, lab.dir(), "curl")?;
        pids.push((number, curl.pid()));
        // curl fails because the response is empty, but it has connected.
        curl.wait(LIMIT)?;
    }
    let report = report.finish_report()?;
    report.assert_complete();
    for (number, pid) in pids {
        let found: Vec<_> =
            report.attributions(lab.netns()).filter(|entry| entry.pid == Some(pid) && entry.connects > 0).collect();
        let [entry] = found.as_slice() else { panic!("{pid}: {found:?}") };
        assert_eq!((entry.comm.as_str(), entry.connects, entry.established), ("curl", 1, 1));
        let processes = report
            .workloads
            .iter()
            .filter(|workload| workload.netns.contains(&lab.netns()))
            .flat_map(|workload| &workload.pids);
        let cmdline = processes.filter(|process| process.pid == Some(pid)).find_map(|process| process.cmdline.clone());
        let cmdline = cmdline.unwrap_or_else(|| panic!("no command line of {pid}"));
        assert!(cmdline.contains("curl") && cmdline.contains(&format!("/order/{number}")), "{cmdline}");
    }
    Ok(())
}

/// A passive flow belongs to the process that accepted it, not to the client in whose context the handshake ended.
#[test]
fn fork_servers_own_what_they_accept() -> Result {
    require!();
    let lab = Lab::new()?;
    let mut prefork = lab.start(
        "prefork",
        vec![ScriptStep::Prefork { addr: addr("127.0.0.1:9001"), workers: 3, manner: ServerBehaviour::WaitForPeer }],
    )?;
    prefork.entry(LoggedCall::Listening)?;
    let mut forking = lab.serve("forking", "127.0.0.1:9002", ServerBehaviour::ForkEach)?;
    let stream = Tracer::stream(lab.dir(), "flows")?;
    let report = Tracer::report_by_pid(lab.dir())?;
    let clients = lab.run(
        "clients",
        vec![
            ScriptStep::Fork { count: 4, at_once: true, steps: vec![ScriptStep::churn([addr("127.0.0.1:9001")], 25)] },
            ScriptStep::connect([addr("127.0.0.1:9002")], 12, ConnectMethod::Blocking, AfterConnect::HalfClose),
        ],
    )?;
    let accepted = [prefork.entries(LoggedCall::Accept, 100)?, forking.entries(LoggedCall::Accept, 12)?].concat();
    lab.quiet(0)?;
    let lines = stream.finish_stream()?;
    let report = report.finish_report()?;
    assert_counts(&report, lab.netns(), &clients);
    let passive: Vec<&StreamLine> = lines
        .iter()
        .filter(|line| line.netns == Some(lab.netns()) && line.opened.as_deref() == Some("passive"))
        .collect();
    assert_eq!(passive.len(), 112);
    for entry in accepted {
        let flow = passive.iter().find(|line| line.local() == entry.local && line.remote() == entry.remote);
        let flow = flow.unwrap_or_else(|| panic!("no flow for {entry:?}"));
        assert_eq!(flow.pid, Some(entry.pid), "{flow:?} was accepted by {entry:?}");
    }
    let total: u64 = report
        .workloads
        .iter()
        .filter(|workload| workload.netns.contains(&lab.netns()))
        .map(|workload| workload.accepted)
        .sum();
    assert_eq!(total, 112);
    Ok(())
}

/// A server that never closes its connections has `CLOSE_WAIT` sockets, and its clients have `FIN_WAIT2` minisockets.
#[test]
fn leaked_sockets_stay_in_close_wait() -> Result {
    require!();
    let lab = Lab::new()?;
    let leak = lab.serve("leak", "127.0.0.1:9001", ServerBehaviour::Leak)?;
    let report = Tracer::report_by_pid(lab.dir())?;
    let log = lab.run("client", vec![ScriptStep::churn([addr("127.0.0.1:9001")], 18)])?;
    until("18 sockets accepted", LIMIT, || Ok((leak.log()?.of(LoggedCall::Accept).count() == 18).then_some(())))?;
    let to = addr("127.0.0.1:9001");
    // A server that does not close may delay its ACK of the client's FIN.
    let listing = until("18 minisockets", LIMIT, || {
        let listing = SocketListing::take(&lab.ns)?;
        Ok((listing.towards(to).get("FIN_WAIT2") == Some(&18) && listing.minisockets().len() == 18).then_some(listing))
    })
    .with_context(|| format!("{:#?}", SocketListing::take(&lab.ns)))?;
    let report = report.finish_report()?;
    assert_counts(&report, lab.netns(), &log);
    let server = report.workloads.iter().find(|workload| workload.pids.iter().any(|own| own.pid == Some(leak.pid())));
    let server = server.expect("the server's workload");
    assert_eq!((server.accepted, server.close_wait.now, server.close_wait.peak), (18, 18, 18), "{server:?}");
    assert_eq!(listing.rows.iter().filter(|row| row.state == "CLOSE_WAIT").count(), 18, "the scenario itself");
    assert_eq!(report.occupancy(lab.netns(), to), listing.towards(to), "minisockets in FIN_WAIT2 hold ports too");
    Ok(())
}
