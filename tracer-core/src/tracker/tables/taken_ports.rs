//! Ports that a process asked for by number and did not get, with who had them.

use rustc_hash::FxHashMap;

use crate::event::{Endpoint, Ktime, Netns};
use crate::tracker::snapshot::{Owner, PortHolder};

/// Entries, about 400 bytes each. A program that tries one port after another would fill any table: the one that failed longest ago goes.
const MAX_TAKEN: usize = 256;
/// Who has a port is found by a walk over sockets, some nanoseconds each. What makes walks necessary needs no rights (bind() in a loop), so
/// they take a hundredth of the time: this many nanoseconds for each socket of a walk.
const WALK_NANOS_PER_SOCKET: u64 = 1_000;
/// What was not used so far may be used at once: walks over 100,000 sockets in all. A service that starts asks for a handful of ports.
const WALK_BURST_NANOS: u64 = 100_000_000;

/// What was asked for, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AskedPort {
    /// The namespace of the socket.
    pub netns: Netns,
    /// The address and the port that bind() named.
    pub local: Endpoint,
    /// Where connect() of the bound socket went; port 0 if bind() itself failed.
    pub remote: Endpoint,
    /// The process.
    pub pid: u32,
}

/// How often it failed, and why.
#[derive(Clone, Debug)]
pub struct TakenPortEntry {
    /// Who asked; `None` = unknown.
    pub owner: Option<Owner>,
    /// How often it failed.
    pub failed: u64,
    /// The last time.
    pub last: Ktime,
    /// Who had the port then, as far as it was looked for and found.
    pub holder: Option<PortHolder>,
}

/// The table.
#[derive(Clone, Debug, Default)]
pub struct TakenPorts {
    entries: FxHashMap<AskedPort, TakenPortEntry>,
    /// All walks so far are paid for by this time.
    walks_paid: Ktime,
}

impl TakenPorts {
    /// Counts a failure. `holder` of `None`: nobody was found, or it was not looked.
    pub fn count(&mut self, asked: AskedPort, owner: Option<Owner>, at: Ktime, holder: Option<PortHolder>) {
        if self.entries.len() >= MAX_TAKEN && !self.entries.contains_key(&asked) {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.last).map(|(asked, _)| *asked);
            oldest.and_then(|oldest| self.entries.remove(&oldest));
        }
        let entry =
            self.entries.entry(asked).or_insert(TakenPortEntry { owner: None, failed: 0, last: at, holder: None });
        entry.failed += 1;
        entry.last = at;
        entry.owner = owner.or(entry.owner.take());
        entry.holder = holder.or(entry.holder.take());
    }

    /// Whether a walk over so many sockets may be made now. If so, it counts as made.
    pub fn may_walk(&mut self, now: Ktime, sockets: usize) -> bool {
        let may = now >= self.walks_paid;
        if may {
            let unused = Ktime(now.0.saturating_sub(WALK_BURST_NANOS));
            self.walks_paid = self.walks_paid.max(unused).plus(WALK_NANOS_PER_SOCKET * sockets as u64);
        }
        may
    }

    /// All entries.
    pub fn iter(&self) -> impl Iterator<Item = (&AskedPort, &TakenPortEntry)> {
        self.entries.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Addr;

    #[test]
    fn the_port_that_was_asked_for_longest_ago_makes_room() {
        let mut taken = TakenPorts::default();
        let asked = |port| {
            let end = |port| Endpoint { addr: Addr::UNSPECIFIED, port };
            AskedPort { netns: Netns::of_inode(1), local: end(port), remote: end(0), pid: 1 }
        };
        for port in 1..=1_000 {
            taken.count(asked(port), None, Ktime(port.into()), None);
            taken.count(asked(1), None, Ktime(port.into()), None);
        }
        assert_eq!(taken.iter().count(), MAX_TAKEN);
        let first = taken.iter().find(|(found, _)| **found == asked(1)).expect("asked for again and again");
        assert_eq!(first.1.failed, 1_001);
    }

    #[test]
    fn walks_are_rare_where_they_are_long() {
        let mut taken = TakenPorts::default();
        let start = Ktime(10_000_000_000);
        let few = (0..5_000).filter(|_| taken.may_walk(start, 30)).count();
        assert_eq!(few, 3_334, "at once");
        assert!(taken.may_walk(start.plus(1_000_000), 1_000_000));
        assert!(!taken.may_walk(start.plus(900_000_000), 10));
        assert!(taken.may_walk(start.plus(1_100_000_000), 10));
    }
}
