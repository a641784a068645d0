//! Repetitions, losses and lists of sockets: what was missed is set right and said to be.

use super::*;

#[test]
fn repeated_records_of_the_rescue_chain_are_recognised_everywhere() {
    let mut lab = Lab::new();
    let mut sock = Lab::socket(1);
    for new in [SynSent, Established, FinWait1, FinWait2, Close] {
        if new == Established {
            sock.port = 32_768;
            sock.last_port = 32_768;
        }
        if new == Close {
            lab.timer(&sock, true, false);
            sock.port = 0;
        }
        lab.now += 1000;
        let first = lab.raw(&sock, new, 0);
        lab.ingest(&Event::Transition(first));
        lab.ingest(&Event::Transition(Transition { rescued: true, ..first }));
        sock.state = new;
    }
    let client = lab.client();
    assert_eq!(
        (client.connects, client.established, client.active_closes, client.closed, client.time_wait.entered),
        (1, 1, 1, 1, 1)
    );
    assert_eq!(lab.tracker.snapshot().events.duplicates, 5);
}

#[test]
fn lost_runs_are_what_no_link_of_the_chain_recorded() {
    let mut lab = Lab::new();
    let sock = Lab::socket(1);
    lab.now += 1000;
    let opened = lab.raw(&sock, SynSent, 0);
    lab.ingest(&Event::Transition(opened));
    lab.ingest(&Event::Transition(Transition { rescued: true, ..opened }));
    // Ten runs missed, eight rescued of which one repeats: three are gone.
    lab.ingest(&Event::Loss(LossCounts {
        chain_missed: 10,
        chain_rescued: 8,
        ring_transitions: 4,
        ..LossCounts::default()
    }));
    assert_eq!(lab.tracker.snapshot().events.lost.missed_runs, 0, "a record may still make up for a run");
    lab.tracker.finish();
    let lost = lab.tracker.snapshot().events.lost;
    assert_eq!((lost.missed_runs, lost.ring_full), (3, 4));
}

#[test]
fn a_flow_heals_over_lost_transitions_and_says_so() {
    let mut lab = Lab::new();
    // ESTABLISHED was lost.
    let mut sock = Lab::socket(1);
    lab.to(&mut sock, SynSent);
    sock.state = Established;
    sock.port = 32_768;
    sock.last_port = 32_768;
    lab.close(&mut sock);
    // CLOSE was lost; the socket connects again.
    let mut sock = lab.connect(2, 32_770);
    sock.state = Close;
    sock.port = 0;
    lab.to(&mut sock, SynSent);
    let client = lab.client();
    assert_eq!((client.connects, client.established, client.closed), (3, 2, 2));
    assert_eq!(lab.tracker.snapshot().events.repaired, 2);
    assert_eq!(lab.ends(), [Ended::ActiveClose, Ended::Unknown]);
    assert_eq!(client.lifetime_ms.count, 1, "how long a repaired flow lived is not known");
}

#[test]
fn a_close_that_no_program_saw_is_told_by_the_minisocket_it_left() {
    let mut lab = Lab::new();
    let mut closing = lab.connect(1, 32_768);
    lab.to(&mut closing, FinWait1);
    lab.connect(2, 32_770);
    lab.list(&[Lab::row(1, 32_768, TcpState::TimeWait), Lab::row(2, 32_770, TcpState::TimeWait)], false);
    assert_eq!(lab.ends(), [Ended::ActiveClose, Ended::ActiveClose]);
    let client = lab.client();
    assert_eq!((client.active_closes, client.closed, client.lifetime_ms.count), (2, 2, 0));
    assert_eq!((client.time_wait.entered, client.time_wait.now), (2, 2), "the owner keeps them");
    assert_eq!((lab.only_dest().ports.in_use, lab.tracker.snapshot().events.repaired), (2, 2));
}

#[test]
fn the_first_list_enters_what_existed_and_later_ones_repair() {
    let mut lab = Lab::new();
    let rows =
        [Lab::row(1, 32_768, Established), Lab::row(2, 32_770, TcpState::TimeWait), Lab::row(3, 32_772, CloseWait)];
    lab.list(&rows, true);
    let snapshot = lab.tracker.snapshot();
    assert_eq!((snapshot.flows, snapshot.time_wait, snapshot.events.repaired), (2, 1, 0));
    assert_eq!(lab.only_dest().ports.in_use, 3);
    let client = lab.client();
    assert_eq!((client.connects, client.close_wait.now, client.time_wait.entered), (0, 1, 0));
    assert!(snapshot.attributions.iter().all(|attribution| attribution.inferred));
    // The second list has lost two of them and found another.
    lab.list(&[Lab::row(1, 32_768, CloseWait), Lab::row(4, 32_774, Established)], false);
    let snapshot = lab.tracker.snapshot();
    assert_eq!((snapshot.flows, snapshot.time_wait), (2, 0));
    assert_eq!(snapshot.events.repaired, 4, "one closed, one minisocket gone, one state, one new");
    assert_eq!(lab.only_dest().ports.in_use, 2);
}

#[test]
fn a_stale_row_neither_revives_a_closed_flow_nor_rewinds_a_living_one() {
    let mut lab = Lab::new();
    let mut closed = lab.connect(1, 32_768);
    let mut living = lab.connect(2, 32_770);
    let (began, rows) = (Ktime(lab.now), [Lab::row(1, 32_768, Established), Lab::row(2, 32_770, Established)]);
    lab.close(&mut closed);
    lab.timer(&closed, false, false);
    lab.to(&mut living, CloseWait);
    let ended = Ktime(lab.now);
    lab.ingest(&Event::Baseline(Baseline { netns: NETNS, began, ended, initial: true, rows: Arc::from(rows) }));
    let snapshot = lab.tracker.snapshot();
    assert_eq!((snapshot.flows, snapshot.events.repaired), (1, 0));
    assert_eq!(lab.client().close_wait.now, 1);
}

#[test]
fn a_flow_that_began_during_the_list_is_not_thought_gone() {
    let mut lab = Lab::new();
    let began = Ktime(lab.now);
    lab.connect(1, 32_768);
    lab.ingest(&Event::Baseline(Baseline {
        netns: NETNS,
        began,
        ended: Ktime(lab.now),
        initial: true,
        rows: Arc::from([]),
    }));
    assert_eq!(lab.tracker.snapshot().flows, 1);
}

/// Before 5.12 a socket has no cookie until somebody lists it, and its port is not known before the connection stands.
#[test]
fn a_list_in_the_middle_of_a_connect_makes_no_second_flow_of_it() {
    for state in [SynSent, Established] {
        let mut lab = Lab::new();
        lab.list(&[], true);
        let mut sock = Lab::socket(7);
        lab.now += 1000;
        let nameless = lab.raw(&sock, SynSent, 0);
        let id = SocketId { cookie: None, ..nameless.id };
        lab.ingest(&Event::Transition(Transition { id, ..nameless }));
        lab.list(&[Lab::row(7, 32_770, state)], false);
        (sock.state, sock.port, sock.last_port) = (SynSent, 32_770, 32_770);
        lab.to(&mut sock, Established);
        let client = lab.client();
        assert_eq!((client.connects, client.established, client.ports_held), (1, 1, 1), "{state:?}");
        let snapshot = lab.tracker.snapshot();
        assert_eq!((snapshot.flows, snapshot.events.repaired), (1, 0), "{state:?}");
        lab.close(&mut sock);
        assert_eq!((lab.client().active_closes, lab.only_dest().ports.in_use), (1, 1), "{state:?}");
    }
}

/// The tracepoint comes before the state is written and before the socket is hashed, and a thread may be preempted in between.
#[test]
fn a_list_does_not_contradict_what_has_just_been_told() {
    let mut lab = Lab::new();
    lab.list(&[], true);
    let mut opening = Lab::socket(1);
    let mut closing = lab.connect(2, 32_769);
    lab.now += SECOND;
    lab.to(&mut opening, SynSent);
    lab.to(&mut closing, FinWait1);
    // Neither the one's port nor the other's new state is in the list.
    let (began, ended) = (Ktime(lab.now + MS), Ktime(lab.now + 2 * MS));
    let rows = [Lab::row(2, 32_769, Established)].as_slice().into();
    lab.ingest(&Event::Baseline(Baseline { netns: NETNS, began, ended, initial: false, rows }));
    lab.now += 3 * MS;
    (opening.port, opening.last_port) = (32_768, 32_768);
    lab.to(&mut opening, Established);
    lab.to(&mut closing, FinWait2);
    let client = lab.client();
    assert_eq!((client.connects, client.established, client.active_closes), (2, 2, 1));
    assert_eq!(lab.tracker.snapshot().events.repaired, 0);
}
