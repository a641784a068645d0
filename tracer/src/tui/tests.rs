//! Screens as text and keys without a terminal, on the same incidents that the report is tested with.

mod handling;
mod screens;

use std::sync::Arc;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use jiff::tz::TimeZone;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;

use super::app::{App, Effect};
use super::channel::{Frame, RecordingStatus, ReplayStatus, Status};
use super::{RenderOptions, TraceInfo, screen};
use tracer_core::event::{DestinationKey, Endpoint, FlowKey, Ktime, TcpState};
use tracer_core::host::HostFacts;
use tracer_core::replay::Speed;
use tracer_core::report::sample::{self, NETNS, SECOND, START, addr};
use tracer_core::tracker::snapshot::detail::{
    DestinationDetail, Details, DurationHistogram, FailureRecord, FlowDetail, FlowStep, HistogramBucket, PastHolder,
    PortUse, SecondCounts, WorkloadDetail,
};
use tracer_core::tracker::snapshot::{Durations, FailedConnect, Failure, Lost, Opened, Owner, Snapshot};

const UNICODE: RenderOptions = RenderOptions { colour: true, unicode: true };
const ASCII: RenderOptions = RenderOptions { colour: false, unicode: false };

fn place() -> DestinationKey {
    DestinationKey { netns: NETNS, local_addr: addr("10.66.0.1"), remote_addr: addr("10.66.0.2"), remote_port: 8443 }
}

fn flow(port: u16) -> FlowKey {
    FlowKey {
        netns: NETNS,
        device: 0,
        local: Endpoint { addr: addr("10.66.0.1"), port },
        remote: Endpoint { addr: addr("10.66.0.2"), port: 8443 },
    }
}

fn owner(workload: &str, pid: u32, inferred: bool) -> Owner {
    Owner { pid, comm: "python3".into(), workload: workload.into(), inferred, ..Owner::default() }
}

fn shape(first_ms: f64, counts: &[u64]) -> DurationHistogram {
    let steps = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0];
    let buckets =
        counts.iter().zip(steps).map(|(&count, step)| HistogramBucket { upto_ms: first_ms * step, count }).collect();
    let of = |factor: f64| Some(first_ms * factor);
    let summary = Durations {
        count: counts.iter().sum(),
        min: of(0.5),
        mean: of(3.0),
        p50: of(2.0),
        p90: of(4.0),
        p99: of(9.0),
        max: of(20.0),
    };
    DurationHistogram { summary, buckets }
}

/// All details that can be requested, of an exhausted range.
fn details(snapshot: &Snapshot) -> Details {
    let ago = |seconds: u64| Some(Ktime(snapshot.now.0.saturating_sub(seconds * SECOND)));
    // A pool holds the upper end; the rest is TIME_WAIT. Of the odd ports, which connect() takes last, a part is free.
    let used = (40_000..=41_023_u16).filter(|port| *port != 40_080 && (port % 2 == 0 || *port < 40_700)).map(|port| {
        let established = port >= 40_900;
        PortUse {
            port,
            state: if established { TcpState::Established } else { TcpState::TimeWait },
            owner: u16::from(established),
            since: ago(u64::from(port % 60)),
        }
    });
    let failure = |number: u64| {
        let owner = if number.is_multiple_of(4) {
            owner("pool.service", 4001, false)
        } else {
            owner("bypass.service", 4211, true)
        };
        Arc::new(FailureRecord {
            failed: FailedConnect {
                ktime: Ktime(snapshot.now.0 - number * 7_000_000),
                cookie: None,
                failure: Failure::PortsExhausted,
                key: flow(0),
                owner: Some(owner),
                tid: 4_211,
                confirmed: number != 2,
                after_ms: Some(0.3),
            },
            holders: Arc::from([
                PastHolder { workload: "bypass.service".into(), ports: 982, time_wait: 982 },
                PastHolder { workload: "pool.service".into(), ports: 42, time_wait: 0 },
            ]),
            in_use: 1_024,
            capacity: Some(1_024),
        })
    };
    let step =
        |state, entered: u64, dwell: u64| FlowStep { state, entered: Some(START.plus(entered)), dwell: Some(dwell) };
    Details {
        seconds: (0..30_u32)
            .map(|second| SecondCounts {
                events: 1_500,
                connects: 90 + second,
                exhausted: second.saturating_sub(12) * 6,
                failed: 0,
            })
            .collect(),
        failures: (0..40).map(failure).collect(),
        destination: Some(DestinationDetail {
            key: place(),
            range: Some((40_000, 41_023)),
            used: used.collect(),
            owners: vec![owner("bypass.service", 4211, true), owner("pool.service", 4001, false)],
            blocked: vec![40_080],
            reserved: Vec::new(),
            lifetime: shape(1.0, &[2, 900, 1_400, 240, 19]),
            connect: shape(0.1, &[40, 1_900, 600, 21]),
            port_search: shape(0.1, &[0, 1_100, 90, 14]),
        }),
        workload: Some(WorkloadDetail {
            name: "bypass.service".into(),
            lifetime: shape(1.0, &[2, 900, 1_400, 240, 19]),
            connect: shape(0.1, &[40, 1_900, 600, 21]),
        }),
        flow: Some(FlowDetail {
            key: flow(40_000),
            owner: Some(owner("bypass.service", 4211, true)),
            opened: Opened::Active,
            steps: vec![
                step(TcpState::SynSent, 9_000_000_000, 310_000),
                step(TcpState::Established, 9_000_310_000, 1_900_000),
                step(TcpState::FinWait1, 9_002_210_000, 40_000),
                step(TcpState::FinWait2, 9_002_250_000, 12_000),
                step(TcpState::TimeWait, 9_002_262_000, 20_997_738_000),
            ],
            begin_unknown: false,
            repaired: false,
        }),
    }
}

/// A view that has got a frame.
struct Stage {
    app: App,
    options: RenderOptions,
    size: (u16, u16),
}

impl Stage {
    fn new(snapshot: Snapshot, host: HostFacts) -> Self {
        let trace = TraceInfo { host, clock: sample::clock(), zone: TimeZone::UTC };
        let mut app = App::new(trace, None, String::new());
        let details = if snapshot.generation == 0 { Details::default() } else { details(&snapshot) };
        app.accept(Arc::new(Frame { snapshot, details, status: Status::default() }));
        Self { app, options: UNICODE, size: (80, 24) }
    }

    fn exhaustion() -> Self {
        Self::new(sample::exhaustion(), sample::host())
    }

    fn replay() -> Self {
        let mut stage = Self::exhaustion();
        stage.with_status(replay_status());
        stage
    }

    fn with_status(&mut self, status: Status) {
        let frame = Frame { status, ..(*self.app.frame).clone() };
        self.app.accept(Arc::new(frame));
    }

    fn sized(mut self, width: u16, height: u16) -> Self {
        self.size = (width, height);
        self
    }

    fn options(mut self, options: RenderOptions) -> Self {
        self.options = options;
        self
    }

    fn press(&mut self, code: KeyCode) -> Vec<Effect> {
        let effects = self.app.key(&KeyEvent::new(code, KeyModifiers::NONE));
        self.buffer();
        effects
    }

    fn type_text(&mut self, text: &str) -> Vec<Effect> {
        text.chars().flat_map(|c| self.press(KeyCode::Char(c))).collect()
    }

    fn buffer(&mut self) -> Buffer {
        let mut terminal = Terminal::new(TestBackend::new(self.size.0, self.size.1)).expect("a fake terminal");
        let mut drawn = screen::ScreenLayout::default();
        terminal.draw(|frame| drawn = screen::draw(&self.app, self.options, frame.buffer_mut())).expect("drawn");
        self.app.set_hit_map(drawn.hits);
        terminal.backend().buffer().clone()
    }

    /// The letters, without their colours.
    fn screen(&mut self) -> String {
        let buffer = self.buffer();
        let width = usize::from(self.size.0);
        let symbols: Vec<&str> = buffer.content().iter().map(ratatui::buffer::Cell::symbol).collect();
        let lines = symbols.chunks(width).map(|line| line.concat().trim_end().to_owned());
        lines.collect::<Vec<_>>().join("\n")
    }
}

fn replay_status() -> Status {
    let at = |seconds: u64| START.plus(seconds * SECOND);
    Status {
        replay: Some(ReplayStatus {
            start: START,
            end: at(120),
            speed: Speed::Times(10.0),
            paused: true,
            seeking: false,
            ended: false,
            gaps: Arc::from([(at(60), at(70))]),
        }),
        ..Status::default()
    }
}

fn recording_status() -> Status {
    let recording = RecordingStatus { path: "incident.arrow".into(), since: START, bytes: 3_140_000 };
    Status { recording: Some(recording), ..Status::default() }
}
