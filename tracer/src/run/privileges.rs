//! Capabilities: which ones a trace needs, which ones it keeps, and what it says when some are missing.

use anyhow::{Context as _, Result};
use caps::{CapSet, Capability};

use crate::probe::Host;
use tracer_core::host::Degradation;

/// Capabilities that are kept after the programs are attached, with their purpose:
/// - `CAP_BPF`: reading the counter map, where unprivileged BPF is switched off;
/// - `CAP_SYS_ADMIN`: entering network namespaces for the reconciling pass;
/// - `CAP_SYS_PTRACE`, `CAP_DAC_READ_SEARCH`: looking at other users' /proc entries and at /run/netns.
const KEPT: [Capability; 4] =
    [Capability::CAP_BPF, Capability::CAP_SYS_ADMIN, Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH];

/// Drops every capability that is not needed any more. Must run before threads are made: each thread has its own capabilities, and
/// a new thread inherits those of the thread that makes it.
///
/// # Errors
/// The kernel refused to read or to drop capabilities.
pub fn drop_unneeded() -> Result<()> {
    let held = caps::read(None, CapSet::Permitted).context("reading the process's capabilities")?;
    let keep = held.iter().filter(|capability| KEPT.contains(capability)).copied().collect();
    caps::clear(None, CapSet::Ambient).context("clearing ambient capabilities")?;
    caps::set(None, CapSet::Effective, &keep).context("dropping effective capabilities")?;
    caps::set(None, CapSet::Permitted, &keep).context("dropping permitted capabilities")?;
    caps::clear(None, CapSet::Inheritable).context("clearing inheritable capabilities")
}

/// Drops every capability of the calling thread, which needs none. A thread that cannot drop them keeps them.
pub fn drop_all() {
    for set in [CapSet::Ambient, CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        // A set that cannot be read or cleared is as it was.
        let _ = caps::clear(None, set);
    }
}

/// The message when BPF is refused: the missing capabilities and the command that gives them.
pub fn advice(missing: &str) -> String {
    let program = std::env::current_exe().map_or_else(|_| "portchurn".into(), |path| path.display().to_string());
    let more = if missing.contains("CAP_SYS_RESOURCE") { ",cap_sys_resource" } else { "" };
    format!(
        "portchurn needs {missing} to trace this host. Run it as root (sudo portchurn ...), or give the binary what it needs once:\n  \
         sudo setcap cap_bpf,cap_perfmon,cap_net_admin,cap_sys_ptrace,cap_sys_admin,cap_syslog,cap_dac_read_search{more}+ep {program}\n\
         `portchurn doctor` shows what each is for."
    )
}

/// The capabilities that this process does not hold and that are worth having, with their purpose.
pub fn missing(host: &Host) -> impl Iterator<Item = (&'static str, &'static str)> {
    crate::probe::host::CAPABILITIES
        .iter()
        .filter(|(_, name, _)| !host.has(name))
        // CAP_SYS_ADMIN stands in for both.
        .filter(|(_, name, _)| !(matches!(*name, "CAP_BPF" | "CAP_PERFMON") && host.has("CAP_SYS_ADMIN")))
        .map(|&(_, name, purpose)| (name, purpose))
}

/// What the reports cannot say because of missing capabilities.
pub fn gaps(host: &Host) -> Vec<Degradation> {
    let gap = |(name, purpose)| {
        Degradation::new(format!("capability {name}"), "not held by this process", format!("to {purpose}"))
    };
    missing(host).map(gap).collect()
}
