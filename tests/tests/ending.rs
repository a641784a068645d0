//! Every command ends within two seconds of a signal on a loaded host, with a report or a file that is whole, and no closed terminal or
//! pipe makes it panic.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::time::ClockId;
use nix::unistd::Pid;
use portchurn_tests::lab::{LIMIT, Lab};
use portchurn_tests::load::{namespace, sibling};
use portchurn_tests::netns::TestNamespace;
use portchurn_tests::process::{Running, gone, output, until};
use portchurn_tests::require;
use portchurn_tests::require::Need;
use portchurn_tests::screen::TestTerminal;
use portchurn_tests::tracer::{Tracer, binary};

/// From the signal to the end of the process.
const ENDS_WITHIN: Duration = Duration::from_secs(2);
/// How much longer than alone the work of a thread may take beside [`LoadedHost`].
const OWN_LOAD: f64 = 4.0;
/// The same for a second signal.
const AT_ONCE: Duration = Duration::from_millis(500);

/// A host with 12,000 connections a second, which leave 720,000 minisockets to list.
struct LoadedHost {
    _flood: Running,
    _ns: TestNamespace,
}

impl LoadedHost {
    fn new(lab: &Lab) -> Result<Self> {
        let ns = namespace()?;
        let mut flood = ns.command(sibling("flood")?);
        flood.args(["--connections", "100000000", "--destinations", "2000", "--rate", "12000"]);
        Ok(Self { _flood: Running::start(flood, lab.dir(), "flood")?, _ns: ns })
    }
}

/// How many times longer than beside the load of these tests alone a thread takes for its work, because others want the CPU as well.
fn others() -> Result<f64> {
    const WORK: Duration = Duration::from_millis(50);
    let thread = || Ok::<_, nix::Error>(Duration::from(ClockId::CLOCK_THREAD_CPUTIME_ID.now()?));
    let (began, start) = (Instant::now(), thread()?);
    while thread()?.saturating_sub(start) < WORK {}
    let longer = began.elapsed().as_secs_f64() / WORK.as_secs_f64();
    Ok((longer / OWN_LOAD).max(1.0))
}

/// Sends the signal and returns how the process ended, which it must do in time. Where even more wants the CPU than the load of the test,
/// it has more time.
fn ends(running: &mut Running, signal: Signal, within: Duration) -> Result<ExitStatus> {
    let began = Instant::now();
    running.signal(signal)?;
    let status = running.wait(LIMIT)?;
    let took = began.elapsed();
    let others = others()?;
    eprintln!("{signal}: ended after {} ms, others x {others:.1}", took.as_millis());
    ensure!(took <= within.mul_f64(others), "{signal}: ended after {took:?}, others x {others}: {}", running.stderr());
    ensure!(!running.stderr().contains("panicked"), "{}", running.stderr());
    Ok(status)
}

fn command(arguments: &[&str]) -> Result<Command> {
    let mut command = Command::new(binary()?);
    command.args(arguments);
    Ok(command)
}

/// A recording must be whole: nothing on stderr.
fn assert_whole(recording: &Path) -> Result<()> {
    let report = Command::new(binary()?).args(["report", "--json"]).arg(recording).output()?;
    ensure!(report.status.success() && report.stderr.is_empty(), "a damaged recording: {report:?}");
    serde_json::from_slice::<serde_json::Value>(&report.stdout).context("a report").map(drop)
}

#[test]
fn a_trace_on_a_loaded_host_ends_within_two_seconds() -> Result<()> {
    require!();
    let lab = Lab::new()?;
    let _load = LoadedHost::new(&lab)?;
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let mut report = Tracer::report(lab.dir())?;
        std::thread::sleep(Duration::from_secs(2));
        let status = ends(report.running(), signal, ENDS_WITHIN).context("report")?;
        ensure!(status.code() == Some(0), "{status}");
        let report: serde_json::Value = serde_json::from_str(&report.running().stdout()).context("a report")?;
        ensure!(report["events"]["read"].as_u64().is_some_and(|count| count > 1_000), "{}", report["events"]);

        let mut stream = Tracer::stream(lab.dir(), "transitions")?;
        std::thread::sleep(Duration::from_secs(1));
        let status = ends(stream.running(), signal, ENDS_WITHIN).context("stream")?;
        ensure!(status.code() == Some(0), "{status}");
        stream.lines()?;

        let file = lab.file(&format!("{signal}.arrow"));
        let mut record = Tracer::start(lab.dir(), "record", &["record", "-o", &file.display().to_string()])?;
        std::thread::sleep(Duration::from_secs(2));
        let status = ends(record.running(), signal, ENDS_WITHIN).context("record")?;
        ensure!(status.code() == Some(0), "{status}");
        assert_whole(&file)?;
    }
    let mut timed = Tracer::start(lab.dir(), "report", &["report", "--json", "--for", "3s"])?;
    let ready = Instant::now();
    let status = timed.running().wait(LIMIT)?;
    let took = ready.elapsed();
    ensure!(status.success() && took < Duration::from_secs(3) + ENDS_WITHIN, "{status} after {took:?}");
    Ok(())
}

#[test]
fn a_command_that_reads_a_recording_ends_within_two_seconds() -> Result<()> {
    require!();
    let lab = Lab::new()?;
    let load = LoadedHost::new(&lab)?;
    let file = lab.file("a.arrow").display().to_string();
    output(&mut command(&["record", "--for", "6s", "-o", &file])?)?;
    drop(load);
    let _load = LoadedHost::new(&lab)?;
    let parquet = lab.file("a.parquet");
    let export = ["export", &file, "--format", "parquet", "-o", &parquet.display().to_string(), "--force"];
    for (arguments, code) in [(&["replay", &file, "--speed", "1"][..], Some(0)), (&export, Some(1))] {
        let mut running = Running::start(command(arguments)?, lab.dir(), "reader")?;
        std::thread::sleep(Duration::from_millis(500));
        if running.ended()?.is_some() {
            continue;
        }
        let status = ends(&mut running, Signal::SIGINT, ENDS_WITHIN).with_context(|| arguments[0].to_owned())?;
        ensure!(status.code() == code, "{arguments:?}: {status}: {}", running.stderr());
    }
    // What an interrupted export has written is a whole file: its footer ends it.
    let bytes = fs::read(&parquet)?;
    ensure!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"), "no Parquet file");
    // These have nothing to finish: they end as any program does, and never with the code of an answer. A shell that starts the tests in the
    // background has SIGINT ignored for all that they start, so it is SIGTERM.
    for arguments in
        [&["report", &file][..], &["check", &file, "--fail-if", "port-exhaustion"], &["diff", &file, &file]]
    {
        let mut running = Running::start(command(arguments)?, lab.dir(), "reader")?;
        if running.ended()?.is_none() {
            let status = ends(&mut running, Signal::SIGTERM, ENDS_WITHIN).with_context(|| arguments[0].to_owned())?;
            ensure!(status.code().is_none(), "{arguments:?}: {status}");
        }
    }
    Ok(())
}

/// Starts a command whose stdout is a pipe that nobody reads.
fn into_a_full_pipe(lab: &Lab, arguments: &[&str]) -> Result<(std::process::Child, std::process::ChildStdout)> {
    let stderr = lab.file("full.err");
    let mut child = command(arguments)?
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(&stderr)?)
        .spawn()
        .context("portchurn")?;
    let pipe = child.stdout.take().context("a pipe")?;
    until("the ready line", LIMIT, || Ok(fs::read_to_string(&stderr)?.contains("ready").then_some(())))?;
    Ok((child, pipe))
}

/// `portchurn stream | less`, and less shows its first page.
#[test]
fn a_reader_that_takes_no_more_does_not_hold_up_the_end_of_a_stream() -> Result<()> {
    require!();
    let lab = Lab::new()?;
    let _load = LoadedHost::new(&lab)?;
    let (mut child, pipe) = into_a_full_pipe(&lab, &["stream", "--json", "--what", "transitions"])?;
    std::thread::sleep(Duration::from_secs(2));
    let began = Instant::now();
    kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGINT)?;
    let ended = until("the end of the stream", LIMIT, || Ok(child.try_wait()?));
    let took = began.elapsed();
    if ended.is_err() {
        child.kill()?;
        child.wait()?;
    }
    drop(pipe);
    let status = ended?;
    ensure!(status.code() == Some(130) && took <= ENDS_WITHIN.mul_f64(others()?), "{status} after {took:?}");
    Ok(())
}

/// The report waits for its reader, because half a report is none, until somebody insists.
#[test]
fn a_second_signal_ends_a_command_at_once() -> Result<()> {
    require!();
    let lab = Lab::new()?;
    let servers = lab.serve("server", "127.0.0.1:9001", portchurn_tests::script::ServerBehaviour::WaitForPeer)?;
    // More destinations than the text of a pipe's buffer has room for.
    let many = (1..=250).map(|last| format!("127.0.1.{last}:9001").parse()).collect::<Result<Vec<_>, _>>()?;
    let (mut child, mut pipe) = into_a_full_pipe(&lab, &["report", "--json", "--for", "600s"])?;
    lab.run("client", vec![portchurn_tests::script::ScriptStep::churn(many, 1_000)])?;
    drop(servers);
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    kill(pid, Signal::SIGTERM)?;
    std::thread::sleep(Duration::from_millis(2_500));
    let waits = child.try_wait()?.is_none();
    let began = Instant::now();
    kill(pid, Signal::SIGINT)?;
    let ended = until("the end of the report", LIMIT, || Ok(child.try_wait()?));
    let took = began.elapsed();
    let mut text = String::new();
    if ended.is_err() {
        child.kill()?;
        child.wait()?;
    }
    pipe.read_to_string(&mut text)?;
    ensure!(waits, "the report fitted into the pipe: {} bytes", text.len());
    ensure!(ended?.code() == Some(130) && took <= AT_ONCE, "after {took:?}");
    Ok(())
}

/// Every command with a stdout and a stderr that nobody reads, as after `ssh host portchurn ... | head` was cut.
#[test]
fn a_closed_pipe_makes_no_command_panic() -> Result<()> {
    require!();
    let lab = Lab::new()?;
    let file = lab.file("a.arrow").display().to_string();
    output(&mut command(&["record", "--for", "1s", "-o", &file])?)?;
    let (second, copy) = (lab.file("b.arrow").display().to_string(), lab.file("c.arrow").display().to_string());
    for arguments in [
        &["report", "--json", "--for", "1s"][..],
        &["report", &file],
        &["stream", "--for", "1s"],
        &["record", "--for", "1s", "--report", "-o", &second],
        &["replay", &file],
        &["export", &file, "--format", "csv"],
        &["export", &file, "--format", "arrow", "-o", &copy],
        &["diff", &file, &file],
        &["check", &file, "--fail-if", "port-exhaustion"],
        &["doctor"],
        &["demo"],
        &["report", "/no/such/file"],
        &["--help"],
        &["report", "--no-such-option"],
    ] {
        let mut child = command(arguments)?
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("portchurn")?;
        drop((child.stdout.take(), child.stderr.take()));
        let ended = until("the end", LIMIT, || Ok(child.try_wait()?));
        if ended.is_err() {
            child.kill()?;
            child.wait()?;
        }
        let status = ended.with_context(|| format!("{arguments:?}"))?;
        ensure!(status.code().is_some_and(|code| code != 101), "{arguments:?}: {status}");
    }
    assert_whole(&PathBuf::from(second))
}

/// A terminal that is closed sends HUP, and every write to it fails with EIO from then on.
#[test]
fn a_closed_terminal_ends_a_command_and_nohup_keeps_it() -> Result<()> {
    require!(Need::Program("tmux", "tmux"));
    let lab = Lab::new()?;
    let _load = LoadedHost::new(&lab)?;
    let program = binary()?.display().to_string();
    for (name, arguments, shown) in [
        ("report", "report --for 600s", "ready: "),
        ("stream", "stream --what failures", "ready: "),
        ("record", "record -o closed.arrow", "recording "),
        ("live", "live", "Overview"),
    ] {
        let terminal = TestTerminal::start(lab.dir(), name, (100, 30), &format!("{program} {arguments}"))?;
        terminal.shows(&[shown])?;
        let pid = terminal.pid_of("portchurn")?;
        std::thread::sleep(Duration::from_secs(1));
        let began = Instant::now();
        terminal.hang_up()?;
        gone(pid, LIMIT).context(name)?;
        let took = began.elapsed();
        eprintln!("{name}: ended {} ms after its terminal", took.as_millis());
        ensure!(took <= ENDS_WITHIN.mul_f64(others()?), "{name}: {took:?}");
    }
    assert_whole(&lab.file("closed.arrow"))?;

    let kept = lab.file("kept.arrow");
    let command = format!("trap '' HUP; {program} record -o kept.arrow");
    let terminal = TestTerminal::start(lab.dir(), "nohup", (100, 30), &command)?;
    terminal.shows(&["ready: "])?;
    let pid = terminal.pid_of("portchurn")?;
    terminal.hang_up()?;
    std::thread::sleep(Duration::from_secs(2));
    ensure!(Path::new(&format!("/proc/{pid}/exe")).exists(), "it was told to ignore HUP");
    kill(Pid::from_raw(i32::try_from(pid)?), Signal::SIGTERM)?;
    gone(pid, ENDS_WITHIN).context("after TERM")?;
    assert_whole(&kept)
}
