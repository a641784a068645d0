//! Redacts recordings: replaces names and addresses, so that equal ones stay equal and different ones different.
//!
//! Addresses, names, command lines and paths become keyed hashes. The key is random for each redaction and never
//! stored, so a value means nothing outside of its file. Loopback and unspecified addresses stay, because they name no
//! host. Ports, times, states, errnos, limits, pids and counts stay, because the incident consists of them.
//!
//! Not for: anonymity against someone who watched the same traffic. Times and ports identify its connections.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use tracer_core::event::{Addr, Endpoint, Event, FlowKey, ProcessFacts};
use tracer_core::recording::RecordingHeader;
use tracer_core::step::TrackerStep;

/// First byte of replaced addresses: these are unique local addresses (RFC 4193), which are not routed.
const UNIQUE_LOCAL: u8 = 0xfd;

/// Redacts with keys that it has drawn when it was created.
#[derive(Debug, Default)]
pub struct Redactor {
    /// Two SipHashes with a random key each, 64 bits of an address each.
    keys: [RandomState; 2],
}

impl Redactor {
    fn addr(&self, addr: Addr) -> Addr {
        if addr.is_loopback() || addr.is_unspecified() {
            return addr;
        }
        let [high, low] = &self.keys;
        let mut octets = [0; 16];
        let (front, back) = octets.split_at_mut(8);
        front.copy_from_slice(&high.hash_one(addr.0).to_be_bytes());
        back.copy_from_slice(&low.hash_one(addr.0).to_be_bytes());
        octets[0] = UNIQUE_LOCAL;
        Addr::from(IpAddr::V6(Ipv6Addr::from(octets)))
    }

    fn text(&self, text: &str) -> Arc<str> {
        if text.is_empty() {
            return text.into();
        }
        let [key, _] = &self.keys;
        // Thirteen characters fit where the kernel cuts names to 15.
        format!("x{:012x}", key.hash_one(text) >> 16).into()
    }

    fn maybe(&self, text: &mut Option<Arc<str>>) {
        if let Some(text) = text {
            *text = self.text(text);
        }
    }

    fn endpoint(&self, endpoint: &mut Endpoint) {
        endpoint.addr = self.addr(endpoint.addr);
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
            Event::Transition(event) => self.key(&mut event.key),
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
        }
        header
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_core::event::{Ktime, Netns, SocketId, TcpState, Transition};

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
        let redactor = Redactor::default();
        let remote = |text: &str| match redactor.step(transition(text)) {
            TrackerStep::Event(Event::Transition(event)) => (event.key.local.addr, event.key.remote.addr),
            other => panic!("{other:?}"),
        };
        assert_eq!(remote("10.0.0.1"), remote("10.0.0.1"));
        assert_eq!(remote("10.0.0.1"), remote("::ffff:10.0.0.1"), "the same address");
        assert_ne!(remote("10.0.0.1"), remote("10.0.0.2"));
        let (local, hidden) = remote("10.0.0.1");
        assert_eq!(local.to_string(), "127.0.0.1");
        assert!(hidden.to_string().starts_with("fd") && !hidden.to_string().contains("10.0.0.1"), "{hidden}");
        let another = Redactor::default();
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
        let step = Redactor::default().step(TrackerStep::Event(Event::Process(Box::new(facts))));
        assert!(!format!("{step:?}").contains("secret"), "{step:?}");
        let header = RecordingHeader {
            host: tracer_core::recording::header::RecordedHost {
                hostname: Some("secret".into()),
                boot_id: Some("secret".into()),
                ..Default::default()
            },
            ..RecordingHeader::default()
        };
        assert!(!format!("{:?}", Redactor::default().header(header)).contains("secret"));
    }
}
