//! Assumptions about the kernel: prototypes of the hooks, layouts of records, the verifier's verdict on every program,
//! and tracing without BTF.
//!
//! `cargo xtask e2e vm --all` runs these tests on every supported kernel; a single kernel proves little.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use aya::programs::{Program as Loaded, ProgramError};
use aya::{Btf, Ebpf, VerifierLogLevel};
use btfparse::{Readable, TypeInformation, TypeVariant};
use e2e_protocol::VerifiedProgram;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use portchurn_tests::compare::logged;
use portchurn_tests::hooks::{self, AttachType, DeclaredProgram, KernelVersion, Prototype, canonical};
use portchurn_tests::lab::{Lab, addr};
use portchurn_tests::require;
use portchurn_tests::require::Need;
use portchurn_tests::script::{AfterConnect, ConnectMethod, ScriptStep, ServerBehaviour};
use portchurn_tests::tracer::{Tracer, binary};
use tracer::probe::attach::object;
use tracer::probe::{Host, Options, plan};

type Result = anyhow::Result<()>;

const TRACING: &str = "/sys/kernel/tracing";

fn programs() -> anyhow::Result<Vec<DeclaredProgram>> {
    hooks::programs(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tracer-ebpf/src/probes"))
}

struct Bytes(Vec<u8>);

impl Readable for Bytes {
    fn read(&self, offset: u64, buffer: &mut [u8]) -> btfparse::Result<()> {
        let past_the_end = || btfparse::Error::new(btfparse::ErrorKind::IOError, "past the end");
        let start = usize::try_from(offset).map_err(|_| past_the_end())?;
        let bytes = self.0.get(start..).and_then(|rest| rest.get(..buffer.len())).ok_or_else(past_the_end)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

/// Return types and parameters of tracepoints and functions in this kernel's BTF.
struct Types {
    all: TypeInformation,
    tracepoints: BTreeMap<String, u32>,
    functions: BTreeMap<String, u32>,
}

impl Types {
    fn read() -> anyhow::Result<Self> {
        let bytes = Bytes(fs::read("/sys/kernel/btf/vmlinux")?);
        let all = TypeInformation::new(&bytes).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let (mut tracepoints, mut functions) = (BTreeMap::new(), BTreeMap::new());
        for found in all.get().values() {
            match found {
                TypeVariant::Typedef(alias) => {
                    if let Some(name) = alias.name().as_deref().and_then(|name| name.strip_prefix("btf_trace_")) {
                        tracepoints.insert(name.to_owned(), *alias.tid());
                    }
                }
                TypeVariant::Func(function) => {
                    if let Some(name) = function.name() {
                        functions.insert(name.clone(), *function.prototype_tid());
                    }
                }
                _ => {}
            }
        }
        Ok(Self { all, tracepoints, functions })
    }

    fn of(&self, id: u32) -> anyhow::Result<TypeVariant> {
        self.all.from_id(id).with_context(|| format!("type {id}"))
    }

    /// Prototype of a hook; `None` if this kernel does not have it.
    fn prototype(&self, program: &DeclaredProgram) -> anyhow::Result<Option<(String, Vec<String>)>> {
        let tracepoint = matches!(program.kind, AttachType::Btf | AttachType::Classic);
        let hooks = if tracepoint { &self.tracepoints } else { &self.functions };
        let Some(&(mut id)) = hooks.get(&program.hook) else { return Ok(None) };
        if let TypeVariant::Ptr(pointer) = self.of(id)? {
            id = *pointer.tid();
        }
        let TypeVariant::FuncProto(function) = self.of(id)? else { bail!("{} is no function", program.hook) };
        // The first parameter of a tracepoint's callback is its own data.
        let parameters = function.parameter_list().iter().skip(usize::from(tracepoint));
        let parameters = parameters.map(|one| Ok(canonical(&self.name(one.tid())?))).collect::<anyhow::Result<_>>()?;
        Ok(Some((canonical(&self.name(*function.return_tid())?), parameters)))
    }

    /// Spelling of a type in C.
    fn name(&self, id: u32) -> anyhow::Result<String> {
        let named = |kind: &str, name: &Option<String>| format!("{kind}{}", name.as_deref().unwrap_or("?"));
        Ok(match self.of(id)? {
            TypeVariant::Void => "void".into(),
            TypeVariant::Ptr(to) => format!("{} *", self.name(*to.tid())?),
            TypeVariant::Const(to) => format!("const {}", self.name(*to.tid())?),
            TypeVariant::Volatile(to) => format!("volatile {}", self.name(*to.tid())?),
            TypeVariant::Restrict(to) => self.name(*to.tid())?,
            // Type tags such as `__user`.
            TypeVariant::TypeTag(to) => self.name(*to.tid())?,
            TypeVariant::Struct(found) => named("struct ", found.name()),
            TypeVariant::Union(found) => named("union ", found.name()),
            TypeVariant::Fwd(found) => named("struct ", found.name()),
            TypeVariant::Enum(found) => named("enum ", found.name()),
            TypeVariant::Int(found) => named("", found.name()),
            TypeVariant::Typedef(found) => named("", found.name()),
            other => bail!("a parameter of type {other:?}"),
        })
    }
}

/// Fields of a tracepoint's record: type, name and offset.
fn fields(category: &str, name: &str) -> anyhow::Result<Vec<(String, String, u32)>> {
    let path = PathBuf::from(TRACING).join("events").join(category).join(name).join("format");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("field:"))
        .map(|line| {
            let mut parts = line.split(';').map(str::trim);
            let declared = parts.next().context("a declaration")?;
            let (kind, name) = declared.rsplit_once(' ').context("a type and a name")?;
            let offset = parts.find_map(|part| part.strip_prefix("offset:")).context("an offset")?;
            Ok((canonical(kind), name.to_owned(), offset.parse()?))
        })
        .collect()
}

/// The prototype for this kernel; `None` if the program is for other kernels.
fn current(program: &DeclaredProgram, version: KernelVersion) -> anyhow::Result<Option<&Prototype>> {
    let mut valid = program.prototypes.iter().filter(|one| one.holds_for(version));
    let one = valid.next();
    ensure!(valid.next().is_none(), "two prototypes for {}.{}", version.0, version.1);
    Ok(one)
}

/// Checks the record of a system call's tracepoint: parameters begin after the number of the call and have 8 bytes
/// each.
fn check_call(program: &DeclaredProgram, prototype: &Prototype) -> Result {
    let (call, entering) = match (program.hook.strip_prefix("sys_enter_"), program.hook.strip_prefix("sys_exit_")) {
        (Some(call), _) => (call, true),
        (_, Some(call)) => (call, false),
        _ => bail!("no system call"),
    };
    ensure!(prototype.name == format!("sys_{call}"), "the prototype is of {}", prototype.name);
    let arguments: Vec<_> = fields("syscalls", &format!("sys_enter_{call}"))?.into_iter().skip(5).collect();
    let kinds: Vec<&String> = arguments.iter().map(|(kind, ..)| kind).collect();
    ensure!(kinds == prototype.parameters.iter().collect::<Vec<_>>(), "the kernel has {kinds:?}");
    let offsets: Vec<u32> = arguments.iter().map(|(.., offset)| *offset).collect();
    ensure!(offsets == (16..).step_by(8).take(offsets.len()).collect::<Vec<_>>(), "the kernel has them at {offsets:?}");
    let returned = fields("syscalls", &program.hook)?.pop().context("fields")?;
    ensure!(entering || returned == ("long".into(), "ret".into(), 16), "the kernel has {returned:?}");
    Ok(())
}

#[test]
fn prototypes_are_as_the_comments_say() -> Result {
    require!();
    let (types, version) = (Types::read()?, hooks::running_version()?);
    let check = |program: &DeclaredProgram| -> Result {
        let Some(expected) = current(program, version)? else { return Ok(()) };
        if program.category.as_deref() == Some("syscalls") {
            return check_call(program, expected);
        }
        // Whether this kernel must have the hook is checked by xtask/src/vm/table.rs.
        let Some((returns, parameters)) = types.prototype(program)? else { return Ok(()) };
        ensure!(expected.name == program.hook, "the prototype is of {}", expected.name);
        ensure!(
            expected.parameters == parameters && (expected.returns == returns || program.kind == AttachType::Btf),
            "the comment has {} ({}), the kernel {returns} ({})",
            expected.returns,
            expected.parameters.join(", "),
            parameters.join(", ")
        );
        Ok(())
    };
    let programs = programs()?;
    let wrong: Vec<String> = with_tracefs(|| {
        let checked = programs.iter().map(|program| (program, check(program)));
        let wrong = checked.filter_map(|(program, outcome)| Some((program, outcome.err()?)));
        Ok(wrong.map(|(program, error)| format!("{} on {}: {error:#}", program.name, program.hook)).collect())
    })?;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// The fields that `state_classic` reads at fixed offsets.
#[test]
fn the_classic_record_is_laid_out_as_expected() -> Result {
    require!();
    let fields = with_tracefs(|| fields("sock", "inet_sock_set_state"))?;
    for (name, offset) in [
        ("skaddr", 8),
        ("oldstate", 16),
        ("newstate", 20),
        ("sport", 24),
        ("dport", 26),
        ("family", 28),
        ("protocol", 30),
        ("saddr[4]", 32),
        ("daddr[4]", 36),
        ("saddr_v6[16]", 40),
        ("daddr_v6[16]", 56),
    ] {
        let found = fields.iter().find(|(_, found, _)| found == name).map(|(.., offset)| *offset);
        assert_eq!(found, Some(offset), "{name}: {fields:?}");
    }
    Ok(())
}

/// Runs `work` with tracefs mounted: here, or in a thread with a mount namespace of its own.
fn with_tracefs<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    let privately = || {
        if !Path::new(TRACING).join("events").exists() {
            unshare(CloneFlags::CLONE_NEWNS)?;
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
            mount(Some("tracefs"), TRACING, Some("tracefs"), MsFlags::empty(), None::<&str>)
                .context("mounting tracefs")?;
        }
        work()
    };
    std::thread::scope(|scope| match scope.spawn(privately).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Lets the verifier check a program. Returns the instructions that it processed and the bytes of stack.
fn verdict(program: &mut Loaded, hook: &str, btf: &Btf) -> anyhow::Result<(u64, u64)> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // aya does not return the log of a program that loads. With a limit of 0 descriptors the kernel verifies the
    // program and then refuses to load it.
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard)?;
    let refused = match program {
        Loaded::BtfTracePoint(program) => program.load(hook, btf),
        Loaded::TracePoint(program) => program.load(),
        Loaded::FEntry(program) => program.load(hook, btf),
        Loaded::FExit(program) => program.load(hook, btf),
        Loaded::Iter(program) => program.load(hook.trim_start_matches("bpf_iter_"), btf),
        other => bail!("a program of type {:?}", other.prog_type()),
    };
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
    let (error, log) = match refused {
        Err(ProgramError::LoadError { io_error, verifier_log }) => (io_error, verifier_log.to_string()),
        Err(error) => return Err(error.into()),
        Ok(()) => bail!("it got a file descriptor although there was none"),
    };
    ensure!(error.raw_os_error() == Some(nix::errno::Errno::EMFILE as i32), "{error}: {log}");
    let number = |before: &str| -> anyhow::Result<u64> {
        let rest = log.split_once(before).with_context(|| format!("{before:?} in {log:?}"))?.1;
        Ok(rest.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default().parse()?)
    };
    // One number per function of the program: `stack depth 64+16`; since 7.2 `stack depth 64+16 max 80 ...`.
    let stack =
        log.split_once("stack depth ").context("the stack depth")?.1.split_whitespace().next().unwrap_or_default();
    let stack: u64 = stack.split('+').map(|part| part.parse::<u64>().unwrap_or_default()).sum();
    Ok((number("processed ")?, stack))
}

/// The object that this kernel loads, and the object for a kernel without BTF.
fn objects(btf: &Btf) -> anyhow::Result<(Ebpf, Ebpf)> {
    let host = Host::collect();
    let blind = Host { btf: Err("hidden".into()), ..host.clone() };
    let blind = object(&plan(&blind, &Options::default()), None, false, VerifierLogLevel::STATS)?;
    Ok((whole_object(&host, btf)?, blind))
}

fn whole_object(host: &Host, btf: &Btf) -> anyhow::Result<Ebpf> {
    let plan = plan(host, &Options::default());
    let mut ebpf = object(&plan, Some(btf), true, VerifierLogLevel::STATS)?;
    let first = ebpf.program_mut("state_first").context("state_first")?;
    if verdict(first, "inet_sock_set_state", btf).is_err() {
        // 5.10 has no bpf_get_socket_cookie in tracing programs.
        return Ok(object(&plan, Some(btf), false, VerifierLogLevel::STATS)?);
    }
    Ok(ebpf)
}

/// Prints a [`VerifiedProgram`] line for each program, from which xtask writes docs/VERIFIER.md.
#[test]
fn every_program_passes_the_verifier() -> Result {
    /// A tenth of the kernel's limit, which leaves room for kernels whose verifier walks more paths.
    const INSTRUCTIONS: u64 = 100_000;
    require!();
    let btf = Btf::from_sys_fs()?;
    let (mut whole, mut blind) = objects(&btf)?;
    let mut heavy = Vec::new();
    for declared in programs()? {
        // The only program for kernels without BTF.
        let ebpf = if declared.category.as_deref() == Some("sock") { &mut blind } else { &mut whole };
        let program = ebpf.program_mut(&declared.name).with_context(|| format!("{} in the object", declared.name))?;
        match verdict(program, &declared.hook, &btf) {
            Ok((instructions, stack)) => {
                eprintln!("{}", VerifiedProgram { name: declared.name.clone(), instructions, stack });
                if instructions > INSTRUCTIONS {
                    heavy.push(format!("{}: {instructions} instructions", declared.name));
                }
            }
            Err(error) => eprintln!("REFUSED {} {}", declared.name, format!("{error:#}").replace('\n', " ")),
        }
    }
    assert!(heavy.is_empty(), "the verifier has too much to do: {}", heavy.join(", "));
    Ok(())
}

/// Without BTF only the classic tracepoint works: connects are still counted, and doctor names what is lost.
#[test]
fn without_btf_it_counts_connects_and_says_what_is_lost() -> Result {
    require!(Need::Program("unshare", "util-linux"), Need::Program("mount", "mount"));
    let hidden = |arguments: &[&str]| -> anyhow::Result<Command> {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        command.arg("mount -t tmpfs none /sys/kernel/btf && exec \"$@\"").arg("sh").arg(binary()?).args(arguments);
        Ok(command)
    };
    let diagnosis = hidden(&["doctor", "--json"])?.output()?;
    assert_eq!(diagnosis.status.code(), Some(1), "{}", String::from_utf8_lossy(&diagnosis.stderr));
    let diagnosis: serde_json::Value = serde_json::from_slice(&diagnosis.stdout)?;
    assert_eq!(diagnosis["tier"], "classic");
    assert_eq!(diagnosis["hooks"], serde_json::json!(["inet_sock_set_state"]));
    let lost: Vec<&str> =
        diagnosis["degraded"].as_array().context("losses")?.iter().filter_map(|loss| loss["lost"].as_str()).collect();
    for word in ["network namespaces", "cookies", "errno", "TIME_WAIT is inferred"] {
        assert!(lost.iter().any(|loss| loss.contains(word)), "{word}: {lost:?}");
    }

    let lab = Lab::with_ports(40000, 40063)?;
    lab.ns.sysctl(&[("ipv4/tcp_tw_reuse", "0")])?;
    // A port that nothing else on this machine uses, because the classic record has no namespace.
    let _server = lab.serve("server", "127.0.0.1:9471", ServerBehaviour::WaitForPeer)?;
    let report = hidden(&["report", "--json", "--for", "600s"])?;
    let report = Tracer::start_command(report, lab.dir(), "report")?;
    let steps = vec![ScriptStep::connect([addr("127.0.0.1:9471")], 80, ConnectMethod::Blocking, AfterConnect::Close)];
    let log = lab.run("client", steps)?;
    // Not parsed as a `ParsedReport`, in which every attribution has a namespace.
    let report: serde_json::Value = serde_json::from_str(&report.finish()?)?;
    let expected = logged(&log).into_values().next().context("connects")?;
    assert_eq!((expected.connects, expected.established), (80, 64), "the scenario itself");
    assert_eq!(report["host"]["tier"], "classic");
    assert_eq!(report["events"]["lost"]["ring_full"], 0);
    let number = |value: &serde_json::Value| value.as_u64().unwrap_or_default();
    let mut seen = (0, 0, 0);
    for entry in report["attributions"].as_array().context("attributions")? {
        if entry["remote_port"] == 9471 && number(&entry["connects"]) > 0 {
            assert_eq!(entry["pid"].as_u64(), log.pids().first().map(|pid| u64::from(*pid)), "{entry}");
            assert!(entry["netns"].is_null(), "{entry}");
            seen.0 += number(&entry["connects"]);
            seen.1 += number(&entry["established"]);
            seen.2 += entry["failed"].as_object().context("failures")?.values().map(number).sum::<u64>();
        }
    }
    assert_eq!(seen, (80, 64, 16), "connects, established, failed");
    Ok(())
}
