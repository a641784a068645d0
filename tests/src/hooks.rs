//! Hooks of the BPF programs as their sources declare them: the attribute above each program, and the kernel prototype
//! in the comment above the attribute.
//!
//! A prototype that only some kernels have begins with their versions: `// 5.10-6.7: void f(...)`, `// 6.8+: void
//! f(...)`.
//!
//! Not a parser of Rust or C: it reads the one form that tracer-ebpf/src/probes uses, and refuses every other form.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// How a program is attached to its hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachType {
    /// To a tracepoint, with BTF (`tp_btf`).
    Btf,
    /// To a classic tracepoint, whose record it reads.
    Classic,
    Fentry,
    Fexit,
    /// An iterator over the kernel's objects.
    Iter,
}

/// A BPF program as its source declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredProgram {
    pub name: String,
    pub kind: AttachType,
    pub hook: String,
    /// Category of a classic tracepoint.
    pub category: Option<String>,
    pub prototypes: Vec<Prototype>,
}

/// The types of a C function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prototype {
    /// First and last kernel version with this prototype; `None` = no limit.
    pub from: Option<KernelVersion>,
    pub to: Option<KernelVersion>,
    pub name: String,
    pub returns: String,
    pub parameters: Vec<String>,
}

/// Major and minor number of a kernel.
pub type KernelVersion = (u32, u32);

impl Prototype {
    pub fn holds_for(&self, version: KernelVersion) -> bool {
        self.from.is_none_or(|from| version >= from) && self.to.is_none_or(|to| version <= to)
    }
}

/// Version of the running kernel.
pub fn running_version() -> Result<KernelVersion> {
    version(&fs::read_to_string("/proc/sys/kernel/osrelease")?)
}

/// Reads a release such as `6.12.107+deb13-amd64`.
pub fn version(release: &str) -> Result<KernelVersion> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    let mut part =
        || parts.next().and_then(|digits| digits.parse().ok()).with_context(|| format!("a version: {release}"));
    Ok((part()?, part()?))
}

/// The programs that the files of this directory declare.
pub fn programs(directory: &Path) -> Result<Vec<DeclaredProgram>> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .with_context(|| format!("reading {}", directory.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<_>>()?;
    files.sort();
    let mut programs = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        programs.extend(parse(&text).with_context(|| file.display().to_string())?);
    }
    ensure!(!programs.is_empty(), "{} declares no program", directory.display());
    Ok(programs)
}

const ATTRIBUTES: [(&str, AttachType); 5] = [
    ("#[btf_tracepoint(", AttachType::Btf),
    ("#[tracepoint(", AttachType::Classic),
    ("#[fentry(", AttachType::Fentry),
    ("#[fexit(", AttachType::Fexit),
    ("#[unsafe(link_section = \"iter/", AttachType::Iter),
];

fn parse(text: &str) -> Result<Vec<DeclaredProgram>> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut programs = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some((arguments, kind)) =
            ATTRIBUTES.iter().find_map(|(begin, kind)| Some((line.strip_prefix(begin)?, *kind)))
        else {
            continue;
        };
        let argument = |name: &str| {
            let value = arguments.split_once(&format!("{name} = \""))?.1;
            value.split_once('"').map(|(value, _)| value.to_owned())
        };
        let hook = match kind {
            AttachType::Classic => argument("name"),
            // `iter/tcp`, for which the kernel declares a function of this name.
            AttachType::Iter => arguments.split('"').next().map(|object| format!("bpf_iter_{object}")),
            AttachType::Btf | AttachType::Fentry | AttachType::Fexit => argument("function"),
        };
        let function = |line: &&str| {
            let declared = ["pub fn ", "pub extern \"C\" fn "].iter().find_map(|begin| line.strip_prefix(begin))?;
            declared.split('(').next().map(str::to_owned)
        };
        let name = lines[at..].iter().find_map(function);
        let above = lines[..at].iter().rev().take_while(|line| line.starts_with("//") || line.starts_with("#["));
        let prototypes: Vec<Prototype> = above
            .filter_map(|line| line.strip_prefix("// "))
            .filter(|comment| comment.contains('(') && comment.ends_with(')'))
            .map(prototype)
            .collect::<Result<_>>()?;
        let name = name.with_context(|| format!("a function below {line}"))?;
        ensure!(!prototypes.is_empty(), "{name}: no kernel prototype in a comment above {line}");
        let hook = hook.with_context(|| format!("the hook in {line}"))?;
        programs.push(DeclaredProgram { name, kind, hook, category: argument("category"), prototypes });
    }
    Ok(programs)
}

fn prototype(comment: &str) -> Result<Prototype> {
    let (versions, text) = match comment.split_once(": ") {
        Some((versions, text)) => (versions, text.trim()),
        None => ("", comment),
    };
    let (from, to) = match versions.split_once('-') {
        Some((from, to)) => (Some(version(from)?), Some(version(to)?)),
        None if versions.is_empty() => (None, None),
        None => match versions.strip_suffix('+') {
            Some(from) => (Some(version(from)?), None),
            None => bail!("versions of a prototype: {versions:?}"),
        },
    };
    let (head, parameters) = text.strip_suffix(')').and_then(|text| text.split_once('(')).context("parentheses")?;
    let (returns, name) = declared(head)?;
    let parameters = match parameters {
        "" | "void" => Vec::new(),
        list => list.split(',').map(|one| declared(one).map(|(kind, _)| kind)).collect::<Result<_>>()?,
    };
    Ok(Prototype { from, to, name, returns, parameters })
}

/// Type and name of a declaration: `const struct sock *sk` is a `const struct sock *` called `sk`.
fn declared(text: &str) -> Result<(String, String)> {
    let text = text.trim();
    let begin = text
        .rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .with_context(|| format!("a type and a name: {text:?}"))?;
    let (kind, name) = text.split_at(begin + 1);
    ensure!(!name.is_empty(), "a name: {text:?}");
    Ok((canonical(kind), name.to_owned()))
}

/// One spelling for every type: `long unsigned int` becomes `unsigned long`, `T * *` becomes `T**`, and the `const` of
/// a parameter itself is dropped.
pub fn canonical(text: &str) -> String {
    let spaced = text.replace('*', " * ");
    let mut words: Vec<&str> = spaced.split_whitespace().collect();
    let stars = words.iter().rev().take_while(|word| **word == "*").count();
    words.truncate(words.len() - stars);
    let integer = ["unsigned", "signed", "long", "short", "int", "char"];
    let is_integer = |word: &&str| integer.contains(word);
    let mut out: Vec<&str> = words.iter().copied().filter(|word| !is_integer(word)).collect();
    let count = |wanted: &str| words.iter().filter(|word| **word == wanted).count();
    if words.iter().any(is_integer) {
        let sized = count("long") + count("short") + count("char") > 0;
        out.extend((count("unsigned") > 0).then_some("unsigned"));
        for size in ["char", "short", "long"] {
            out.extend(std::iter::repeat_n(size, count(size)));
        }
        out.extend((!sized).then_some("int"));
    }
    if stars == 0 {
        // The parameter is a copy, so its `const` is not part of the prototype.
        out.retain(|word| *word != "const");
    }
    out.join(" ") + &"*".repeat(stars)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r#"
/// Docs (with parentheses).
// 5.10-6.7: void timer_start(struct timer_list *timer, unsigned long expires, unsigned int flags)
// 6.8+:     void timer_start(struct timer_list *timer, unsigned long bucket_expiry)
#[btf_tracepoint(function = "timer_start")]
pub fn time_wait_start(ctx: BtfTracePointContext) -> i32 {

// long sys_accept(int fd, struct sockaddr *upeer_sockaddr, int *upeer_addrlen)
#[tracepoint(category = "syscalls", name = "sys_exit_accept")]
pub fn accept_exit(ctx: TracePointContext) -> u32 {
"#;

    #[test]
    fn programs_have_hooks_and_prototypes() {
        let programs = parse(SOURCE).expect("programs");
        let [start, accept] = programs.as_slice() else { panic!("{programs:?}") };
        assert_eq!(
            (start.name.as_str(), start.kind, start.hook.as_str()),
            ("time_wait_start", AttachType::Btf, "timer_start")
        );
        let of = |version| start.prototypes.iter().filter(|one| one.holds_for(version)).collect::<Vec<_>>();
        for (version, parameters) in [((5, 10), 3), ((6, 7), 3), ((6, 8), 2), ((7, 0), 2)] {
            assert_eq!(of(version).iter().map(|one| one.parameters.len()).collect::<Vec<_>>(), [parameters]);
        }
        assert_eq!(of((6, 12))[0].parameters, ["struct timer_list*", "unsigned long"]);
        assert_eq!((accept.kind, accept.category.as_deref()), (AttachType::Classic, Some("syscalls")));
        assert_eq!(accept.prototypes[0].parameters, ["int", "struct sockaddr*", "int*"]);
        assert_eq!(accept.prototypes[0].returns, "long");
    }

    #[test]
    fn a_program_without_a_prototype_is_refused() {
        let naked = "// Says nothing of types.\n#[fentry(function = \"f\")]\npub fn f() {}\n";
        assert!(parse(naked).is_err_and(|error| error.to_string().contains("no kernel prototype")));
    }

    #[test]
    fn one_spelling_for_every_type() {
        for (spelling, canonically) in [
            ("long unsigned int", "unsigned long"),
            ("unsigned int", "unsigned int"),
            ("unsigned", "unsigned int"),
            ("const int", "int"),
            ("const struct sock *", "const struct sock*"),
            ("char * *", "char**"),
            ("long long unsigned int", "unsigned long long"),
            ("u32", "u32"),
        ] {
            assert_eq!(canonical(spelling), canonically, "{spelling}");
        }
    }

    #[test]
    fn versions_of_releases() {
        assert_eq!(version("6.12.107+deb13-amd64").expect("a version"), (6, 12));
        assert!(version("linux").is_err());
    }
}
