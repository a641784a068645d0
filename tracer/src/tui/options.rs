//! What a view is given at its start and never changes: the terminal's abilities and the trace's host and clock.

use jiff::tz::TimeZone;

use tracer_core::clock::Clock;
use tracer_core::host::HostFacts;

/// What this terminal can show, and how times are written on it.
#[derive(Clone, Debug)]
pub struct RenderOptions {
    /// The terminal's sixteen colours may be used.
    pub colour: bool,
    /// Blocks, braille and letters beyond ASCII.
    pub unicode: bool,
    /// Zone of the times; the reader's, not the host's.
    pub zone: TimeZone,
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
        Self { colour, unicode: utf8 && !console && !ascii, zone: TimeZone::system() }
    }
}

/// The host that is traced, and the clock of its events.
#[derive(Clone, Debug)]
pub struct TraceInfo {
    /// Name, tier and degradations, shown in the header and among the findings.
    pub host: HostFacts,
    /// Turns kernel time into wall time.
    pub clock: Clock,
}
