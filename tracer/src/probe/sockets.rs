//! The kernel's own list of TCP sockets, by a BPF iterator: what `sock_diag` does not say of them.

use std::fs::File;
use std::io::{self, Read as _};
use std::sync::{Arc, Mutex, PoisonError};

use aya::programs::{Iter, ProgramError};
use aya::{Btf, Ebpf};
use rustc_hash::FxHashMap;
use tracer_common::{SocketFactsRecord, answer};
use tracer_core::event::SocketCookie;

/// The program of the list.
const PROGRAM: &str = "list_sockets";

/// Facts about a socket or minisocket; `None` = the kernel does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketFacts {
    /// Address of the socket, by which records name it where they have no cookie; 0 where they have one.
    pub sock: u64,
    /// bind() named the port.
    pub named: Option<bool>,
    /// No connect() of another socket chooses the port.
    pub closed: Option<bool>,
    /// Of a minisocket: the peer had sent TCP timestamps.
    pub timestamps: Option<bool>,
}

/// Lists the sockets of a network namespace.
#[derive(Clone)]
pub struct SocketIterator {
    ebpf: Arc<Mutex<Ebpf>>,
    addresses: bool,
}

impl SocketIterator {
    /// Has the kernel verify the program of `ebpf`.
    pub(super) fn load(ebpf: &mut Ebpf, btf: &Btf) -> Result<(), ProgramError> {
        program(ebpf)?.load("tcp", btf)
    }

    /// `ebpf` with the program loaded. `addresses`: records may name sockets by their addresses alone.
    pub(super) fn new(ebpf: Arc<Mutex<Ebpf>>, addresses: bool) -> Self {
        Self { ebpf, addresses }
    }

    /// Only this list tells which socket of a list a record without cookie speaks of.
    pub fn has_addresses(&self) -> bool {
        self.addresses
    }

    /// The sockets of the namespace that the calling thread is in, by cookie. Sockets without one are left out: a list by
    /// `sock_diag` gives one to each.
    ///
    /// # Errors
    /// The kernel refused to make or to read the list.
    pub fn list(&self) -> io::Result<FxHashMap<SocketCookie, SocketFacts>> {
        let mut bytes = Vec::new();
        self.open()?.read_to_end(&mut bytes)?;
        let facts = SocketFactsRecord::all(&bytes).filter_map(|record| {
            let facts = SocketFacts {
                sock: if self.addresses { record.sock } else { 0 },
                named: yes_or_no(record.named),
                closed: yes_or_no(record.closed),
                timestamps: yes_or_no(record.timestamps),
            };
            Some((SocketCookie::new(record.cookie)?, facts))
        });
        Ok(facts.collect())
    }

    /// The list belongs to the namespace in which it is opened.
    fn open(&self) -> io::Result<File> {
        // A panic elsewhere leaves the program as usable as it was.
        let mut ebpf = self.ebpf.lock().unwrap_or_else(PoisonError::into_inner);
        let program = program(&mut ebpf).map_err(io::Error::other)?;
        let link = program.attach().and_then(|link| program.take_link(link)).map_err(io::Error::other)?;
        link.into_file().map_err(io::Error::other)
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut Iter, ProgramError> {
    ebpf.program_mut(PROGRAM).ok_or(ProgramError::UnexpectedProgramType)?.try_into()
}

fn yes_or_no(raw: u8) -> Option<bool> {
    match raw {
        answer::NO => Some(false),
        answer::YES => Some(true),
        _ => None,
    }
}
