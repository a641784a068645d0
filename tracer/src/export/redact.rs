//! Redacts recordings: replaces names and addresses, so that equal ones stay equal and different ones different.
//!
//! Addresses, names, command lines and paths become keyed hashes. The key is random for each redaction and never
//! stored, or made of a file, so that recordings redacted with the same file can be compared. Loopback and unspecified
//! addresses stay, because they name no host. Times, states, errnos, limits, pids and counts stay, because the incident
//! consists of them; the ports of services and the date only if nobody asks for more.
//!
//! Not for: anonymity against someone who watched the same traffic. Times and ports identify its connections.

use std::cell::RefCell;
use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use rustc_hash::FxHashMap;
use sha2::{Digest as _, Sha256};

use tracer_core::event::{Addr, Endpoint, Event, FlowKey, ProcessFacts};
use tracer_core::recording::RecordingHeader;
use tracer_core::step::TrackerStep;

/// First byte of replaced addresses: these are unique local addresses (RFC 4193), which are not routed.
const UNIQUE_LOCAL: u8 = 0xfd;
/// Bytes of a key file, at least: 128 bits cannot be guessed.
const LEAST_KEY: u64 = 16;
/// Bytes of a key file that are read, at most.
const MOST_KEY: u64 = 1 << 20;
/// Ports from here on are those that connect() chooses, by default.
const EPHEMERAL: u16 = 32_768;
/// Replaced addresses that are remembered, because a hash takes as long as reading a row.
const MAX_REMEMBERED: usize = 1 << 16;

/// What the hashes are keyed with.
pub struct RedactionKey([u8; 32]);

impl RedactionKey {
    /// One that nobody knows.
    ///
    /// # Errors
    /// The kernel has no random numbers.
    pub fn random() -> Result<Self> {
        let mut key = [0; 32];
        File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut key)).context("drawing a key")?;
        Ok(Self(key))
    }

    /// One that is made of the bytes of a file.
    ///
    /// # Errors
    /// The file cannot be read, or it is too short to be a secret.
    pub fn from_file(path: &Path) -> Result<Self> {
        let mut bytes = Vec::new();
        let file = File::open(path).with_context(|| format!("reading the key {}", path.display()))?;
        file.take(MOST_KEY).read_to_end(&mut bytes).with_context(|| format!("reading the key {}", path.display()))?;
        if (bytes.len() as u64) < LEAST_KEY {
            bail!(
                "{}: a key needs {LEAST_KEY} bytes, or it can be guessed; make one with: head -c 32 /dev/urandom > FILE",
                path.display()
            );
        }
        Ok(Self(Sha256::digest(&bytes).into()))
    }
}

/// What is replaced beside names and addresses.
#[derive(Clone, Copy, Debug, Default)]
pub struct RedactionExtent {
    /// The ports of services.
    pub ports: bool,
    /// The date.
    pub times: bool,
}

/// Redacts with one key.
pub struct Redactor {
    key: RedactionKey,
    extent: RedactionExtent,
    addresses: RefCell<FxHashMap<Addr, Addr>>,
}

impl Redactor {
    /// Redacts with this key.
    pub fn new(key: RedactionKey, extent: RedactionExtent) -> Self {
        Self { key, extent, addresses: RefCell::default() }
    }

    /// The keyed hash of something; `kind` keeps hashes of different things apart.
    fn hash(&self, kind: u8, bytes: &[u8]) -> [u8; 32] {
        Sha256::new().chain_update(self.key.0).chain_update([kind]).chain_update(bytes).finalize().into()
    }

    fn addr(&self, addr: Addr) -> Addr {
        if addr.is_loopback() || addr.is_unspecified() {
            return addr;
        }
        if let Some(known) = self.addresses.borrow().get(&addr) {
            return *known;
        }
        let hash = self.hash(b'a', &addr.0);
        let mut octets = [0; 16];
        for (to, from) in octets.iter_mut().zip(hash) {
            *to = from;
        }
        octets[0] = UNIQUE_LOCAL;
        let replaced = Addr::from(IpAddr::V6(Ipv6Addr::from(octets)));
        let mut addresses = self.addresses.borrow_mut();
        if addresses.len() >= MAX_REMEMBERED {
            addresses.clear();
        }
        addresses.insert(addr, replaced);
        replaced
    }

    /// Another port below [`EPHEMERAL`], of which each is the replacement of one: four rounds of a Feistel network over
    /// 15 bits, walked until it is no 0.
    fn port(&self, port: u16) -> u16 {
        if !self.extent.ports || port == 0 || port >= EPHEMERAL {
            return port;
        }
        let mut at = port;
        loop {
            // Eight and seven bits take turns.
            let (mut left, mut right) = (at >> 7, at & 0x7f);
            for round in 0..4_u8 {
                let wide = round % 2 == 0;
                let [seed, rest @ ..] = right.to_be_bytes();
                let [mixed, ..] = self.hash(b'p', &[&[round, seed][..], &rest].concat());
                let next = left ^ u16::from(if wide { mixed } else { mixed & 0x7f });
                (left, right) = (right, next);
            }
            at = left << 7 | right & 0x7f;
            if at != 0 {
                return at;
            }
        }
    }

    fn text(&self, text: &str) -> Arc<str> {
        if text.is_empty() {
            return text.into();
        }
        let hash = self.hash(b't', text.as_bytes());
        // Thirteen characters fit where the kernel cuts names to 15.
        hash.iter().take(6).fold("x".to_owned(), |text, byte| format!("{text}{byte:02x}")).into()
    }

    fn maybe(&self, text: &mut Option<Arc<str>>) {
        if let Some(text) = text {
            *text = self.text(text);
        }
    }

    fn endpoint(&self, endpoint: &mut Endpoint) {
        endpoint.addr = self.addr(endpoint.addr);
        endpoint.port = self.port(endpoint.port);
    }

    fn key(&self, key: &mut FlowKey) {
        self.endpoint(&mut key.local);
        self.endpoint(&mut key.remote);
    }

    fn process(&self, facts: &mut ProcessFacts) {
        facts.comm = self.text(&facts.comm);
        facts.parent_comm = self.text(&facts.parent_comm);
        let ProcessFacts { cmdline, exe, cgroup_path, unit, container, pod, pool, .. } = facts;
        for text in [cmdline, exe, cgroup_path, unit, container, pod, pool] {
            self.maybe(text);
        }
    }

    /// `step` with its names and addresses replaced.
    #[must_use]
    pub fn step(&self, mut step: TrackerStep) -> TrackerStep {
        let TrackerStep::Event(event) = &mut step else { return step };
        match event {
            Event::Transition(event) => {
                self.key(&mut event.key);
                event.last_port = self.port(event.last_port);
            }
            Event::TimeWaitStart(event) | Event::TimeWaitEnd(event) | Event::TimeWaitListed(event) => {
                self.key(&mut event.key);
            }
            Event::CallFailed(call) => {
                call.comm = self.text(&call.comm);
                self.endpoint(&mut call.local);
                if let Some(target) = &mut call.target {
                    self.endpoint(target);
                }
            }
            Event::Accepted(event) | Event::Bound(event) | Event::Released(event) => self.key(&mut event.key),
            Event::Process(facts) => self.process(facts),
            Event::Netns(facts) => self.maybe(&mut facts.name),
            Event::Baseline(list) => {
                list.rows = list
                    .rows
                    .iter()
                    .map(|row| {
                        let mut row = *row;
                        self.key(&mut row.key);
                        row
                    })
                    .collect();
            }
            Event::PortSearch(_) | Event::ReservedPorts(..) | Event::Loss(_) => {}
        }
        step
    }

    /// `header` with the names of the host replaced. The kernel's release stays, because advice depends on it.
    #[must_use]
    pub fn header(&self, mut header: RecordingHeader) -> RecordingHeader {
        for text in [&mut header.host.hostname, &mut header.host.boot_id].into_iter().flatten() {
            *text = self.text(text).to_string();
        }
        for degraded in &mut header.host.degraded {
            // The reason may quote paths and names of the host.
            degraded.why = "redacted".into();
            degraded.lost = "redacted".into();
        }
        if self.extent.times {
            header.anchor.unix_ns = header.anchor.ktime_ns.cast_signed().wrapping_sub(header.begin_ns.cast_signed());
        }
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_core::event::{Ktime, Netns, SocketId, TcpState, Transition};

    fn redactor() -> Redactor {
        Redactor::new(RedactionKey::random().expect("random numbers"), RedactionExtent::default())
    }

    #[test]
    fn replaced_ports_are_others_and_each_the_replacement_of_one() {
        let extent = RedactionExtent { ports: true, times: false };
        let redactor = Redactor::new(RedactionKey([7; 32]), extent);
        let mut replaced: Vec<u16> = (1..EPHEMERAL).map(|port| redactor.port(port)).collect();
        assert!(replaced.iter().zip(1_u16..).filter(|(now, before)| **now == *before).count() < 10);
        replaced.sort_unstable();
        assert!(replaced.into_iter().eq(1..EPHEMERAL), "one to one");
        assert_eq!((redactor.port(0), redactor.port(40_000)), (0, 40_000));
    }

    #[test]
    fn recordings_redacted_with_one_key_file_have_equal_names() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("key");
        std::fs::write(&path, "short").expect("written");
        assert!(RedactionKey::from_file(&path).is_err());
        std::fs::write(&path, [9; 32]).expect("written");
        let name =
            || Redactor::new(RedactionKey::from_file(&path).expect("a key"), RedactionExtent::default()).text("web");
        assert_eq!(name(), name());
        assert_ne!(name(), redactor().text("web"));
    }

    fn transition(remote: &str) -> TrackerStep {
        let endpoint = |text: &str| Endpoint { addr: Addr::from(text.parse::<IpAddr>().expect("an address")), port: 1 };
        TrackerStep::Event(Event::Transition(Transition {
            ktime: Ktime(1),
            id: SocketId { cookie: None, sock: 0 },
            key: FlowKey {
                netns: Netns::of_inode(1),
                device: 0,
                local: endpoint("127.0.0.1"),
                remote: endpoint(remote),
            },
            last_port: 1,
            own_range: None,
            old: TcpState::Close,
            new: TcpState::SynSent,
            sk_err: 0,
            shutdown: false,
            caller: None,
            current_tid: 1,
            rescued: false,
            classic: false,
        }))
    }

    #[test]
    fn what_was_equal_stays_equal_what_was_different_stays_different_and_nothing_reads_as_before() {
        let first = redactor();
        let remote = |text: &str| match first.step(transition(text)) {
            TrackerStep::Event(Event::Transition(event)) => (event.key.local.addr, event.key.remote.addr),
            other => panic!("{other:?}"),
        };
        assert_eq!(remote("10.0.0.1"), remote("10.0.0.1"));
        assert_eq!(remote("10.0.0.1"), remote("::ffff:10.0.0.1"), "the same address");
        assert_ne!(remote("10.0.0.1"), remote("10.0.0.2"));
        let (local, hidden) = remote("10.0.0.1");
        assert_eq!(local.to_string(), "127.0.0.1");
        assert!(hidden.to_string().starts_with("fd") && !hidden.to_string().contains("10.0.0.1"), "{hidden}");
        let another = redactor();
        assert_ne!(another.addr(Addr::from(IpAddr::from([10, 0, 0, 1]))), hidden, "a key of its own");
    }

    #[test]
    fn no_name_of_a_process_is_left() {
        let name: Arc<str> = "secret".into();
        let some = || Some(Arc::clone(&name));
        let facts = ProcessFacts {
            comm: Arc::clone(&name),
            parent_comm: Arc::clone(&name),
            cmdline: some(),
            exe: some(),
            cgroup_path: some(),
            unit: some(),
            container: some(),
            pod: some(),
            pool: some(),
            ..ProcessFacts::default()
        };
        let step = redactor().step(TrackerStep::Event(Event::Process(Box::new(facts))));
        assert!(!format!("{step:?}").contains("secret"), "{step:?}");
        let header = RecordingHeader {
            host: tracer_core::recording::header::RecordedHost {
                hostname: Some("secret".into()),
                boot_id: Some("secret".into()),
                ..Default::default()
            },
            ..RecordingHeader::default()
        };
        assert!(!format!("{:?}", redactor().header(header)).contains("secret"));
    }
}
