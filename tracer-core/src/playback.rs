//! A recording into a tracker: the same tracker, fed the same steps, told the same things about the host.
//!
//! Not for: where steps come from (`source::replay`) or what is shown.

use std::path::Path;

use anyhow::Result;

use crate::clock::Clock;
use crate::recording::{Damage, Header, Step, header};
use crate::replay::Replay;
use crate::report::host::{Degradation, HostFacts};
use crate::tracker::findings::{Knobs, Thresholds};
use crate::tracker::snapshot::NoticeKinds;
use crate::tracker::workload::By;
use crate::tracker::{Config, Tracker};

/// A tracker set up as the live one was; `by` overrides how it grouped.
pub fn tracker(header: &Header, by: Option<By>, notices: NoticeKinds) -> Tracker {
    let watch = &header.watch;
    let knobs = &watch.knobs;
    let mut tracker = Tracker::new(Config {
        by: by.or_else(|| watch.by.parse().ok()).unwrap_or_default(),
        thresholds: Thresholds::default(),
        knobs: Knobs {
            tw_reuse_delay: knobs.tw_reuse_delay,
            ip_local_port_range_sockopt: knobs.ip_local_port_range_sockopt,
            port_step_width: knobs.port_step_width,
            kernel: knobs.kernel.clone(),
        },
        time_wait_observed: watch.time_wait_observed,
        calls_observed: watch.calls_observed,
        searches_observed: watch.searches_observed,
        notices,
    });
    tracker.begin(crate::event::Ktime(header.begin_ns));
    tracker
}

/// What the header says of how the tracker was set up.
pub fn watch(config: &Config) -> header::Watch {
    header::Watch {
        by: config.by.name().into(),
        time_wait_observed: config.time_wait_observed,
        calls_observed: config.calls_observed,
        searches_observed: config.searches_observed,
        knobs: header::Knobs {
            tw_reuse_delay: config.knobs.tw_reuse_delay,
            ip_local_port_range_sockopt: config.knobs.ip_local_port_range_sockopt,
            port_step_width: config.knobs.port_step_width,
            kernel: config.knobs.kernel.clone(),
        },
    }
}

/// The host of the recording.
pub fn host(header: &Header) -> HostFacts {
    let host = header.host.clone();
    let degraded = host.degraded.into_iter();
    HostFacts {
        hostname: host.hostname,
        kernel: host.kernel,
        boot_id: host.boot_id,
        tier: host.tier,
        degraded: degraded.map(|one| Degradation { what: one.what, why: one.why, lost: one.lost }).collect(),
    }
}

/// The same, for the header.
pub fn recorded_host(host: &HostFacts) -> header::Host {
    let host = host.clone();
    let degraded = host.degraded.into_iter();
    header::Host {
        hostname: host.hostname,
        kernel: host.kernel,
        boot_id: host.boot_id,
        tier: host.tier,
        degraded: degraded.map(|one| header::Degraded { what: one.what, why: one.why, lost: one.lost }).collect(),
    }
}

/// Feeds one step.
pub fn apply(tracker: &mut Tracker, step: &Step) {
    match step {
        Step::Event(event) => tracker.ingest(event),
        Step::Skipped(records) => tracker.skipped(*records),
        Step::Advance(now) => tracker.advance(*now),
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
    Ok(Played { tracker, by, host: host(replay.header()), clock: replay.clock() })
}

/// Says on stderr what could not be read.
pub fn warn(path: &Path, replay: &Replay) {
    if let Some(damage) = replay.damage() {
        eprintln!("portchurn: {}: {}", path.display(), told(damage));
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
pub fn told(damage: &Damage) -> String {
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
