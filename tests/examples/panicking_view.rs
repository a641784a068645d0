//! A full-screen view whose publisher panics after the first frame, for a test that the terminal is restored and the
//! message readable.

use std::time::Duration;

use tracer::tui::app::App;
use tracer::tui::channel::{Frame, channel};
use tracer::tui::{RenderOptions, TraceInfo, terminal};
use tracer_core::clock::Clock;
use tracer_core::event::Ktime;
use tracer_core::host::HostFacts;
use tracer_core::tracker::snapshot::{Snapshot, Workload};

fn main() {
    let trace = TraceInfo::new(HostFacts::default(), Clock::new(Ktime(0), 0));
    let options = RenderOptions::from_env(true, false);
    let app = App::new(trace, None, String::new());
    let (publisher, viewer) = channel();
    let screen = std::thread::spawn(move || terminal::run(&viewer, app, options));
    let tracker = std::thread::spawn(move || {
        let workload = Workload { name: "service-1.service".into(), ..Workload::default() };
        let snapshot = Snapshot { generation: 1, workloads: vec![workload], ..Snapshot::default() };
        publisher.publish(Frame { snapshot, ..Frame::default() });
        // Long enough for the test to read the screen.
        std::thread::sleep(Duration::from_secs(3));
        panic!("the tracker came to grief");
    });
    let died = tracker.join().is_err();
    let shown = screen.join().expect("the screen's thread");
    assert!(died && shown.is_ok());
    std::process::exit(7);
}
