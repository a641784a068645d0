//! Names of a process that its operators know: command line, systemd unit, container, application pool.
//!
//! A process that lives 20 ms is gone before its `/proc` can be read, so these names come from the record that the
//! kernel side wrote in the process's own context.
//!
//! Not for: grouping processes into workloads ([`crate::tracker::workload`]), and not for caching: the kernel side
//! writes one [`tracer_common::TaskRecord`] per process and exec.

pub mod cgroup;
pub mod cmdline;
mod kernel_text;

pub use kernel_text::text;

use tracer_common::TaskRecord;

use crate::event::{CgroupId, Ktime, Netns, ProcessFacts};

/// Facts about the process that wrote `record`, as far as the record itself tells: `exe` is unknown.
pub fn facts(record: &TaskRecord) -> ProcessFacts {
    let cmdline = cmdline::from_record(&record.argv, record.argv_len);
    let cgroup = cgroup::from_record(&record.cgroup_v2, &record.cgroup_v1);
    ProcessFacts {
        ktime: Ktime(record.header.ktime),
        pid: record.tgid,
        start: record.start_boottime,
        exec_id: record.exec_id,
        ppid: record.ppid,
        uid: record.uid,
        netns: Netns { inode: record.netns, cookie: record.header.netns_cookie },
        cgroup: CgroupId(record.cgroup),
        comm: text(&record.comm),
        parent_comm: text(&record.parent_comm),
        pool: cmdline.as_deref().and_then(cmdline::pool),
        cmdline,
        exe: None,
        cgroup_path: cgroup.path,
        unit: cgroup.unit,
        container: cgroup.container,
        pod: cgroup.pod,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_common::{Header, Record, RecordKind};

    /// A record as the kernel writes it: bytes, so that the decoding is in the test too.
    fn record(argv: &[u8], argv_len: u32, comm: &[u8], leaf: &[u8]) -> TaskRecord {
        let mut record = Record::task(&[0; TaskRecord::SIZE]).expect("all zero is a record");
        record.header = Header { kind: RecordKind::Task as u8, pad: 0, flags: 0, netns_cookie: 9, ktime: 77 };
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
        let facts = facts(&record);
        assert_eq!((facts.ktime, facts.pid, facts.start), (Ktime(77), 42, 9_000_000_001));
        assert_eq!(&*facts.comm, "php-fpm8.2");
        assert_eq!(facts.pool.as_deref(), Some("www"));
        assert_eq!(facts.unit.as_deref(), Some("php8.2-fpm.service"));
        assert_eq!(facts.cgroup_path.as_deref(), Some("/php8.2-fpm.service"));
        assert_eq!((facts.exe, facts.container), (None, None));
    }

    #[test]
    fn an_empty_record_yields_unknowns_not_empty_strings() {
        let facts = facts(&record(b"", 0, b"", b""));
        assert_eq!((facts.cmdline, facts.cgroup_path, facts.unit, facts.pool), (None, None, None, None));
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        let facts = facts(&record(b"a\x1b]0;x\x07\0", 8, b"e\x1bvil", b"x\x1b.service"));
        for name in [Some(facts.comm), facts.cmdline, facts.unit, facts.cgroup_path].into_iter().flatten() {
            assert!(!name.chars().any(char::is_control), "{name:?}");
        }
    }
}
