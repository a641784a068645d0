//! Which minisockets are orphans, listed again every second.
//!
//! Nearly every minisocket begins in sub-state `FIN_WAIT2`, and no event tells when the peer's FIN ends that: the kernel starts the
//! timer again, which shows only if the new expiry falls into another bucket of the timer wheel (docs/KERNEL.md#time-wait 3.5). A
//! list of `FIN_WAIT2` alone tells, and what it has for the first time or no longer is handed on.

use std::fs;
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};

use super::baseline::{enter, own_netns, sockstat_time_wait};
use super::sock_diag;
use crate::host_clock;
use crate::names::proc_fs::OpenNetns;
use tracer_core::event::{Event, FlowKey, Ktime, Netns, SocketCookie, TcpState, TimeWaitEvent};

/// Pause between two looks: `ss` and the tracker agree from one second to the next.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A look takes some 0.3 ms for each namespace that has minisockets (two walks of the kernel's hash table, KERNEL.md 7.11). The pause is
/// so many times as long, so that looks take 1 % of one CPU at most.
const LOOK_SHARE: u32 = 100;
/// Orphans that are remembered in all namespaces together; those beyond are told by the full lists. `tcp_max_tw_buckets` of a large host.
const MAX_ORPHANS: usize = 262_144;

type Orphan = (FlowKey, Option<SocketCookie>);

/// The namespaces to look at, and the orphans that each had when it was looked at last.
#[derive(Debug, Default)]
pub struct OrphanWatch {
    namespaces: Vec<OpenNetns>,
    known: FxHashMap<Netns, FxHashSet<Orphan>>,
}

impl OrphanWatch {
    /// A pass has gone through these namespaces, the own one first if at all. `facts`: the lists that it has made, from which the tracker
    /// knows the orphans of that moment.
    pub fn follow(&mut self, namespaces: Vec<OpenNetns>, facts: &[Event]) {
        self.namespaces = namespaces;
        self.known.clear();
        let lists = facts.iter().filter_map(|fact| if let Event::Baseline(list) = fact { Some(list) } else { None });
        for list in lists {
            let orphans = list.rows.iter().filter(|row| row.minisocket && row.state == TcpState::FinWait2);
            self.known.insert(list.netns, orphans.map(|row| (row.key, row.cookie)).collect());
        }
    }

    /// What has changed since the last look. Runs on a thread of its own, because it enters namespaces.
    pub fn changes(&mut self) -> Vec<Event> {
        if self.namespaces.is_empty() {
            return Vec::new();
        }
        std::thread::scope(|scope| {
            let look = || self.look();
            let thread = std::thread::Builder::new().name("orphans".into()).spawn_scoped(scope, look);
            thread.ok().and_then(|thread| thread.join().ok()).unwrap_or_default()
        })
    }

    fn look(&mut self) -> Vec<Event> {
        let Self { namespaces, known } = self;
        let mut events = Vec::new();
        let own = own_netns();
        for (at, namespace) in namespaces.iter().enumerate() {
            let netns = namespace.netns;
            // This thread begins in its own namespace, which it could not enter without CAP_SYS_ADMIN. One that is gone by now has no
            // orphans.
            let is_here = at == 0 && (netns.inode == 0 || Some(netns.inode) == own);
            if !is_here && enter(namespace).is_err() {
                continue;
            }
            let began = host_clock::now();
            let present = if has_minisockets() {
                match sock_diag::orphans(netns) {
                    Ok(rows) => rows.into_iter().map(|row| (row.key, row.cookie)).collect(),
                    Err(_) => continue,
                }
            } else {
                FxHashSet::default()
            };
            let room = MAX_ORPHANS.saturating_sub(known.values().map(FxHashSet::len).sum());
            changes(known.entry(netns).or_default(), &present, began, room, &mut events);
        }
        events
    }

    /// How long to wait after a look that took so long.
    pub fn pause_after(look: Duration) -> Duration {
        (look * LOOK_SHARE).max(LOOK_EVERY)
    }
}

/// Makes `known` what is `present`, apart from what finds no `room`.
fn changes(
    known: &mut FxHashSet<Orphan>,
    present: &FxHashSet<Orphan>,
    at: Ktime,
    room: usize,
    events: &mut Vec<Event>,
) {
    let event = |&(key, cookie): &Orphan, fin_wait2| {
        Event::TimeWaitListed(TimeWaitEvent { ktime: at, cookie, key, fin_wait2, timestamps: None, expired: false })
    };
    known.retain(|orphan| {
        let stays = present.contains(orphan);
        if !stays {
            events.push(event(orphan, false));
        }
        stays
    });
    for orphan in present.iter().filter(|orphan| !known.contains(*orphan)).take(room).copied().collect::<Vec<_>>() {
        known.insert(orphan);
        events.push(event(&orphan, true));
    }
}

/// The namespace that this thread is in has minisockets, which are few reads cheaper to learn than their list.
fn has_minisockets() -> bool {
    let text = fs::read_to_string("/proc/thread-self/net/sockstat");
    text.ok().and_then(|text| sockstat_time_wait(&text)) != Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_core::event::{Addr, Endpoint};

    fn orphan(port: u16) -> Orphan {
        let end = |port| Endpoint { addr: Addr::from(std::net::IpAddr::from([127, 0, 0, 1])), port };
        let key = FlowKey { netns: Netns::of_inode(1), device: 0, local: end(port), remote: end(80) };
        (key, SocketCookie::new(u64::from(port)))
    }

    fn told(events: &[Event]) -> Vec<(u16, bool)> {
        events
            .iter()
            .map(|event| match event {
                Event::TimeWaitListed(listed) => (listed.key.local.port, listed.fin_wait2),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn each_orphan_is_told_once_when_it_is_there_and_once_when_it_is_not() {
        let (mut known, now) = (FxHashSet::default(), Ktime(1));
        let look = |known: &mut FxHashSet<Orphan>, ports: &[u16], room| {
            let mut events = Vec::new();
            changes(known, &ports.iter().map(|&port| orphan(port)).collect(), now, room, &mut events);
            told(&events)
        };
        assert_eq!(look(&mut known, &[1], 9), [(1, true)]);
        assert_eq!(look(&mut known, &[1], 9), []);
        assert_eq!(look(&mut known, &[2], 9), [(1, false), (2, true)]);
        assert_eq!(look(&mut known, &[2, 3], 0), [], "no room: the full lists tell of it");
        assert_eq!(look(&mut known, &[], 9), [(2, false)]);
    }

    #[test]
    fn looks_take_a_percent_of_a_cpu_at_most() {
        assert_eq!(OrphanWatch::pause_after(Duration::from_millis(2)), Duration::from_secs(1));
        assert_eq!(OrphanWatch::pause_after(Duration::from_millis(30)), Duration::from_secs(3));
    }
}
