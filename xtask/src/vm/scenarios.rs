//! The end-to-end tests that a virtual machine does not run, each with the reason. It runs all others.

use super::kernels::Series;

/// A test or, with `*`, a whole suite that does not run.
struct Exclusion {
    suite: &'static str,
    test: &'static str,
    on: &'static [Series],
    #[expect(dead_code, reason = "read by people: a test without a reason must not be in the table")]
    why: &'static str,
}

const EVERYWHERE: &[Series] = &Series::ALL;

const fn excluded(suite: &'static str, test: &'static str, on: &'static [Series], why: &'static str) -> Exclusion {
    Exclusion { suite, test, on, why }
}

/// Tests that only a recorded run takes the time for. Other runs stay below three minutes and keep the suites in which
/// kernels differ most: counts through every way to connect, both tiers side by side, prototypes and the verifier.
const ONLY_THOROUGH: [Exclusion; 4] = [
    excluded("time_wait", "a_whole_cycle_under_every_setting", EVERYWHERE, "80 s, of which 60 s are waiting"),
    excluded("attribution", "*", EVERYWHERE, "a minute and a half"),
    excluded("failures", "*", EVERYWHERE, "a minute"),
    excluded("cli", "*", EVERYWHERE, "half a minute"),
];

const ALWAYS: [Exclusion; 19] = [
    excluded("php_fpm", "*", EVERYWHERE, "the machine has no php-fpm, and its system calls are those of churn"),
    excluded("load", "*", EVERYWHERE, "emulation reaches a hundredth of the connections per second of a burst"),
    excluded("floods", "*", EVERYWHERE, "the same, and its bounds are of CPUs that are not emulated"),
    excluded("ending", "*", EVERYWHERE, "the same"),
    excluded("recording", "*", EVERYWHERE, "user space after the ring buffer: the same on every kernel"),
    excluded("recording_bounds", "*", EVERYWHERE, "the same"),
    excluded(
        "port_search",
        "*",
        EVERYWHERE,
        "compares the times of port searches: an emulated CPU is slow at everything else in connect(), and interrupted in it",
    ),
    excluded("live_view", "*", EVERYWHERE, "user space alone: the same on every kernel; and there is no tmux"),
    excluded(
        "counts",
        "counts_and_lifetimes_of_either_closer_are_exact",
        EVERYWHERE,
        "compares lifetimes to the millisecond, but an emulated CPU stalls for 200 ms and segments are sent twice",
    ),
    excluded(
        "failures",
        "resets_from_either_side",
        EVERYWHERE,
        "on the emulated CPU the server's reset arrives before connect() returns, which then fails after the handshake",
    ),
    excluded(
        "failures",
        "refused_and_timed_out",
        EVERYWHERE,
        "waits for timeouts, and the kernel's timers are the same code everywhere",
    ),
    excluded(
        "facts",
        "every_exec_is_seen",
        EVERYWHERE,
        "the machine has no bash, and exec is counted alike everywhere",
    ),
    excluded("failures", "no_neighbour", EVERYWHERE, "the same"),
    excluded("cli", "a_signal_ends_a_report_with_valid_json", EVERYWHERE, "user space alone: the same on every kernel"),
    excluded("cli", "by_chooses_what_a_workload_is", EVERYWHERE, "the same"),
    excluded("cli", "a_filter_leaves_out_everybody_else", EVERYWHERE, "the same"),
    excluded("cli", "for_ends_by_itself", EVERYWHERE, "the same"),
    excluded("cli", "a_closed_pipe_ends_a_stream_cleanly", EVERYWHERE, "the same"),
    excluded("time_wait", "early_ends", &[Series::V5_10], "`ss -K` does not kill minisockets before 6.1"),
];

/// Tests of this suite that a run on `series` skips; `None` if it skips the whole suite.
pub fn skipped(suite: &str, series: Series, thorough: bool) -> Option<Vec<&'static str>> {
    let quick = ONLY_THOROUGH.iter().filter(|_| !thorough);
    let exclusions = ALWAYS.iter().chain(quick).filter(|entry| entry.suite == suite && entry.on.contains(&series));
    let tests: Vec<&str> = exclusions.map(|entry| entry.test).collect();
    (!tests.contains(&"*")).then_some(tests)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::shell::root;

    #[test]
    fn every_excluded_test_exists() {
        for entry in ALWAYS.iter().chain(&ONLY_THOROUGH) {
            let source = fs::read_to_string(root().join(format!("tests/tests/{}.rs", entry.suite))).expect("the suite");
            assert!(entry.test == "*" || source.contains(&format!("fn {}(", entry.test)), "{}", entry.test);
        }
    }

    #[test]
    fn an_excluded_suite_has_no_tests() {
        assert_eq!(skipped("load", Series::V6_1, true), None);
        assert_eq!(skipped("time_wait", Series::V6_1, true), Some(vec![]));
        assert_eq!(skipped("time_wait", Series::V5_10, true), Some(vec!["early_ends"]));
        assert_eq!(skipped("time_wait", Series::V6_1, false), Some(vec!["a_whole_cycle_under_every_setting"]));
    }
}
