//! Linux errnos: their numbers and their names. The numbers are the same on every architecture that this project runs on.

use std::borrow::Cow;

/// The connection was aborted by software.
pub const ECONNABORTED: u16 = 103;
/// No route leads there.
pub const ENETUNREACH: u16 = 101;
/// The peer sent RST.
pub const ECONNRESET: u16 = 104;
/// Nobody on the way or at the peer's link knows the host.
pub const EHOSTUNREACH: u16 = 113;
/// The peer did not answer.
pub const ETIMEDOUT: u16 = 110;
/// Nobody listens there.
pub const ECONNREFUSED: u16 = 111;
/// The address and port are taken.
pub const EADDRINUSE: u16 = 98;
/// No local port is free, or the address is none of this host's.
pub const EADDRNOTAVAIL: u16 = 99;
/// The largest errno of Linux (`EHWPOISON`).
pub const MAX: u16 = 133;

/// Names by number - 1 (include/uapi/asm-generic/errno-base.h, errno.h); the two that are aliases there have no name here.
const NAMES: [&str; MAX as usize] = [
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

/// `EADDRNOTAVAIL` of 99; `E512` of a number without a name.
pub fn name(errno: u16) -> Cow<'static, str> {
    let named = usize::from(errno).checked_sub(1).and_then(|index| NAMES.get(index)).filter(|name| !name.is_empty());
    named.map_or_else(|| format!("E{errno}").into(), |&name| name.into())
}

/// The number of the errno that [`name`] calls `name`; `None` if there is none.
pub fn from_name(name: &str) -> Option<u16> {
    if let Some(index) = NAMES.iter().position(|&known| !known.is_empty() && known == name) {
        return u16::try_from(index + 1).ok();
    }
    name.strip_prefix('E')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_numbers() {
        for errno in 0..=u16::MAX {
            assert_eq!(from_name(&name(errno)), Some(errno), "{errno}");
        }
    }

    #[test]
    fn names_are_those_of_the_kernel_headers() {
        for (errno, known) in [
            (1, "EPERM"),
            (32, "EPIPE"),
            (EADDRINUSE, "EADDRINUSE"),
            (EADDRNOTAVAIL, "EADDRNOTAVAIL"),
            (ECONNABORTED, "ECONNABORTED"),
            (ECONNRESET, "ECONNRESET"),
            (ETIMEDOUT, "ETIMEDOUT"),
            (ECONNREFUSED, "ECONNREFUSED"),
            (MAX, "EHWPOISON"),
        ] {
            assert_eq!(name(errno), known);
        }
        assert_eq!((name(0), name(41), name(512)), ("E0".into(), "E41".into(), "E512".into()));
    }
}
