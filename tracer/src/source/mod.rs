//! Where live events come from: the kernel of this host, and what user space asks it about sockets and limits.

pub mod baseline;
pub mod orphan_watch;
pub mod port_sysctls;
pub mod ring_reader;
pub mod sock_diag;
pub mod unlisted_sockets;
