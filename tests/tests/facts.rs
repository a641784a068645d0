//! What the kernel's records say of sockets, processes and namespaces, held against what a socket's user did: facts that
//! no report shows by themselves and every count rests on.
//!
//! Each test loads the programs itself and reads the ring, once with every way of attaching that this kernel has.

use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::sys::socket::{getsockopt, setsockopt};
use nix::{getsockopt_impl, libc, setsockopt_impl, sockopt_impl};
use portchurn_tests::lab::{Lab, addr};
use portchurn_tests::netns::{TestNamespace, link};
use portchurn_tests::require;
use portchurn_tests::require::Need;
use socket2::{Domain, Protocol, Socket, Type};
use tracer::probe::{Host, Options, Session, Tier, attach, plan};
use tracer::source::port_sysctls::{PortSysctlWatch, PortSysctls};
use tracer::source::sock_diag;
use tracer_core::decode::decode;
use tracer_core::event::{Call, Event, Ktime, Netns, NetnsFacts, SocketEvent, TcpState, Transition};

type Result = anyhow::Result<()>;

/// Loaded programs and what they have recorded.
struct Watch {
    session: Session,
}

impl Watch {
    fn start(exact: bool) -> anyhow::Result<Self> {
        let host = Host::collect();
        let plan = plan(&host, &Options { exact, ..Options::default() });
        Ok(Self { session: attach::attach(&host, plan)? })
    }

    /// One watch for each way of attaching; `work` gets a lab of its own.
    fn each(work: impl Fn(&mut Self, &Lab) -> Result) -> Result {
        for exact in [true, false] {
            let mut watch = Self::start(exact)?;
            if exact && watch.session.tier != Tier::Exact {
                continue;
            }
            let tier = watch.session.tier.name();
            let lab = Lab::with_ports(40_000, 40_063)?;
            work(&mut watch, &lab).with_context(|| format!("tier {tier}"))?;
        }
        Ok(())
    }

    /// Everything since the last look that this lab's namespace did.
    fn events(&mut self, lab: &Lab) -> anyhow::Result<Vec<Event>> {
        // A record whose writer was preempted holds up those behind it.
        std::thread::sleep(Duration::from_millis(50));
        let mut bytes = Vec::new();
        while let Some(item) = self.session.ring.next() {
            bytes.extend_from_slice(&item);
        }
        let mut events = Vec::new();
        let skipped = decode(&bytes, [], |event| events.push(event));
        ensure!(skipped == 0, "{skipped} records could not be decoded");
        let netns = lab.netns();
        events.retain(|event| match event {
            Event::Transition(of) => of.key.netns.inode == netns,
            Event::TimeWaitStart(of) | Event::TimeWaitEnd(of) => of.key.netns.inode == netns,
            Event::Accepted(of) | Event::Bound(of) | Event::Released(of) => of.key.netns.inode == netns,
            Event::CallFailed(of) => of.netns.inode == netns,
            Event::Process(of) => of.netns.inode == netns,
            Event::Netns(of) => of.netns.inode == netns,
            Event::ReservedPorts(_, of, _) => of.inode == netns,
            _ => false,
        });
        Ok(events)
    }
}

fn transitions(events: &[Event]) -> impl Iterator<Item = &Transition> {
    events.iter().filter_map(|event| if let Event::Transition(of) = event { Some(of) } else { None })
}

fn bound(events: &[Event]) -> Vec<SocketEvent> {
    events.iter().filter_map(|event| if let Event::Bound(of) = event { Some(*of) } else { None }).collect()
}

fn released(events: &[Event]) -> Vec<SocketEvent> {
    events.iter().filter_map(|event| if let Event::Released(of) = event { Some(*of) } else { None }).collect()
}

fn accepted(events: &[Event]) -> Vec<SocketEvent> {
    events.iter().filter_map(|event| if let Event::Accepted(of) = event { Some(*of) } else { None }).collect()
}

fn limits(events: &[Event]) -> Vec<&NetnsFacts> {
    events.iter().filter_map(|event| if let Event::Netns(of) = event { Some(&**of) } else { None }).collect()
}

fn tcp() -> anyhow::Result<Socket> {
    Socket::new(Domain::IPV4, Type::STREAM, None).context("socket")
}

fn listen(at: &str) -> anyhow::Result<Socket> {
    let socket = tcp()?;
    socket.bind(&addr(at).into())?;
    socket.listen(64)?;
    Ok(socket)
}

fn port(socket: &Socket) -> anyhow::Result<u16> {
    Ok(socket.local_addr()?.as_socket().context("an address")?.port())
}

const SERVER: &str = "127.0.0.1:9001";

fn server() -> socket2::SockAddr {
    addr(SERVER).into()
}

/// include/uapi/linux/in.h.
const IP_LOCAL_PORT_RANGE: libc::c_int = 51;

sockopt_impl!(
    /// The lowest and the highest port that connect() may choose for the socket (since Linux 6.3).
    LocalPortRange,
    SetOnly,
    libc::IPPROTO_IP,
    IP_LOCAL_PORT_RANGE,
    u32
);

sockopt_impl!(
    /// Cookie of the socket's network namespace (since Linux 5.14).
    NetnsCookie,
    GetOnly,
    libc::SOL_SOCKET,
    libc::SO_NETNS_COOKIE,
    u64
);

/// A named port stays with its socket until the socket is destroyed, any other is free at ->CLOSE.
#[test]
fn ports_named_and_chosen() -> Result {
    require!();
    Watch::each(|watch, lab| {
        watch.events(lab)?;
        let ports = lab.ns.enter(|| {
            let _server = listen(SERVER)?;
            let chosen = tcp()?;
            chosen.bind(&addr("127.0.0.1:0").into())?;
            let named = tcp()?;
            named.bind(&addr("127.0.0.1:40040").into())?;
            // Never connected: no transition tells of its end.
            let idle = tcp()?;
            idle.bind(&addr("127.0.0.1:0").into())?;
            let ports = (port(&chosen)?, port(&named)?, port(&idle)?);
            for socket in [chosen, named] {
                socket.connect(&server())?;
                // A reset, so that no minisocket holds the port.
                socket.set_linger(Some(Duration::ZERO))?;
            }
            Ok(ports)
        })?;
        let events = watch.events(lab)?;
        let names = |port: u16| bound(&events).iter().find(|of| of.key.local.port == port).and_then(|of| of.named);
        ensure!((names(ports.0), names(ports.1)) == (Some(false), Some(true)), "{:?}", bound(&events));
        let ends: Vec<_> =
            transitions(&events).filter(|of| of.new == TcpState::Close && of.last_port > 40_000).collect();
        let held = |port: u16| ends.iter().find(|of| of.last_port == port).map(|of| of.key.local.port);
        ensure!(held(ports.0) == Some(0), "a chosen port is free at ->CLOSE: {ends:?}");
        ensure!(held(ports.1) == Some(ports.1), "a named one is not: {ends:?}");
        let given_back: Vec<_> = released(&events).iter().map(|of| (of.key.local.port, of.named)).collect();
        ensure!(given_back.contains(&(ports.1, Some(true))), "{given_back:?}");
        ensure!(!given_back.iter().any(|(port, _)| *port == ports.0), "{given_back:?}");
        ensure!(given_back.contains(&(ports.2, Some(false))), "{ports:?} {given_back:?}");
        Ok(())
    })
}

/// connect() among the ports of the socket's own range: its failures say so.
#[test]
fn a_range_of_the_sockets_own() -> Result {
    require!();
    Watch::each(|watch, lab| {
        watch.events(lab)?;
        let confined = lab.ns.enter(|| {
            let _server = listen(SERVER)?;
            let mut sockets = Vec::new();
            for _ in 0..9 {
                let socket = tcp()?;
                let range = (40_015 << 16) + 40_008;
                if setsockopt(&socket, LocalPortRange, &range).is_err() {
                    return Ok(false);
                }
                let failed = socket.connect(&server()).is_err();
                ensure!(failed == (sockets.len() == 8), "connect {} of 9 among 8 ports", sockets.len() + 1);
                sockets.push(socket);
            }
            Ok(true)
        })?;
        if !confined {
            eprintln!("SKIPPED: no IP_LOCAL_PORT_RANGE before Linux 6.3");
            return Ok(());
        }
        let events = watch.events(lab)?;
        let failed: Vec<_> = transitions(&events)
            .filter(|of| (of.old, of.new, of.key.local.port, of.sk_err) == (TcpState::SynSent, TcpState::Close, 0, 0))
            .collect();
        ensure!(failed.len() == 1 && failed[0].own_range == Some((40_008, 40_015)), "{failed:?}");
        Ok(())
    })
}

/// The limits come with the connect that first meets them, the reserved ports with the first failure.
#[test]
fn limits_count_from_the_moment_of_their_change() -> Result {
    require!();
    Watch::each(|watch, lab| {
        watch.events(lab)?;
        let mut sockets = vec![];
        let connect = |lab: &Lab, times: usize| {
            lab.ns.enter(|| {
                let open = |_| -> anyhow::Result<_> {
                    let socket = tcp()?;
                    let ok = socket.connect(&server()).is_ok();
                    Ok((socket, ok))
                };
                (0..times).map(open).collect::<anyhow::Result<Vec<_>>>()
            })
        };
        let listener = lab.ns.enter(|| listen(SERVER))?;
        sockets.extend(connect(lab, 1)?);
        watch.events(lab)?;
        lab.ns.port_range(50_000, 50_009)?;
        sockets.extend(connect(lab, 2)?);
        let events = watch.events(lab)?;
        let ranges: Vec<_> = limits(&events).iter().map(|of| of.port_range).collect();
        ensure!(ranges == [Some((50_000, 50_009))], "once, at the first of two connects: {ranges:?}");
        let first = events.iter().position(|event| matches!(event, Event::Netns(_)));
        let opened = events.iter().position(|event| matches!(event, Event::Transition(_)));
        ensure!(first < opened, "the limits come before what they explain");

        lab.ns.sysctl(&[("ipv4/ip_local_reserved_ports", "50000-50004")])?;
        sockets.extend(connect(lab, 7)?);
        let events = watch.events(lab)?;
        let reserved: Vec<_> = events
            .iter()
            .filter_map(|event| if let Event::ReservedPorts(_, _, ports) = event { Some(ports.to_vec()) } else { None })
            .collect();
        let failures = sockets.iter().filter(|(_, ok)| !ok).count();
        ensure!(failures > 0, "nothing failed: {sockets:?}");
        ensure!(reserved == [(50_000..=50_004).collect::<Vec<u16>>()], "once, at the first failure: {reserved:?}");

        // bind() fails for lack of a port too.
        std::thread::sleep(Duration::from_millis(30));
        lab.ns.sysctl(&[("ipv4/ip_local_reserved_ports", "50000-50009")])?;
        let refused = lab.ns.enter(|| Ok(tcp()?.bind(&addr("127.0.0.1:0").into()).is_err()))?;
        ensure!(refused, "bind() of any port, all are reserved");
        let events = watch.events(lab)?;
        let reserved = events.iter().filter(|event| matches!(event, Event::ReservedPorts(..))).count();
        ensure!(reserved == 1, "{events:?}");
        drop(listener);
        Ok(())
    })
}

/// Files of a namespace that nothing connects in, read from another one; they do not keep it alive.
#[test]
fn port_limits_are_watched_from_outside() -> Result {
    require!();
    let lab = Lab::with_ports(40_000, 40_063)?;
    let netns = Netns::of_inode(lab.netns());
    let mut watch = PortSysctlWatch::new(vec![lab.ns.enter(|| Ok(PortSysctls::open(netns)?))?]);
    ensure!(watch.changes(Ktime(1)).is_empty(), "nothing has changed");
    lab.ns.port_range(50_000, 50_009)?;
    // Longer than what a read of the usual size takes.
    let reserved: Vec<u16> = (30_001..40_000).step_by(2).collect();
    let text = reserved.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    lab.ns.sysctl(&[("ipv4/ip_local_reserved_ports", &text)])?;
    match &watch.changes(Ktime(2))[..] {
        [Event::Netns(facts), Event::ReservedPorts(_, of, ports)] => {
            ensure!((facts.netns, facts.port_range) == (netns, Some((50_000, 50_009))), "{facts:?}");
            ensure!((*of, ports[..] == reserved[..]) == (netns, true), "{} of {}", ports.len(), reserved.len());
        }
        other => bail!("{other:?}"),
    }
    drop(lab);
    // The kernel takes a namespace down some time after its last user.
    std::thread::sleep(Duration::from_millis(500));
    ensure!(watch.changes(Ktime(3)).is_empty(), "a namespace that is gone says nothing");
    Ok(())
}

/// Two namespaces, one inode number after the other: the cookie tells them apart, and it is the one that sockets tell.
#[test]
fn a_namespace_is_named_by_its_cookie() -> Result {
    require!();
    Watch::each(|watch, lab| {
        watch.events(lab)?;
        let cookie = lab.ns.enter(|| {
            let server = listen(SERVER)?;
            let client = tcp()?;
            client.connect(&server_of(&server)?)?;
            drop(server.accept()?);
            Ok(getsockopt(&client, NetnsCookie).ok())
        })?;
        let events = watch.events(lab)?;
        let low = cookie.map_or(0, |cookie| Netns::new(0, cookie).cookie);
        for event in &events {
            let netns = match event {
                Event::Transition(of) => of.key.netns,
                Event::TimeWaitStart(of) | Event::TimeWaitEnd(of) => of.key.netns,
                Event::Accepted(of) | Event::Bound(of) | Event::Released(of) => of.key.netns,
                Event::Process(of) => of.netns,
                Event::Netns(of) => of.netns,
                Event::ReservedPorts(_, of, _) => *of,
                other => bail!("{other:?}"),
            };
            ensure!(netns.cookie == low, "{low:#x}: {event:?}");
        }
        let kinds = |kind: fn(&Event) -> bool| events.iter().filter(|event| kind(event)).count();
        ensure!(kinds(|event| matches!(event, Event::TimeWaitStart(_))) == 1, "{events:?}");
        ensure!(kinds(|event| matches!(event, Event::Accepted(_))) == 1, "{events:?}");
        ensure!(kinds(|event| matches!(event, Event::Netns(_))) >= 1, "{events:?}");
        Ok(())
    })
}

fn server_of(listener: &Socket) -> anyhow::Result<socket2::SockAddr> {
    Ok(listener.local_addr()?)
}

/// A minisocket knows whether its peer has sent timestamps.
#[test]
fn timestamps_of_the_peer() -> Result {
    require!();
    Watch::each(|watch, lab| {
        let silent = TestNamespace::new()?;
        link(&lab.ns, &silent)?;
        silent.sysctl(&[("ipv4/tcp_timestamps", "0")])?;
        watch.events(lab)?;
        let serve = |ns: &TestNamespace, at: &str| ns.enter(|| listen(at));
        let servers = [serve(&lab.ns, SERVER)?, serve(&silent, "10.77.0.2:9001")?];
        for (server, with) in servers.iter().zip([true, false]) {
            lab.ns.enter(|| {
                let client = tcp()?;
                client.connect(&server.local_addr()?)?;
                drop(client);
                Ok(())
            })?;
            // The server's end comes first or second: whoever closes first has the minisocket.
            drop(server.accept()?);
            let events = watch.events(lab)?;
            let found: Vec<_> = events
                .iter()
                .filter_map(|event| if let Event::TimeWaitStart(of) = event { Some(of.timestamps) } else { None })
                .collect();
            ensure!(found == [Some(with)], "{found:?}");
        }
        Ok(())
    })
}

/// Each accept() names the listener: of one SO_REUSEPORT group there are several at one address.
#[test]
fn accepts_name_their_listener() -> Result {
    require!();
    Watch::each(|watch, lab| {
        watch.events(lab)?;
        let clients = lab.ns.enter(|| {
            let group = |_| -> anyhow::Result<Socket> {
                let socket = tcp()?;
                socket.set_reuse_port(true)?;
                socket.bind(&server())?;
                socket.listen(64)?;
                Ok(socket)
            };
            let listeners = (0..2).map(group).collect::<anyhow::Result<Vec<_>>>()?;
            let mut clients = Vec::new();
            while clients.len() < 40 {
                let client = tcp()?;
                client.connect(&server())?;
                clients.push(client);
            }
            let mut taken = Vec::new();
            for listener in &listeners {
                listener.set_nonblocking(true)?;
                let before = taken.len();
                while let Ok((child, _)) = listener.accept() {
                    taken.push(child);
                }
                ensure!(taken.len() > before, "the kernel spreads 40 connections over both");
            }
            Ok(clients.len())
        })?;
        let events = watch.events(lab)?;
        let listening: Vec<_> = transitions(&events).filter(|of| of.new == TcpState::Listen).map(|of| of.id).collect();
        let accepted = accepted(&events);
        ensure!(accepted.len() == clients && listening.len() == 2, "{} of {clients}", accepted.len());
        if accepted.iter().all(|of| of.listener.is_none()) && watch.session.tier != Tier::Exact {
            eprintln!("SKIPPED: a tracepoint cannot tell before Linux 5.15");
            return Ok(());
        }
        // In the order of the loop above.
        let order: Vec<_> = accepted.iter().filter_map(|of| of.listener).collect();
        let first = order.iter().take_while(|of| **of == listening[0]).count();
        ensure!(order.len() == clients && first > 0 && first < clients, "{order:?} {listening:?}");
        ensure!(order[first..].iter().all(|of| *of == listening[1]), "{order:?} {listening:?}");
        Ok(())
    })
}

/// The same addresses and ports on two devices are two flows.
#[test]
fn devices_are_told_apart() -> Result {
    require!();
    Watch::each(|watch, lab| {
        let other = TestNamespace::new()?;
        link(&lab.ns, &other)?;
        let index: u32 = lab
            .ns
            .enter(|| Ok(std::fs::read_to_string("/sys/class/net/v0/ifindex")?.trim().parse()?))
            .or_else(|_| -> anyhow::Result<u32> {
                let text = lab.ns.ip(&["-o", "link", "show", "dev", "v0"])?;
                Ok(text.split(':').next().context("an index")?.trim().parse()?)
            })?;
        let server = other.enter(|| listen("10.77.0.2:9001"))?;
        watch.events(lab)?;
        lab.ns.enter(|| {
            let client = tcp()?;
            client.bind_device(Some(b"v0"))?;
            client.connect(&server.local_addr()?)?;
            drop(client);
            Ok(())
        })?;
        drop(server.accept()?);
        let events = watch.events(lab)?;
        let devices: Vec<u32> = transitions(&events).map(|of| of.key.device).collect();
        ensure!(devices.len() == 5 && devices.iter().all(|device| *device == index), "{index}: {devices:?}");
        let minisocket =
            events.iter().find_map(|event| if let Event::TimeWaitStart(of) = event { Some(of.key) } else { None });
        ensure!(minisocket.is_some_and(|key| key.device == index), "{minisocket:?}");
        Ok(())
    })
}

/// Every exec is another program, however the memory maps' addresses come back.
#[test]
fn every_exec_is_seen() -> Result {
    require!(Need::Program("bash", "bash"));
    Watch::each(|watch, lab| {
        watch.events(lab)?;
        let chain = "connect() { exec 3<>/dev/tcp/127.0.0.1/9; }; \
                     if [ $1 -gt 0 ]; then [ $(($1 % 2)) -eq 0 ] && connect 2>/dev/null; exec -a step$1 bash -c \"$0\" \"$0\" $(($1 - 1)); fi";
        let mut command = lab.ns.command("bash");
        command.args(["-c", chain, chain, "8"]);
        let (done, finished) = mpsc::channel();
        let status = command.status()?;
        done.send(status)?;
        ensure!(finished.recv()?.success(), "the scenario itself");
        let events = watch.events(lab)?;
        let programs: Vec<_> = events
            .iter()
            .filter_map(|event| if let Event::Process(of) = event { Some((of.pid, of.exec_id)) } else { None })
            .collect();
        let (pid, first) = *programs.first().context("a process")?;
        // It connects in every second of its programs.
        let expected: Vec<_> = (0..4).map(|step| (pid, first + 2 * step)).collect();
        ensure!(first > 0 && programs == expected, "{programs:?}");
        Ok(())
    })
}

/// listen() of a socket without a port takes one, or fails for lack of one.
#[test]
fn listening_takes_a_port() -> Result {
    require!();
    Watch::each(|watch, lab| {
        watch.events(lab)?;
        lab.ns.port_range(40_000, 40_001)?;
        let ports = lab.ns.enter(|| {
            let sockets = (0..3).map(|_| tcp()).collect::<anyhow::Result<Vec<_>>>()?;
            let outcomes: Vec<bool> = sockets.iter().map(|socket| socket.listen(4).is_ok()).collect();
            ensure!(outcomes == [true, true, false], "{outcomes:?}");
            Ok([port(&sockets[0])?, port(&sockets[1])?])
        })?;
        let events = watch.events(lab)?;
        let found: Vec<_> = bound(&events).iter().map(|of| (of.key.local.port, of.named)).collect();
        ensure!(found == ports.map(|port| (port, Some(false))), "{found:?} {ports:?}");
        let failed: Vec<_> = events
            .iter()
            .filter_map(
                |event| if let Event::CallFailed(of) = event { Some((of.call, of.errno, of.local.port)) } else { None },
            )
            .collect();
        ensure!(failed == [(Call::Listen, 98, 0)], "{failed:?}");
        let closed: Vec<_> = transitions(&events)
            .filter(|of| (of.old, of.new) == (TcpState::Listen, TcpState::Close))
            .map(|of| of.key.local.port)
            .collect();
        ensure!(closed == [0; 3], "each port is free at ->CLOSE: {closed:?}");
        Ok(())
    })
}

/// The list of sockets: whose port is closed to the connects of others, which was named, which minisocket can be re-used.
#[test]
fn the_kernels_list_tells_of_ports() -> Result {
    require!();
    let watch = Watch::start(false)?;
    let iterator = watch.session.sockets.as_ref().context("the iterator")?;
    let lab = Lab::with_ports(40_000, 40_063)?;
    lab.ns.enter(|| {
        let listener = listen(SERVER)?;
        let clients = (0..4).map(|_| tcp()).collect::<anyhow::Result<Vec<_>>>()?;
        clients[1].bind(&addr("127.0.0.1:0").into())?;
        clients[2].bind(&addr("127.0.0.1:40040").into())?;
        let mut ports = Vec::new();
        for client in &clients {
            client.connect(&server())?;
            ports.push(port(client)?);
        }
        let mut clients = clients;
        drop(clients.pop());
        // The peer's FIN, so that there is a minisocket in TIME_WAIT.
        let mut children = (0..4).map(|_| Ok(listener.accept()?.0)).collect::<anyhow::Result<Vec<_>>>()?;
        drop(children.remove(3));
        let rows = sock_diag::dump(Netns::of_inode(lab.netns()))?;
        let facts = iterator.list()?;
        let found = |local: u16, remote: u16| {
            let row =
                rows.iter().map(|row| row.row).find(|row| (row.key.local.port, row.key.remote.port) == (local, remote));
            let cookie = row.and_then(|row| row.cookie);
            cookie.and_then(|cookie| facts.get(&cookie)).map(|of| (of.named, of.closed, of.timestamps))
        };
        let (yes, no) = (Some(true), Some(false));
        for (local, remote, expected, what) in [
            (ports[0], 9001, (no, no, None), "chosen by connect()"),
            (ports[1], 9001, (no, yes, None), "chosen by bind()"),
            (ports[2], 9001, (yes, yes, None), "named"),
            (ports[3], 9001, (None, no, yes), "a minisocket"),
            (9001, 0, (yes, yes, None), "the listener"),
            (9001, ports[0], (no, yes, None), "its child"),
        ] {
            ensure!(found(local, remote) == Some(expected), "{what}: {:?}", found(local, remote));
        }
        Ok(())
    })
}

/// MPTCP's bind() and listen() take ports of TCP's.
#[test]
fn multipath_sockets_hold_ports() -> Result {
    const MPTCP: i32 = 262;
    require!();
    if Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::from(MPTCP))).is_err() {
        eprintln!("SKIPPED: this kernel has no MPTCP");
        return Ok(());
    }
    Watch::each(|watch, lab| {
        watch.events(lab)?;
        let port = lab.ns.enter(|| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::from(MPTCP)))?;
            socket.bind(&addr("127.0.0.1:0").into())?;
            socket.listen(4)?;
            port(&socket)
        })?;
        let events = watch.events(lab)?;
        let holds = bound(&events).iter().find(|of| of.key.local.port == port).map(|of| of.named);
        ensure!(holds == Some(Some(false)), "{port}: {events:?}");
        Ok(())
    })
}
