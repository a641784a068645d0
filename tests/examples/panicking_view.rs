//! A full-screen view whose publisher panics after the first frame: does the terminal come back, is the message readable?

use std::sync::Arc;
use std::time::Duration;

use tracer::tui::app::App;
use tracer::tui::channel::{Frame, channel};
use tracer::tui::{RenderOptions, TraceInfo, stress, terminal};
use tracer_core::clock::Clock;
use tracer_core::event::Ktime;
use tracer_core::host::HostFacts;

fn main() {
    let trace = TraceInfo { host: HostFacts::default(), clock: Clock::new(Ktime(0), 0) };
    let options = RenderOptions::from_env(true, false);
    let app = App::new(trace, options.zone.clone(), None, String::new());
    let (publisher, viewer) = channel();
    let screen = std::thread::spawn(move || terminal::run(&viewer, app, &options));
    let tracker = std::thread::spawn(move || {
        let frame: Arc<Frame> = stress::frame(1_000, 10).into();
        publisher.publish(Frame::clone(&frame));
        // Long enough for the test to see the screen.
        std::thread::sleep(Duration::from_secs(3));
        panic!("the tracker came to grief");
    });
    let died = tracker.join().is_err();
    let shown = screen.join().expect("the screen's thread");
    assert!(died && shown.is_ok());
    std::process::exit(7);
}
