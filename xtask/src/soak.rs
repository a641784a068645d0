//! `cargo xtask soak`: floods in turn, for as long as is asked, and the curve of what the tracer uses and loses meanwhile.
//!
//! The floods and the measuring are those of the end-to-end tests (`meter soak`). Every line is kept as soon as it is there
//! (bench/soak.jsonl), so that a soak that is interrupted has figures too; bench/RESULTS.md includes the table that is made of them.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use serde_json::Value;

use crate::setup::{self, Needs};
use crate::shell::{as_root, build_release, built, cargo, root, run, say};

const BEGIN: &str = "<!-- soak: written by `cargo xtask soak` -->\n";
const END: &str = "<!-- /soak -->\n";

#[derive(Args)]
pub struct SoakOptions {
    /// How long; the turn that runs then is finished.
    #[arg(long, default_value_t = 60)]
    minutes: u64,
    /// Length of a turn.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Do not write bench/soak.jsonl and bench/RESULTS.md.
    #[arg(long)]
    dry: bool,
}

pub fn soak(options: &SoakOptions) -> Result<()> {
    setup::setup(Needs::Everything)?;
    let portchurn = build_release()?;
    run(cargo().args(["build", "--release", "-p", "portchurn-tests", "--bin", "meter", "--bin", "flood"]))?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut meter = as_root(
        built("release").join("meter").as_os_str(),
        &[("PORTCHURN_BIN", portchurn.as_os_str()), ("PATH", path.as_os_str())],
    )?;
    meter.args(["soak", "--minutes", &options.minutes.to_string(), "--seconds", &options.seconds.to_string()]);
    let mut child = meter.stdout(Stdio::piped()).spawn().context("meter")?;
    let mut kept = if options.dry { None } else { Some(fs::File::create(figures()).context("bench/soak.jsonl")?) };
    let mut text = String::new();
    for line in BufReader::new(child.stdout.take().context("its output")?).lines() {
        let line = line?;
        text.extend([line.as_str(), "\n"]);
        if let Some(file) = &mut kept {
            writeln!(file, "{line}").context("bench/soak.jsonl")?;
        }
        println!("{}", told(&serde_json::from_str(&line).with_context(|| line.clone())?));
    }
    let status = child.wait().context("meter")?;
    if kept.is_some() {
        let file = root().join("bench/RESULTS.md");
        let results = fs::read_to_string(&file).context("bench/RESULTS.md")?;
        fs::write(&file, with_section(&results, &section(&text))).context("bench/RESULTS.md")?;
    }
    ensure!(status.success(), "the soak failed ({status})");
    let broken =
        text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).filter_map(|line| fault(&line));
    let broken: Vec<_> = broken.collect();
    for fault in &broken {
        say(fault);
    }
    ensure!(broken.is_empty(), "{} things did not hold", broken.len());
    Ok(())
}

fn figures() -> PathBuf {
    root().join("bench/soak.jsonl")
}

/// The section of the last soak; empty if there was none.
pub fn last_section() -> String {
    fs::read_to_string(figures()).map(|text| format!("\n{BEGIN}{}{END}", section(&text))).unwrap_or_default()
}

fn with_section(results: &str, section: &str) -> String {
    let before = results.split_once(BEGIN).map_or(results, |(before, _)| before);
    let after = results.split_once(END).map_or("", |(_, after)| after);
    format!("{}\n\n{BEGIN}{section}{END}{after}", before.trim_end())
}

fn number(line: &Value, field: &str) -> f64 {
    line[field].as_f64().unwrap_or(0.0)
}

fn mebibytes(line: &Value, field: &str) -> f64 {
    number(line, field) / f64::from(1 << 20)
}

/// A line as it is shown while the soak runs: a bar of 10 MiB a letter is the curve.
fn told(line: &Value) -> String {
    let turn = line["turn"].as_str().unwrap_or_default();
    match line["kind"].as_str() {
        Some("sample") => {
            let memory = mebibytes(line, "watcher_bytes");
            let letters = line["watcher_bytes"].as_u64().unwrap_or(0) / (10 << 20);
            let bar = "#".repeat(usize::try_from(letters).unwrap_or(0));
            format!(
                "{:>6} s  {turn:<30} {memory:>6.1} MiB {:>5.1} % CPU {:>8} lost  {bar}",
                number(line, "second"),
                number(line, "cpu_percent"),
                number(line, "lost")
            )
        }
        Some("turn") => format!("          {}", row(line)),
        _ => format!("ended after {} ms", number(line, "ended_ms")),
    }
}

fn row(line: &Value) -> String {
    let idle = line["idle_after_ms"].as_f64().map_or("not within 10 s".into(), |ms| format!("{:.0} s", ms / 1e3));
    let events = &line["events"];
    let lag = events["lag_peak_ms"].as_f64().map_or("-".into(), |ms| format!("{ms:.0} ms"));
    let lost = &events["lost"];
    let lost = number(lost, "ring_full") + number(lost, "missed_runs") + number(lost, "recorder");
    format!(
        "| {} | {} s | {} | {lost} | {lag} | {:.0} MiB | {:.0} % | {idle} | {} ms | {} |",
        line["turn"].as_str().unwrap_or_default(),
        number(line, "seconds"),
        number(events, "read"),
        mebibytes(line, "report_peak_bytes"),
        number(line, "peak_cpu_percent"),
        number(line, "ended_ms"),
        if line["sums_equal"] == true { "equal" } else { "DIFFER" }
    )
}

/// What did not hold.
fn fault(line: &Value) -> Option<String> {
    let turn = line["turn"].as_str().unwrap_or_default();
    if line["kind"] == "turn" {
        if line["sums_equal"] != true {
            return Some(format!("{turn}: sums differ"));
        }
        if line["idle_after_ms"].is_null() {
            return Some(format!("{turn}: not idle within 10 s"));
        }
        if number(line, "ended_ms") > 2_000.0 {
            return Some(format!("{turn}: ended after {} ms", number(line, "ended_ms")));
        }
    }
    (line["kind"] == "end" && line["ends_in_time"] != true).then(|| "the watcher ended too late".into())
}

/// The table and the curve.
fn section(text: &str) -> String {
    let lines: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of = |kind: &'static str| lines.iter().filter(move |line| line["kind"] == kind);
    let seconds = lines.iter().map(|line| number(line, "second")).fold(0.0, f64::max);
    let mut out = format!(
        "## Floods\n\nOne tracer watched all of it for {:.0} minutes, and another one each turn, whose figures are in the table.\n\n\
         | flood | length | events read | lost | lag at most | memory at most | CPU of the process at most | idle after | Ctrl-C to end | sums |\n\
         | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n",
        seconds / 60.0
    );
    for turn in of("turn") {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}", row(turn));
    }
    let _ = writeln!(
        out,
        "\nMemory of the tracer that watched all of it, a sample a minute:\n\n| minute | MiB | % of a CPU | lost so far |\n| ---: | ---: | ---: | ---: |"
    );
    let mut minute = -1.0;
    for sample in of("sample").filter(|sample| {
        let new = (number(sample, "second") / 60.0).floor();
        std::mem::replace(&mut minute, new) < new
    }) {
        let _ = writeln!(
            out,
            "| {:.0} | {:.1} | {:.1} | {} |",
            number(sample, "second") / 60.0,
            mebibytes(sample, "watcher_bytes"),
            number(sample, "cpu_percent"),
            number(sample, "lost")
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_replaces_the_one_before_and_nothing_else() {
        let first = with_section("# Results\n\ntext\n", "one\n");
        let second = with_section(&first, "two\n");
        assert!(second.contains("# Results\n\ntext\n\n<!-- soak") && second.contains("two\n<!-- /soak"));
        assert!(!second.contains("one"));
    }

    #[test]
    fn what_does_not_hold_is_named() {
        let line = |sums: bool, ended: u64| serde_json::json!({ "kind": "turn", "turn": "t", "sums_equal": sums, "idle_after_ms": 1_000, "ended_ms": ended });
        assert_eq!(fault(&line(true, 900)), None);
        assert_eq!(fault(&line(false, 900)).as_deref(), Some("t: sums differ"));
        assert!(fault(&line(true, 2_001)).is_some());
    }
}
