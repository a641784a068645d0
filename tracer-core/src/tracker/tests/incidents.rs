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
