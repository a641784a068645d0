//! `portchurn replay` on a terminal: the same view, with frames made from a recording at any speed.
//!
//! Every position is reached by reading from the beginning, or from a copy of the tracker that was made on the way from there
//! (`checkpoints`), so that the numbers on the screen are those that `report` prints for the same recording up to there.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::checkpoints::Checkpoints;
use super::{FrameSchedule, run, screen};
use crate::cli::{ReplayConfig, ReplayScreenConfig};
use crate::run::stop::Stop;
use crate::run::{output, recordings, signals};
use crate::tui::TraceInfo;
use crate::tui::channel::{self, Publisher, Status, ViewOrder};
use tracer_core::event::Ktime;
use tracer_core::host::HostFacts;
use tracer_core::input::feed;
use tracer_core::playback;
use tracer_core::replay::{Pacer, Speed};
use tracer_core::series::RecordingSeries;
use tracer_core::step::TrackerStep;
use tracer_core::tracker::Tracker;
use tracer_core::tracker::snapshot::{Finding, FindingId, FindingSubject, Notice, NoticeKinds};

/// Longest sleep before the next look for orders.
const NAP: Duration = Duration::from_millis(10);
/// Steps read before the next look for orders, when no step has to wait for its time.
const STEPS: usize = 4_096;
/// The clock of a recording moves about ten times a second. A step of the clock of this length means that nothing was recorded.
const GAP_NANOS: u64 = 5_000_000_000;
/// Most gaps that are kept. The line that shows them has fewer columns.
const MAX_GAPS: usize = 256;
/// Findings are compared this often while looking for the next new one.
const FINDINGS_NANOS: u64 = 1_000_000_000;
const SECOND: u64 = 1_000_000_000;
const THE_END: &str = "this is the end; t goes back";

/// The full-screen view of a recording.
///
/// # Errors
/// The file is no recording that this version reads ([`ReplayError`](tracer_core::replay::ReplayError)), it has no such time, or the
/// terminal cannot be used.
pub fn replay(config: &ReplayScreenConfig) -> Result<()> {
    let mut player = Player::open(&config.replay)?;
    let trace = TraceInfo::new(HostFacts::from(&player.series.header().host), player.series.clock());
    let (app, options) = screen(trace, config.ascii, config.replay.input.filter.as_ref());
    // A process that a signal kills cannot give the terminal back.
    let stop = signals::watch()?;
    run(app, options, |publisher| player.play(&publisher, &stop))?;
    output::warn(&player.series.warnings());
    Ok(())
}

/// What the player reads towards at full speed.
enum SeekTarget {
    Time(Ktime),
    Mark(Marks),
}

/// What was known when the search for the next mark began.
struct Marks {
    findings: BTreeSet<(FindingId, FindingSubject)>,
    looked: Ktime,
}

#[expect(clippy::struct_excessive_bools, reason = "each says one independent thing")]
struct Player<'a> {
    config: &'a ReplayConfig,
    series: RecordingSeries,
    tracker: Tracker,
    pacer: Pacer,
    schedule: FrameSchedule,
    speed: Speed,
    start: Ktime,
    /// The end of the file; of a pipe, the last time that has been read.
    end: Ktime,
    /// The end was asked for: the recording goes on behind it.
    ends: bool,
    end_known: bool,
    paused: bool,
    target: Option<SeekTarget>,
    /// A step that has been read and is not due yet.
    waiting: Option<TrackerStep>,
    ended: bool,
    gaps: Vec<(Ktime, Ktime)>,
    checkpoints: Checkpoints,
    note: Option<Arc<str>>,
}

impl<'a> Player<'a> {
    fn open(config: &'a ReplayConfig) -> Result<Self> {
        let (series, window) = recordings::open(&config.input)?;
        let (span, begin) = (series.span(), series.begin());
        let end = window.to.or(span.map(|span| span.last)).unwrap_or(begin);
        let target = window.from.map(SeekTarget::Time);
        let tracker = fresh(&series, config);
        Ok(Self {
            config,
            series,
            ends: window.to.is_some(),
            tracker,
            pacer: Pacer::new(config.speed),
            schedule: FrameSchedule::new(),
            speed: config.speed,
            start: begin,
            end,
            end_known: span.is_some(),
            paused: false,
            target,
            waiting: None,
            ended: false,
            gaps: Vec::new(),
            checkpoints: Checkpoints::default(),
            note: None,
        })
    }

    fn play(&mut self, publisher: &Publisher, stop: &Stop) -> Result<()> {
        while !publisher.is_closed() && !stop.is_asked() {
            let mut asked = false;
            while let Some(order) = publisher.next_order() {
                asked = true;
                self.handle_order(order)?;
            }
            let resting = self.ended || (self.paused && self.target.is_none());
            let mut changed = false;
            if !resting {
                changed = self.advance()?;
            }
            // While the player reads towards a target, frames show how far it is.
            if asked || changed || (!resting && self.schedule.is_due()) {
                let status = self.status();
                self.schedule.publish(publisher, &self.tracker, status);
            } else if resting || self.waiting.is_some() {
                std::thread::sleep(NAP);
            }
        }
        Ok(())
    }

    fn status(&mut self) -> Status {
        let replay = channel::ReplayStatus {
            start: self.start,
            end: if self.end_known { self.end } else { self.tracker.now() },
            speed: self.speed,
            paused: self.paused,
            seeking: self.target.is_some(),
            ended: self.ended,
            gaps: self.gaps.clone().into(),
        };
        Status { recording: None, replay: Some(replay), note: self.note.take() }
    }

    fn handle_order(&mut self, order: ViewOrder) -> Result<()> {
        let now = self.tracker.now();
        match order {
            ViewOrder::Details(details) => self.schedule.details = details,
            ViewOrder::Pause(paused) => {
                self.paused = paused;
                if !paused && self.ended {
                    self.note = Some(THE_END.into());
                }
            }
            ViewOrder::Speed(speed) => {
                self.speed = speed;
                self.pacer = Pacer::new(speed);
            }
            ViewOrder::Step(seconds) => {
                self.paused = true;
                let by = seconds.unsigned_abs().saturating_mul(SECOND);
                let to = if seconds < 0 { Ktime(now.0.saturating_sub(by)) } else { now.plus(by) };
                self.go(to.max(self.start))?;
            }
            ViewOrder::Seek(to) => {
                // Without a pause, a jump back from the end or at full speed would be at the end again at once.
                self.paused |= self.ended || self.speed == Speed::Max;
                self.go(to)?;
            }
            ViewOrder::NextMark if !self.ended => {
                self.tracker.drain_notices();
                let findings = marks(&self.tracker.snapshot().findings);
                self.target = Some(SeekTarget::Mark(Marks { findings, looked: now }));
            }
            ViewOrder::NextMark => self.note = Some(THE_END.into()),
            // A recording of a recording would be a copy.
            ViewOrder::Record(_) => {}
        }
        self.pacer.start(self.tracker.now(), Instant::now());
        Ok(())
    }

    fn go(&mut self, to: Ktime) -> Result<()> {
        if to < self.tracker.now() {
            if !self.end_known {
                self.note = Some("a pipe has only one direction".into());
                return Ok(());
            }
            self.go_back(to)?;
        } else if self.ended {
            // No later step can reach the time.
            self.note = Some(THE_END.into());
            return Ok(());
        }
        self.target = Some(SeekTarget::Time(to));
        Ok(())
    }

    /// Goes to the latest copy of the tracker before `to`, or to the beginning.
    fn go_back(&mut self, to: Ktime) -> Result<()> {
        if let Some((mark, tracker)) = self.checkpoints.back(to) {
            self.series.return_to(mark)?;
            self.tracker = tracker;
        } else {
            self.series.restart()?;
            self.tracker = fresh(&self.series, self.config);
        }
        (self.waiting, self.ended) = (None, false);
        Ok(())
    }

    /// Reads until a step is not due yet, a target or the end is reached, or it is time to look for orders. True if a frame is due
    /// because a target or the end was reached.
    fn advance(&mut self) -> Result<bool> {
        for _ in 0..STEPS {
            let Some(step) = self.waiting.take().map_or_else(|| self.series.next_step(), |step| Ok(Some(step)))? else {
                self.finish();
                return Ok(true);
            };
            let at = step.ktime();
            if self.end_known && at.is_some_and(|at| at > self.end) && self.ends {
                self.ended = true;
                self.target = None;
                return Ok(true);
            }
            if self.target.is_none()
                && let TrackerStep::Advance(now) = step
                && self.pacer.due(now, Instant::now()) > Instant::now()
            {
                self.waiting = Some(step);
                return Ok(false);
            }
            let (before, lost) = (self.tracker.now(), self.tracker.lost());
            feed(&mut self.tracker, &step);
            self.checkpoints.read(&self.tracker, || self.series.mark());
            let TrackerStep::Advance(now) = step else { continue };
            if now.since(before) > GAP_NANOS || self.tracker.lost() != lost {
                self.gap(before, now);
            }
            if self.reached(now) {
                self.target = None;
                self.pacer.start(now, Instant::now());
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn gap(&mut self, from: Ktime, to: Ktime) {
        let known = self.gaps.iter().any(|gap| gap.1 >= to);
        if !known && self.gaps.len() < MAX_GAPS && from > Ktime(0) {
            self.gaps.push((from, to));
        }
    }

    fn reached(&mut self, now: Ktime) -> bool {
        let failed = self.tracker.drain_notices().any(|notice| {
            matches!(&notice, Notice::FailedConnect(failed)
                if failed.failure.is_without_port())
        });
        match &mut self.target {
            None => false,
            Some(SeekTarget::Time(to)) => now >= *to,
            Some(SeekTarget::Mark(_)) if failed => {
                self.paused = true;
                self.note = Some("a connect found no port".into());
                true
            }
            Some(SeekTarget::Mark(known)) => {
                if now.since(known.looked) < FINDINGS_NANOS {
                    return false;
                }
                known.looked = now;
                let findings = self.tracker.snapshot().findings;
                let now_known = marks(&findings);
                let new = now_known.difference(&known.findings).next().map(|(id, _)| *id);
                self.paused |= new.is_some();
                self.note = new.map(|id| format!("new finding: {id}").into());
                new.is_some()
            }
        }
    }

    fn finish(&mut self) {
        self.tracker.finish();
        self.ended = true;
        self.end = self.end.max(self.tracker.now());
        if matches!(self.target, Some(SeekTarget::Mark(_))) {
            self.note = Some("no further failure or finding".into());
        }
        self.target = None;
        if let Some(damage) = self.series.damage() {
            self.note = Some(damage.to_string().into());
            self.tracker.damaged(damage);
            if self.end > self.tracker.now() {
                self.gap(self.tracker.now(), self.end);
            }
        }
    }
}

fn fresh(series: &RecordingSeries, config: &ReplayConfig) -> Tracker {
    playback::tracker(
        series.header(),
        config.input.by,
        NoticeKinds { failures: true, history: true, ..NoticeKinds::default() },
    )
}

/// Identities of findings, which stay while their numbers change.
fn marks(findings: &[Finding]) -> BTreeSet<(FindingId, FindingSubject)> {
    findings.iter().map(|finding| (finding.id, finding.subject.clone())).collect()
}

#[cfg(test)]
mod tests;
