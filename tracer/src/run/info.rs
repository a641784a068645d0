//! `portchurn info`: what is in a recording, in ten lines.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result};
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::output;
use crate::cli::{InfoConfig, OutputFormat};
use tracer_core::event::Ktime;
use tracer_core::layout::human::{between, bytes, number, plural, seconds};
use tracer_core::playback::{self, PlayWindow, Played};
use tracer_core::series::{self, RecordingSeries};
use tracer_core::tracker::snapshot::{Destination, Snapshot};

/// What one series of files holds.
struct Summary<'a> {
    series: &'a RecordingSeries,
    played: &'a Played,
    snapshot: &'a Snapshot,
    /// Bytes of all files; `None` of a pipe.
    size: Option<u64>,
}

/// Prints what is in the recordings, one block for each boot of each host.
///
/// # Errors
/// A file is no recording that this version reads ([`series::SeriesError`]), or stdout could not be written to.
pub fn run(config: &InfoConfig) -> Result<()> {
    let mut text = String::new();
    let mut documents = Vec::new();
    for mut series in series::open(&config.names)? {
        let played = playback::play(&mut series, None, PlayWindow::default())?;
        let snapshot = played.tracker.snapshot();
        let size = series
            .paths()
            .map(|path| fs::metadata(path).ok().filter(fs::Metadata::is_file))
            .map(|found| Some(found?.len()));
        let summary = Summary { series: &series, played: &played, snapshot: &snapshot, size: size.sum() };
        if config.format == OutputFormat::Json {
            documents.push(summary.json());
        } else {
            if !text.is_empty() {
                text.push('\n');
            }
            summary.write(&mut text).context("writing")?;
        }
    }
    if config.format == OutputFormat::Json {
        let document = json!({ "schema": "portchurn.info/1", "recordings": documents });
        text = serde_json::to_string_pretty(&document).context("serialising the answer")? + "\n";
    }
    output::out(&text)
}

impl Summary<'_> {
    fn exhausted(&self) -> (u64, Option<&Destination>, Option<Ktime>, Option<Ktime>) {
        let all = &self.snapshot.destinations;
        let failed = || all.iter().filter(|destination| destination.failed.without_port() > 0);
        (
            failed().map(|destination| destination.failed.without_port()).sum(),
            failed().max_by_key(|destination| destination.failed.without_port()),
            failed().filter_map(|destination| destination.first_failure).min(),
            failed().filter_map(|destination| destination.last_failure).max(),
        )
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let Self { series, played, snapshot, size } = self;
        let (header, clock, zone) = (series.header(), played.clock, TimeZone::system());
        let unknown = || "unknown".to_owned();
        let size = size.map_or_else(|| "a pipe".into(), bytes);
        let parts = plural(series.paths().len() as u64, "file");
        let (gaps, gap_nanos) = series.gaps();
        let gaps = match gaps.len() {
            0 => "no gap".to_owned(),
            some => format!("{} between them, {}", plural(some as u64, "gap"), seconds(gap_nanos as f64 / 1e9)),
        };
        let kernel = header.host.kernel.clone().unwrap_or_else(unknown);
        let boot: String = header.host.boot_id.clone().unwrap_or_else(unknown).chars().take(8).collect();
        let time = |ktime| clock.date_time(ktime, &zone);
        let length = seconds(snapshot.now.seconds_since(snapshot.start));
        let lost = &snapshot.events.lost;
        let loss = match lost.upper_bound() {
            0 => "none".into(),
            _ => format!("{} events", between(lost.certain(), lost.upper_bound(), number)),
        };
        let tier = header.host.tier.clone().unwrap_or_else(unknown);
        let unseen: Vec<_> = header.host.degraded.iter().map(|gap| gap.what.as_str()).collect();
        let unseen =
            if unseen.is_empty() { "everything was watched".into() } else { format!("without {}", unseen.join(", ")) };
        writeln!(out, "file       {} ({size}; {})", series.name(), header.tool)?;
        writeln!(
            out,
            "host       {}, kernel {kernel}, boot {boot}",
            header.host.hostname.clone().unwrap_or_else(unknown)
        )?;
        let zone_name = clock.zone_name(snapshot.start, &zone);
        writeln!(out, "time       {} to {} {zone_name} ({length})", time(snapshot.start), time(snapshot.now))?;
        writeln!(out, "parts      {parts}, {gaps}")?;
        writeln!(out, "tier       {tier}; {unseen}")?;
        let connects = snapshot.workloads.iter().map(|workload| workload.connects).sum::<u64>();
        writeln!(
            out,
            "events     {}: {} by {} to {}",
            number(snapshot.events.read),
            plural(connects, "connect"),
            plural(snapshot.workloads.len() as u64, "workload"),
            plural(snapshot.destinations.len() as u64, "destination")
        )?;
        writeln!(out, "loss       {loss}")?;
        let damage = snapshot.damage.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string);
        writeln!(out, "damage     {damage}")?;
        let (failed, worst, first, last) = self.exhausted();
        match (worst, first.zip(last)) {
            (Some(worst), Some((first, last))) => writeln!(
                out,
                "incidents  {} found no port, {} to {}, most towards {}:{}",
                plural(failed, "connect"),
                time(first),
                clock.time_or_date(last, first, &zone),
                worst.remote_addr,
                worst.remote_port
            )?,
            _ => writeln!(
                out,
                "incidents  no connect found no port; {}",
                plural(snapshot.findings.len() as u64, "finding")
            )?,
        }
        if let Some(trigger) = &header.trigger {
            writeln!(out, "trigger    {} at {}", trigger.what, time(Ktime(trigger.ktime_ns)))?;
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let Self { series, played, snapshot, size } = self;
        let (header, clock) = (series.header(), played.clock);
        let wall = |ktime: Option<Ktime>| ktime.map(|ktime| clock.rfc3339(ktime));
        let (failed, worst, first, last) = self.exhausted();
        let (gaps, gap_nanos) = series.gaps();
        json!({
            "files": series.paths().map(|path| path.display().to_string()).collect::<Vec<_>>(),
            "bytes": size,
            "tool": header.tool,
            "host": played.host,
            "window": {
                "start": clock.rfc3339(snapshot.start),
                "end": clock.rfc3339(snapshot.now),
                "seconds": snapshot.now.seconds_since(snapshot.start),
            },
            "gaps": { "count": gaps.len(), "seconds": gap_nanos as f64 / 1e9 },
            "events": snapshot.events,
            "damage": snapshot.damage.as_ref().map(|damage| damage.fields(&clock)),
            "workloads": snapshot.workloads.len(),
            "destinations": snapshot.destinations.len(),
            "findings": snapshot.findings.iter().map(|finding| finding.id.as_str()).collect::<Vec<_>>(),
            "incident": worst.map(|worst| json!({
                "failed": failed,
                "first_failure": wall(first),
                "last_failure": wall(last),
                "remote_addr": worst.remote_addr,
                "remote_port": worst.remote_port,
            })),
            "trigger": header.trigger.as_ref().map(|trigger| json!({
                "what": trigger.what,
                "time": clock.rfc3339(Ktime(trigger.ktime_ns)),
            })),
        })
    }
}
