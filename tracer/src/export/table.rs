//! Outputs for tables: one Parquet file, a dataset of Parquet files by host and hour, or lines of text.
//!
//! Not for: the rows, which `flows` and the recording make.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    ArrowDictionaryKeyType, Int32Type, Int64Type, TimestampMicrosecondType, TimestampNanosecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{ArrayRef, DictionaryArray, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, FieldRef, Schema, SchemaRef};
use jiff::Timestamp;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use thiserror::Error;

use super::lines;
pub use super::lines::LineFormat;

/// Hours of a dataset that are open at the same time: events of two CPUs are a little out of order, and names of
/// processes may be hours older than the events around them.
const MAX_HOURS: usize = 8;
/// Bytes of memory at which a row group is written early: with a million rows, a wide table would take hundreds of
/// megabytes.
const MAX_GROUP: usize = 32 << 20;
const HOUR_NANOS: i64 = 3_600_000_000_000;

/// Why a table could not be written.
#[derive(Debug, Error)]
pub enum TableError {
    /// The output failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The Parquet writer failed, or the file below it.
    #[error(transparent)]
    Parquet(#[from] ParquetError),
}

/// An output for a table, which is written batch by batch.
pub trait TableWriter {
    /// Writes a batch.
    ///
    /// # Errors
    /// [`TableError`] of the output.
    fn write(&mut self, batch: &RecordBatch) -> Result<(), TableError>;

    /// Ends the output and returns its files.
    ///
    /// # Errors
    /// [`TableError`] of the output.
    fn finish(self: Box<Self>) -> Result<Vec<PathBuf>, TableError>;

    /// The files that exist now.
    fn files(&self) -> Vec<PathBuf>;
}

/// The table as every reader of Parquet has types for: no unsigned numbers, and microseconds; the nanoseconds of a time are a number
/// beside it, under its name and `_ns`.
fn widened(batch: &RecordBatch) -> Result<RecordBatch, ParquetError> {
    let (mut fields, mut columns): (Vec<FieldRef>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
    let schema = batch.schema();
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        let mut put = |name: &str, column: ArrayRef| {
            fields.push(Arc::new(Field::new(name, column.data_type().clone(), field.is_nullable())));
            columns.push(column);
        };
        match field.data_type() {
            DataType::UInt16 => {
                put(field.name(), Arc::new(column.as_primitive::<UInt16Type>().unary::<_, Int32Type>(i32::from)));
            }
            DataType::UInt32 => {
                put(field.name(), Arc::new(column.as_primitive::<UInt32Type>().unary::<_, Int64Type>(i64::from)));
            }
            // Cookies count from 1, and what is random keeps its bits.
            DataType::UInt64 => {
                put(
                    field.name(),
                    Arc::new(column.as_primitive::<UInt64Type>().unary::<_, Int64Type>(u64::cast_signed)),
                );
            }
            DataType::Timestamp(..) => {
                let nanos = column.as_primitive::<TimestampNanosecondType>();
                let micros = nanos.unary::<_, TimestampMicrosecondType>(|nanos| nanos.div_euclid(1_000));
                put(field.name(), Arc::new(micros.with_timezone("UTC")));
                put(&format!("{}_ns", field.name()), Arc::new(nanos.unary::<_, Int64Type>(|nanos| nanos)));
            }
            DataType::Dictionary(keys, _) if **keys == DataType::UInt32 => {
                put(field.name(), Arc::new(words(column.as_dictionary::<UInt32Type>())));
            }
            DataType::Dictionary(..) => put(field.name(), Arc::new(words(column.as_dictionary::<UInt8Type>()))),
            _ => put(field.name(), ArrayRef::clone(column)),
        }
    }
    let metadata = schema.metadata().clone();
    Ok(RecordBatch::try_new(Arc::new(Schema::new_with_metadata(fields, metadata)), columns)?)
}

fn words<K: ArrowDictionaryKeyType>(column: &DictionaryArray<K>) -> StringArray {
    let values = column.values().as_string::<i32>();
    column.keys_iter().map(|key| key.map(|key| values.value(key))).collect()
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
    /// Begins a table with this schema in `file`, which is at `path`.
    ///
    /// # Errors
    /// [`TableError::Parquet`] if Parquet has no type for a column.
    pub fn new(path: &Path, file: File, schema: &SchemaRef) -> Result<Self, TableError> {
        let schema = widened(&RecordBatch::new_empty(SchemaRef::clone(schema)))?.schema();
        Ok(Self { path: path.into(), writer: ArrowWriter::try_new(file, schema, Some(properties()))? })
    }
}

impl TableWriter for ParquetFile {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), TableError> {
        self.writer.write(&widened(batch)?)?;
        if self.writer.memory_size() >= MAX_GROUP {
            self.writer.flush()?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Vec<PathBuf>, TableError> {
        self.writer.close()?;
        Ok(vec![self.path])
    }

    fn files(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }
}

/// A Hive-partitioned dataset: `host=NAME/hour=2026-03-14T02/STEM-0.parquet`. Recordings of many hosts and days fit
/// into one directory, and query engines skip the hours that a query does not need.
pub struct PartitionedDataset {
    root: PathBuf,
    host: String,
    /// The beginning of all file names, which tells the files of one export from those of others.
    stem: String,
    schema: SchemaRef,
    hours: BTreeMap<i64, ParquetFile>,
    done: Vec<PathBuf>,
}

impl PartitionedDataset {
    /// A dataset below `root`. `stem` is the beginning of its file names; existing files of that name are not replaced
    /// but end the export with an error.
    pub fn new(root: &Path, host: &str, stem: &str, schema: SchemaRef) -> Self {
        // A directory's name with characters that query engines need not decode and shells need not quote.
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
            // An hour whose file was closed already gets another file.
            let part = self.done.iter().filter(|path| path.parent() == Some(&dir)).count();
            let path = dir.join(format!("{}-{part}.parquet", self.stem));
            let file = tracer_core::recording::create(&path, false)?;
            self.hours.insert(hour, ParquetFile::new(&path, file, &self.schema)?);
        }
        self.hours.get_mut(&hour).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound).into())
    }
}

impl TableWriter for PartitionedDataset {
    fn write(&mut self, batch: &RecordBatch) -> Result<(), TableError> {
        // The first column of each table is its time.
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

    fn files(&self) -> Vec<PathBuf> {
        self.done.iter().cloned().chain(self.hours.values().flat_map(TableWriter::files)).collect()
    }
}

/// Lines of text: JSON or CSV.
pub struct TextFile<W: Write> {
    out: BufWriter<W>,
    format: LineFormat,
    path: PathBuf,
}

impl<W: Write> TextFile<W> {
    /// Begins a table with this schema in `out`. `path` is its name, `-` for stdout.
    ///
    /// # Errors
    /// [`TableError::Io`] of `out`.
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

    fn files(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }
}
