//! `portchurn doctor`: the facts that the plan is made from, then an attempt to attach.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::version::VERSION;
use super::{output, privileges};
use crate::cli::{DoctorConfig, OutputFormat};
use crate::probe::capabilities::{NeededCapability, on_kernel};
use crate::probe::{self, Host, Options, attach};
use tracer_core::host::Degradation;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing is missing.
    Ok,
    /// Tracing works, but something cannot be seen.
    Degraded,
    /// The host cannot be traced.
    Failed,
}

/// One fact about the host.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// What the fact means for a trace.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
}

/// The result of `doctor`.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    /// `uname -r`.
    pub kernel: String,
    /// The tier that was reached; `None` if the host cannot be traced.
    pub tier: Option<&'static str>,
    /// The facts that the plan is made from.
    pub checks: Vec<Check>,
    /// The capabilities that portchurn can use on this kernel.
    pub capabilities: Vec<&'static NeededCapability>,
    /// Hooks that could be attached.
    pub hooks: Vec<String>,
    /// What cannot be seen on this host.
    pub degraded: Vec<Degradation>,
    /// Why the host cannot be traced.
    pub error: Option<String>,
}

impl Diagnosis {
    /// 0 = everything works, 1 = with losses, 2 = the host cannot be traced.
    pub fn exit_code(&self) -> u8 {
        if self.error.is_some() {
            2
        } else {
            u8::from(!self.degraded.is_empty() || self.checks.iter().any(|check| check.verdict != Verdict::Ok))
        }
    }

    /// The diagnosis as text, at most 80 columns unless a fact is longer.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(out, "portchurn doctor on kernel {}\n", self.kernel);
        for check in &self.checks {
            let mark = match check.verdict {
                Verdict::Ok => "ok  ",
                Verdict::Degraded => "loss",
                Verdict::Failed => "FAIL",
            };
            let _ = writeln!(out, "[{mark}] {:<20} {}", check.name, check.found);
        }
        if !self.hooks.is_empty() {
            let _ = writeln!(out, "\nAttached and detached again: {}", self.hooks.join(", "));
        }
        for loss in &self.degraded {
            let _ = writeln!(out, "\nWithout {}\n  because {}\n  lost:   {}", loss.what, loss.why, loss.lost);
        }
        let verdict = match (&self.error, self.exit_code()) {
            (Some(error), _) => format!("This host cannot be traced: {error}"),
            (None, 0) => format!("Everything works: tier {}.", self.tier.unwrap_or("none")),
            (None, _) => format!("portchurn works here with the losses above: tier {}.", self.tier.unwrap_or("none")),
        };
        let _ = writeln!(out, "\n{verdict}");
        out
    }
}

/// Looks at the host and tries; `exact`: fentry and fexit before tracepoints.
pub fn diagnose(exact: bool) -> Diagnosis {
    let host = Host::collect();
    let mut plan = probe::plan(&host, &Options { exact, ..Options::default() });
    plan.degraded.extend(privileges::gaps(&host));
    let mut checks = checks(&host);
    let mut diagnosis = Diagnosis {
        kernel: host.kernel.clone(),
        tier: None,
        checks: Vec::new(),
        capabilities: on_kernel(&host.kernel).collect(),
        hooks: Vec::new(),
        degraded: Vec::new(),
        error: None,
    };
    match attach::attach(&host, plan) {
        Ok(session) => {
            diagnosis.tier = Some(session.tier.name());
            diagnosis.hooks = session.hooks.iter().map(|state| state.hook.hook.to_owned()).collect();
            diagnosis.hooks.dedup();
            diagnosis.degraded.clone_from(&session.degraded);
            for note in &session.notes {
                checks.push(Check { name: "note".into(), verdict: Verdict::Ok, found: note.clone() });
            }
        }
        Err(error) => {
            let text = match &error {
                probe::ProbeError::NotPermitted { missing } => privileges::advice(missing, &host.kernel),
                other => format!("{:#}", anyhow::Error::msg(other.to_string())),
            };
            diagnosis.error = Some(text);
        }
    }
    diagnosis.checks = checks;
    diagnosis
}

/// Which package the binary comes from: every package of `cargo xtask dist` has a file beside it that says so.
fn origin(executable: Option<&Path>) -> String {
    let usr = executable.and_then(|path| path.parent()?.parent());
    let named = usr.and_then(|usr| fs::read_to_string(usr.join("share/portchurn/package")).ok());
    match named.as_deref().map(str::trim) {
        Some(name) if name.ends_with(VERSION) => name.to_owned(),
        Some(name) => format!("{name}, but this is {VERSION}: the binary was replaced"),
        None => format!("none; portchurn {VERSION} was built here or copied"),
    }
}

fn checks(host: &Host) -> Vec<Check> {
    let check = |name: &str, verdict, found: String| Check { name: name.into(), verdict, found };
    let result = |name: &str, result: &Result<String, String>| match result {
        Ok(found) => check(name, Verdict::Ok, found.clone()),
        Err(why) => check(name, Verdict::Degraded, why.clone()),
    };
    let missing: Vec<_> = privileges::missing(host).map(|needed| needed.name).collect();
    vec![
        check("package", Verdict::Ok, origin(env::current_exe().ok().as_deref())),
        check("kernel", Verdict::Ok, host.kernel.clone()),
        result("BTF", &host.btf.as_ref().map(|_| "/sys/kernel/btf/vmlinux".to_owned()).map_err(Clone::clone)),
        check(
            "capabilities",
            if missing.is_empty() { Verdict::Ok } else { Verdict::Degraded },
            if missing.is_empty() {
                format!("all {} that portchurn can use", on_kernel(&host.kernel).count())
            } else {
                format!("missing {}", missing.join(", "))
            },
        ),
        check(
            "lockdown",
            // integrity may forbid fentry, which the attempt shows; confidentiality forbids reading kernel memory.
            if host.lockdown.as_deref() == Some("confidentiality") { Verdict::Failed } else { Verdict::Ok },
            host.lockdown.clone().unwrap_or_else(|| "unknown (securityfs is not mounted or has no lockdown)".into()),
        ),
        check(
            "tracefs",
            Verdict::Ok,
            if host.tracefs { "mounted".into() } else { "not mounted; portchurn mounts it for itself alone".into() },
        ),
        check(
            "memlock",
            Verdict::Ok,
            host.memlock.map_or_else(
                || "unlimited".into(),
                |bytes| format!("{} KiB (matters before kernel 5.11 only; raised there)", bytes / 1024),
            ),
        ),
        result(
            "kernel symbols",
            &host.tw_timer_handler.as_ref().map(|_| "tw_timer_handler found".to_owned()).map_err(Clone::clone),
        ),
        check(
            "cgroups",
            Verdict::Ok,
            if host.cgroup_v1.is_empty() {
                "v2".into()
            } else {
                format!("v1 controllers mounted: {}", host.cgroup_v1.join(", "))
            },
        ),
    ]
}

/// `portchurn doctor`.
///
/// # Errors
/// stdout could not be written to.
pub fn print(config: &DoctorConfig) -> Result<u8> {
    let diagnosis = diagnose(config.exact);
    let text = match config.format {
        OutputFormat::Json => serde_json::to_string_pretty(&diagnosis).context("serialising the diagnosis")? + "\n",
        OutputFormat::Text => diagnosis.text(),
    };
    output::out(&text)?;
    Ok(diagnosis.exit_code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_knows_its_package_and_whether_it_was_replaced() {
        let usr = tempfile::tempdir().expect("a directory");
        let binary = usr.path().join("bin/portchurn");
        assert!(origin(Some(&binary)).starts_with("none; portchurn "));
        let marker = usr.path().join("share/portchurn/package");
        fs::create_dir_all(marker.parent().expect("a parent")).expect("directories");
        fs::write(&marker, format!("Debian package portchurn_{VERSION}\n")).expect("the marker");
        assert_eq!(origin(Some(&binary)), format!("Debian package portchurn_{VERSION}"));
        fs::write(&marker, "tarball portchurn-0.0.1\n").expect("the marker");
        assert!(origin(Some(&binary)).ends_with("the binary was replaced"));
    }
}
