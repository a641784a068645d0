//! What speaks against comparing two traces.

use std::collections::BTreeSet;

use super::side::Side;
use crate::layout::human;

/// The longer window may have this many times the length of the shorter one; beyond that, start-up and shutdown distort the rates.
const LENGTHS: f64 = 1.5;
/// `TIME_WAIT` lasts so long: what was closed before the change still holds its port after it.
const LEFT_OVER_SECONDS: f64 = 60.0;

/// Reasons not to compare the two, the weightiest first.
pub(super) fn objections(before: &Side<'_>, after: &Side<'_>) -> Vec<String> {
    let sides = [("BEFORE", before), ("AFTER", after)];
    let mut objections = Vec::new();
    let unknown = || "unknown".to_owned();
    let host = |side: &Side<'_>| side.host.hostname.clone().unwrap_or_else(unknown);
    let redacted = sides.map(|(_, side)| is_redacted(side));
    let unpaired = pairs_nothing(before, after);
    if redacted.contains(&true) {
        let which = match redacted {
            // Under one key the same things have the same names.
            [true, true] if !unpaired => None,
            [true, true] => Some("the two are redacted under different keys"),
            [true, false] => Some("BEFORE is redacted and AFTER is not"),
            _ => Some("AFTER is redacted and BEFORE is not"),
        };
        objections.extend(which.map(|which| format!("{which}: rows cannot pair, only the sums compare")));
    } else if host(before) != host(after) {
        objections.push(format!("the hosts differ: {} and {}", host(before), host(after)));
    }
    let wall = |side: &Side<'_>, ktime| side.clock.to_timestamp(ktime);
    let (begin, end) = (wall(after, after.snapshot.start), wall(before, before.snapshot.now));
    if begin < wall(before, before.snapshot.start) {
        objections.push("AFTER begins earlier than BEFORE: are the two swapped?".into());
    } else {
        let pause = begin.duration_since(end).as_secs_f64();
        let same = before.host.boot_id.is_some() && before.host.boot_id == after.host.boot_id;
        let held = before.snapshot.time_wait;
        if same && pause < 0.0 {
            objections.push("the two overlap in time".into());
        } else if same && pause < LEFT_OVER_SECONDS && held > 0 {
            objections.push(format!(
                "AFTER begins {} after BEFORE ends: up to {} of before hold their ports for the rest of a minute",
                human::seconds(pause),
                human::plural(held, "TIME_WAIT entry").replace("entrys", "entries")
            ));
        }
    }
    let (a, b) = (before.seconds(), after.seconds());
    if a.max(b) > a.min(b) * LENGTHS {
        objections.push(format!(
            "the lengths differ ({} and {}): peaks and percentiles of the longer one had more time",
            human::seconds(a),
            human::seconds(b)
        ));
    }
    for (which, side) in sides {
        let lost = side.snapshot.events.lost;
        if lost.upper_bound() > 0 {
            let were = if lost.certain() > 0 { "were" } else { "may have been" };
            objections.push(format!("events {were} lost in {which}: its numbers are lower bounds"));
        }
        if let Some(damage) = side.snapshot.damage.as_ref().filter(|damage| damage.loses_events()) {
            objections.push(format!("{which} is damaged: {damage}"));
        }
    }
    if before.host.tier != after.host.tier {
        let tier = |side: &Side<'_>| side.host.tier.clone().unwrap_or_else(unknown);
        objections.push(format!("the tiers differ: {} and {}", tier(before), tier(after)));
    }
    for [(_, side), (which, other)] in [[sides[0], sides[1]], [sides[1], sides[0]]] {
        for missing in &side.host.degraded {
            if !other.host.degraded.iter().any(|one| one.what == missing.what) {
                objections.push(format!(
                    "{} could be watched in {which} alone: {} is unknown in the other",
                    missing.what, missing.lost
                ));
            }
        }
    }
    if before.by != after.by {
        objections.push(format!("processes were grouped by {} and by {}: --by makes them alike", before.by, after.by));
    }
    if !redacted.contains(&true) && unpaired {
        objections.push("no workload and no destination is on both sides".into());
    }
    objections
}

/// Names of redacted workloads are an x and twelve hexadecimal digits.
fn is_redacted(side: &Side<'_>) -> bool {
    let hashed = |name: &str| {
        name.strip_prefix('x').is_some_and(|digits| digits.len() == 12 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    let mut names =
        side.snapshot.workloads.iter().map(|workload| &*workload.name).filter(|name| *name != "unknown").peekable();
    names.peek().is_some() && names.all(hashed)
}

fn pairs_nothing(before: &Side<'_>, after: &Side<'_>) -> bool {
    let names = |side: &Side<'_>| -> BTreeSet<String> {
        let workloads = side.workloads().into_iter().map(|(name, _)| name).filter(|name| name != "unknown");
        workloads.chain(side.destinations().into_iter().map(|(name, _)| name)).collect()
    };
    let (a, b) = (names(before), names(after));
    !a.is_empty() && !b.is_empty() && a.is_disjoint(&b)
}
