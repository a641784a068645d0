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

use crate::emit::{header, now, record, record_if};
use crate::maps::{CGROUP_V1_SUBSYS, KnownNetns, KnownTask, NAMESPACES, NetnsKey, TASKS, offset};
use crate::sock::{Netns, peek, peek_or};

/// The limits change rarely but the `TIME_WAIT` count always does; a forecast needs it once a second.
const LIMITS_EVERY_NS: u64 = 1_000_000_000;
/// Copying and hashing the bitmap of reserved ports (8 KiB) takes microseconds, which a storm of failing connects must
/// not pay each time.
const RESERVED_EVERY_NS: u64 = 20_000_000;
/// Words hashed per round of the loop, of which each costs the verifier as much as a word.
const WORDS_AT_ONCE: usize = 8;
/// Odd, with its bits spread: 2^64 divided by the golden ratio.
const HASH_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

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
pub fn introduce_task<C: EbpfContext>(ctx: &C, netns: Netns) {
    // SAFETY: no arguments.
    let task = unsafe { bpf_get_current_task() };
    let (tgid, tid) = current();
    let leader: u64 = peek_or(task, offset::TASK_LEADER.load(), 0);
    let start: u64 = peek_or(leader, offset::TASK_START.load(), 0);
    let exec: u64 = peek_or(task, offset::TASK_EXEC_ID.load(), 0);
    // SAFETY: the value is copied before anything else runs. If the kernel recycles the element meanwhile, the copy
    // holds another process's start time; the worst outcome is that a process is described twice.
    if let Some(known) = unsafe { TASKS.get(&tgid) } {
        if known.start == start && known.exec == exec {
            return;
        }
    }
    if leader == 0 {
        warn!(ctx, "task {} has no readable group leader: unknown layout, its processes stay unnamed", tid);
        return;
    }
    let sent = record::<TaskRecord>(Counter::FactRingFull, |out| {
        // SAFETY: `out` is ring-buffer memory of this size; every field is written below.
        unsafe { describe_task(out, task, leader, start, exec, tgid, tid, netns) };
    });
    // A record that did not fit is tried again at the next connect.
    if sent && TASKS.insert(&tgid, &KnownTask { start, exec }, 0).is_err() {
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
    exec: u64,
    tgid: u32,
    tid: u32,
    netns: Netns,
) {
    let mm: u64 = peek_or(task, offset::TASK_MM.load(), 0);
    let parent: u64 = peek_or(leader, offset::TASK_PARENT.load(), 0);
    let parent_leader: u64 = peek_or(parent, offset::TASK_LEADER.load(), 0);
    let arg_start: u64 = peek_or(mm, offset::MM_ARG_START.load(), 0);
    let arg_end: u64 = peek_or(mm, offset::MM_ARG_END.load(), 0);
    let css_set: u64 = peek_or(task, offset::TASK_CGROUPS.load(), 0);
    // SAFETY: `out` is valid by contract; helpers write inside the array they are given and zero it on failure.
    unsafe {
        (*out).header = header(RecordKind::Task, 0, netns, now());
        (*out).start_boottime = start;
        (*out).cgroup = current_cgroup();
        (*out).tgid = tgid;
        (*out).tid = tid;
        (*out).ppid = peek_or(parent, offset::TASK_TGID.load(), 0);
        (*out).uid = bpf_get_current_uid_gid() as u32;
        (*out).netns = netns.inode;
        (*out).argv_len = arg_end.wrapping_sub(arg_start) as u32;
        (*out).exec_id = exec as u32;
        (*out).pad = 0;
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

/// Sends the limits of a namespace if the last record of them is older than [`LIMITS_EVERY_NS`] or has another port range,
/// and its reserved ports if they have changed. The reserved ports are looked at along with the limits and when a call
/// has failed for lack of a port (`failed`). `net` is the namespace's `struct net`.
#[inline(always)]
pub fn introduce_netns(net: u64, netns: Netns, failed: bool) {
    let ktime = now();
    let identity = if offset::NET_COOKIE.load() == Offsets::MISSING {
        peek_or(net, offset::NET_HASH_MIX.load(), 0)
    } else {
        netns.cookie
    };
    let key = NetnsKey { inode: netns.inode, identity };
    let Some(known) = known(&key) else { return };
    let range: [u32; 2] = peek_or(net, offset::NET_PORT_RANGE.load(), [0; 2]);
    // SAFETY: an aligned element of this map. Where two CPUs write it at once, or the kernel recycles it meanwhile, a record
    // is sent more or less.
    unsafe {
        (*known).net = net;
        let due = (*known).limits_at == 0
            || (*known).range != range
            || ktime.wrapping_sub((*known).limits_at) >= LIMITS_EVERY_NS;
        if !due && !failed {
            return;
        }
        if due && limits(net, netns, range, ktime) {
            (*known).limits_at = ktime;
            (*known).range = range;
        }
    }
    reserved_ports(netns.inode, netns.cookie, identity, ktime);
}

/// The element of a namespace, made now if there is none: a place in the map for new and old ones alike, because the
/// verifier would walk all that follows once for each kind of place. `None` never happens, LRU maps have room.
#[inline(always)]
fn known(key: &NetnsKey) -> Option<*mut KnownNetns> {
    if let Some(known) = NAMESPACES.get_ptr_mut(key) {
        return Some(known);
    }
    let _ = NAMESPACES.insert(key, &KnownNetns { net: 0, limits_at: 0, reserved_at: 0, reserved: 0, range: [0; 2] }, 0);
    NAMESPACES.get_ptr_mut(key)
}

/// Sends the limits; false if the ring is full.
#[inline(always)]
fn limits(net: u64, netns: Netns, range: [u32; 2], ktime: u64) -> bool {
    let (range_lo, range_hi) = port_range(range);
    let unknown = u32::MAX;
    let time_wait = if offset::NET_TW_REFCOUNT.load() == Offsets::MISSING {
        peek_or(net, offset::NET_TW_COUNT.load(), unknown)
    } else {
        peek_or::<u32>(net, offset::NET_TW_REFCOUNT.load(), 0).wrapping_sub(1)
    };
    record::<NetnsRecord>(Counter::FactRingFull, |out| {
        // SAFETY: ring-buffer memory of this size, written whole.
        unsafe {
            *out = NetnsRecord {
                header: header(RecordKind::Netns, 0, netns, ktime),
                net_cookie: peek_or(net, offset::NET_COOKIE.load(), 0),
                jiffies: bpf_jiffies64(),
                netns: netns.inode,
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
    })
}

/// `ip_local_port_range`: two ints before 6.8, one `u32` of high << 16 | low since (the second word is then a lock or
/// padding).
#[inline(always)]
fn port_range([first, second]: [u32; 2]) -> (u16, u16) {
    if first > 0xffff { (first as u16, (first >> 16) as u16) } else { (first as u16, second as u16) }
}

/// Sends the reserved ports of a namespace if they have never been sent or their hash is
/// another now, unless they were looked at a moment ago. Notes nothing if the ring is full. Returns 0.
///
/// A function that the verifier knows as global: it walks the loop once, and not for each way on which a program can get
/// here. Such functions take and return plain numbers only, so the address of the `struct net` comes by way of the map.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn reserved_ports(inode: u32, cookie: u32, identity: u32, ktime: u64) -> u32 {
    let Some(known) = NAMESPACES.get_ptr_mut(&NetnsKey { inode, identity }) else { return 0 };
    // SAFETY: an aligned element of this map; see `introduce_netns`.
    let known = unsafe { &mut *known };
    if known.reserved_at != 0 && ktime.wrapping_sub(known.reserved_at) < RESERVED_EVERY_NS {
        return 0;
    }
    let Some(bitmap) = peek::<u64>(known.net, offset::NET_RESERVED_PORTS.load()) else { return 0 };
    // The record's own memory takes the copy that is hashed: nothing else is large enough.
    record_if::<ReservedPortsRecord>(Counter::FactRingFull, |out| {
        let mut hash: u64 = 0;
        // SAFETY: ring-buffer memory of this size; the helper fills or zeroes the bitmap, which is aligned to words.
        unsafe {
            (*out).header = header(RecordKind::ReservedPorts, 0, Netns { inode, cookie }, ktime);
            (*out).netns = inode;
            (*out).pad = 0;
            let words = (&raw mut (*out).bitmap).cast::<[u64; WORDS_AT_ONCE]>();
            bpf_probe_read_kernel(words.cast(), RESERVED_BITMAP_BYTES as u32, bitmap as *const _);
            for at in 0..RESERVED_BITMAP_BYTES / 8 / WORDS_AT_ONCE {
                for word in words.add(at).read() {
                    hash = (hash ^ word).wrapping_mul(HASH_FACTOR);
                    hash ^= hash >> 32;
                }
            }
        }
        let send = known.reserved_at == 0 || known.reserved != hash;
        known.reserved_at = ktime;
        known.reserved = hash;
        send
    });
    0
}
