//! The seam between whoever traces or replays and whoever looks: frames one way, orders the other.
//!
//! A slot, not a queue: who draws slower than frames come sees the newest and skips the rest, and the tracker never waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};

use tracer_core::event::Ktime;
use tracer_core::replay::Speed;
use tracer_core::tracker::snapshot::Snapshot;
use tracer_core::tracker::snapshot::detail::{DetailRequest, Details};

/// Orders that wait to be carried out; a human makes fewer.
const ORDERS: usize = 64;

/// One state of everything, immutable.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    pub snapshot: Snapshot,
    pub details: Details,
    pub status: Status,
}

/// What goes on around the trace.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    pub recording: Option<RecordingStatus>,
    /// `None` in a live view.
    pub replay: Option<ReplayStatus>,
    /// Something to tell once, e.g. why a recording ended.
    pub note: Option<Arc<str>>,
}

/// A recording that is being written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordingStatus {
    pub path: Arc<str>,
    pub since: Ktime,
    pub bytes: u64,
}

/// Where a replay is.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplayStatus {
    pub start: Ktime,
    pub end: Ktime,
    pub speed: Speed,
    pub paused: bool,
    /// Reading its way to another position.
    pub seeking: bool,
    /// Nothing more comes, be it because the rest cannot be read.
    pub ended: bool,
    /// Spans of which nothing was recorded, or nothing can be read.
    pub gaps: Arc<[(Ktime, Ktime)]>,
}

/// What the view asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum ViewOrder {
    /// Details of this and of nothing else.
    Details(DetailRequest),
    /// Start or stop a recording.
    Record(bool),
    /// The rest is for replays.
    Pause(bool),
    Speed(Speed),
    /// Seconds forward or back; pauses.
    Step(i64),
    Seek(Ktime),
    /// Go on to the next failure for lack of a port, or the next new finding.
    NextMark,
}

struct Slot {
    frame: Mutex<Option<Arc<Frame>>>,
    /// Either side has gone.
    over: AtomicBool,
}

/// The end of who makes frames. Dropping it ends the view.
pub struct Publisher {
    slot: Arc<Slot>,
    orders: Receiver<ViewOrder>,
}

/// The end of who looks. Dropping it tells the other side.
pub struct Viewer {
    slot: Arc<Slot>,
    orders: SyncSender<ViewOrder>,
}

/// Two ends.
pub fn channel() -> (Publisher, Viewer) {
    let slot = Arc::new(Slot { frame: Mutex::new(None), over: AtomicBool::new(false) });
    let (sender, orders) = mpsc::sync_channel(ORDERS);
    (Publisher { slot: Arc::clone(&slot), orders }, Viewer { slot, orders: sender })
}

impl Publisher {
    pub fn publish(&self, frame: Frame) {
        let mut slot = self.slot.frame.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = Some(Arc::new(frame));
    }

    /// The next order, if there is one.
    pub fn order(&self) -> Option<ViewOrder> {
        self.orders.try_recv().ok()
    }

    /// The viewer has gone.
    pub fn over(&self) -> bool {
        self.slot.over.load(Ordering::Relaxed)
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.slot.over.store(true, Ordering::Relaxed);
    }
}

impl Viewer {
    /// The newest frame, if it has not been taken yet.
    pub fn latest(&self) -> Option<Arc<Frame>> {
        self.slot.frame.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// False if it cannot be taken now: the other side is behind by more orders than a human gives.
    pub fn order(&self, order: ViewOrder) -> bool {
        !matches!(self.orders.try_send(order), Err(TrySendError::Full(_)))
    }

    /// Nobody publishes any more.
    pub fn over(&self) -> bool {
        self.slot.over.load(Ordering::Relaxed)
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.slot.over.store(true, Ordering::Relaxed);
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
        assert!(viewer.order(ViewOrder::NextMark) && publisher.order() == Some(ViewOrder::NextMark));
        drop(viewer);
        assert!(publisher.over());
    }
}
