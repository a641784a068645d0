//! What the BPF programs and user space both compile: record layouts, counter indexes and the settings that user space
//! writes into the BPF object before it is loaded.
//!
//! Why a crate of its own: a layout that exists twice drifts. Here `wire!` defines each record once, derives the
//! decoder from the same field list and asserts at compile time that the struct has no padding. The crate has no
//! `unsafe` and no dependency, so both sides can use it.
//!
//! Not for: anything derived. A record holds what the kernel said; `tracer_core::tracker` draws the conclusions.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod counters;
mod records;
mod settings;
mod wire;

pub use counters::{COUNTERS, Counter};
pub use records::{
    ARGV_BYTES, CGROUP_DEPTH, CGROUP_NAME_BYTES, COMM_BYTES, CallRecord, DecodeError, Header, NetnsRecord,
    PROTOCOL_MPTCP, PROTOCOL_TCP, PortSearchRecord, RESERVED_BITMAP_BYTES, Record, RecordKind, ReservedPortsRecord,
    SocketFactsRecord, SocketRecord, TaskRecord, TimeWaitRecord, TransitionRecord, answer, call, flags, kind_of,
};
pub use settings::Offsets;
