//! What a view is given at its start and never changes: the terminal's abilities, the trace's host, its clock and zone.

use jiff::tz::TimeZone;

use tracer_core::clock::Clock;
use tracer_core::event::Ktime;
use tracer_core::host::HostFacts;

/// What this terminal can show.
#[derive(Clone, Copy, Debug)]
pub struct RenderOptions {
    /// The terminal's sixteen colours may be used.
    pub colour: bool,
    /// Blocks, braille and letters beyond ASCII.
    pub unicode: bool,
}

impl RenderOptions {
    /// Options for the terminal that the environment describes; `ascii` = the user asked for ASCII alone.
    pub fn from_env(colour: bool, ascii: bool) -> Self {
        let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        // POSIX: the first of these that is set decides.
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default().to_lowercase();
        let utf8 = locale.contains("utf-8") || locale.contains("utf8");
        // The kernel's own console has neither braille nor eighth blocks in its font.
        let console = set("TERM").is_some_and(|term| term == "linux");
        Self { colour, unicode: utf8 && !console && !ascii }
    }
}

/// The host that is traced, and how the times of its events are written.
#[derive(Clone, Debug)]
pub struct TraceInfo {
    /// Name, tier and degradations, shown in the header and among the findings.
    pub host: HostFacts,
    /// Turns kernel time into wall time.
    pub clock: Clock,
    /// Zone in which times are shown and typed; the reader's, not the host's.
    pub zone: TimeZone,
}

impl TraceInfo {
    /// A trace of this host, with times in the system's zone.
    pub fn new(host: HostFacts, clock: Clock) -> Self {
        Self { host, clock, zone: TimeZone::system() }
    }

    /// `14:02:30.123`.
    pub fn time_of_day(&self, at: Ktime) -> String {
        self.clock.time_of_day(at, &self.zone)
    }

    /// The time of day, with the date if it is another day than `now`.
    pub fn time_or_date(&self, at: Ktime, now: Ktime) -> String {
        self.clock.time_or_date(at, now, &self.zone)
    }

    /// `2026-03-14 14:02:30`.
    pub fn date_time(&self, at: Ktime) -> String {
        self.clock.date_time(at, &self.zone)
    }
}
