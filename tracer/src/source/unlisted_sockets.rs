//! TCP sockets of namespaces that no list covers: a namespace may live by its sockets alone, without a process, a mount or a name.
//!
//! Such a namespace could be entered by way of the ioctl SIOCGSKNS only, for which there is no safe function. That it is there can be
//! known: a duplicate of the descriptor tells the cookie of the socket's namespace (SO_NETNS_COOKIE).

use std::collections::BTreeSet;

use procfs::process::{FDTarget, all_processes};
use rustc_hash::FxHashSet;
use rustix::net::{AddressFamily, ipproto, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use crate::probe::host::netns_cookie_of;
use tracer_core::host::Degradation;

/// Descriptors duplicated in one search, some 3 us each: bounds the search to 0.2 s. Most of them are UNIX sockets.
const MAX_DUPLICATES: usize = 65_536;

/// TCP sockets that are in no list.
#[derive(Debug, Default)]
pub struct UnlistedSockets {
    /// Cookies of their namespaces.
    namespaces: BTreeSet<u64>,
    sockets: FxHashSet<u64>,
    /// A process that has one of them open.
    example: Option<(i32, String)>,
}

impl UnlistedSockets {
    /// Looks at the descriptors of all processes. `listed`: inode numbers of sockets that need no look. `namespaces`: cookies of the
    /// namespaces that have been listed.
    pub fn search(listed: &FxHashSet<u64>, namespaces: &BTreeSet<u64>) -> Self {
        let mut found = Self::default();
        let mut left = MAX_DUPLICATES;
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        for process in all_processes().into_iter().flatten().flatten().filter(|process| process.pid != own) {
            let Ok(descriptors) = process.fd() else { continue };
            let sockets = descriptors.flatten().filter_map(|descriptor| match descriptor.target {
                FDTarget::Socket(inode) if !listed.contains(&inode) => Some((descriptor.fd, inode)),
                _ => None,
            });
            let mut pidfd = None;
            for (fd, inode) in sockets {
                if left == 0 {
                    return found;
                }
                left -= 1;
                let open = || pidfd_open(Pid::from_raw(process.pid)?, PidfdFlags::empty()).ok();
                let Some(process_fd) = pidfd.get_or_insert_with(open) else { break };
                let Ok(socket) = pidfd_getfd(process_fd, fd, PidfdGetfdFlags::empty()) else { continue };
                let is_tcp = matches!(sockopt::socket_domain(&socket), Ok(AddressFamily::INET | AddressFamily::INET6))
                    && sockopt::socket_protocol(&socket) == Ok(Some(ipproto::TCP));
                let Ok(cookie) = netns_cookie_of(&socket) else { continue };
                if is_tcp && !namespaces.contains(&cookie) {
                    found.namespaces.insert(cookie);
                    found.sockets.insert(inode);
                    let comm = || process.stat().map_or_else(|_| String::new(), |stat| stat.comm);
                    found.example.get_or_insert_with(|| (process.pid, comm()));
                }
            }
        }
        found
    }

    /// What is lost because of these namespaces; `None` if there are none.
    pub fn degradation(&self) -> Option<Degradation> {
        let (pid, comm) = self.example.as_ref()?;
        Some(Degradation::new(
            format!("sockets of {} network namespace(s) that no process lives in", self.namespaces.len()),
            format!(
                "{} TCP socket(s) there, open in {comm}[{pid}] for one, keep the namespace alive",
                self.sockets.len()
            ),
            "their connections from before the start, the port limits of these namespaces, and repairs after lost events",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_statement_says_how_many_and_who() {
        let found = UnlistedSockets {
            namespaces: BTreeSet::from([4_711]),
            sockets: FxHashSet::from_iter([1, 2]),
            example: Some((77, "proxy".into())),
        };
        let degradation = found.degradation().expect("two sockets");
        assert_eq!(&*degradation.what, "sockets of 1 network namespace(s) that no process lives in");
        assert!(degradation.why.contains("2 TCP socket(s)") && degradation.why.contains("proxy[77]"));
        assert!(UnlistedSockets::default().degradation().is_none());
    }
}
