//! All unsafe code of `churn`: `fork()` and the submission of an `io_uring` entry, which no crate offers as safe
//! functions.

use std::os::fd::{AsRawFd, BorrowedFd};

use anyhow::{Context, Result};
use io_uring::{IoUring, opcode, squeue, types};
use nix::unistd::ForkResult;
use socket2::SockAddr;

/// `fork()`, from a process that has one thread.
#[expect(unsafe_code, reason = "fork() has no safe wrapper")]
pub fn fork() -> Result<ForkResult> {
    let threads = std::fs::read_dir("/proc/self/task").context("/proc/self/task")?.count();
    anyhow::ensure!(threads == 1, "fork() with {threads} threads");
    // SAFETY: a forked child is restricted to async-signal-safe code only if other threads exist. The check above found
    // none, and only this thread could start one.
    unsafe { nix::unistd::fork() }.context("fork")
}

/// `connect()` through `io_uring`; returns the completion's result, a negative errno on failure.
#[expect(unsafe_code, reason = "the kernel reads through a pointer in the submitted entry")]
pub fn uring_connect(ring: &mut IoUring, socket: BorrowedFd<'_>, to: &SockAddr, in_worker: bool) -> Result<i32> {
    let entry = opcode::Connect::new(types::Fd(socket.as_raw_fd()), to.as_ptr().cast(), to.len()).build();
    let entry = if in_worker { entry.flags(squeue::Flags::ASYNC) } else { entry };
    // SAFETY: `to` and the descriptor are borrowed until this function returns. It returns after the completion of this
    // entry, the only one in the ring, or with an error, after which nothing uses the ring.
    unsafe { ring.submission().push(&entry) }.context("the submission queue")?;
    ring.submit_and_wait(1).context("io_uring_enter")?;
    let completion = ring.completion().next().context("a completion")?;
    Ok(completion.result())
}
