//! Begin, restart, re-use and end of minisockets.

use super::*;

#[test]
fn an_active_close_keeps_its_port_until_the_minisocket_ends_and_never_counts_it_twice() {
    let mut lab = Lab::new();
    let mut sock = lab.connect(1, 32_768);
    assert_eq!(lab.only_dest().ports.by_state[&Established], 1);
    lab.close(&mut sock);
    let dest = lab.only_dest();
    assert_eq!((dest.ports.in_use, dest.ports.peak, dest.ports.by_state[&TcpState::TimeWait]), (1, 1, 1));
    let client = lab.client();
    assert_eq!((client.connects, client.established, client.active_closes, client.closed), (1, 1, 1, 1));
    assert_eq!((client.time_wait.entered, client.time_wait.now), (1, 1));
    assert_eq!(lab.ends(), [Ended::ActiveClose]);
    lab.pass(60 * SECOND);
    lab.timer(&sock, false, true);
    let dest = lab.only_dest();
    assert_eq!((dest.ports.in_use, dest.ports.by_state.len()), (0, 0));
    assert_eq!((lab.client().time_wait.now, lab.client().time_wait.reused), (0, 0));
    assert_eq!(lab.tracker.snapshot().events.repaired, 0);
}

#[test]
fn without_a_minisocket_announced_fin_wait2_to_close_means_none() {
    // tcp_max_tw_buckets reached: the transitions look the same.
    let mut lab = Lab::new();
    let mut sock = lab.connect(1, 32_768);
    lab.to(&mut sock, FinWait1);
    lab.to(&mut sock, FinWait2);
    lab.to(&mut sock, Close);
    assert_eq!((lab.only_dest().ports.in_use, lab.client().time_wait.entered), (0, 0));
}

#[test]
fn without_timers_time_wait_is_inferred_for_sixty_one_seconds_and_marked() {
    let mut lab = Lab::with(|config| config.time_wait_observed = false);
    let mut sock = lab.connect(1, 32_768);
    lab.to(&mut sock, FinWait1);
    lab.to(&mut sock, FinWait2);
    lab.to(&mut sock, Close);
    lab.pass(60 * SECOND);
    let snapshot = lab.tracker.snapshot();
    assert_eq!((snapshot.time_wait, snapshot.namespaces[0].time_wait_inferred), (1, 1));
    lab.pass(2 * SECOND);
    assert_eq!((lab.tracker.snapshot().time_wait, lab.only_dest().ports.in_use), (0, 0));
    // A reset in FIN_WAIT2 leaves no minisocket.
    let mut sock = lab.connect(2, 32_770);
    lab.to(&mut sock, FinWait1);
    lab.to(&mut sock, FinWait2);
    lab.fails(&mut sock, Close, 104);
    assert_eq!(lab.tracker.snapshot().time_wait, 0);
}

#[test]
fn a_simultaneous_close_leaves_time_wait_too() {
    let mut lab = Lab::new();
    let mut sock = lab.connect(1, 32_768);
    lab.to(&mut sock, FinWait1);
    lab.to(&mut sock, Closing);
    lab.timer(&sock, true, false);
    lab.to(&mut sock, Close);
    assert_eq!((lab.ends(), lab.client().time_wait.now), (vec![Ended::SimultaneousClose], 1));
}

#[test]
fn a_restarted_timer_is_one_minisocket() {
    let mut lab = Lab::new();
    let mut sock = lab.connect(1, 32_768);
    lab.close(&mut sock);
    lab.pass(5 * SECOND);
    lab.timer(&sock, false, false);
    lab.timer(&sock, true, false);
    let client = lab.client();
    assert_eq!((client.time_wait.entered, client.time_wait.now, client.time_wait.peak), (1, 1, 1));
    assert_eq!(lab.only_dest().ports.in_use, 1);
    lab.pass(60 * SECOND);
    lab.timer(&sock, false, true);
    let steps: Vec<_> = lab
        .notices
        .iter()
        .filter_map(|notice| match notice {
            Notice::StateChange(change) => Some((change.old, change.new)),
            _ => None,
        })
        .filter(|&(old, new)| old == TcpState::TimeWait || new == TcpState::TimeWait)
        .collect();
    assert_eq!(steps, [(FinWait2, TcpState::TimeWait), (TcpState::TimeWait, Close)]);
}

#[test]
fn a_new_connection_on_the_tuple_of_a_killed_minisocket_is_a_reuse() {
    let mut lab = Lab::new();
    let mut sock = lab.connect(1, 32_768);
    lab.close(&mut sock);
    lab.pass(2 * SECOND);
    let mut again = Lab::socket(2);
    lab.to(&mut again, SynSent);
    lab.timer(&sock, false, false);
    again.port = 32_768;
    again.last_port = 32_768;
    lab.to(&mut again, Established);
    assert_eq!((lab.client().time_wait.reused, lab.client().time_wait.now), (1, 0));
    // Killed without an heir (RST, ss -K): no reuse.
    lab.close(&mut again);
    lab.timer(&again, false, false);
    lab.pass(60 * MS);
    assert_eq!(lab.client().time_wait.now, 0);
    lab.connect(3, 32_770);
    assert_eq!(lab.client().time_wait.reused, 1);
}

#[test]
fn a_minisocket_whose_end_was_lost_does_not_stay_for_ever() {
    let mut lab = Lab::new();
    let mut sock = lab.connect(1, 32_768);
    lab.close(&mut sock);
    lab.pass(120 * SECOND);
    assert_eq!(lab.tracker.snapshot().time_wait, 1);
    lab.pass(15 * SECOND);
    let snapshot = lab.tracker.snapshot();
    assert_eq!((snapshot.time_wait, snapshot.events.repaired), (0, 1));
}

/// A minisocket of which only lists tell whether the peer has closed.
#[test]
fn a_minisocket_is_an_orphan_while_lists_show_it_in_fin_wait2_and_counts_once() {
    let mut lab = Lab::new();
    let mut sock = lab.connect(1, 32_770);
    lab.to(&mut sock, FinWait1);
    lab.to(&mut sock, FinWait2);
    let counts = |lab: &Lab| {
        let (dest, client, snapshot) = (lab.only_dest(), lab.client(), lab.tracker.snapshot());
        let ports = &dest.ports;
        let of = |state| ports.by_state.get(&state).copied().unwrap_or_default();
        assert_eq!(ports.in_use, ports.by_state.values().sum::<u32>());
        assert_eq!(client.by_state, ports.by_state);
        assert_eq!((client.orphans, client.half_closed), (ports.orphans, ports.half_closed));
        assert_eq!(
            (client.time_wait.now, snapshot.time_wait),
            (of(TcpState::TimeWait).into(), of(TcpState::TimeWait).into())
        );
        assert_eq!(snapshot.attributions[0].by_state, ports.by_state);
        (of(FinWait2), of(TcpState::TimeWait), ports.orphans, ports.half_closed)
    };
    assert_eq!(counts(&lab), (1, 0, 0, 1), "a process has the descriptor");
    let minisocket = lab.minisocket(&sock);
    let event = |lab: &Lab, fin_wait2| TimeWaitEvent { ktime: Ktime(lab.now), fin_wait2, ..minisocket };
    lab.ingest(&Event::TimeWaitStart(event(&lab, true)));
    lab.to(&mut sock, Close);
    assert_eq!(counts(&lab), (0, 1, 0, 0), "as a rule the peer's FIN comes at once");
    lab.ingest(&Event::TimeWaitListed(event(&lab, true)));
    assert_eq!(counts(&lab), (1, 0, 1, 0));
    lab.ingest(&Event::TimeWaitListed(event(&lab, false)));
    assert_eq!(counts(&lab), (0, 1, 0, 0));
    lab.ingest(&Event::TimeWaitListed(event(&lab, true)));
    assert_eq!(counts(&lab), (0, 1, 0, 0), "the list was older: nothing leads back to FIN_WAIT2");
    lab.ingest(&Event::TimeWaitEnd(TimeWaitEvent { expired: true, ..event(&lab, false) }));
    assert_eq!(counts(&lab), (0, 0, 0, 0));
    assert_eq!(lab.client().time_wait.entered, 1);
}

#[test]
fn an_orphan_whose_timer_starts_again_waits_for_its_time_from_then_on() {
    let mut lab = Lab::new();
    let mut sock = lab.connect(1, 32_770);
    lab.to(&mut sock, FinWait1);
    lab.to(&mut sock, FinWait2);
    let minisocket = lab.minisocket(&sock);
    let event = |lab: &Lab, fin_wait2| TimeWaitEvent { ktime: Ktime(lab.now), fin_wait2, ..minisocket };
    lab.ingest(&Event::TimeWaitStart(event(&lab, true)));
    lab.to(&mut sock, Close);
    lab.ingest(&Event::TimeWaitListed(event(&lab, true)));
    lab.now += 10 * SECOND;
    lab.ingest(&Event::TimeWaitEnd(event(&lab, false)));
    lab.ingest(&Event::TimeWaitStart(event(&lab, false)));
    let ports = lab.only_dest().ports;
    assert_eq!((ports.orphans, ports.by_state), (0, [(TcpState::TimeWait, 1)].into()));
}
