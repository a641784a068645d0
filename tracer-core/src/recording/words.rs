//! The words that a recording uses in place of numbers: kinds of rows, TCP states, errnos.
//!
//! Kinds and states are dictionaries of the file; a reader goes by the words that the file has, so that a later version may add
//! some. Not for: what the words mean; `FORMAT.md` says that.

use std::borrow::Cow;

use crate::event::TcpState;

/// What a row is. The discriminant is the index into [`Kind::ALL`], which is the file's dictionary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
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

impl Kind {
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

    pub fn word(self) -> &'static str {
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

    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// The state of that word.
pub fn state_of_word(word: &str) -> Option<TcpState> {
    TcpState::ALL.into_iter().find(|state| state.name() == word)
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
pub fn errno_word(errno: u16) -> Cow<'static, str> {
    let named = usize::from(errno).checked_sub(1).and_then(|index| ERRNOS.get(index)).filter(|name| !name.is_empty());
    named.map_or_else(|| format!("E{errno}").into(), |&name| name.into())
}

/// The number of that word.
pub fn errno_of_word(word: &str) -> Option<u16> {
    if let Some(index) = ERRNOS.iter().position(|&name| !name.is_empty() && name == word) {
        return u16::try_from(index + 1).ok();
    }
    word.strip_prefix('E')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lead_back_to_what_they_stand_for() {
        for errno in 0..=u16::MAX {
            assert_eq!(errno_of_word(&errno_word(errno)), Some(errno), "{errno}");
        }
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!((Kind::of_word(kind.word()), kind as usize), (Some(kind), index));
        }
        for state in TcpState::ALL {
            assert_eq!(state_of_word(state.name()), Some(state));
        }
    }

    #[test]
    fn errnos_are_those_of_the_kernel_headers() {
        for (errno, word) in
            [(1, "EPERM"), (32, "EPIPE"), (98, "EADDRINUSE"), (99, "EADDRNOTAVAIL"), (133, "EHWPOISON")]
        {
            assert_eq!(errno_word(errno), word);
        }
        assert_eq!((errno_word(41), errno_word(512)), ("E41".into(), "E512".into()));
    }
}
