//! Strategies that draw random steps of every kind.

use std::sync::Arc;

use proptest::prelude::*;

use crate::event::*;
use crate::foreign_text::clean;
use crate::step::TrackerStep;

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
    fn any_netns()(inode in any::<u32>(), cookie in any::<u32>()) -> Netns {
        Netns { inode, cookie }
    }
}

prop_compose! {
    fn key()(netns in any_netns(), device in any::<u32>(), local in endpoint(), remote in endpoint()) -> FlowKey {
        FlowKey { netns, device, local, remote }
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
    // Names as a live trace has them: cleaned when they were read.
    ".{0,40}".prop_map(|text: String| clean(&text).into())
}

prop_compose! {
    pub fn transition()(
        (ktime, id, key, last_port) in (ktime(), id(), key(), any::<u16>()),
        (old, new, sk_err) in (state(), state(), any::<u16>()),
        (pid, current_tid, cgroup) in (any::<Option<u32>>(), any::<u32>(), any::<u64>()),
        (shutdown, rescued, classic, own_range) in any::<(bool, bool, bool, Option<(u16, u16)>)>(),
    ) -> Event {
        let caller = pid.map(|pid| Caller { pid, tid: current_tid, cgroup: CgroupId(cgroup) });
        Event::Transition(
            Transition {
                ktime, id, key, last_port, own_range, old, new, sk_err, shutdown, caller, current_tid, rescued, classic,
            },
        )
    }
}

prop_compose! {
    pub fn time_wait()(
        (ktime, id, key) in (ktime(), id(), key()),
        (fin_wait2, expired, kind, timestamps) in (any::<bool>(), any::<bool>(), 0..3, any::<Option<bool>>()),
    ) -> Event {
        let event = TimeWaitEvent { ktime, cookie: id.cookie, key, fin_wait2, timestamps, expired };
        match kind {
            0 => Event::TimeWaitStart(event),
            1 => Event::TimeWaitEnd(event),
            _ => Event::TimeWaitListed(event),
        }
    }
}

prop_compose! {
    pub fn call_failed()(
        (ktime, entered, id, netns) in (ktime(), ktime(), id(), any_netns()),
        (pid, tid, cgroup, comm) in (any::<u32>(), any::<u32>(), any::<u64>(), text()),
        (call, errno, target, local) in (0_usize..3, any::<u16>(), prop::option::of(endpoint()), endpoint()),
        (device, own_range) in any::<(u32, Option<(u16, u16)>)>(),
    ) -> Event {
        Event::CallFailed(Box::new(CallFailed {
            ktime, entered, id, netns, comm, errno, local, device, own_range,
            target: target.filter(|_| call < 2),
            caller: Caller { pid, tid, cgroup: CgroupId(cgroup) },
            call: [Call::Bind, Call::Connect, Call::Listen][call],
        }))
    }
}

prop_compose! {
    pub fn socket_event()(
        (ktime, id, key, pid, tid) in (ktime(), id(), key(), any::<u32>(), any::<u32>()),
        (named, listener) in (any::<Option<bool>>(), prop::option::of(id())),
        kind in 0..3,
    ) -> Event {
        let event = SocketEvent { ktime, id, key, pid, tid, named, listener };
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
        (netns, exec_id) in (any_netns(), any::<u32>()),
        (cgroup, comm, parent_comm) in (any::<u64>(), text(), text()),
        texts in prop::collection::vec(prop::option::of(text()), 7),
    ) -> Event {
        let mut texts = texts.into_iter();
        let mut next = || texts.next().flatten();
        Event::Process(Box::new(ProcessFacts {
            ktime, pid, start, exec_id, ppid, uid, comm, parent_comm, netns, cgroup: CgroupId(cgroup),
            cmdline: next(), exe: next(), cgroup_path: next(), unit: next(), container: next(), pod: next(), pool: next(),
        }))
    }
}

prop_compose! {
    pub fn netns()(
        (ktime, netns, name, cookie) in (ktime(), any_netns(), prop::option::of(text()), any::<Option<u64>>()),
        (port_range, tw_reuse, tw_reuse_delay_ms) in any::<(Option<(u16, u16)>, Option<u8>, Option<u32>)>(),
        (timestamps, max_tw_buckets, fin_timeout_ms) in any::<(Option<bool>, Option<u32>, Option<u32>)>(),
        (time_wait, conntrack, conntrack_buckets) in any::<(Option<u32>, Option<(u32, u32)>, Option<u32>)>(),
        (listen_overflows, time_wait_overflows, conntrack_drops) in any::<(Option<u64>, Option<u64>, Option<u64>)>(),
    ) -> Event {
        Event::Netns(Box::new(NetnsFacts {
            ktime, netns, name, cookie, port_range, tw_reuse, tw_reuse_delay_ms, timestamps, max_tw_buckets,
            fin_timeout_ms, time_wait, conntrack, conntrack_buckets,
            counters: KernelCounters {
                listen_overflows, time_wait_overflows, conntrack_drops, ..KernelCounters::default()
            },
        }))
    }
}

prop_compose! {
    fn row()(
        (cookie, key, state, minisocket) in (any::<u64>(), key(), state(), any::<bool>()),
        (remaining, owner) in any::<(Option<u64>, Option<u32>)>(),
        (named, closed, timestamps, has_descriptor) in any::<(Option<bool>, Option<bool>, Option<bool>, Option<bool>)>(),
        (queue, sock) in any::<(Option<(u32, u32)>, u64)>(),
    ) -> SocketRow {
        SocketRow {
            has_descriptor, sock,
            cookie: SocketCookie::new(cookie), key, state, minisocket, remaining, owner, named, closed, timestamps,
            queue: queue.map(|(waiting, backlog)| AcceptQueue { waiting, backlog }),
        }
    }
}

prop_compose! {
    pub fn baseline()(
        (netns, began, ended, initial) in (any_netns(), ktime(), ktime(), any::<bool>()),
        rows in prop::collection::vec(row(), 0..30),
    ) -> Event {
        Event::Baseline(Baseline { netns, began, ended, initial, rows: rows.into() })
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
    (ktime(), any_netns(), prop::collection::btree_set(any::<u16>(), 0..20))
        .prop_map(|(ktime, netns, ports)| Event::ReservedPorts(ktime, netns, ports.into_iter().collect()))
}

/// A random step of any kind.
pub fn step() -> impl Strategy<Value = TrackerStep> {
    prop_oneof![
        4 => transition().prop_map(TrackerStep::Event),
        2 => time_wait().prop_map(TrackerStep::Event),
        1 => call_failed().prop_map(TrackerStep::Event),
        1 => socket_event().prop_map(TrackerStep::Event),
        1 => process().prop_map(TrackerStep::Event),
        1 => netns().prop_map(TrackerStep::Event),
        1 => baseline().prop_map(TrackerStep::Event),
        1 => loss().prop_map(TrackerStep::Event),
        1 => reserved().prop_map(TrackerStep::Event),
        1 => (ktime(), id(), any::<u64>()).prop_map(|(ktime, id, nanos)| TrackerStep::Event(Event::PortSearch(PortSearch { ktime, id, nanos }))),
        1 => ktime().prop_map(TrackerStep::Advance),
        1 => (1..u64::MAX).prop_map(TrackerStep::Skipped),
    ]
}
