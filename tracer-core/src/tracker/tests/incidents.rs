//! The life of findings, from events: the same whether the clock moves often (live) or rarely (a recording, in which an idle clock is
//! thinned out).

use super::*;
use crate::tracker::snapshot::{Finding, FindingId, FindingState, Peak};

/// Eight connections that stay open take all ports; then one connect a second fails, from 3 s to 7 s.
fn exhausted(lab: &mut Lab, clock: u64) {
    for cookie in 1..=8 {
        lab.connect(cookie, 32_767 + u16::try_from(cookie).expect("small"));
    }
    for second in 3..=7 {
        until(lab, second * SECOND + 500 * MS, clock);
        let sock = lab.exhausted(100 + second);
        lab.returned(&sock, crate::errno::EADDRNOTAVAIL);
    }
}

/// Nothing happens until `to`, and the clock moves in steps.
fn until(lab: &mut Lab, to: u64, clock: u64) {
    while lab.now < to {
        lab.pass(clock.min(to - lab.now));
    }
}

fn of(lab: &Lab, id: FindingId) -> Vec<Finding> {
    lab.tracker.snapshot().findings.into_iter().filter(|finding| finding.id == id).collect()
}

#[test]
fn an_exhaustion_begins_peaks_and_ends_whatever_the_clock_does() {
    let stories: Vec<_> = [20 * MS, 100 * MS, 730 * MS]
        .map(|clock| {
            let mut lab = Lab::new();
            exhausted(&mut lab, clock);
            until(&mut lab, 8 * SECOND + 500 * MS, clock);
            let [now] = &of(&lab, FindingId::PortExhaustion)[..] else { panic!("one: {:?}", lab.tracker.snapshot()) };
            assert_eq!((now.life.state, now.life.ended), (FindingState::Active, None));
            until(&mut lab, 40 * SECOND, clock);
            of(&lab, FindingId::PortExhaustion)
        })
        .into();
    let [past] = &stories[0][..] else { panic!("one: {stories:?}") };
    assert_eq!(past.life.state, FindingState::Past);
    let seconds = |at: Option<Ktime>| at.map(|at| at.0 / (500 * MS));
    assert_eq!((seconds(past.life.began), seconds(past.life.ended)), (Some(7), Some(15)), "{past:?}");
    assert_eq!(past.life.peak, Some(Peak { value: 5.0, unit: "failures/min", at: Ktime(8 * SECOND) }));
    assert_eq!(past.life.total, Some(5));
    for story in &stories {
        assert_eq!(story, &stories[0], "live and replayed");
    }
}

#[test]
fn a_storm_after_quiet_hours_is_found_and_is_over_soon() {
    let mut lab = Lab::new();
    until(&mut lab, 36_000 * SECOND, 10 * SECOND);
    for cookie in 0..200 {
        let mut sock = lab.connect(cookie, 32_768 + u16::try_from(cookie % 8).expect("small"));
        lab.close(&mut sock);
        lab.timer(&sock, false, true);
        lab.pass(40 * MS);
    }
    lab.pass(SECOND);
    let churn = of(&lab, FindingId::TimeWaitChurn);
    assert!(churn.iter().any(Finding::is_active), "{churn:?}");
    let now = lab.now;
    until(&mut lab, now + 90 * SECOND, SECOND);
    let churn = of(&lab, FindingId::TimeWaitChurn);
    assert_eq!(churn.iter().map(|finding| finding.life.state).collect::<Vec<_>>(), [FindingState::Past], "{churn:?}");
}

/// A connect() that began before the trace has no source address when it returns: it opened a second destination "from 0.0.0.0", with a
/// second CRITICAL.
#[test]
fn failures_without_a_source_address_belong_to_the_destination_that_is_known() {
    let mut lab = Lab::new();
    for cookie in 1..=8 {
        lab.connect(cookie, 32_767 + u16::try_from(cookie).expect("small"));
    }
    for cookie in 101..=103 {
        let sock = Lab::socket(cookie);
        lab.returned(&sock, crate::errno::EADDRNOTAVAIL);
        lab.pass(SECOND);
    }
    let destination = lab.only_dest();
    assert_eq!((destination.local_addr, destination.failed.without_port()), (addr(1), 3));
    assert_eq!(of(&lab, FindingId::PortExhaustion).len(), 1);
}

/// 500 sockets that were in CLOSE_WAIT for 16 s inside a trace of 28 s were no finding: 60 s were asked for.
#[test]
fn a_leak_of_sixteen_seconds_in_a_short_trace_is_found_and_names_the_process() {
    let mut lab = Lab::new();
    let mut sockets: Vec<Sock> = Vec::new();
    for cookie in 0..500_u16 {
        let mut sock = lab.connect(u64::from(cookie), 20_000 + cookie);
        lab.to(&mut sock, CloseWait);
        sockets.push(sock);
    }
    until(&mut lab, 5 * SECOND, 100 * MS);
    assert!(of(&lab, FindingId::CloseWaitLeak).is_empty(), "every program may be late");
    until(&mut lab, 17 * SECOND, 100 * MS);
    let [now] = &of(&lab, FindingId::CloseWaitLeak)[..] else { panic!("one: {:?}", lab.tracker.snapshot().findings) };
    assert!(now.is_active() && now.severity == snapshot::Severity::Warning, "{now:?}");
    for sock in &mut sockets {
        lab.to(sock, LastAck);
        lab.to(sock, Close);
    }
    until(&mut lab, 29 * SECOND, 100 * MS);
    let [past] = &of(&lab, FindingId::CloseWaitLeak)[..] else { panic!("one: {:?}", lab.tracker.snapshot().findings) };
    assert_eq!(past.life.state, FindingState::Past);
    assert!(past.summary.starts_with("client did not close 500 connections that its peers closed"), "{}", past.summary);
    assert!(past.summary.contains("(pid 100, 500)"), "{}", past.summary);
}

/// "OK Nothing wrong was seen", while nobody answered and nothing had failed yet.
#[test]
fn a_peer_that_answers_no_connect_is_found_before_the_first_timeout() {
    let mut lab = Lab::new();
    for cookie in 1..=20_u16 {
        let mut sock = Lab::socket(u64::from(cookie));
        lab.to(&mut sock, SynSent);
    }
    until(&mut lab, 4 * SECOND, 100 * MS);
    let [now] = &of(&lab, FindingId::PeerDoesNotAnswer)[..] else {
        panic!("one: {:?}", lab.tracker.snapshot().findings)
    };
    assert!(now.summary.contains("20 of client wait in SYN_SENT"), "{}", now.summary);
}

/// What is told is the same while it happens and after it, whoever holds the ports by then.
#[test]
fn a_past_exhaustion_is_told_by_who_held_the_ports_then() {
    let mut lab = Lab::new();
    exhausted(&mut lab, 100 * MS);
    let mut holders: Vec<Sock> = (1..=8_u16)
        .map(|cookie| Sock { state: Established, port: 32_767 + cookie, ..Lab::socket(u64::from(cookie)) })
        .collect();
    for sock in &mut holders {
        sock.last_port = sock.port;
        lab.to(sock, FinWait1);
        lab.to(sock, Close);
    }
    until(&mut lab, 30 * SECOND, 100 * MS);
    let [past] = &of(&lab, FindingId::PortExhaustion)[..] else { panic!("one: {:?}", lab.tracker.snapshot().findings) };
    let told = "client exhausted the ports towards 10.0.0.2:443: 8 of 8 ports were open connections.";
    assert_eq!((past.life.state, past.summary.as_str()), (FindingState::Past, told));
    assert!(past.advice[0].action.starts_with("Bound the number of connections that client keeps"), "{past:?}");
}

/// What the kernel had counted before the trace is not of the trace.
#[test]
fn counters_of_the_kernel_count_from_the_first_time_that_they_are_read() {
    let mut lab = Lab::new();
    let read = |lab: &mut Lab, overflows| {
        let counters = crate::event::KernelCounters { listen_overflows: Some(overflows), ..Default::default() };
        lab.ingest(&Event::Netns(Box::new(NetnsFacts { netns: NETNS, counters, ..NetnsFacts::default() })));
    };
    read(&mut lab, 1_000_000);
    until(&mut lab, 12 * SECOND, 100 * MS);
    assert!(of(&lab, FindingId::AcceptQueueFull).is_empty(), "{:?}", lab.tracker.snapshot().findings);
    read(&mut lab, 1_000_061);
    until(&mut lab, 14 * SECOND, 100 * MS);
    let [now] = &of(&lab, FindingId::AcceptQueueFull)[..] else { panic!("one: {:?}", lab.tracker.snapshot().findings) };
    assert_eq!((now.life.state, now.life.total), (FindingState::Active, Some(61)));
    until(&mut lab, 100 * SECOND, 100 * MS);
    let [past] = &of(&lab, FindingId::AcceptQueueFull)[..] else {
        panic!("one: {:?}", lab.tracker.snapshot().findings)
    };
    assert_eq!(past.life.state, FindingState::Past);
}
