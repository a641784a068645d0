//! What a tracker is fed with: a live input and a recording are both a sequence of steps.

use crate::event::{Event, Ktime};

/// One thing that a tracker is fed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrackerStep {
    /// An event.
    Event(Event),
    /// This many records of the kernel could not be decoded.
    Skipped(u64),
    /// The clock moved to this instant.
    Advance(Ktime),
}

impl TrackerStep {
    /// The instant of the step; `None` for [`Self::Skipped`], which has none.
    pub fn ktime(&self) -> Option<Ktime> {
        Some(match self {
            Self::Advance(now) => *now,
            Self::Skipped(_) => return None,
            Self::Event(event) => match event {
                Event::Transition(event) => event.ktime,
                Event::TimeWaitStart(event) | Event::TimeWaitEnd(event) | Event::TimeWaitListed(event) => event.ktime,
                Event::CallFailed(event) => event.ktime,
                Event::Accepted(event) | Event::Bound(event) | Event::Released(event) => event.ktime,
                Event::PortSearch(search) => search.ktime,
                Event::Process(facts) => facts.ktime,
                Event::Netns(facts) => facts.ktime,
                Event::ReservedPorts(ktime, ..) => *ktime,
                Event::Baseline(baseline) => baseline.ended,
                Event::Loss(counts) => counts.ktime,
            },
        })
    }
}
