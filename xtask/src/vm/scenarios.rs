//! Which end-to-end tests a virtual machine runs: all of them, but for those named here with the reason.

/// A test or, with `*`, a whole suite that is left out.
pub struct LeftOut {
    pub suite: &'static str,
    pub test: &'static str,
    #[expect(dead_code, reason = "for whoever reads the table: the reason is why the table exists")]
    pub why: &'static str,
}

const fn left_out(suite: &'static str, test: &'static str, why: &'static str) -> LeftOut {
    LeftOut { suite, test, why }
}

pub const LEFT_OUT: [LeftOut; 2] = [
    left_out(
        "php_fpm",
        "*",
        "php-fpm and its libraries are no part of the machine, and what it does in the kernel is what churn does",
    ),
    left_out("load", "*", "emulation makes a hundredth of the connections per second that a burst is about"),
];

/// Tests of this suite that are left out; `None` = all of them.
pub fn skipped(suite: &str) -> Option<Vec<&'static str>> {
    let own = || LEFT_OUT.iter().filter(|entry| entry.suite == suite);
    if own().any(|entry| entry.test == "*") { None } else { Some(own().map(|entry| entry.test).collect()) }
}
