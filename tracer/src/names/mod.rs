//! Names that only `/proc` of this host knows: executables, socket owners, network namespaces.

pub mod proc_fs;

use tracer_common::TaskRecord;
use tracer_core::event::{Namer, ProcessFacts};
use tracer_core::names;

/// Turns a [`TaskRecord`] into [`ProcessFacts`] with the executable, which is looked up in `/proc`.
#[derive(Debug)]
pub struct Names {
    proc: proc_fs::ProcFs,
}

impl Names {
    /// Looks the executable up in `proc`, best effort: it is `None` for a process that is already gone.
    pub fn with_executables(proc: proc_fs::ProcFs) -> Self {
        Self { proc }
    }
}

impl Namer for Names {
    fn process(&mut self, record: &TaskRecord) -> ProcessFacts {
        let mut facts = names::facts(record);
        facts.exe = self.proc.exe_of(facts.pid, facts.start);
        facts
    }
}
