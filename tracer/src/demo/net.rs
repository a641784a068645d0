//! The demo's two network namespaces: addresses, the veth pair, the small port range.
//!
//! `ip` of iproute2 does the work. It runs inside the namespaces, as a child of a process that is in one, so it cannot reach an interface
//! of the host.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sched::{CloneFlags, setns, unshare};

use tracer_core::event::Netns;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 1);
const BACKEND: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 66, 0, 2), 8443);
/// Both ends of the veth pair are called so: they live in different namespaces.
const INTERFACE: &str = "demo0";
/// 1,024 ports, because the default of 28,232 would need minutes to run out.
const PORT_RANGE: &str = "32768 33791";

/// Where the backend listens.
pub(super) fn backend() -> SocketAddrV4 {
    BACKEND
}

pub(super) fn ip_is_there() -> Result<()> {
    let found = Command::new("ip").arg("-Version").output().is_ok_and(|output| output.status.success());
    ensure!(found, "the demo needs the program `ip`: install iproute2 (`apt-get install iproute2`)");
    Ok(())
}

/// Moves this process (which must have one thread yet) into a network namespace of its own.
pub(super) fn own_namespace() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET)
        .context("making a network namespace, which needs CAP_SYS_ADMIN: run the demo as root")?;
    ip(&["link", "set", "lo", "up"])
}

/// Moves this process (which must have one thread yet) into the network namespace of another.
pub(super) fn enter(pid: u32) -> Result<()> {
    let path = format!("/proc/{pid}/ns/net");
    let namespace = fs::File::open(&path).with_context(|| format!("opening {path}"))?;
    setns(namespace, CloneFlags::CLONE_NEWNET).with_context(|| format!("entering {path}"))
}

/// In the client's namespace: the veth pair, with its other end in the namespace of `backend`, and the small port range.
pub(super) fn join(backend: u32) -> Result<()> {
    let backend = backend.to_string();
    ip(&["link", "add", INTERFACE, "type", "veth", "peer", "name", INTERFACE, "netns", &backend])?;
    address(CLIENT)?;
    // After unshare(2) a process sees its own namespace here.
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", PORT_RANGE).context("making the port range small")
}

/// Gives this namespace's end of the veth pair its address and switches it on.
pub(super) fn address(address: Ipv4Addr) -> Result<()> {
    ip(&["address", "add", &format!("{address}/24"), "dev", INTERFACE])?;
    ip(&["link", "set", INTERFACE, "up"])
}

fn ip(args: &[&str]) -> Result<()> {
    let line = format!("ip {}", args.join(" "));
    let output = Command::new("ip").args(args).output().with_context(|| format!("starting `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// The network namespace of a process, by its inode number.
pub(super) fn netns_of(pid: u32) -> Result<Netns> {
    let path = format!("/proc/{pid}/ns/net");
    let inode = fs::metadata(&path).with_context(|| format!("reading {path}"))?.ino();
    Ok(Netns::of_inode(u32::try_from(inode).with_context(|| format!("{path} has inode {inode}"))?))
}
