//! Who a process is, in the words of its operators: command line, systemd unit, container, application pool.
//!
//! A process of 20 ms is gone before anybody can read `/proc`, so [`Names`] makes do with what the kernel recorded in the process's
//! own context. Only what existed before the start is asked of `/proc` (`proc_fs`, with the feature `live`).
//!
//! Not for: grouping processes into workloads (`tracker::workload`), and not for caching: a [`tracer_common::TaskRecord`] is written
//! once per process and exec, so nothing is asked twice.

pub mod cgroup;
pub mod cmdline;
#[cfg(feature = "live")]
pub mod proc_fs;

use tracer_common::TaskRecord;

use crate::event::{CgroupId, Ktime, Namer, Netns, ProcessFacts, text};

/// Turns a [`TaskRecord`] into [`ProcessFacts`].
#[derive(Debug, Default)]
pub struct Names {
    /// Where executables are looked up; `None` makes no I/O at all.
    #[cfg(feature = "live")]
    proc: Option<proc_fs::ProcFs>,
}

impl Names {
    /// Uses nothing but the record.
    pub fn of_records() -> Self {
        Self::default()
    }

    /// Also looks the executable up in `proc`, best effort: it is `None` for a process that is already gone.
    #[cfg(feature = "live")]
    pub fn with_executables(proc: proc_fs::ProcFs) -> Self {
        Self { proc: Some(proc) }
    }
}

impl Namer for Names {
    fn process(&mut self, record: &TaskRecord) -> ProcessFacts {
        // `mut` serves the feature `live` only.
        #[cfg_attr(not(feature = "live"), expect(unused_mut, reason = "only `live` adds the executable"))]
        let mut facts = facts(record);
        #[cfg(feature = "live")]
        if let Some(proc) = &self.proc {
            facts.exe = proc.exe_of(facts.pid, facts.start);
        }
        facts
    }
}

/// What the record alone says.
fn facts(record: &TaskRecord) -> ProcessFacts {
    let cmdline = cmdline::from_record(&record.argv, record.argv_len);
    let place = cgroup::from_record(&record.cgroup_v2, &record.cgroup_v1);
    ProcessFacts {
        ktime: Ktime(record.header.ktime),
        pid: record.tgid,
        start: record.start_boottime,
        ppid: record.ppid,
        uid: record.uid,
        netns: Netns(record.netns),
        cgroup: CgroupId(record.cgroup),
        comm: text(&record.comm),
        parent_comm: text(&record.parent_comm),
        pool: cmdline.as_deref().and_then(cmdline::pool),
        cmdline,
        exe: None,
        cgroup_path: place.path,
        unit: place.unit,
        container: place.container,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_common::{Header, Record, RecordKind};

    /// A record as the kernel writes it: bytes, so that the decoding is in the test too.
    fn record(argv: &[u8], argv_len: u32, comm: &[u8], leaf: &[u8]) -> TaskRecord {
        let mut record = Record::task(&[0; TaskRecord::SIZE]).expect("all zero is a record");
        record.header = Header {
            kind: RecordKind::Task as u8,
            family: 0,
            flags: 0,
            size: u32::try_from(TaskRecord::SIZE).expect("small"),
            ktime: 77,
        };
        record.tgid = 42;
        record.start_boottime = 9_000_000_001;
        record.argv_len = argv_len;
        record.argv[..argv.len()].copy_from_slice(argv);
        record.comm[..comm.len()].copy_from_slice(comm);
        record.cgroup_v2[0][..leaf.len()].copy_from_slice(leaf);
        record
    }

    #[test]
    fn a_worker_of_php_fpm_has_its_pool_and_unit() {
        let record = record(b"php-fpm: pool www\0\0", 19, b"php-fpm8.2", b"php8.2-fpm.service");
        let facts = Names::of_records().process(&record);
        assert_eq!((facts.ktime, facts.pid, facts.start), (Ktime(77), 42, 9_000_000_001));
        assert_eq!(&*facts.comm, "php-fpm8.2");
        assert_eq!(facts.pool.as_deref(), Some("www"));
        assert_eq!(facts.unit.as_deref(), Some("php8.2-fpm.service"));
        assert_eq!(facts.cgroup_path.as_deref(), Some("/php8.2-fpm.service"));
        assert_eq!((facts.exe, facts.container), (None, None));
    }

    #[test]
    fn an_empty_record_yields_unknowns_not_empty_strings() {
        let facts = Names::of_records().process(&record(b"", 0, b"", b""));
        assert_eq!((facts.cmdline, facts.cgroup_path, facts.unit, facts.pool), (None, None, None, None));
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        let facts = Names::of_records().process(&record(b"a\x1b]0;x\x07\0", 8, b"e\x1bvil", b"x\x1b.service"));
        for name in [Some(facts.comm), facts.cmdline, facts.unit, facts.cgroup_path].into_iter().flatten() {
            assert!(!name.chars().any(char::is_control), "{name:?}");
        }
    }
}
