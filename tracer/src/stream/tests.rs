use std::cell::RefCell;
use std::rc::Rc;

use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr;

use super::*;
use tracer_core::event::{Addr, Endpoint, FlowKey, Netns, SocketCookie, TcpState};
use tracer_core::report::sample::{self, NETNS, START, addr, clock};
use tracer_core::tracker::snapshot::{Ended, FailedConnect, Failure, FlowEnd, Opened, Owner, StateChange};

fn key(local: &str, local_port: u16, remote: &str, remote_port: u16) -> FlowKey {
    FlowKey {
        netns: NETNS,
        device: 0,
        local: Endpoint { addr: addr(local), port: local_port },
        remote: Endpoint { addr: addr(remote), port: remote_port },
    }
}

#[expect(clippy::unnecessary_wraps, reason = "notices hold an option")]
fn owner(pid: u32, workload: &str, inferred: bool) -> Option<Owner> {
    Some(Owner { pid, comm: "python3".into(), workload: workload.into(), inferred, ..Owner::default() })
}

fn exhausted() -> Notice {
    Notice::FailedConnect(FailedConnect {
        ktime: START.plus(1_000_000),
        cookie: SocketCookie::new(77),
        failure: Failure::PortsExhausted,
        key: key("10.66.0.1", 0, "10.66.0.2", 8443),
        owner: owner(4211, "bypass.service", false),
        tid: 4211,
        confirmed: true,
        after_ms: Some(0.42),
    })
}

fn flow() -> Notice {
    Notice::FlowEnd(FlowEnd {
        ktime: START.plus(2_000_000),
        cookie: SocketCookie::new(77),
        key: key("10.66.0.1", 41_234, "10.66.0.2", 8443),
        owner: owner(4212, "bypass.service", true),
        opened: Opened::Active,
        ended: Ended::ActiveClose,
        lifetime_ms: Some(2.1),
        connect_ms: Some(0.4),
        repaired: false,
        time_wait: true,
    })
}

fn change(old: TcpState, new: TcpState) -> Notice {
    Notice::StateChange(StateChange {
        ktime: START.plus(3_000_000),
        cookie: SocketCookie::new(77),
        key: key("10.66.0.1", 41_234, "10.66.0.2", 8443),
        owner: owner(4211, "bypass.service", false),
        old,
        new,
        dwell_ms: Some(60_970.0),
    })
}

fn nasty() -> [Notice; 3] {
    let long = key("2001:db8:aaaa:bbbb:cccc:dddd:eeee:1111", 65_535, "2001:db8:aaaa:bbbb:cccc:dddd:eeee:2222", 65_535);
    let unknown = FlowKey {
        netns: Netns::of_inode(0),
        device: 0,
        local: Endpoint { addr: Addr::UNSPECIFIED, port: 0 },
        remote: Endpoint { addr: Addr::UNSPECIFIED, port: 0 },
    };
    [
        Notice::FailedConnect(FailedConnect {
            ktime: Ktime(0),
            cookie: SocketCookie::new(77),
            failure: Failure::Errno(u16::MAX),
            key: unknown,
            owner: None,
            tid: 0,
            confirmed: false,
            after_ms: None,
        }),
        Notice::FlowEnd(FlowEnd {
            ktime: Ktime(u64::MAX),
            cookie: SocketCookie::new(77),
            key: long,
            owner: owner(u32::MAX, "a-very-long-name-\u{e9}-\u{1b}[2J-that-goes-on-and-on.service", true),
            opened: Opened::Unknown,
            ended: Ended::SimultaneousClose,
            lifetime_ms: Some(f64::NAN),
            connect_ms: None,
            repaired: true,
            time_wait: true,
        }),
        Notice::StateChange(StateChange {
            ktime: START,
            cookie: SocketCookie::new(77),
            key: key("0.0.0.0", 80, "0.0.0.0", 0),
            owner: owner(0, "", false),
            old: TcpState::NewSynRecv,
            new: TcpState::Established,
            dwell_ms: None,
        }),
    ]
}

fn notices() -> Vec<Notice> {
    let mut all = vec![
        exhausted(),
        flow(),
        change(TcpState::SynSent, TcpState::Established),
        change(TcpState::FinWait2, TcpState::TimeWait),
        change(TcpState::TimeWait, TcpState::Close),
    ];
    let incident = |snapshot: tracer_core::tracker::snapshot::Snapshot, at: usize| {
        Notice::Finding(Box::new(snapshot.findings[at].clone()))
    };
    all.push(incident(sample::exhaustion(), 0));
    all.push(incident(sample::over(), 1));
    all.extend(nasty());
    all
}

fn text(width: usize) -> StreamFormat {
    StreamFormat::Text { colour: false, width, zone: TimeZone::UTC }
}

fn all() -> StreamSelection {
    [StreamKind::All].into_iter().collect()
}

fn written(format: StreamFormat, selection: StreamSelection) -> String {
    let mut out = Vec::new();
    let mut stream = Stream::new(&mut out, format, selection, clock(), false);
    assert_eq!(stream.header().expect("written"), StreamState::Open);
    for notice in notices() {
        assert_eq!(stream.notice(&notice).expect("written"), StreamState::Open);
    }
    let lost = Lost { ring_full: 1_234, missed_runs: 1, other_runs: 2, recorder: 0 };
    for _ in 0..2 {
        assert_eq!(stream.loss(START.plus(4_000_000), lost).expect("written"), StreamState::Open);
    }
    assert_eq!(stream.flush().expect("written"), StreamState::Open);
    String::from_utf8(out).expect("text")
}

fn json_lines() -> Vec<Value> {
    written(StreamFormat::Json, all()).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn validator() -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(json::SCHEMA).expect("the schema is JSON");
    assert!(jsonschema::draft202012::meta::is_valid(&schema));
    jsonschema::draft202012::new(&schema).expect("the schema is a schema")
}

#[test]
fn every_line_keeps_the_contract_and_no_field_can_go() {
    let validator = validator();
    for line in json_lines() {
        assert!(validator.is_valid(&line), "{line}");
        for (name, value) in line.as_object().expect("an object") {
            let mut renamed = line.clone();
            let map = renamed.as_object_mut().expect("an object");
            map.remove(name);
            map.insert("something_else".into(), value.clone());
            assert!(!validator.is_valid(&renamed), "{name} may be missing from {line}");
            let mut retyped = line.clone();
            retyped[name] = if value.is_boolean() { json!(0) } else { json!(true) };
            assert!(!validator.is_valid(&retyped), "{name} may be anything in {line}");
        }
    }
}

#[test]
fn json_lines_say_what_happened() {
    let lines = json_lines();
    assert_eq!(
        lines[0],
        json!({
            "type": "failure", "time": "2026-03-14T03:11:07.001000000Z", "ktime_ns": 1_000_001_000_000_u64,
            "cookie": 77,
            "netns": 4_026_532_281_u32, "local_addr": "10.66.0.1", "local_port": null,
            "remote_addr": "10.66.0.2", "remote_port": 8443, "pid": 4211, "comm": "python3",
            "workload": "bypass.service", "inferred": false, "reason": "EADDRNOTAVAIL", "tid": 4211,
            "confirmed": true, "after_ms": 0.42
        })
    );
    assert_eq!((&lines[1]["type"], &lines[1]["ended"]), (&json!("flow"), &json!("active-close")));
    assert_eq!(lines[1]["inferred"], true);
    assert_eq!(lines[3]["new"], "TIME_WAIT");
    assert_eq!(lines[4]["old"], "TIME_WAIT");
    for name in ["netns", "local_addr", "local_port", "remote_addr", "remote_port", "pid", "comm", "workload", "tid"] {
        assert_eq!(lines[7][name], Value::Null, "{name}");
    }
    assert_eq!(lines[9]["local_addr"], "0.0.0.0", "a listener's wildcard is an address");
    assert_eq!(lines[10]["type"], "loss");
    assert_eq!(lines[10]["ring_full"], 1_234);
    assert_eq!(lines.len(), 11, "loss is told when it changes, not each time");
}

#[test]
fn text_at_120_columns() {
    insta::assert_snapshot!(written(text(120), all()));
}

#[test]
fn text_at_80_columns() {
    insta::assert_snapshot!(written(text(80), all()));
}

#[test]
fn usual_lines_fit_and_columns_stay_put() {
    for width in [80, 120] {
        let written = written(text(width), all());
        for line in written.lines().take(6) {
            assert!(line.width() <= width, "{width}: {line}");
        }
        let usual: Vec<_> = written.lines().take(3).collect();
        let columns: Vec<_> = usual.iter().map(|line| line.find("TO").or(line.find("10.66.0.2"))).collect();
        assert_eq!(columns.iter().collect::<std::collections::BTreeSet<_>>().len(), 1, "{written}");
    }
}

#[test]
fn numbers_survive_any_width_and_no_control_character_does() {
    let written = written(text(20), all());
    assert!(written.contains("[2001:db8:aaaa:bbbb:cccc:dddd:eeee:2222]:65535"), "{written}");
    assert!(written.contains("~4294967295"), "{written}");
    assert!(!written.contains('\u{1b}') && written.is_ascii());
}

#[test]
fn colour_is_only_added() {
    let plain = written(text(120), all());
    let coloured = written(StreamFormat::Text { colour: true, width: 120, zone: TimeZone::UTC }, all());
    assert_ne!(coloured, plain);
    assert_eq!(tracer_core::layout::text::without_colour(&coloured), plain);
}

#[test]
fn only_what_was_asked_for_is_written() {
    let kinds = |selection| -> Vec<String> {
        written(StreamFormat::Json, selection)
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["type"].as_str().expect("text").to_owned())
            .collect()
    };
    assert_eq!(kinds(StreamSelection::default()), ["failure", "flow", "finding", "finding", "failure", "flow", "loss"]);
    assert_eq!(kinds([StreamKind::Failures].into_iter().collect()), ["failure", "failure", "loss"]);
    assert_eq!(
        kinds([StreamKind::Transitions].into_iter().collect()),
        ["transition"; 4].iter().chain(&["loss"]).copied().collect::<Vec<_>>()
    );
    assert_eq!("flows".parse(), Ok(StreamKind::Flows));
    assert_eq!(
        "flow".parse::<StreamKind>().map_err(|error| error.to_string()),
        Err("cannot stream \"flow\"; choose transitions, flows, failures, findings or all".into())
    );
}

#[test]
fn findings_have_a_line_when_they_begin_and_one_when_they_end() {
    let lines = written(text(120), [StreamKind::Findings].into_iter().collect());
    let began = "03:11:19.204 BEGIN CRITICAL port-exhaustion: bypass.service exhausts the ports towards 10.66.0.2:8443";
    assert!(lines.contains(began), "{lines}");
    let ended = "03:13:48.000 END   CRITICAL port-exhaustion, at its worst 841 failures/min, 1,204 in all: bypass.service exhausted";
    assert!(lines.contains(ended), "{lines}");
    let json: Vec<_> = json_lines().into_iter().filter(|line| line["type"] == "finding").collect();
    assert_eq!((&json[0]["state"], &json[0]["ended"]), (&json!("active"), &json!(null)));
    assert_eq!((&json[1]["state"], &json[1]["peak"]["value"]), (&json!("past"), &json!(841.0)));
}

/// 42 lines in 28 s, on a trace that lost nothing.
#[test]
fn runs_beside_the_chain_are_told_each_time_that_they_have_doubled() {
    let mut out = Vec::new();
    let mut stream = Stream::new(&mut out, text(120), all(), clock(), true);
    for runs in 1..=1_000 {
        let lost = Lost { other_runs: runs, ..Lost::default() };
        let _ = stream.loss(START.plus(runs), lost).expect("written");
    }
    let lost = Lost { other_runs: 1_000, ring_full: 1, ..Lost::default() };
    let _ = stream.loss(START.plus(2_000), lost).expect("written");
    let lines = String::from_utf8(out).expect("text");
    assert_eq!(lines.lines().count(), 11, "{lines}");
    let last = lines.lines().last().expect("lines");
    let words = "so far 1 event lost (the kernel buffer was full), at most 1,000 events lost (probe runs that the kernel skipped)";
    assert!(last.ends_with(words), "{last}");
}

/// Takes what it is given until told to fail.
#[derive(Clone, Default)]
struct Pipe {
    bytes: Rc<RefCell<Vec<u8>>>,
    fails: Rc<RefCell<Option<io::ErrorKind>>>,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match *self.fails.borrow() {
            Some(kind) => Err(kind.into()),
            None => self.bytes.borrow_mut().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_leaves_ends_the_stream_and_a_full_disk_is_an_error() {
    let pipe = Pipe::default();
    let mut stream = Stream::new(pipe.clone(), StreamFormat::Json, all(), clock(), true);
    assert_eq!(stream.notice(&flow()).expect("written"), StreamState::Open);
    pipe.fails.replace(Some(io::ErrorKind::BrokenPipe));
    assert_eq!(stream.notice(&flow()).expect("a clean end"), StreamState::Closed);
    pipe.fails.replace(None);
    assert_eq!(stream.notice(&flow()).expect("a clean end"), StreamState::Closed);
    assert_eq!(stream.flush().expect("a clean end"), StreamState::Closed);
    assert_eq!(pipe.bytes.borrow().split(|&byte| byte == b'\n').count(), 2, "nothing after the end");

    let pipe = Pipe::default();
    let mut stream = Stream::new(pipe.clone(), StreamFormat::Json, all(), clock(), true);
    pipe.fails.replace(Some(io::ErrorKind::StorageFull));
    assert_eq!(stream.notice(&flow()).map_err(|error| error.kind()), Err(io::ErrorKind::StorageFull));
}

#[test]
fn a_terminal_gets_lines_and_a_pipe_gets_batches() {
    let lines = |by_line| {
        let pipe = Pipe::default();
        let mut stream = Stream::new(pipe.clone(), StreamFormat::Json, all(), clock(), by_line);
        let _ = stream.notice(&flow()).expect("written");
        let at_once = pipe.bytes.borrow().len();
        let _ = stream.flush().expect("written");
        (at_once > 0, !pipe.bytes.borrow().is_empty())
    };
    assert_eq!(lines(true), (true, true));
    assert_eq!(lines(false), (false, true));

    let pipe = Pipe::default();
    let mut stream = Stream::new(pipe.clone(), StreamFormat::Json, all(), clock(), false);
    for _ in 0..1_000 {
        let _ = stream.notice(&flow()).expect("written");
    }
    assert!(!pipe.bytes.borrow().is_empty(), "a batch is bounded");
}
