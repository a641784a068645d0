//! A live trace from start to its last event.
//!
//! The order matters: capabilities are checked, programs are attached, capabilities are dropped, then threads are started, because a
//! thread inherits the capabilities of the one that starts it. The reader runs before the first list of sockets is taken, so that no socket
//! is missing from both.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use thiserror::Error;

use super::stop::{Patience, Stop};
use super::tracker_thread::{self, TraceObserver};
use super::{knobs, privileges};
use crate::cli::TraceConfig;
use crate::host_clock;
use crate::probe::{self, Host, ProbeError, SocketIterator, attach};
use crate::source::baseline::{self, OwnerScan, Pass, PassScope, RunningPass};
use crate::source::orphan_watch::OrphanWatch;
use crate::source::port_sysctls::PortSysctlWatch;
use crate::source::ring_reader::{ReaderCommand, RingReader};
use crate::stdio::say;
use tracer_core::clock::Clock;
use tracer_core::event::{Event, Ktime};
use tracer_core::host::{Degradation, HostFacts};
use tracer_core::input::TrackerInput;
use tracer_core::recording::{RecordingHeader, header};
use tracer_core::tracker::findings::Thresholds;
use tracer_core::tracker::snapshot::NoticeKinds;
use tracer_core::tracker::{Config, Tracker};

/// Inputs of up to 256 KiB between reader and tracker: 16 MiB, as much again as the default ring buffer. When the queue is full, the
/// reader waits, the ring buffer fills, and the BPF programs count the records that do not fit.
const INPUTS: usize = 64;
/// Commands that wait for the reader: facts of a pass, or the stop.
const COMMANDS: usize = 4;
/// While there are connections, who has them open is looked up this often: descriptors are rarely passed on.
const OWNERS_EVERY: Duration = Duration::from_secs(60);
/// The scan of every /proc/PID/fd takes some 2 us a descriptor. So many times as long as the whole pass lie between two of them, so that
/// they take 1 % of one CPU at most.
const OWNERS_SHARE: u64 = 100;

/// After the request to end, the last list of sockets may take this long. It repairs what a loss has left wrong.
const LAST_LIST: Duration = Duration::from_millis(400);
/// After the request to end, the tracker reads what came before it for this long. A report of a trace that is further behind ends earlier.
const READ_ON: Duration = Duration::from_millis(700);

/// Why a trace cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Capabilities are missing; the text says which, and how to give them.
    #[error("{0}")]
    NotPermitted(String),
    /// The programs could not be loaded or attached.
    #[error("this kernel cannot be traced: {0}")]
    Unsupported(#[source] ProbeError),
}

/// A request to the thread that lists sockets, which otherwise acts on a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaselineRequest {
    /// List all sockets with their owners, for a recording that starts now.
    WithOwners,
    /// End the thread.
    Stop,
}

/// A running trace.
pub struct LiveTrace {
    /// Wall time of the trace's times.
    pub clock: Clock,
    host: HostFacts,
    tracker: Tracker,
    inputs: Receiver<TrackerInput>,
    commands: SyncSender<ReaderCommand>,
    reader: JoinHandle<()>,
    baseline: JoinHandle<()>,
    baseline_requests: mpsc::Sender<BaselineRequest>,
    reconcile: PassScope,
    config: Config,
    begin: Ktime,
    /// Namespaces that the first pass went through, and sockets in them.
    namespaces: usize,
    sockets_at_start: usize,
    sockets: Option<SocketIterator>,
    stop: Stop,
}

/// A trace that has ended.
pub struct FinishedTrace {
    /// The tracker, which has concluded everything.
    pub tracker: Tracker,
    /// The host, and what could not be seen on it.
    pub host: HostFacts,
}

impl LiveTrace {
    /// Attaches the programs, lists the sockets that exist, and reads in the background from then on.
    ///
    /// # Errors
    /// [`StartError`]: capabilities or features of the kernel are missing. Else: the clocks could not be read, capabilities could not be
    /// dropped, a thread could not be started, or `stop` came before anything was traced.
    pub fn start(trace: &TraceConfig, notices: NoticeKinds, stop: &Stop) -> Result<Self> {
        stop.set_patience(Patience::Short);
        let host = Host::collect();
        attach::require(&host).map_err(|error| refused(error, &host))?;
        let mut plan = probe::plan(&host, &trace.probes);
        plan.degraded.extend(privileges::gaps(&host));
        let names = plan.netns_names();
        let session = attach::attach(&host, plan).map_err(|error| refused(error, &host))?;
        let clock = host_clock::sample().context("reading the clocks")?;
        privileges::drop_unneeded()?;
        for note in &session.notes {
            say(note);
        }
        let config = Config {
            by: trace.by,
            thresholds: Thresholds::default(),
            knobs: knobs::knobs(&host),
            time_wait_observed: session.sees_time_wait(),
            calls_observed: session.sees_connects(),
            searches_observed: session.sees_port_searches(),
            notices,
        };
        let mut tracker = Tracker::new(config.clone());
        let begin = host_clock::now();
        tracker.begin(begin);
        let mut facts = HostFacts {
            hostname: Some(host.hostname.clone()),
            kernel: Some(host.kernel.clone()),
            boot_id: host.boot_id.clone(),
            tier: Some(session.tier.name().into()),
            degraded: session.degraded.clone(),
        };
        let (input_sender, inputs) = mpsc::sync_channel(INPUTS);
        let (commands, command_receiver) = mpsc::sync_channel(COMMANDS);
        let sockets = session.sockets.clone();
        let reader = RingReader::new(session, trace.probes.ring_size);
        let reader = std::thread::Builder::new()
            .name("reader".into())
            .spawn(move || {
                privileges::lock();
                reader.run(&command_receiver, &input_sender);
            })
            .context("starting the reader thread")?;
        let scope = PassScope { initial: true, owners: OwnerScan::Always, names };
        let Some(mut first) = wait_for(&baseline::start(scope, sockets.clone()), stop) else {
            bail!("asked to end before the sockets of this host were listed: nothing was traced");
        };
        facts.degraded.extend(first.degradations());
        facts.degraded.extend(first.unlisted.degradation());
        let namespaces = first.namespaces.len();
        let between = BetweenPasses::after(&mut first);
        commands.send(ReaderCommand::Facts(std::mem::take(&mut first.facts))).context("the reader thread has ended")?;
        let (baseline_requests, asked) = mpsc::channel();
        let reconcile = PassScope { initial: false, owners: OwnerScan::ForConnections, ..scope };
        let baseline = reconcile_in_background(commands.clone(), asked, between, reconcile, sockets.clone())?;
        stop.set_patience(Patience::Unlimited);
        Ok(Self {
            clock,
            host: facts,
            tracker,
            inputs,
            commands,
            reader,
            baseline,
            baseline_requests,
            reconcile,
            config,
            begin,
            namespaces,
            sockets_at_start: first.sockets,
            sockets,
            stop: stop.clone(),
        })
    }

    /// Prints on stderr that tracing has begun, as one line that scripts can wait for, and what cannot be seen.
    pub fn ready(&self) {
        say(format_args!(
            "ready: tier {}, {} network namespaces, {} sockets",
            self.host.tier.as_deref().unwrap_or("unknown"),
            self.namespaces,
            self.sockets_at_start
        ));
        for degradation in &self.host.degraded {
            say(format_args!("without {}: {}. Lost: {}", degradation.what, degradation.why, degradation.lost));
        }
    }

    /// The host, and what cannot be seen on it.
    pub fn host(&self) -> &HostFacts {
        &self.host
    }

    /// The header of a recording that begins with the trace.
    pub fn header(&self) -> RecordingHeader {
        let (ktime, unix_ns) = self.clock.anchor();
        RecordingHeader {
            tool: concat!("portchurn ", env!("CARGO_PKG_VERSION")).into(),
            anchor: header::Anchor { ktime_ns: ktime.0, unix_ns },
            begin_ns: self.begin.0,
            host: header::RecordedHost::from(&self.host),
            watch: header::RecordedConfig::from(&self.config),
            continued: false,
            window_ns: None,
            trigger: None,
        }
    }

    /// Where to ask for a list of sockets now.
    pub fn baseline_requests(&self) -> mpsc::Sender<BaselineRequest> {
        self.baseline_requests.clone()
    }

    /// Feeds the tracker until `limit` has passed, the trace is asked to end, or `observer` breaks. Then reads what is left in the ring
    /// buffer, for a limited time, and returns the tracker.
    ///
    /// # Errors
    /// A thread could not be started or panicked.
    pub fn run(self, limit: Option<Duration>, observer: &mut (impl TraceObserver + Send)) -> Result<FinishedTrace> {
        let Self {
            mut host,
            tracker,
            inputs,
            commands,
            reader,
            baseline,
            baseline_requests,
            reconcile,
            sockets,
            stop,
            ..
        } = self;
        privileges::lock();
        let (tracker, listed) = std::thread::scope(|scope| -> Result<_> {
            let (until, over) = (&stop, stop.clone());
            let pump = std::thread::Builder::new().name("tracker".into()).spawn_scoped(scope, move || {
                let tracker = tracker_thread::run(inputs, tracker, &|| is_over(until), observer);
                over.ask();
                tracker
            });
            let pump = pump.context("starting the tracker thread")?;
            stop.wait(limit);
            // The threads may have ended already.
            let _ = baseline_requests.send(BaselineRequest::Stop);
            // The final report is compared with the kernel's own list: what a loss has left wrong is repaired and counted.
            let last = PassScope { owners: OwnerScan::Always, ..reconcile };
            let listed = baseline::start(last, sockets).wait_at_most(LAST_LIST);
            let unlisted = listed.is_none();
            if let Some(pass) = listed {
                let _ = commands.send(ReaderCommand::Facts(pass.facts));
            }
            let _ = commands.send(ReaderCommand::Stop);
            let tracker = pump.join().map_err(|_| anyhow::anyhow!("the tracker thread panicked"))?;
            Ok((tracker, !unlisted))
        })?;
        drop(commands);
        let unread = stop.asked().map_or(0, |asked| asked.ktime.since(tracker.now()));
        host.degraded.extend(end_degradations(unread, listed));
        // Detaching programs and ending a pass take their time, and happen with the end of the process as well.
        for (thread, name) in [(reader, "reader"), (baseline, "reconcile")] {
            if thread.is_finished() && thread.join().is_err() {
                bail!("the {name} thread panicked");
            }
        }
        Ok(FinishedTrace { tracker, host })
    }
}

/// The time for what came before the request is over.
fn is_over(stop: &Stop) -> bool {
    stop.asked().is_some_and(|asked| asked.at.elapsed() > READ_ON)
}

/// Waits for a pass until the end is asked for.
fn wait_for(pass: &RunningPass, stop: &Stop) -> Option<Pass> {
    /// How often the end is looked for; the pass itself is answered at once.
    const LOOK_EVERY: Duration = Duration::from_millis(50);
    loop {
        if let Some(pass) = pass.wait_at_most(LOOK_EVERY) {
            return Some(pass);
        }
        if stop.is_asked() {
            return None;
        }
    }
}

/// What the end of the trace could not wait for.
fn end_degradations(unread_nanos: u64, listed: bool) -> Vec<Degradation> {
    /// The clock of an idle host is handed on ten times a second.
    const TICK_NANOS: u64 = 500_000_000;
    let mut degraded = Vec::new();
    if unread_nanos > TICK_NANOS {
        degraded.push(Degradation::new(
            format!("the last {:.1} s before the end", unread_nanos as f64 / 1e9),
            "the host made records faster than they could be read, and the end could not wait for them",
            "every event of that time: the window ends where reading ended",
        ));
    }
    if !listed {
        degraded.push(Degradation::new(
            "the list of sockets at the end",
            format!("it takes longer than {} ms on this host now", LAST_LIST.as_millis()),
            "repairs of what lost events have left wrong since the last list",
        ));
    }
    degraded
}

fn refused(error: ProbeError, host: &Host) -> StartError {
    match error {
        ProbeError::NotPermitted { missing } => StartError::NotPermitted(privileges::advice(&missing, &host.kernel)),
        error => StartError::Unsupported(error),
    }
}

/// Starts the thread that lists sockets again and again, which repairs what a loss has left wrong and finds new namespaces, and that looks
/// at the port limits and the orphans of the namespaces in between. The time between two passes grows with the cost of a pass.
fn reconcile_in_background(
    commands: SyncSender<ReaderCommand>,
    baseline_requests: Receiver<BaselineRequest>,
    between: BetweenPasses,
    scope: PassScope,
    sockets: Option<SocketIterator>,
) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name("reconcile".into())
        .spawn(move || {
            privileges::lock();
            let mut between = between;
            let mut owners_due = Instant::now();
            loop {
                let wait = between.due().saturating_duration_since(Instant::now());
                let scope = match baseline_requests.recv_timeout(wait) {
                    Err(RecvTimeoutError::Timeout) if Instant::now() < between.pass_due => {
                        let facts = between.look();
                        if !facts.is_empty() && commands.send(ReaderCommand::Facts(facts)).is_err() {
                            return;
                        }
                        continue;
                    }
                    Err(RecvTimeoutError::Timeout) if owners_due > Instant::now() => {
                        PassScope { owners: OwnerScan::Never, ..scope }
                    }
                    Err(RecvTimeoutError::Timeout) => scope,
                    Ok(BaselineRequest::WithOwners) => PassScope { owners: OwnerScan::Always, ..scope },
                    Ok(BaselineRequest::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                };
                // The pass opens the files again: never both, they are many.
                drop(std::mem::take(&mut between.port_sysctls));
                let mut pass = baseline::start(scope, sockets.clone()).wait();
                between.passed(&mut pass);
                if pass.owners {
                    let share = Duration::from_nanos(pass.nanos.saturating_mul(OWNERS_SHARE));
                    owners_due = Instant::now() + share.max(OWNERS_EVERY);
                }
                if commands.send(ReaderCommand::Facts(pass.facts)).is_err() {
                    return;
                }
            }
        })
        .context("starting the reconcile thread")
}

/// What is looked at between two passes, and when.
struct BetweenPasses {
    port_sysctls: PortSysctlWatch,
    port_sysctls_due: Instant,
    orphans: OrphanWatch,
    orphans_due: Instant,
    pass_due: Instant,
}

impl BetweenPasses {
    /// After the first pass, whose facts are still in it.
    fn after(pass: &mut Pass) -> Self {
        let now = Instant::now();
        let mut between = Self {
            port_sysctls: PortSysctlWatch::default(),
            port_sysctls_due: now + PortSysctlWatch::pause_after(Duration::ZERO),
            orphans: OrphanWatch::default(),
            orphans_due: now + OrphanWatch::pause_after(Duration::ZERO),
            pass_due: now,
        };
        between.passed(pass);
        between
    }

    fn passed(&mut self, pass: &mut Pass) {
        self.port_sysctls = PortSysctlWatch::new(std::mem::take(&mut pass.port_sysctls));
        self.orphans.follow(std::mem::take(&mut pass.namespaces), &pass.facts);
        self.pass_due = Instant::now() + baseline::pause_after(pass.nanos);
    }

    /// When there is something to do next.
    fn due(&self) -> Instant {
        self.pass_due.min(self.port_sysctls_due).min(self.orphans_due)
    }

    /// What has changed, of what is due.
    fn look(&mut self) -> Vec<Event> {
        let mut facts = Vec::new();
        let begin = Instant::now();
        if begin >= self.port_sysctls_due {
            facts = self.port_sysctls.changes(host_clock::now());
            self.port_sysctls_due = begin + PortSysctlWatch::pause_after(begin.elapsed());
        }
        let begin = Instant::now();
        if begin >= self.orphans_due {
            facts.extend(self.orphans.changes());
            self.orphans_due = begin + OrphanWatch::pause_after(begin.elapsed());
        }
        facts
    }
}
