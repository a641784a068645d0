//! Where tables go: one Parquet file, a dataset of them by host and hour, or lines of text.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray as _;
use arrow_array::types::TimestampNanosecondType;
use arrow_schema::SchemaRef;
use jiff::Timestamp;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use thiserror::Error;

use super::lines;
pub use super::lines::LineFormat;

/// Hours of a dataset that are written at the same time: events of two CPUs are a little out of order, names may be
/// much older.
const MAX_HOURS: usize = 8;
/// Memory of a row group at which it is written early: a wide table would hold hundreds of megabytes until it has a
/// million rows.
const MAX_GROUP: usize = 32 << 20;
const HOUR_NANOS: i64 = 3_600_000_000_000;

/// Why a table could not be written.
#[derive(Debug, Error)]
pub enum TableError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Parquet(#[from] ParquetError),
}

/// Takes a table batch by batch.
pub trait TableWriter {
    /// # Errors
    /// The output refused.
    fn write(&mut self, batch: &RecordBatch) -> Result<(), TableError>;

    /// Ends the output and says where the table is.
    ///
    /// # Errors
    /// The output refused.
    fn finish(self: Box<Self>) -> Result<Vec<PathBuf>, TableError>;
}

fn properties() -> WriterProperties {
    WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build()
}

/// One Parquet file.
pub struct ParquetFile {
    path: PathBuf,
    writer: ArrowWriter<File>,
}

impl ParquetFile {
    /// # Errors
    /// The file could not be begun.
    pub fn new(path: &Path, file: File, schema: &SchemaRef) -> Result<Self, TableError> {
        Ok(Self {
            path: path.into(),
            writer: ArrowWriter::try_new(file, SchemaRef::clone(schema), Some(properties()))?,
        })
    }
}

impl TableWriter for ParquetFile {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), TableError> {
        self.writer.write(batch)?;
        if self.writer.memory_size() >= MAX_GROUP {
            self.writer.flush()?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Vec<PathBuf>, TableError> {
        self.writer.close()?;
        Ok(vec![self.path])
    }
}

/// A Hive-partitioned dataset: `host=NAME/hour=2026-03-14T02/WRITER-0.parquet`. Recordings of many hosts and days fit
/// into one directory, and engines skip the hours that a query does not ask for.
pub struct PartitionedDataset {
    root: PathBuf,
    host: String,
    /// Tells the files of one export from those of others.
    stem: String,
    schema: SchemaRef,
    hours: BTreeMap<i64, ParquetFile>,
    done: Vec<PathBuf>,
}

impl PartitionedDataset {
    /// `stem` names the files; a dataset that has files of that name already is not touched.
    pub fn new(root: &Path, host: &str, stem: &str, schema: SchemaRef) -> Self {
        // A directory's name: what engines decode and shells do not stumble over.
        let host: String =
            host.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect();
        let host = if host.trim_matches('.').is_empty() { "unknown".into() } else { host };
        Self { root: root.into(), host, stem: stem.into(), schema, hours: BTreeMap::new(), done: Vec::new() }
    }

    fn hour(&mut self, hour: i64) -> Result<&mut ParquetFile, TableError> {
        if !self.hours.contains_key(&hour) {
            if self.hours.len() >= MAX_HOURS
                && let Some((_, oldest)) = self.hours.pop_first()
            {
                self.done.extend(Box::new(oldest).finish()?);
            }
            let start = Timestamp::from_nanosecond(i128::from(hour) * i128::from(HOUR_NANOS)).unwrap_or(Timestamp::MIN);
            let dir =
                self.root.join(format!("host={}", self.host)).join(format!("hour={}", start.strftime("%Y-%m-%dT%H")));
            fs::create_dir_all(&dir)?;
            // An hour that was closed already gets another file.
            let part = self.done.iter().filter(|path| path.parent() == Some(&dir)).count();
            let path = dir.join(format!("{}-{part}.parquet", self.stem));
            let file = File::options().write(true).create_new(true).open(&path)?;
            self.hours.insert(hour, ParquetFile::new(&path, file, &self.schema)?);
        }
        self.hours.get_mut(&hour).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound).into())
    }
}

impl TableWriter for PartitionedDataset {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), TableError> {
        // The first column of each of our tables is its time.
        let times = batch.column(0).as_primitive::<TimestampNanosecondType>().values().clone();
        let mut start = 0;
        for run in times.chunk_by(|left, right| left.div_euclid(HOUR_NANOS) == right.div_euclid(HOUR_NANOS)) {
            let hour = run.first().copied().unwrap_or_default().div_euclid(HOUR_NANOS);
            self.hour(hour)?.write(&batch.slice(start, run.len()))?;
            start += run.len();
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Vec<PathBuf>, TableError> {
        let mut done = self.done;
        for (_, hour) in self.hours {
            done.extend(Box::new(hour).finish()?);
        }
        Ok(done)
    }
}

/// Lines of text: JSON or CSV.
pub struct TextFile<W: Write> {
    out: BufWriter<W>,
    format: LineFormat,
    path: PathBuf,
}

impl<W: Write> TextFile<W> {
    /// # Errors
    /// The output refused.
    pub fn new(path: &Path, out: W, format: LineFormat, schema: &SchemaRef) -> Result<Self, TableError> {
        let mut out = BufWriter::new(out);
        if format == LineFormat::Csv {
            lines::header_line(&mut out, schema)?;
        }
        Ok(Self { out, format, path: path.into() })
    }
}

impl<W: Write> TableWriter for TextFile<W> {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), TableError> {
        Ok(lines::lines(&mut self.out, batch, self.format)?)
    }

    fn finish(mut self: Box<Self>) -> Result<Vec<PathBuf>, TableError> {
        self.out.flush()?;
        Ok(vec![self.path])
    }
}
