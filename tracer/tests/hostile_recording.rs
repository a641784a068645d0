//! A recording whose author is hostile: every text in it is an attack, on a terminal, on a spreadsheet, on whoever reads JSON. The real
//! program reads it, and no output lets one through.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Output};

use tracer_core::event::{
    Addr, Call, CallFailed, Caller, CgroupId, Endpoint, Event, FlowKey, Ktime, Netns, NetnsFacts, ProcessFacts,
    SocketCookie, SocketId, TcpState, Transition,
};
use tracer_core::foreign_text::is_unprintable;
use tracer_core::recording::{Writer, create, header};
use tracer_core::step::TrackerStep;

/// An attack in one text: a formula, a quote, a new title and a cleared screen (in both forms), a new line of a log, a turned direction.
fn attack(place: &str) -> String {
    format!(
        "=HYPERLINK(\"http://{place}\")\",\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}2J\u{7f}\r\nportchurn: forged\u{202e}gnp\u{200b}"
    )
}

fn key(netns: Netns, port: u16) -> FlowKey {
    let endpoint = |port| Endpoint { addr: Addr::from(std::net::IpAddr::from([10, 0, 0, 1])), port };
    FlowKey { netns, device: 0, local: endpoint(port), remote: endpoint(443) }
}

fn write(path: &Path) {
    let netns = Netns::of_inode(4_026_531_840);
    let degraded = header::RecordedDegradation { what: attack("what"), why: attack("why"), lost: attack("lost") };
    let header = header::RecordingHeader {
        tool: attack("tool"),
        anchor: header::Anchor { ktime_ns: 5_000_000_000, unix_ns: 1_773_454_267_000_000_000 },
        begin_ns: 4_000_000_000,
        host: header::RecordedHost {
            hostname: Some(attack("hostname")),
            kernel: Some(attack("kernel")),
            boot_id: Some(attack("boot")),
            tier: Some(attack("tier")),
            degraded: vec![degraded],
        },
        watch: header::RecordedConfig {
            by: attack("by"),
            calls_observed: true,
            time_wait_observed: true,
            searches_observed: true,
            knobs: header::RecordedKnobs { kernel: attack("knobs"), ..header::RecordedKnobs::default() },
        },
        continued: false,
        window_ns: None,
        trigger: None,
    };
    let mut writer = Writer::new(create(path, true).expect("a file"), &header).expect("a header");
    let text = |place: &str| Some(attack(place).into());
    let mut put = |event| writer.step(&TrackerStep::Event(event)).expect("room");
    put(Event::Netns(Box::new(NetnsFacts {
        ktime: Ktime(4_000_000_000),
        netns,
        name: text("netns"),
        port_range: Some((40_000, 40_009)),
        ..NetnsFacts::default()
    })));
    for pid in [7, 8] {
        put(Event::Process(Box::new(ProcessFacts {
            ktime: Ktime(4_000_000_000),
            pid,
            netns,
            comm: attack("comm").into(),
            parent_comm: attack("parent").into(),
            cmdline: text("cmdline"),
            exe: text("exe"),
            cgroup_path: text("cgroup"),
            unit: text("unit").filter(|_| pid == 8),
            container: text("container").filter(|_| pid == 8),
            pod: text("pod").filter(|_| pid == 8),
            pool: text("pool").filter(|_| pid == 8),
            ..ProcessFacts::default()
        })));
    }
    for number in 0..20_u16 {
        let ktime = Ktime(5_000_000_000 + u64::from(number) * 1_000_000);
        let id = SocketId { cookie: SocketCookie::new(u64::from(number) + 1), sock: 0 };
        let caller = Caller { pid: 7 + u32::from(number % 2), tid: 7, cgroup: CgroupId(0) };
        let key = key(netns, 40_000 + number);
        let moved = |old, new| {
            Event::Transition(Transition {
                ktime,
                id,
                key,
                last_port: key.local.port,
                own_range: None,
                old,
                new,
                sk_err: 0,
                shutdown: false,
                caller: Some(caller),
                current_tid: 7,
                rescued: false,
                classic: false,
            })
        };
        if number < 10 {
            put(moved(TcpState::Close, TcpState::SynSent));
            put(moved(TcpState::SynSent, TcpState::Established));
            if number < 3 {
                put(moved(TcpState::Established, TcpState::Close));
            }
        } else {
            put(Event::CallFailed(Box::new(CallFailed {
                ktime,
                entered: ktime,
                id,
                netns,
                caller,
                comm: attack("caller").into(),
                call: Call::Connect,
                errno: 99,
                target: Some(key.remote),
                local: Endpoint { port: 0, ..key.local },
                device: 0,
                own_range: None,
            })));
        }
    }
    writer.step(&TrackerStep::Advance(Ktime(6_000_000_000))).expect("room");
    writer.finish().expect("room");
}

fn portchurn(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_portchurn")).args(arguments).env("NO_COLOR", "1").output();
    output.expect("the program")
}

/// Fails if an output has a character that a terminal obeys. Lines end, and that is all.
fn assert_inert(what: &[&str], bytes: &[u8]) {
    let text = std::str::from_utf8(bytes).expect("UTF-8");
    for line in text.lines() {
        assert!(!line.contains(is_unprintable), "{what:?}: {line:?}");
        assert!(!line.starts_with("portchurn: forged"), "{what:?}: {line:?}");
    }
}

#[test]
fn no_text_of_a_recording_is_obeyed_by_whoever_shows_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("hostile.arrow");
    write(&path);
    let file = path.to_str().expect("UTF-8");
    let (csv, arrow) = (dir.path().join("flows.csv"), dir.path().join("copy.arrow"));
    let (csv, arrow) = (csv.to_str().expect("UTF-8"), arrow.to_str().expect("UTF-8"));
    let mut shown = HashMap::new();
    for arguments in [
        &["report", file][..],
        &["report", file, "--json"],
        &["report", file, "--by", "pid"],
        &["replay", file, "--what", "all"],
        &["replay", file, "--what", "all", "--json"],
        &["check", file, "--fail-if", "port-exhaustion"],
        &["check", file, "--fail-if", "port-exhaustion", "--json"],
        &["diff", file, file],
        &["diff", file, file, "--json"],
        &["export", file, "--format", "jsonl"],
        &["export", file, "--format", "csv"],
        &["export", file, "--what", "flows", "--format", "jsonl"],
        &["export", file, "--what", "flows", "--format", "csv", "-o", csv],
        &["export", file, "--format", "arrow", "-o", arrow],
        &["report", arrow, "--json"],
    ] {
        let output = portchurn(arguments);
        let code = output.status.code().expect("an exit code");
        assert!(code == 0 || code == 4, "{arguments:?}: {output:?}");
        assert_inert(arguments, &output.stdout);
        assert_inert(arguments, &output.stderr);
        if arguments.contains(&"--json") || arguments.contains(&"jsonl") {
            let text = String::from_utf8_lossy(&output.stdout);
            let whole = serde_json::from_str::<serde_json::Value>(&text).is_ok();
            let lines = || text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok());
            assert!(whole || lines(), "{arguments:?}: {text}");
        }
        shown.insert(arguments.join(" "), output.stdout);
    }
    let seen = |arguments: &[&str]| String::from_utf8_lossy(&shown[&arguments.join(" ")]).into_owned();
    assert!(seen(&["report", file]).contains("HYPERLINK"), "the test shows nothing: the names are in the report");
    assert_eq!(
        seen(&["report", file, "--json"]).matches("HYPERLINK").count(),
        seen(&["report", arrow, "--json"]).matches("HYPERLINK").count(),
        "a copy of the recording has the same names"
    );
    for table in [seen(&["export", file, "--format", "csv"]), std::fs::read_to_string(csv).expect("a table")] {
        assert!(table.contains("\"'=HYPERLINK(\"\"http://"), "{table}");
        for cell in table.split(['\n', ',']) {
            let first = cell.trim_start_matches('"').chars().next();
            assert!(!matches!(first, Some('=' | '+' | '@')), "a formula: {cell}");
        }
    }
}
