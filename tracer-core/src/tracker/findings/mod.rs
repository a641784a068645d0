//! Conclusions from the numbers of a snapshot, and what would help.
//!
//! [`judge`] is pure: one snapshot and the windows that end there in, findings out, no clock and no memory. [`FindingLog`] joins
//! successive judgements to the life of each finding, [`RecentCounts`] makes the windows. Each finding has a stable id, one sentence with the
//! numbers in it, the facts behind it for machines, and advice that names only settings that this kernel has and that are
//! not set yet. [`FindingId`](super::snapshot::FindingId) lists what can be found.
//!
//! Not for: measuring. Where a [`Snapshot`] lacks a number, the findings that need it are left out.

mod advice;
mod behaviour;
mod cause;
mod exhaustion;
mod failures;
mod limits;
mod log;
mod recent;
mod rule;
#[cfg(test)]
mod tests;
mod thresholds;

use super::snapshot::{Finding, Snapshot};
use crate::host::Knobs;
pub use log::FindingLog;
pub use recent::{Recent, RecentCounts};
use rule::RuleContext;
pub use thresholds::Thresholds;

/// Everything that holds in `snapshot`.
pub fn judge(snapshot: &Snapshot, recent: &Recent, knobs: &Knobs, thresholds: &Thresholds) -> Vec<Finding> {
    let context = RuleContext { snapshot, recent, knobs, thresholds };
    let rules: [fn(RuleContext<'_>) -> Vec<Finding>; 21] = [
        exhaustion::exhausted,
        exhaustion::own_range_exhausted,
        exhaustion::bind_exhausted,
        failures::failing,
        failures::unanswered,
        exhaustion::soon,
        exhaustion::search_slow,
        behaviour::time_wait_churn,
        behaviour::pool_bypass,
        behaviour::proxy_doubles,
        behaviour::close_wait_leak,
        behaviour::fin_wait2_orphans,
        behaviour::half_closed,
        limits::bind_before_connect,
        limits::syn_recv_pile_up,
        limits::accept_queue_full,
        limits::accept_queue_overflows,
        limits::time_wait_overflow,
        limits::conntrack_pressure,
        limits::port_taken,
        limits::listener_in_ephemeral_range,
    ];
    rules.into_iter().flat_map(|rule| rule(context)).collect()
}
