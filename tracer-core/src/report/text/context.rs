//! What every part of the report reads, and which destinations it is about.

use jiff::tz::TimeZone;

use crate::clock::Clock;
use crate::event::{Ktime, Netns};
use crate::host::HostFacts;
use crate::tracker::snapshot::{Destination, Snapshot};

/// From this share on a destination is nearly full. connect() is slower from half of the range on, but still works.
const NEAR_FULL: f64 = 0.8;
/// A forecast further away than this is no reason to act at once.
const SOON_SECONDS: f64 = 3_600.0;

/// What every part of the report reads.
pub struct ReportContext<'a> {
    pub snapshot: &'a Snapshot,
    pub host: &'a HostFacts,
    pub clock: &'a Clock,
    pub zone: &'a TimeZone,
}

impl ReportContext<'_> {
    /// Wall time, with the date only if that is not the day on which the window ended.
    pub fn time(&self, ktime: Ktime) -> String {
        self.clock.time_or_date(ktime, self.snapshot.now, self.zone)
    }

    /// Were some of the `TIME_WAIT` entries of this namespace concluded, not seen?
    pub fn time_wait_inferred(&self, netns: Netns) -> bool {
        self.snapshot.namespaces.iter().any(|namespace| namespace.netns == netns && namespace.time_wait_inferred > 0)
    }

    /// May the numbers of the report be too low?
    pub fn incomplete(&self) -> bool {
        let events = &self.snapshot.events;
        events.lost.upper_bound() > 0 || events.skipped > 0 || events.evicted > 0
    }
}

/// Did ports run out towards the destination, or will they soon?
pub fn in_trouble(destination: &Destination) -> bool {
    destination.failed.without_port() > 0
        || destination.ports.utilisation.is_some_and(|share| share >= NEAR_FULL)
        || destination.seconds_to_exhaustion.is_some_and(|left| left <= SOON_SECONDS)
}
