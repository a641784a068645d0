//! Strategies that draw random steps of every kind.

use std::sync::Arc;

use proptest::prelude::*;

use super::super::RecordedStep;
use crate::event::*;

fn addr() -> impl Strategy<Value = Addr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(|octets| Addr::from(std::net::IpAddr::from(octets))),
        any::<[u8; 16]>().prop_map(|octets| Addr::from(std::net::IpAddr::from(octets))),
        Just(Addr::UNSPECIFIED),
    ]
}

prop_compose! {
    fn endpoint()(addr in addr(), port in any::<u16>()) -> Endpoint {
        Endpoint { addr, port }
    }
}

prop_compose! {
    fn key()(netns in any::<u32>(), local in endpoint(), remote in endpoint()) -> FlowKey {
        FlowKey { netns: Netns::of_inode(netns), device: 0, local, remote }
    }
}

prop_compose! {
    fn id()(cookie in any::<u64>(), sock in any::<u64>()) -> SocketId {
        SocketId { cookie: SocketCookie::new(cookie), sock }
    }
}

fn ktime() -> impl Strategy<Value = Ktime> {
    prop_oneof![any::<u64>().prop_map(Ktime), (0..1_u64 << 40).prop_map(Ktime)]
}

fn state() -> impl Strategy<Value = TcpState> {
    prop::sample::select(&TcpState::ALL[..])
}

fn text() -> impl Strategy<Value = Arc<str>> {
    ".{0,40}".prop_map(|text: String| text.into())
}

prop_compose! {
    pub fn transition()(
        (ktime, id, key, last_port) in (ktime(), id(), key(), any::<u16>()),
        (old, new, sk_err) in (state(), state(), any::<u16>()),
        (pid, current_tid, cgroup) in (any::<Option<u32>>(), any::<u32>(), any::<u64>()),
        (shutdown, rescued, classic) in any::<(bool, bool, bool)>(),
    ) -> Event {
        let caller = pid.map(|pid| Caller { pid, tid: current_tid, cgroup: CgroupId(cgroup) });
        Event::Transition(
            Transition {
                ktime, id, key, last_port, own_range: None, old, new, sk_err, shutdown, caller, current_tid, rescued, classic,
            },
        )
    }
}

prop_compose! {
    pub fn time_wait()(
        (ktime, id, key) in (ktime(), id(), key()),
        (fin_wait2, expired, start) in any::<(bool, bool, bool)>(),
    ) -> Event {
        let event = TimeWaitEvent { ktime, cookie: id.cookie, key, fin_wait2, timestamps: None, expired };
        if start { Event::TimeWaitStart(event) } else { Event::TimeWaitEnd(event) }
    }
}

prop_compose! {
    pub fn call_failed()(
        (ktime, entered, id, netns) in (ktime(), ktime(), id(), any::<u32>()),
        (pid, tid, cgroup, comm) in (any::<u32>(), any::<u32>(), any::<u64>(), text()),
        (bind, errno, target, local) in (any::<bool>(), any::<u16>(), prop::option::of(endpoint()), endpoint()),
    ) -> Event {
        Event::CallFailed(Box::new(CallFailed {
            ktime, entered, id, netns: Netns::of_inode(netns), comm, errno, target, local, device: 0, own_range: None,
            caller: Caller { pid, tid, cgroup: CgroupId(cgroup) },
            call: if bind { Call::Bind } else { Call::Connect },
        }))
    }
}

prop_compose! {
    pub fn socket_event()((ktime, id, key, pid, tid) in (ktime(), id(), key(), any::<u32>(), any::<u32>()), kind in 0..3) -> Event {
        let event = SocketEvent { ktime, id, key, pid, tid, named: None, listener: None };
        match kind {
            0 => Event::Accepted(event),
            1 => Event::Bound(event),
            _ => Event::Released(event),
        }
    }
}

prop_compose! {
    pub fn process()(
        (ktime, pid, start, ppid, uid) in (ktime(), any::<u32>(), any::<u64>(), any::<u32>(), any::<u32>()),
        (netns, cgroup, comm, parent_comm) in (any::<u32>(), any::<u64>(), text(), text()),
        texts in prop::collection::vec(prop::option::of(text()), 6),
    ) -> Event {
        let mut texts = texts.into_iter();
        let mut next = || texts.next().flatten();
        Event::Process(Box::new(ProcessFacts {
            ktime, pid, start, exec_id: 0, ppid, uid, comm, parent_comm, netns: Netns::of_inode(netns), cgroup: CgroupId(cgroup),
            cmdline: next(), exe: next(), cgroup_path: next(), unit: next(), container: next(), pool: next(),
        }))
    }
}

prop_compose! {
    pub fn netns()(
        (ktime, netns, name, cookie) in (ktime(), any::<u32>(), prop::option::of(text()), any::<Option<u64>>()),
        (port_range, tw_reuse, tw_reuse_delay_ms) in any::<(Option<(u16, u16)>, Option<u8>, Option<u32>)>(),
        (timestamps, max_tw_buckets, fin_timeout_ms) in any::<(Option<bool>, Option<u32>, Option<u32>)>(),
        (time_wait, conntrack) in any::<(Option<u32>, Option<(u32, u32)>)>(),
    ) -> Event {
        Event::Netns(Box::new(NetnsFacts {
            ktime, netns: Netns::of_inode(netns), name, cookie, port_range, tw_reuse, tw_reuse_delay_ms, timestamps, max_tw_buckets,
            fin_timeout_ms, time_wait, conntrack,
        }))
    }
}

prop_compose! {
    fn row()(
        (cookie, key, state, minisocket) in (any::<u64>(), key(), state(), any::<bool>()),
        (remaining, owner) in any::<(Option<u64>, Option<u32>)>(),
    ) -> SocketRow {
        SocketRow {
            has_descriptor: None,
            cookie: SocketCookie::new(cookie), key, state, minisocket, remaining, owner, named: None, timestamps: None, queue: None,
        }
    }
}

prop_compose! {
    pub fn baseline()(
        (netns, began, ended, initial) in (any::<u32>(), ktime(), ktime(), any::<bool>()),
        rows in prop::collection::vec(row(), 0..30),
    ) -> Event {
        Event::Baseline(Baseline { netns: Netns::of_inode(netns), began, ended, initial, rows: rows.into() })
    }
}

pub fn loss() -> impl Strategy<Value = Event> {
    (ktime(), any::<[u64; 9]>()).prop_map(|(ktime, [a, b, c, d, e, f, g, h, i])| {
        Event::Loss(LossCounts {
            ktime,
            ring_transitions: a,
            ring_time_wait: b,
            ring_calls: c,
            ring_facts: d,
            chain_missed: e,
            chain_rescued: f,
            other_missed: g,
            call_map_full: h,
            recorder: i,
        })
    })
}

pub fn reserved() -> impl Strategy<Value = Event> {
    (ktime(), any::<u32>(), prop::collection::btree_set(any::<u16>(), 0..20)).prop_map(|(ktime, netns, ports)| {
        Event::ReservedPorts(ktime, Netns::of_inode(netns), ports.into_iter().collect())
    })
}

/// A random step of any kind.
pub fn step() -> impl Strategy<Value = RecordedStep> {
    prop_oneof![
        4 => transition().prop_map(RecordedStep::Event),
        2 => time_wait().prop_map(RecordedStep::Event),
        1 => call_failed().prop_map(RecordedStep::Event),
        1 => socket_event().prop_map(RecordedStep::Event),
        1 => process().prop_map(RecordedStep::Event),
        1 => netns().prop_map(RecordedStep::Event),
        1 => baseline().prop_map(RecordedStep::Event),
        1 => loss().prop_map(RecordedStep::Event),
        1 => reserved().prop_map(RecordedStep::Event),
        1 => (ktime(), id(), any::<u64>()).prop_map(|(ktime, id, nanos)| RecordedStep::Event(Event::PortSearch(PortSearch { ktime, id, nanos }))),
        1 => ktime().prop_map(RecordedStep::Advance),
        1 => (1..u64::MAX).prop_map(RecordedStep::Skipped),
    ]
}
