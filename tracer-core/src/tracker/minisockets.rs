//! Minisockets: `TIME_WAIT` begins, restarts and ends.

use super::Tracker;
use super::history::Trace;
use super::slab::Ref;
use super::time_wait::{Entry, REARM_NANOS};
use crate::event::{FlowKey, Ktime, SocketId, TcpState, TimeWaitEvent};

impl Tracker {
    pub(super) fn time_wait_begins(&mut self, e: &TimeWaitEvent) {
        if let Some(at) = self.ledger.find(&e.key) {
            let Some(entry) = self.ledger.get(at) else { return };
            match self.ledger.cancelled(at) {
                // The 4-tuple has been given to a new connection meanwhile, and that one has closed too.
                Some(cancelled) if entry.cookie != e.cookie => self.end_cancelled(at, cancelled),
                _ => {
                    // The peer's FIN (or a stray segment) restarted the timer: the same minisocket for another 60 s.
                    let Some((before, dest)) = self.ledger.rearm(at, e.ktime, e.fin_wait2) else { return };
                    if let Some(dest) = dest.and_then(|dest| self.places.get_mut(dest)) {
                        dest.unschedule(before);
                        dest.schedule(e.ktime);
                    }
                    return;
                }
            }
        }
        let flow = self.flows.find(SocketId { cookie: e.cookie, sock: 0 }, Some(&e.key));
        let (attr, dest, bound, inferred, old) = match flow.and_then(|at| self.flows.get(at)) {
            Some(flow) => (flow.attr, flow.dest, flow.bound, flow.inferred_owner, flow.state),
            None => {
                let dest = if self.looks_ephemeral(&e.key) { self.dest(&e.key, e.ktime) } else { None };
                let unknown = self.people.unknown();
                let attr = self.people.attribute(unknown, dest, e.key.netns, true, e.ktime);
                (Some(attr), dest, false, true, TcpState::FinWait2)
            }
        };
        if let Some(at) = flow {
            // The port passes from the socket to the minisocket; in between it is not free, nor is it taken twice.
            self.vacate(at);
        }
        let entry = Entry {
            key: e.key,
            cookie: e.cookie,
            began: e.ktime,
            armed: e.ktime,
            attr,
            dest,
            observed: true,
            fin_wait2: e.fin_wait2,
            bound,
            pass: self.pass,
        };
        self.begin_time_wait(entry, true);
        if let Some(history) = &mut self.history {
            history.step(Trace { at: e.ktime, cookie: e.cookie, key: e.key, old, new: TcpState::TimeWait });
        }
        if self.config.notices.transitions {
            self.tell(e.ktime, e.key, attr, inferred, old, TcpState::TimeWait, None);
        }
    }

    /// Enters a minisocket; `new` = it counts as a begin of the window, not as the continuation of one.
    pub(super) fn begin_time_wait(&mut self, entry: Entry, new: bool) {
        let (key, attr, dest, armed, bound) = (entry.key, entry.attr, entry.dest, entry.armed, entry.bound);
        if self.ledger.insert(entry).is_none() {
            self.evicted += 1;
            return;
        }
        if let Some(dest) = dest.and_then(|dest| self.places.get_mut(dest)) {
            dest.take(TcpState::TimeWait, bound);
            dest.schedule(armed);
            dest.touch(armed);
        }
        self.count(attr, dest, |cell| {
            cell.time_wait.up();
            cell.tw_entered += u64::from(new);
        });
        if dest.is_some() {
            self.count(attr, None, |cell| cell.ports.up());
        }
        if bound {
            self.hold_port(key.netns, key.local.port);
        }
    }

    pub(super) fn time_wait_ends(&mut self, e: &TimeWaitEvent) {
        let Some(at) = self.ledger.find(&e.key) else { return };
        if e.expired {
            self.end_time_wait(at, e.ktime);
        } else {
            // mod_timer() cancels too: only what is not started again at once has ended.
            self.ledger.cancel(at, e.ktime);
            self.cancelled.push_back((e.ktime, at));
        }
    }

    /// Cancelled timers that were not started again are ends.
    pub(super) fn settle_cancelled(&mut self, now: Ktime) {
        while let Some(&(cancelled, at)) = self.cancelled.front() {
            if now.since(cancelled) <= REARM_NANOS {
                break;
            }
            self.cancelled.pop_front();
            if self.ledger.cancelled(at) == Some(cancelled) {
                self.end_cancelled(at, cancelled);
            }
        }
    }

    /// A 4-tuple is about to serve a new connection: a minisocket on it whose timer was cancelled has ended for its sake.
    pub(super) fn make_way(&mut self, key: &FlowKey) {
        if self.ledger.any_cancelled()
            && let Some(at) = self.ledger.find(key)
            && let Some(cancelled) = self.ledger.cancelled(at)
        {
            self.end_cancelled(at, cancelled);
        }
    }

    fn end_cancelled(&mut self, at: Ref, cancelled: Ktime) {
        if let Some(entry) = self.end_time_wait(at, cancelled) {
            self.ledger.remember(&entry, cancelled);
        }
    }

    /// Takes a minisocket out of the books.
    pub(super) fn end_time_wait(&mut self, at: Ref, now: Ktime) -> Option<Entry> {
        let entry = self.ledger.remove(at)?;
        if let Some(dest) = entry.dest.and_then(|dest| self.places.get_mut(dest)) {
            dest.give(TcpState::TimeWait, entry.bound);
            dest.unschedule(entry.armed);
            dest.touch(now);
        }
        self.count(entry.attr, entry.dest, |cell| cell.time_wait.down());
        if entry.dest.is_some() {
            self.count(entry.attr, None, |cell| cell.ports.down());
        }
        if entry.bound {
            self.free_port(entry.key.netns, entry.key.local.port);
        }
        if let Some(history) = &mut self.history {
            let (old, new) = (TcpState::TimeWait, TcpState::Close);
            history.step(Trace { at: now, cookie: entry.cookie, key: entry.key, old, new });
        }
        if self.config.notices.transitions {
            let dwell = entry.observed.then(|| now.since(entry.began));
            self.tell(now, entry.key, entry.attr, !entry.observed, TcpState::TimeWait, TcpState::Close, dwell);
        }
        Some(entry)
    }
}
