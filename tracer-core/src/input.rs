//! The one way into a tracker, whether events come from the kernel, from a test or out of a recording.
//!
//! A live source hands over [`TrackerInput`]s. Their steps go to the tracker and, if there is one, to a recorder; a recording is read as
//! the same steps. [`TrackerInput::into_steps`] alone knows their order, and [`feed`] alone what a step does to a tracker.

use bytes::Bytes;

use crate::decode::decode;
use crate::event::{Event, Ktime, ProcessFacts};
use crate::step::TrackerStep;
use crate::tracker::Tracker;

/// What one read of a live source yields.
#[derive(Clone, Debug, Default)]
pub struct TrackerInput {
    /// Records as the kernel wrote them, in ring-buffer order.
    pub records: Bytes,
    /// Facts about the processes whose records are in `records`, in the same order. The source asked `/proc` for a part of them, which
    /// cannot be asked again.
    pub processes: Vec<ProcessFacts>,
    /// Facts that user space gathered after it had read `records`.
    pub facts: Vec<Event>,
    /// The source's clock from before it read `records`; `None` if the clock has not moved since the last input.
    pub now: Option<Ktime>,
}

impl TrackerInput {
    /// Nothing in here would change a tracker.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.facts.is_empty() && self.now.is_none()
    }

    /// Events in here that are lost with it. Loss counts are not among them: they are totals, which a later input repeats.
    pub fn events(&self) -> u64 {
        let facts = self.facts.iter().filter(|fact| !matches!(fact, Event::Loss(_))).count();
        let mut events = facts as u64;
        decode(&self.records, self.processes.iter().cloned(), |_| events += 1);
        events
    }

    /// The steps of this input in the order that the tracker relies on: records, then facts, which may speak of what the records began,
    /// then the clock, which ends what neither has mentioned.
    pub fn into_steps(self, mut each: impl FnMut(TrackerStep)) {
        let skipped = decode(&self.records, self.processes, |event| each(TrackerStep::Event(event)));
        if skipped > 0 {
            each(TrackerStep::Skipped(skipped));
        }
        for fact in self.facts {
            each(TrackerStep::Event(fact));
        }
        if let Some(now) = self.now {
            each(TrackerStep::Advance(now));
        }
    }

    /// Feeds the tracker with all steps.
    pub fn feed(self, tracker: &mut Tracker) {
        self.into_steps(|step| feed(tracker, &step));
    }
}

/// Feeds the tracker with one step.
pub fn feed(tracker: &mut Tracker, step: &TrackerStep) {
    match step {
        TrackerStep::Event(event) => tracker.ingest(event),
        TrackerStep::Skipped(records) => tracker.skipped(*records),
        TrackerStep::Advance(now) => tracker.advance(*now),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Netns, NetnsFacts};
    use tracer_common::{Header, RecordKind};

    fn record(kind: RecordKind, ktime: u64) -> Vec<u8> {
        let mut bytes = vec![0; kind.size()];
        bytes[0] = kind as u8;
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(std::mem::offset_of!(Header, ktime), &ktime.to_ne_bytes());
        bytes
    }

    #[test]
    fn records_come_before_facts_and_the_clock_comes_last() {
        let mut records = record(RecordKind::Task, 1);
        records.extend(record(RecordKind::Task, 2));
        records.extend(record(RecordKind::PortSearch, 3));
        // A kind that no kernel side of ours has: what follows cannot be told apart.
        records.extend([200; 300]);
        let input = TrackerInput {
            records: records.into(),
            processes: vec![ProcessFacts { pid: 7, exe: Some("/usr/bin/curl".into()), ..ProcessFacts::default() }],
            facts: vec![Event::Netns(Box::new(NetnsFacts { netns: Netns::of_inode(1), ..NetnsFacts::default() }))],
            now: Some(Ktime(9)),
        };
        let mut steps = Vec::new();
        input.into_steps(|step| steps.push(step));
        let [
            TrackerStep::Event(Event::Process(resolved)),
            TrackerStep::Event(Event::Process(unresolved)),
            TrackerStep::Event(Event::PortSearch(_)),
            TrackerStep::Skipped(1),
            TrackerStep::Event(Event::Netns(_)),
            TrackerStep::Advance(Ktime(9)),
        ] = &steps[..]
        else {
            panic!("{steps:?}")
        };
        assert_eq!((resolved.pid, resolved.exe.as_deref()), (7, Some("/usr/bin/curl")));
        assert_eq!((unresolved.ktime, unresolved.exe.as_deref()), (Ktime(2), None), "as the record tells");
    }
}
