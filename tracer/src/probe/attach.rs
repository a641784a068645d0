//! Loads the programs of a plan and returns what runs. Whether the kernel accepts a program is found out by trying.

use std::os::fd::{AsRawFd as _, RawFd};
use std::sync::{Arc, Mutex, PoisonError};

use aya::maps::{Map, MapData, MapError, PerCpuArray, RingBuf};
use aya::programs::{BtfTracePoint, FEntry, FExit, Program, ProgramError, TracePoint};
use aya::{Btf, Ebpf, EbpfError, EbpfLoader, VerifierLogLevel};
use thiserror::Error;
use tracer_common::Counter;

use super::capabilities::CAPABILITIES;
use super::hooks::{self, BIND, CHAIN, CLASSIC, CONNECT, DESTROYED, Hook, HookKind, Purpose, TIME_WAIT};
use super::plan::{StateHook, no_calls, no_exact, no_socket_facts, no_time_wait};
use super::sockets::SocketIterator;
use super::{Host, Plan};
use tracer_core::host::Degradation;

/// The BPF object, built by build.rs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/portchurn-ebpf"));

/// Why this host cannot be traced.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// Capabilities are missing; the names are separated by commas.
    #[error("the kernel refuses BPF to this process: missing {missing}")]
    NotPermitted {
        /// Their names.
        missing: String,
    },
    /// The kernel refused a map, or the object is damaged.
    #[error("loading the BPF object failed")]
    Load(#[source] Box<EbpfError>),
    /// The kernel refused a program that tracing cannot do without.
    #[error("program {program} could not be loaded or attached to {hook}")]
    Program {
        /// The BPF program.
        program: &'static str,
        /// The kernel point that it attaches to.
        hook: &'static str,
        /// What the kernel answered.
        #[source]
        source: Box<ProgramError>,
    },
    /// The BPF object was built from other sources than this binary.
    #[error("the BPF object has no {name}; it does not match this binary")]
    Mismatch {
        /// The map or program that is missing.
        name: &'static str,
    },
    /// A map of the object cannot be opened.
    #[error("BPF map {name}")]
    Map {
        /// The map.
        name: &'static str,
        /// Why not.
        #[source]
        source: Box<MapError>,
    },
    /// The classic tracepoints need tracefs, and it could not be mounted.
    #[error("tracefs is needed and could not be mounted privately")]
    Tracefs(#[source] nix::Error),
    /// The thread that attaches programs panicked.
    #[error("the thread that attaches programs died")]
    Thread,
}

/// A hook that is attached.
#[derive(Clone, Copy, Debug)]
pub struct HookState {
    /// The hook.
    pub hook: Hook,
    fd: RawFd,
}

/// A program's counters as the kernel keeps them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramStats {
    /// Runs; counted with `kernel.bpf_stats_enabled` only.
    pub run_count: u64,
    /// Nanoseconds that the runs took; measured with `kernel.bpf_stats_enabled` only.
    pub run_nanos: u64,
    /// Runs that the recursion guard skipped.
    pub recursion_misses: u64,
}

impl HookState {
    /// Reads the program's own fdinfo; aya does not expose `recursion_misses`.
    pub fn stats(&self) -> ProgramStats {
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", self.fd)).unwrap_or_default();
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok())
                .unwrap_or_default()
        };
        ProgramStats {
            run_count: field("run_cnt"),
            run_nanos: field("run_time_ns"),
            recursion_misses: field("recursion_misses"),
        }
    }
}

/// How much of TCP can be seen on this kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// fentry and fexit for everything that has them.
    Exact,
    /// Tracepoints for some or all purposes.
    Tracepoint,
    /// One classic tracepoint, without BTF.
    Classic,
}

impl Tier {
    /// Its name in every output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Tracepoint => "tracepoint",
            Self::Classic => "classic",
        }
    }
}

/// Everything loaded and attached. Dropping it detaches.
pub struct Session {
    /// The ring buffer with the records.
    pub ring: RingBuf<MapData>,
    /// What is attached.
    pub hooks: Vec<HookState>,
    /// What could not be attached, and what cannot be seen without it.
    pub degraded: Vec<Degradation>,
    /// How much of TCP is seen.
    pub tier: Tier,
    /// Changes made to the host that the user should know about.
    pub notes: Vec<String>,
    /// Reads what the BPF programs log; `None` if the log cannot be opened.
    pub logger: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
    counters: PerCpuArray<MapData, u64>,
    /// The list of sockets, if the kernel takes its program.
    pub sockets: Option<SocketIterator>,
    ebpf: Arc<Mutex<Ebpf>>,
}

impl Drop for Session {
    /// Detaches every program. Each takes the kernel a grace period or two, which would otherwise delay the end of the process: this way
    /// it happens beside the making of a report. The list of sockets, which has the same object, may go on.
    fn drop(&mut self) {
        let mut ebpf = self.ebpf.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, program) in ebpf.programs_mut() {
            // A program that was not loaded, or that the kernel does not let go, ends with the process.
            let _ = match program {
                Program::TracePoint(program) => program.unload(),
                Program::BtfTracePoint(program) => program.unload(),
                Program::FEntry(program) => program.unload(),
                Program::FExit(program) => program.unload(),
                _ => Ok(()),
            };
        }
    }
}

impl Session {
    fn runs(&self, purpose: &Purpose) -> bool {
        self.hooks.iter().any(|state| purpose.exact.contains(&state.hook) || purpose.tracepoints.contains(&state.hook))
    }

    /// Does it see begin and end of every minisocket?
    pub fn sees_time_wait(&self) -> bool {
        self.runs(&TIME_WAIT)
    }

    /// Does it see the return of every connect()?
    pub fn sees_connects(&self) -> bool {
        self.runs(&CONNECT)
    }

    /// Does it see the end of a port search: the return of connect(), or the first timer that connect() arms?
    pub fn sees_port_searches(&self) -> bool {
        self.hooks
            .iter()
            .any(|state| CONNECT.exact.contains(&state.hook) || TIME_WAIT.tracepoints.contains(&state.hook))
    }

    /// Sum of a counter over all CPUs.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.counters.get(&(counter as u32), 0).map(|values| values.iter().sum()).unwrap_or_default()
    }

    /// `recursion_misses` of the chain's first link, and of all programs outside the chain together.
    pub fn missed(&self) -> (u64, u64) {
        let mut missed = (0, 0);
        for hook in &self.hooks {
            let count = hook.stats().recursion_misses;
            if hook.hook == CHAIN[0] {
                missed.0 = count;
            } else if !CHAIN.contains(&hook.hook) {
                missed.1 += count;
            }
        }
        missed
    }
}

/// Loads and attaches. Blocks for about 50 ms.
///
/// # Errors
/// [`ProbeError`] if not even state transitions can be traced.
pub fn attach(host: &Host, plan: Plan) -> Result<Session, ProbeError> {
    require(host)?;
    if plan.mount_tracefs {
        // In a mount namespace of a thread of its own, so that the host does not keep the mount.
        return std::thread::scope(|scope| {
            scope.spawn(|| attach_with_tracefs(host, plan)).join().map_err(|_| ProbeError::Thread)?
        });
    }
    load(host, &plan, Vec::new())
}

/// Checks that the process has the capabilities without which nothing is traced (`CAP_SYS_ADMIN` stands in for them).
///
/// # Errors
/// [`ProbeError::NotPermitted`] with those that are missing.
pub fn require(host: &Host) -> Result<(), ProbeError> {
    let required = CAPABILITIES.iter().filter(|needed| needed.required && !host.has("CAP_SYS_ADMIN"));
    let missing: Vec<_> = required.map(|needed| needed.name).filter(|name| !host.has(name)).collect();
    if missing.is_empty() { Ok(()) } else { Err(ProbeError::NotPermitted { missing: missing.join(" and ") }) }
}

fn attach_with_tracefs(host: &Host, mut plan: Plan) -> Result<Session, ProbeError> {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    let mounted = unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>))
        .and_then(|()| mount(Some("tracefs"), "/sys/kernel/tracing", Some("tracefs"), MsFlags::empty(), None::<&str>));
    match mounted {
        Ok(()) => load(
            host,
            &plan,
            vec![
                "tracefs was not mounted: portchurn mounted it for itself alone, invisible to the rest of the host"
                    .into(),
            ],
        ),
        Err(error) if plan.state == StateHook::Chain => {
            plan.calls = Err(format!(
                "tracefs is not mounted and mounting it failed ({error}); mount -t tracefs tracefs /sys/kernel/tracing"
            ));
            load(host, &plan, Vec::new())
        }
        Err(error) => Err(ProbeError::Tracefs(error)),
    }
}

fn load(host: &Host, plan: &Plan, notes: Vec<String>) -> Result<Session, ProbeError> {
    let limited = !raise_memlock(host);
    let btf = (plan.state == StateHook::Chain)
        .then(Btf::from_sys_fs)
        .transpose()
        .map_err(|error| ProbeError::Load(Box::new(error.into())))?;
    // 5.10 has no bpf_get_socket_cookie in tracing programs: only the verifier knows.
    match load_with(plan, btf.as_ref(), true, notes.clone()) {
        Err(ProbeError::Program { program, .. }) if program == CHAIN[0].program => {
            let mut session = load_with(plan, btf.as_ref(), false, notes)?;
            session.degraded.push(Degradation::new(
                "bpf_get_socket_cookie in tracing programs",
                "this kernel (before 5.12) does not offer it",
                "nothing certain: sockets are told apart by cookies that sock_diag gave them, else by 4-tuple and address",
            ));
            Ok(session)
        }
        Err(ProbeError::Load(error)) if limited && is_refusal(error.as_ref()) => Err(ProbeError::NotPermitted {
            missing: format!(
                "CAP_SYS_RESOURCE, because before Linux 5.11 BPF memory counts against the memlock limit, which is {} KiB here,",
                host.memlock.unwrap_or_default() / 1024
            ),
        }),
        result => result,
    }
}

/// Is EPERM the cause of the error?
fn is_refusal(error: &(dyn std::error::Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .filter_map(|error| error.downcast_ref::<std::io::Error>())
        .any(|error| error.raw_os_error() == Some(nix::errno::Errno::EPERM as i32))
}

/// The BPF object with a plan's settings, none of its programs loaded yet.
///
/// # Errors
/// The kernel refuses one of its maps.
pub fn object(plan: &Plan, btf: Option<&Btf>, cookie: bool, log: VerifierLogLevel) -> Result<Ebpf, ProbeError> {
    let handler = plan.timers.clone().unwrap_or(0);
    let have_cookie = u8::from(cookie);
    let have_task_regs = u8::from(plan.task_regs);
    let entries = plan.offsets.entries();
    let mut loader = EbpfLoader::new();
    loader
        .btf(btf)
        .verifier_log_level(log)
        .map_max_entries("EVENTS", plan.ring_size)
        .override_global("TW_TIMER_HANDLER", &handler, true)
        .override_global("HAVE_COOKIE", &have_cookie, true)
        .override_global("HAVE_TASK_REGS", &have_task_regs, true)
        .override_global("CGROUP_V1_SUBSYS", &plan.cgroup_v1_subsys, true);
    for (global, _, offset) in &entries {
        // A global that no program reads is not in the object.
        loader.override_global(global, offset, false);
    }
    loader.load(OBJECT).map_err(|error| ProbeError::Load(Box::new(error)))
}

fn load_with(plan: &Plan, btf: Option<&Btf>, cookie: bool, notes: Vec<String>) -> Result<Session, ProbeError> {
    let mut ebpf = object(plan, btf, cookie, VerifierLogLevel::default())?;
    let mut hooks = Vec::new();
    let mut degraded = plan.degraded.clone();
    // TIME_WAIT and names first, so that the first transition finds both attached.
    let exact = if plan.state == StateHook::Chain {
        attach_purposes(&mut ebpf, btf, plan, &mut hooks, &mut degraded)
    } else {
        degraded.extend([no_time_wait("needs BTF"), no_calls(&["connect", "bind", "listen", "accept"], "needs BTF")]);
        false
    };
    match plan.state {
        StateHook::Chain => {
            // Verifying takes milliseconds. A first link without the others would lose what the recursion guard skips meanwhile.
            for hook in CHAIN {
                verify(&mut ebpf, btf, hook)?;
            }
            for hook in CHAIN {
                hooks.push(start(&mut ebpf, btf, hook)?);
            }
            if let Err(error) = try_group(&mut ebpf, btf, &[DESTROYED], &mut hooks) {
                degraded.push(Degradation::new(
                    "tcp_destroy_sock tracepoint",
                    chain(&error),
                    "the moment at which a bound socket gives its port back; reconciled with sock_diag",
                ));
            }
        }
        StateHook::Classic => hooks.push(start(&mut ebpf, btf, CLASSIC)?),
    }
    let ring = RingBuf::try_from(take(&mut ebpf, "EVENTS")?)
        .map_err(|source| ProbeError::Map { name: "EVENTS", source: Box::new(source) })?;
    let counters = PerCpuArray::try_from(take(&mut ebpf, "COUNTERS")?)
        .map_err(|source| ProbeError::Map { name: "COUNTERS", source: Box::new(source) })?;
    let logger = aya_log::EbpfLogger::init(&mut ebpf).ok();
    let tier = match plan.state {
        StateHook::Classic => Tier::Classic,
        StateHook::Chain if exact => Tier::Exact,
        StateHook::Chain => Tier::Tracepoint,
    };
    let sockets = match (plan.state, btf) {
        (StateHook::Chain, Some(btf)) => match SocketIterator::load(&mut ebpf, btf) {
            Ok(()) => true,
            Err(error) => {
                degraded.push(no_socket_facts(chain(&error)));
                false
            }
        },
        _ => false,
    };
    let ebpf = Arc::new(Mutex::new(ebpf));
    let sockets = sockets.then(|| SocketIterator::new(Arc::clone(&ebpf), !cookie));
    Ok(Session { ring, hooks, degraded, tier, notes, logger, counters, sockets, ebpf })
}

/// Attaches for each purpose the hooks that the kernel accepts, exact ones first; true if the exact ones were accepted for all.
fn attach_purposes(
    ebpf: &mut Ebpf,
    btf: Option<&Btf>,
    plan: &Plan,
    hooks: &mut Vec<HookState>,
    degraded: &mut Vec<Degradation>,
) -> bool {
    let mut refused: Vec<(&str, String)> = Vec::new();
    let mut unseen: Vec<(&str, String)> = Vec::new();
    let listen = hooks::listen(plan.listen_parameters);
    for purpose in [TIME_WAIT, CONNECT, BIND, listen, hooks::accept(plan.accept_parameters)] {
        let time_wait = purpose.name == TIME_WAIT.name;
        let possible = match &plan.minisockets {
            Err(why) if time_wait => Err(why.clone()),
            _ if !plan.exact => Err("not asked for".to_owned()),
            _ if purpose.exact.is_empty() => Err("this kernel's function for it is of an unknown form".to_owned()),
            _ => Ok(()),
        };
        match possible.and_then(|()| try_group(ebpf, btf, purpose.exact, hooks).map_err(|error| chain(&error))) {
            Ok(()) => continue,
            Err(why) => refused.push((purpose.name, why)),
        }
        let possible = if time_wait { plan.timers.clone().map(drop) } else { plan.calls.clone() };
        let attached =
            possible.and_then(|()| try_group(ebpf, btf, purpose.tracepoints, hooks).map_err(|error| chain(&error)));
        match attached {
            Err(why) if time_wait => degraded.push(no_time_wait(why)),
            Err(why) => unseen.push((purpose.name, why)),
            Ok(()) => {}
        }
    }
    let names = |list: &[(&'static str, String)]| list.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    if let Some((_, why)) = unseen.first() {
        degraded.push(no_calls(&names(&unseen), why.clone()));
    }
    if let Some((_, why)) = refused.first().filter(|_| plan.exact) {
        degraded.push(no_exact(&names(&refused), why.clone()));
    }
    let told = |hook: &str| hooks.iter().any(|state| state.hook.hook == hook);
    if !told("tcp_v4_connect") && !told("timer_start") {
        degraded.push(Degradation::new(
            "the end of connect()'s port search",
            "neither tcp_v4_connect nor timers can be traced",
            "how long connect() searches for a port, and the early warning by it",
        ));
    }
    refused.is_empty()
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, ProbeError> {
    ebpf.take_map(name).ok_or(ProbeError::Mismatch { name })
}

/// Attaches all hooks of a group or none.
fn try_group(ebpf: &mut Ebpf, btf: Option<&Btf>, group: &[Hook], hooks: &mut Vec<HookState>) -> Result<(), ProbeError> {
    let before = hooks.len();
    for &hook in group {
        match start(ebpf, btf, hook) {
            Ok(state) => hooks.push(state),
            Err(error) => {
                for started in hooks.drain(before..) {
                    // Unloading closes the links. It fails if the program is not loaded, which is just as good.
                    let _ = match ebpf.program_mut(started.hook.program) {
                        Some(Program::TracePoint(program)) => program.unload(),
                        Some(Program::BtfTracePoint(program)) => program.unload(),
                        Some(Program::FEntry(program)) => program.unload(),
                        Some(Program::FExit(program)) => program.unload(),
                        _ => Ok(()),
                    };
                }
                return Err(error);
            }
        }
    }
    Ok(())
}

fn start(ebpf: &mut Ebpf, btf: Option<&Btf>, hook: Hook) -> Result<HookState, ProbeError> {
    let program = ebpf.program_mut(hook.program).ok_or(ProbeError::Mismatch { name: hook.program })?;
    let attached = match (hook.kind, btf) {
        (HookKind::Tracepoint(category), _) => start_classic(program, hook, category),
        (HookKind::BtfTracepoint, Some(btf)) => start_btf(program, hook, btf),
        (HookKind::Fentry, Some(btf)) => start_fentry(program, hook, btf),
        (HookKind::Fexit, Some(btf)) => start_fexit(program, hook, btf),
        (_, None) => return Err(ProbeError::Mismatch { name: hook.program }),
    };
    attached.map(|fd| HookState { hook, fd }).map_err(|source| ProbeError::Program {
        program: hook.program,
        hook: hook.hook,
        source: Box::new(source),
    })
}

/// Loads the program of a link without attaching it.
fn verify(ebpf: &mut Ebpf, btf: Option<&Btf>, hook: Hook) -> Result<(), ProbeError> {
    let (Some(program), Some(btf)) = (ebpf.program_mut(hook.program), btf) else {
        return Err(ProbeError::Mismatch { name: hook.program });
    };
    load_btf(program, hook, btf).map(drop).map_err(|source| ProbeError::Program {
        program: hook.program,
        hook: hook.hook,
        source: Box::new(source),
    })
}

/// The program of a hook, loaded now if it was not yet.
fn load_btf<'a>(program: &'a mut Program, hook: Hook, btf: &Btf) -> Result<&'a mut BtfTracePoint, ProgramError> {
    let program: &mut BtfTracePoint = program.try_into()?;
    match program.load(hook.hook, btf) {
        Ok(()) | Err(ProgramError::AlreadyLoaded) => Ok(program),
        Err(error) => Err(error),
    }
}

fn start_btf(program: &mut Program, hook: Hook, btf: &Btf) -> Result<RawFd, ProgramError> {
    let program = load_btf(program, hook, btf)?;
    program.attach()?;
    Ok(program.fd()?.as_fd_raw())
}

fn start_classic(program: &mut Program, hook: Hook, category: &str) -> Result<RawFd, ProgramError> {
    let program: &mut TracePoint = program.try_into()?;
    program.load()?;
    program.attach(category, hook.hook)?;
    Ok(program.fd()?.as_fd_raw())
}

fn start_fentry(program: &mut Program, hook: Hook, btf: &Btf) -> Result<RawFd, ProgramError> {
    let program: &mut FEntry = program.try_into()?;
    program.load(hook.hook, btf)?;
    program.attach()?;
    Ok(program.fd()?.as_fd_raw())
}

fn start_fexit(program: &mut Program, hook: Hook, btf: &Btf) -> Result<RawFd, ProgramError> {
    let program: &mut FExit = program.try_into()?;
    program.load(hook.hook, btf)?;
    program.attach()?;
    Ok(program.fd()?.as_fd_raw())
}

trait AsFdRaw {
    fn as_fd_raw(&self) -> RawFd;
}

impl AsFdRaw for aya::programs::ProgramFd {
    fn as_fd_raw(&self) -> RawFd {
        use std::os::fd::AsFd as _;
        self.as_fd().as_raw_fd()
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    // A refusal before verification comes with an empty log.
    text.lines()
        .take(3)
        .collect::<Vec<_>>()
        .join(" ")
        .trim()
        .trim_end_matches("Verifier output:")
        .trim_end_matches([' ', '.'])
        .to_owned()
}

/// Before 5.11 BPF memory counts against `RLIMIT_MEMLOCK`. False where it could not be raised, for want of `CAP_SYS_RESOURCE`.
fn raise_memlock(host: &Host) -> bool {
    use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
    host.memlock.is_none() || setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).is_ok()
}
