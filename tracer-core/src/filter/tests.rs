//! Meaning, errors, and that no text whatever makes the parser panic.

use std::net::IpAddr;

use proptest::prelude::*;

use super::expression::Glob;
use super::*;
use crate::event::{Addr, Netns, TcpState};
use crate::tracker::snapshot::{Failure, FailureCounts, StateSet};

fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().expect("address").into()
}

fn worker() -> Subject<'static> {
    Subject {
        comm: Some("php-fpm8.2"),
        pid: Some(4711),
        unit: Some("php8.2-fpm.service"),
        container: Some("docker:0123456789ab"),
        pod: Some("shop/web-7d9f/php"),
        workload: Some("php-fpm: pool www"),
        netns: Some(Netns::of_inode(4_026_531_840)),
        netns_name: Some("blue"),
        src_addr: Some(addr("10.0.0.2")),
        src_port: Some(40_000),
        dst_addr: Some(addr("10.0.0.5")),
        dst_port: Some(443),
        state: Some(TcpState::TimeWait),
        states: None,
        orphan: None,
        half_closed: None,
        failure: Some(Failure::PortsExhausted),
        failed: None,
    }
}

fn matches(filter: &str, subject: &Subject<'_>) -> bool {
    Filter::parse(filter).unwrap_or_else(|error| panic!("{filter}: {error}")).matches(subject)
}

#[test]
fn a_pod_is_found_by_its_name_with_and_without_a_container() {
    for (text, expected) in [
        ("pod=shop/web-7d9f", true),
        ("pod=shop/web-7d9f/php", true),
        ("pod=shop/*", true),
        ("pod=shop/web-7d9f/nginx", false),
        ("pod=web-7d9f", false),
    ] {
        assert_eq!(matches(text, &worker()), expected, "{text}");
    }
}

#[test]
fn each_field_compares_as_documented() {
    for filter in [
        "comm=php-fpm*",
        "comm=php-fpm8.2",
        "comm=*fpm*",
        "comm=*",
        "pid=4711",
        "unit=php8.2-fpm.service",
        "unit=php*",
        "container=docker:0123456789ab",
        "container=0123456789ab",
        "container=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "container=docker:*",
        "workload=\"php-fpm: pool www\"",
        "workload=php-fpm*www",
        "netns=4026531840",
        "netns=blue",
        "netns=b*",
        "src=10.0.0.2",
        "src=:40000",
        "dst=10.0.0.0/8:443",
        "dst=443",
        "state=TIME_WAIT",
        "state=time-wait",
        "errno=EADDRNOTAVAIL",
        "errno=eaddr*",
        "errno=99",
        "COMM=php*",
    ] {
        assert!(matches(filter, &worker()), "{filter}");
        let negated = filter.replacen('=', "!=", 1);
        assert!(!matches(&negated, &worker()), "{negated}");
        assert!(!matches(&format!("not {filter}"), &worker()), "not {filter}");
    }
    for filter in [
        "comm=php-fpm",
        "comm=*fpm",
        "pid=4712",
        "unit=php8.2-fpm.timer",
        "container=ba9876543210",
        "workload=www",
        "netns=4026531841",
        "netns=red",
        "src=10.0.0.5",
        "src=443",
        "dst=10.0.0.5:80",
        "state=ESTAB",
        "errno=ECONNREFUSED",
        "errno=TUPLE_TAKEN",
    ] {
        assert!(!matches(filter, &worker()), "{filter}");
        assert!(matches(&filter.replacen('=', "!=", 1), &worker()), "{filter} negated");
    }
}

#[test]
fn names_are_completed_as_their_owners_write_them() {
    let subject = Subject { comm: Some("a-very-long-nam"), unit: Some("nginx.service"), ..Subject::default() };
    assert!(matches("comm=a-very-long-name-of-a-program", &subject), "the kernel keeps 15 bytes");
    assert!(matches("unit=nginx", &subject));
    assert!(!matches("unit=nginx.socket", &subject));
}

#[test]
fn and_binds_tighter_than_or_and_not_tightest() {
    for (filter, expected) in [
        ("pid=1 and pid=2 or pid=4711", true),
        ("pid=4711 or pid=1 and pid=2", true),
        ("(pid=4711 or pid=1) and pid=2", false),
        ("not pid=1 and pid=4711", true),
        ("not (pid=1 and pid=4711)", true),
        ("not not pid=4711", true),
        ("NOT pid=1 AND (comm=php* Or pid=2)", true),
        ("  pid = 4711  ", true),
        ("(pid=4711)and(comm=php*)", true),
        ("pid=1 or pid=2 or pid=4711", true),
        ("comm=php* and pid=4711 and dst=:80", false),
    ] {
        assert_eq!(matches(filter, &worker()), expected, "{filter}");
    }
}

#[test]
fn what_is_not_known_does_not_match_and_neither_does_its_opposite() {
    let stranger = Subject { dst_port: Some(443), ..Subject::default() };
    for field in [
        "comm=a",
        "pid=1",
        "unit=a",
        "container=a",
        "workload=a",
        "netns=a",
        "netns=1",
        "src=::1",
        "state=LISTEN",
        "errno=111",
    ] {
        assert!(!matches(field, &stranger), "{field}");
        assert!(!matches(&format!("not {field}"), &stranger), "not {field}");
        assert!(!matches(&field.replacen('=', "!=", 1), &stranger), "{field} negated");
        assert!(matches(&format!("{field} or dst=443"), &stranger), "true settles `or`");
        assert!(!matches(&format!("{field} or dst=80"), &stranger));
        assert!(!matches(&format!("{field} and dst=443"), &stranger));
        assert!(matches(&format!("not ({field} and dst=80)"), &stranger), "false settles `and`");
    }
}

#[test]
fn a_namespace_without_a_name_is_not_the_named_one() {
    let nameless = Subject { netns: Some(Netns::of_inode(7)), ..Subject::default() };
    assert!(matches("netns!=blue", &nameless));
    assert!(!matches("netns=blue", &nameless));
    assert!(matches("netns=7", &nameless));
}

#[test]
fn sums_match_if_any_of_their_failures_does() {
    let failed = FailureCounts::from([(Failure::Errno(111), 3), (Failure::TupleTaken, 1)]);
    let some = Subject { failed: Some(&failed), ..Subject::default() };
    assert!(matches("errno=ECONNREFUSED", &some) && matches("errno=111", &some) && matches("errno=tuple_taken", &some));
    assert!(!matches("errno=EADDRNOTAVAIL", &some));
    // An errno without a name of its own was written so by earlier versions, and is still found.
    let unusual = FailureCounts::from([(Failure::Errno(92), 1)]);
    let unusual = Subject { failed: Some(&unusual), ..Subject::default() };
    for filter in ["errno=ENOPROTOOPT", "errno=92", "errno=E92"] {
        assert!(matches(filter, &unusual), "{filter}");
    }
    let nothing = FailureCounts::default();
    let none = Subject { failed: Some(&nothing), ..Subject::default() };
    assert!(!matches("errno=*", &none) && matches("errno!=ECONNREFUSED", &none), "known: nothing failed");
}

#[test]
fn the_two_kinds_of_fin_wait2_are_told_apart() {
    let sum = Subject { orphan: Some(true), half_closed: Some(false), ..Subject::default() };
    assert!(matches("state=orphan and state!=half_closed", &sum) && matches("state=Half-Closed or state=ORPHAN", &sum));
    let open = Subject { state: Some(TcpState::Established), ..Subject::default() };
    assert!(matches("state!=orphan and not state=half_closed", &open), "known: neither");
    let closing = Subject { state: Some(TcpState::FinWait2), ..Subject::default() };
    assert!(!matches("state=orphan", &closing) && !matches("state!=orphan", &closing), "unknown");
}

#[test]
fn sums_are_in_every_state_that_one_of_their_flows_is_in() {
    let states = StateSet::from_iter([TcpState::Established, TcpState::TimeWait]);
    let some = Subject { states: Some(states), ..Subject::default() };
    assert!(matches("state=ESTAB and state=time_wait and state!=close_wait", &some));
    assert!(!matches("state=CLOSE_WAIT", &some) && !matches("state!=TIME_WAIT", &some));
    let none = Subject { states: Some(StateSet::default()), ..Subject::default() };
    assert!(matches("state!=ESTAB", &none), "known: nothing is open");
}

#[test]
fn errors_point_at_the_column_and_say_what_was_expected() {
    for (filter, column, expected) in [
        ("", 1, "a field (comm, pid"),
        ("   ", 4, "a field (comm, pid"),
        ("com=a", 1, "a field (comm, pid"),
        ("comm", 5, "`=` or `!=` after `comm`"),
        ("comm~a", 1, "a field"),
        ("comm=", 6, "a value for `comm`"),
        ("comm=)", 6, "a value for `comm`"),
        ("comm=\"\"", 6, "a name"),
        ("pid=x", 5, "a process id"),
        ("pid=1 comm=a", 7, "`and`, `or` or the end"),
        ("pid=1 and", 10, "a field"),
        ("(pid=1", 7, "`and`, `or` or `)`"),
        ("pid=1)", 6, "`and`, `or` or the end"),
        ("comm=\"abc", 6, "a closing `\"`"),
        ("pid=1 and dst=10.0.0.0/33", 15, "an address"),
        ("state=OPEN", 7, "a state (ESTABLISHED"),
        ("errno=EFOO", 7, "a reason (EADDRNOTAVAIL"),
        ("comm=é and pid=x", 16, "a process id"),
        ("and", 1, "a field"),
        ("pid==1", 5, "a process id"),
    ] {
        let error = Filter::parse(filter).expect_err(filter);
        assert_eq!(error.column, column, "{filter}: {error}");
        assert!(error.expected.contains(expected), "{filter}: {error}");
    }
    assert_eq!(Filter::parse("!pid=1").expect_err("use `not`").found, "`!pid`");
    let error = Filter::parse("pid=1 and dst=nowhere").expect_err("no address");
    // What is wrong comes before the filter, and the mark stands under it whatever stands before the message.
    let told = format!("error: {}", error.marked("pid=1 and dst=nowhere"));
    let [message, filter, mark] = told.lines().collect::<Vec<_>>()[..] else { panic!("{told}") };
    assert!(message.starts_with("error: the filter has `nowhere` where an address"), "{told}");
    assert_eq!(filter.find("nowhere"), mark.find('^'), "{told}");
    assert!(error.to_string().starts_with("filter, column 15: expected an address"), "{error}");
    assert!(error.to_string().ends_with("found `nowhere`"), "{error}");
}

#[test]
fn depth_and_length_are_bounded() {
    let nested = |depth: usize| format!("{}pid=1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Filter::parse(&nested(MAX_DEPTH - 1)).is_ok());
    assert!(Filter::parse(&nested(MAX_DEPTH)).is_err());
    assert!(Filter::parse(&"not ".repeat(2_000)).is_err());
    assert!(Filter::parse(&"(".repeat(8_000)).is_err());
    let long = "pid=1 or ".repeat(900) + "pid=4711";
    assert!(long.len() < MAX_FILTER_CHARS && matches(&long, &worker()), "width is no depth");
    assert!(Filter::parse(&format!("comm={}", "a".repeat(MAX_FILTER_CHARS))).is_err());
}

#[test]
fn quotes_keep_blanks_parentheses_and_keywords() {
    let subject = Subject { workload: Some("a (b) \"c\" and \\"), ..Subject::default() };
    assert!(matches(r#"workload="a (b) \"c\" and \\""#, &subject));
    assert!(matches("workload=a*", &subject));
    let keyword = Subject { comm: Some("and"), ..Subject::default() };
    assert!(matches("comm=\"and\" and comm=and", &keyword));
}

/// The obvious, exponential definition.
fn glob_by_definition(glob: &[char], text: &[char]) -> bool {
    match glob.split_first() {
        None => text.is_empty(),
        Some(('*', rest)) => (0..=text.len()).any(|at| glob_by_definition(rest, &text[at..])),
        Some((first, rest)) => text.first() == Some(first) && glob_by_definition(rest, &text[1..]),
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        if let Err(error) = Filter::parse(&text) {
            prop_assert!(error.column >= 1 && error.column <= text.chars().count() + 1);
            error.marked(&text);
        }
    }

    #[test]
    fn no_text_out_of_its_own_parts_makes_the_parser_panic(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "comm", "pid", "dst", "netns", "state", "errno", "container", "=", "!=", "!", "(", ")", "and", "or", "not", " ", "\"", "\\",
                "*", "[", "]", ":", "/", "::1", "10.0.0.0", "443", "é", "\u{0}", "TIME_WAIT",
            ]),
            0..40,
        )
    ) {
        let text = parts.concat();
        match Filter::parse(&text) {
            Ok(filter) => { filter.matches(&worker()); filter.matches(&Subject::default()); }
            Err(error) => prop_assert!(error.column <= text.chars().count() + 1),
        }
    }

    #[test]
    fn globs_match_by_their_definition(glob in "[ab*]{0,8}", text in "[ab]{0,10}") {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        let expected = glob_by_definition(&chars(&glob), &chars(&text));
        prop_assert_eq!(Glob(glob.clone()).matches(&text), expected);
    }

    #[test]
    fn a_filter_and_its_negation_never_both_match(pid in 1_u32..4, wanted in 1_u32..4, known in any::<bool>()) {
        let subject = Subject { pid: known.then_some(pid), ..Subject::default() };
        let positive = matches(&format!("pid={wanted}"), &subject);
        let negative = matches(&format!("not pid={wanted}"), &subject);
        prop_assert!(!(positive && negative));
        prop_assert_eq!(positive || negative, known);
    }
}
