//! Which end-to-end tests a virtual machine runs: all of them, but for those named here with the reason.

use super::kernels::Series;

/// A test or, with `*`, a whole suite that is left out.
struct LeftOut {
    suite: &'static str,
    test: &'static str,
    on: &'static [Series],
    #[expect(dead_code, reason = "for whoever reads the table: the reasons are why it exists")]
    why: &'static str,
}

const EVERYWHERE: &[Series] = &Series::ALL;

const fn left_out(suite: &'static str, test: &'static str, on: &'static [Series], why: &'static str) -> LeftOut {
    LeftOut { suite, test, on, why }
}

/// What only a run that is written down takes the time for: the others stay below three minutes with the suites in which the kernels
/// differ most - counts through every way to connect, both tiers side by side, prototypes and the verifier.
const ONLY_THOROUGH: [LeftOut; 4] = [
    left_out("time_wait", "a_whole_cycle_under_every_setting", EVERYWHERE, "80 s, of which 60 s are waiting"),
    left_out("attribution", "*", EVERYWHERE, "a minute and a half"),
    left_out("failures", "*", EVERYWHERE, "a minute"),
    left_out("cli", "*", EVERYWHERE, "half a minute"),
];

const LEFT_OUT: [LeftOut; 16] = [
    left_out(
        "php_fpm",
        "*",
        EVERYWHERE,
        "php-fpm is no part of the machine, and what it does in the kernel is what churn does",
    ),
    left_out(
        "load",
        "*",
        EVERYWHERE,
        "emulation makes a hundredth of the connections per second that a burst is about",
    ),
    left_out(
        "recording",
        "*",
        EVERYWHERE,
        "what becomes of the events once they are read: no kernel makes a difference",
    ),
    left_out("recording_bounds", "*", EVERYWHERE, "the same"),
    left_out(
        "port_search",
        "*",
        EVERYWHERE,
        "how a search compares with the quickest one: an emulated CPU is slow at everything else in connect(), and interrupted in it",
    ),
    left_out("live_view", "*", EVERYWHERE, "no kernel makes a difference, and there is no tmux"),
    left_out(
        "counts",
        "counts_and_lifetimes_of_either_closer_are_exact",
        EVERYWHERE,
        "lifetimes to the millisecond, where a CPU stands still for 200 ms and segments are sent twice",
    ),
    left_out(
        "failures",
        "resets_from_either_side",
        EVERYWHERE,
        "the server's reset overtakes the return of connect(), which then fails after the handshake",
    ),
    left_out(
        "failures",
        "refused_and_timed_out",
        EVERYWHERE,
        "waits for timeouts, and the kernel's timers are the same code everywhere",
    ),
    left_out("failures", "no_neighbour", EVERYWHERE, "the same"),
    left_out(
        "cli",
        "a_signal_ends_a_report_with_valid_json",
        EVERYWHERE,
        "user space alone: no kernel makes a difference",
    ),
    left_out("cli", "by_chooses_what_a_workload_is", EVERYWHERE, "the same"),
    left_out("cli", "a_filter_leaves_out_everybody_else", EVERYWHERE, "the same"),
    left_out("cli", "for_ends_by_itself", EVERYWHERE, "the same"),
    left_out("cli", "a_closed_pipe_ends_a_stream_cleanly", EVERYWHERE, "the same"),
    left_out("time_wait", "early_ends", &[Series::V5_10], "`ss -K` does not kill minisockets before 6.1"),
];

/// Tests of this suite that are left out of a run, thorough or not; `None` = the whole suite.
pub fn skipped(suite: &str, series: Series, thorough: bool) -> Option<Vec<&'static str>> {
    let quick = ONLY_THOROUGH.iter().filter(|_| !thorough);
    let left_out = LEFT_OUT.iter().chain(quick).filter(|entry| entry.suite == suite && entry.on.contains(&series));
    let tests: Vec<&str> = left_out.map(|entry| entry.test).collect();
    (!tests.contains(&"*")).then_some(tests)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::shell::root;

    #[test]
    fn every_test_that_is_left_out_exists() {
        for entry in LEFT_OUT.iter().chain(&ONLY_THOROUGH) {
            let source = fs::read_to_string(root().join(format!("tests/tests/{}.rs", entry.suite))).expect("the suite");
            assert!(entry.test == "*" || source.contains(&format!("fn {}(", entry.test)), "{}", entry.test);
        }
    }

    #[test]
    fn a_suite_that_is_left_out_has_no_tests() {
        assert_eq!(skipped("load", Series::V6_1, true), None);
        assert_eq!(skipped("time_wait", Series::V6_1, true), Some(vec![]));
        assert_eq!(skipped("time_wait", Series::V5_10, true), Some(vec!["early_ends"]));
        assert_eq!(skipped("time_wait", Series::V6_1, false), Some(vec!["a_whole_cycle_under_every_setting"]));
    }
}
