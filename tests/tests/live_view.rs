//! The full-screen view in a real terminal, driven with real keys through a whole incident.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portchurn_tests::lab::{Lab, Traffic, addr};
use portchurn_tests::process::{gone, output, until};
use portchurn_tests::reported::ParsedReport;
use portchurn_tests::require;
use portchurn_tests::require::Need;
use portchurn_tests::screen::TestTerminal;
use portchurn_tests::script::{AfterConnect, ConnectMethod, LoggedCall, Script, ScriptStep, ServerBehaviour};
use portchurn_tests::tracer::binary;

const TMUX: Need = Need::Program("tmux", "tmux");
const PORTS: (u16, u16) = (40_000, 40_127);
const POOL: u32 = 20;
const CALLS: u32 = 300;
const EADDRNOTAVAIL: i32 = 99;
/// Limit for the view to end after its terminal has closed, on a busy machine.
const HANG_UP_LIMIT: Duration = Duration::from_secs(15);

/// A pool that holds 20 of 128 ports, and a job that opens and closes one connection per call until no port is free.
struct Incident {
    lab: Lab,
    _backend: Traffic,
    _pool: Traffic,
    legacy: Traffic,
}

impl Incident {
    fn new() -> Result<Self> {
        let lab = Lab::with_ports(PORTS.0, PORTS.1)?;
        lab.ns.sysctl(&[("ipv4/tcp_tw_reuse", "0")])?;
        let backend = lab.serve("backend", "127.0.0.1:9001", ServerBehaviour::WaitForPeer)?;
        let to = vec![addr("127.0.0.1:9001")];
        let hold = vec![
            ScriptStep::connect(to.clone(), POOL, ConnectMethod::Blocking, AfterConnect::Hold),
            lab.wait_for("end"),
        ];
        let mut pool = start(&lab, "checkout-pool", hold)?;
        pool.entry(LoggedCall::Waiting)?;
        let calls = ScriptStep::Connect {
            to,
            times: CALLS,
            via: ConnectMethod::Blocking,
            bind: None,
            reuse_addr: false,
            then: AfterConnect::Close,
            pause_us: 10_000,
        };
        let mut legacy = start(&lab, "legacy-export", vec![lab.wait_for("go"), calls, lab.wait_for("end")])?;
        legacy.entry(LoggedCall::Waiting)?;
        Ok(Self { lab, _backend: backend, _pool: pool, legacy })
    }

    /// Lets the job run to its end and returns how many of its connects found no port.
    fn happen(&mut self) -> Result<u64> {
        self.lab.go("go")?;
        self.legacy.entries(LoggedCall::Waiting, 2)?;
        let log = self.legacy.log()?;
        let failed = log.of(LoggedCall::Connect).filter(|entry| entry.errno == EADDRNOTAVAIL).count();
        let held = u32::from(PORTS.1 - PORTS.0) + 1 - POOL;
        ensure!(failed == usize::try_from(CALLS - held)?, "the scenario itself: {failed} failed");
        Ok(u64::try_from(failed)?)
    }

    /// Starts the view with a filter for this namespace, because other tests run in other namespaces.
    fn watch(&self, name: &str, size: (u16, u16), environment: &str) -> Result<TestTerminal> {
        let command = format!("{environment} '{}' live netns={} 2>{name}.err", binary()?.display(), self.lab.netns());
        let screen = TestTerminal::start(self.lab.dir(), name, size, &command)?;
        screen.shows(&["[1 Overview]", "checkout-pool"])?;
        Ok(screen)
    }
}

fn start(lab: &Lab, name: &str, steps: Vec<ScriptStep>) -> Result<Traffic> {
    let script = Script { log: lab.log_path(name), buffered: false, comm: Some(name.into()), steps };
    lab.start_script(&lab.ns, name, &script)
}

/// The columns after the bar in the destination's row: used, percent, without a port.
fn row(screen: &str) -> Option<(u64, String, u64)> {
    let line = screen.lines().find(|line| line.contains("127.0.0.1:9001") && line.contains('['))?;
    let mut words = line.split([']', '>']).next_back()?.split_whitespace();
    let mut number = || words.next()?.replace(',', "").parse().ok();
    let used = number()?;
    let percent = words.next()?.to_owned();
    let failed = words.next()?.replace(',', "").parse().ok()?;
    Some((used, percent, failed))
}

/// Ports in use and connects without a port of the destination in `report FILE`.
fn reported(recording: &Path, netns: u32) -> Result<(u64, u64)> {
    let text = output(Command::new(binary()?).arg("report").arg(recording).arg("--json"))?;
    let report: ParsedReport = serde_json::from_str(&text).with_context(|| format!("a report: {text:.400}"))?;
    let found = report.destinations.iter().find(|found| found.netns == netns && found.remote_port == 9001);
    let found = found.context("the destination in the report")?;
    Ok((u64::from(found.ports.in_use), found.failed.get("EADDRNOTAVAIL").copied().unwrap_or(0)))
}

/// Directory from which `cargo xtask screenshots` reads.
fn kept() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("screens")
}

#[test]
fn an_incident_is_seen_followed_and_left_at_80x24() -> Result<()> {
    require!(TMUX);
    let mut incident = Incident::new()?;
    let screen = incident.watch("view", (80, 24), "")?;
    let failed = incident.happen()?;
    let full = (128, "100%".to_owned(), failed);
    screen.wait("all failures in the destination's row", |text| row(text) == Some(full.clone()))?;
    screen.shows(&["0 lost", "legacy-export", "BEARS/S"])?;
    screen.keep(&kept(), "overview-80x24")?;

    // The page of the destination, with every port.
    screen.press(&["Tab", "Enter"])?;
    let without = format!("{failed} without a port of {} connects", POOL + CALLS);
    // The pool connected before the trace began.
    let page = screen.shows(&["1st  40000", "2nd  40001", "ESTAB 20", "TIME_WAIT 108", "free 0", "port search"])?;
    ensure!(
        page.contains(&format!("{failed} without a port of {CALLS} connects")) || page.contains(&without),
        "{page}"
    );
    screen.shows(&["legacy-export", "checkout-pool", "128 of 128"])?;
    screen.keep(&kept(), "destination-80x24")?;

    // The page of one flow of the job, from SYN to TIME_WAIT.
    screen.press(&["Tab", "/", "C-u"])?;
    screen.type_text("state=time_wait")?;
    screen.press(&["Enter", "Home", "Enter"])?;
    screen.shows(&["opened by this side", "SYN_SENT", "ESTABLISHED", "FIN_WAIT1", "TIME_WAIT", "legacy-export"])?;
    screen.press(&["/", "C-u", "Enter", "h", "h"])?;
    screen.shows(&["FULL IN"])?;

    // The page of a workload, and back.
    screen.press(&["BTab", "End", "Home", "Enter"])?;
    screen.shows(&["COMMAND LINE", "lifetime", "connects/s"])?;
    screen.press(&["h"])?;

    // The failures, each with the holders at its time, and the advice.
    screen.press(&["3"])?;
    // The server may not have closed the last connection by then.
    screen.shows(&["HELD AT THAT INSTANT: 128 of 128 ports", " TIME_WAIT █", "EADDRNOTAVAIL after"])?;
    screen.press(&["2"])?;
    screen.shows(&["SEVERITY", "DO 1", "expected"])?;
    screen.keep(&kept(), "findings-80x24")?;
    // How many pages are before the evidence depends on the advice.
    let mut pages = 0;
    until("the evidence", Duration::from_secs(30), || {
        if screen.text()?.contains("EVIDENCE") {
            return Ok(Some(()));
        }
        screen.press(&["PageDown"])?;
        pages += 1;
        std::thread::sleep(Duration::from_millis(300));
        ensure!(pages < 20, "{}", screen.text()?);
        Ok(None)
    })?;
    screen.press(&["Escape"])?;
    screen.shows(&["[1 Overview]"])?;
    screen.press(&["q"])?;
    screen.given_back(0)?;
    Ok(())
}

#[test]
fn every_key_answers_at_200x50() -> Result<()> {
    require!(TMUX);
    let mut incident = Incident::new()?;
    let screen = incident.watch("view", (200, 50), "")?;
    let failed = incident.happen()?;
    screen.shows(&["MOST BY", " 128    128 100%", &format!("{failed}      0 ")])?;
    screen.keep(&kept(), "overview-200x50")?;
    screen.press(&["Tab", "Enter"])?;
    screen.shows(&["1 port each", "port search", &format!("{failed} without a port")])?;
    screen.keep(&kept(), "destination-200x50")?;

    // A filter applies while it is typed; an error names its column.
    // In a terminal Escape followed at once by another key means Alt and that key.
    screen.press(&["h", "/", "C-u"])?;
    screen.type_text("comm=checkout* an")?;
    screen.shows(&["found `an`", "^"])?;
    screen.type_text("d state=")?;
    screen.press(&["Escape"])?;
    screen.wait("the old filter", |text| text.contains("filter: netns=") && text.contains("? help"))?;
    screen.press(&["/", "C-u"])?;
    screen.type_text("comm=checkout-pool")?;
    screen.press(&["Enter"])?;
    screen.wait("one workload", |text| !text.contains("> legacy-export") && text.contains("(1 of "))?;

    // Sorting, help, pause.
    screen.press(&["s"])?;
    screen.shows(&["DESTINATIONv"])?;
    screen.press(&["S"])?;
    screen.shows(&["DESTINATION^"])?;
    screen.press(&["?"])?;
    screen.shows(&["start or stop a recording", "copy the row"])?;
    screen.press(&["?", "Space"])?;
    screen.shows(&["PAUSED", "? help"])?;
    screen.press(&["Space"])?;
    screen.wait("going on", |text| !text.contains("PAUSED"))?;

    // The shown page is written to a file, the selection to the clipboard.
    screen.press(&["e"])?;
    let text = screen.shows(&["written: "])?;
    let path = after(&text, "written: ")?;
    let exported = fs::read_to_string(path).with_context(|| path.to_owned())?;
    ensure!(exported.contains("127.0.0.1:9001") && exported.contains("checkout-pool"), "{exported}");
    ensure!(fs::metadata(path)?.permissions().mode() & 0o777 == 0o600, "an export is nobody else's business");
    screen.press(&["y"])?;
    screen.shows(&["copied: "])?;
    let copied = screen.clipboard()?;
    ensure!(copied.contains("127.0.0.1:9001\t127.0.0.1\t"), "{copied}");

    // The mouse: a click on a tab, then two on a row.
    let line = |text: &str, what: &str| {
        let found = text.lines().enumerate().find_map(|(line, text)| Some((line, text.find(what)?)));
        found.with_context(|| format!("{what} on the screen:\n{text}"))
    };
    let (tabs, column) = line(&screen.text()?, "3 Failures")?;
    screen.click(column, tabs)?;
    screen.shows(&["[3 Failures"])?;
    let (tabs, column) = line(&screen.text()?, "1 Overview")?;
    screen.click(column, tabs)?;
    let overview = screen.shows(&["[1 Overview", "checkout-pool"])?;
    let (row, _) = line(&overview, "checkout-pool     ")?;
    screen.click(4, row)?;
    screen.click(4, row)?;
    screen.shows(&["COMMAND LINE"])?;

    // Other sizes: a terminal that is too small gets a message, and the view returns when it grows.
    screen.resize(60, 15)?;
    screen.shows(&["COMMAND LINE", "? help"])?;
    screen.resize(50, 10)?;
    screen.shows(&["needs 60x15"])?;
    screen.resize(300, 100)?;
    screen.shows(&["COMMAND LINE", "? help"])?;
    screen.press(&["C-c"])?;
    screen.given_back(0)?;
    Ok(())
}

#[test]
fn an_incident_is_recorded_from_the_view_and_replayed_in_it() -> Result<()> {
    require!(TMUX);
    let mut incident = Incident::new()?;
    let screen = incident.watch("view", (80, 24), "")?;
    screen.press(&["r"])?;
    let text = screen.shows(&["REC ", "recording into "])?;
    let path = PathBuf::from(after(&text, "recording into ")?);
    let failed = incident.happen()?;
    screen.wait("all failures", |text| row(text).is_some_and(|row| row.2 == failed))?;

    // Quitting in the middle of a recording asks first.
    screen.press(&["q"])?;
    screen.shows(&["Stop the recording and quit?"])?;
    screen.press(&["n"])?;
    screen.wait("no", |text| !text.contains("Stop the recording and quit?"))?;
    screen.press(&["r"])?;
    screen.shows(&["recorded "])?;
    screen.press(&["q"])?;
    screen.given_back(0)?;

    // A replay has the same view and keys, and the numbers of `report`.
    let (in_use, without) = reported(&path, incident.lab.netns())?;
    ensure!(without == failed, "report says {without}, the job {failed}");
    let filter = format!("netns={}", incident.lab.netns());
    let command = format!("'{}' replay --speed max '{}' {filter}", binary()?.display(), path.display());
    for size in [(80, 24), (200, 50)] {
        let name = format!("replay-{}", size.0);
        let replay = TestTerminal::start(incident.lab.dir(), &name, size, &command)?;
        replay.shows(&["REPLAY end max", "127.0.0.1:9001"])?;
        if size.0 == 80 {
            replay.wait("the numbers of the report", |text| {
                row(text).is_some_and(|row| (row.0, row.2) == (in_use, failed))
            })?;
        }
        // To the beginning, to the first failure, one step on, and to the end.
        replay.press(&["Space", "t"])?;
        replay.type_text("0%")?;
        replay.press(&["Enter"])?;
        replay.shows(&["REPLAY PAUSED"])?;
        // The first mark is a finding, which comes before the failure.
        let mut marks = Vec::new();
        while marks.last().is_none_or(|mark: &String| mark != "a connect found no port") {
            anyhow::ensure!(marks.len() < 20, "no failure among the marks: {marks:?}");
            replay.press(&["n"])?;
            let known = marks.last().cloned();
            let text = replay.wait("the next mark", |text| mark(text).is_some() && mark(text) != known)?;
            marks.extend(mark(&text));
        }
        replay.press(&["3"])?;
        replay.shows(&["HELD AT THAT INSTANT: 128 of 128 ports"])?;
        replay.press(&[",", "1", "["])?;
        replay.shows(&["REPLAY PAUSED 600x"])?;
        replay.press(&["]", "t"])?;
        replay.type_text("100%")?;
        replay.press(&["Enter"])?;
        replay.shows(&[&format!(" {failed} ")])?;
        replay.press(&["q"])?;
        replay.given_back(0)?;
    }
    Ok(())
}

#[test]
fn a_killed_view_gives_the_terminal_back() -> Result<()> {
    require!(TMUX);
    let incident = Incident::new()?;
    let signals = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
    let end = |screen: &TestTerminal, signal: Signal| -> Result<()> {
        let pid = screen.pid_of("portchurn")?;
        kill(Pid::from_raw(i32::try_from(pid)?), signal)?;
        screen.given_back(0).with_context(|| signal.to_string()).map(drop)
    };
    let recording = incident.lab.dir().join("short.arrow");
    output(Command::new(binary()?).args(["record", "--for", "1s", "-o"]).arg(&recording))?;
    for signal in signals {
        end(&incident.watch(signal.as_str(), (80, 24), "")?, signal)?;
        let name = format!("replay-{signal}");
        let command = format!("'{}' replay --speed 1 '{}'", binary()?.display(), recording.display());
        let replay = TestTerminal::start(incident.lab.dir(), &name, (80, 24), &command)?;
        replay.shows(&["REPLAY"])?;
        end(&replay, signal).context("replay")?;
    }
    Ok(())
}

#[test]
fn a_view_ends_with_its_terminal() -> Result<()> {
    require!(TMUX);
    let incident = Incident::new()?;
    let live = incident.watch("live", (80, 24), "")?;
    // Nobody can answer the question whether to quit in the middle of a recording.
    live.press(&["r"])?;
    let text = live.shows(&["REC ", "recording into "])?;
    let recording = after(&text, "recording into ")?.to_owned();
    let pid = live.pid_of("portchurn")?;
    live.hang_up()?;
    gone(pid, HANG_UP_LIMIT).context("live")?;
    let report = Command::new(binary()?).arg("report").arg(&recording).output().context("report")?;
    ensure!(report.status.success() && report.stderr.is_empty(), "a damaged recording: {report:?}");

    let command = format!("'{}' replay --speed 1 '{recording}'", binary()?.display());
    let replay = TestTerminal::start(incident.lab.dir(), "replay", (80, 24), &command)?;
    replay.shows(&["REPLAY"])?;
    let pid = replay.pid_of("portchurn")?;
    replay.hang_up()?;
    gone(pid, HANG_UP_LIMIT).context("replay")?;
    Ok(())
}

#[test]
fn a_panic_leaves_its_message_on_a_working_terminal() -> Result<()> {
    require!(TMUX);
    let dir = tempfile::tempdir()?;
    let test = std::env::current_exe()?;
    let found = test.ancestors().skip(1).take(2).map(|dir| dir.join("examples/panicking_view"));
    let example = found.into_iter().find(|path| path.is_file()).context("the example panicking_view")?;
    let screen = TestTerminal::start(dir.path(), "panic", (100, 30), &example.display().to_string())?;
    screen.shows(&["[1 Overview]", "service-"])?;
    let text = screen.given_back(7)?;
    ensure!(text.contains("the tracker came to grief"), "{text}");
    Ok(())
}

#[test]
fn without_rights_the_reason_stands_on_an_untouched_terminal() -> Result<()> {
    require!(TMUX, Need::Program("setpriv", "util-linux"));
    let dir = tempfile::tempdir()?;
    // The other user must be able to read the binary.
    let copy = dir.path().join("portchurn");
    fs::copy(binary()?, &copy)?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    let user = "setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --bounding-set=-all";
    let screen = TestTerminal::start(dir.path(), "view", (100, 30), &format!("{user} {}", copy.display()))?;
    let text = screen.given_back(3)?;
    ensure!(text.contains("portchurn needs CAP_BPF"), "{text}");
    Ok(())
}

#[test]
fn without_colour_and_without_utf8_it_says_the_same() -> Result<()> {
    require!(TMUX);
    let mut incident = Incident::new()?;
    let screen = incident.watch("view", (80, 24), "NO_COLOR=1 LC_ALL=C")?;
    let failed = incident.happen()?;
    screen.wait("all failures", |text| row(text).is_some_and(|row| row.2 == failed))?;
    screen.press(&["Tab", "Enter"])?;
    let text = screen.shows(&["# ESTAB 20", "= TIME_WAIT 108", "1st  40000 "])?;
    ensure!(text.is_ascii(), "{text}");
    let coloured = screen.coloured()?;
    let colours =
        coloured.split("\u{1b}[").skip(1).filter_map(|rest| rest.split_once('m')).any(|(codes, _)| {
            codes.split(';').any(|code| matches!(code.parse::<u32>(), Ok(30..=38 | 40..=48 | 90..=107)))
        });
    ensure!(!colours, "{coloured:?}");
    Ok(())
}

/// The word behind `label` on the screen.
fn after<'a>(text: &'a str, label: &str) -> Result<&'a str> {
    let word = text.split(label).nth(1).and_then(|rest| rest.split_whitespace().next());
    word.with_context(|| format!("a word behind {label:?}"))
}

/// The message after the key `n`.
fn mark(text: &str) -> Option<String> {
    let found = |line: &&str| line.starts_with("new finding: ") || line.starts_with("a connect found no port");
    text.lines().map(str::trim).find(found).map(str::to_owned)
}
