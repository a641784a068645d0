//! What a view that watches is told beyond the snapshot.

use super::super::snapshot::detail::{DetailRequest, Details};
use super::*;

fn watched() -> Lab {
    Lab::with(|config| config.notices.history = true)
}

fn key(port: u16) -> FlowKey {
    FlowKey { netns: NETNS, device: 0, local: Endpoint { addr: addr(1), port }, remote: Lab::socket(0).remote }
}

fn look(lab: &Lab, port: u16) -> Details {
    let wish = DetailRequest {
        destination: Some(DestinationKey::from(&key(port))),
        workload: Some("client".into()),
        flow: Some(key(port)),
    };
    lab.tracker.details(&wish)
}

fn states(details: &Details) -> Vec<(TcpState, bool)> {
    let flow = details.flow.as_ref().expect("a flow");
    flow.steps.iter().map(|step| (step.state, step.entered.is_some())).collect()
}

#[test]
fn a_flow_is_told_from_syn_to_time_wait_and_its_end() {
    let mut lab = watched();
    let mut sock = lab.connect(1, 32_770);
    assert_eq!(states(&look(&lab, 32_770)), [(SynSent, true), (Established, true)]);
    lab.close(&mut sock);
    let with_time_wait = [SynSent, Established, FinWait1, FinWait2, TcpState::TimeWait].map(|state| (state, true));
    assert_eq!(states(&look(&lab, 32_770)), with_time_wait);
    lab.pass(30 * SECOND);
    let flow = look(&lab, 32_770).flow.expect("a flow");
    let last = flow.steps.last().expect("a step");
    assert!(last.dwell.is_some_and(|dwell| dwell >= 30 * SECOND), "{last:?}");
    assert!(!flow.begin_unknown);
    lab.timer(&sock, false, true);
    let ended = look(&lab, 32_770);
    assert_eq!(states(&ended).last(), Some(&(Close, true)));
    assert_eq!(ended.flow.expect("a flow").steps.len(), 6);
}

#[test]
fn who_has_flows_in_which_states_is_told() {
    let mut lab = watched();
    let states = |lab: &Lab| {
        let attributions = lab.tracker.snapshot().attributions;
        let [only] = attributions.as_slice() else { panic!("{attributions:#?}") };
        only.by_state.keys().copied().collect::<Vec<_>>()
    };
    let mut sock = lab.connect(1, 32_770);
    assert_eq!(states(&lab), [Established]);
    let mut other = Lab::socket(2);
    lab.to(&mut other, SynSent);
    assert_eq!(states(&lab), [Established, SynSent]);
    lab.close(&mut sock);
    lab.fails(&mut other, Close, 111);
    assert_eq!(states(&lab), [TcpState::TimeWait]);
    lab.timer(&sock, false, true);
    assert_eq!(states(&lab), []);
}

#[test]
fn an_inferred_minisocket_is_a_step_too() {
    let mut lab = Lab::with(|config| {
        config.notices.history = true;
        config.time_wait_observed = false;
    });
    let mut sock = lab.connect(1, 32_770);
    lab.to(&mut sock, FinWait1);
    lab.to(&mut sock, FinWait2);
    lab.to(&mut sock, Close);
    assert_eq!(states(&look(&lab, 32_770)).last(), Some(&(TcpState::TimeWait, true)));
    lab.pass(62 * SECOND);
    let states: Vec<_> = states(&look(&lab, 32_770)).into_iter().map(|(state, _)| state).collect();
    assert_eq!(states, [SynSent, Established, FinWait1, FinWait2, TcpState::TimeWait, Close]);
}

#[test]
fn a_flow_from_before_the_start_has_an_unknown_begin() {
    let mut lab = watched();
    lab.list(&[Lab::row(9, 32_771, Established)], true);
    let details = look(&lab, 32_771);
    assert_eq!(states(&details), [(Established, false)]);
    assert!(details.flow.expect("a flow").begin_unknown);
}

#[test]
fn every_port_of_a_destination_has_its_state_and_its_owner() {
    let mut lab = watched();
    let mut closed = lab.connect(1, 32_768);
    lab.connect(2, 32_770);
    lab.close(&mut closed);
    let detail = look(&lab, 32_768).destination.expect("the destination");
    let ports: Vec<_> = detail.used.iter().map(|port| (port.port, port.state)).collect();
    assert_eq!(ports, [(32_768, TcpState::TimeWait), (32_770, Established)]);
    assert_eq!(detail.used.len(), usize::try_from(lab.only_dest().ports.in_use).expect("small"));
    assert!(detail.used.iter().all(|port| &*detail.owners[usize::from(port.owner)].workload == "client"));
    assert_eq!(detail.lifetime.buckets.iter().map(|bucket| bucket.count).sum::<u64>(), 1);
    assert_eq!(look(&lab, 32_768).workload.expect("the workload").connect.summary.count, 2);
}

#[test]
fn a_failure_remembers_who_held_the_ports_at_that_instant() {
    let mut lab = watched();
    let mut sock = lab.connect(1, 32_768);
    lab.exhausted(2);
    lab.pass(SECOND);
    lab.close(&mut sock);
    lab.timer(&sock, false, true);
    lab.pass(SECOND);
    lab.exhausted(3);
    lab.pass(2 * SECOND);
    let details = look(&lab, 32_768);
    let [newest, oldest] = details.failures.as_slice() else { panic!("two failures: {:#?}", details.failures) };
    assert!(newest.holders.is_empty(), "{newest:#?}");
    assert_eq!((oldest.in_use, oldest.capacity), (1, Some(8)));
    let [holder] = &*oldest.holders else { panic!("one holder: {oldest:#?}") };
    assert_eq!((&*holder.workload, holder.ports, holder.time_wait), ("client", 1, 0));
    assert_eq!(details.seconds.iter().map(|second| second.exhausted).sum::<u32>(), 2);
    assert_eq!(details.seconds.iter().map(|second| second.connects).sum::<u32>(), 3);
    assert_eq!(details.destination.expect("the destination").port_search.summary.count, 2);
}

#[test]
fn who_does_not_watch_pays_for_no_memory() {
    let mut lab = Lab::new();
    lab.connect(1, 32_768);
    lab.exhausted(2);
    lab.pass(SECOND);
    let details = look(&lab, 32_768);
    assert!(details.failures.is_empty() && details.seconds.is_empty());
    assert!(details.destination.is_some(), "the present is in the tables all the same");
}
