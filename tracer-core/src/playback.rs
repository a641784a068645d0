//! A recording into a tracker: the same tracker, fed the same steps, told the same things about the host.
//!
//! Not for: where steps come from (`source::replay`) or what is shown.

use std::path::Path;

use anyhow::Result;

use crate::clock::Clock;
use crate::host::HostFacts;
use crate::recording::{Damage, RecordedStep, RecordingHeader};
use crate::replay::Replay;
use crate::tracker::snapshot::NoticeKinds;
use crate::tracker::workload::By;
use crate::tracker::{Config, Tracker};

/// A tracker set up as the live one was; `by` overrides how it grouped.
pub fn tracker(header: &RecordingHeader, by: Option<By>, notices: NoticeKinds) -> Tracker {
    let recorded = Config::from(&header.watch);
    let mut tracker = Tracker::new(Config { by: by.unwrap_or(recorded.by), notices, ..recorded });
    tracker.begin(crate::event::Ktime(header.begin_ns));
    tracker
}

/// Feeds one step.
pub fn apply(tracker: &mut Tracker, step: &RecordedStep) {
    match step {
        RecordedStep::Event(event) => tracker.ingest(event),
        RecordedStep::Skipped(records) => tracker.skipped(*records),
        RecordedStep::Advance(now) => tracker.advance(*now),
    }
}

/// A recording read to its end.
pub struct Played {
    pub tracker: Tracker,
    /// What made processes one workload.
    pub by: String,
    pub host: HostFacts,
    pub clock: Clock,
}

/// Reads a whole recording, as fast as it goes. What of it could not be read is said on stderr.
///
/// # Errors
/// It is no recording, or could not be read.
pub fn play(path: &Path, by: Option<By>) -> Result<Played> {
    let mut replay = Replay::open(path)?;
    let mut tracker = tracker(replay.header(), by, NoticeKinds::default());
    replay.for_each(|step| apply(&mut tracker, step))?;
    tracker.finish();
    warn(path, &replay);
    let by = by.map_or_else(|| replay.header().watch.by.clone(), |by| by.name().into());
    Ok(Played { tracker, by, host: HostFacts::from(&replay.header().host), clock: replay.clock() })
}

/// Says on stderr what could not be read.
pub fn warn(path: &Path, replay: &Replay) {
    if let Some(damage) = replay.damage() {
        eprintln!("portchurn: {}: {}", path.display(), damage_message(damage));
    }
    if replay.bad_rows() > 0 {
        eprintln!(
            "portchurn: {}: {} rows make no sense to this version and were left out",
            path.display(),
            replay.bad_rows()
        );
    }
}

/// One sentence on what is missing.
pub fn damage_message(damage: &Damage) -> String {
    let seconds = match damage.nanos {
        Some(0) => String::new(),
        Some(nanos) => format!(" and the last {:.1} s", nanos as f64 / 1e9),
        None => " and what came after them".into(),
    };
    match damage.bytes {
        0 => format!("{}; everything up to there was read", damage.why),
        bytes => {
            format!("{}; everything before byte {} was read, {bytes} bytes{seconds} are missing", damage.why, damage.at)
        }
    }
}
