//! Offsets of kernel struct members, which user space writes into the BPF object's read-only data before load.

/// Calls `$callback!` with the list of kernel struct members that the programs read. Each entry has the field of
/// [`Offsets`], which is also the name of the BPF global, then struct and path in the kernel's BTF, newest spelling
/// first. Both sides expand the same list, so no offset exists on one side only.
#[macro_export]
macro_rules! with_offsets {
    ($callback:ident) => {
        $callback! {
            /// Remote IPv4 address.
            SKC_DADDR = "sock"."__sk_common.skc_daddr",
            /// Local IPv4 address.
            SKC_RCV_SADDR = "sock"."__sk_common.skc_rcv_saddr",
            /// Remote port, big-endian.
            SKC_DPORT = "sock"."__sk_common.skc_dport",
            /// Local port, host order; 0 when the socket holds none.
            SKC_NUM = "sock"."__sk_common.skc_num",
            SKC_FAMILY = "sock"."__sk_common.skc_family",
            SKC_STATE = "sock"."__sk_common.skc_state",
            /// Index of the interface that the socket is bound to.
            SKC_BOUND_DEV_IF = "sock"."__sk_common.skc_bound_dev_if",
            SKC_V6_DADDR = "sock"."__sk_common.skc_v6_daddr",
            SKC_V6_RCV_SADDR = "sock"."__sk_common.skc_v6_rcv_saddr",
            SKC_NET = "sock"."__sk_common.skc_net.net",
            SKC_COOKIE = "sock"."__sk_common.skc_cookie",
            SK_PROTOCOL = "sock"."sk_protocol",
            SK_ERR = "sock"."sk_err",
            SK_SHUTDOWN = "sock"."sk_shutdown",
            /// `SOCK_BINDPORT_LOCK` and others; a bit field before 6.12.
            SK_USERLOCKS = "sock"."sk_userlocks",
            /// Local port, big-endian; survives the release of the port and is stale on a re-used socket.
            INET_SPORT = "inet_sock"."inet_sport",
            /// The socket's own port range: two 16-bit ends, the low one first in memory. Since 6.3, backported to some before.
            INET_PORT_RANGE = "inet_sock"."local_port_range",
            /// When the peer's last TCP timestamp came, in seconds; 0 = it sends none.
            TCP_TS_RECENT_STAMP = "tcp_sock"."rx_opt.ts_recent_stamp",
            NS_INUM = "net"."ns.inum",
            NET_COOKIE = "net"."net_cookie",
            /// Random, one for each namespace.
            NET_HASH_MIX = "net"."hash_mix",
            NET_PORT_RANGE = "net"."ipv4.ip_local_ports.range",
            NET_RESERVED_PORTS = "net"."ipv4.sysctl_local_reserved_ports",
            NET_TW_REUSE = "net"."ipv4.sysctl_tcp_tw_reuse",
            NET_TW_REUSE_DELAY = "net"."ipv4.sysctl_tcp_tw_reuse_delay",
            NET_FIN_TIMEOUT = "net"."ipv4.sysctl_tcp_fin_timeout",
            NET_MAX_TW = "net"."ipv4.tcp_death_row.sysctl_max_tw_buckets",
            NET_TW_REFCOUNT = "net"."ipv4.tcp_death_row.tw_refcount",
            /// 5.10 only: a plain count, where later kernels keep a reference count that starts at one.
            NET_TW_COUNT = "net"."ipv4.tcp_death_row.tw_count",
            NET_TIMESTAMPS = "net"."ipv4.sysctl_tcp_timestamps",
            TW_TIMER = "inet_timewait_sock"."tw_timer",
            TW_SUBSTATE = "inet_timewait_sock"."tw_substate",
            /// The `struct inet_bind_bucket` that holds the local port.
            TW_BUCKET = "inet_timewait_sock"."tw_tb",
            ICSK_BUCKET = "inet_connection_sock"."icsk_bind_hash",
            BUCKET_REUSE = "inet_bind_bucket"."fastreuse",
            BUCKET_REUSE_PORT = "inet_bind_bucket"."fastreuseport",
            TW_TS_RECENT_STAMP = "tcp_timewait_sock"."tw_ts_recent_stamp",
            /// The timer that tcp_connect() arms after the SYN; in `struct sock` since 6.19.
            ICSK_RETRANSMIT = "inet_connection_sock"."icsk_retransmit_timer",
            SK_RETRANSMIT = "sock"."tcp_retransmit_timer",
            TIMER_EXPIRES = "timer_list"."expires",
            TIMER_FUNCTION = "timer_list"."function",
            TASK_TGID = "task_struct"."tgid",
            TASK_LEADER = "task_struct"."group_leader",
            TASK_PARENT = "task_struct"."real_parent",
            TASK_COMM = "task_struct"."comm",
            TASK_MM = "task_struct"."mm",
            TASK_EXEC_ID = "task_struct"."self_exec_id",
            TASK_START = "task_struct"."start_boottime",
            TASK_FILES = "task_struct"."files",
            TASK_CGROUPS = "task_struct"."cgroups",
            TASK_NSPROXY = "task_struct"."nsproxy",
            NSPROXY_NET = "nsproxy"."net_ns",
            MM_ARG_START = "mm_struct"."arg_start",
            MM_ARG_END = "mm_struct"."arg_end",
            FILES_FDT = "files_struct"."fdt",
            FDT_FD = "fdtable"."fd",
            FDT_MAX_FDS = "fdtable"."max_fds",
            FILE_PRIVATE = "file"."private_data",
            FILE_INODE = "file"."f_inode",
            INODE_MODE = "inode"."i_mode",
            SOCKET_SK = "socket"."sk",
            /// The first argument of a system call: x86_64, arm64.
            REGS_FIRST_ARG = "pt_regs"."di" | "orig_x0",
            /// The TCP socket that an MPTCP socket binds, listens and connects with.
            MPTCP_FIRST = "mptcp_sock"."first",
            CSS_SET_DFL = "css_set"."dfl_cgrp",
            CSS_SET_SUBSYS = "css_set"."subsys",
            CSS_CGROUP = "cgroup_subsys_state"."cgroup",
            CGROUP_KN = "cgroup"."kn",
            KN_PARENT = "kernfs_node"."__parent" | "parent",
            KN_NAME = "kernfs_node"."name",
            KN_ID = "kernfs_node"."id",
        }
    };
}

macro_rules! define {
    ($($(#[$meta:meta])* $name:ident = $type_name:literal . $path:literal $(| $alt:literal)*,)+) => {
        /// Byte offsets of kernel struct members, from the running kernel's BTF. [`Offsets::MISSING`] marks a
        /// member that this kernel does not have.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(non_snake_case, reason = "named as the BPF globals that carry them")]
        pub struct Offsets { $($(#[$meta])* #[doc = concat!("`", $type_name, ".", $path, "`")] pub $name: u32,)+ }

        impl Offsets {
            /// No such member in this kernel.
            pub const MISSING: u32 = u32::MAX;
            /// A bit field's offset has the first bit within its byte here, above the byte's offset in the struct.
            pub const BIT_SHIFT: u32 = 24;
            /// Number of members.
            pub const COUNT: usize = [$(stringify!($name)),+].len();

            /// Builds the table: `lookup` takes a struct and a member path and returns the member's offset in bytes.
            pub fn from_lookup(mut lookup: impl FnMut(&str, &str) -> Option<u32>) -> Self {
                Self { $($name: lookup($type_name, $path)$(.or_else(|| lookup($type_name, $alt)))*.unwrap_or(Self::MISSING),)+ }
            }

            /// Each member: the name of the BPF global that holds its offset, its name in the kernel, its offset.
            pub fn entries(&self) -> [(&'static str, &'static str, u32); Self::COUNT] {
                [$((stringify!($name), concat!($type_name, ".", $path), self.$name),)+]
            }
        }
    };
}
with_offsets!(define);
