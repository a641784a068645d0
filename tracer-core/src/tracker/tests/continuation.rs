//! A tracker that sees the events from here on only, and was told what is open.

use super::*;

/// Part 1 of a rotation said "client exhausts", part 2 "unknown exhausts": the kernel does not tell whose a TIME_WAIT was.
#[test]
fn what_is_open_keeps_its_owner_its_state_and_its_end() {
    let mut lab = Lab::new();
    let mut closed = lab.connect(1, 32_768);
    lab.close(&mut closed);
    lab.timer(&closed, true, false);
    lab.pass(20 * SECOND);
    let mut open = lab.connect(2, 32_769);

    let mut later = Lab::with(|_| {});
    later.now = lab.now;
    later.tracker = Tracker::new(lab.tracker.config.clone());
    later.tracker.begin(Ktime(lab.now));
    for event in lab.tracker.facts().iter().chain(&lab.tracker.open_sockets()) {
        later.ingest(event);
    }
    let held = |lab: &Lab| {
        let destination = lab.only_dest();
        let holders: Vec<_> =
            destination.holders.iter().map(|holder| (holder.workload.to_string(), holder.ports)).collect();
        (destination.ports.in_use, destination.ports.by_state.clone(), holders)
    };
    assert_eq!(held(&later), held(&lab));
    assert_eq!(held(&later).2, [("client".into(), 2)]);
    assert_eq!(later.tracker.snapshot().events.repaired, 0);
    // What goes on is the same flow, and what is due ends when it is due.
    later.close(&mut open);
    assert_eq!(later.only_dest().ports.in_use, 2);
    later.pass(40 * SECOND);
    later.timer(&closed, false, true);
    assert_eq!(later.only_dest().ports.in_use, 1);
    assert_eq!(held(&later).2, [("client".into(), 1)]);
}

#[test]
fn a_list_is_whole_or_there_is_none() {
    let lab = Lab::new();
    let lists = lab.tracker.open_sockets();
    assert!(matches!(&lists[..], [Event::Baseline(list)] if list.netns == NETNS && list.rows.is_empty()));
}
