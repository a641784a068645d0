//! The names that a recording stores in place of numbers: kinds of rows, TCP states, errnos.
//!
//! Kinds and states are dictionaries of the file. A reader looks up the names that the file's dictionary holds, so that a later
//! version may add some. Not for: what a name means; `FORMAT.md` says that.

use std::borrow::Cow;
use std::str::FromStr;

use thiserror::Error;

use crate::event::TcpState;

/// What a row is. The discriminant is the index into [`RowKind::ALL`], which is the file's dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RowKind {
    Transition,
    TimeWaitStart,
    TimeWaitEnd,
    ConnectFailed,
    BindFailed,
    Accepted,
    Bound,
    Released,
    Process,
    Netns,
    ReservedPorts,
    PortSearch,
    Baseline,
    Socket,
    Loss,
    Tick,
    Skipped,
}

impl RowKind {
    pub const ALL: [Self; 17] = [
        Self::Transition,
        Self::TimeWaitStart,
        Self::TimeWaitEnd,
        Self::ConnectFailed,
        Self::BindFailed,
        Self::Accepted,
        Self::Bound,
        Self::Released,
        Self::Process,
        Self::Netns,
        Self::ReservedPorts,
        Self::PortSearch,
        Self::Baseline,
        Self::Socket,
        Self::Loss,
        Self::Tick,
        Self::Skipped,
    ];

    /// The name in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transition => "transition",
            Self::TimeWaitStart => "time_wait_start",
            Self::TimeWaitEnd => "time_wait_end",
            Self::ConnectFailed => "connect_failed",
            Self::BindFailed => "bind_failed",
            Self::Accepted => "accepted",
            Self::Bound => "bound",
            Self::Released => "released",
            Self::Process => "process",
            Self::Netns => "netns",
            Self::ReservedPorts => "reserved_ports",
            Self::PortSearch => "port_search",
            Self::Baseline => "baseline",
            Self::Socket => "socket",
            Self::Loss => "loss",
            Self::Tick => "tick",
            Self::Skipped => "skipped",
        }
    }
}

/// A name that is no kind of row, or one that only a newer version knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no kind of row has this name")]
pub struct UnknownRowKind;

impl FromStr for RowKind {
    type Err = UnknownRowKind;

    fn from_str(name: &str) -> Result<Self, UnknownRowKind> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name).ok_or(UnknownRowKind)
    }
}

/// The TCP state that the kernel spells `name`, without its `TCP_` prefix; `None` if there is none.
pub fn state_from_name(name: &str) -> Option<TcpState> {
    TcpState::ALL.into_iter().find(|state| state.name() == name)
}

/// Linux errnos by number - 1 (include/uapi/asm-generic/errno-base.h, errno.h); the two that are aliases there have no name here.
const ERRNOS: [&str; 133] = [
    "EPERM",
    "ENOENT",
    "ESRCH",
    "EINTR",
    "EIO",
    "ENXIO",
    "E2BIG",
    "ENOEXEC",
    "EBADF",
    "ECHILD",
    "EAGAIN",
    "ENOMEM",
    "EACCES",
    "EFAULT",
    "ENOTBLK",
    "EBUSY",
    "EEXIST",
    "EXDEV",
    "ENODEV",
    "ENOTDIR",
    "EISDIR",
    "EINVAL",
    "ENFILE",
    "EMFILE",
    "ENOTTY",
    "ETXTBSY",
    "EFBIG",
    "ENOSPC",
    "ESPIPE",
    "EROFS",
    "EMLINK",
    "EPIPE",
    "EDOM",
    "ERANGE",
    "EDEADLK",
    "ENAMETOOLONG",
    "ENOLCK",
    "ENOSYS",
    "ENOTEMPTY",
    "ELOOP",
    "",
    "ENOMSG",
    "EIDRM",
    "ECHRNG",
    "EL2NSYNC",
    "EL3HLT",
    "EL3RST",
    "ELNRNG",
    "EUNATCH",
    "ENOCSI",
    "EL2HLT",
    "EBADE",
    "EBADR",
    "EXFULL",
    "ENOANO",
    "EBADRQC",
    "EBADSLT",
    "",
    "EBFONT",
    "ENOSTR",
    "ENODATA",
    "ETIME",
    "ENOSR",
    "ENONET",
    "ENOPKG",
    "EREMOTE",
    "ENOLINK",
    "EADV",
    "ESRMNT",
    "ECOMM",
    "EPROTO",
    "EMULTIHOP",
    "EDOTDOT",
    "EBADMSG",
    "EOVERFLOW",
    "ENOTUNIQ",
    "EBADFD",
    "EREMCHG",
    "ELIBACC",
    "ELIBBAD",
    "ELIBSCN",
    "ELIBMAX",
    "ELIBEXEC",
    "EILSEQ",
    "ERESTART",
    "ESTRPIPE",
    "EUSERS",
    "ENOTSOCK",
    "EDESTADDRREQ",
    "EMSGSIZE",
    "EPROTOTYPE",
    "ENOPROTOOPT",
    "EPROTONOSUPPORT",
    "ESOCKTNOSUPPORT",
    "EOPNOTSUPP",
    "EPFNOSUPPORT",
    "EAFNOSUPPORT",
    "EADDRINUSE",
    "EADDRNOTAVAIL",
    "ENETDOWN",
    "ENETUNREACH",
    "ENETRESET",
    "ECONNABORTED",
    "ECONNRESET",
    "ENOBUFS",
    "EISCONN",
    "ENOTCONN",
    "ESHUTDOWN",
    "ETOOMANYREFS",
    "ETIMEDOUT",
    "ECONNREFUSED",
    "EHOSTDOWN",
    "EHOSTUNREACH",
    "EALREADY",
    "EINPROGRESS",
    "ESTALE",
    "EUCLEAN",
    "ENOTNAM",
    "ENAVAIL",
    "EISNAM",
    "EREMOTEIO",
    "EDQUOT",
    "ENOMEDIUM",
    "EMEDIUMTYPE",
    "ECANCELED",
    "ENOKEY",
    "EKEYEXPIRED",
    "EKEYREVOKED",
    "EKEYREJECTED",
    "EOWNERDEAD",
    "ENOTRECOVERABLE",
    "ERFKILL",
    "EHWPOISON",
];

/// `EADDRNOTAVAIL` of 99; `E512` of a number that user space should never see.
pub fn errno_name(errno: u16) -> Cow<'static, str> {
    let named = usize::from(errno).checked_sub(1).and_then(|index| ERRNOS.get(index)).filter(|name| !name.is_empty());
    named.map_or_else(|| format!("E{errno}").into(), |&name| name.into())
}

/// The number of the errno that [`errno_name`] calls `name`; `None` if it calls none so.
pub fn errno_from_name(name: &str) -> Option<u16> {
    if let Some(index) = ERRNOS.iter().position(|&known| !known.is_empty() && known == name) {
        return u16::try_from(index + 1).ok();
    }
    name.strip_prefix('E')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_parses_back_to_its_value() {
        for errno in 0..=u16::MAX {
            assert_eq!(errno_from_name(&errno_name(errno)), Some(errno), "{errno}");
        }
        for (index, kind) in RowKind::ALL.into_iter().enumerate() {
            assert_eq!((kind.as_str().parse(), kind as usize), (Ok(kind), index));
        }
        for state in TcpState::ALL {
            assert_eq!(state_from_name(state.name()), Some(state));
        }
    }

    #[test]
    fn errnos_are_those_of_the_kernel_headers() {
        for (errno, name) in
            [(1, "EPERM"), (32, "EPIPE"), (98, "EADDRINUSE"), (99, "EADDRNOTAVAIL"), (133, "EHWPOISON")]
        {
            assert_eq!(errno_name(errno), name);
        }
        assert_eq!((errno_name(41), errno_name(512)), ("E41".into(), "E512".into()));
    }
}
