//! Feeds a recording to a tracker that is set up as the one of the live trace was.
//!
//! Not for: where steps come from (`replay`), what they do to a tracker (`input`), or what is shown.

use std::path::Path;

use crate::clock::Clock;
use crate::host::HostFacts;
use crate::input::feed;
use crate::recording::RecordingHeader;
use crate::replay::{Replay, ReplayError};
use crate::tracker::snapshot::NoticeKinds;
use crate::tracker::workload::By;
use crate::tracker::{Config, Tracker};

/// A tracker set up as the one of the live trace was. `by` overrides how that grouped processes.
pub fn tracker(header: &RecordingHeader, by: Option<By>, notices: NoticeKinds) -> Tracker {
    let recorded = Config::from(&header.watch);
    let mut tracker = Tracker::new(Config { by: by.unwrap_or(recorded.by), notices, ..recorded });
    tracker.begin(crate::event::Ktime(header.begin_ns));
    tracker
}

/// A recording that was read to its end.
pub struct Played {
    /// The tracker, which has been fed everything that could be read.
    pub tracker: Tracker,
    /// What made processes one workload: a value of `--by`.
    pub by: String,
    /// The host that was traced.
    pub host: HostFacts,
    /// Turns instants of the recording into wall time.
    pub clock: Clock,
    /// What could not be read, in sentences.
    pub warnings: Vec<String>,
}

/// Reads a whole recording as fast as possible.
///
/// # Errors
/// [`ReplayError`]: the file is no recording that this version reads, or its bytes could not be read.
pub fn play(path: &Path, by: Option<By>) -> Result<Played, ReplayError> {
    let mut replay = Replay::open(path)?;
    let mut tracker = tracker(replay.header(), by, NoticeKinds::default());
    replay.for_each(|step| feed(&mut tracker, step))?;
    if let Some(damage) = replay.damage() {
        tracker.damaged(damage);
    }
    tracker.finish();
    let by = by.map_or_else(|| replay.header().watch.by.clone(), |by| by.name().into());
    Ok(Played {
        tracker,
        by,
        host: HostFacts::from(&replay.header().host),
        clock: replay.clock(),
        warnings: warnings(path, &replay),
    })
}

/// Sentences on what of the recording could not be read; complete once its end has been reached.
pub fn warnings(path: &Path, replay: &Replay) -> Vec<String> {
    let damage = replay.damage().map(|damage| format!("{}: {damage}", path.display()));
    let bad_rows = (replay.bad_rows() > 0).then(|| {
        format!("{}: {} rows make no sense to this version and were left out", path.display(), replay.bad_rows())
    });
    damage.into_iter().chain(bad_rows).collect()
}
