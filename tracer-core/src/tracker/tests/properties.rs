//! Whatever arrives in whatever order - lost, repeated, late, contradictory - the tables stay consistent.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::port_buckets::{BucketUser, PortClass};
use super::super::tables::attributions::AttributionId;
use super::super::tables::destinations::DestinationId;
use super::super::tables::time_wait::TimeWaitEntry;
use super::*;
use crate::event::PortSearch;

/// Few enough of each that events meet.
const COOKIES: u64 = 5;
const PORTS: u16 = 4;

fn key() -> impl Strategy<Value = FlowKey> {
    (0..PORTS, 1_u8..4, prop_oneof![Just(443_u16), Just(80)], any::<bool>()).prop_map(|(port, remote, to, held)| {
        FlowKey {
            netns: NETNS,
            device: 0,
            local: Endpoint { addr: addr(1), port: if held { 32_768 + port } else { 0 } },
            remote: Endpoint { addr: addr(remote), port: to },
        }
    })
}

fn id() -> impl Strategy<Value = SocketId> {
    (0..COOKIES, any::<bool>()).prop_map(|(cookie, known)| SocketId {
        cookie: if known { SocketCookie::new(cookie) } else { None },
        sock: 0xffff_0000 + cookie,
    })
}

fn state() -> impl Strategy<Value = TcpState> {
    (0..TcpState::ALL.len()).prop_map(|index| TcpState::ALL[index])
}

/// Milliseconds within which the clock jumps about.
fn ktime() -> impl Strategy<Value = Ktime> {
    (1_000_u64..200_000).prop_map(|millis| Ktime(millis * MS))
}

fn transition() -> impl Strategy<Value = Event> {
    (
        (ktime(), id(), key()),
        (state(), state()),
        prop_oneof![Just(0_u16), Just(104), Just(110)],
        any::<[bool; 4]>(),
        1_u32..4,
    )
        .prop_map(|((ktime, id, key), (old, new), sk_err, [shutdown, caller, rescued, classic], tid)| {
            Event::Transition(Transition {
                ktime,
                id,
                key,
                last_port: if key.local.port == 0 { 32_768 } else { key.local.port },
                own_range: None,
                old,
                new,
                sk_err,
                shutdown,
                caller: caller.then_some(Caller { pid: 100, tid, cgroup: CgroupId(0) }),
                current_tid: tid,
                rescued,
                classic,
            })
        })
}

fn minisocket() -> impl Strategy<Value = Event> {
    (ktime(), id(), key(), any::<[bool; 2]>(), 0..4).prop_map(|(ktime, id, key, [fin_wait2, expired], kind)| {
        let event = TimeWaitEvent { ktime, cookie: id.cookie, key, fin_wait2, timestamps: None, expired };
        match kind {
            0 | 1 => Event::TimeWaitStart(event),
            2 => Event::TimeWaitEnd(event),
            _ => Event::TimeWaitListed(event),
        }
    })
}

fn socket() -> impl Strategy<Value = Event> {
    (ktime(), id(), key(), 0..3).prop_map(|(ktime, id, key, kind)| {
        let event = SocketEvent { ktime, id, key, pid: 200, tid: 2, named: None, listener: None };
        match kind {
            0 => Event::Accepted(event),
            1 => Event::Bound(event),
            _ => Event::Released(event),
        }
    })
}

fn call() -> impl Strategy<Value = Event> {
    (ktime(), id(), key(), prop_oneof![Just(99_u16), Just(98), Just(111)], any::<[bool; 2]>(), 1_u32..4).prop_map(
        |(ktime, id, key, errno, [connect, named], tid)| {
            Event::CallFailed(Box::new(CallFailed {
                ktime,
                entered: Ktime(ktime.0.saturating_sub(MS)),
                id,
                netns: NETNS,
                caller: Caller { pid: 100, tid, cgroup: CgroupId(0) },
                comm: "client".into(),
                call: if connect { Call::Connect } else { Call::Bind },
                errno,
                target: named.then_some(key.remote),
                local: key.local,
                device: 0,
                own_range: None,
            }))
        },
    )
}

fn baseline() -> impl Strategy<Value = Event> {
    let row = (id(), key(), state(), any::<bool>()).prop_map(|(id, key, state, minisocket)| SocketRow {
        sock: id.sock,
        cookie: id.cookie,
        key,
        state,
        minisocket,
        remaining: minisocket.then_some(SECOND),
        owner: None,
        named: None,
        closed: None,
        timestamps: None,
        has_descriptor: None,
        queue: None,
    });
    (ktime(), any::<bool>(), prop::collection::vec(row, 0..6)).prop_map(|(began, initial, rows)| {
        let ended = Ktime(began.0 + MS);
        Event::Baseline(Baseline { netns: NETNS, began, ended, initial, rows: rows.into() })
    })
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => transition(),
        3 => minisocket(),
        2 => socket(),
        1 => call(),
        1 => baseline(),
        1 => (ktime(), id(), 0..SECOND).prop_map(|(ktime, id, nanos)| Event::PortSearch(PortSearch { ktime, id, nanos })),
    ]
}

/// Every number that is kept incrementally against the same number counted afresh.
fn consistent(tracker: &Tracker) {
    let tables = &tracker.tables;
    let accounting = &tables.accounting;
    let destination = |attribution| accounting.attributions().destination(attribution);
    let mut held: BTreeMap<DestinationId, BTreeMap<TcpState, u32>> = BTreeMap::new();
    let namespace = tables.ports.namespaces().get(NETNS).expect("the only one");
    let counts = |key: &FlowKey| namespace.class_of(key.local.port) != PortClass::Outside;
    let mut unusable: BTreeMap<DestinationId, u32> = BTreeMap::new();
    let mut note = |id: DestinationId, key: &FlowKey| {
        *unusable.entry(id).or_default() += u32::from(namespace.class_of(key.local.port) == PortClass::Unusable);
    };
    for (_, flow) in tables.flows.iter().filter(|(_, flow)| flow.occupies() && counts(flow.key())) {
        note(destination(flow.attribution()).expect("has one"), flow.key());
        let id = destination(flow.attribution()).expect("only towards a destination is a port held");
        *held.entry(id).or_default().entry(flow.state()).or_default() += 1;
    }
    for (_, entry) in tables.time_wait.iter().filter(|(_, entry)| counts(&entry.key)) {
        let Some(id) = destination(entry.attribution) else { continue };
        note(id, &entry.key);
        *held.entry(id).or_default().entry(entry.state()).or_default() += 1;
    }
    for (id, entry) in accounting.destinations().iter() {
        let counted = held.remove(&id).unwrap_or_default();
        if !namespace.is_stale() {
            assert_eq!(entry.unusable(), unusable.remove(&id).unwrap_or_default(), "ports that only serve here");
        }
        assert_eq!(entry.states().collect::<BTreeMap<_, _>>(), counted, "occupancy by state");
        assert_eq!(entry.in_use(), counted.values().sum::<u32>(), "occupancy");
        assert!(entry.peak >= entry.in_use());
    }
    assert!(held.is_empty(), "ports held towards destinations that are not there: {held:?}");
    let mut users: BTreeMap<AttributionId, u32> = BTreeMap::new();
    let flows = tables.flows.iter().map(|(_, flow)| flow.attribution());
    let minisockets = tables.time_wait.iter().map(|(_, entry)| entry.attribution);
    for id in flows.chain(minisockets).chain(tables.pending.iter().map(|failed| failed.attribution)) {
        *users.entry(id).or_default() += 1;
    }
    for (id, entry) in accounting.attributions().iter() {
        assert_eq!(entry.users(), users.remove(&id).unwrap_or_default(), "users of an attribution");
    }
    assert!(users.is_empty(), "something is counted in attributions that are not there: {users:?}");
    let mut blocked: BTreeSet<u16> = BTreeSet::new();
    blocked.extend(tables.ports.bound().iter().map(|(_, bound)| bound.port));
    let closes = |entry: &TimeWaitEntry| entry.user == BucketUser::Minisocket;
    blocked.extend(tables.time_wait.iter().filter(|(_, entry)| closes(entry)).map(|(_, entry)| entry.key.local.port));
    let closing = |user: Option<BucketUser>| user.is_some_and(|user| user != BucketUser::Connect);
    let flows = tables.flows.iter().filter(|(_, flow)| closing(flow.hold().bucket));
    blocked.extend(flows.map(|(_, flow)| flow.key().local.port));
    blocked.retain(|&port| namespace.in_range(port));
    assert_eq!(namespace.blocked_ports(), blocked.into_iter().collect::<Vec<_>>(), "blocked ports");
    let snapshot = tracker.snapshot();
    assert_eq!(snapshot.flows, u64::try_from(tables.flows.len()).expect("fits"));
    assert_eq!(snapshot.time_wait + snapshot.orphans, u64::try_from(tables.time_wait.len()).expect("fits"));
    let time_wait: u64 = snapshot.workloads.iter().map(|workload| workload.time_wait.now).sum();
    assert_eq!(time_wait, snapshot.time_wait, "each entry belongs to one workload");
    let orphans: u64 = snapshot.workloads.iter().map(|workload| u64::from(workload.orphans)).sum();
    assert_eq!(orphans, snapshot.orphans, "each orphan belongs to one workload");
    let close_wait = tables.flows.iter().filter(|(_, flow)| flow.state() == CloseWait);
    let counted: u64 = snapshot.workloads.iter().map(|workload| workload.close_wait.now).sum();
    assert_eq!(counted, u64::try_from(close_wait.count()).expect("fits"), "CLOSE_WAIT");
    // Flows that were accepted, and calls without a destination, are in no list of destinations.
    let towards: u64 = snapshot.destinations.iter().map(|row| row.connects).sum();
    let connects: u64 = snapshot.workloads.iter().map(|row| row.connects).sum();
    assert_eq!(towards, connects, "connects");
    assert!(snapshot.others.is_empty(), "{:?}", snapshot.others);
    for workload in &snapshot.workloads {
        assert!(workload.established <= workload.connects + workload.accepted + snapshot.events.read, "{workload:?}");
        assert!(workload.lifetime_ms.count <= workload.closed, "{workload:?}");
    }
    for dest in &snapshot.destinations {
        let held: u32 = dest.holders.iter().map(|holder| holder.ports).sum();
        assert!(held <= dest.ports.in_use, "{dest:?}");
        let fin_wait2 = dest.ports.by_state.get(&FinWait2).copied().unwrap_or_default();
        assert_eq!(dest.ports.orphans + dest.ports.half_closed, fin_wait2, "{dest:?}");
    }
}

proptest! {
    #[test]
    fn any_order_of_events_keeps_the_tables_consistent(
        events in prop::collection::vec((event(), prop::option::weighted(0.1, ktime())), 1..200),
        observed in any::<bool>(),
    ) {
        let mut lab = Lab::with(|config| {
            config.time_wait_observed = observed;
            // Older kernels keep ports closed whose bound socket is gone: that is a history, which cannot be counted afresh.
            config.knobs.kernel = "6.18.0".into();
        });
        for (event, advance) in events {
            lab.ingest(&event);
            if let Some(now) = advance {
                lab.tracker.advance(now);
            }
            consistent(&lab.tracker);
        }
        lab.tracker.finish();
        consistent(&lab.tracker);
    }
}
