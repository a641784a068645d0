//! The unsafe corner of user space: questions to the kernel for which no safe wrapper exists. Each block states its conditions.
#![expect(unsafe_code, reason = "the one place in this crate; see the module's documentation")]

use std::io;
use std::os::fd::AsRawFd as _;

use nix::libc;

/// `IP_LOCAL_PORT_RANGE`, include/uapi/linux/in.h.
const IP_LOCAL_PORT_RANGE: libc::c_int = 51;

/// Does this kernel know the socket option `IP_LOCAL_PORT_RANGE`? Asked, not guessed: it was backported.
///
/// # Errors
/// The socket could not be made.
pub fn has_local_port_range() -> io::Result<bool> {
    let socket = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let mut value: u32 = 0;
    let mut length: libc::socklen_t = 4;
    // SAFETY: the descriptor is open for the length of the call, `value` is 4 writable bytes and `length` says so; the kernel
    // writes no more than `length` bytes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            IP_LOCAL_PORT_RANGE,
            (&raw mut value).cast::<libc::c_void>(),
            &raw mut length,
        )
    };
    Ok(result == 0)
}

/// Columns of the terminal that stdout is; `None` if it is none or does not tell.
pub fn terminal_columns() -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one `struct winsize` to the pointer, which is valid and exclusive for the call.
    let result = unsafe { libc::ioctl(io::stdout().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && size.ws_col > 0).then(|| usize::from(size.ws_col))
}
