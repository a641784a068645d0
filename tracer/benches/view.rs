//! What drawing a busy host costs, and how soon a key is answered while its events pour in. One JSON line per figure.
//!
//! The threads of the screen and of the tracker do what they do in `portchurn live`; events are made up, and what is drawn goes
//! nowhere.

mod busy_host;

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use busy_host::HeadlessScreen;
use crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use tracer::run::view::FrameSchedule;
use tracer::tui::channel::{self, Frame, Publisher, Status, ViewOrder};
use tracer_core::event::Ktime;
use tracer_core::synthetic::{self, Churn};
use tracer_core::tracker::Tracker;
use tracer_core::tracker::snapshot::detail::DetailRequest;
use tracer_core::tracker::snapshot::{Destination, NoticeKinds};

const SIZE: (u16, u16) = (200, 50);
const FLOWS: u32 = 100_000;
const DESTINATIONS: u32 = 500;
const EVENTS_PER_SECOND: u64 = 100_000;
/// What such churn leads to: seven events per connection, 61 s per `TIME_WAIT`.
const TIME_WAITS: u64 = 870_000;
/// The ring buffer's reader hands over events about this often.
const BATCH: Duration = Duration::from_millis(20);
const KEYS: u32 = 200;
/// Not a multiple of an interval of the screen, so that keys come at any point of it.
const BETWEEN_KEYS: Duration = Duration::from_millis(37);

fn main() {
    let check = std::env::args().any(|argument| argument == "--test" || argument == "--check");
    let (scale, rounds, keys) = if check { (100, 1, 3) } else { (1, 50, KEYS) };
    draw(scale, rounds);
    answer(u64::from(scale), rounds, keys);
}

#[expect(clippy::print_stdout, reason = "the program's answer")]
fn tell(key: &str, samples: &[f64]) {
    println!("{{\"key\":\"view.{key}\",\"samples\":{samples:?}}}");
}

fn millis(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}

/// Measures a new frame, from taking it to the last cell.
fn draw(scale: u32, rounds: u32) {
    let frame = busy_host::frame(FLOWS / scale, DESTINATIONS);
    let mut overview = HeadlessScreen::new(SIZE.0, SIZE.1);
    let mut filtered = HeadlessScreen::new(SIZE.0, SIZE.1);
    filtered.filter("dst=10.0.0.0/8:443 and workload=service-1* and not state=close_wait").expect("a filter");
    let mut destination = HeadlessScreen::new(SIZE.0, SIZE.1);
    destination.show(Arc::new(frame.clone()));
    destination.drill_down();
    for (key, screen) in
        [("overview_ms", &mut overview), ("filtered_ms", &mut filtered), ("destination_ms", &mut destination)]
    {
        let samples = (0..rounds).map(|_| {
            let next = Arc::new(frame.clone());
            let began = Instant::now();
            screen.show(next);
            black_box(screen.first_letter());
            millis(began)
        });
        tell(key, &samples.collect::<Vec<_>>());
    }
}

/// Measures how soon keys are answered while the tracker is busy; then how much of the tracker's time a frame takes.
fn answer(scale: u64, rounds: u32, keys: u32) {
    let mut tracker = synthetic::tracker(NoticeKinds { history: true, ..NoticeKinds::default() });
    let destinations = u64::from(DESTINATIONS);
    let mut churn = Churn::start(&mut tracker, destinations, u64::from(FLOWS) / scale, TIME_WAITS / scale);
    let (publisher, viewer) = channel::channel();
    let (press, pressed) = mpsc::channel();
    let over = AtomicBool::new(false);
    let mut answers = Vec::new();
    let before = (tracker.read(), Instant::now());
    let took = std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            // Moved, so that it is dropped with the thread.
            let publisher = publisher;
            work(&mut tracker, &mut churn, &publisher, &over);
            before.1.elapsed()
        });
        scope.spawn(|| {
            // Up and down, into a destination and back.
            let walk =
                [KeyCode::Down, KeyCode::Tab, KeyCode::Enter, KeyCode::Tab, KeyCode::Down, KeyCode::Esc, KeyCode::Up];
            for code in walk.into_iter().cycle().take(usize::try_from(keys).unwrap_or(0)) {
                std::thread::sleep(BETWEEN_KEYS);
                let key = Event::Key(KeyEvent::new(code, KeyModifiers::NONE));
                press.send((key, Instant::now())).expect("the screen");
            }
            std::thread::sleep(BETWEEN_KEYS);
            drop(press);
        });
        busy_host::answer(&viewer, SIZE, pressed, |took| answers.push(took.as_secs_f64() * 1e3)).expect("drawn");
        over.store(true, Ordering::Relaxed);
        busy.join().expect("the tracker")
    });
    answers.sort_by(f64::total_cmp);
    tell("key_ms", &answers);
    tell("key_slowest_ms", answers.last().map_or(&[][..], std::slice::from_ref));
    tell("events_per_second", &[(tracker.read() - before.0) as f64 / took.as_secs_f64()]);

    let place = tracker.snapshot().destinations.first().map(Destination::key);
    let sample = |wish: DetailRequest| -> Vec<f64> {
        let frame = || {
            let began = Instant::now();
            let (snapshot, details) = (tracker.snapshot(), tracker.details(&wish));
            let took = millis(began);
            black_box(Frame { snapshot, details, status: Status::default() });
            took
        };
        (0..rounds).map(|_| frame()).collect()
    };
    tell("snapshot_ms", &sample(DetailRequest::default()));
    tell("detail_ms", &sample(DetailRequest { destination: place, ..DetailRequest::default() }));
}

/// What the tracker's thread does: events in batches, orders, frames.
fn work(tracker: &mut Tracker, churn: &mut Churn, publisher: &Publisher, over: &AtomicBool) {
    let mut schedule = FrameSchedule::new();
    let began = Instant::now();
    let mut events: u64 = 0;
    while !over.load(Ordering::Relaxed) {
        let due = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX) * EVENTS_PER_SECOND / 1_000;
        while events < due {
            churn.step(|event| tracker.ingest(event));
            events += Churn::EVENTS;
        }
        tracker.advance(Ktime(churn.now()));
        let mut asked = false;
        while let Some(order) = publisher.next_order() {
            asked = true;
            if let ViewOrder::Details(details) = order {
                schedule.details = details;
            }
        }
        if asked || schedule.is_due() {
            schedule.publish(publisher, tracker, Status::default());
        }
        std::thread::sleep(BATCH);
    }
}
