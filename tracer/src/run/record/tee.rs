//! The place where the tracker's food is copied for the recorder: as the tracker gets it, before the tracker gets it.
//!
//! Costs the tracker's thread a reference count per batch. What does not fit into the queue is counted, told to the tracker and to
//! the recording alike, and never waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};

use bytes::Bytes;
use tracer_common::TaskRecord;

use crate::names::Names;
use crate::source::Batch;
use tracer_core::event::{Event, Ktime, LossCounts, Namer, ProcessFacts};
use tracer_core::tracker::Tracker;

/// While nothing happens the clock of a recorded trace moves this often: each time is a row.
const TICK_NANOS: u64 = 100_000_000;

/// One batch as the tracker was fed it.
#[derive(Debug, Default)]
pub struct TrackerInput {
    pub records: Bytes,
    /// What the records about processes became; it was asked of /proc and cannot be asked again.
    pub processes: Vec<ProcessFacts>,
    pub facts: Vec<Event>,
    /// The clock afterwards, if it moved.
    pub now: Option<Ktime>,
}

/// What the recorder is asked to do.
#[derive(Debug)]
pub enum RecorderCommand {
    Input(TrackerInput),
    /// What the flight recorder waits for has happened.
    Trigger,
}

/// How the recording is doing, for whoever looks.
#[derive(Debug, Default)]
pub struct RecorderProgress {
    /// Rows and bytes written.
    pub rows: AtomicU64,
    pub bytes: AtomicU64,
    /// Events that the queue had no room for.
    pub lost: AtomicU64,
    /// The recorder has ended, by error or because it has all that it was to have.
    pub ended: AtomicBool,
}

/// The tracker's end of the queue.
pub struct RecorderTee {
    commands: SyncSender<RecorderCommand>,
    progress: Arc<RecorderProgress>,
    /// Lost so far, and how much of it the tracker and the recording know: the word on it may be lost too.
    lost: u64,
    told: u64,
    recorded: u64,
    loss: LossCounts,
    ticked: Ktime,
}

/// Keeps what it passes on.
struct Keeping<'a> {
    names: &'a mut Names,
    kept: Vec<ProcessFacts>,
}

impl Namer for Keeping<'_> {
    fn process(&mut self, record: &TaskRecord) -> ProcessFacts {
        let facts = self.names.process(record);
        self.kept.push(facts.clone());
        facts
    }
}

impl RecorderTee {
    pub fn new(commands: SyncSender<RecorderCommand>, progress: Arc<RecorderProgress>) -> Self {
        Self { commands, progress, lost: 0, told: 0, recorded: 0, loss: LossCounts::default(), ticked: Ktime(0) }
    }

    pub fn progress(&self) -> &RecorderProgress {
        &self.progress
    }

    /// What must be known to understand what follows, of a recording that starts in the middle: for the recorder alone, the tracker
    /// knows it.
    pub fn introduce(&mut self, facts: Vec<Event>, now: Ktime) {
        self.ticked = now;
        // The queue is empty as yet.
        let _ = self.commands.send(RecorderCommand::Input(TrackerInput {
            facts,
            now: Some(now),
            ..TrackerInput::default()
        }));
    }

    /// Tells the flight recorder that this is what it waits for.
    pub fn trigger(&self) {
        // The queue may be full of what came before, all of which is to be kept; a recorder that has ended needs no telling.
        let _ = self.commands.send(RecorderCommand::Trigger);
    }

    /// Feeds the tracker, and the recorder with the same.
    pub fn feed(&mut self, tracker: &mut Tracker, batch: &Batch, names: &mut Names) {
        let mut facts: Vec<Event> = batch.facts.iter().map(|fact| self.with_own_loss(fact)).collect();
        if self.lost > self.told.min(self.recorded) {
            self.told = self.lost;
            facts.push(Event::Loss(LossCounts { ktime: batch.now, recorder: self.lost, ..self.loss }));
        }
        let idle = batch.records.is_empty() && facts.is_empty();
        if idle && batch.now.since(self.ticked) < TICK_NANOS {
            return;
        }
        let mut keeping = Keeping { names, kept: Vec::new() };
        // Without the word on the loss, which would add to the loss.
        let mut events = batch.facts.len() as u64;
        let skipped = tracer_core::event::decode(&batch.records, &mut keeping, |event| {
            events += 1;
            tracker.ingest(&event);
        });
        tracker.skipped(skipped);
        for fact in &facts {
            tracker.ingest(fact);
        }
        // A batch read by pieces carries the time of its first piece: the clock never outruns the records.
        let now = (batch.now > self.ticked).then_some(batch.now);
        if let Some(now) = now {
            self.ticked = now;
            tracker.advance(now);
        }
        let recorded = if facts.iter().any(|fact| matches!(fact, Event::Loss(_))) { self.lost } else { self.recorded };
        let fed = TrackerInput { records: batch.records.clone(), processes: keeping.kept, facts, now };
        match self.commands.try_send(RecorderCommand::Input(fed)) {
            Ok(()) => self.recorded = recorded,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.lost += events;
                self.progress.lost.store(self.lost, Ordering::Relaxed);
            }
        }
    }

    /// Tells tracker and recording of the loss that neither knows of yet. The last thing before the end.
    pub fn close(self, tracker: &mut Tracker) {
        if self.lost > self.told.min(self.recorded) {
            let loss = Event::Loss(LossCounts { ktime: tracker.now(), recorder: self.lost, ..self.loss });
            tracker.ingest(&loss);
            // Waits: this is the end, and a recorder that is alive takes it.
            let _ = self
                .commands
                .send(RecorderCommand::Input(TrackerInput { facts: vec![loss], ..TrackerInput::default() }));
        }
    }

    fn with_own_loss(&mut self, fact: &Event) -> Event {
        let Event::Loss(counts) = fact else { return fact.clone() };
        self.told = self.lost;
        self.loss = LossCounts { recorder: self.lost, ..*counts };
        Event::Loss(self.loss)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::names::proc_fs::ProcFs;
    use tracer_core::event::{Netns, NetnsFacts};
    use tracer_core::tracker::Config;

    /// A recorder that waits for its disk takes nothing out of the queue.
    #[test]
    fn a_recorder_that_does_not_come_along_costs_counted_events_and_no_time() {
        let (sender, commands) = mpsc::sync_channel(2);
        let progress = Arc::new(RecorderProgress::default());
        let mut tee = RecorderTee::new(sender, Arc::clone(&progress));
        let mut tracker = Tracker::new(Config::default());
        let mut names = Names::with_executables(ProcFs::default());
        let fact = |at: u64| {
            let facts = NetnsFacts { ktime: Ktime(at), netns: Netns::of_inode(1), ..NetnsFacts::default() };
            Batch { facts: vec![Event::Netns(Box::new(facts))], now: Ktime(at), ..Batch::default() }
        };
        let began = Instant::now();
        for at in 1..=5 {
            tee.feed(&mut tracker, &fact(at), &mut names);
        }
        assert!(began.elapsed() < Duration::from_secs(5), "nobody takes anything, and nobody waited");
        assert_eq!(tracker.now(), Ktime(5), "the tracker has had everything");
        assert_eq!(progress.lost.load(Ordering::Relaxed), 3);
        assert_eq!(tracker.lost().recorder, 2, "what was lost before the last batch");
        // The word on it, with nothing else, is lost as well.
        tee.feed(&mut tracker, &Batch { now: Ktime(6), ..Batch::default() }, &mut names);
        assert_eq!((tracker.lost().recorder, progress.lost.load(Ordering::Relaxed)), (3, 3));
        let recorder = std::thread::spawn(move || commands.iter().count());
        tee.close(&mut tracker);
        assert_eq!(tracker.lost().recorder, 3);
        assert_eq!(recorder.join().expect("a count"), 3, "the two that fitted, and the last word");
    }
}
