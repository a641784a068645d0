//! Facts about the host. Reading a fact needs only the privilege that its file demands; a fact that cannot be read is absent.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use btfparse::{Readable, TypeInformation, TypeVariant};
use caps::CapSet;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, getsockopt, socket};
use nix::{getsockopt_impl, libc, sockopt_impl};
use tracer_common::Offsets;

use super::capabilities::CAPABILITIES;
use tracer_core::foreign_text::clean;

/// What is known of the host.
#[derive(Clone, Debug)]
pub struct Host {
    /// `/proc/sys/kernel/hostname`.
    pub hostname: String,
    /// `uname -r`.
    pub kernel: String,
    /// `/proc/sys/kernel/random/boot_id`.
    pub boot_id: Option<String>,
    /// What the kernel's BTF says; the error says why it cannot be read.
    pub btf: Result<BtfFacts, String>,
    /// Address of `tw_timer_handler`; the error says why not.
    pub tw_timer_handler: Result<u64, String>,
    /// Sockets tell the cookie of their network namespace (since 5.14).
    pub netns_cookies: bool,
    /// A tracefs is mounted where the kernel expects it.
    pub tracefs: bool,
    /// This process sees processes by the ids that the kernel's records have: it is in the host's pid namespace.
    pub host_pids: bool,
    /// Effective capabilities of this process.
    pub capabilities: BTreeSet<&'static str>,
    /// Kernel lockdown mode; `None` where securityfs does not show it.
    pub lockdown: Option<String>,
    /// `RLIMIT_MEMLOCK` in bytes; `None` = unlimited. Matters before 5.11 only, where BPF memory is charged to it.
    pub memlock: Option<u64>,
    /// The cgroup v1 controllers that are mounted (empty on a pure v2 host).
    pub cgroup_v1: Vec<String>,
}

/// What the kernel's type information says.
#[derive(Clone, Debug)]
pub struct BtfFacts {
    /// Offsets of the members that the programs read.
    pub offsets: Offsets,
    /// `enum cgroup_subsys_id`, by name (`pids_cgrp_id`).
    pub cgroup_subsystems: Vec<(String, u32)>,
    /// Number of parameters of `inet_csk_accept`: fexit finds the result behind them.
    pub accept_parameters: Option<usize>,
    /// Parameters of `inet_csk_listen_start`, the same.
    pub listen_parameters: Option<usize>,
    /// Programs may ask for the registers of a system call.
    pub task_regs: bool,
}

sockopt_impl!(
    /// The cookie of the socket's network namespace (`net->net_cookie`).
    NetnsCookie,
    GetOnly,
    libc::SOL_SOCKET,
    libc::SO_NETNS_COOKIE,
    u64
);

/// The cookie of the network namespace that the calling thread is in, never 0.
///
/// # Errors
/// The kernel does not tell (`ENOPROTOOPT` before 5.14), or the socket could not be made.
pub fn netns_cookie() -> nix::Result<u64> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    netns_cookie_of(&socket)
}

/// The cookie of the namespace that a socket is in.
///
/// # Errors
/// The kernel does not tell: `ENOPROTOOPT` before 5.14, and for sockets of some other families.
pub fn netns_cookie_of(socket: &OwnedFd) -> nix::Result<u64> {
    getsockopt(socket, NetnsCookie)
}

struct Bytes(Vec<u8>);

impl Readable for Bytes {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> btfparse::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        match self.0.get(start..).and_then(|tail| tail.get(..buffer.len())) {
            Some(bytes) => {
                buffer.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(btfparse::Error::new(btfparse::ErrorKind::IOError, "read past the end of the BTF data")),
        }
    }
}

impl Host {
    /// Collects everything. Takes about 0.2 s, nearly all of it the kernel's BTF, with kernel symbols read alongside.
    pub fn collect() -> Self {
        let (btf, tw_timer_handler) = std::thread::scope(|scope| {
            let symbols = scope.spawn(|| tw_timer_handler(Path::new("/proc/kallsyms")));
            let btf = btf_facts(Path::new("/sys/kernel/btf/vmlinux"));
            (btf, symbols.join().unwrap_or_else(|_| Err("reading /proc/kallsyms panicked".into())))
        });
        Self {
            hostname: line("/proc/sys/kernel/hostname").unwrap_or_else(|| "unknown".into()),
            kernel: line("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".into()),
            boot_id: line("/proc/sys/kernel/random/boot_id"),
            btf,
            tw_timer_handler,
            netns_cookies: netns_cookie().is_ok(),
            tracefs: ["/sys/kernel/tracing/events", "/sys/kernel/debug/tracing/events"]
                .iter()
                .any(|path| fs::exists(path).unwrap_or(false)),
            host_pids: host_pids(),
            capabilities: effective(),
            lockdown: line("/sys/kernel/security/lockdown")
                .and_then(|text| Some(text.split_once('[')?.1.split_once(']')?.0.to_owned())),
            memlock: memlock(),
            cgroup_v1: cgroup_v1(&fs::read_to_string("/proc/mounts").unwrap_or_default()),
        }
    }

    /// Does this process have the capability of this name?
    pub fn has(&self, capability: &str) -> bool {
        self.capabilities.contains(capability)
    }
}

fn line(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| clean(text.trim()).into_owned()).filter(|text| !text.is_empty())
}

/// The host's pid namespace has a fixed number (`PROC_PID_INIT_INO`, include/linux/proc_ns.h). Unknown counts as the host's.
pub fn host_pids() -> bool {
    const PROC_PID_INIT_INO: u64 = 0xefff_fffc;
    fs::metadata("/proc/self/ns/pid").map_or(true, |file| file.ino() == PROC_PID_INIT_INO)
}

fn effective() -> BTreeSet<&'static str> {
    let held = caps::read(None, CapSet::Effective).unwrap_or_default();
    CAPABILITIES.iter().filter(|needed| held.contains(&needed.capability)).map(|needed| needed.name).collect()
}

fn memlock() -> Option<u64> {
    use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
    let (soft, _) = getrlimit(Resource::RLIMIT_MEMLOCK).ok()?;
    (soft != RLIM_INFINITY).then_some(soft)
}

/// v1 controllers from /proc/mounts: `cgroup /sys/fs/cgroup/pids cgroup rw,pids 0 0`.
fn cgroup_v1(mounts: &str) -> Vec<String> {
    mounts
        .lines()
        .filter_map(|mount| {
            let mut fields = mount.split(' ').skip(2);
            (fields.next()? == "cgroup").then(|| fields.next()).flatten()
        })
        .flat_map(|options| options.split(','))
        .filter(|option| ["pids", "memory", "cpu", "devices"].contains(option))
        .map(str::to_owned)
        .collect()
}

fn btf_facts(path: &Path) -> Result<BtfFacts, String> {
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let types = TypeInformation::new(&Bytes(bytes)).map_err(|error| format!("{}: {error:?}", path.display()))?;
    let offsets = Offsets::from_lookup(|name, member| {
        let id = types.id_of(name)?;
        match types.offset_of(id, member).ok()?.1 {
            btfparse::Offset::ByteOffset(bytes) => Some(bytes),
            btfparse::Offset::BitOffsetAndSize(bits, _) => Some(((bits % 8) << Offsets::BIT_SHIFT) | (bits / 8)),
        }
    });
    let cgroup_subsystems = types
        .id_of("cgroup_subsys_id")
        .and_then(|id| types.from_id(id))
        .and_then(|found| match found {
            TypeVariant::Enum(subsystems) => Some(
                subsystems
                    .named_value_list()
                    .iter()
                    .filter_map(|entry| {
                        let value = match entry.value {
                            btfparse::Integer32Value::Signed(value) => u32::try_from(value).ok()?,
                            btfparse::Integer32Value::Unsigned(value) => value,
                        };
                        Some((entry.name.clone(), value))
                    })
                    .collect(),
            ),
            _ => None,
        })
        .unwrap_or_default();
    let parameters = |function: &str| match types.id_of(function).and_then(|id| types.from_id(id)) {
        Some(TypeVariant::Func(function)) => match types.from_id(*function.prototype_tid()) {
            Some(TypeVariant::FuncProto(prototype)) => Some(prototype.parameter_list().len()),
            _ => None,
        },
        _ => None,
    };
    let (accept_parameters, listen_parameters) = (parameters("inet_csk_accept"), parameters("inet_csk_listen_start"));
    // The helper is a function like any other. Its number alone says nothing: a distribution may have backported it.
    let task_regs = types.id_of("bpf_task_pt_regs").is_some();
    Ok(BtfFacts { offsets, cgroup_subsystems, accept_parameters, listen_parameters, task_regs })
}

/// The handler of every minisocket's timer (net/ipv4/inet_timewait_sock.c). Compilers may append a suffix to its name.
fn tw_timer_handler(path: &Path) -> Result<u64, String> {
    let file = fs::File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    for line in BufReader::with_capacity(1 << 18, file).lines() {
        let line = line.map_err(|error| format!("{}: {error}", path.display()))?;
        let mut fields = line.split(' ');
        let (Some(address), Some(_), Some(name)) = (fields.next(), fields.next(), fields.next()) else { continue };
        if name == "tw_timer_handler" || name.starts_with("tw_timer_handler.") {
            return match u64::from_str_radix(address, 16) {
                Ok(0) | Err(_) => {
                    Err("kernel symbol addresses are hidden (needs CAP_SYSLOG and kernel.kptr_restrict < 2)".into())
                }
                Ok(address) => Ok(address),
            };
        }
    }
    Err("this kernel's symbol table has no tw_timer_handler".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_controllers_are_told_from_v2_and_named_hierarchies() {
        let mounts = "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
                      cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\n\
                      cgroup /sys/fs/cgroup/pids cgroup rw,relatime,pids 0 0\n";
        assert_eq!(cgroup_v1(mounts), ["pids"]);
        assert!(cgroup_v1("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n").is_empty());
    }

    #[test]
    fn hidden_symbol_addresses_are_told_from_missing_symbols() {
        let file = std::env::temp_dir().join(format!("kallsyms-{}", std::process::id()));
        for (text, expected) in
            [("0000000000000000 t tw_timer_handler\n", "hidden"), ("ffffffff81000000 T other\n", "no tw_timer_handler")]
        {
            fs::write(&file, text).expect("write");
            assert!(tw_timer_handler(&file).expect_err("no address").contains(expected));
        }
        fs::write(&file, "ffffffff81000000 t x\nffffffff82006870 t tw_timer_handler.llvm.12\n").expect("write");
        assert_eq!(tw_timer_handler(&file), Ok(0xffff_ffff_8200_6870));
        fs::remove_file(&file).expect("remove");
    }
}
