//! Which remedies the kernel of this host has, so that no report advises one that it lacks.

use std::io;
use std::net::TcpListener;

use nix::sys::socket::getsockopt;
use nix::{getsockopt_impl, libc, sockopt_impl};

use crate::probe::Host;
use tracer_core::host::Knobs;

/// include/uapi/linux/in.h.
const IP_LOCAL_PORT_RANGE: libc::c_int = 51;

sockopt_impl!(
    /// The ports that one socket's connect() may choose: the lowest in the low half, the highest in the high half.
    LocalPortRange,
    GetOnly,
    libc::IPPROTO_IP,
    IP_LOCAL_PORT_RANGE,
    u32
);

/// Asks the kernel for each remedy; what it does not tell is taken as missing.
pub fn knobs(host: &Host) -> Knobs {
    let sysctl = |name: &str| std::fs::exists(format!("/proc/sys/net/ipv4/{name}")).unwrap_or(false);
    Knobs {
        tw_reuse_delay: sysctl("tcp_tw_reuse_delay"),
        ip_local_port_range_sockopt: has_local_port_range().unwrap_or(false),
        port_step_width: sysctl("ip_local_port_step_width"),
        kernel: host.kernel.clone(),
    }
}

/// Does this kernel know the socket option? Asked, not guessed by version: the option was backported.
fn has_local_port_range() -> io::Result<bool> {
    let socket = TcpListener::bind(("127.0.0.1", 0))?;
    Ok(getsockopt(&socket, LocalPortRange).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_answers_whether_it_has_the_option() {
        let known = has_local_port_range().expect("a socket");
        // Since Linux 6.3; older kernels of distributions may have it too.
        let release = nix::sys::utsname::uname().expect("a kernel").release().to_string_lossy().into_owned();
        let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
        let version = (numbers.next(), numbers.next());
        assert!(known || version < (Some(6), Some(3)), "{release}");
    }
}
