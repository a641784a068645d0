//! Reads the ring buffer, and the counters of what the BPF programs could not put into it.
//!
//! Executables are looked up here, as soon as the record of a process is read: later the process may have ended, and the tracker and the
//! recorder, which both decode the record, must see the same executable.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::time::Duration;

use bytes::BytesMut;
use tracer_common::{Counter, RecordKind};

use crate::host_clock;
use crate::names::{self, proc_fs::ProcFs};
use crate::probe::Session;
use tracer_core::event::{Event, Ktime, LossCounts, ProcessFacts};
use tracer_core::input::TrackerInput;

/// An input is handed on at this size, so that the tracker works while the ring is still being read.
const INPUT_BYTES: usize = 256 * 1024;
/// Longest sleep between two looks at the ring under load. The BPF programs never wake the reader, because a wake-up costs ten times a
/// record. A ring of 16 MiB holds half a second of the fastest churn measured, so 20 ms leave a wide margin.
const POLL_MAX: Duration = Duration::from_millis(20);
/// Sleep between two looks at the smallest rings.
const POLL_MIN: Duration = Duration::from_millis(1);
/// Bytes per millisecond that a ring must absorb: a ring smaller than the default is looked at sooner, down to `POLL_MIN`.
const BYTES_PER_MS: usize = 200 * 1024;
/// Longest sleep while no records come, so that an idle host stays idle. The ring holds what a burst writes meanwhile.
const POLL_IDLE: Duration = Duration::from_millis(100);
/// While nothing else is handed on, the clock is handed on this often. Each time is a row in a recording.
const IDLE_TICK_NANOS: u64 = 100_000_000;
/// Looks at the ring after the command to stop, one poll interval apart.
const LAST_LOOKS: u32 = 3;
/// Loss counters are read this often (fifteen small reads from /proc), and once more at the end.
const LOSS_EVERY: Duration = Duration::from_millis(500);

/// What the reader is to do.
pub enum ReaderCommand {
    /// Hand on these facts, gathered elsewhere, after everything that is in the ring by now.
    Facts(Vec<Event>),
    /// Read the ring a last time, then end.
    Stop,
}

/// Reads the ring buffer of a probe session, on a thread of its own.
pub struct RingReader {
    session: Session,
    proc: ProcFs,
    pending: PendingRecords,
    clock: InputClock,
    last_loss: LossCounts,
    loss_due: Ktime,
    poll_max: Duration,
    /// The next sleep: `poll_max` under load, longer after each look that found no record.
    pause: Duration,
}

impl RingReader {
    /// `ring_size`: bytes of the session's ring buffer, by which the sleeps are chosen.
    pub fn new(session: Session, ring_size: u32) -> Self {
        let ring = usize::try_from(ring_size).unwrap_or(usize::MAX);
        let tolerable = Duration::from_millis(u64::try_from(ring / BYTES_PER_MS).unwrap_or(u64::MAX));
        Self {
            session,
            proc: ProcFs::default(),
            pending: PendingRecords::default(),
            clock: InputClock::default(),
            last_loss: LossCounts::default(),
            loss_due: Ktime(0),
            poll_max: tolerable.clamp(POLL_MIN, POLL_MAX),
            pause: tolerable.clamp(POLL_MIN, POLL_MAX),
        }
    }

    /// Reads until [`ReaderCommand::Stop`], or until one of the channels has lost its other end. Waits while `out` is full: the ring buffer
    /// then takes further records, and the BPF programs count those that do not fit.
    pub fn run(mut self, commands: &Receiver<ReaderCommand>, out: &SyncSender<TrackerInput>) {
        loop {
            match commands.recv_timeout(self.pause) {
                Ok(ReaderCommand::Facts(facts)) => {
                    if !self.drain(out, false) {
                        return;
                    }
                    let now = self.clock.moved_to(host_clock::now());
                    if out.send(TrackerInput { facts, now, ..TrackerInput::default() }).is_err() {
                        return;
                    }
                }
                Ok(ReaderCommand::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    // A record that a preempted program has not finished holds up those behind it. Give it time.
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

    /// Hands on everything that is in the ring now. False if `out` has no receiver.
    fn drain(&mut self, out: &SyncSender<TrackerInput>, last: bool) -> bool {
        let now = host_clock::now();
        let mut idle = true;
        while let Some(item) = self.session.ring.next() {
            idle = false;
            let start = self.pending.records.len();
            self.pending.records.extend_from_slice(&item);
            // Frees the place in the ring before the look at /proc, which takes longer than everything else.
            drop(item);
            self.pending.resolve(start, &self.proc);
            if self.pending.records.len() >= INPUT_BYTES {
                // All pieces of one read have the time of its beginning, so that the clock is never ahead of the records.
                let now = self.clock.moved_to(now);
                if out.send(TrackerInput { now, ..self.pending.take() }).is_err() {
                    return false;
                }
            }
        }
        // A ring smaller than the default must be looked at as often as under load.
        let idle_pause = if self.poll_max == POLL_MAX { (self.pause * 2).min(POLL_IDLE) } else { self.poll_max };
        self.pause = if idle { idle_pause } else { self.poll_max };
        let facts = self.loss(now, last);
        let input = TrackerInput { facts, ..self.pending.take() };
        if input.is_empty() && !last {
            // Wakes the tracker's thread, on which observers look for other work. A thread that has inputs needs no waking.
            let tick = self.clock.ticks_at(now);
            return match out.try_send(TrackerInput { now: tick, ..input }) {
                Ok(()) => {
                    if let Some(tick) = tick {
                        self.clock.moved_to(tick);
                    }
                    true
                }
                Err(TrySendError::Full(_)) => true,
                Err(TrySendError::Disconnected(_)) => false,
            };
        }
        let now = self.clock.moved_to(now);
        out.send(TrackerInput { now, ..input }).is_ok()
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
        // Misses are read before rescues: a rescue in between looks like a duplicate for half a second, never like a loss.
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

/// Records that have been read and not yet handed on.
#[derive(Debug, Default)]
struct PendingRecords {
    records: BytesMut,
    /// Facts about the processes whose records are in `records`.
    processes: Vec<ProcessFacts>,
}

impl PendingRecords {
    /// Looks up the process of the record that begins at `start`, if it is the record of a process.
    fn resolve(&mut self, start: usize, proc: &ProcFs) {
        let record = self.records.get(start..).unwrap_or_default();
        if record.first() == Some(&(RecordKind::Task as u8)) {
            self.processes.extend(names::process(record, proc));
        }
    }

    fn take(&mut self) -> TrackerInput {
        TrackerInput {
            records: self.records.split().freeze(),
            processes: std::mem::take(&mut self.processes),
            ..TrackerInput::default()
        }
    }
}

/// The clock that goes into the inputs.
#[derive(Debug, Default)]
struct InputClock {
    handed_on: Ktime,
}

impl InputClock {
    /// The clock of an input that is handed on; `None` if an earlier input had this time or a later one.
    fn moved_to(&mut self, now: Ktime) -> Option<Ktime> {
        let moved = now > self.handed_on;
        self.handed_on = self.handed_on.max(now);
        moved.then_some(now)
    }

    /// The clock of an otherwise empty input; `None` if an earlier input had a time only a moment ago.
    fn ticks_at(&self, now: Ktime) -> Option<Ktime> {
        (now.since(self.handed_on) >= IDLE_TICK_NANOS).then_some(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_an_idle_host_moves_ten_times_a_second_and_never_twice_to_one_instant() {
        let mut clock = InputClock::default();
        let start = Ktime(5_000_000_000);
        assert_eq!(clock.moved_to(start), Some(start));
        assert_eq!(clock.moved_to(start), None, "the second piece of one read");
        let polls = (1..=50).map(|poll| start.plus(poll * 20_000_000));
        let ticks = polls.filter(|&poll| {
            let tick = clock.ticks_at(poll);
            tick.is_some_and(|tick| clock.moved_to(tick).is_some())
        });
        assert_eq!(ticks.count(), 10);
    }
}
