//! The incident that portchurn was written for: a php-fpm pool that opens a new connection for every call of its API.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use portchurn_tests::compare::reported;
use portchurn_tests::lab::{LIMIT, Lab, addr};
use portchurn_tests::process::{Running, output, until};
use portchurn_tests::reported::FailedCounts;
use portchurn_tests::require;
use portchurn_tests::require::{Need, find};
use portchurn_tests::script::ServerBehaviour;
use portchurn_tests::tracer::Tracer;
use serde::Deserialize;

const POOL: &str = "checkout";
const REQUESTS: usize = 12;
const CALLS: usize = 10;

/// The result of one `curl_exec()` in PHP.
#[derive(Debug, Deserialize)]
struct Call {
    pid: u32,
    /// `CURLINFO_OS_ERRNO`; 0 if curl connected.
    os_errno: i32,
    local_port: u16,
    error: String,
}

/// A PHP script that fetches one URL several times, each time on a new connection, and prints the results.
const SCRIPT: &str = r"<?php
$calls = [];
for ($i = 0; $i < (int)$_GET['calls']; $i++) {
    $curl = curl_init('http://127.0.0.1:9001/price/' . $i);
    curl_setopt_array($curl, [CURLOPT_RETURNTRANSFER => true, CURLOPT_FRESH_CONNECT => true, CURLOPT_FORBID_REUSE => true, CURLOPT_TIMEOUT => 10]);
    curl_exec($curl);
    $calls[] = ['pid' => getmypid(), 'local_port' => curl_getinfo($curl, CURLINFO_LOCAL_PORT),
        'os_errno' => curl_getinfo($curl, CURLINFO_OS_ERRNO), 'error' => curl_error($curl)];
    curl_close($curl);
}
header('Content-Type: application/json');
echo json_encode($calls);
";

fn configure(dir: &Path) -> Result<()> {
    // The workers run as another user.
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    fs::write(dir.join("index.php"), SCRIPT)?;
    let dir = dir.display();
    let config = format!(
        "[global]\npid = {dir}/fpm.pid\nerror_log = {dir}/fpm.log\ndaemonize = no\n\
         [{POOL}]\nuser = www-data\ngroup = www-data\nlisten = {dir}/fpm.sock\npm = static\npm.max_children = 3\n\
         catch_workers_output = yes\n"
    );
    fs::write(Path::new(&dir.to_string()).join("fpm.conf"), config).context("fpm.conf")
}

/// Sends one request through FastCGI and returns the response without its headers.
fn request(lab: &Lab) -> Result<Vec<Call>> {
    let mut command = Command::new(find("cgi-fcgi").context("cgi-fcgi")?);
    command.args(["-bind", "-connect"]).arg(lab.file("fpm.sock")).env_clear();
    command
        .env("SCRIPT_FILENAME", lab.file("index.php"))
        .env("REQUEST_METHOD", "GET")
        .env("QUERY_STRING", format!("calls={CALLS}"));
    let answer = output(&mut command)?;
    let (_, body) = answer.split_once("\r\n\r\n").with_context(|| format!("an answer: {answer:?}"))?;
    serde_json::from_str(body).with_context(|| format!("an answer: {answer:?}"))
}

#[test]
fn a_pool_that_runs_out_of_ports_is_named() -> Result<()> {
    require!(Need::Program("php-fpm8.2", "php8.2-fpm"), Need::Program("cgi-fcgi", "libfcgi-bin"));
    let lab = Lab::with_ports(40000, 40063)?;
    lab.ns.sysctl(&[("ipv4/tcp_tw_reuse", "0")])?;
    configure(lab.dir())?;
    let _api = lab.serve("api", "127.0.0.1:9001", ServerBehaviour::Answer)?;
    let report = Tracer::report(lab.dir())?;
    let mut command = lab.ns.command(find("php-fpm8.2").context("php-fpm8.2")?);
    command.args(["--nodaemonize", "--fpm-config"]).arg(lab.file("fpm.conf"));
    let mut fpm = Running::start(command, lab.dir(), "fpm")?;
    until("php-fpm's socket", LIMIT, || {
        anyhow::ensure!(fpm.ended()?.is_none(), "php-fpm ended: {}", fpm.stderr());
        Ok(lab.file("fpm.sock").exists().then_some(()))
    })?;
    let mut calls = Vec::new();
    for _ in 0..REQUESTS {
        calls.extend(request(&lab)?);
    }
    let report = report.finish_report()?;
    report.assert_complete();
    assert_eq!(calls.len(), REQUESTS * CALLS);
    let mut by_pid: BTreeMap<u32, (u64, u64, u64)> = BTreeMap::new();
    for call in &calls {
        let (connects, established, exhausted) = by_pid.entry(call.pid).or_default();
        *connects += 1;
        *established += u64::from(call.os_errno == 0 && call.local_port != 0);
        *exhausted += u64::from(call.os_errno == 99);
    }
    let total: u64 = by_pid.values().map(|counts| counts.2).sum();
    assert_eq!(total, u64::try_from(REQUESTS * CALLS - 64)?, "the scenario itself: {calls:?}");
    let seen: BTreeMap<u32, (u64, u64, u64)> = reported(&report, lab.netns())
        .into_iter()
        .filter(|((_, remote), _)| *remote == addr("127.0.0.1:9001"))
        .map(|((pid, _), counts)| {
            (
                pid.unwrap_or_default(),
                (counts.connects, counts.established, counts.failed.get("EADDRNOTAVAIL").copied().unwrap_or(0)),
            )
        })
        .collect();
    assert_eq!(seen, by_pid, "per worker: connects, established, out of ports");
    let named: Vec<_> = report
        .workloads
        .iter()
        .filter(|workload| workload.netns.contains(&lab.netns()) && workload.connects > 0)
        .collect();
    let [pool] = named.as_slice() else { panic!("one workload: {named:?}") };
    assert!(pool.name.contains(&format!("php-fpm: pool {POOL}")), "{}", pool.name);
    assert_eq!(pool.failed, FailedCounts::from([("EADDRNOTAVAIL".to_owned(), total)]));
    assert_eq!(pool.pids.iter().filter(|process| process.connects > 0).count(), by_pid.len(), "{:?}", pool.pids);
    let destination = report
        .destinations
        .iter()
        .find(|entry| entry.netns == lab.netns() && entry.remote_port == 9001)
        .expect("the API");
    assert_eq!(destination.victims.iter().map(|victim| victim.failed).sum::<u64>(), total);
    assert!(destination.victims.iter().all(|victim| victim.workload == pool.name), "{:?}", destination.victims);
    assert!(calls.iter().filter(|call| call.os_errno == 99).all(|call| !call.error.is_empty()));
    Ok(())
}
