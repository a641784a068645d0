//! What is open now, as lists of sockets: what a reader must know who sees the events from here on only.
//!
//! The kernel's own lists have the same sockets, but not who had opened what is in `TIME_WAIT`. Not for: the rules by which a list is
//! merged (`reconcile`).

use rustc_hash::FxHashMap;

use super::port_buckets::BucketUser;
use super::snapshot::{OpenFlow, Opened};
use super::tables::Tables;
use super::tables::flows::Flow;
use super::tables::time_wait::TimeWaitEntry;
use crate::event::{Addr, Baseline, Endpoint, Event, FlowKey, Netns, SocketRow, TcpState};
use crate::model::timing::TIME_WAIT;

/// Sockets in all lists together: 27 MB of rows. Half a list would say that the others are closed, so beyond there is none.
const MAX_LISTED: usize = 1 << 18;

/// A list per namespace, in the order of their numbers; none if there are more than [`MAX_LISTED`] sockets.
pub fn lists(tables: &Tables) -> Vec<Event> {
    if tables.flows.len() + tables.time_wait.len() + tables.ports.bound().iter().count() > MAX_LISTED {
        return Vec::new();
    }
    let mut rows: FxHashMap<Netns, Vec<SocketRow>> = FxHashMap::default();
    for namespace in tables.ports.namespaces().iter() {
        rows.entry(namespace.facts.netns).or_default();
    }
    for (_, bound) in tables.ports.bound().iter().filter(|(_, bound)| bound.port != 0) {
        let owner = bound.owner.and_then(|owner| tables.accounting.processes().get(owner)).map(|owner| owner.facts.pid);
        rows.entry(bound.netns).or_default().push(SocketRow {
            cookie: bound.id.cookie,
            sock: bound.id.sock,
            owner: owner.filter(|pid| *pid != 0),
            queue: bound.queue,
            ..row(
                FlowKey {
                    netns: bound.netns,
                    device: bound.device,
                    local: Endpoint { addr: bound.addr, port: bound.port },
                    remote: Endpoint { addr: Addr::UNSPECIFIED, port: 0 },
                },
                if bound.listening { TcpState::Listen } else { TcpState::Close },
            )
        });
    }
    // A flow without a port and a cookie cannot be recognised by anything that follows.
    for (_, flow) in tables.flows.iter().filter(|(_, flow)| flow.key().local.port != 0 || flow.id().cookie.is_some()) {
        rows.entry(flow.key().netns).or_default().push(flow_row(tables, flow));
    }
    for (_, entry) in tables.time_wait.iter() {
        rows.entry(entry.key.netns).or_default().push(minisocket_row(tables, &entry));
    }
    let mut lists: Vec<_> = rows.into_iter().collect();
    lists.sort_unstable_by_key(|(netns, _)| (netns.inode, netns.cookie));
    let list = |(netns, rows): (Netns, Vec<SocketRow>)| {
        Event::Baseline(Baseline { netns, began: tables.now, ended: tables.now, initial: true, rows: rows.into() })
    };
    lists.into_iter().map(list).collect()
}

/// The flows that have not ended.
pub fn flows(tables: &Tables) -> impl Iterator<Item = OpenFlow> + '_ {
    tables.flows.iter().map(|(_, flow)| {
        let connect = flow.began.zip(flow.established).filter(|_| flow.opened == Opened::Active);
        OpenFlow {
            cookie: flow.id().cookie,
            key: *flow.key(),
            owner: tables.accounting.owner(flow.attribution(), flow.inferred_owner),
            opened: flow.opened,
            state: flow.state(),
            began: flow.began,
            connect_ms: connect.map(|(began, established)| established.since(began) as f64 / 1e6),
            repaired: flow.repaired,
        }
    })
}

fn row(key: FlowKey, state: TcpState) -> SocketRow {
    SocketRow {
        cookie: None,
        sock: 0,
        key,
        state,
        minisocket: false,
        remaining: None,
        owner: None,
        named: None,
        closed: None,
        timestamps: None,
        queue: None,
        has_descriptor: None,
    }
}

fn flow_row(tables: &Tables, flow: &Flow) -> SocketRow {
    let passive = flow.opened == Opened::Passive;
    SocketRow {
        cookie: flow.id().cookie,
        sock: flow.id().sock,
        owner: tables.accounting.owner(flow.attribution(), flow.inferred_owner).map(|owner| owner.pid),
        closed: Some(flow.bound || passive),
        has_descriptor: passive.then_some(flow.waits_at.is_none()),
        ..row(*flow.key(), flow.state())
    }
}

fn minisocket_row(tables: &Tables, entry: &TimeWaitEntry) -> SocketRow {
    let life = TIME_WAIT.as_secs() * 1_000_000_000;
    SocketRow {
        cookie: entry.cookie,
        minisocket: true,
        remaining: Some(life.saturating_sub(tables.now.since(entry.timer_started))),
        owner: tables.accounting.owner(entry.attribution, true).map(|owner| owner.pid),
        closed: Some(entry.user == BucketUser::Minisocket),
        timestamps: entry.without_timestamps.then_some(false),
        ..row(entry.key, if entry.orphan { TcpState::FinWait2 } else { TcpState::TimeWait })
    }
}
