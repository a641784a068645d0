//! Reads the ring buffer, and tells what the kernel could not put into it.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tracer_common::Counter;

use super::Batch;
use crate::host_clock;
use crate::probe::Session;
use tracer_core::event::{Event, Ktime, LossCounts};

/// A batch is handed on at this size, so that the tracker works while the ring is still being read.
const BATCH_BYTES: usize = 256 * 1024;
/// Longest sleep between two looks at the ring. Its programs never wake us (a wake-up costs ten times the record); at
/// 16 MiB the ring holds half a second of the fastest churn measured, so 20 ms leaves a wide margin.
const POLL_MAX: Duration = Duration::from_millis(20);
/// Shortest sleep, for the smallest rings.
const POLL_MIN: Duration = Duration::from_millis(1);
/// A ring smaller than the default is looked at sooner, down to `POLL_MIN`: bytes per millisecond that it must absorb.
const BYTES_PER_MS: usize = 200 * 1024;
/// Longest sleep while nothing comes: an idle host should not notice us, and the ring takes the whole of a burst that begins meanwhile.
const POLL_IDLE: Duration = Duration::from_millis(100);
/// Looks at the ring after the stop, one poll interval apart.
const LAST_LOOKS: u32 = 3;
/// Loss counters are read this often (fifteen small reads from /proc), and once more at the end.
const LOSS_EVERY: Duration = Duration::from_millis(500);

/// What the outside tells the reader.
pub enum ReaderCommand {
    /// Facts gathered elsewhere, to be handed on after everything that is in the ring by now.
    Facts(Vec<Event>),
    /// Drain the ring a last time, then end.
    Stop,
}

/// The reader: owns the session and runs on a thread of its own.
pub struct RingReader {
    session: Session,
    buffer: BytesMut,
    last_loss: LossCounts,
    loss_due: Ktime,
    poll_max: Duration,
    /// The next sleep: `poll_max` under load, longer after each look that found nothing.
    pause: Duration,
}

impl RingReader {
    pub fn new(session: Session, ring_size: u32) -> Self {
        let ring = usize::try_from(ring_size).unwrap_or(usize::MAX);
        let tolerable = Duration::from_millis(u64::try_from(ring / BYTES_PER_MS).unwrap_or(u64::MAX));
        Self {
            session,
            buffer: BytesMut::new(),
            last_loss: LossCounts::default(),
            loss_due: Ktime(0),
            poll_max: tolerable.clamp(POLL_MIN, POLL_MAX),
            pause: tolerable.clamp(POLL_MIN, POLL_MAX),
        }
    }

    /// Reads until told to stop or until nobody listens any more. Blocks when `out` is full: the ring buffer then takes what comes
    /// and counts what it cannot.
    pub fn run(mut self, commands: &Receiver<ReaderCommand>, out: &SyncSender<Batch>) {
        loop {
            match commands.recv_timeout(self.pause) {
                Ok(ReaderCommand::Facts(facts)) => {
                    if !self.drain(out, false)
                        || out.send(Batch { now: host_clock::now(), records: Bytes::new(), facts }).is_err()
                    {
                        return;
                    }
                }
                Ok(ReaderCommand::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    // A record whose writer was preempted holds up those behind it: give it a few chances to be finished.
                    for _ in 0..LAST_LOOKS {
                        if !self.drain(out, false) {
                            return;
                        }
                        std::thread::sleep(self.poll_max);
                    }
                    self.drain(out, true);
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {
                    if !self.drain(out, false) {
                        return;
                    }
                }
            }
        }
    }

    /// Hands on everything that is in the ring now. False if nobody listens.
    fn drain(&mut self, out: &SyncSender<Batch>, last: bool) -> bool {
        let now = host_clock::now();
        let mut idle = true;
        while let Some(item) = self.session.ring.next() {
            idle = false;
            self.buffer.extend_from_slice(&item);
            drop(item);
            if self.buffer.len() >= BATCH_BYTES {
                let records = self.buffer.split().freeze();
                if out.send(Batch { now, records, facts: Vec::new() }).is_err() {
                    return false;
                }
            }
        }
        // Only a ring of full size may wait.
        let idle_pause = if self.poll_max == POLL_MAX { (self.pause * 2).min(POLL_IDLE) } else { self.poll_max };
        self.pause = if idle { idle_pause } else { self.poll_max };
        let facts = self.loss(now, last);
        let batch = Batch { now, records: self.buffer.split().freeze(), facts };
        if batch.records.is_empty() && batch.facts.is_empty() && !last {
            // An idle tick only moves the clock; a tracker that is behind needs no reminder.
            return !matches!(out.try_send(batch), Err(TrySendError::Disconnected(_)));
        }
        out.send(batch).is_ok()
    }

    fn loss(&mut self, now: Ktime, force: bool) -> Vec<Event> {
        if now < self.loss_due && !force {
            return Vec::new();
        }
        self.loss_due = now.plus(u64::try_from(LOSS_EVERY.as_nanos()).unwrap_or(u64::MAX));
        if let Some(logger) = &mut self.session.logger {
            logger.flush();
        }
        let session = &self.session;
        // Misses before rescues: a rescue that happens in between then looks like a duplicate for half a second, never like a loss.
        let (chain_missed, other_missed) = session.missed();
        let counts = LossCounts {
            ktime: Ktime(0),
            ring_transitions: session.counter(Counter::TransitionRingFull),
            ring_time_wait: session.counter(Counter::TimeWaitRingFull),
            ring_calls: session.counter(Counter::CallRingFull),
            ring_facts: session.counter(Counter::FactRingFull),
            chain_missed,
            chain_rescued: session.counter(Counter::Rescued),
            other_missed,
            call_map_full: session.counter(Counter::CallMapFull),
            recorder: 0,
        };
        if counts == self.last_loss {
            return Vec::new();
        }
        self.last_loss = counts;
        vec![Event::Loss(LossCounts { ktime: now, ..counts })]
    }
}
