//! Names that only this host knows: executables, socket owners, network namespaces from `/proc`, pods from their logs.

pub mod proc_fs;

use proc_fs::ProcFs;
use tracer_common::Record;
use tracer_core::event::ProcessFacts;
use tracer_core::names;

/// Who the process of a record is, with the executable that `/proc` has for it at this moment (`None` in the facts if the process
/// is already gone). `None` if the bytes are no record of a process.
pub fn process(record: &[u8], proc: &ProcFs) -> Option<ProcessFacts> {
    let mut facts = names::facts(&Record::task(record).ok()?);
    facts.exe = proc.exe_of(facts.pid, facts.start);
    facts.pod = facts.pod.map(|uid| proc.pod_name(facts.container.as_deref(), &uid));
    Some(facts)
}
