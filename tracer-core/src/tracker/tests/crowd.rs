//! Tables filled far beyond their bounds: nothing is lost from the sums, and what fails now is seen.

use super::*;
use crate::tracker::snapshot::{FailureCounts, Snapshot};
use crate::tracker::tables::attributions::MAX_ATTRIBUTIONS;
use crate::tracker::tables::destinations::{MAX_DESTINATIONS, MAX_RESTS};
use crate::tracker::tables::namespaces::MAX_NAMESPACES;
use crate::tracker::tables::processes::MAX_WORKLOADS;

/// An address of its own for every number.
fn wide(number: u32) -> Addr {
    let [a, b, c, d] = number.to_be_bytes();
    Addr::from(std::net::IpAddr::from([10 + a, b, c, d]))
}

/// The same in IPv6.
fn wide6(number: u32) -> Addr {
    Addr::from(std::net::IpAddr::from((0x2001_0db8_u128 << 96 | u128::from(number)).to_be_bytes()))
}

fn towards(number: u32) -> Endpoint {
    Endpoint { addr: wide(number), port: 443 }
}

impl Lab {
    /// One more process with this name.
    fn process(&mut self, pid: u32, uid: u32, comm: &str) {
        let facts = ProcessFacts {
            ktime: Ktime(self.now),
            pid,
            uid,
            start: u64::from(pid),
            comm: comm.into(),
            ..ProcessFacts::default()
        };
        self.ingest(&Event::Process(Box::new(facts)));
    }

    /// connect() of a process that finds a port.
    fn connects(&mut self, cookie: u64, pid: u32, remote: Endpoint, port: u16) -> Sock {
        let mut sock = Sock { pid, remote, ..Self::socket(cookie) };
        self.to(&mut sock, SynSent);
        sock.port = port;
        sock.last_port = port;
        self.to(&mut sock, Established);
        sock
    }

    /// connect() of a process that finds none.
    fn lacks(&mut self, cookie: u64, pid: u32, remote: Endpoint) {
        let mut sock = Sock { pid, remote, ..Self::socket(cookie) };
        self.to(&mut sock, SynSent);
        self.to(&mut sock, Close);
    }

    /// connect() of a process that finds none in a range of its own.
    fn lacks_in_own_range(&mut self, cookie: u64, pid: u32, remote: Endpoint) {
        let mut sock = Sock { pid, remote, ..Self::socket(cookie) };
        self.to(&mut sock, SynSent);
        self.now += 1000;
        let transition = Transition { own_range: Some((32_768, 32_768)), ..self.raw(&sock, Close, 0) };
        self.ingest(&Event::Transition(transition));
    }

    fn range(&mut self, low: u16, high: u16) {
        let facts =
            NetnsFacts { netns: NETNS, port_range: Some((low, high)), tw_reuse: Some(0), ..NetnsFacts::default() };
        self.ingest(&Event::Netns(Box::new(facts)));
    }
}

/// A sum over the destinations and their rests.
fn of_destinations(
    snapshot: &Snapshot,
    row: fn(&snapshot::Destination) -> u64,
    rest: fn(&snapshot::OtherDestinations) -> u64,
) -> u64 {
    snapshot.destinations.iter().map(row).sum::<u64>() + snapshot.others.destinations.iter().map(rest).sum::<u64>()
}

fn total_failed<'a>(rows: impl Iterator<Item = &'a FailureCounts>) -> FailureCounts {
    rows.fold(FailureCounts::default(), |mut sum, row| {
        sum.merge(row);
        sum
    })
}

/// The sums over the rows of each list are those of every other list, and of the tables below. Only for events of flows that this host
/// opens: what has no destination is in no list of destinations.
pub fn sums_agree(tracker: &Tracker) {
    let snapshot = tracker.snapshot();
    let (workloads, others) = (&snapshot.workloads, &snapshot.others);
    let connects: u64 = workloads.iter().map(|row| row.connects).sum();
    assert_eq!(of_destinations(&snapshot, |row| row.connects, |rest| rest.connects), connects, "connects");
    let rows: u64 = snapshot.attributions.iter().map(|row| row.connects).sum();
    assert_eq!(rows + others.attributions.iter().map(|row| row.connects).sum::<u64>(), connects, "of attributions");
    let established: u64 = workloads.iter().map(|row| row.established).sum();
    assert_eq!(of_destinations(&snapshot, |row| row.established, |rest| rest.established), established, "established");
    let failed = total_failed(workloads.iter().map(|row| &row.failed));
    let rests = others.destinations.iter().map(|rest| &rest.failed);
    assert_eq!(
        total_failed(snapshot.destinations.iter().map(|row| &row.failed).chain(rests)),
        failed,
        "failures by reason"
    );
    let rests = others.attributions.iter().map(|rest| &rest.failed);
    assert_eq!(
        total_failed(snapshot.attributions.iter().map(|row| &row.failed).chain(rests)),
        failed,
        "of attributions"
    );
    let held: u64 = workloads.iter().map(|row| row.ports_held).sum();
    let in_use = of_destinations(
        &snapshot,
        |row| u64::from(row.ports.in_use + row.ports.outside_range),
        |rest| rest.in_use + rest.outside_range,
    );
    assert_eq!(in_use, held, "ports in use");
    let rows: u64 = snapshot.attributions.iter().map(|row| u64::from(row.ports_held)).sum();
    assert_eq!(rows + others.attributions.iter().map(|row| row.ports_held).sum::<u64>(), held, "ports of attributions");
    let time_wait: u64 = workloads.iter().map(|row| row.time_wait.now).sum();
    assert_eq!(time_wait, snapshot.time_wait, "TIME_WAIT of workloads");
    let ledger: u64 = snapshot.namespaces.iter().map(|row| row.time_wait_ledger).sum();
    // The kernel's count has those in sub-state FIN_WAIT2 too.
    let all = time_wait + snapshot.orphans;
    assert_eq!(ledger + others.namespaces.time_wait_ledger, all, "minisockets of namespaces");
    let rows: u64 = snapshot.attributions.iter().map(|row| row.time_wait.now).sum();
    assert_eq!(
        rows + others.attributions.iter().map(|row| row.time_wait.now).sum::<u64>(),
        time_wait,
        "of attributions"
    );
    assert!(snapshot.destinations.len() <= MAX_DESTINATIONS && others.destinations.len() <= MAX_RESTS + 1);
    assert!(snapshot.attributions.len() + others.attributions.len() <= MAX_ATTRIBUTIONS);
    assert!(tracker.tables.accounting.attributions().iter().count() <= MAX_ATTRIBUTIONS);
    assert!(workloads.len() <= MAX_WORKLOADS + 2 && snapshot.namespaces.len() <= MAX_NAMESPACES);
    assert!(tracker.tables.accounting.processes().len() <= 32_768 + 2);
    assert_eq!(snapshot.events.evicted, 0, "nothing is missing from the sums");
}

fn find(snapshot: &Snapshot, remote: Endpoint) -> Option<&snapshot::Destination> {
    snapshot.destinations.iter().find(|row| (row.remote_addr, row.remote_port) == (remote.addr, remote.port))
}

/// Ten times as many destinations as rows, each with a minisocket: 12,345 of them had vanished with all that was counted.
#[test]
fn ten_times_the_destinations_are_ten_times_the_connects() {
    let mut lab = Lab::new();
    lab.range(1_024, 65_535);
    let count = 10 * u32::try_from(MAX_DESTINATIONS).expect("fits");
    for number in 0..count {
        let mut sock = lab.connects(u64::from(number) + 1, 100, towards(number), 40_000);
        lab.close(&mut sock);
    }
    sums_agree(&lab.tracker);
    let snapshot = lab.tracker.snapshot();
    let client = lab.client();
    assert_eq!((client.connects, client.time_wait.now), (u64::from(count), u64::from(count)));
    let [rest] = &snapshot.others.destinations[..] else { panic!("{:?}", snapshot.others.destinations) };
    let folded = u64::from(count) - snapshot.destinations.len() as u64;
    assert!(rest.destinations.abs_diff(folded) * 10 <= folded, "{} of {folded}", rest.destinations);
    let [row] = &snapshot.others.attributions[..] else { panic!("{:?}", snapshot.others.attributions) };
    assert_eq!((&*row.workload, row.connects), ("client", rest.connects));
}

/// The one that runs out comes after ten thousand others that all hold a connection.
#[test]
fn an_exhaustion_behind_ten_thousand_busy_upstreams_is_seen_with_all_of_its_ports() {
    for v6 in [false, true] {
        let mut lab = Lab::new();
        lab.range(40_000, 40_063);
        let of = |number: u32| Endpoint { addr: if v6 { wide6(number) } else { wide(number) }, port: 443 };
        for number in 0..10_000 {
            lab.connects(u64::from(number) + 1, 100, of(number), 40_000);
        }
        let last = of(1_000_000);
        for port in 0..64 {
            lab.connects(20_000 + u64::from(port), 100, last, 40_000 + port);
        }
        for failed in 0..6 {
            lab.lacks(30_000 + failed, 100, last);
        }
        lab.pass(SECOND);
        lab.tracker.finish();
        sums_agree(&lab.tracker);
        let snapshot = lab.tracker.snapshot();
        let row = find(&snapshot, last).expect("a place for what fails now");
        assert_eq!((row.failed.of(Failure::PortsExhausted), row.ports.in_use, row.ports.capacity), (6, 64, Some(64)));
        assert_eq!((row.ports.at_least, row.ports.contradictions), (false, 0));
        assert_eq!(row.holders.first().map(|holder| holder.ports), Some(64));
        let summary = &snapshot.findings.first().expect("a finding").summary;
        assert!(summary.contains(&last.to_string()), "{summary}");
    }
}

/// An unprivileged user failed once towards 4,500 destinations, and a later real exhaustion was in no output.
#[test]
fn a_user_who_fails_towards_many_destinations_blinds_nobody() {
    for own_range in [true, false] {
        let mut lab = Lab::new();
        lab.range(40_000, 40_007);
        lab.process(300, 65_534, "flood");
        for number in 0..4_500 {
            let cookie = u64::from(number) + 1;
            if own_range {
                lab.lacks_in_own_range(cookie, 300, towards(number));
            } else {
                lab.lacks(cookie, 300, towards(number));
            }
        }
        let real = Endpoint { addr: addr(2), port: 8_082 };
        for port in 0..8 {
            lab.connects(10_000 + u64::from(port), 100, real, 40_000 + port);
        }
        for failed in 0..300 {
            lab.lacks(20_000 + failed, 100, real);
        }
        lab.pass(SECOND);
        lab.tracker.finish();
        sums_agree(&lab.tracker);
        let snapshot = lab.tracker.snapshot();
        let row = find(&snapshot, real).expect("a place for what fails now");
        assert_eq!((row.failed.of(Failure::PortsExhausted), row.ports.in_use), (300, 8));
        assert!(row.victims.iter().any(|victim| &*victim.workload == "client" && victim.uids == [0]), "{row:?}");
        assert!(snapshot.findings.iter().any(|found| found.summary.contains(":8082")), "{:?}", snapshot.findings);
    }
}

/// What failed long ago makes room for what is used now.
#[test]
fn stale_failures_pin_nothing() {
    let mut lab = Lab::new();
    for number in 0..u32::try_from(MAX_DESTINATIONS).expect("fits") {
        lab.lacks(u64::from(number) + 1, 100, towards(number));
    }
    lab.pass(600 * SECOND);
    for number in 0..100 {
        lab.connects(100_000 + u64::from(number), 100, towards(1_000_000 + number), 32_768);
    }
    sums_agree(&lab.tracker);
    let snapshot = lab.tracker.snapshot();
    assert!((0..100).all(|number| find(&snapshot, towards(1_000_000 + number)).is_some()));
}

/// 40,000 programs with names of their own made 40,002 attributions where 4,096 were promised.
#[test]
fn ten_times_the_names_are_counted_in_bounded_rows() {
    let mut lab = Lab::new();
    lab.range(1_024, 65_535);
    for number in 0..40_000_u32 {
        let pid = 1_000 + number;
        lab.process(pid, 1_000, &format!("w{number:08x}"));
        let mut sock =
            lab.connects(u64::from(number) + 1, pid, towards(0), 1_024 + u16::try_from(number).expect("fits"));
        if number % 2 == 0 {
            lab.close(&mut sock);
        } else {
            lab.fails(&mut sock, Close, 104);
        }
    }
    sums_agree(&lab.tracker);
    let snapshot = lab.tracker.snapshot();
    assert_eq!(snapshot.workloads.iter().map(|row| row.connects).sum::<u64>(), 40_000);
    let rest = snapshot.workloads.iter().find_map(|row| row.stands_for).expect("a rest of workloads");
    assert!(rest.abs_diff(40_000 - MAX_WORKLOADS as u64) < 4_000, "{rest}");
    let row = find(&snapshot, towards(0)).expect("the only destination");
    assert_eq!((row.connects, row.ports.in_use), (40_000, 20_000));
}

/// A program whose row was folded fails: it is named.
#[test]
fn a_workload_without_a_row_that_fails_gets_one() {
    let mut lab = Lab::new();
    for number in 0..10_000_u32 {
        let pid = 1_000 + number;
        lab.process(pid, number, &format!("w{number}"));
        let mut sock = lab.connects(u64::from(number) + 1, pid, towards(number % 50), 32_768);
        lab.fails(&mut sock, Close, 104);
    }
    let named =
        |lab: &Lab, number: u32| lab.tracker.snapshot().workloads.iter().any(|row| *row.name == *format!("w{number}"));
    let folded = (0..10_000).find(|&number| !named(&lab, number)).expect("far more than rows");
    lab.lacks(50_000, 1_000 + folded, towards(7));
    lab.tracker.finish();
    assert!(named(&lab, folded));
    sums_agree(&lab.tracker);
}

/// A CI host makes thousands of namespaces an hour, one after the other.
#[test]
fn namespaces_that_come_and_go_are_counted_in_bounded_rows() {
    let mut lab = Lab::new();
    for number in 0..10 * u32::try_from(MAX_NAMESPACES).expect("fits") {
        let netns = Netns::of_inode(1_000 + number);
        let facts = NetnsFacts { netns, port_range: Some((40_000, 40_063)), ..NetnsFacts::default() };
        lab.ingest(&Event::Netns(Box::new(facts)));
        let mut sock = Lab::socket(u64::from(number) + 1);
        for (new, port) in [(SynSent, 0), (Established, 40_000), (Close, 0)] {
            lab.now += 1_000;
            sock.port = port;
            let mut transition = lab.raw(&sock, new, if new == Close { 104 } else { 0 });
            transition.key.netns = netns;
            lab.ingest(&Event::Transition(transition));
            sock.state = new;
            sock.last_port = 40_000;
        }
    }
    sums_agree(&lab.tracker);
    let snapshot = lab.tracker.snapshot();
    assert!(snapshot.others.namespaces.namespaces > 30_000, "{:?}", snapshot.others.namespaces);
    assert_eq!(lab.client().connects, 10 * MAX_NAMESPACES as u64);
    assert!(lab.client().netns.len() <= 64);
}

/// Threads that fail do not fill a queue, whoever waits for their return.
#[test]
fn what_waits_is_bounded() {
    let mut lab = Lab::new();
    for number in 0..200_000_u32 {
        let mut sock = Sock { pid: 1_000 + number % 100_000, ..Lab::socket(u64::from(number) + 1) };
        lab.now -= 1_900;
        lab.to(&mut sock, SynSent);
        lab.to(&mut sock, Close);
    }
    let (waiting, searching) = (lab.tracker.tables.pending.waiting(), lab.tracker.tables.searching());
    assert!(waiting <= 16_384 && searching <= 262_144, "{waiting}, {searching}");
    lab.tracker.finish();
    sums_agree(&lab.tracker);
    let snapshot = lab.tracker.snapshot();
    let sum = |of: fn(&snapshot::Workload) -> u64| snapshot.workloads.iter().map(of).sum::<u64>();
    assert_eq!((sum(|row| row.connects), sum(|row| row.failed.total())), (200_000, 200_000));
}
