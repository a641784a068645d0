//! Copies what the tracker is fed for the recorder.
//!
//! A copy costs the tracker's thread a reference count and the names of new processes. An input that the queue to the recorder has no
//! room for is counted and never waited for; the recording says how many events it lacks, and so does the tracker.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::{SyncSender, TrySendError};

use tracer_core::event::{Event, Ktime, LossCounts};
use tracer_core::input::TrackerInput;

/// What the recorder is asked to do.
#[derive(Debug)]
pub enum RecorderCommand {
    Input(TrackerInput),
    /// What the flight recorder waits for has happened.
    Trigger,
}

/// How the recording is doing, readable from every thread.
#[derive(Debug, Default)]
pub struct RecorderProgress {
    /// Bytes written, or held by a flight recorder that has not been triggered.
    pub bytes: AtomicU64,
    /// The recorder takes no more, because of an error or because it has everything that was asked for.
    pub ended: AtomicBool,
}

/// The tracker's end of the queue to the recorder.
pub struct RecorderTee {
    commands: SyncSender<RecorderCommand>,
    /// Events that the queue had no room for.
    lost: u64,
    /// How many of them the recording knows of: the input that told of them may have been lost too.
    recorded_loss: u64,
    /// The last counts that were observed.
    loss: LossCounts,
}

impl RecorderTee {
    /// `commands` leads to the recorder.
    pub fn new(commands: SyncSender<RecorderCommand>) -> Self {
        Self { commands, lost: 0, recorded_loss: 0, loss: LossCounts::default() }
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
    pub fn trigger(&self) {
        // May wait: the queue may be full of what came before, all of which is to be kept. A recorder that has ended has no use for it.
        let _ = self.commands.send(RecorderCommand::Trigger);
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
            Err(TrySendError::Full(_)) => self.lost += input.events(),
        }
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
            RecorderCommand::Trigger => None,
        });
        inputs.flat_map(|facts| facts.iter().filter_map(loss).collect::<Vec<_>>()).collect()
    }

    /// A flight recorder that had written its window once reported what came afterwards as lost to a slow disk.
    #[test]
    fn what_comes_after_a_recorder_has_ended_is_not_lost() {
        let (commands, received) = mpsc::sync_channel(1);
        let mut tee = RecorderTee::new(commands);
        drop(received);
        tee.observe(&input(netns_facts()));
        assert_eq!(tee.close(), 0);
    }

    /// In the full-screen view one recording may follow another.
    #[test]
    fn a_recording_lacks_what_its_own_recorder_lost_and_says_so_until_it_is_recorded() {
        let (commands, received) = mpsc::sync_channel(1);
        let mut tee = RecorderTee::new(commands);
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
