//! The thread that owns the tracker while a trace runs.
//!
//! It feeds the tracker with what the reader hands over. An observer (a stream of lines, a screen, a recorder) sees each input before
//! the tracker gets it and the tracker afterwards; nothing that an observer does changes what the tracker is fed, except that the
//! tracker is told of events that could not be recorded.

use std::ops::ControlFlow;

use crate::host_clock;
use tracer_core::event::{Event, LossCounts};
use tracer_core::input::TrackerInput;
use tracer_core::tracker::Tracker;

/// What a command does beside the tracker while a trace runs. All of it happens on the tracker's thread.
pub trait TraceObserver {
    /// The tracker is about to get `input`. Must not wait: the kernel's ring buffer fills meanwhile.
    fn on_input(&mut self, input: &TrackerInput) {
        let _ = input;
    }

    /// Events that were to be recorded and could not be, since the start of the trace.
    fn unrecorded(&self) -> u64 {
        0
    }

    /// The tracker has got an input, or has concluded everything at the end of the trace. `Break` ends the trace.
    fn on_fed(&mut self, tracker: &mut Tracker) -> ControlFlow<()>;

    /// No further input comes.
    fn on_last_input(&mut self) {}
}

impl<F: FnMut(&mut Tracker) -> ControlFlow<()>> TraceObserver for F {
    fn on_fed(&mut self, tracker: &mut Tracker) -> ControlFlow<()> {
        self(tracker)
    }
}

/// Feeds the tracker until `inputs` ends, the observer breaks, or it `is_over`. Returns the tracker, which has concluded everything.
pub fn run(
    inputs: impl IntoIterator<Item = TrackerInput>,
    tracker: Tracker,
    is_over: &dyn Fn() -> bool,
    observer: &mut impl TraceObserver,
) -> Tracker {
    let mut feeder = Feeder { tracker, loss: LossCounts::default() };
    for input in inputs {
        feeder.feed(input, observer);
        if observer.on_fed(&mut feeder.tracker).is_break() || is_over() {
            break;
        }
    }
    if feeder.loss.recorder != observer.unrecorded() {
        feeder.feed(TrackerInput::default(), observer);
    }
    observer.on_last_input();
    let mut tracker = feeder.tracker;
    tracker.finish();
    // The trace has ended anyway.
    let _ = observer.on_fed(&mut tracker);
    tracker
}

struct Feeder {
    tracker: Tracker,
    /// The counts that the tracker was last fed.
    loss: LossCounts,
}

impl Feeder {
    fn feed(&mut self, mut input: TrackerInput, observer: &mut impl TraceObserver) {
        self.count_unrecorded(&mut input, observer.unrecorded());
        observer.on_input(&input);
        input.feed(&mut self.tracker);
        // An idle source hands its clock on ten times a second.
        self.tracker.lags(host_clock::now().since(self.tracker.now()));
    }

    /// The reader counts what the kernel lost; what was not recorded is known here.
    fn count_unrecorded(&mut self, input: &mut TrackerInput, unrecorded: u64) {
        for fact in &mut input.facts {
            if let Event::Loss(counts) = fact {
                counts.recorder = unrecorded;
                self.loss = *counts;
            }
        }
        if self.loss.recorder != unrecorded {
            let ktime = input.now.unwrap_or_else(|| self.tracker.now());
            self.loss = LossCounts { ktime, recorder: unrecorded, ..self.loss };
            input.facts.push(Event::Loss(self.loss));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::run::record::tee::{RecorderCommand, RecorderTee};
    use tracer_core::event::{Ktime, Netns, NetnsFacts};
    use tracer_core::tracker::Config;

    /// A recorder with a queue of some length, and the instants that the tracker was advanced to.
    struct Recording {
        tee: Option<RecorderTee>,
        lost: u64,
        /// Goes when the trace is over.
        running: Option<mpsc::Sender<()>>,
        instants: Vec<Ktime>,
        /// What the tracker knew of the loss after each input.
        known_losses: Vec<u64>,
    }

    impl Recording {
        fn new(tee: Option<RecorderTee>) -> Self {
            Self { tee, lost: 0, running: None, instants: Vec::new(), known_losses: Vec::new() }
        }
    }

    impl TraceObserver for Recording {
        fn on_input(&mut self, input: &TrackerInput) {
            if let Some(tee) = &mut self.tee {
                tee.observe(input);
            }
        }

        fn unrecorded(&self) -> u64 {
            self.tee.as_ref().map_or(self.lost, RecorderTee::lost)
        }

        fn on_fed(&mut self, tracker: &mut Tracker) -> ControlFlow<()> {
            self.instants.push(tracker.now());
            self.known_losses.push(tracker.lost().recorder);
            ControlFlow::Continue(())
        }

        fn on_last_input(&mut self) {
            self.running = None;
            if let Some(tee) = self.tee.take() {
                self.lost = tee.close();
            }
        }
    }

    fn netns_facts(at: u64) -> TrackerInput {
        let facts = NetnsFacts { ktime: Ktime(at), netns: Netns::of_inode(1), ..NetnsFacts::default() };
        TrackerInput { facts: vec![Event::Netns(Box::new(facts))], now: Some(Ktime(at)), ..TrackerInput::default() }
    }

    /// Events that happened long ago are read only now: said, with what was left out to catch up.
    #[test]
    fn a_tracker_that_is_behind_says_so() {
        let now = host_clock::now();
        let old =
            TrackerInput { now: Some(Ktime(now.0.saturating_sub(5_000_000_000).max(1))), ..TrackerInput::default() };
        let mut recording = Recording::new(None);
        let tracker = run([old], Tracker::new(Config::default()), &|| false, &mut recording);
        let lag = tracker.snapshot().events.lag_ms;
        assert!(lag.is_some_and(|lag| (5_000..60_000).contains(&lag)), "{lag:?}");
        let tracker = run(
            [TrackerInput { now: Some(host_clock::now()), ..TrackerInput::default() }],
            tracker,
            &|| false,
            &mut recording,
        );
        let events = tracker.snapshot().events;
        assert!(events.lag_ms < Some(5_000) && events.lag_peak_ms >= lag, "{events:?}");
    }

    /// The recorder once thinned the idle clock out for the tracker too, so that recording changed what the live tracker was fed.
    #[test]
    fn a_recorder_does_not_change_the_instants_that_the_tracker_is_advanced_to() {
        let inputs: Vec<_> = (0..50)
            .map(|poll| match Ktime(20_000_000 * poll + 1) {
                now if poll % 7 == 3 => netns_facts(now.0),
                now => TrackerInput { now: Some(now), ..TrackerInput::default() },
            })
            .collect();
        let (commands, received) = mpsc::sync_channel(inputs.len() + 1);
        let mut recorded = Recording::new(Some(RecorderTee::new(commands, Arc::default())));
        let mut alone = Recording::new(None);
        run(inputs.clone(), Tracker::new(Config::default()), &|| false, &mut recorded);
        run(inputs.clone(), Tracker::new(Config::default()), &|| false, &mut alone);
        assert_eq!(recorded.instants, alone.instants);
        assert_eq!(received.iter().count(), inputs.len(), "and the recorder has had all of them");
    }

    /// A recorder that waits for its disk takes nothing out of the queue.
    #[test]
    fn a_recorder_that_does_not_come_along_costs_counted_events_and_no_time() {
        let (commands, received) = mpsc::sync_channel(2);
        let mut recording = Recording::new(Some(RecorderTee::new(commands, Arc::default())));
        let (running, over) = mpsc::channel();
        recording.running = Some(running);
        let began = Instant::now();
        let recorder = std::thread::scope(|scope| {
            let inputs =
                (1..=5).map(netns_facts).chain([TrackerInput { now: Some(Ktime(6)), ..TrackerInput::default() }]);
            let recorder = scope.spawn(move || {
                // Comes along when the trace is over.
                assert!(over.recv().is_err());
                received.iter().collect::<Vec<_>>()
            });
            let tracker = run(inputs, Tracker::new(Config::default()), &|| false, &mut recording);
            assert_eq!(tracker.now(), Ktime(6), "the tracker has had everything");
            assert_eq!(tracker.lost().recorder, 3);
            recorder.join().expect("what was received")
        });
        assert!(began.elapsed() < Duration::from_secs(5), "nobody takes anything, and only the end waits");
        // What was lost before each input; the word on a loss, which is lost as well, adds nothing to it.
        assert_eq!(recording.known_losses, [0, 0, 0, 1, 2, 3, 3]);
        assert_eq!(recording.lost, 3);
        let [RecorderCommand::Input(_), RecorderCommand::Input(_), RecorderCommand::Input(last)] = &recorder[..] else {
            panic!("the two that fitted, and the last word: {recorder:?}")
        };
        assert!(matches!(last.facts[..], [Event::Loss(LossCounts { recorder: 3, .. })]), "{last:?}");
    }
}
