//! The hooks and degradations that each stock kernel must show.
//!
//! The comparison works both ways. A hook that should attach and does not is a failure. So is a hook that attaches
//! although the table excludes it: then the table is wrong, or portchurn has attached to the wrong function. The same
//! holds for degradations.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::kernels::Series;

/// The part of `portchurn doctor --json` that the table covers.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct DoctorReport {
    pub kernel: String,
    pub tier: Option<String>,
    pub hooks: Vec<String>,
    pub degraded: Vec<DoctorDegradation>,
    pub error: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct DoctorDegradation {
    pub what: String,
    pub lost: String,
}

/// Kernels on which portchurn attaches by fentry and fexit, and not by the tracepoints that replace them elsewhere.
const EXACT: &[Series] = &Series::ALL;
const EVERYWHERE: &[Series] = &Series::ALL;
const NOWHERE: &[Series] = &[];

/// Every hook, and the kernels on which it must attach.
const HOOKS: [(&str, &[Series]); 20] = [
    ("inet_sock_set_state", EVERYWHERE),
    ("tcp_destroy_sock", EVERYWHERE),
    ("inet_twsk_alloc", EXACT),
    ("inet_twsk_kill", EXACT),
    ("timer_start", NOWHERE),
    ("timer_cancel", NOWHERE),
    ("tcp_v4_connect", EXACT),
    ("tcp_v6_connect", EXACT),
    ("sys_enter_connect", NOWHERE),
    ("sys_exit_connect", NOWHERE),
    ("inet_bind", EXACT),
    ("inet6_bind", EXACT),
    ("sys_enter_bind", NOWHERE),
    ("sys_exit_bind", NOWHERE),
    ("inet_csk_listen_start", EXACT),
    ("sys_enter_listen", NOWHERE),
    ("sys_exit_listen", NOWHERE),
    ("inet_csk_accept", EXACT),
    ("sys_exit_accept", NOWHERE),
    ("sys_exit_accept4", NOWHERE),
];

/// Every known degradation, and the kernels on which doctor must report it. On other kernels it must not.
const DEGRADATIONS: [(&str, &[Series]); 1] = [
    // The helper came to tracing programs with 5.12.
    ("bpf_get_socket_cookie in tracing programs", &[Series::V5_10]),
];

fn tier(series: Series) -> &'static str {
    if EXACT.contains(&series) { "exact" } else { "tracepoint" }
}

/// The differences between a kernel and the table, one sentence each.
pub fn differences(series: Series, found: &DoctorReport) -> Vec<String> {
    let expected = |table: &[(&'static str, &[Series])]| -> BTreeSet<&'static str> {
        table.iter().filter(|(_, on)| on.contains(&series)).map(|(name, _)| *name).collect()
    };
    let mut differences = Vec::new();
    if let Some(error) = &found.error {
        differences.push(format!("doctor: {error}"));
    }
    if found.tier.as_deref() != Some(tier(series)) {
        differences.push(format!("the tier should be {} and is {:?}", tier(series), found.tier));
    }
    let hooks: BTreeSet<&str> = found.hooks.iter().map(String::as_str).collect();
    let must = expected(&HOOKS);
    differences.extend(must.difference(&hooks).map(|hook| format!("{hook} should attach here and does not")));
    differences.extend(hooks.difference(&must).map(|hook| format!("{hook} attaches here and the table says no")));
    let losses: BTreeSet<&str> = found.degraded.iter().map(|loss| loss.what.as_str()).collect();
    let must = expected(&DEGRADATIONS);
    differences.extend(must.difference(&losses).map(|loss| format!("doctor should say that it lacks {loss}")));
    differences.extend(losses.difference(&must).map(|loss| format!("doctor says that it lacks {loss}, unexpectedly")));
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected_report(series: Series) -> DoctorReport {
        let losses = DEGRADATIONS.iter().filter(|(_, on)| on.contains(&series));
        DoctorReport {
            tier: Some(tier(series).to_owned()),
            hooks: HOOKS.iter().filter(|(_, on)| on.contains(&series)).map(|(hook, _)| (*hook).to_owned()).collect(),
            degraded: losses
                .map(|(what, _)| DoctorDegradation { what: (*what).to_owned(), lost: String::new() })
                .collect(),
            ..DoctorReport::default()
        }
    }

    #[test]
    fn a_kernel_as_in_the_table_has_no_differences() {
        for series in Series::ALL {
            assert_eq!(differences(series, &expected_report(series)), Vec::<String>::new());
        }
    }

    #[test]
    fn every_difference_counts_both_ways() {
        let series = Series::V6_1;
        let differences_after = |change: fn(&mut DoctorReport)| {
            let mut found = expected_report(series);
            change(&mut found);
            differences(series, &found).join(";")
        };
        assert!(differences_after(|found| drop(found.hooks.remove(0))).contains("inet_sock_set_state should attach"));
        assert!(differences_after(|found| found.hooks.push("timer_start".into())).contains("timer_start attaches"));
        let loss = || DoctorDegradation { what: "sleep".into(), lost: String::new() };
        let mut found = expected_report(series);
        found.degraded.push(loss());
        assert!(differences(series, &found).join(";").contains("lacks sleep, unexpectedly"));
        let mut old = expected_report(Series::V5_10);
        old.degraded.clear();
        assert!(differences(Series::V5_10, &old).join(";").contains("should say that it lacks"));
        assert!(differences_after(|found| found.tier = None).contains("the tier should be exact"));
        assert!(differences_after(|found| found.error = Some("no BPF".into())).contains("no BPF"));
    }
}
