//! The early warning: the time that connect() searches for a port rises long before a connect fails.

use std::time::Duration;

use portchurn_tests::compare::assert_counts;
use portchurn_tests::lab::{Lab, addr};
use portchurn_tests::reported::ParsedReport;
use portchurn_tests::require;
use portchurn_tests::script::{LoggedCall, ScriptStep, ServerBehaviour};
use portchurn_tests::tracer::Tracer;

type Result = anyhow::Result<()>;

const TO: &str = "127.0.0.1:9001";

fn after(connects: u32) -> anyhow::Result<(ParsedReport, u64)> {
    let lab = Lab::new()?;
    lab.ns.sysctl(&[("ipv4/tcp_tw_reuse", "0")])?;
    let _server = lab.serve("server", TO, ServerBehaviour::WaitForPeer)?;
    let tracer = Tracer::report(lab.dir())?;
    let log = lab.run("client", vec![ScriptStep::churn([addr(TO)], connects)])?;
    let mut report = tracer.finish_report()?;
    assert_counts(&report, lab.netns(), &log);
    report.destinations.retain(|dest| dest.netns == lab.netns() && dest.remote_port == 9001);
    // The client's time of the whole connect() is an upper bound of its search.
    let longest = log.of(LoggedCall::Connect).map(|entry| entry.end_ns - entry.start_ns).max().expect("connects");
    Ok((report, longest))
}

#[test]
fn a_half_full_range_is_searched_for_long_and_said_to_be() -> Result {
    require!();
    let (report, longest) = after(16_000)?;
    let [dest] = report.destinations.as_slice() else { panic!("{:?}", report.destinations) };
    assert!(dest.failed.is_empty(), "{:?}", dest.failed);
    let search = &dest.port_search_ms;
    // If a thread changes CPUs during connect(), its search time stays unknown.
    assert!((15_800..=16_000).contains(&search.count), "{search:?}");
    let longest = Duration::from_nanos(longest).as_secs_f64() * 1e3;
    assert!(search.max.is_some_and(|max| max <= longest), "{search:?}, and the client saw {longest} ms at most");
    let (recent, quickest) = (dest.port_search_recent_ms.expect("recent"), dest.port_search_quickest_ms.expect("best"));
    assert!(recent >= 4.0 * quickest, "{recent} {quickest}");
    assert!(report.findings.iter().any(|finding| finding.id == "port-search-slow"), "{:?}", report.findings);
    Ok(())
}

#[test]
fn a_range_with_room_gives_no_warning() -> Result {
    require!();
    let (report, _) = after(4_000)?;
    let [dest] = report.destinations.as_slice() else { panic!("{:?}", report.destinations) };
    assert!((3_950..=4_000).contains(&dest.port_search_ms.count), "{:?}", dest.port_search_ms);
    assert!(report.findings.iter().all(|finding| finding.id != "port-search-slow"), "{:?}", report.findings);
    Ok(())
}
