//! `TIME_WAIT`: begin, number and end of minisockets equal the output of `ss`, second by second, through a whole cycle.
//!
//! The cycle always takes a little more than 60 s, so all settings run at the same time, each in namespaces of its own,
//! under one tracer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use portchurn_tests::compare::assert_counts;
use portchurn_tests::lab::{LIMIT, Lab, Traffic, addr};
use portchurn_tests::netns::{RIGHT, TestNamespace, link};
use portchurn_tests::process::{output, until};
use portchurn_tests::reported::{ParsedReport, StreamLine};
use portchurn_tests::require;
use portchurn_tests::script::{AfterConnect, ConnectMethod, Log, LoggedCall, ScriptStep, ServerBehaviour};
use portchurn_tests::ss::SocketListing;
use portchurn_tests::tracer::Tracer;

type Result = anyhow::Result<()>;
type Tuple = (SocketAddr, SocketAddr);

/// Tolerance between the hook and the time at which `ss` sees the change, on a busy machine.
const SLACK_NS: u64 = 10_000_000;
/// Bounds of a natural lifetime: `TCP_TIMEWAIT_LEN`, to which the timer wheel adds at most 5.1 s (HZ=100).
const TIME_WAIT_S: (f64, f64) = (60.0, 65.2);
const PORTS: u16 = 16;

/// One setting: a namespace with a client, a server in it or behind a link, and samples of its minisockets.
struct Case {
    name: &'static str,
    server: Traffic,
    /// Namespace of the server, if it is not in the lab's namespace.
    far: Option<TestNamespace>,
    lab: Lab,
    log: Log,
    samples: Vec<SocketListing>,
}

impl Case {
    fn new(
        name: &'static str,
        sysctls: &[(&str, &str)],
        linked: bool,
        manner: ServerBehaviour,
    ) -> anyhow::Result<Self> {
        let lab = Lab::with_ports(40000, 40000 + PORTS - 1)?;
        lab.ns.sysctl(sysctls)?;
        let far = if linked { Some(TestNamespace::new()?) } else { None };
        if let Some(far) = &far {
            link(&lab.ns, far)?;
        }
        let server = lab.serve_in(far.as_ref().unwrap_or(&lab.ns), "server", "0.0.0.0:9001", manner)?;
        Ok(Self { name, server, far, lab, log: Log::default(), samples: Vec::new() })
    }

    fn to(&self) -> SocketAddr {
        addr(&format!("{}:9001", if self.far.is_some() { RIGHT } else { "127.0.0.1" }))
    }

    fn churn(&mut self, name: &str, times: u32) -> Result {
        let log = self
            .lab
            .run(name, vec![ScriptStep::connect([self.to()], times, ConnectMethod::Blocking, AfterConnect::Close)])?;
        self.log.0.extend(log.0);
        Ok(())
    }

    fn failed(&self) -> usize {
        self.log.of(LoggedCall::Connect).filter(|entry| entry.errno == 99).count()
    }

    fn locals(&self) -> impl Iterator<Item = SocketAddr> {
        self.log.of(LoggedCall::Connect).filter(|entry| entry.errno == 0).filter_map(|entry| entry.local)
    }

    fn established(&self) -> usize {
        self.locals().count()
    }

    /// Number of connections with a 4-tuple that was used before; on a slow machine there are some in the first round
    /// already.
    fn reuses(&self) -> usize {
        self.established() - self.locals().collect::<BTreeSet<_>>().len()
    }

    fn sample(&mut self) -> anyhow::Result<usize> {
        let listing = SocketListing::take(&self.lab.ns)?;
        let count = listing.minisockets().len();
        self.samples.push(listing);
        Ok(count)
    }
}

/// Begin and end of a minisocket; no end if it still existed when the stream ended.
#[derive(Clone, Copy, Debug)]
struct Period {
    begin: u64,
    end: Option<u64>,
}

impl Period {
    fn seconds(&self) -> Option<f64> {
        self.end.map(|end| (end - self.begin) as f64 / 1e9)
    }
}

fn periods(lines: &[StreamLine], netns: u32, case: &str) -> BTreeMap<Tuple, Vec<Period>> {
    let mut periods: BTreeMap<Tuple, Vec<Period>> = BTreeMap::new();
    for line in lines.iter().filter(|line| line.kind == "transition" && line.netns == Some(netns)) {
        let (Some(local), Some(remote), Some(ktime)) = (line.local(), line.remote(), line.ktime_ns) else { continue };
        let own = periods.entry((local, remote)).or_default();
        let open = own.last().is_some_and(|period| period.end.is_none());
        if line.new.as_deref() == Some("TIME_WAIT") {
            assert!(matches!(line.old.as_deref(), Some("FIN_WAIT2" | "CLOSING")), "{case}: {line:?}");
            assert!(!open, "{case}: a second TIME_WAIT on one 4-tuple: {line:?}");
            own.push(Period { begin: ktime, end: None });
        } else if line.old.as_deref() == Some("TIME_WAIT") {
            assert_eq!(line.new.as_deref(), Some("CLOSE"), "{case}");
            assert!(open, "{case}: the end of a TIME_WAIT that had not begun: {line:?} after {own:?}");
            if let Some(period) = own.last_mut() {
                period.end = Some(ktime);
            }
        }
    }
    periods.retain(|_, own| !own.is_empty());
    periods
}

/// Asserts that every sample of `ss` has all minisockets that must exist, and no others.
fn assert_samples(case: &Case, periods: &BTreeMap<Tuple, Vec<Period>>) {
    for (second, sample) in case.samples.iter().enumerate() {
        let during = |from: u64, to: u64| -> BTreeSet<Tuple> {
            let holds = |period: &Period| period.begin <= from && period.end.is_none_or(|end| end >= to);
            periods.iter().filter(|(_, own)| own.iter().any(holds)).map(|(tuple, _)| *tuple).collect()
        };
        let listed = sample.minisockets();
        // Minisockets that exist during the whole sample, and those that exist at any time of it, both with the
        // tolerance.
        let must = during(sample.began_ns - SLACK_NS, sample.ended_ns + SLACK_NS);
        let may = during(sample.ended_ns + SLACK_NS, sample.began_ns - SLACK_NS);
        let missing: Vec<_> = must.difference(&listed).collect();
        let extra: Vec<_> = listed.difference(&may).collect();
        assert!(
            missing.is_empty() && extra.is_empty(),
            "{}, sample {second}: not in ss: {missing:?}; only in ss: {extra:?}",
            case.name
        );
    }
}

fn entered(report: &ParsedReport, case: &Case) -> (u64, u64, u64) {
    let own = || report.attributions(case.lab.netns()).filter(|entry| entry.connects > 0);
    (
        own().map(|entry| entry.time_wait.entered).sum(),
        own().map(|entry| entry.time_wait.now).sum(),
        own().map(|entry| entry.time_wait.reused).sum(),
    )
}

#[test]
fn a_whole_cycle_under_every_setting() -> Result {
    require!();
    let reuse = |value| [("ipv4/tcp_tw_reuse", value)];
    let mut reuses = Vec::new();
    // The names say whether connects may re-use the ports in TIME_WAIT after the reuse delay.
    for (name, value, linked, reusable) in [
        ("tw_reuse=0 on loopback", "0", false, false),
        ("tw_reuse=1 on loopback", "1", false, true),
        ("tw_reuse=2 on loopback", "2", false, true),
        ("tw_reuse=0 on a link", "0", true, false),
        ("tw_reuse=1 on a link", "1", true, true),
        ("tw_reuse=2 on a link", "2", true, false),
    ] {
        reuses.push((Case::new(name, &reuse(value), linked, ServerBehaviour::WaitForPeer)?, reusable));
    }
    let mut overflow = Case::new(
        "overflow",
        &[("ipv4/tcp_tw_reuse", "0"), ("ipv4/tcp_max_tw_buckets", "5")],
        false,
        ServerBehaviour::WaitForPeer,
    )?;
    let mut short = Case::new("FIN_WAIT2 cut short", &[("ipv4/tcp_fin_timeout", "5")], false, ServerBehaviour::Leak)?;
    let mut late =
        Case::new("FIN_WAIT2, then the peer's FIN", &[("ipv4/tcp_fin_timeout", "60")], false, ServerBehaviour::Leak)?;

    let stream = Tracer::stream(short.lab.dir(), "transitions")?;
    let report = Tracer::report(short.lab.dir())?;
    for (case, _) in &mut reuses {
        case.churn("first", PORTS.into())?;
    }
    overflow.churn("first", 12)?;
    short.churn("first", 6)?;
    late.churn("first", 6)?;
    let begun = Instant::now();
    let mut again = false;
    let mut next = Duration::ZERO;
    until("the end of every TIME_WAIT", Duration::from_secs(90), || {
        if begun.elapsed() < next {
            return Ok(None);
        }
        next += Duration::from_secs(1);
        if !again && begun.elapsed() > Duration::from_secs(4) {
            again = true;
            for (case, _) in &mut reuses {
                case.churn("second", 8)?;
            }
            // Its FINs turn the client's FIN_WAIT2 minisockets into TIME_WAIT, and a new minute begins.
            late.server.running.signal(Signal::SIGKILL)?;
            late.server.running.wait(LIMIT)?;
        }
        let mut left = 0;
        for case in reuses.iter_mut().map(|(case, _)| case).chain([&mut overflow, &mut short, &mut late]) {
            left += case.sample()?;
        }
        Ok((left == 0).then_some(()))
    })?;
    let lines = stream.finish_stream()?;
    let report = report.finish_report()?;

    let refused = overflow.lab.ns.netstat("TCPTimeWaitOverflow")?;
    assert!(refused > 0, "overflow: the scenario itself");
    for (case, reusable) in &reuses {
        assert_eq!(case.failed(), if *reusable { 0 } else { 8 }, "{}: the scenario itself", case.name);
    }
    for (case, reusable) in &reuses {
        let netns = case.lab.netns();
        assert_counts(&report, netns, &case.log);
        let periods = periods(&lines, netns, case.name);
        assert_samples(case, &periods);
        let (early, natural): (Vec<&Period>, Vec<&Period>) =
            periods.values().flatten().partition(|period| period.seconds().is_some_and(|seconds| seconds < 30.0));
        let again = case.reuses();
        assert!(if *reusable { again >= 8 } else { again == 0 }, "{}: the scenario itself", case.name);
        let lives = case.established();
        assert_eq!((early.len(), natural.len()), (again, lives - again), "{}", case.name);
        for period in natural {
            let seconds = period.seconds().unwrap_or_default();
            assert!((TIME_WAIT_S.0..TIME_WAIT_S.1).contains(&seconds), "{}: {period:?}", case.name);
        }
        let [lives, again] = [lives, again].map(|number| u64::try_from(number).expect("fits"));
        assert_eq!(entered(&report, case), (lives, 0, again), "{}: entered, now, reused", case.name);
    }

    let seen = periods(&lines, overflow.lab.netns(), overflow.name);
    assert_samples(&overflow, &seen);
    assert_eq!(u64::try_from(seen.len()).expect("fits") + refused, 12, "overflow: the others never began");
    assert_eq!(entered(&report, &overflow), (12 - refused, 0, 0), "overflow");
    assert_counts(&report, overflow.lab.netns(), &overflow.log);

    for (case, bounds) in [(&short, (5.0, 6.0)), (&late, (64.0, 71.0))] {
        let seen = periods(&lines, case.lab.netns(), case.name);
        assert_eq!(seen.len(), 6, "{}", case.name);
        assert_samples(case, &seen);
        for period in seen.values().flatten() {
            let seconds = period.seconds().unwrap_or_default();
            assert!((bounds.0..bounds.1).contains(&seconds), "{}: {period:?}", case.name);
        }
        assert_eq!(entered(&report, case), (6, 0, 0), "{}", case.name);
    }
    Ok(())
}

/// Minisockets that an administrator kills or that end with their namespace: no timer expires, and the report still has
/// their end.
#[test]
fn early_ends() -> Result {
    require!();
    let lab = Lab::new()?;
    let stream = Tracer::stream(lab.dir(), "transitions")?;
    let report = Tracer::report(lab.dir())?;
    let doomed = TestNamespace::new()?;
    let netns = doomed.inode();
    let mut server = lab.serve_in(&doomed, "server", "127.0.0.1:9001", ServerBehaviour::WaitForPeer)?;
    let steps =
        vec![ScriptStep::connect([addr("127.0.0.1:9001")], 10, ConnectMethod::Blocking, AfterConnect::HalfClose)];
    let log = lab.start_in(&doomed, "client", steps)?.finish()?;
    let minisockets = |count: usize, what: &str| {
        until(what, LIMIT, || Ok((SocketListing::take(&doomed)?.minisockets().len() == count).then_some(())))
    };
    minisockets(10, "a minisocket of each connection")?;
    let first = SocketListing::take(&doomed)?.rows.into_iter().find(|row| row.minisocket).expect("a minisocket");
    output(doomed.command("ss").args(["-K", "-tan", "sport", "=", &format!(":{}", first.local.port())]))?;
    minisockets(9, "the scenario itself: ss -K kills one")?;
    server.running.signal(Signal::SIGKILL)?;
    server.running.wait(LIMIT)?;
    // TIME_WAIT does not keep a namespace alive: the kernel removes its minisockets in the background.
    drop(doomed);
    let ended = |lines: &[StreamLine]| {
        let own = lines.iter().filter(|line| line.kind == "transition" && line.netns == Some(netns));
        own.filter(|line| line.old.as_deref() == Some("TIME_WAIT")).count()
    };
    until("ten ends", LIMIT, || Ok((ended(&stream.lines()?) >= 10).then_some(())))?;
    let lines = stream.finish_stream()?;
    let report = report.finish_report()?;
    assert_counts(&report, netns, &log);
    let seen = periods(&lines, netns, "early ends");
    assert_eq!(seen.values().flatten().filter(|period| period.end.is_some()).count(), 10, "{seen:?}");
    let now: u64 = report.attributions(netns).map(|entry| entry.time_wait.now).sum();
    assert_eq!(now, 0);
    Ok(())
}
