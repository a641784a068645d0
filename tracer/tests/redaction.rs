//! What went into a recording and is to be in no copy of it: every byte of what `export --redact` writes is looked at, packed and
//! unpacked.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use tracer_core::event::{
    Addr, Baseline, Call, CallFailed, Caller, CgroupId, Endpoint, Event, FlowKey, Ktime, Netns, NetnsFacts,
    ProcessFacts, SocketCookie, SocketEvent, SocketId, SocketRow, TcpState, TimeWaitEvent, Transition,
};
use tracer_core::recording::{Writer, create, header};
use tracer_core::step::TrackerStep;

/// In every text, with the name of its place behind it.
const SECRET: &str = "topsecret";
const ADDRESSES: [[u8; 4]; 2] = [[198, 51, 100, 7], [203, 0, 113, 9]];
const SERVICE: u16 = 6_379;

fn key(port: u16) -> FlowKey {
    let [local, remote] = ADDRESSES.map(|addr| Addr::from(std::net::IpAddr::from(addr)));
    let netns = Netns::of_inode(7);
    FlowKey {
        netns,
        device: 0,
        local: Endpoint { addr: local, port },
        remote: Endpoint { addr: remote, port: SERVICE },
    }
}

#[expect(clippy::too_many_lines, reason = "one event of each kind, with a secret in every text")]
fn write(path: &Path) {
    let secret = |place: &str| format!("{SECRET}-{place}");
    let some = |place: &str| Some(secret(place).into());
    let degraded = header::RecordedDegradation { what: "hooks".into(), why: secret("why"), lost: secret("lost") };
    let header = header::RecordingHeader {
        tool: "portchurn test".into(),
        anchor: header::Anchor { ktime_ns: 5_000_000_000, unix_ns: 1_773_454_267_000_000_000 },
        begin_ns: 4_000_000_000,
        host: header::RecordedHost {
            hostname: Some(secret("hostname")),
            boot_id: Some(secret("boot")),
            degraded: vec![degraded],
            ..header::RecordedHost::default()
        },
        ..header::RecordingHeader::default()
    };
    let mut writer = Writer::new(create(path, true).expect("a file"), &header).expect("a header");
    let mut put = |event| writer.step(&TrackerStep::Event(event)).expect("room");
    let at = Ktime(5_000_000_000);
    put(Event::Netns(Box::new(NetnsFacts {
        ktime: at,
        netns: Netns::of_inode(7),
        name: some("netns"),
        ..NetnsFacts::default()
    })));
    put(Event::Process(Box::new(ProcessFacts {
        ktime: at,
        pid: 7,
        comm: secret("c").into(),
        parent_comm: secret("p").into(),
        cmdline: some("cmdline"),
        exe: some("exe"),
        cgroup_path: some("cgroup"),
        unit: some("unit"),
        container: some("container"),
        pool: some("pool"),
        ..ProcessFacts::default()
    })));
    let id = SocketId { cookie: SocketCookie::new(1), sock: 0 };
    let caller = Caller { pid: 7, tid: 7, cgroup: CgroupId(3) };
    let moves = [
        (TcpState::Close, TcpState::SynSent),
        (TcpState::SynSent, TcpState::Established),
        (TcpState::Established, TcpState::FinWait1),
        (TcpState::FinWait1, TcpState::FinWait2),
        (TcpState::FinWait2, TcpState::Close),
    ];
    for (old, new) in moves {
        put(Event::Transition(Transition {
            ktime: at,
            id,
            key: key(40_000),
            last_port: 40_000,
            own_range: None,
            old,
            new,
            sk_err: 0,
            shutdown: false,
            caller: Some(caller),
            current_tid: 7,
            rescued: false,
            classic: false,
        }));
    }
    let socket = SocketEvent { ktime: at, id, key: key(40_000), pid: 7, tid: 7, named: None, listener: None };
    for event in [Event::Accepted(socket), Event::Bound(socket), Event::Released(socket)] {
        put(event);
    }
    let minisocket = TimeWaitEvent {
        ktime: at,
        cookie: id.cookie,
        key: key(40_000),
        fin_wait2: false,
        timestamps: None,
        expired: false,
    };
    put(Event::TimeWaitStart(minisocket));
    for call in [Call::Connect, Call::Bind, Call::Listen] {
        put(Event::CallFailed(Box::new(CallFailed {
            ktime: at,
            entered: at,
            id,
            netns: Netns::of_inode(7),
            caller,
            comm: secret("f").into(),
            call,
            errno: 99,
            target: Some(key(0).remote),
            local: key(0).local,
            device: 0,
            own_range: None,
        })));
    }
    let row = SocketRow {
        cookie: SocketCookie::new(2),
        sock: 0,
        key: key(40_001),
        state: TcpState::Established,
        minisocket: false,
        remaining: None,
        owner: Some(7),
        has_descriptor: None,
        named: None,
        closed: None,
        timestamps: None,
        queue: None,
    };
    put(Event::Baseline(Baseline {
        netns: Netns::of_inode(7),
        began: at,
        ended: at,
        initial: true,
        rows: vec![row].into(),
    }));
    writer.step(&TrackerStep::Advance(Ktime(6_000_000_000))).expect("room");
    writer.finish().expect("room");
}

/// Everything in a file: its bytes, and what they unpack to.
fn contents(path: &Path) -> String {
    let bytes = fs::read(path).expect("a file");
    let mut all = String::from_utf8_lossy(&bytes).into_owned();
    if bytes.starts_with(b"ARROW1") {
        let file = arrow_ipc::reader::FileReader::try_new(File::open(path).expect("a file"), None).expect("Arrow");
        write!(all, "{:?}", file.schema()).expect("a String has room");
        for batch in file {
            write!(all, "{:?}", batch.expect("a batch")).expect("a String has room");
        }
    } else if bytes.starts_with(b"PAR1") {
        let file = File::open(path).expect("a file");
        let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet");
        write!(all, "{:?} {:?}", reader.schema(), reader.metadata()).expect("a String has room");
        for batch in reader.build().expect("Parquet") {
            write!(all, "{:?}", batch.expect("a batch")).expect("a String has room");
        }
    }
    all
}

#[test]
fn no_byte_of_a_redacted_copy_has_a_secret() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("incident.arrow");
    write(&path);
    let file = path.to_str().expect("UTF-8");
    let addresses = ADDRESSES.map(|addr| std::net::Ipv4Addr::from(addr).to_string());
    let secrets: Vec<&str> = addresses.iter().map(String::as_str).chain([SECRET]).collect();
    let whole = contents(&path);
    assert!(secrets.iter().all(|secret| whole.contains(secret)), "the test would find them");
    for (number, more) in [
        &["--format", "arrow"][..],
        &["--format", "parquet"],
        &["--format", "jsonl"],
        &["--format", "csv"],
        &["--what", "flows", "--format", "parquet"],
        &["--what", "flows", "--format", "jsonl"],
        &["--format", "arrow", "--redact-ports", "--redact-times"],
        &["--what", "flows", "--format", "csv", "--redact-ports", "--redact-times"],
    ]
    .into_iter()
    .enumerate()
    {
        let copy = dir.path().join(format!("copy{number}"));
        let output = Command::new(env!("CARGO_BIN_EXE_portchurn"))
            .args(["export", file, "--redact", "-o"])
            .arg(&copy)
            .args(more)
            .output()
            .expect("the program");
        assert!(output.status.success(), "{more:?}: {output:?}");
        let contents = contents(&copy);
        let told = String::from_utf8_lossy(&output.stderr);
        for secret in &secrets {
            assert!(!contents.contains(secret) && !told.contains(secret), "{more:?}: {secret} in {contents}");
        }
        if more.contains(&"--redact-ports") {
            assert!(!contents.contains("6379") && !contents.contains("2026-03"), "{more:?}: {contents}");
        }
    }
}
