//! What has no row in the lists of a snapshot, in one sentence each: for the report as text and for the screen.

use crate::layout::human::{number, plural};
use crate::tracker::snapshot::{OtherDestinations, Others};

/// `and 12,345 other destinations in web: 1,200 ports in use, 48,000 connects, 712 failed (12 for lack of a port); most by crawler.service`
pub fn sentences(others: &Others) -> Vec<String> {
    let mut sentences: Vec<String> = others.destinations.iter().map(|rest| of_destinations(others, rest)).collect();
    if others.namespaces.namespaces > 0 {
        let time_wait = plural(others.namespaces.time_wait_ledger, "TIME_WAIT");
        sentences.push(format!("and {} without a row: {time_wait}", plural(others.namespaces.namespaces, "namespace")));
    }
    sentences
}

fn of_destinations(others: &Others, rest: &OtherDestinations) -> String {
    let place = match (&rest.netns_name, rest.netns.inode) {
        (Some(name), _) => format!(" in {name}"),
        (None, 0) => " of several namespaces".into(),
        (None, inode) => format!(" in net:{inode}"),
    };
    let failed = match (rest.failed.total(), rest.failed.without_port()) {
        (0, _) => "none failed".into(),
        (all, 0) => format!("{} failed", number(all)),
        (all, lack) => format!("{} failed ({} for lack of a port)", number(all), number(lack)),
    };
    let most = others
        .attributions
        .iter()
        .filter(|row| row.netns == rest.netns)
        .max_by_key(|row| (row.ports_held, row.connects))
        .map_or_else(String::new, |row| format!("; most by {}", row.workload));
    format!(
        "and {}{place}: {} in use, {}, {failed}{most}",
        plural(rest.destinations, "other destination"),
        plural(rest.in_use, "port"),
        plural(rest.connects, "connect"),
    )
}
