//! Records of the kernel into events: bytes in, [`Event`]s out.
//!
//! Pure: what only the host can answer (the path of a process's executable) was asked before and comes along as `processes`, so that
//! the tracker and the recorder, which both decode the same bytes, see the same process.

use std::sync::Arc;

use tracer_common::{
    CallRecord, DecodeError, Header, NetnsRecord, Record, SocketRecord, TimeWaitRecord, TransitionRecord, answer, call,
    flags,
};

use crate::event::{
    Addr, Call, CallFailed, Caller, CgroupId, Endpoint, Event, FlowKey, KernelCounters, Ktime, Netns, NetnsFacts,
    PortSearch, ProcessFacts, SocketCookie, SocketEvent, SocketId, TcpState, TimeWaitEvent, Transition,
};
use crate::names::{self, text};

/// Decodes records into events, in order. `processes` are the facts of the process records among them, in the same order; a record
/// beyond their end gets the facts that it holds itself.
///
/// Returns the number of records that were skipped because they could not be decoded. A record of an unknown kind or a wrong size
/// makes the rest of the bytes one skip, because its length cannot be trusted.
pub fn decode(mut bytes: &[u8], processes: impl IntoIterator<Item = ProcessFacts>, mut each: impl FnMut(Event)) -> u64 {
    let mut processes = processes.into_iter();
    let mut skipped = 0;
    while !bytes.is_empty() {
        let (record, rest) = match Record::split_first(bytes) {
            Ok(split) => split,
            Err(DecodeError::NoHeader { .. } | DecodeError::UnknownKind { .. } | DecodeError::WrongSize { .. }) => {
                return skipped + 1;
            }
        };
        bytes = rest;
        let event = match record {
            Record::Transition(record) => transition(&record).map(Event::Transition),
            Record::TimeWaitStart(record) => Some(Event::TimeWaitStart(time_wait(&record))),
            Record::TimeWaitEnd(record) => Some(Event::TimeWaitEnd(time_wait(&record))),
            Record::CallFailed(record) => call_failed(&record).map(|call| Event::CallFailed(Box::new(call))),
            Record::Accepted(record) => Some(Event::Accepted(socket_event(&record))),
            Record::Bound(record) => Some(Event::Bound(socket_event(&record))),
            Record::Released(record) => Some(Event::Released(socket_event(&record))),
            Record::Task(own) => {
                let facts = processes.next().or_else(|| Record::task(own).ok().map(|record| names::facts(&record)));
                facts.map(|facts| Event::Process(Box::new(facts)))
            }
            Record::Netns(record) => Some(Event::Netns(Box::new(netns_facts(&record)))),
            Record::PortSearch(record) => Some(Event::PortSearch(PortSearch {
                ktime: Ktime(record.header.ktime),
                id: socket_id(&record.header, record.cookie, record.sock),
                nanos: record.nanos,
            })),
            Record::ReservedPorts { header, netns: inode, bitmap } => {
                Some(Event::ReservedPorts(Ktime(header.ktime), netns(&header, inode), reserved(bitmap)))
            }
        };
        match event {
            Some(event) => each(event),
            None => skipped += 1,
        }
    }
    skipped
}

fn netns(header: &Header, inode: u32) -> Netns {
    Netns { inode, cookie: header.netns_cookie }
}

/// The key of any record that has one: these fields are in all of them.
macro_rules! key {
    ($record:expr) => {
        FlowKey {
            netns: netns(&$record.header, $record.netns),
            device: $record.device,
            local: Endpoint { addr: Addr($record.laddr), port: $record.lport },
            remote: Endpoint { addr: Addr($record.raddr), port: $record.rport },
        }
    };
}

/// Both ends of `IP_LOCAL_PORT_RANGE`; `None` for 0, which is no option.
fn own_range(raw: u32) -> Option<(u16, u16)> {
    let [a, b, c, d] = raw.to_le_bytes();
    (raw != 0).then_some((u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])))
}

fn answer(raw: u8) -> Option<bool> {
    match raw {
        answer::NO => Some(false),
        answer::YES => Some(true),
        _ => None,
    }
}

fn socket_cookie(header: &Header, cookie: u64) -> Option<SocketCookie> {
    if header.flags & flags::COOKIE != 0 { SocketCookie::new(cookie) } else { None }
}

fn socket_id(header: &Header, cookie: u64, sock: u64) -> SocketId {
    SocketId { cookie: socket_cookie(header, cookie), sock }
}

fn transition(record: &TransitionRecord) -> Option<Transition> {
    let has = |flag: u16| record.header.flags & flag != 0;
    let range = if has(flags::OWN_RANGE) { u32::try_from(record.cgroup).unwrap_or(0) } else { 0 };
    Some(Transition {
        ktime: Ktime(record.header.ktime),
        id: socket_id(&record.header, record.cookie, record.sock),
        key: key!(record),
        last_port: record.sport,
        own_range: own_range(range),
        old: TcpState::from_raw(record.states >> 4)?,
        new: TcpState::from_raw(record.states & 15)?,
        sk_err: u16::from(record.sk_err),
        shutdown: has(flags::SHUTDOWN),
        caller: has(flags::CALLER).then_some(Caller {
            pid: record.tgid,
            tid: record.tid,
            cgroup: CgroupId(record.cgroup),
        }),
        current_tid: record.tid,
        rescued: has(flags::RESCUED),
        classic: has(flags::CLASSIC),
    })
}

fn time_wait(record: &TimeWaitRecord) -> TimeWaitEvent {
    TimeWaitEvent {
        ktime: Ktime(record.header.ktime),
        cookie: socket_cookie(&record.header, record.cookie),
        key: key!(record),
        fin_wait2: record.substate == TcpState::FinWait2 as u8,
        timestamps: answer(record.timestamps),
        expired: record.header.flags & flags::EXPIRED != 0,
    }
}

fn call_failed(record: &CallRecord) -> Option<CallFailed> {
    Some(CallFailed {
        ktime: Ktime(record.header.ktime),
        entered: Ktime(record.entered),
        id: socket_id(&record.header, record.cookie, record.sock),
        netns: netns(&record.header, record.netns),
        caller: Caller { pid: record.tgid, tid: record.tid, cgroup: CgroupId(record.cgroup) },
        comm: text(&record.comm),
        call: match record.call {
            call::CONNECT => Call::Connect,
            call::BIND => Call::Bind,
            call::LISTEN => Call::Listen,
            _ => return None,
        },
        errno: record.errno,
        target: (record.has_addr != 0).then_some(Endpoint { addr: Addr(record.addr), port: record.port }),
        local: Endpoint { addr: Addr(record.laddr), port: record.lport },
        device: record.device,
        own_range: own_range(record.own_range),
    })
}

fn socket_event(record: &SocketRecord) -> SocketEvent {
    SocketEvent {
        ktime: Ktime(record.header.ktime),
        id: socket_id(&record.header, record.cookie, record.sock),
        key: key!(record),
        pid: record.tgid,
        tid: record.tid,
        named: answer(record.named),
        listener: (record.listener != 0)
            .then_some(SocketId { cookie: SocketCookie::new(record.listener_cookie), sock: record.listener }),
    }
}

fn netns_facts(record: &NetnsRecord) -> NetnsFacts {
    let hz = hz(record.jiffies, record.header.ktime);
    let known = |value: u32| (value != u32::MAX).then_some(value);
    let millis = |jiffies: u32| u32::try_from(u64::from(jiffies) * 1000 / hz).ok();
    NetnsFacts {
        ktime: Ktime(record.header.ktime),
        netns: netns(&record.header, record.netns),
        name: None,
        cookie: (record.net_cookie != 0).then_some(record.net_cookie),
        port_range: (record.range_hi != 0).then_some((record.range_lo, record.range_hi)),
        tw_reuse: (record.tw_reuse != u8::MAX).then_some(record.tw_reuse),
        tw_reuse_delay_ms: known(record.tw_reuse_delay),
        timestamps: (record.timestamps != u8::MAX).then_some(record.timestamps != 0),
        max_tw_buckets: known(record.max_tw_buckets),
        fin_timeout_ms: known(record.fin_timeout).and_then(millis),
        time_wait: known(record.time_wait),
        conntrack: None,
        conntrack_buckets: None,
        counters: KernelCounters::default(),
    }
}

/// The kernel's `HZ`: `jiffies_64` starts 300 s before its low half wraps (include/linux/jiffies.h `INITIAL_JIFFIES`) and
/// advances `HZ` a second; of the values that Linux can be built with, the one that explains both clocks best.
fn hz(jiffies: u64, ktime: u64) -> u64 {
    let seconds = i128::from(ktime / 1_000_000_000);
    let expected = |hz: u64| (1_i128 << 32) + i128::from(hz) * (seconds - 300);
    [100, 250, 300, 1000].into_iter().min_by_key(|&hz| (expected(hz) - i128::from(jiffies)).abs()).unwrap_or(250)
}

fn reserved(bitmap: &[u8]) -> Arc<[u16]> {
    // The kernel's bitmap is an array of native longs; on little-endian that is byte order too (portchurn supports no other).
    (0..=u16::MAX)
        .filter(|&port| bitmap.get(usize::from(port / 8)).is_some_and(|byte| byte & (1 << (port % 8)) != 0))
        .collect()
}
