//! The list of TCP sockets, with what `sock_diag` does not tell of them.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_seq_write;
use tracer_common::{Offsets, SocketFactsRecord, answer};

use crate::maps::offset;
use crate::probes::time_wait::timestamps;
use crate::sock::{Copied, Untrusted, peek_or};

const TIME_WAIT: u8 = 6;
const NEW_SYN_RECV: u8 = 12;

/// `struct bpf_iter__tcp` (net/ipv4/tcp_ipv4.c).
#[repr(C)]
pub struct Context {
    meta: *const Meta,
    /// A full socket, a minisocket or a request; null at the end of the list.
    sk_common: *const c_void,
    uid: u32,
}

/// `struct bpf_iter_meta` (include/linux/bpf.h), as far as it is used.
#[repr(C)]
struct Meta {
    seq: *mut c_void,
}

/// Writes one [`SocketFactsRecord`] for every socket and minisocket of the namespace in which the list was opened.
// int bpf_iter_tcp(struct bpf_iter_meta *meta, struct sock_common *sk_common, uid_t uid)
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
pub extern "C" fn list_sockets(ctx: *const Context) -> i32 {
    // SAFETY: the context of this kind of program, whose members the verifier knows by type.
    let (seq, sk) = unsafe { ((*(*ctx).meta).seq, (*ctx).sk_common) };
    if sk.is_null() {
        return 0;
    }
    let sk = Copied::new(sk as u64);
    let state = sk.state();
    if state == NEW_SYN_RECV {
        return 0;
    }
    let minisocket = state == TIME_WAIT;
    let bucket_at = if minisocket { offset::TW_BUCKET.load() } else { offset::ICSK_BUCKET.load() };
    let record = SocketFactsRecord {
        cookie: sk.cookie().0,
        sock: sk.address(),
        named: if minisocket { answer::UNKNOWN } else { sk.named() },
        closed: closed(peek_or(sk.address(), bucket_at, 0)),
        timestamps: if minisocket {
            timestamps(sk.address(), offset::TW_TS_RECENT_STAMP.load())
        } else {
            answer::UNKNOWN
        },
        pad: [0; 5],
    };
    // SAFETY: the helper copies the record. A full buffer is no error: the kernel then calls again for this socket.
    unsafe { bpf_seq_write(seq.cast(), (&raw const record).cast_mut().cast(), SocketFactsRecord::SIZE as u32) };
    0
}

/// [`answer`]: no connect() of another socket chooses the port of this `struct inet_bind_bucket`. Both members are -1 while
/// only connect() has used it (net/ipv4/inet_hashtables.c `__inet_hash_connect`).
#[inline(always)]
fn closed(bucket: u64) -> u8 {
    let (reuse, reuse_port) = (offset::BUCKET_REUSE.load(), offset::BUCKET_REUSE_PORT.load());
    if bucket == 0 || reuse == Offsets::MISSING || reuse_port == Offsets::MISSING {
        return answer::UNKNOWN;
    }
    if peek_or::<i8>(bucket, reuse, -1) >= 0 || peek_or::<i8>(bucket, reuse_port, -1) >= 0 {
        answer::YES
    } else {
        answer::NO
    }
}
