//! Failed connects that wait for their system call to return.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::attributions::AttributionId;
use crate::event::{FlowKey, Ktime, SocketId};
use crate::tracker::snapshot::Failure;

/// Threads with a failure that waits for its return value. Far more than can fail within the window.
const MAX_PENDING: usize = 16_384;
/// Their order, with failures that do not wait any more: those are taken out when there are three of them to one that waits.
const MAX_ORDER: usize = 4 * MAX_PENDING;
/// The return follows the last transition within microseconds, unless the thread is preempted or was asleep in a blocking connect.
const CONFIRM_NANOS: u64 = 500_000_000;

/// A connect() or bind() that failed.
#[derive(Clone, Debug)]
pub struct FailedAttempt {
    /// When it failed.
    pub at: Ktime,
    /// The socket.
    pub id: SocketId,
    /// The 4-tuple, as far as it is known.
    pub key: FlowKey,
    /// Where the failure is counted.
    pub attribution: AttributionId,
    /// The calling thread, 0 if unknown.
    pub tid: u32,
    /// Why it failed, as far as is known by now.
    pub failure: Failure,
    /// The range that the socket had confined itself to.
    pub own_range: Option<(u16, u16)>,
    /// When the attempt began; `None` if unknown.
    pub began: Option<Ktime>,
    /// The process is a guess.
    pub inferred: bool,
}

/// The failures that wait, by thread.
#[derive(Clone, Debug)]
pub struct PendingFailures {
    calls_observed: bool,
    by_tid: FxHashMap<u32, FailedAttempt>,
    order: VecDeque<(Ktime, u32)>,
}

impl PendingFailures {
    /// `calls_observed`: failed system calls come as events, so that waiting for them makes sense.
    pub fn new(calls_observed: bool) -> Self {
        Self { calls_observed, by_tid: FxHashMap::default(), order: VecDeque::new() }
    }

    /// The return value of this thread's call may still come, and there is room to wait for it.
    pub fn can_wait(&self, tid: u32) -> bool {
        self.calls_observed && tid != 0 && self.by_tid.len() < MAX_PENDING
    }

    /// Lets a failure wait. The thread must have no other.
    pub(super) fn insert(&mut self, failed: FailedAttempt) {
        if self.order.len() >= MAX_ORDER {
            // Each thread has failed again before its turn: only its last failure waits still.
            let by_tid = &self.by_tid;
            self.order.retain(|(at, tid)| by_tid.get(tid).is_some_and(|failed| failed.at == *at));
        }
        self.order.push_back((failed.at, failed.tid));
        self.by_tid.insert(failed.tid, failed);
    }

    /// The failure of this thread.
    pub fn get(&self, tid: u32) -> Option<&FailedAttempt> {
        self.by_tid.get(&tid)
    }

    /// How many wait.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.by_tid.len()
    }

    /// All failures that wait.
    #[cfg(test)]
    pub fn iter(&self) -> impl Iterator<Item = &FailedAttempt> {
        self.by_tid.values()
    }

    /// Takes out the failure of this thread.
    pub(super) fn remove(&mut self, tid: u32) -> Option<FailedAttempt> {
        self.by_tid.remove(&tid)
    }

    /// Replaces references, and returns each one that was replaced with the one that stands there now.
    pub(super) fn replace_attributions(
        &mut self,
        replace: impl Fn(AttributionId) -> AttributionId,
    ) -> Vec<(AttributionId, AttributionId)> {
        let mut replaced = Vec::new();
        for failed in self.by_tid.values_mut() {
            let present = replace(failed.attribution);
            if present != failed.attribution {
                replaced.push((std::mem::replace(&mut failed.attribution, present), present));
            }
        }
        replaced
    }

    /// The thread of the oldest failure whose call should have returned by now.
    pub(super) fn next_due(&mut self, now: Ktime) -> Option<u32> {
        while let Some(&(at, tid)) = self.order.front() {
            if now.since(at) <= CONFIRM_NANOS {
                break;
            }
            self.order.pop_front();
            if self.by_tid.get(&tid).is_some_and(|failed| failed.at == at) {
                return Some(tid);
            }
        }
        None
    }
}
