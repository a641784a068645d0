//! Tables that the programs share, and the settings that user space writes into the object before it is loaded.

use aya_ebpf::Global;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{LruHashMap, PerCpuArray, RingBuf};
use tracer_common::COUNTERS as COUNTER_SLOTS;

/// The ring buffer of all records. User space chooses its size at load (`--ring-size`).
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(16 << 20, 0);

/// `tracer_common::Counter`, per CPU, so that two CPUs never write the same slot.
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTER_SLOTS, 0);

/// The transition that the first program of the chain (`probes::state`) handled last on this CPU.
#[map]
pub static LAST: PerCpuArray<LastTransition> = PerCpuArray::with_max_entries(1, 0);

/// The socket that last went CLOSE->SYN_SENT on this CPU, until its SYN has been sent.
#[map]
pub static CONNECTING: PerCpuArray<Connecting> = PerCpuArray::with_max_entries(1, 0);

/// The socket whose accept() the first of the hook's two programs recorded on this CPU, until the second program has
/// run.
#[map]
pub static ACCEPTED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// connect() and bind() calls that have been entered and not left, by thread. A thread inside such a call has one
/// entry. The map is LRU, so that threads killed inside a blocking connect cannot fill it. 16,384 threads block in
/// connect() on no host that was seen; beyond, the return of the call that was entered first is not recorded, and its
/// failure is known by its transitions alone. A call that finds no place is counted (`Counter::CallMapFull`).
#[map]
pub static CALLS: LruHashMap<u32, PendingCall> = LruHashMap::with_max_entries(16_384, 0);

/// Processes that user space has a description of, by thread group. The map is LRU: a process that it drops is
/// described again when it next connects, which costs a record and loses nothing. User space remembers twice as many
/// (`MAX_PROCESSES` of the tracker), so that what is known here is known there.
#[map]
pub static TASKS: LruHashMap<u32, KnownTask> = LruHashMap::with_max_entries(16_384, 0);

/// Namespaces whose limits user space has, with the last that were sent. As many as the tracker keeps. The map is LRU: the
/// limits of a namespace that it drops are sent again, which costs a record and loses nothing.
#[map]
pub static NAMESPACES: LruHashMap<NetnsKey, KnownNetns> = LruHashMap::with_max_entries(4_096, 0);

#[repr(C)]
#[derive(Clone, Copy)]
pub struct LastTransition {
    pub sock: u64,
    pub old: u32,
    pub new: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Connecting {
    pub sock: u64,
    pub since: u64,
    /// The thread inside connect().
    pub tid: u32,
    pub pad: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct PendingCall {
    pub entered: u64,
    /// User-space address of the `sockaddr`.
    pub sockaddr: u64,
    pub fd: u32,
    pub call: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct KnownTask {
    pub start: u64,
    /// `self_exec_id`. exec() raises it, so another number means another program under the same pid. The address of the
    /// `mm_struct` would not do: the kernel soon uses it again.
    pub exec: u64,
}

/// A namespace for good: the kernel uses inode numbers again at once.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NetnsKey {
    pub inode: u32,
    /// Low half of the cookie, on kernels without cookies `net->hash_mix`, which is random.
    pub identity: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct KnownNetns {
    /// Address of its `struct net`.
    pub net: u64,
    /// When the limits were sent last; 0 = never.
    pub limits_at: u64,
    /// When the reserved ports were last looked at; 0 = never.
    pub reserved_at: u64,
    /// Hash of the bitmap of reserved ports that was sent last.
    pub reserved: u64,
    /// `ip_local_ports.range` as the kernel has it.
    pub range: [u32; 2],
}

/// Address of `tw_timer_handler`, which distinguishes a minisocket's timer from all others.
#[unsafe(no_mangle)]
pub static TW_TIMER_HANDLER: Global<u64> = Global::new(0);

/// 1 if `tp_btf` programs may call `bpf_get_socket_cookie` (not on 5.10).
#[unsafe(no_mangle)]
pub static HAVE_COOKIE: Global<u8> = Global::new(0);

/// 1 if `bpf_task_pt_regs` exists (since 5.15).
#[unsafe(no_mangle)]
pub static HAVE_TASK_REGS: Global<u8> = Global::new(0);

/// Byte offset into `css_set.subsys` of the cgroup v1 hierarchy that task records name; `u32::MAX` = none.
#[unsafe(no_mangle)]
pub static CGROUP_V1_SUBSYS: Global<u32> = Global::new(u32::MAX);

macro_rules! offset_globals {
    ($($(#[$meta:meta])* $name:ident = $type_name:literal . $path:literal $(| $alt:literal)*,)+) => {
        /// Kernel struct offsets, one global each.
        pub mod offset {
            use aya_ebpf::Global;
            $($(#[$meta])* #[unsafe(no_mangle)] pub static $name: Global<u32> = Global::new(u32::MAX);)+
        }
    };
}
tracer_common::with_offsets!(offset_globals);
