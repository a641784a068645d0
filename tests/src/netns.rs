//! Network namespaces with links and sysctls, removed when their guard is dropped.
//!
//! The tracer sees the whole host, so a test selects its own traffic by its namespace, which reports name by
//! [`TestNamespace::inode`]. The name of a namespace contains the id of the test process; `sweep` removes the
//! namespaces of processes that have ended, so that a killed test run leaves nothing behind for long.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::process::output;

const PREFIX: &str = "pct";
const RUN: &str = "/run/netns";
static NEXT: AtomicU32 = AtomicU32::new(0);
static SWEEP: Once = Once::new();

/// A network namespace with `lo` up.
#[derive(Debug)]
pub struct TestNamespace {
    name: String,
    inode: u32,
}

impl TestNamespace {
    pub fn new() -> Result<Self> {
        SWEEP.call_once(sweep);
        let name = format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        output(Command::new("ip").args(["netns", "add", &name]))?;
        let mut this = Self { name, inode: 0 };
        this.inode = u32::try_from(fs::metadata(this.path())?.ino()).context("a namespace inode")?;
        this.ip(&["link", "set", "lo", "up"])?;
        Ok(this)
    }

    pub fn path(&self) -> PathBuf {
        Path::new(RUN).join(&self.name)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Inode number, by which reports name this namespace.
    pub fn inode(&self) -> u32 {
        self.inode
    }

    /// Runs `ip` in this namespace and returns its output.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        output(Command::new("ip").args(["-n", &self.name]).args(arguments))
    }

    /// A command that will run in this namespace, in the process that is started.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Runs `work` in a thread inside this namespace, because /proc/sys/net shows the namespace of the thread that
    /// opens it.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let handle = File::open(self.path()).with_context(|| format!("opening namespace {}", self.name))?;
        let entered = move || {
            setns(handle, CloneFlags::CLONE_NEWNET).context("setns")?;
            work()
        };
        std::thread::scope(|scope| match scope.spawn(entered).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Sets `net.*` values of this namespace, e.g. `("ipv4/tcp_tw_reuse", "0")`.
    pub fn sysctl(&self, values: &[(&str, &str)]) -> Result<()> {
        self.enter(|| {
            for (key, value) in values {
                fs::write(format!("/proc/sys/net/{key}"), value).with_context(|| format!("net/{key} = {value}"))?;
            }
            Ok(())
        })
    }

    /// Whether this kernel has this `net.*` value.
    pub fn has_sysctl(&self, key: &str) -> Result<bool> {
        self.enter(|| Ok(Path::new(&format!("/proc/sys/net/{key}")).exists()))
    }

    pub fn port_range(&self, low: u16, high: u16) -> Result<()> {
        self.sysctl(&[("ipv4/ip_local_port_range", &format!("{low} {high}"))])
    }

    /// A counter of this namespace from /proc/net/netstat, e.g. `TCPTimeWaitOverflow`.
    pub fn netstat(&self, counter: &str) -> Result<u64> {
        self.enter(|| {
            let text = fs::read_to_string("/proc/thread-self/net/netstat")?;
            let lines: Vec<&str> = text.lines().collect();
            for pair in lines.chunks(2) {
                let [names, values] = pair else { continue };
                let at = names.split_whitespace().position(|name| name == counter);
                if let Some(value) = at.and_then(|at| values.split_whitespace().nth(at)) {
                    return value.parse().context("a counter");
                }
            }
            bail!("no counter {counter}")
        })
    }
}

impl Drop for TestNamespace {
    fn drop(&mut self) {
        if let Err(error) = output(Command::new("ip").args(["netns", "del", &self.name])) {
            eprintln!("removing namespace {}: {error:#}", self.name);
        }
    }
}

/// Removes the namespaces of test processes that ended without dropping their guards (kill -9).
fn sweep() {
    let Ok(entries) = fs::read_dir(RUN) else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let owner =
            name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()).and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            // Another test process may sweep at the same time.
            let _ = output(Command::new("ip").args(["netns", "del", &name]));
        }
    }
}

/// Creates a veth pair: `10.77.0.1/24` on `v0` in the first namespace, `10.77.0.2/24` on `v1` in the second.
pub fn link(left: &TestNamespace, right: &TestNamespace) -> Result<()> {
    pair(left, "v0", right, "v1")?;
    address(left, "v0", LEFT)?;
    address(right, "v1", RIGHT)
}

/// The addresses of a [`link`].
pub const LEFT: &str = "10.77.0.1";
pub const RIGHT: &str = "10.77.0.2";

fn pair(left: &TestNamespace, left_name: &str, right: &TestNamespace, right_name: &str) -> Result<()> {
    let peer = ["type", "veth", "peer", "name", right_name, "netns", right.name()];
    left.ip(&[&["link", "add", left_name], &peer[..]].concat())?;
    left.ip(&["link", "set", left_name, "up"])?;
    right.ip(&["link", "set", right_name, "up"])?;
    Ok(())
}

fn address(namespace: &TestNamespace, device: &str, address: &str) -> Result<()> {
    namespace.ip(&["addr", "add", &format!("{address}/24"), "dev", device])?;
    Ok(())
}

/// How the packets of a [`delayed_link`] are delayed.
#[derive(Debug)]
pub enum LinkDelay {
    /// By the kernel's network emulator: its timers deliver the packets in the task that they interrupt.
    Netem,
    /// By a process in this namespace between the two, which must carry the frames from `r0` to `r1` and back. They are
    /// delivered in its context.
    Relay(TestNamespace),
}

/// Like [`link`], but packets arrive late and in the context of an unrelated task, which never happens on loopback or a
/// plain veth pair.
pub fn delayed_link(left: &TestNamespace, right: &TestNamespace, delay_ms: u64) -> Result<LinkDelay> {
    link(left, right)?;
    let delay = format!("{delay_ms}ms");
    let netem = |namespace: &TestNamespace, device: &str| {
        let arguments = ["-n", namespace.name(), "qdisc", "add", "dev", device, "root", "netem", "delay", &delay];
        output(Command::new("tc").args(arguments))
    };
    if netem(left, "v0").and_then(|_| netem(right, "v1")).is_ok() {
        return Ok(LinkDelay::Netem);
    }
    left.ip(&["link", "del", "v0"])?;
    let middle = TestNamespace::new()?;
    pair(left, "v0", &middle, "r0")?;
    pair(right, "v1", &middle, "r1")?;
    address(left, "v0", LEFT)?;
    address(right, "v1", RIGHT)?;
    for (namespace, device) in [(left, "v0"), (right, "v1")] {
        // A packet socket sees frames before the device completes them, so checksums and segments must not be
        // offloaded.
        let mut ethtool = namespace.command("ethtool");
        ethtool.args(["-K", device, "tx", "off", "rx", "off", "sg", "off", "tso", "off", "gso", "off", "gro", "off"]);
        output(&mut ethtool)?;
    }
    for (namespace, device, peer, address) in [(left, "v0", (right, "v1"), RIGHT), (right, "v1", (left, "v0"), LEFT)] {
        let mac = peer.0.ip(&["-o", "link", "show", "dev", peer.1])?;
        let mac =
            mac.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).context("an Ethernet address")?;
        namespace.ip(&["neigh", "replace", address, "lladdr", mac, "dev", device, "nud", "permanent"])?;
    }
    Ok(LinkDelay::Relay(middle))
}
