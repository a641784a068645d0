//! Conclusions from the numbers of a snapshot, and what would help.
//!
//! Pure: one snapshot in, findings out, no clock and no memory. Each finding has a stable id, one sentence with the
//! numbers in it, the facts behind it for machines, and advice that names only settings that this kernel has and that are
//! not set yet. [`FindingId`](super::snapshot::FindingId) lists what can be found.
//!
//! Not for: measuring. Where a [`Snapshot`] lacks a number, the findings that need it are left out.

mod advice;
mod behaviour;
mod exhaustion;
mod limits;
mod rule;
#[cfg(test)]
mod tests;
mod thresholds;

use super::snapshot::{Finding, Snapshot};
use crate::host::Knobs;
use rule::RuleContext;
pub use thresholds::Thresholds;

/// Findings of one id in one snapshot. A host that fails towards a thousand destinations has one problem, not a thousand: the
/// worst are listed, and the last of them says how many more there are.
const MAX_PER_ID: usize = 5;

/// All findings in `snapshot`, most severe first.
pub fn findings(snapshot: &Snapshot, knobs: &Knobs, thresholds: &Thresholds) -> Vec<Finding> {
    let context = RuleContext { snapshot, knobs, thresholds };
    let rules: [fn(RuleContext<'_>) -> Vec<Finding>; 13] = [
        exhaustion::exhausted,
        exhaustion::own_range_exhausted,
        exhaustion::bind_exhausted,
        exhaustion::soon,
        exhaustion::search_slow,
        behaviour::time_wait_churn,
        behaviour::pool_bypass,
        behaviour::close_wait_leak,
        behaviour::fin_wait2_orphans,
        limits::bind_before_connect,
        limits::syn_recv_pile_up,
        limits::conntrack_pressure,
        limits::listener_in_ephemeral_range,
    ];
    let mut all: Vec<Finding> = rules.into_iter().flat_map(|rule| bounded(rule(context))).collect();
    // Stable: findings of one severity keep the order of the rules.
    all.sort_by_key(|finding| finding.severity);
    all
}

fn bounded(mut found: Vec<Finding>) -> Vec<Finding> {
    let others = found.len().saturating_sub(MAX_PER_ID);
    if others > 0 {
        found.sort_by_key(|finding| finding.severity);
        found.truncate(MAX_PER_ID);
        if let Some(last) = found.last_mut() {
            last.summary = format!("{} {others} more like this.", last.summary);
            last.evidence.insert("others", others.into());
        }
    }
    found
}
