//! An incident with known numbers, for tests that look back at it: a quiet host, one program that takes every port towards one server for
//! some minutes, and another one whose connects fail meanwhile.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use crate::errno::EADDRNOTAVAIL;
use crate::event::{
    Addr, Baseline, Call, CallFailed, Caller, CgroupId, Endpoint, Event, FlowKey, Ktime, Netns, NetnsFacts,
    ProcessFacts, SocketCookie, SocketId, SocketRow, TcpState, Transition,
};
use crate::recording::header::{Anchor, RecordedConfig, RecordedHost};
use crate::recording::{RecordingHeader, Writer};
use crate::replay::Facts;
use crate::step::TrackerStep;

use super::SECOND;

/// When recordings of incidents begin.
pub const BEGIN: Ktime = Ktime(1_000 * SECOND);
/// 2026-03-14 03:11:07 UTC.
const BEGIN_UNIX_NANOS: i64 = 1_773_457_867_000_000_000;
/// The namespace of the programs that the incident is about.
pub const SHOP: Netns = Netns::new(4_026_532_281, 11);
/// The namespace of everybody else.
pub const ELSEWHERE: Netns = Netns::new(4_026_531_840, 1);
/// Holds the ports.
pub const HOG: u32 = 4_711;
/// Its connects fail.
pub const VICTIM: u32 = 4_712;
/// Has nothing to do with it.
pub const STRANGER: u32 = 4_713;
/// Connects of the victim per second.
pub const VICTIM_RATE: u64 = 5;
/// Connects of the stranger per second.
pub const STRANGER_RATE: u64 = 2;
const FIRST_PORT: u16 = 40_000;
const TICK: u64 = SECOND / 10;
/// Seconds between two lists of sockets.
const LIST_EVERY: u64 = 10;

/// The incident: seconds from the begin of the recording.
#[derive(Clone, Copy, Debug)]
pub struct IncidentScript {
    /// Length of the recording.
    pub seconds: u64,
    /// When the hog takes its ports.
    pub from: u64,
    /// When it lets go of them.
    pub to: u64,
    /// Ports of the range; the hog takes [`Self::taken`] of them.
    pub ports: u16,
    /// Ports that the hog takes.
    pub taken: u16,
    /// Seconds since the epoch are shifted by so much, and so is the clock of the host: another time of the same boot.
    pub later: u64,
    /// Name of the host.
    pub host: &'static str,
    /// Id of its boot.
    pub boot: &'static str,
}

impl Default for IncidentScript {
    /// Twenty minutes with an incident of three minutes in which 100 of 100 ports are taken.
    fn default() -> Self {
        Self { seconds: 1_200, from: 600, to: 780, ports: 100, taken: 100, later: 0, host: "web-07", boot: "boot-a" }
    }
}

impl IncidentScript {
    /// Connects that fail.
    pub fn failures(&self) -> u64 {
        if self.taken < self.ports { 0 } else { (self.to - self.from) * VICTIM_RATE }
    }

    /// Connects of the victim.
    pub fn victim_connects(&self) -> u64 {
        self.seconds * VICTIM_RATE
    }

    /// The header of the recording.
    pub fn header(&self) -> RecordingHeader {
        RecordingHeader {
            tool: "portchurn synthetic".into(),
            anchor: Anchor { ktime_ns: BEGIN.0, unix_ns: BEGIN_UNIX_NANOS },
            begin_ns: self.begin().0,
            host: RecordedHost {
                hostname: Some(self.host.into()),
                kernel: Some("6.12.107".into()),
                boot_id: Some(self.boot.into()),
                tier: Some("exact".into()),
                ..RecordedHost::default()
            },
            watch: RecordedConfig {
                by: "auto".into(),
                time_wait_observed: true,
                calls_observed: true,
                ..RecordedConfig::default()
            },
            ..RecordingHeader::default()
        }
    }

    fn begin(&self) -> Ktime {
        BEGIN.plus(self.later * SECOND)
    }

    /// The steps of the recording.
    pub fn steps(&self) -> Vec<TrackerStep> {
        let mut steps = Steps { all: Vec::new(), next: 1, open: BTreeMap::new() };
        steps.facts(self);
        for second in 0..self.seconds {
            let begin = self.begin().plus(second * SECOND);
            if second % LIST_EVERY == 0 {
                steps.list(begin, second == 0);
            }
            if second == self.from {
                (0..self.taken).for_each(|port| steps.take(begin.plus(u64::from(port) * 10_000), port));
            }
            if second == self.to {
                steps.let_go(begin);
            }
            let failing = self.taken >= self.ports && (self.from..self.to).contains(&second);
            for tick in 0..SECOND / TICK {
                let at = begin.plus(tick * TICK + TICK / 2);
                if tick % (10 / VICTIM_RATE) == 0 {
                    if failing { steps.fails(at) } else { steps.comes_and_goes(at, VICTIM) }
                }
                if tick % (10 / STRANGER_RATE) == 0 {
                    steps.comes_and_goes(at.plus(1_000_000), STRANGER);
                }
                steps.all.push(TrackerStep::Advance(begin.plus((tick + 1) * TICK)));
            }
        }
        steps.all
    }

    /// Writes the recording into one file.
    ///
    /// # Errors
    /// The file could not be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        write(path, &self.header(), self.steps().iter()).map_err(io::Error::other)
    }

    /// Writes the recording as `parts` files of equal length below `directory`, as a rotation does: `incident.000001.arrow` and so on.
    ///
    /// # Errors
    /// A file could not be written.
    pub fn write_parts(&self, directory: &Path, parts: u64) -> io::Result<Vec<PathBuf>> {
        fs::create_dir_all(directory)?;
        let (steps, mut paths, mut known) = (self.steps(), Vec::new(), Facts::default());
        let mut rest = &steps[..];
        for part in 0..parts {
            let (begin, end) = (part * self.seconds / parts, (part + 1) * self.seconds / parts);
            let end = self.begin().plus(end * SECOND);
            let behind = rest.iter().position(|step| matches!(step, TrackerStep::Advance(now) if *now >= end));
            let (mine, others) = rest.split_at(behind.map_or(rest.len(), |last| last + 1));
            rest = others;
            let first = self.begin().plus(begin * SECOND);
            let header = RecordingHeader { begin_ns: first.0, continued: part > 0, ..self.header() };
            let path = directory.join(format!("incident.{:06}.arrow", part + 1));
            let begins_with = known.steps();
            write(&path, &header, begins_with.iter().chain(mine)).map_err(io::Error::other)?;
            for step in mine {
                known.take(step.clone());
            }
            paths.push(path);
        }
        Ok(paths)
    }
}

fn write<'a>(
    path: &Path,
    header: &RecordingHeader,
    steps: impl Iterator<Item = &'a TrackerStep>,
) -> Result<(), crate::recording::WriteError> {
    let mut writer = Writer::new(File::create(path)?, header)?;
    for (number, step) in steps.enumerate() {
        writer.step(step)?;
        // A batch every few seconds, as a recorder has.
        if number % 200 == 199 {
            writer.flush()?;
        }
    }
    writer.finish()?;
    Ok(())
}

/// Steps, with the sockets that are open.
struct Steps {
    all: Vec<TrackerStep>,
    /// Number of the next socket.
    next: u64,
    /// Sockets of the hog by port.
    open: BTreeMap<u16, u64>,
}

fn addr(last: u8) -> Addr {
    IpAddr::from(Ipv4Addr::new(10, 0, 0, last)).into()
}

fn key(pid: u32, port: u16) -> FlowKey {
    let (netns, local, remote, remote_port) =
        if pid == STRANGER { (ELSEWHERE, 9, 99, 443) } else { (SHOP, 1, 5, 5_432) };
    FlowKey {
        netns,
        device: 0,
        local: Endpoint { addr: addr(local), port },
        remote: Endpoint { addr: addr(remote), port: remote_port },
    }
}

fn socket(number: u64) -> SocketId {
    SocketId { cookie: SocketCookie::new(number), sock: 0xffff_8880_0000_0000 + number * 2_048 }
}

impl Steps {
    fn event(&mut self, event: Event) {
        self.all.push(TrackerStep::Event(event));
    }

    fn facts(&mut self, script: &IncidentScript) {
        let last = FIRST_PORT + script.ports - 1;
        for (netns, name, range) in [(SHOP, Some("shop"), (FIRST_PORT, last)), (ELSEWHERE, None, (32_768, 60_999))] {
            self.event(Event::Netns(Box::new(NetnsFacts {
                ktime: script.begin(),
                netns,
                name: name.map(Into::into),
                port_range: Some(range),
                tw_reuse: Some(0),
                ..NetnsFacts::default()
            })));
        }
        for (pid, comm, netns) in [(HOG, "hog", SHOP), (VICTIM, "orders", SHOP), (STRANGER, "batch", ELSEWHERE)] {
            self.event(Event::Process(Box::new(ProcessFacts {
                ktime: script.begin(),
                pid,
                start: u64::from(pid),
                comm: comm.into(),
                netns,
                cmdline: Some(format!("/usr/bin/{comm} --all").into()),
                unit: Some(format!("{comm}.service").into()),
                ..ProcessFacts::default()
            })));
        }
    }

    fn change(&mut self, at: Ktime, number: u64, pid: u32, port: u16, (old, new): (TcpState, TcpState)) {
        let caller = matches!((old, new), (TcpState::Close, _) | (_, TcpState::FinWait1));
        let shown = if old == TcpState::Close || new == TcpState::Close { 0 } else { port };
        self.event(Event::Transition(Transition {
            ktime: at,
            id: socket(number),
            key: key(pid, shown),
            last_port: if old == TcpState::Close { 0 } else { port },
            own_range: None,
            old,
            new,
            sk_err: 0,
            shutdown: false,
            caller: caller.then_some(Caller { pid, tid: pid, cgroup: CgroupId(0) }),
            current_tid: pid,
            rescued: false,
            classic: false,
        }));
    }

    /// The hog connects from this port of the range.
    fn take(&mut self, at: Ktime, port: u16) {
        let number = self.number();
        let port = FIRST_PORT + port;
        self.change(at, number, HOG, port, (TcpState::Close, TcpState::SynSent));
        self.change(at.plus(4_000), number, HOG, port, (TcpState::SynSent, TcpState::Established));
        self.open.insert(port, number);
    }

    /// The hog's connections are reset, so that nothing is left of them.
    fn let_go(&mut self, at: Ktime) {
        for (port, number) in std::mem::take(&mut self.open) {
            self.change(at, number, HOG, port, (TcpState::Established, TcpState::Close));
        }
    }

    /// A connection that is reset at once.
    fn comes_and_goes(&mut self, at: Ktime, pid: u32) {
        let number = self.number();
        // Above what the hog takes where there is room; nothing else has the port meanwhile.
        let free = (FIRST_PORT..=u16::MAX).find(|port| !self.open.contains_key(port)).unwrap_or(FIRST_PORT);
        self.change(at, number, pid, free, (TcpState::Close, TcpState::SynSent));
        self.change(at.plus(20_000), number, pid, free, (TcpState::SynSent, TcpState::Established));
        self.change(at.plus(40_000), number, pid, free, (TcpState::Established, TcpState::Close));
    }

    /// A connect of the victim finds no port.
    fn fails(&mut self, at: Ktime) {
        let number = self.number();
        self.change(at, number, VICTIM, 0, (TcpState::Close, TcpState::SynSent));
        self.change(at.plus(20_000), number, VICTIM, 0, (TcpState::SynSent, TcpState::Close));
        self.event(Event::CallFailed(Box::new(CallFailed {
            ktime: at.plus(21_000),
            entered: at,
            id: socket(number),
            netns: SHOP,
            caller: Caller { pid: VICTIM, tid: VICTIM, cgroup: CgroupId(0) },
            comm: "orders".into(),
            call: Call::Connect,
            errno: EADDRNOTAVAIL,
            target: Some(key(VICTIM, 0).remote),
            local: Endpoint { addr: Addr::UNSPECIFIED, port: 0 },
            device: 0,
            own_range: None,
        })));
    }

    /// A list of the open sockets.
    fn list(&mut self, at: Ktime, initial: bool) {
        let row = |(&port, &number): (&u16, &u64)| SocketRow {
            sock: socket(number).sock,
            cookie: SocketCookie::new(number),
            key: key(HOG, port),
            state: TcpState::Established,
            minisocket: false,
            remaining: None,
            owner: Some(HOG),
            named: None,
            closed: None,
            timestamps: None,
            has_descriptor: None,
            queue: None,
        };
        let rows: Vec<_> = self.open.iter().map(row).collect();
        let (began, ended) = (at, at.plus(100_000));
        self.event(Event::Baseline(Baseline { netns: SHOP, began, ended, initial, rows: rows.into() }));
        self.event(Event::Baseline(Baseline { netns: ELSEWHERE, began, ended, initial, rows: Vec::new().into() }));
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }
}
