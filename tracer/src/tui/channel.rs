//! The channel between a trace or a replay and the screen: frames one way, orders the other.
//!
//! Frames have a slot, not a queue: a screen that draws slower than frames come shows the newest and skips the rest, and the
//! tracker never waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};

use tracer_core::event::Ktime;
use tracer_core::replay::Speed;
use tracer_core::tracker::snapshot::Snapshot;
use tracer_core::tracker::snapshot::detail::{DetailRequest, Details};

/// Orders that may wait to be carried out; a human gives fewer.
const ORDERS: usize = 64;

/// Everything that a screen shows, as of one instant.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    /// Totals, tables and findings.
    pub snapshot: Snapshot,
    /// What the page was asked for, and the last failures and seconds.
    pub details: Details,
    /// What goes on around the trace.
    pub status: Status,
}

/// What goes on around the trace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// The recording that is being written, if there is one.
    pub recording: Option<RecordingStatus>,
    /// Position and pace of a replay. `None` in a live view.
    pub replay: Option<ReplayStatus>,
    /// Shown once as a message, e.g. why a recording ended.
    pub note: Option<Arc<str>>,
}

/// A recording that is being written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordingStatus {
    /// Its file, or its first of several.
    pub path: Arc<str>,
    /// When it began.
    pub since: Ktime,
    /// Bytes written so far.
    pub bytes: u64,
}

/// Where a replay is.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplayStatus {
    /// Begin of the recording.
    pub start: Ktime,
    /// End of the recording, as far as it is known.
    pub end: Ktime,
    /// How fast it is replayed.
    pub speed: Speed,
    /// It stands still until the user goes on.
    pub paused: bool,
    /// It is being read up to another position, as fast as possible.
    pub seeking: bool,
    /// The end was reached, or the rest cannot be read.
    pub ended: bool,
    /// Spans of which nothing was recorded, or nothing can be read.
    pub gaps: Arc<[(Ktime, Ktime)]>,
}

/// What the user asks of a trace or a replay.
#[derive(Clone, Debug, PartialEq)]
pub enum ViewOrder {
    /// Put the details of these into the frames, and no others.
    Details(DetailRequest),
    /// Start a recording, or stop it. Live views only, as the rest is for replays only.
    Record(bool),
    /// Stand still, or go on.
    Pause(bool),
    /// Go on at this speed.
    Speed(Speed),
    /// Go so many seconds forward, or back if negative, and stand still.
    Step(i64),
    /// Go to this position.
    Seek(Ktime),
    /// Go on to the next failure for lack of a port, or to the next new finding.
    NextMark,
}

struct Slot {
    frame: Mutex<Option<Arc<Frame>>>,
    /// One end was dropped.
    closed: AtomicBool,
}

/// The end that makes frames. Dropping it ends the view.
pub struct Publisher {
    slot: Arc<Slot>,
    orders: Receiver<ViewOrder>,
}

/// The end that shows frames. Dropping it lets the publisher know.
pub struct Viewer {
    slot: Arc<Slot>,
    orders: SyncSender<ViewOrder>,
}

/// A channel without a frame and without orders.
pub fn channel() -> (Publisher, Viewer) {
    let slot = Arc::new(Slot { frame: Mutex::new(None), closed: AtomicBool::new(false) });
    let (sender, orders) = mpsc::sync_channel(ORDERS);
    (Publisher { slot: Arc::clone(&slot), orders }, Viewer { slot, orders: sender })
}

impl Publisher {
    /// Replaces the frame that waits to be shown.
    pub fn publish(&self, frame: Frame) {
        let mut slot = self.slot.frame.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(Arc::new(frame));
    }

    /// The next order, if one was given.
    pub fn next_order(&self) -> Option<ViewOrder> {
        self.orders.try_recv().ok()
    }

    /// The viewer was dropped: nobody sees the frames.
    pub fn is_closed(&self) -> bool {
        self.slot.closed.load(Ordering::Relaxed)
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.slot.closed.store(true, Ordering::Relaxed);
    }
}

impl Viewer {
    /// The newest frame, unless it was taken before.
    pub fn latest(&self) -> Option<Arc<Frame>> {
        self.slot.frame.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Gives an order. False if too many wait already.
    pub fn give_order(&self, order: ViewOrder) -> bool {
        !matches!(self.orders.try_send(order), Err(TrySendError::Full(_)))
    }

    /// The publisher was dropped: no frame comes any more.
    pub fn is_closed(&self) -> bool {
        self.slot.closed.load(Ordering::Relaxed)
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.slot.closed.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_viewer_sees_the_newest_frame_once() {
        let (publisher, viewer) = channel();
        assert!(viewer.latest().is_none());
        for generation in 1..=3 {
            let snapshot = Snapshot { generation, ..Snapshot::default() };
            publisher.publish(Frame { snapshot, ..Frame::default() });
        }
        assert_eq!(viewer.latest().map(|frame| frame.snapshot.generation), Some(3));
        assert!(viewer.latest().is_none());
        assert!(viewer.give_order(ViewOrder::NextMark) && publisher.next_order() == Some(ViewOrder::NextMark));
        drop(viewer);
        assert!(publisher.is_closed());
    }
}
