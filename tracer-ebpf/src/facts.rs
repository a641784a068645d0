//! Records that describe processes and network namespaces, sent when user space first needs them, in the process's own
//! context.
//!
//! The programs read these facts because user space cannot: a process that lives for 20 ms has exited before user space
//! reads /proc, and by then its namespace may have neither a process nor a name.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_pid_tgid, bpf_get_current_task, bpf_get_current_uid_gid, bpf_jiffies64,
    bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_probe_read_user,
};
use aya_log_ebpf::warn;
use tracer_common::{
    ARGV_BYTES, CGROUP_DEPTH, CGROUP_NAME_BYTES, Counter, NetnsRecord, Offsets, RESERVED_BITMAP_BYTES, RecordKind,
    ReservedPortsRecord, TaskRecord,
};

use crate::emit::{header, now, record};
use crate::maps::{CGROUP_V1_SUBSYS, KnownNetns, KnownTask, NAMESPACES, TASKS, offset};
use crate::sock::{peek, peek_or};

/// The limits change rarely but the `TIME_WAIT` count always does; a forecast needs it once a second.
const LIMITS_EVERY_NS: u64 = 1_000_000_000;
/// The bitmap has 8 KiB and changes only when an administrator changes it.
const RESERVED_EVERY_NS: u64 = 30_000_000_000;

/// Thread group and thread of the current task.
#[inline(always)]
pub fn current() -> (u32, u32) {
    // SAFETY: no arguments.
    let id = unsafe { bpf_get_current_pid_tgid() };
    ((id >> 32) as u32, id as u32)
}

/// cgroup v2 id of the current task.
#[inline(always)]
pub fn current_cgroup() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_get_current_cgroup_id() }
}

/// Sends a [`TaskRecord`] of the current process if user space has none yet, or if the process has called exec() since.
#[inline(always)]
pub fn introduce_task<C: EbpfContext>(ctx: &C, netns: u32) {
    // SAFETY: no arguments.
    let task = unsafe { bpf_get_current_task() };
    let (tgid, tid) = current();
    let leader: u64 = peek_or(task, offset::TASK_LEADER.load(), 0);
    let start: u64 = peek_or(leader, offset::TASK_START.load(), 0);
    let mm: u64 = peek_or(task, offset::TASK_MM.load(), 0);
    // SAFETY: the value is copied before anything else runs. If the kernel recycles the element meanwhile, the copy
    // holds another process's start time; the worst outcome is that a process is described twice.
    if let Some(known) = unsafe { TASKS.get(&tgid) } {
        if known.start == start && known.mm == mm {
            return;
        }
    }
    if leader == 0 {
        warn!(ctx, "task {} has no readable group leader: unknown layout, its processes stay unnamed", tid);
        return;
    }
    let sent = record::<TaskRecord>(Counter::FactRingFull, |out| {
        // SAFETY: `out` is ring-buffer memory of this size; every field is written below.
        unsafe { describe_task(out, task, leader, start, mm, tgid, tid, netns) };
    });
    // A record that did not fit is tried again at the next connect.
    if sent && TASKS.insert(&tgid, &KnownTask { start, mm }, 0).is_err() {
        warn!(ctx, "table of known tasks is full: process {} will be described again", tgid);
    }
}

/// # Safety
/// `out` must point to writable memory of a whole `TaskRecord`.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "facts that the caller has read already")]
unsafe fn describe_task(
    out: *mut TaskRecord,
    task: u64,
    leader: u64,
    start: u64,
    mm: u64,
    tgid: u32,
    tid: u32,
    netns: u32,
) {
    let parent: u64 = peek_or(leader, offset::TASK_PARENT.load(), 0);
    let parent_leader: u64 = peek_or(parent, offset::TASK_LEADER.load(), 0);
    let arg_start: u64 = peek_or(mm, offset::MM_ARG_START.load(), 0);
    let arg_end: u64 = peek_or(mm, offset::MM_ARG_END.load(), 0);
    let css_set: u64 = peek_or(task, offset::TASK_CGROUPS.load(), 0);
    // SAFETY: `out` is valid by contract; helpers write inside the array they are given and zero it on failure.
    unsafe {
        (*out).header = header(RecordKind::Task, 0, 0, TaskRecord::SIZE, now());
        (*out).start_boottime = start;
        (*out).cgroup = current_cgroup();
        (*out).tgid = tgid;
        (*out).tid = tid;
        (*out).ppid = peek_or(parent, offset::TASK_TGID.load(), 0);
        (*out).uid = bpf_get_current_uid_gid() as u32;
        (*out).netns = netns;
        (*out).argv_len = arg_end.wrapping_sub(arg_start) as u32;
        (*out).comm = peek_or(leader, offset::TASK_COMM.load(), [0; 16]);
        (*out).thread_comm = peek_or(task, offset::TASK_COMM.load(), [0; 16]);
        (*out).parent_comm = peek_or(parent_leader, offset::TASK_COMM.load(), [0; 16]);
        read_argv(&raw mut (*out).argv, arg_start, arg_end.wrapping_sub(arg_start));
        cgroup_path(&raw mut (*out).cgroup_v2, peek_or(css_set, offset::CSS_SET_DFL.load(), 0));
        let v1 = CGROUP_V1_SUBSYS.load();
        let css: u64 =
            if v1 == u32::MAX { 0 } else { peek_or(css_set, offset::CSS_SET_SUBSYS.load().wrapping_add(v1), 0) };
        cgroup_path(&raw mut (*out).cgroup_v1, peek_or(css, offset::CSS_CGROUP.load(), 0));
    }
}

/// Reads the command line, never the environment behind it. Only when the process has overwritten the last byte of its
/// arguments (the mark of setproctitle, fs/proc/base.c `get_mm_cmdline`) does it read past their end, where the title
/// goes on.
///
/// # Safety
/// `out` must be writable.
#[inline(always)]
unsafe fn read_argv(out: *mut [u8; ARGV_BYTES], arg_start: u64, len: u64) {
    let within = len as u32 & (ARGV_BYTES as u32 - 1);
    // SAFETY: `out` is writable by contract; the helper writes at most the given length and zeroes that much on
    // failure.
    unsafe {
        let whole = bpf_probe_read_user(out.cast(), ARGV_BYTES as u32, arg_start as *const _) == 0;
        if whole && (len >= ARGV_BYTES as u64 || (within != 0 && *out.cast::<u8>().add(within as usize - 1) != 0)) {
            return;
        }
        core::ptr::write_bytes(out.cast::<u64>(), 0, ARGV_BYTES / 8);
        bpf_probe_read_user(out.cast(), within, arg_start as *const _);
    }
}

/// Reads the names of the cgroup's directories, leaf first.
///
/// # Safety
/// `out` must be writable.
#[inline(always)]
unsafe fn cgroup_path(out: *mut [[u8; CGROUP_NAME_BYTES]; CGROUP_DEPTH], cgroup: u64) {
    let mut node: u64 = peek_or(cgroup, offset::CGROUP_KN.load(), 0);
    for level in 0..CGROUP_DEPTH {
        let name: u64 = peek_or(node, offset::KN_NAME.load(), 0);
        let parent: u64 = peek_or(node, offset::KN_PARENT.load(), 0);
        // SAFETY: `out` is writable by contract and `level` below its length; a failing helper zeroes its destination.
        unsafe {
            let slot = out.cast::<u8>().add(level * CGROUP_NAME_BYTES);
            core::ptr::write_bytes(slot.cast::<u64>(), 0, CGROUP_NAME_BYTES / 8);
            // The root's own name is empty. After a node that cannot be read, all further names stay empty.
            bpf_probe_read_kernel_str(slot.cast(), CGROUP_NAME_BYTES as u32, name as *const _);
        }
        node = parent;
    }
}

/// Sends the limits of a namespace if the last record of them is older than [`LIMITS_EVERY_NS`]. `net` is its `struct
/// net`.
#[inline(always)]
pub fn introduce_netns(net: u64, netns: u32) {
    let ktime = now();
    // SAFETY: the value is copied at once; a recycled element costs one record more or less.
    let known = unsafe { NAMESPACES.get(&netns) }.copied().unwrap_or(KnownNetns { limits_at: 0, reserved_at: 0 });
    if known.limits_at != 0 && ktime.wrapping_sub(known.limits_at) < LIMITS_EVERY_NS {
        return;
    }
    let (range_lo, range_hi) = port_range(net);
    let unknown = u32::MAX;
    let time_wait = if offset::NET_TW_REFCOUNT.load() == Offsets::MISSING {
        peek_or(net, offset::NET_TW_COUNT.load(), unknown)
    } else {
        peek_or::<u32>(net, offset::NET_TW_REFCOUNT.load(), 0).wrapping_sub(1)
    };
    let sent = record::<NetnsRecord>(Counter::FactRingFull, |out| {
        // SAFETY: ring-buffer memory of this size, written whole.
        unsafe {
            *out = NetnsRecord {
                header: header(RecordKind::Netns, 0, 0, NetnsRecord::SIZE, ktime),
                net_cookie: peek_or(net, offset::NET_COOKIE.load(), 0),
                jiffies: bpf_jiffies64(),
                netns,
                range_lo,
                range_hi,
                time_wait,
                max_tw_buckets: peek_or(net, offset::NET_MAX_TW.load(), unknown),
                fin_timeout: peek_or(net, offset::NET_FIN_TIMEOUT.load(), unknown),
                tw_reuse_delay: peek_or(net, offset::NET_TW_REUSE_DELAY.load(), unknown),
                tw_reuse: peek_or(net, offset::NET_TW_REUSE.load(), u8::MAX),
                timestamps: peek_or(net, offset::NET_TIMESTAMPS.load(), u8::MAX),
                pad: [0; 6],
            };
        }
    });
    if !sent {
        return;
    }
    let mut next = KnownNetns { limits_at: ktime, reserved_at: known.reserved_at };
    if (known.reserved_at == 0 || ktime.wrapping_sub(known.reserved_at) >= RESERVED_EVERY_NS)
        && reserved_ports(net, netns, ktime)
    {
        next.reserved_at = ktime;
    }
    // An LRU map has room for every key. If the insert fails, the next connect sends the limits again.
    let _ = NAMESPACES.insert(&netns, &next, 0);
}

/// `ip_local_port_range`: two ints before 6.8, one `u32` of high << 16 | low since (the second word is then a lock or
/// padding).
#[inline(always)]
fn port_range(net: u64) -> (u16, u16) {
    let [first, second]: [u32; 2] = peek_or(net, offset::NET_PORT_RANGE.load(), [0; 2]);
    if first > 0xffff { (first as u16, (first >> 16) as u16) } else { (first as u16, second as u16) }
}

#[inline(always)]
fn reserved_ports(net: u64, netns: u32, ktime: u64) -> bool {
    let Some(bitmap) = peek::<u64>(net, offset::NET_RESERVED_PORTS.load()) else { return false };
    record::<ReservedPortsRecord>(Counter::FactRingFull, |out| {
        // SAFETY: ring-buffer memory of this size; the helper fills or zeroes the bitmap.
        unsafe {
            (*out).header = header(RecordKind::ReservedPorts, 0, 0, ReservedPortsRecord::SIZE, ktime);
            (*out).netns = netns;
            (*out).pad = 0;
            bpf_probe_read_kernel((&raw mut (*out).bitmap).cast(), RESERVED_BITMAP_BYTES as u32, bitmap as *const _);
        }
    })
}
