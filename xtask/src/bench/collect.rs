//! Builds the measuring programs, runs them and reads their figures.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::benches::Bench;
use super::figures::Figures;
use crate::shell::{as_root, build_release, built, cargo, line_of, nightly, run, say, target_dir};

/// Groups of criterion benches in tracer-core/benches/ingest.rs.
const GROUPS: [&str; 3] = ["ingest", "crowd", "decode"];
/// All benches, as arguments of cargo.
const BENCHES: &[&str] = &[
    "-p",
    "tracer",
    "-p",
    "tracer-core",
    "--features",
    "tracer-core/testing",
    "--bench",
    "forecast",
    "--bench",
    "ingest",
    "--bench",
    "memory",
    "--bench",
    "reconcile",
    "--bench",
    "view",
];
/// Example program that writes a recording of any size.
const GENERATOR: &str = "recording_costs";

pub struct Collector {
    check: bool,
    portchurn: PathBuf,
    meter: PathBuf,
    null_tracer: PathBuf,
    generator: PathBuf,
    benches: Vec<(String, PathBuf)>,
}

impl Collector {
    pub fn build(check: bool) -> Result<Self> {
        let portchurn = build_release()?;
        // A check judges no time, so it needs no optimised build.
        let (release, profile): (&[&str], _) = if check { (&[], "debug") } else { (&["--release"], "release") };
        run(cargo().arg("build").args(release).args([
            "-p",
            "tracer-core",
            "--features",
            "testing",
            "--example",
            GENERATOR,
        ]))?;
        run(cargo().arg("build").args(release).args(["-p", "portchurn-tests", "--bin", "meter", "--bin", "flood"]))?;
        let built = built(profile);
        Ok(Self {
            check,
            portchurn,
            meter: built.join("meter"),
            null_tracer: build_null_tracer()?,
            generator: built.join("examples").join(GENERATOR),
            benches: build_benches(BENCHES, check)?,
        })
    }

    /// Enough for benches of models, which need neither portchurn nor root.
    pub fn of_models(check: bool) -> Result<Self> {
        let nothing = PathBuf::new;
        let benches = build_benches(&["-p", "tracer-core", "--features", "testing", "--bench", "forecast"], check)?;
        Ok(Self {
            check,
            portchurn: nothing(),
            meter: nothing(),
            null_tracer: nothing(),
            generator: nothing(),
            benches,
        })
    }

    /// Runs a bench and adds its figures. Only the `first` of several runs measures what takes long and hardly varies.
    pub fn collect(&self, what: Bench, first: bool, figures: &mut Figures) -> Result<()> {
        match what {
            Bench::Ingest => self.criterion(figures),
            Bench::Forecast | Bench::Memory | Bench::Reconcile | Bench::View => self.bench(what.name(), figures),
            Bench::Kernel => self.meter(&["kernel", "--null-tracer", &self.null_tracer.to_string_lossy()], figures),
            Bench::Record | Bench::Replay => {
                let generator = self.generator.to_string_lossy();
                let all = ["record", "--generator", &*generator, "--large"];
                self.meter(if first { &all } else { &all[..3] }, figures)
            }
            Bench::Host | Bench::Startup | Bench::Scale => self.meter(&[what.name()], figures),
            Bench::All => Bench::EACH.iter().try_for_each(|each| self.collect(*each, first, figures)),
        }
    }

    fn meter(&self, arguments: &[&str], figures: &mut Figures) -> Result<()> {
        let path = env::var_os("PATH").unwrap_or_default();
        let mut command =
            as_root(self.meter.as_os_str(), &[("PORTCHURN_BIN", self.portchurn.as_os_str()), ("PATH", &path)])?;
        command.args(arguments).args(self.check.then_some("--check"));
        read(&mut command, figures)
    }

    fn executable(&self, name: &str) -> Result<&Path> {
        let found = self.benches.iter().find(|(bench, _)| bench == name).map(|(_, path)| path.as_path());
        found.with_context(|| format!("cargo built no bench {name}"))
    }

    fn bench(&self, name: &str, figures: &mut Figures) -> Result<()> {
        let path = env::var_os("PATH").unwrap_or_default();
        let mut command = as_root(self.executable(name)?.as_os_str(), &[("PATH", path.as_os_str())])?;
        read(command.args(self.check.then_some("--check")), figures)
    }

    /// criterion writes its figures to files; with `--test` it runs everything once and writes nothing.
    fn criterion(&self, figures: &mut Figures) -> Result<()> {
        let home = target_dir().join("criterion");
        let mut command = crate::shell::command(self.executable("ingest")?);
        command.env("CRITERION_HOME", &home).arg(if self.check { "--test" } else { "--bench" });
        run(&mut command)?;
        if self.check {
            for row in super::rows::ROWS.iter().filter(|row| row.key().starts_with("ingest")) {
                row.needs().iter().for_each(|key| figures.add((*key).to_owned(), vec![1.0]));
            }
            return Ok(());
        }
        GROUPS.iter().try_for_each(|group| estimates(&home.join(group), &format!("ingest.{group}"), figures))
    }
}

/// Nanoseconds per element of every bench below a directory.
fn estimates(dir: &Path, key: &str, figures: &mut Figures) -> Result<()> {
    let new = dir.join("new");
    if new.join("estimates.json").is_file() {
        let json = |name: &str| -> Result<Value> {
            let text = fs::read_to_string(new.join(name)).with_context(|| format!("{}/{name}", new.display()))?;
            serde_json::from_str(&text).with_context(|| format!("{}/{name}", new.display()))
        };
        let elements = json("benchmark.json")?["throughput"]["Elements"].as_f64().unwrap_or(1.0);
        let sample = json("sample.json")?;
        let numbers = |name: &str| -> Vec<f64> {
            sample[name].as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
        };
        let each = numbers("times").iter().zip(numbers("iters")).map(|(time, iters)| time / iters / elements).collect();
        figures.add(key.to_owned(), each);
        return Ok(());
    }
    for entry in fs::read_dir(dir).with_context(|| format!("criterion's figures in {}", dir.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "report" {
            estimates(&path, &format!("{key}.{name}"), figures)?;
        }
    }
    Ok(())
}

fn read(command: &mut Command, figures: &mut Figures) -> Result<()> {
    let line = line_of(command);
    say(&line);
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("starting `{line}`"))?;
    ensure!(output.status.success(), "`{line}` failed ({})", output.status);
    String::from_utf8_lossy(&output.stdout).lines().for_each(|line| figures.read(line));
    Ok(())
}

/// Builds the null tracer with the flags that aya-build uses for portchurn's programs.
fn build_null_tracer() -> Result<PathBuf> {
    let target = if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };
    let dir = target_dir().join("null-tracer");
    let flags = format!("--cfg=bpf_target_arch=\"{}\"\x1f-Cdebuginfo=2\x1f-Clink-arg=--btf", env::consts::ARCH);
    let mut command = nightly("cargo");
    command
        .args(["build", "-p", "tracer-ebpf", "--bin", "null-tracer-ebpf", "--features", "null-tracer", "--release"])
        .args(["--target", target, "-Z", "build-std=core", "--target-dir"])
        .arg(&dir)
        .env("CARGO_ENCODED_RUSTFLAGS", flags);
    run(&mut command)?;
    Ok(dir.join(target).join("release/null-tracer-ebpf"))
}

fn build_benches(which: &[&str], check: bool) -> Result<Vec<(String, PathBuf)>> {
    let mut command = cargo();
    command.arg("bench").args(which);
    command.args(["--no-run", "--message-format=json-render-diagnostics"]);
    command.args(["--profile", if check { "dev" } else { "bench" }]);
    let line = line_of(&command);
    say(&line);
    let output = command.stderr(Stdio::inherit()).output().with_context(|| format!("starting `{line}`"))?;
    ensure!(output.status.success(), "`{line}` failed ({})", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(bench_of).collect())
}

/// The bench that one of cargo's messages announces; `None` for other messages.
fn bench_of(message: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(message).ok()?;
    let executable = message["executable"].as_str().filter(|_| message["target"]["kind"][0] == "bench")?;
    Some((message["target"]["name"].as_str()?.to_owned(), PathBuf::from(OsStr::new(executable))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_benches_of_cargos_messages_are_run() {
        let message = |kind: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","target":{{"name":"memory","kind":["{kind}"]}},"executable":"/t/memory-1"}}"#
            )
        };
        assert_eq!(bench_of(&message("bench")), Some(("memory".to_owned(), PathBuf::from("/t/memory-1"))));
        assert_eq!(bench_of(&message("lib")), None);
    }
}
