//! Capabilities: which ones a trace needs, which ones it keeps, and what it says when some are missing.

use anyhow::{Context as _, Result};
use caps::CapSet;
use nix::sys::prctl;

use crate::probe::Host;
use crate::probe::capabilities::{CAPABILITIES, NeededCapability, on_kernel, setcap_argument};
use tracer_core::host::Degradation;

/// Drops every capability that is not needed any more. Must run before threads are made: each thread has its own capabilities, and
/// a new thread inherits those of the thread that makes it.
///
/// # Errors
/// The kernel refused to read or to drop capabilities.
pub fn drop_unneeded() -> Result<()> {
    let held = caps::read(None, CapSet::Permitted).context("reading the process's capabilities")?;
    let keep = CAPABILITIES.iter().filter(|needed| needed.kept).map(|needed| needed.capability);
    let keep = keep.filter(|capability| held.contains(capability)).collect();
    caps::clear(None, CapSet::Ambient).context("clearing ambient capabilities")?;
    caps::set(None, CapSet::Effective, &keep).context("dropping effective capabilities")?;
    caps::set(None, CapSet::Permitted, &keep).context("dropping permitted capabilities")?;
    caps::clear(None, CapSet::Inheritable).context("clearing inheritable capabilities")
}

/// Drops every capability of the calling thread, which needs none. A thread that cannot drop them keeps them.
pub fn drop_all() {
    lock();
    for set in [CapSet::Ambient, CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        // A set that cannot be read or cleared is as it was.
        let _ = caps::clear(None, set);
    }
}

/// From here on nothing that the calling thread executes, nor a thread that it starts, gains rights by being executed: neither by setuid
/// nor by file capabilities, nor root's by being root.
///
/// The command of `record -- CMD` and the processes of the demo are started before, by the main thread: they have what their user has.
pub fn lock() {
    // Every kernel that runs BPF has it.
    let _ = prctl::set_no_new_privs();
}

/// The message when BPF is refused: the missing capabilities and the command that gives them.
pub fn advice(missing: &str, kernel: &str) -> String {
    let program = std::env::current_exe().map_or_else(|_| "portchurn".into(), |path| path.display().to_string());
    format!(
        "portchurn needs {missing} to trace this host. Run it as root (sudo portchurn ...), or give the binary what it needs once:\n  \
         sudo setcap {} {program}\n\
         `portchurn doctor` shows what each is for.",
        setcap_argument(kernel)
    )
}

/// The capabilities that this process does not hold and that are worth having.
pub fn missing(host: &Host) -> impl Iterator<Item = &'static NeededCapability> {
    on_kernel(&host.kernel)
        .filter(|needed| !host.has(needed.name))
        // CAP_SYS_ADMIN stands in for both.
        .filter(|needed| !(needed.required && host.has("CAP_SYS_ADMIN")))
}

/// What the reports cannot say because of missing capabilities.
pub fn gaps(host: &Host) -> Vec<Degradation> {
    let gap = |needed: &NeededCapability| {
        let lost = format!("to {}", needed.purpose);
        Degradation::new(format!("capability {}", needed.name), "not held by this process", lost)
    };
    missing(host).map(gap).collect()
}
