//! The command line on a real kernel: capabilities, signals, pipes, and BPF programs that stay loaded.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use aya::programs::loaded_programs;
use nix::sys::signal::Signal;
use portchurn_tests::compare::assert_counts;
use portchurn_tests::hooks::running_version;
use portchurn_tests::lab::{LIMIT, Lab, addr};
use portchurn_tests::process::{output, until};
use portchurn_tests::require;
use portchurn_tests::require::Need;
use portchurn_tests::script::{AfterConnect, ConnectMethod, ScriptStep, ServerBehaviour};
use portchurn_tests::tracer::{Tracer, binary};

const NOBODY: &str = "65534";

#[test]
fn help_names_the_commands() -> Result<()> {
    require!();
    let text = output(Command::new(binary()?).arg("--help"))?;
    for command in ["report", "stream"] {
        assert!(text.contains(command), "{text}");
    }
    let text = output(Command::new(binary()?).args(["report", "--help"]))?;
    for option in ["--json", "--for"] {
        assert!(text.contains(option), "{text}");
    }
    Ok(())
}

#[test]
fn a_wrong_argument_is_a_usage_error() -> Result<()> {
    require!();
    for arguments in
        [&["report", "--no-such-option"][..], &["report", "--ring-size", "4097"], &["report", "--for", "soon"]]
    {
        let output = Command::new(binary()?).args(arguments).output()?;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
    Ok(())
}

/// Copies the binary to a place where other users may execute it.
fn public_binary(lab: &Lab) -> Result<std::path::PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(lab.dir(), fs::Permissions::from_mode(0o755))?;
    let copy = lab.file("portchurn");
    fs::copy(binary()?, &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
    Ok(copy)
}

fn as_nobody() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
    command
}

#[test]
fn without_rights_it_says_so_once() -> Result<()> {
    require!(Need::Program("setpriv", "util-linux"));
    let lab = Lab::new()?;
    let binary = public_binary(&lab)?;
    for arguments in [&["report", "--json", "--for", "1s"][..], &["stream", "--json", "--for", "1s"]] {
        let output = as_nobody().arg(&binary).args(arguments).output()?;
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{message}");
        assert!(output.stdout.is_empty(), "no half report");
        let lower = message.to_lowercase();
        assert!(lower.contains("root") || lower.contains("cap_bpf"), "what to do: {message}");
        let first = message.lines().next().unwrap_or_default();
        assert_eq!(message.matches(first).count(), 1, "once: {message}");
        assert!(!message.contains("panicked"), "{message}");
    }
    Ok(())
}

/// A capability as `doctor --json` lists it.
#[derive(Debug, serde::Deserialize)]
struct ListedCapability {
    name: String,
    kept: bool,
}

/// The capabilities that portchurn says that it can use on this kernel.
fn capabilities() -> Result<Vec<ListedCapability>> {
    // Its exit code tells what is missing here.
    let doctor = Command::new(binary()?).args(["doctor", "--json"]).output()?;
    let doctor: serde_json::Value = serde_json::from_slice(&doctor.stdout).context("doctor")?;
    serde_json::from_value(doctor["capabilities"].clone()).context("capabilities")
}

/// A line of /proc/PID/task/TID/status of every thread, by the thread's name.
fn of_threads(pid: u32, field: &str) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        let value = |name: &str| status.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
        found.extend(value("Name:").zip(value(field)));
    }
    ensure!(found.len() > 2, "{found:?}");
    Ok(found)
}

/// A set as /proc shows it.
fn mask<'a>(names: impl Iterator<Item = &'a str>) -> Result<u64> {
    names
        .map(|name| Ok(1 << name.parse::<caps::Capability>().context("a capability")?.index()))
        .try_fold(0, |mask, bit: Result<u64>| Ok(mask | bit?))
}

/// The capabilities that the documents name are enough, and those that are not kept are gone once the trace runs.
#[test]
fn capabilities_are_enough() -> Result<()> {
    require!(Need::Program("setpriv", "util-linux"));
    let lab = Lab::with_ports(40000, 40031)?;
    lab.ns.sysctl(&[("ipv4/tcp_tw_reuse", "0")])?;
    let binary = public_binary(&lab)?;
    let known = capabilities()?;
    assert!(!known.iter().any(|needed| needed.name == "CAP_NET_ADMIN"), "used for nothing");
    let with = |capabilities: &[&ListedCapability]| {
        let names = capabilities.iter().map(|needed| needed.name.to_lowercase().replacen("cap_", "+", 1));
        let sets = names.collect::<Vec<_>>().join(",");
        let mut command = as_nobody();
        command.args(["--inh-caps", &sets, "--ambient-caps", &sets, "--bounding-set", &format!("-all,{sets}")]);
        command.arg(&binary);
        command
    };
    let is_for_memlock = |needed: &&ListedCapability| needed.name == "CAP_SYS_RESOURCE";
    // Before 5.11 BPF memory counts against RLIMIT_MEMLOCK, which only CAP_SYS_RESOURCE may raise. The message once did
    // not name it.
    if running_version()? < (5, 11) {
        let others: Vec<_> = known.iter().filter(|needed| !is_for_memlock(needed)).collect();
        let refused = with(&others).args(["report", "--for", "1s"]).output()?;
        let message = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(3) && message.contains("CAP_SYS_RESOURCE"), "{message}");
    } else {
        assert!(!known.iter().any(|needed| is_for_memlock(&needed)), "{known:?}");
    }
    let mut command = with(&known.iter().collect::<Vec<_>>());
    command.args(["report", "--json", "--for", "600s"]);
    let _server = lab.serve("server", "127.0.0.1:9001", ServerBehaviour::WaitForPeer)?;
    let report = Tracer::start_command(command, lab.dir(), "report")?;
    let errors = report.stderr();
    assert!(!errors.contains("CAP_") && !errors.contains("sockets of "), "it misses something: {errors}");
    let pid = report.pid();
    let kept = mask(known.iter().filter(|needed| needed.kept).map(|needed| needed.name.as_str()))?;
    for set in ["CapEff:", "CapPrm:"] {
        for (thread, held) in of_threads(pid, set)? {
            let held = u64::from_str_radix(&held, 16)?;
            let expected = if thread == "signals" { 0 } else { kept };
            assert_eq!(held, expected, "{set} {held:x} of {thread}");
        }
    }
    for set in ["CapInh:", "CapAmb:"] {
        assert!(of_threads(pid, set)?.iter().all(|(_, held)| held.trim_start_matches('0').is_empty()), "{set}");
    }
    assert!(of_threads(pid, "NoNewPrivs:")?.iter().all(|(_, set)| set == "1"));
    let log = lab.run("client", vec![ScriptStep::churn([addr("127.0.0.1:9001")], 40)])?;
    let report = report.finish_report()?;
    assert_counts(&report, lab.netns(), &log);
    Ok(())
}

/// The command of a recording has what its user has: a command of root everything, that of a user with portchurn's capabilities nothing.
#[test]
fn a_recorded_command_has_the_rights_of_its_user() -> Result<()> {
    require!(Need::Program("setpriv", "util-linux"));
    let lab = Lab::new()?;
    let binary = public_binary(&lab)?;
    let known = capabilities()?;
    let sets: Vec<_> = known.iter().map(|needed| needed.name.to_lowercase().replacen("cap_", "+", 1)).collect();
    let sets = sets.join(",");
    let status = |mut command: Command, file: &str| -> Result<String> {
        let out = lab.file(file);
        command.args(["record", "-o", &out.display().to_string(), "--", "cat", "/proc/self/status"]);
        output(&mut command)
    };
    let field = |status: &str, name: &str| {
        status.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned())).context("a field")
    };
    let own = fs::read_to_string("/proc/self/status")?;
    let of_root = status(Command::new(&binary), "root.arrow")?;
    assert_eq!(field(&of_root, "CapEff:")?, field(&own, "CapEff:")?, "root has its rights");
    assert_eq!(field(&of_root, "NoNewPrivs:")?, field(&own, "NoNewPrivs:")?);
    fs::set_permissions(lab.dir(), std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    let mut user = as_nobody();
    user.args(["--inh-caps", &sets, "--ambient-caps", &sets, "--bounding-set", &format!("-all,{sets}")]).arg(&binary);
    let of_user = status(user, "user.arrow")?;
    for set in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
        assert_eq!(u64::from_str_radix(&field(&of_user, set)?, 16)?, 0, "{set}");
    }
    Ok(())
}

/// A container without the host's pid namespace: the ids in its /proc are not those of records.
#[test]
fn a_pid_namespace_of_its_own_is_said_once() -> Result<()> {
    require!();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--"]).arg(binary()?);
    command.args(["report", "--json", "--for", "1s"]);
    let output = command.output().context("unshare")?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{message}");
    assert_eq!(message.matches("hostPID: true").count(), 1, "{message}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let said = report["host"]["degraded"].as_array().into_iter().flatten();
    assert_eq!(said.filter(|entry| entry["what"] == "the host's processes in /proc").count(), 1);
    Ok(())
}

#[test]
fn a_signal_ends_a_report_with_valid_json() -> Result<()> {
    require!();
    let lab = Lab::with_ports(40000, 40031)?;
    lab.ns.sysctl(&[("ipv4/tcp_tw_reuse", "0")])?;
    let _server = lab.serve("server", "127.0.0.1:9001", ServerBehaviour::WaitForPeer)?;
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tracer-core/schema/report.schema.json");
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut report = Tracer::report(lab.dir())?;
        // So that no list of the report is empty: failures, open and finished connections.
        lab.run(
            "client",
            vec![
                ScriptStep::connect([addr("127.0.0.1:9001")], 40, ConnectMethod::Blocking, AfterConnect::Hold),
                ScriptStep::connect([addr("127.0.0.1:9009")], 3, ConnectMethod::Blocking, AfterConnect::Hold),
            ],
        )?;
        report.running().signal(signal)?;
        let status = report.running().wait(LIMIT)?;
        assert_eq!(status.code(), Some(0), "{signal}");
        let value: serde_json::Value = serde_json::from_str(&report.running().stdout())?;
        assert_eq!(value["schema"], "portchurn.report/1");
        let text = fs::read_to_string(&schema).context("the schema, part of the contract")?;
        let validator = jsonschema::validator_for(&serde_json::from_str(&text)?).context("the schema")?;
        let errors: Vec<String> =
            validator.iter_errors(&value).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{}", errors.join("\n"));
    }
    Ok(())
}

#[test]
fn for_ends_by_itself() -> Result<()> {
    require!();
    let lab = Lab::new()?;
    let mut report = Tracer::start(lab.dir(), "report", &["report", "--json", "--for", "1s"])?;
    assert_eq!(report.running().wait(LIMIT)?.code(), Some(0));
    let value: serde_json::Value = serde_json::from_str(&report.running().stdout())?;
    let seconds = value["window"]["seconds"].as_f64().context("window.seconds")?;
    assert!((0.9..3.0).contains(&seconds), "{seconds}");
    Ok(())
}

/// Into `head -1`: the reader exits after one line, which is not an error.
#[test]
fn a_closed_pipe_ends_a_stream_cleanly() -> Result<()> {
    require!();
    let lab = Lab::new()?;
    let _server = lab.serve("server", "127.0.0.1:9001", ServerBehaviour::WaitForPeer)?;
    let stderr = lab.file("stream.err");
    let mut stream = Command::new(binary()?)
        .args(["stream", "--json", "--for", "600s"])
        .stdout(Stdio::piped())
        .stderr(fs::File::create(&stderr)?)
        .spawn()?;
    let pipe = stream.stdout.take().context("a pipe")?;
    let mut head = Command::new("head").arg("-1").stdin(pipe).stdout(Stdio::piped()).spawn()?;
    // Traffic goes on, so that portchurn writes a line after the reader has exited.
    let outcome = until("the end of the stream", LIMIT, || {
        lab.run("client", vec![ScriptStep::churn([addr("127.0.0.1:9001")], 20)])?;
        Ok(stream.try_wait()?)
    });
    if outcome.is_err() {
        stream.kill()?;
        stream.wait()?;
        head.kill()?;
    }
    let head = head.wait_with_output()?;
    let errors = fs::read_to_string(&stderr)?;
    assert_eq!(outcome?.code(), Some(0), "{errors}");
    let line: serde_json::Value =
        serde_json::from_slice(&head.stdout).with_context(|| String::from_utf8_lossy(&head.stdout).into_owned())?;
    assert!(line["type"].is_string(), "{line}");
    assert!(!errors.contains("panicked") && !errors.to_lowercase().contains("broken pipe"), "{errors}");
    Ok(())
}

/// Ids of the BPF programs whose descriptors a process holds.
fn programs_of(pid: u32) -> Result<BTreeSet<u32>> {
    let mut ids = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).context("descriptors")?.flatten() {
        let info = fs::read_to_string(entry.path()).unwrap_or_default();
        let id = |line: &str| line.strip_prefix("prog_id:")?.trim().parse::<u32>().ok();
        ids.extend(info.lines().filter_map(id));
    }
    Ok(ids)
}

/// The BPF programs live as long as the process, however it ends: nothing pins them or keeps them attached.
#[test]
fn nothing_is_left_in_the_kernel() -> Result<()> {
    require!();
    let lab = Lab::new()?;
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL] {
        let mut tracer = Tracer::report(lab.dir())?;
        let running = tracer.running();
        let programs = programs_of(running.pid())?;
        ensure!(programs.len() > 1, "{programs:?}: the check itself is broken");
        running.signal(signal)?;
        running.wait(LIMIT)?;
        // The kernel frees programs after a grace period.
        until("the end of every program", LIMIT, || {
            let loaded: BTreeSet<u32> = loaded_programs().filter_map(|info| info.ok().map(|info| info.id())).collect();
            Ok(programs.is_disjoint(&loaded).then_some(()))
        })
        .with_context(|| format!("after {signal}"))?;
    }
    Ok(())
}

/// The same processes count as one workload or as two.
#[test]
fn by_chooses_what_a_workload_is() -> Result<()> {
    require!();
    let lab = Lab::new()?;
    let _server = lab.serve("server", "127.0.0.1:9001", ServerBehaviour::WaitForPeer)?;
    let start = |by| Tracer::start(lab.dir(), by, &["report", "--json", "--for", "600s", "--by", by]);
    let (by_comm, by_pid) = (start("comm")?, start("pid")?);
    for name in ["one", "two"] {
        lab.run(name, vec![ScriptStep::churn([addr("127.0.0.1:9001")], 5)])?;
    }
    for (tracer, expected) in [(by_comm, vec![10]), (by_pid, vec![5, 5])] {
        let report = tracer.finish_report()?;
        report.assert_complete();
        // Without --by a workload may span namespaces and include the connects of other tests.
        let mut pids: Vec<u64> = Vec::new();
        for workload in &report.workloads {
            let ours = |pid: &Option<u32>| {
                report.attributions(lab.netns()).any(|entry| entry.pid == *pid && entry.connects > 0)
            };
            let connects: u64 =
                workload.pids.iter().filter(|process| ours(&process.pid)).map(|process| process.connects).sum();
            pids.extend(Some(connects).filter(|count| *count > 0));
        }
        assert_eq!(pids, expected);
    }
    Ok(())
}

#[test]
fn a_filter_leaves_out_everybody_else() -> Result<()> {
    require!();
    let (lab, other) = (Lab::new()?, Lab::new()?);
    let filter = format!("netns={}", lab.netns());
    let stream = ["stream", "--json", "--what", "all", "--for", "600s", "dst=:9001", "and", &filter];
    let stream = Tracer::start(lab.dir(), "stream", &stream)?;
    let report = Tracer::start(lab.dir(), "report", &["report", "--json", "--for", "600s", &filter])?;
    for lab in [&lab, &other] {
        let _server = lab.serve("server", "127.0.0.1:9001", ServerBehaviour::WaitForPeer)?;
        lab.run("client", vec![ScriptStep::churn([addr("127.0.0.1:9001"), addr("127.0.0.1:9009")], 8)])?;
    }
    let lines = stream.finish_stream()?;
    let report = report.finish_report()?;
    let events = lines.iter().filter(|line| line.kind != "loss").collect::<Vec<_>>();
    assert!(events.iter().all(|line| line.netns == Some(lab.netns())), "{events:?}");
    assert!(events.iter().all(|line| line.kind != "failure"), "port 9009 was not asked for: {events:?}");
    let flows = events.iter().filter(|line| line.kind == "flow" && line.opened.as_deref() == Some("active"));
    assert_eq!(flows.count(), 4);
    assert!(report.destinations.iter().all(|entry| entry.netns == lab.netns()), "{:?}", report.destinations);
    assert!(report.attributions(other.netns()).next().is_none());
    assert_eq!(report.attributions(lab.netns()).map(|entry| entry.connects).sum::<u64>(), 8);
    Ok(())
}
