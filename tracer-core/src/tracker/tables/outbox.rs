//! What the tracker reports as it happens: notices, and the history that a view shows.
//!
//! Both cost time or memory, so that only what somebody reads is made.

use super::history::{History, StateStep};
use crate::event::Ktime;
use crate::tracker::snapshot::detail::{FailureRecord, SecondCounts};
use crate::tracker::snapshot::{FailedConnect, Finding, FlowEnd, Notice, NoticeKinds, Owner, StateChange};

/// Milliseconds of so many nanoseconds.
pub fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

/// Notices that nobody has fetched yet, and the history.
#[derive(Clone, Debug)]
pub struct Outbox {
    kinds: NoticeKinds,
    notices: Vec<Notice>,
    history: Option<Box<History>>,
    /// Leave out what is only of interest while it is new.
    brief: bool,
    skipped: u64,
}

impl Outbox {
    /// Empty. Only notices of these kinds will be made.
    pub fn new(kinds: NoticeKinds) -> Self {
        Self { kinds, notices: Vec::new(), history: kinds.history.then(Box::default), brief: false, skipped: 0 }
    }

    /// From now on leave out steps of flows and notices of their ends, or no longer.
    pub fn be_brief(&mut self, brief: bool) {
        self.brief = brief;
    }

    /// Steps and notices that were left out.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Takes all notices, oldest first.
    pub fn drain(&mut self) -> std::vec::Drain<'_, Notice> {
        self.notices.drain(..)
    }

    /// The history, if it is kept.
    pub fn history(&self) -> Option<&History> {
        self.history.as_deref()
    }

    /// The history, if it is kept.
    pub fn history_mut(&mut self) -> Option<&mut History> {
        self.history.as_deref_mut()
    }

    /// Counts something in the second of `at`.
    pub fn count(&mut self, at: Ktime, change: impl FnOnce(&mut SecondCounts)) {
        if let Some(history) = &mut self.history {
            history.count(at, change);
        }
    }

    /// A flow or a minisocket has changed its state, after `dwell` nanoseconds in the former one if that is known.
    pub fn state_changed(
        &mut self,
        step: impl FnOnce() -> StateStep,
        dwell: Option<u64>,
        owner: impl FnOnce() -> Option<Owner>,
    ) {
        if !self.kinds.transitions && self.history.is_none() {
            return;
        }
        if self.brief {
            self.skipped += 1;
            return;
        }
        let step = step();
        if let Some(history) = &mut self.history {
            history.step(step);
        }
        if self.kinds.transitions {
            self.notices.push(Notice::StateChange(StateChange {
                ktime: step.at,
                cookie: step.cookie,
                key: step.key,
                owner: owner(),
                old: step.old,
                new: step.new,
                dwell_ms: dwell.map(millis),
            }));
        }
    }

    /// A flow is over.
    pub fn flow_ended(&mut self, end: impl FnOnce() -> FlowEnd) {
        if !self.kinds.flows {
            return;
        }
        if self.brief {
            self.skipped += 1;
            return;
        }
        self.notices.push(Notice::FlowEnd(end()));
    }

    /// Findings have begun to hold or are over.
    pub fn findings_changed(&mut self, changed: Vec<Finding>) {
        if self.kinds.findings {
            self.notices.extend(changed.into_iter().map(|finding| Notice::Finding(Box::new(finding))));
        }
    }

    /// Somebody reads about failed connects, or about those for lack of a port.
    pub fn wants_failure(&self, lack_of_port: bool) -> bool {
        self.kinds.failures || (lack_of_port && self.history.is_some())
    }

    /// A connect() has failed. `record`: it failed for lack of a port, and these were the circumstances.
    pub fn connect_failed(&mut self, failed: FailedConnect, record: Option<FailureRecord>) {
        if let (Some(history), Some(record)) = (&mut self.history, record) {
            history.fail(record);
        }
        if self.kinds.failures {
            self.notices.push(Notice::FailedConnect(failed));
        }
    }
}
