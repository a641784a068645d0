//! What the kernel side and the user side both compile: record layouts, counter indexes and the settings
//! that user space writes into the BPF object before it is loaded.
//!
//! Why a crate of its own: a layout that exists twice drifts. Here each record is defined once by `wire!`,
//! which also derives the decoder from the same field list and asserts at compile time that the
//! struct has no padding. There is no `unsafe` and no dependency, so both sides can hold it.
//!
//! Not for: anything derived. A record says what the kernel said; conclusions belong to `tracer::tracker`.
#![no_std]
#![forbid(unsafe_code)]

mod counters;
mod records;
mod settings;
mod wire;

pub use counters::{COUNTERS, Counter};
pub use records::{
    ARGV_BYTES, CGROUP_DEPTH, CGROUP_NAME_BYTES, COMM_BYTES, CallRecord, DecodeError, Header, NetnsRecord,
    PROTOCOL_TCP, PortSearchRecord, RESERVED_BITMAP_BYTES, Record, RecordKind, ReservedPortsRecord, SocketRecord,
    TaskRecord, TimeWaitRecord, TransitionRecord, call, flags, kind_of,
};
pub use settings::Offsets;
