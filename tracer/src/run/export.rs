//! `portchurn export`: a recording for other programs.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::stop::{Patience, Stop};
use super::{output, recordings, signals};
use crate::cli::{ExportConfig, ExportFormat, Exported};
use crate::export::flows::{self, FlowTable};
use crate::export::redact::{RedactionExtent, RedactionKey, Redactor};
use crate::export::table::{LineFormat, ParquetFile, PartitionedDataset, TableError, TableWriter, TextFile};
use crate::stdio::{reader_has_gone, say};
use tracer_core::filter::{self, Filter, Subject};
use tracer_core::input::feed;
use tracer_core::playback::{self, WindowSteps};
use tracer_core::recording::writer::Sink;
use tracer_core::recording::{BatchBuilder, RecordingHeader, Writer};
use tracer_core::step::TrackerStep;
use tracer_core::tracker::Tracker;
use tracer_core::tracker::snapshot::{NoticeKinds, OpenFlow};

/// Exports a recording. A signal ends the export early, with files that are whole.
///
/// # Errors
/// The file is no recording that this version reads ([`ReplayError`](tracer_core::replay::ReplayError)), the options contradict each
/// other, or the output could not be written ([`TableError`]).
pub fn run(config: &ExportConfig) -> Result<()> {
    let stop = signals::watch()?;
    if config.output.as_deref().is_none_or(|output| output == Path::new("-")) {
        stop.set_patience(Patience::Short);
    }
    let filter = config.input.filter.as_ref();
    if config.what == Exported::Events && filter.is_some() {
        bail!("events have no owners before they are put together: a filter goes with --what flows");
    }
    if config.redact && filter.is_some() {
        bail!("--redact takes out the names that a filter asks for: use one of the two");
    }
    let (mut series, window) = recordings::open(&config.input)?;
    let redactor = if config.redact { Some(redactor(config)?) } else { None };
    let mut header = series.header().clone();
    if let Some(from) = window.from {
        // What is before it is there for what was open then.
        header.window_ns = Some(from.0);
        header.continued = true;
    }
    if let Some(redactor) = &redactor {
        header = redactor.header(header);
    }
    let redacted = |step: &TrackerStep| match &redactor {
        Some(redactor) => redactor.step(step.clone()),
        None => step.clone(),
    };
    if config.format == ExportFormat::Arrow {
        let output = config.output.as_deref().context("an Arrow file needs -o FILE: it cannot be written to a pipe")?;
        if config.what == Exported::Flows {
            bail!("--format arrow writes a recording, which is events: flows go to parquet, jsonl or csv");
        }
        let mut next = playback::steps(&mut series, window)?;
        if let Some(from) = next.begins() {
            header.begin_ns = from.0;
        }
        let mut next = || -> Result<Option<TrackerStep>> {
            Ok(if stop.is_asked() { None } else { next.next()?.map(|step| redacted(&step)) })
        };
        let file = create(output, config.force)?;
        arrow(file, &header, &mut next).inspect_err(|_| remove(&[output.into()]))?;
    } else {
        let next = playback::steps(&mut series, window)?;
        match config.what {
            Exported::Events => events(config, &header, &stop, next, redacted)?,
            Exported::Flows => connections(config, &header, &stop, next, redacted)?,
        }
    }
    output::warn(&series.warnings());
    if stop.is_asked() {
        bail!("ended by a signal before the end of the recording; what was exported until then is whole");
    }
    Ok(())
}

/// Writes the rows of the recording.
fn events(
    config: &ExportConfig,
    header: &RecordingHeader,
    stop: &Stop,
    mut next: WindowSteps<'_>,
    redacted: impl Fn(&TrackerStep) -> TrackerStep,
) -> Result<()> {
    let mut builder = BatchBuilder::new(header);
    let mut table = table(config, header, &builder.schema())?;
    let counts_from = next.counts_from();
    while !stop.is_asked()
        && let Some(step) = next.next()?
    {
        if counts_from.is_some_and(|from| step.ktime().is_some_and(|at| at < from)) {
            continue;
        }
        for batch in builder.step(&redacted(&step))? {
            put(&mut table, &batch)?;
        }
    }
    if let Some(batch) = builder.flush()? {
        put(&mut table, &batch)?;
    }
    conclude(table)
}

/// Writes a row for each connection.
fn connections(
    config: &ExportConfig,
    header: &RecordingHeader,
    stop: &Stop,
    mut next: WindowSteps<'_>,
    redacted: impl Fn(&TrackerStep) -> TrackerStep,
) -> Result<()> {
    let filter = config.input.filter.as_ref();
    // Names are those of the whole, and rows are those of the window.
    let mut tracker = playback::tracker(
        header,
        config.input.by,
        NoticeKinds { flows: true, failures: true, ..NoticeKinds::default() },
    );
    let mut table = table(config, header, &flows::schema())?;
    let mut rows = FlowTable::new(header.clock());
    let mut ahead = next.counts_from();
    while !stop.is_asked()
        && let Some(step) = next.next()?
    {
        if let Some((from, at)) = ahead.zip(step.ktime())
            && at >= from
        {
            tracker.begin_window(from);
            ahead = None;
        }
        feed(&mut tracker, &redacted(&step));
        if ahead.is_none() {
            drain(&mut tracker, filter, &mut rows, &mut table)?;
        }
    }
    tracker.finish();
    drain(&mut tracker, filter, &mut rows, &mut table)?;
    let inside = |flow: &OpenFlow| filter.is_none_or(|filter| filter.matches(&Subject::from(flow)));
    for flow in tracker.open_flows().filter(inside) {
        if rows.open(&flow, tracker.now()) {
            put(&mut table, &rows.batch()?)?;
        }
    }
    put(&mut table, &rows.batch()?)?;
    conclude(table)?;
    output::note_names_not_seen(&tracker, filter);
    Ok(())
}

fn drain(tracker: &mut Tracker, filter: Option<&Filter>, rows: &mut FlowTable, table: &mut Output) -> Result<()> {
    for notice in filter::notices(tracker, filter) {
        if rows.add(&notice) {
            put(table, &rows.batch()?)?;
        }
    }
    Ok(())
}

fn arrow(file: File, header: &RecordingHeader, next: &mut impl FnMut() -> Result<Option<TrackerStep>>) -> Result<()> {
    fn write<S: Sink>(
        sink: S,
        header: &RecordingHeader,
        next: &mut impl FnMut() -> Result<Option<TrackerStep>>,
    ) -> Result<()> {
        let mut writer = Writer::new(sink, header)?;
        while let Some(step) = next()? {
            writer.step(&step)?;
        }
        writer.finish()?;
        Ok(())
    }
    write(file, header, next).context("writing the recording")
}

fn redactor(config: &ExportConfig) -> Result<Redactor> {
    let key = match &config.key_file {
        Some(path) => RedactionKey::from_file(path),
        None => RedactionKey::random(),
    };
    Ok(Redactor::new(key?, RedactionExtent { ports: config.redact_ports, times: config.redact_times }))
}

fn create(path: &Path, force: bool) -> Result<File> {
    tracer_core::recording::create(path, force).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => anyhow::anyhow!("{} exists; --force replaces it", path.display()),
        _ => anyhow::Error::new(error).context(format!("creating {}", path.display())),
    })
}

/// Opens the output for rows of `schema`.
fn table(config: &ExportConfig, header: &RecordingHeader, schema: &arrow_schema::SchemaRef) -> Result<Output> {
    writer(config, header, schema).map(|table| Output { table: Some(table) })
}

fn writer(
    config: &ExportConfig,
    header: &RecordingHeader,
    schema: &arrow_schema::SchemaRef,
) -> Result<Box<dyn TableWriter>> {
    let lines = match config.format {
        ExportFormat::Jsonl => LineFormat::Json,
        ExportFormat::Csv => LineFormat::Csv,
        ExportFormat::Parquet | ExportFormat::Arrow => {
            let output = config.output.as_deref().context("Parquet needs -o: it cannot be written to a pipe")?;
            if config.partition {
                let host = header.host.hostname.as_deref().unwrap_or("unknown");
                // The name depends on the recording alone, so that a second export of the same one is refused.
                let stem = format!("{}-{}", config.what.as_str(), header.begin_ns);
                return Ok(Box::new(PartitionedDataset::new(output, host, &stem, schema.clone())));
            }
            return Ok(Box::new(
                ParquetFile::new(output, create(output, config.force)?, schema).context("writing Parquet")?,
            ));
        }
    };
    if config.partition {
        bail!("--partition makes directories of Parquet files: add --format parquet");
    }
    Ok(match config.output.as_deref().filter(|output| *output != Path::new("-")) {
        Some(output) => Box::new(TextFile::new(output, create(output, config.force)?, lines, schema)?),
        None => Box::new(TextFile::new(Path::new("-"), io::stdout(), lines, schema)?),
    })
}

/// A table that is being written. Dropped before its end it leaves nothing behind: half an export looks like a whole one.
struct Output {
    table: Option<Box<dyn TableWriter>>,
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(table) = self.table.take() {
            let files = table.files();
            drop(table);
            remove(&files);
        }
    }
}

/// Removes files that are not whole.
fn remove(files: &[PathBuf]) {
    for file in files.iter().filter(|file| *file != Path::new("-")) {
        // The error that led here matters more.
        let _ = std::fs::remove_file(file);
    }
}

/// Writes a batch. A reader that has closed the pipe ends the export, which is no failure.
fn put(output: &mut Output, batch: &arrow_array::RecordBatch) -> Result<()> {
    let Some(table) = &mut output.table else { return Ok(()) };
    match table.write(batch) {
        Err(TableError::Io(error)) if reader_has_gone(&error) => std::process::exit(0),
        result => result.context("writing the export"),
    }
}

fn conclude(mut output: Output) -> Result<()> {
    let Some(table) = output.table.take() else { return Ok(()) };
    let files = table.files();
    match table.finish().inspect_err(|_| remove(&files)) {
        Err(TableError::Io(error)) if reader_has_gone(&error) => Ok(()),
        result => {
            for path in result.context("ending the export")?.iter().filter(|path| *path != Path::new("-")) {
                say(format_args!("wrote {}", path.display()));
            }
            Ok(())
        }
    }
}
