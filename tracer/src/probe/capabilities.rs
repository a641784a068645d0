//! The capabilities that portchurn uses: the one table from which `doctor`, the advice, the page on security, the line for setcap(8) and
//! the test with exactly this set are made.

use caps::Capability;
use serde::Serialize;

/// A capability and what it is for.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct NeededCapability {
    /// As capabilities(7) writes it.
    pub name: &'static str,
    #[serde(skip)]
    pub(crate) capability: Capability,
    /// What it gives: "to ...".
    pub purpose: &'static str,
    /// Without it nothing is traced. `CAP_SYS_ADMIN` stands in for both.
    pub required: bool,
    /// It is kept while a trace runs. Any other is dropped as soon as the programs are attached.
    pub kept: bool,
    /// Kernels from 5.11 on do without it.
    pub only_before_5_11: bool,
}

const fn of(capability: Capability, name: &'static str, purpose: &'static str) -> NeededCapability {
    NeededCapability { name, capability, purpose, required: false, kept: false, only_before_5_11: false }
}

/// All of them. `CAP_NET_ADMIN` is none: `sock_diag` wants it for the mark of a socket and for closing sockets (net/ipv4/inet_diag.c), and
/// neither is asked for.
pub const CAPABILITIES: [NeededCapability; 7] = [
    NeededCapability {
        required: true,
        kept: true,
        ..of(Capability::CAP_BPF, "CAP_BPF", "load BPF programs and read their maps")
    },
    NeededCapability {
        required: true,
        ..of(Capability::CAP_PERFMON, "CAP_PERFMON", "attach to tracepoints and read kernel memory from them")
    },
    NeededCapability {
        kept: true,
        ..of(
            Capability::CAP_SYS_ADMIN,
            "CAP_SYS_ADMIN",
            "enter other network namespaces to list their sockets; mount tracefs for itself",
        )
    },
    NeededCapability {
        kept: true,
        ..of(
            Capability::CAP_SYS_PTRACE,
            "CAP_SYS_PTRACE",
            "name the owners of sockets that existed before the start; duplicate their sockets that are in no list",
        )
    },
    NeededCapability {
        kept: true,
        ..of(
            Capability::CAP_DAC_READ_SEARCH,
            "CAP_DAC_READ_SEARCH",
            "read tracefs and /run/netns as another user than root",
        )
    },
    of(Capability::CAP_SYSLOG, "CAP_SYSLOG", "read kernel symbol addresses (TIME_WAIT timers)"),
    NeededCapability {
        only_before_5_11: true,
        ..of(Capability::CAP_SYS_RESOURCE, "CAP_SYS_RESOURCE", "raise the memlock limit, before Linux 5.11")
    },
];

/// The capabilities that the kernel of this release (`5.10.223`) needs.
pub fn on_kernel(release: &str) -> impl Iterator<Item = &'static NeededCapability> {
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    let old = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < (5, 11);
    CAPABILITIES.iter().filter(move |needed| old || !needed.only_before_5_11)
}

/// The argument of setcap(8) that gives them to a binary.
pub fn setcap_argument(release: &str) -> String {
    let names: Vec<_> = on_kernel(release).map(|needed| needed.name.to_lowercase()).collect();
    format!("{}+ep", names.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_need_one_more() {
        assert!(setcap_argument("5.10.223-1").contains("cap_sys_resource"));
        for release in ["5.11.0", "6.18.44", "7.2.13-1"] {
            assert!(!setcap_argument(release).contains("cap_sys_resource"), "{release}");
        }
    }

    /// The documents name this set and no other.
    #[test]
    fn the_documents_have_the_table() {
        let rows = CAPABILITIES.map(|needed| {
            let kept = if needed.kept { "kept" } else { "dropped" };
            format!("| `{}` | {} | {kept} |", needed.name, needed.purpose)
        });
        let security = include_str!("../../../SECURITY.md");
        let table: Vec<_> = security.lines().filter(|line| line.starts_with("| `CAP_")).collect();
        assert_eq!(table, rows, "SECURITY.md");
        let line = format!("sudo setcap {} ", setcap_argument("6.12.0"));
        for (name, text) in [("README.md", include_str!("../../../README.md")), ("SECURITY.md", security)] {
            assert!(text.contains(&line), "{name} has `{line}`");
        }
        assert!(!security.contains("CAP_NET_ADMIN` |"), "asked for and used for nothing");
    }
}
