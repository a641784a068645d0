//! `portchurn live`: frames of the running trace, and a recording of it on request.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Result;
use jiff::tz::TimeZone;

use super::{FrameSchedule, run, screen};
use crate::cli::LiveConfig;
use crate::run::record::recorder::Recorder;
use crate::run::record::sink::RecordingSink;
use crate::run::record::tee::RecorderTee;
use crate::run::session::{BaselineRequest, LiveTrace};
use crate::run::tracker_thread::TraceObserver;
use crate::run::{privileges, signals};
use crate::stdio::say;
use crate::tui::TraceInfo;
use crate::tui::channel::{Publisher, RecordingStatus, Status, ViewOrder};
use tracer_core::clock::Clock;
use tracer_core::event::Ktime;
use tracer_core::input::TrackerInput;
use tracer_core::layout::human;
use tracer_core::recording::RecordingHeader;
use tracer_core::tracker::Tracker;
use tracer_core::tracker::snapshot::NoticeKinds;

/// Frames are made this often while only the clock moves.
const IDLE_CADENCE: Duration = Duration::from_secs(1);

/// The full-screen view of this host.
///
/// # Errors
/// The trace could not start ([`crate::run::StartError`]), or the terminal could not be used.
pub fn live(config: &LiveConfig) -> Result<()> {
    let notices = NoticeKinds { history: true, ..NoticeKinds::default() };
    let live = LiveTrace::start(&config.trace, notices, &signals::watch()?)?;
    privileges::lock();
    let trace = TraceInfo::new(live.host().clone(), live.clock);
    let (app, options) = screen(trace, config.ascii, config.filter.as_ref());
    let header = live.header();
    let (baseline_requests, clock) = (live.baseline_requests(), live.clock);
    let mut summary = None;
    run(app, options, |publisher| {
        let mut controller = LiveController::new(publisher, header, baseline_requests, clock);
        live.run(None, &mut controller)?;
        summary = controller.finish()?;
        Ok(())
    })?;
    // After the view, so that the line stays on the terminal.
    if let Some(summary) = summary {
        say(summary);
    }
    Ok(())
}

/// Publishes frames of the trace, and carries out the orders of the view.
struct LiveController {
    publisher: Publisher,
    schedule: FrameSchedule,
    last: Instant,
    read: u64,
    header: RecordingHeader,
    baseline_requests: mpsc::Sender<BaselineRequest>,
    clock: Clock,
    recording: Option<RunningRecording>,
    /// The tee of this recorder is closed, and its queue is being written.
    ending: Option<Recorder>,
    /// Events that earlier recordings of this view have lost.
    unrecorded: u64,
    /// From now on the end of a recording is told after the view, not in it.
    trace_over: bool,
    note: Option<Arc<str>>,
}

/// A recording that takes inputs.
struct RunningRecording {
    recorder: Recorder,
    tee: RecorderTee,
    shown: RecordingStatus,
}

impl TraceObserver for LiveController {
    fn on_input(&mut self, input: &TrackerInput) {
        if let Some(running) = &mut self.recording {
            running.tee.observe(input);
        }
    }

    fn unrecorded(&self) -> u64 {
        self.unrecorded + self.recording.as_ref().map_or(0, |running| running.tee.lost())
    }

    fn on_last_input(&mut self) {
        self.stop();
        self.trace_over = true;
    }

    fn on_fed(&mut self, tracker: &mut Tracker) -> ControlFlow<()> {
        if self.publisher.is_closed() {
            return ControlFlow::Break(());
        }
        let mut asked = false;
        while let Some(order) = self.publisher.next_order() {
            asked = true;
            match order {
                ViewOrder::Details(details) => self.schedule.details = details,
                ViewOrder::Record(true) if self.recording.is_none() && self.ending.is_none() => self.record(tracker),
                ViewOrder::Record(false) => self.stop(),
                // Orders to a replay.
                _ => {}
            }
        }
        if !self.trace_over {
            self.collect_ended();
        }
        let quiet = tracker.read() == self.read && self.last.elapsed() < IDLE_CADENCE;
        if asked || (self.schedule.is_due() && (!quiet || self.note.is_some())) {
            self.read = tracker.read();
            self.last = Instant::now();
            let status = self.status();
            self.schedule.publish(&self.publisher, tracker, status);
        }
        ControlFlow::Continue(())
    }
}

impl LiveController {
    fn new(
        publisher: Publisher,
        header: RecordingHeader,
        baseline_requests: mpsc::Sender<BaselineRequest>,
        clock: Clock,
    ) -> Self {
        Self {
            publisher,
            schedule: FrameSchedule::new(),
            last: Instant::now(),
            read: u64::MAX,
            header,
            baseline_requests,
            clock,
            recording: None,
            ending: None,
            unrecorded: 0,
            trace_over: false,
            note: None,
        }
    }

    fn status(&mut self) -> Status {
        let recording = self.recording.as_ref().map(|running| RecordingStatus {
            bytes: running.recorder.progress.bytes.load(Ordering::Relaxed),
            ..running.shown.clone()
        });
        Status { recording, replay: None, note: self.note.take() }
    }

    fn record(&mut self, tracker: &Tracker) {
        let time = self.clock.date_time(tracker.now(), &TimeZone::system()).replace(['-', ':'], "").replace(' ', "-");
        let name = format!("portchurn-{time}.arrow");
        match self.begin(Path::new(&name), tracker.now()) {
            Ok((recorder, mut tee)) => {
                let facts = tracker.facts().into_iter().chain(tracker.open_sockets()).collect();
                tee.introduce(facts, tracker.now());
                // What the tracker has got wrong since the last list is set right.
                let _ = self.baseline_requests.send(BaselineRequest::WithOwners);
                let path: Arc<str> = std::path::absolute(&name).map_or(name, |path| path.display().to_string()).into();
                self.note = Some(format!("recording into {path}").into());
                let shown = RecordingStatus { path, since: tracker.now(), bytes: 0 };
                self.recording = Some(RunningRecording { recorder, tee, shown });
            }
            Err(error) => self.note = Some(format!("not recording: {error:#}").into()),
        }
    }

    fn begin(&self, path: &Path, now: Ktime) -> Result<(Recorder, RecorderTee)> {
        let header = RecordingHeader { begin_ns: now.0, continued: true, ..self.header.clone() };
        let file = tracer_core::recording::create(path, false)?;
        Recorder::start(&header, RecordingSink::one(path, file, &header)?)
    }

    fn stop(&mut self) {
        if let Some(running) = self.recording.take() {
            self.unrecorded += running.tee.close();
            self.ending = Some(running.recorder);
        }
    }

    /// Shows in the view what a recorder that has ended has written, or why it ended.
    fn collect_ended(&mut self) {
        if self.recording.as_ref().is_some_and(|running| running.recorder.has_ended()) {
            self.stop();
        }
        if self.ending.as_ref().is_some_and(Recorder::has_ended)
            && let Some(recorder) = self.ending.take()
        {
            self.note = Some(summary(recorder).unwrap_or_else(|error| format!("recording: {error:#}")).into());
        }
    }

    /// Ends a recording that still runs. Returns what was written, if the view has not shown it.
    ///
    /// # Errors
    /// The recorder could not end its file, or it panicked.
    fn finish(mut self) -> Result<Option<String>> {
        self.stop();
        self.ending.take().map(summary).transpose()
    }
}

/// What a recorder has written, and what ended it before its time, in one line.
fn summary(recorder: Recorder) -> Result<String> {
    let outcome = recorder.join()?;
    let files = outcome.files.iter().map(|(path, written)| {
        format!("recorded {} rows, {} in {}", written.rows, human::bytes(written.bytes), path.display())
    });
    let mut summary = files.collect::<Vec<_>>().join("; ");
    if let Some(trouble) = outcome.trouble {
        summary = format!("{summary}; ended before its time: {trouble}");
    }
    Ok(summary)
}
