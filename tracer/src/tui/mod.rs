//! The full-screen view, of a live trace and of a recording alike: it sees frames and gives orders, and cannot tell where the
//! frames come from.
//!
//! Three parts that know little of each other: [`app`] says what the user is looking at and never draws; a key or a click becomes
//! an [`app::Effect`], which [`terminal`] carries out; `render` draws frame and state into cells. So keys are tested
//! without a terminal, screens without a kernel, and both without time.
//!
//! Not for: conclusions (the tracker's), pacing and privileges (`run`'s).

pub mod app;
pub mod channel;
mod columns;
mod export;
pub mod keys;
mod page;
mod prompt;
pub mod render;
mod rows;
pub mod stress;
pub mod terminal;
mod views;

use jiff::tz::TimeZone;

use tracer_core::clock::Clock;
use tracer_core::host::HostFacts;

/// How the view may look on this terminal.
#[derive(Clone, Debug)]
pub struct RenderOptions {
    pub colour: bool,
    /// Blocks, braille and letters beyond ASCII.
    pub unicode: bool,
    /// Zone of the times; the reader's, not the host's.
    pub zone: TimeZone,
}

impl RenderOptions {
    /// What the environment says about this terminal. `ascii` = the user asked to be spared.
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

/// What does not change while one looks.
#[derive(Clone, Debug)]
pub struct TraceInfo {
    pub host: HostFacts,
    pub clock: Clock,
}

#[cfg(test)]
mod tests;
