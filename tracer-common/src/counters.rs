//! Indexes into the per-CPU counter map, in which the BPF programs count the records that they could not deliver.

/// One per-CPU counter, by its index in the `COUNTERS` map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// State transitions that found the ring buffer full (newest dropped, oldest kept).
    TransitionRingFull = 0,
    /// `TIME_WAIT` starts and ends that found the ring buffer full.
    TimeWaitRingFull = 1,
    /// Failed calls, binds and accepts that found the ring buffer full.
    CallRingFull = 2,
    /// Process and namespace facts that found the ring buffer full; each is retried at the next connect.
    FactRingFull = 3,
    /// Transitions that a later program of the chain recorded because the kernel's recursion guard had skipped the
    /// first one (repetitions included, see `flags::RESCUED`).
    Rescued = 4,
    /// Syscalls whose arguments could not be remembered because the map of calls in flight was full.
    CallMapFull = 5,
}

/// Number of counters, the size of the map.
pub const COUNTERS: u32 = 6;

const _: () = assert!(Counter::CallMapFull as u32 + 1 == COUNTERS, "COUNTERS lags behind the enum");
