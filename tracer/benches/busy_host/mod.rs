//! The frame of a busy host, and a screen without a terminal, to measure a redraw and the answer to a key.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use jiff::tz::TimeZone;
use ratatui::backend::CrosstermBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::{Terminal, TerminalOptions, Viewport};

use tracer::tui::app::App;
use tracer::tui::channel::{Frame, Viewer};
use tracer::tui::{RenderOptions, TraceInfo, screen, terminal};
use tracer_core::event::{Addr, TcpState};
use tracer_core::filter::{Filter, FilterError};
use tracer_core::host::HostFacts;
use tracer_core::report::sample;
use tracer_core::tracker::snapshot::detail::{DestinationDetail, DurationHistogram, PortUse, SecondCounts};
use tracer_core::tracker::snapshot::{
    Attribution, Destination, Failure, FailureCounts, Holder, Owner, Ports, Snapshot, Workload,
};

const RANGE: (u16, u16) = (1_024, 65_535);
/// Ports that connect() may use of `RANGE`.
const CAPACITY: u32 = 64_512;
/// Workloads that share the destinations.
const WORKLOADS: u32 = 40;
/// Pairs of process and destination per destination.
const PAIRS: u32 = 4;

fn addr(number: u32) -> Addr {
    Addr::from(std::net::IpAddr::from((0x0a00_0000 + number).to_be_bytes()))
}

fn workload_name(number: u32) -> Arc<str> {
    format!("service-{}.service", number % WORKLOADS).into()
}

/// A frame with so many flows towards so many destinations.
pub fn frame(flows: u32, destinations: u32) -> Frame {
    let each = flows / destinations.max(1);
    let now = sample::START.plus(600 * sample::SECOND);
    let mut snapshot =
        Snapshot { generation: 1, start: sample::START, now, flows: u64::from(flows), ..Snapshot::default() };
    for number in 0..destinations {
        snapshot.destinations.push(destination(number, each));
        snapshot.attributions.extend((0..PAIRS).map(|pair| attribution(number, pair, each / PAIRS)));
    }
    snapshot.workloads.extend((0..WORKLOADS).map(|number| Workload {
        name: workload_name(number),
        connects: u64::from(number) * 1_000,
        ports_held: u64::from(flows / WORKLOADS),
        ..Workload::default()
    }));
    let mut frame = Frame { snapshot, ..Frame::default() };
    frame.details.seconds = vec![SecondCounts { events: 100_000, connects: 20_000, exhausted: 3, failed: 0 }; 300];
    frame.details.destination = frame.snapshot.destinations.first().map(full_range);
    frame
}

fn destination(number: u32, in_use: u32) -> Destination {
    let states = [(TcpState::Established, in_use / 3), (TcpState::TimeWait, in_use - in_use / 3)];
    let ports = Ports {
        range: Some(RANGE),
        capacity: Some(CAPACITY),
        in_use,
        peak: in_use,
        utilisation: Some(f64::from(in_use) / f64::from(CAPACITY)),
        by_state: states.into(),
        ..Ports::default()
    };
    Destination {
        remote_addr: addr(1_000 + number),
        remote_port: 443,
        connects: u64::from(in_use) * 10,
        established: u64::from(in_use) * 10,
        failed: FailureCounts::from([(Failure::PortsExhausted, u64::from(number % 7))]),
        connects_per_second: f64::from(number),
        sustainable_per_second: Some(1_033.0),
        holders: vec![Holder { workload: workload_name(number), ports: in_use }],
        ..sample::destination(ports)
    }
}

fn attribution(destination: u32, pair: u32, ports: u32) -> Attribution {
    Attribution {
        workload: workload_name(destination + pair),
        remote_addr: addr(1_000 + destination),
        remote_port: 443,
        connects: u64::from(ports) * 10,
        established: u64::from(ports) * 10,
        ports_held: ports,
        by_state: [(TcpState::Established, ports / 3), (TcpState::TimeWait, ports - ports / 3)].into(),
        ..sample::attribution("", 10_000 + pair, "/usr/bin/worker")
    }
}

/// The largest range, every port in use.
fn full_range(destination: &Destination) -> DestinationDetail {
    let since = |port: u16| Some(sample::START.plus(u64::from(port)));
    let port = |port| PortUse { port, state: TcpState::TimeWait, owner: port % 4, since: since(port) };
    DestinationDetail {
        key: destination.key(),
        range: Some(RANGE),
        used: (RANGE.0..=RANGE.1).map(port).collect(),
        owners: (0..4).map(|pid| Owner { pid, ..Owner::default() }).collect(),
        blocked: Vec::new(),
        reserved: Vec::new(),
        lifetime: DurationHistogram::default(),
        connect: DurationHistogram::default(),
        port_search: DurationHistogram::default(),
    }
}

/// A screen without a terminal.
pub struct HeadlessScreen {
    app: App,
    options: RenderOptions,
    buffer: Buffer,
}

impl HeadlessScreen {
    pub fn new(width: u16, height: u16) -> Self {
        let trace = TraceInfo { host: HostFacts::default(), clock: sample::clock(), zone: TimeZone::UTC };
        let options = RenderOptions { colour: true, unicode: true };
        let app = App::new(trace, None, String::new());
        Self { app, options, buffer: Buffer::empty(Rect::new(0, 0, width, height)) }
    }

    /// Starts again with this filter.
    pub fn filter(&mut self, text: &str) -> Result<(), FilterError> {
        let trace = self.app.trace.clone();
        let filter = Filter::parse(text)?;
        self.app = App::new(trace, Some(filter), text.to_owned());
        Ok(())
    }

    /// Opens the page of the first destination.
    pub fn drill_down(&mut self) {
        for code in [KeyCode::Tab, KeyCode::Enter] {
            self.app.key(&KeyEvent::new(code, KeyModifiers::NONE));
        }
    }

    /// Takes a new frame and draws it, which happens up to ten times a second.
    pub fn show(&mut self, frame: Arc<Frame>) {
        self.app.accept(frame);
        self.buffer.reset();
        let drawn = screen::draw(&self.app, self.options, &mut self.buffer);
        self.app.set_hit_map(drawn.hits);
    }

    /// A letter of the screen, so that the compiler cannot leave out the drawing.
    pub fn first_letter(&self) -> Option<&str> {
        self.buffer.cell((0, 0)).map(ratatui::buffer::Cell::symbol)
    }
}

/// Runs the terminal's loop on `viewer` until `keys` has no sender any more, with a terminal that takes everything at once.
/// Passes to `answered` how long each key press waited for the next screen.
///
/// # Errors
/// Drawing failed; the output of this screen never fails.
pub fn answer(
    viewer: &Viewer,
    size: (u16, u16),
    keys: Receiver<(Event, Instant)>,
    answered: impl FnMut(Duration),
) -> io::Result<()> {
    let HeadlessScreen { app, options, .. } = HeadlessScreen::new(size.0, size.1);
    let taken = Cell::new(None);
    let out = Output { taken: &taken, answered };
    let viewport = Viewport::Fixed(Rect::new(0, 0, size.0, size.1));
    let terminal = Terminal::with_options(CrosstermBackend::new(out), TerminalOptions { viewport })?;
    let (over, next) = (Cell::new(false), None);
    let keys = Keys { pressed: keys, next, taken: &taken, over: &over };
    terminal::run_on(viewer, app, options, terminal, keys, || !over.get())
}

struct Keys<'a> {
    pressed: Receiver<(Event, Instant)>,
    next: Option<(Event, Instant)>,
    /// When the first key since the last screen was pressed.
    taken: &'a Cell<Option<Instant>>,
    over: &'a Cell<bool>,
}

impl terminal::KeySource for Keys<'_> {
    fn poll(&mut self, wait: Duration) -> io::Result<bool> {
        if self.next.is_none() {
            self.next = match self.pressed.recv_timeout(wait) {
                Ok(key) => Some(key),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => {
                    self.over.set(true);
                    None
                }
            };
        }
        Ok(self.next.is_some())
    }

    fn read(&mut self) -> io::Result<Event> {
        let (key, pressed) = self.next.take().ok_or(io::ErrorKind::WouldBlock)?;
        self.taken.set(self.taken.get().or(Some(pressed)));
        Ok(key)
    }
}

struct Output<'a, F> {
    taken: &'a Cell<Option<Instant>>,
    answered: F,
}

impl<F: FnMut(Duration)> io::Write for Output<'_, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    /// Called when a screen is complete.
    fn flush(&mut self) -> io::Result<()> {
        if let Some(pressed) = self.taken.take() {
            (self.answered)(pressed.elapsed());
        }
        Ok(())
    }
}
