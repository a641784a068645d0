//! Feeds a recording to a tracker that is set up as the one of the live trace was.
//!
//! Not for: where steps come from (`replay`, `series`), what they do to a tracker (`input`), or what is shown.

use jiff::tz::TimeZone;
use thiserror::Error;

use crate::clock::Clock;
use crate::event::Ktime;
use crate::filter::{Filter, notices};
use crate::host::HostFacts;
use crate::input::feed;
use crate::recording::RecordingHeader;
use crate::replay::{ReplayError, Span};
use crate::series::RecordingSeries;
use crate::step::TrackerStep;
use crate::time_input::{TimeInput, TimeReference};
use crate::tracker::snapshot::{Notice, NoticeKinds, WindowCoverage};
use crate::tracker::workload::By;
use crate::tracker::{Config, TIME_WAIT, Tracker};

/// Of the time before a window so much is read too, for the ports that are held at its begin: a `TIME_WAIT` and the second that its timer
/// may be late, plus some time in which owners are seen.
const RUN_UP_NANOS: u64 = (TIME_WAIT.as_secs() + 30) * 1_000_000_000;
/// Failures that are further apart than this belong to two incidents.
const INCIDENT_GAP_NANOS: u64 = 60_000_000_000;
/// Time shown before the first failure of an incident, and behind the last one.
const AROUND_NANOS: u64 = 60_000_000_000;

/// A tracker set up as the one of the live trace was. `by` overrides how that grouped processes.
pub fn tracker(header: &RecordingHeader, by: Option<By>, notices: NoticeKinds) -> Tracker {
    let recorded = Config::from(&header.watch);
    let mut tracker = Tracker::new(Config { by: by.unwrap_or(recorded.by), notices, ..recorded });
    tracker.begin(Ktime(header.begin_ns));
    tracker
}

/// Which part of a recording is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WindowInput {
    /// Where it begins; `None` is the beginning.
    pub from: Option<TimeInput>,
    /// Where it ends; `None` is the end.
    pub to: Option<TimeInput>,
    /// The time around the worst incident instead: the most connects that failed for lack of a port.
    pub around_failures: bool,
}

impl WindowInput {
    /// Everything is asked for.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }
}

/// A part of a recording, `None` = from its beginning, to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlayWindow {
    /// The first instant inside.
    pub from: Option<Ktime>,
    /// The last instant inside.
    pub to: Option<Ktime>,
}

/// Why a window cannot be had.
#[derive(Debug, Error)]
pub enum WindowError {
    /// The recording cannot be read.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The input is a pipe, or it has no events.
    #[error(
        "--from, --to and --around-failures need a file with events, which can be searched: save the input to a file"
    )]
    NoPositions,
    /// It ends before it begins.
    #[error("--from is later than --to ({from} and {to}): give the earlier time first")]
    Reversed {
        /// The begin.
        from: String,
        /// The end.
        to: String,
    },
    /// It lies outside of the recording.
    #[error("nothing of that time is recorded: the recording is from {first} to {last}")]
    Outside {
        /// First time of the recording.
        first: String,
        /// Last time of the recording.
        last: String,
    },
    /// There is nothing to show the surroundings of.
    #[error("no connect{of} failed for lack of a port in this recording: choose the time with --from and --to")]
    NoFailure {
        /// ` inside the filter`, or nothing.
        of: &'static str,
    },
}

/// The part of `series` that `asked` means, with times of day in `zone`.
///
/// # Errors
/// [`WindowError`]: every variant is possible and says what to do.
pub fn window(
    series: &mut RecordingSeries,
    asked: &WindowInput,
    filter: Option<&Filter>,
    zone: &TimeZone,
) -> Result<PlayWindow, WindowError> {
    if asked.is_all() {
        return Ok(PlayWindow::default());
    }
    let clock = series.clock();
    let span = series.span().ok_or(WindowError::NoPositions)?;
    let about = TimeReference { span, position: None, clock, zone };
    let (from, to) = (asked.from.map(|from| from.ktime(&about)), asked.to.map(|to| to.ktime(&about)));
    let rfc = |ktime: Ktime| clock.rfc3339(ktime);
    if let Some((from, to)) = from.zip(to).filter(|(from, to)| from > to) {
        return Err(WindowError::Reversed { from: rfc(from), to: rfc(to) });
    }
    if from.is_some_and(|from| from > span.last) || to.is_some_and(|to| to < span.first) {
        return Err(WindowError::Outside { first: rfc(span.first), last: rfc(span.last) });
    }
    let inside = PlayWindow { from: from.filter(|from| *from > span.first), to: to.filter(|to| *to < span.last) };
    if !asked.around_failures {
        return Ok(inside);
    }
    let of = if filter.is_some() { " inside the filter" } else { "" };
    let incident = worst_incident(series, inside, filter)?.ok_or(WindowError::NoFailure { of })?;
    series.restart()?;
    let (first, last) = (inside.from.unwrap_or(span.first), inside.to.unwrap_or(span.last));
    let from = Ktime(incident.first.0.saturating_sub(AROUND_NANOS)).max(first);
    let to = incident.last.plus(AROUND_NANOS).min(last);
    Ok(PlayWindow { from: (from > span.first).then_some(from), to: (to < span.last).then_some(to) })
}

/// Times between which connects failed for lack of a port, and how many.
#[derive(Clone, Copy, Debug)]
struct Incident {
    first: Ktime,
    last: Ktime,
    failed: u64,
}

/// The incident with the most failures inside of `window`, the first one of equals.
fn worst_incident(
    series: &mut RecordingSeries,
    window: PlayWindow,
    filter: Option<&Filter>,
) -> Result<Option<Incident>, ReplayError> {
    let kinds = NoticeKinds { failures: true, ..NoticeKinds::default() };
    let mut tracker = tracker(series.header(), None, kinds);
    let (mut worst, mut present): (Option<Incident>, Option<Incident>) = (None, None);
    let mut look = |tracker: &mut Tracker| {
        for notice in notices(tracker, filter) {
            let Notice::FailedConnect(failed) = notice else { continue };
            if !failed.failure.is_without_port() {
                continue;
            }
            let goes_on = present.filter(|known| failed.ktime.since(known.last) <= INCIDENT_GAP_NANOS);
            let incident = goes_on.map_or(Incident { first: failed.ktime, last: failed.ktime, failed: 1 }, |known| {
                Incident { last: known.last.max(failed.ktime), failed: known.failed + 1, ..known }
            });
            present = Some(incident);
            if worst.is_none_or(|worst| incident.first == worst.first || incident.failed > worst.failed) {
                worst = Some(incident);
            }
        }
    };
    play_into(series, &mut tracker, window, |_, tracker| {
        look(tracker);
        Ok::<_, ReplayError>(())
    })?;
    tracker.finish();
    look(&mut tracker);
    Ok(worst)
}

/// The steps of a window, behind those from which it is known what was open when it began.
pub struct WindowSteps<'a> {
    series: &'a mut RecordingSeries,
    begins: Option<Ktime>,
    counts_from: Option<Ktime>,
    to: Option<Ktime>,
    ended: bool,
}

/// The steps of `series` for `window`.
///
/// # Errors
/// [`ReplayError`] of the input.
pub fn steps(series: &mut RecordingSeries, window: PlayWindow) -> Result<WindowSteps<'_>, ReplayError> {
    let run_up = |from: Ktime| Ktime(from.0.saturating_sub(RUN_UP_NANOS));
    let begins = window.from.map(|from| series.seek(run_up(from))).transpose()?;
    // A recording that was cut out of another one says itself where its window begins.
    let counts_from = window.from.or(series.header().window_ns.map(Ktime));
    Ok(WindowSteps { series, begins, counts_from, to: window.to, ended: false })
}

impl WindowSteps<'_> {
    /// Where reading began, if that was not the beginning.
    pub fn begins(&self) -> Option<Ktime> {
        self.begins
    }

    /// Where the window begins: what is before it is there for what was open then. `None` if everything counts.
    pub fn counts_from(&self) -> Option<Ktime> {
        self.counts_from
    }

    /// The next step; `None` at the end of the window.
    ///
    /// # Errors
    /// [`ReplayError`] of the input.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot fail once and end")]
    pub fn next(&mut self) -> Result<Option<TrackerStep>, ReplayError> {
        while !self.ended
            && let Some(step) = self.series.next_step()?
        {
            let Some((to, at)) = self.to.zip(step.ktime()) else { return Ok(Some(step)) };
            if at <= to {
                return Ok(Some(step));
            }
            if matches!(step, TrackerStep::Advance(_)) {
                // The clock ends the window; what is a little late or early around it is told by its own time.
                self.ended = true;
                return Ok(Some(TrackerStep::Advance(to)));
            }
        }
        Ok(None)
    }
}

/// Feeds `tracker` with the part of `series` inside of `window`, and calls `each` with every step inside and the tracker that has got it.
/// What was open when the window began is read from before it. Returns where reading began, if that was not the beginning.
///
/// # Errors
/// [`ReplayError`] of the input, and the errors of `each`.
pub fn play_into<E: From<ReplayError>>(
    series: &mut RecordingSeries,
    tracker: &mut Tracker,
    window: PlayWindow,
    mut each: impl FnMut(&TrackerStep, &mut Tracker) -> Result<(), E>,
) -> Result<Option<Ktime>, E> {
    let mut steps = steps(series, window)?;
    let (begins, mut ahead) = (steps.begins(), steps.counts_from());
    if let Some(begins) = begins {
        tracker.begin(begins);
    }
    while let Some(step) = steps.next()? {
        if let Some((from, at)) = ahead.zip(step.ktime())
            && at >= from
        {
            tracker.begin_window(from);
            ahead = None;
        }
        feed(tracker, &step);
        if ahead.is_none() {
            each(&step, tracker)?;
        }
    }
    if let Some(from) = ahead {
        tracker.begin_window(from);
    }
    if let Some(to) = window.to {
        tracker.advance(to);
    }
    Ok(begins)
}

/// A recording that was read to its end, or to the end of the window.
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

/// Reads a recording, or the part of it inside of `window`, as fast as possible.
///
/// # Errors
/// [`ReplayError`]: its bytes could not be read.
pub fn play(series: &mut RecordingSeries, by: Option<By>, window: PlayWindow) -> Result<Played, ReplayError> {
    let mut tracker = tracker(series.header(), by, NoticeKinds::default());
    let known_from = play_into(series, &mut tracker, window, |_, _| Ok::<_, ReplayError>(()))?;
    if let Some(damage) = series.damage() {
        tracker.damaged(damage);
    }
    if let Some(coverage) = coverage(series, window, known_from) {
        tracker.covers(coverage);
    }
    tracker.finish();
    let by = by.map_or_else(|| series.header().watch.by.clone(), |by| by.name().into());
    Ok(Played {
        tracker,
        by,
        host: HostFacts::from(&series.header().host),
        clock: series.clock(),
        warnings: series.warnings(),
    })
}

/// What of the recording is shown; `None` if it is all of one file.
fn coverage(series: &RecordingSeries, window: PlayWindow, known_from: Option<Ktime>) -> Option<WindowCoverage> {
    let files = series.paths().len() as u64;
    if files == 1 && window == PlayWindow::default() {
        return None;
    }
    let span = series.span().unwrap_or(Span { first: series.begin(), last: series.begin() });
    let (from, to) = (window.from.unwrap_or(span.first), window.to.unwrap_or(span.last));
    let inside = |gap: &&crate::series::PartGap| gap.from < to && gap.to > from;
    let (gaps, all) = series.gaps();
    let gaps: Vec<_> = gaps.iter().filter(inside).map(|gap| (gap.from.max(from), gap.to.min(to))).collect();
    let gap_nanos = gaps.iter().map(|(from, to)| to.since(*from)).sum();
    let whole = window == PlayWindow::default();
    Some(WindowCoverage {
        files,
        part_of: (!whole).then_some((span.first, span.last)),
        known_from,
        gap_nanos: if whole { all } else { gap_nanos },
        gaps,
    })
}
