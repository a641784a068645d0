//! Copies what the tracker is fed for the recorder.
//!
//! A copy costs the tracker's thread a reference count and the names of new processes. An input that the queue to the recorder has no
//! room for is counted and never waited for; the recording says how many events it lacks, and so does the tracker.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};

use tracer_core::event::{Event, Ktime, LossCounts};
use tracer_core::input::TrackerInput;
use tracer_core::recording::header::RecordedTrigger;
use tracer_core::tracker::Tracker;

/// What the recorder is asked to do.
#[derive(Debug)]
pub enum RecorderCommand {
    Input(TrackerInput),
    /// What the flight recorder waits for has happened.
    Trigger(RecordedTrigger),
    /// Complete lists of what is open now, behind all inputs before: a file may begin with them.
    Open(Vec<Event>),
}

/// How the recording is doing, readable from every thread.
#[derive(Debug)]
pub struct RecorderProgress {
    /// Bytes written, or held by a flight recorder that has not been triggered.
    pub bytes: AtomicU64,
    /// The recorder takes no more, because of an error or because it has everything that was asked for.
    pub ended: AtomicBool,
    /// Windows that a flight recorder has written.
    pub windows: AtomicU32,
    /// Where the window of a triggered flight recorder ends, `CLOCK_MONOTONIC` nanoseconds: what happens later is not for it.
    pub window_end: AtomicU64,
    /// [`RecorderCommand::Open`] is wanted.
    pub wants_lists: AtomicBool,
}

impl Default for RecorderProgress {
    fn default() -> Self {
        Self {
            bytes: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            windows: AtomicU32::new(0),
            window_end: AtomicU64::new(u64::MAX),
            wants_lists: AtomicBool::new(false),
        }
    }
}

/// The tracker's end of the queue to the recorder.
pub struct RecorderTee {
    commands: SyncSender<RecorderCommand>,
    progress: Arc<RecorderProgress>,
    /// Events that the queue had no room for.
    lost: u64,
    /// How many of them the recording knows of: the input that told of them may have been lost too.
    recorded_loss: u64,
    /// The last counts that were observed.
    loss: LossCounts,
}

impl RecorderTee {
    /// `commands` leads to the recorder.
    pub fn new(commands: SyncSender<RecorderCommand>, progress: Arc<RecorderProgress>) -> Self {
        Self { commands, progress, lost: 0, recorded_loss: 0, loss: LossCounts::default() }
    }

    /// Events lost on the way to the recorder so far.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// What a reader must know to understand a recording that starts in the middle of a trace: the tracker's facts at `now`.
    pub fn introduce(&mut self, mut facts: Vec<Event>, now: Ktime) {
        for fact in &mut facts {
            self.count_loss(fact);
        }
        // The queue is empty as yet, and a recorder that has ended is noticed elsewhere.
        let _ = self.commands.send(RecorderCommand::Input(TrackerInput {
            facts,
            now: Some(now),
            ..TrackerInput::default()
        }));
    }

    /// Tells the flight recorder that what it waits for has happened.
    pub fn trigger(&self, trigger: RecordedTrigger) {
        // May wait: the queue may be full of what came before, all of which is to be kept. A recorder that has ended has no use for it.
        let _ = self.commands.send(RecorderCommand::Trigger(trigger));
    }

    /// Hands over what is open now, if the recorder wants that.
    pub fn open(&self, tracker: &Tracker) {
        if self.progress.wants_lists.swap(false, Ordering::Relaxed)
            && let Err(TrySendError::Full(_)) = self.commands.try_send(RecorderCommand::Open(tracker.open_sockets()))
        {
            // With the next input.
            self.progress.wants_lists.store(true, Ordering::Relaxed);
        }
    }

    /// Copies an input for the recorder. Does not wait.
    pub fn observe(&mut self, input: &TrackerInput) {
        let mut copy = input.clone();
        for fact in &mut copy.facts {
            self.count_loss(fact);
        }
        let mut tells_loss = copy.facts.iter().any(|fact| matches!(fact, Event::Loss(_)));
        if self.lost > self.recorded_loss && !tells_loss {
            copy.facts.push(self.loss_at(input.now.unwrap_or(self.loss.ktime)));
            tells_loss = true;
        }
        if copy.is_empty() {
            return;
        }
        match self.commands.try_send(RecorderCommand::Input(copy)) {
            Ok(()) if tells_loss => self.recorded_loss = self.lost,
            // A recorder that has ended has everything that was asked for, or says itself why it ended.
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            // A queue that nobody empties any more, or what comes after the window of a flight recorder.
            Err(TrySendError::Full(_)) if self.is_over(input.now) => {}
            Err(TrySendError::Full(_)) => self.lost += input.events(),
        }
    }

    fn is_over(&self, now: Option<Ktime>) -> bool {
        let end = self.progress.window_end.load(Ordering::Relaxed);
        self.progress.ended.load(Ordering::Relaxed) || now.is_some_and(|now| now.0 > end)
    }

    /// Tells the recording of a loss that it does not know of yet, and lets the recorder end. Returns the events lost.
    pub fn close(self) -> u64 {
        if self.lost > self.recorded_loss {
            let facts = vec![self.loss_at(self.loss.ktime)];
            // Waits: nothing comes afterwards, and a recorder that is alive takes it.
            let _ = self.commands.send(RecorderCommand::Input(TrackerInput { facts, ..TrackerInput::default() }));
        }
        self.lost
    }

    fn loss_at(&self, ktime: Ktime) -> Event {
        Event::Loss(LossCounts { ktime, recorder: self.lost, ..self.loss })
    }

    /// What the recording lacks is what this recorder has lost, whatever others lost before it.
    fn count_loss(&mut self, fact: &mut Event) {
        if let Event::Loss(counts) = fact {
            counts.recorder = self.lost;
            self.loss = *counts;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use tracer_core::event::{Netns, NetnsFacts};

    fn input(fact: Event) -> TrackerInput {
        TrackerInput { facts: vec![fact], now: Some(Ktime(1)), ..TrackerInput::default() }
    }

    fn netns_facts() -> Event {
        Event::Netns(Box::new(NetnsFacts { netns: Netns::of_inode(1), ..NetnsFacts::default() }))
    }

    fn losses(received: &mpsc::Receiver<RecorderCommand>) -> Vec<u64> {
        let loss = |fact: &Event| if let Event::Loss(counts) = fact { Some(counts.recorder) } else { None };
        let inputs = received.try_iter().filter_map(|command| match command {
            RecorderCommand::Input(input) => Some(input.facts),
            RecorderCommand::Trigger(_) | RecorderCommand::Open(_) => None,
        });
        inputs.flat_map(|facts| facts.iter().filter_map(loss).collect::<Vec<_>>()).collect()
    }

    /// A flight recorder that had written its window once reported what came afterwards as lost to a slow disk.
    #[test]
    fn what_comes_after_a_recorder_has_ended_is_not_lost() {
        let (commands, received) = mpsc::sync_channel(1);
        let mut tee = RecorderTee::new(commands, Arc::default());
        drop(received);
        tee.observe(&input(netns_facts()));
        assert_eq!(tee.close(), 0);
    }

    /// "66 events were not recorded because the file could not be written fast enough": they came after the window, while the file was
    /// being synced for the last time.
    #[test]
    fn what_comes_after_the_window_is_not_lost_though_the_queue_is_full() {
        let (commands, _received) = mpsc::sync_channel(0);
        let progress = Arc::new(RecorderProgress::default());
        let mut tee = RecorderTee::new(commands, Arc::clone(&progress));
        progress.window_end.store(10, Ordering::Relaxed);
        let at = |now| TrackerInput { now: Some(Ktime(now)), ..input(netns_facts()) };
        tee.observe(&at(11));
        assert_eq!(tee.lost(), 0);
        tee.observe(&at(9));
        assert_eq!(tee.lost(), 1, "this one belonged into the file");
        progress.ended.store(true, Ordering::Relaxed);
        tee.observe(&at(9));
        assert_eq!(tee.lost(), 1, "the recorder says itself why it ended");
    }

    /// In the full-screen view one recording may follow another.
    #[test]
    fn a_recording_lacks_what_its_own_recorder_lost_and_says_so_until_it_is_recorded() {
        let (commands, received) = mpsc::sync_channel(1);
        let mut tee = RecorderTee::new(commands, Arc::default());
        let earlier = Event::Loss(LossCounts { ring_calls: 5, recorder: 7, ..LossCounts::default() });
        tee.introduce(vec![earlier.clone()], Ktime(1));
        // The queue is full of the introduction.
        tee.observe(&input(netns_facts()));
        tee.observe(&input(earlier));
        assert_eq!(losses(&received), [0], "the introduction knows of no loss of this recorder");
        assert_eq!(tee.lost(), 1, "the counts are repeated");
        tee.observe(&TrackerInput::default());
        assert_eq!(losses(&received), [1]);
        tee.observe(&input(netns_facts()));
        assert_eq!(losses(&received), [0; 0], "it is known by now");
        assert_eq!(tee.close(), 1);
    }
}
