//! Writes a recording batch by batch: if the program dies, the file can be read to its last whole batch.
//!
//! [`Writer`] is a whole recording into one [`Sink`]. [`Packer`] and [`RecordingFile`] are its two halves, for
//! recorders that hold batches in memory or write several files. Not for: threads, queues, rotation, or deciding when a
//! batch is due, which the caller does (the binary's `run::record`).

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;

use arrow_array::RecordBatch;
use arrow_ipc::convert::IpcSchemaEncoder;
use arrow_ipc::writer::{
    DictionaryHandling, DictionaryTracker, EncodedData, IpcDataGenerator, IpcWriteContext, IpcWriteOptions,
};
use arrow_ipc::{Block, CompressionType, FooterBuilder, MetadataVersion};
use arrow_schema::{ArrowError, DataType, SchemaRef};
use flatbuffers::FlatBufferBuilder;
use thiserror::Error;

use super::encode::Encoder;
use super::frame::{self, Stats};
use super::{RecordingHeader, VERSION, schema};
use crate::step::TrackerStep;

/// The zstd level. Level 1 packs churn as small as level 3 does, in half the time.
const LEVEL: i32 = 1;
/// Arrow's smallest alignment: a larger one would only add padding, since readers copy compressed buffers anyway.
const ALIGNMENT: usize = 8;

/// Why a recording cannot go on.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The sink failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The columns fit no batch, which would be a defect of this module.
    #[error("building a batch: {0}")]
    Arrow(#[from] ArrowError),
}

/// An output for a recording. It can be truncated, because a writer that fails in the middle of a message removes what
/// it wrote of it.
pub trait Sink: Write + Seek {
    /// Truncates the output to `length` bytes and continues writing there.
    ///
    /// # Errors
    /// [`io::Error`] of the file system.
    fn truncate(&mut self, length: u64) -> io::Result<()>;

    /// Waits until everything that was written would survive a power cut.
    ///
    /// # Errors
    /// [`io::Error`] of the device; of kind [`io::ErrorKind::NotFound`] if the file has been deleted, so that no one
    /// will find it.
    fn sync(&mut self) -> io::Result<()>;
}

impl Sink for File {
    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)?;
        self.seek(SeekFrom::Start(length)).map(drop)
    }

    fn sync(&mut self) -> io::Result<()> {
        match self.sync_data() {
            // The path may lead to something that is on no disk.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
            result => result?,
        }
        #[cfg(unix)]
        if std::os::unix::fs::MetadataExt::nlink(&self.metadata()?) == 0 {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the recording was deleted while it was being written",
            ));
        }
        Ok(())
    }
}

impl Sink for io::Cursor<Vec<u8>> {
    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.get_mut().truncate(usize::try_from(length).unwrap_or(usize::MAX));
        self.set_position(length);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Creates a file that only its owner can read and whose name survives a power cut. `force` replaces an existing file.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] if the file exists and `force` is false, [`io::ErrorKind::InvalidInput`] if `path`
/// is `-`, a directory or a special file, or another [`io::Error`] of the file system.
pub fn create(path: &Path, force: bool) -> io::Result<File> {
    let invalid = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    let special = "a recording needs a file that can be cut back when the disk is full; this is none";
    if path == Path::new("-") {
        return invalid(special);
    }
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => return invalid("this is a directory; a recording is a file"),
        Ok(found) if !found.is_file() && !found.is_symlink() => return invalid(special),
        // The old file is removed first, so that the new one does not inherit its permissions and programs that read it
        // are not disturbed.
        Ok(_) if force => fs::remove_file(path)?,
        Ok(_) | Err(_) => {}
    }
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Some file systems refuse to sync a directory; nothing more can be done for the name there.
    let _ = File::open(dir).and_then(|dir| dir.sync_all());
    Ok(file)
}

/// What a file holds so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Bytes in the file.
    pub bytes: u64,
    /// Rows of all batches.
    pub rows: u64,
    /// Batches.
    pub batches: u64,
    /// Earliest time of all rows: nanoseconds since 1970.
    pub first: i64,
    /// Latest time of all rows: nanoseconds since 1970.
    pub last: i64,
}

impl Written {
    fn count(&mut self, stats: Stats) {
        self.first = if self.rows == 0 { stats.first } else { self.first.min(stats.first) };
        self.last = if self.rows == 0 { stats.last } else { self.last.max(stats.last) };
        self.rows += u64::from(stats.rows);
        self.batches += 1;
    }
}

/// A message that is ready to be written.
pub struct EncodedMessage {
    head: Vec<u8>,
    body: Vec<u8>,
}

impl EncodedMessage {
    fn new(data: EncodedData, stats: Stats) -> Self {
        let EncodedData { ipc_message, arrow_data } = data;
        Self { head: frame::head(&ipc_message, &arrow_data, stats), body: arrow_data }
    }

    fn bytes(&self) -> u64 {
        (self.head.len() + self.body.len()) as u64
    }
}

/// A batch that is ready to be written.
pub struct PackedBatch {
    /// What it holds.
    pub stats: Stats,
    batch: EncodedMessage,
    /// Additions to the dictionaries: the addresses that no earlier batch had.
    additions: Vec<EncodedMessage>,
    /// Its number among the packer's batches, from 1.
    number: u64,
}

impl PackedBatch {
    /// Bytes that it takes in a file.
    pub fn bytes(&self) -> u64 {
        self.batch.bytes() + self.additions.iter().map(EncodedMessage::bytes).sum::<u64>()
    }
}

/// Packs steps into batches that are ready to be written. A batch may wait in memory for a file that begins later.
pub struct Packer {
    encoder: Encoder,
    schema: SchemaRef,
    options: IpcWriteOptions,
    context: IpcWriteContext,
    generator: IpcDataGenerator,
    /// What the batches so far have had of each dictionary.
    dictionaries: DictionaryTracker,
    /// Words of each dictionary so far, by its number.
    words: HashMap<i64, i64>,
    /// Batches so far.
    packed: u64,
}

impl Packer {
    /// Packs steps of a recording with this header.
    ///
    /// # Errors
    /// [`WriteError::Arrow`] if the schema could not be encoded, which would be a defect of this module.
    pub fn new(header: &RecordingHeader) -> Result<Self, WriteError> {
        let options = IpcWriteOptions::try_new(ALIGNMENT, false, MetadataVersion::V5)?
            .try_with_compression(Some(CompressionType::ZSTD))?
            .try_with_compression_level(Some(LEVEL))?
            .with_dictionary_handling(DictionaryHandling::Delta);
        let mut packer = Self {
            encoder: Encoder::new(header.offset()),
            schema: schema::schema(HashMap::new()),
            options,
            context: IpcWriteContext::default(),
            generator: IpcDataGenerator::default(),
            dictionaries: DictionaryTracker::new(true),
            words: HashMap::new(),
            packed: 0,
        };
        packer.context.set_reserve_scratch(true);
        packer.dictionaries = packer.numbering();
        // An empty batch, so that the tracker knows the dictionaries that every file begins with: later addresses are
        // additions to them.
        let (batch, _) = packer.encoder.batch(&packer.schema)?;
        packer.pack(&batch, Stats::default())?;
        Ok(packer)
    }

    /// No new address fits into one of the address columns: further ones take more space, in `detail`.
    pub fn is_full_of_addresses(&self) -> bool {
        self.encoder.is_full_of_addresses()
    }

    /// A tracker that knows the dictionaries of the schema, none of which has been written.
    fn numbering(&self) -> DictionaryTracker {
        let mut numbering = DictionaryTracker::new(true);
        self.generator.schema_to_bytes_with_dictionary_tracker(&self.schema, &mut numbering, &self.options);
        numbering
    }

    /// All dictionaries as they are now, in the order of their columns. Rows that are not in a batch yet are lost.
    fn whole(&mut self, flags: u32) -> Result<Vec<EncodedMessage>, WriteError> {
        let (batch, _) = self.encoder.batch(&self.schema)?;
        let mut numbering = self.numbering();
        let (all, _) = self.generator.encode(&batch, &mut numbering, &self.options, &mut self.context)?;
        let message = |data: EncodedData| {
            let last = words(&data).filter(|_| flags != 0).map_or(0, |words| words.count);
            EncodedMessage::new(data, Stats { flags, last, ..Stats::default() })
        };
        Ok(all.into_iter().map(message).collect())
    }

    /// The first message of a file: the schema with this header.
    ///
    /// # Errors
    /// [`WriteError::Io`] if the header does not serialise, which would be a defect of this module.
    pub fn schema_message(&self, header: &RecordingHeader) -> Result<SchemaMessage, WriteError> {
        let json = serde_json::to_string(header).map_err(io::Error::from)?;
        let schema = schema::schema(HashMap::from([
            (schema::VERSION_KEY.to_owned(), VERSION.to_string()),
            (schema::OFFSET_KEY.to_owned(), header.offset().to_string()),
            (schema::HEADER_KEY.to_owned(), json),
        ]));
        let mut numbering = DictionaryTracker::new(true);
        let data = self.generator.schema_to_bytes_with_dictionary_tracker(&schema, &mut numbering, &self.options);
        Ok(SchemaMessage { schema, message: EncodedMessage::new(data, Stats::default()) })
    }

    /// Rows that are not in a batch yet.
    pub fn rows(&self) -> usize {
        self.encoder.rows()
    }

    /// Adds a step and calls `packed` with each batch that it filled.
    ///
    /// # Errors
    /// The error of `packed`, or [`WriteError::Arrow`] if a batch could not be built, which would be a defect of this
    /// module.
    pub fn step(
        &mut self,
        step: &TrackerStep,
        mut packed: impl FnMut(PackedBatch) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        let mut batches = Vec::new();
        self.encoder.step(step, |encoder| -> Result<(), WriteError> {
            batches.push(encoder.batch(&self.schema)?);
            Ok(())
        })?;
        for (batch, stats) in batches {
            packed(self.pack(&batch, stats)?)?;
        }
        Ok(())
    }

    /// Packs the rows since the last batch, however few; `None` if there are none.
    ///
    /// # Errors
    /// [`WriteError::Arrow`] if the batch could not be built, which would be a defect of this module.
    pub fn flush(&mut self) -> Result<Option<PackedBatch>, WriteError> {
        if self.encoder.rows() == 0 {
            return Ok(None);
        }
        let (batch, stats) = self.encoder.batch(&self.schema)?;
        self.pack(&batch, stats).map(Some)
    }

    fn pack(&mut self, batch: &RecordBatch, stats: Stats) -> Result<PackedBatch, WriteError> {
        let (additions, batch) =
            self.generator.encode(batch, &mut self.dictionaries, &self.options, &mut self.context)?;
        let additions = additions.into_iter().map(|data| self.addition(data)).collect();
        self.packed += 1;
        Ok(PackedBatch { stats, batch: EncodedMessage::new(batch, stats), additions, number: self.packed })
    }
}

/// What a message of a dictionary holds.
struct Words {
    dictionary: i64,
    count: i64,
    /// It adds to those before.
    addition: bool,
}

/// `None` if the message has none, which would be a defect of this module.
fn words(data: &EncodedData) -> Option<Words> {
    let message = arrow_ipc::root_as_message(&data.ipc_message).ok()?;
    let dictionary = message.header_as_dictionary_batch()?;
    let count = dictionary.data()?.length();
    Some(Words { dictionary: dictionary.id(), count, addition: dictionary.isDelta() })
}

impl Packer {
    /// Each addition tells the numbers of its words, so that a reader that lacks an earlier one knows them.
    fn addition(&mut self, data: EncodedData) -> EncodedMessage {
        let mut stats = Stats { flags: frame::flags::DICTIONARY, ..Stats::default() };
        if let Some(words) = words(&data) {
            let known = self.words.entry(words.dictionary).or_default();
            stats.first = if words.addition { *known } else { 0 };
            stats.last = stats.first + words.count;
            *known = stats.last;
        }
        EncodedMessage::new(data, stats)
    }
}

/// The first message of a file, of [`Packer::schema_message`].
pub struct SchemaMessage {
    schema: SchemaRef,
    message: EncodedMessage,
}

/// One file of a recording. A rotation has several.
pub struct RecordingFile<S> {
    sink: S,
    schema: SchemaRef,
    /// The position of each dictionary, in the order of their columns.
    dictionaries: Vec<Block>,
    batches: Vec<WrittenBatch>,
    written: Written,
    /// The file began with the addresses of the packer's batches up to this number.
    since: u64,
}

/// The position of a batch in its file.
struct WrittenBatch {
    /// Byte at which its additions begin, or itself if it has none.
    start: u64,
    block: Block,
    stats: Stats,
}

impl<S: Sink> RecordingFile<S> {
    /// Begins a file in an empty sink with the packer's present dictionaries. Rows of the packer that are not in a
    /// batch yet are lost.
    ///
    /// # Errors
    /// [`WriteError::Io`] of the sink.
    pub fn begin(mut sink: S, schema_message: SchemaMessage, packer: &mut Packer) -> Result<Self, WriteError> {
        sink.write_all(&frame::MAGIC)?;
        let written = Written { bytes: frame::MAGIC.len() as u64, ..Written::default() };
        let schema = schema_message.schema;
        let since = packer.packed;
        let mut output = Self { sink, schema, dictionaries: Vec::new(), batches: Vec::new(), written, since };
        output.message(&schema_message.message)?;
        for dictionary in packer.whole(frame::flags::DICTIONARY)? {
            let block = output.message(&dictionary)?;
            output.dictionaries.push(block);
        }
        Ok(output)
    }

    /// Writes a message and returns its position.
    fn message(&mut self, message: &EncodedMessage) -> Result<Block, WriteError> {
        self.sink.write_all(&message.head)?;
        self.sink.write_all(&message.body)?;
        // The conversions cannot fail: no file has 8 EiB and no message 2 GiB.
        let block = Block::new(
            i64::try_from(self.written.bytes).unwrap_or(i64::MAX),
            i32::try_from(message.head.len()).unwrap_or(i32::MAX),
            i64::try_from(message.body.len()).unwrap_or(i64::MAX),
        );
        self.written.bytes += message.bytes();
        Ok(block)
    }

    /// What the file holds so far.
    pub fn written(&self) -> Written {
        self.written
    }

    /// Adds a batch. After an error the file ends with the previous batch, and [`Self::finish`] still makes a whole
    /// file of it.
    ///
    /// # Errors
    /// [`WriteError::Io`] of the sink, for example because the disk is full.
    pub fn batch(&mut self, packed: &PackedBatch) -> Result<(), WriteError> {
        let start = self.written.bytes;
        let additions = if packed.number > self.since { packed.additions.as_slice() } else { &[] };
        let additions = additions.iter().try_for_each(|addition| self.message(addition).map(drop));
        match additions.and_then(|()| self.message(&packed.batch)) {
            Ok(block) => {
                self.batches.push(WrittenBatch { start, block, stats: packed.stats });
                self.written.count(packed.stats);
                Ok(())
            }
            Err(error) => {
                // If this fails too, readers find the damage.
                let _ = self.sink.truncate(start);
                self.written.bytes = start;
                Err(error)
            }
        }
    }

    /// Hands everything to the operating system.
    ///
    /// # Errors
    /// [`WriteError::Io`] of the sink.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        Ok(self.sink.flush()?)
    }

    /// Waits until everything is on the disk.
    ///
    /// # Errors
    /// [`WriteError::Io`] of [`Sink::sync`].
    pub fn sync(&mut self) -> Result<(), WriteError> {
        Ok(self.sink.sync()?)
    }

    /// Ends the file with its dictionaries and footer, and waits until it is on the disk. If the footer does not fit,
    /// the last batches are removed until it does. Rows of the packer that are not in a batch yet are lost.
    ///
    /// # Errors
    /// [`WriteError::Io`] of the sink, if not even an empty file fits or the disk fails. portchurn reads the file
    /// nevertheless.
    pub fn finish(mut self, packer: &mut Packer) -> Result<(Written, S), WriteError> {
        let whole = packer.whole(0)?;
        loop {
            let end = self.written.bytes;
            let Err(error) = self.end(&whole) else { break };
            self.sink.truncate(end)?;
            let Some(last) = self.batches.pop() else { return Err(error) };
            self.written = Written { bytes: last.start, ..Written::default() };
            for batch in &self.batches {
                self.written.count(batch.stats);
            }
            self.sink.truncate(self.written.bytes)?;
        }
        self.sync()?;
        Ok((self.written, self.sink))
    }

    /// Writes the dictionaries, the tail and the footer.
    fn end(&mut self, whole: &[EncodedMessage]) -> Result<(), WriteError> {
        let mut dictionaries = self.dictionaries.clone();
        let schema = SchemaRef::clone(&self.schema);
        let columns = schema.fields().iter().map(|field| field.data_type());
        let columns = columns.filter(|column| matches!(column, DataType::Dictionary(..)));
        for ((column, message), block) in columns.zip(whole).zip(&mut dictionaries) {
            if schema::grows(column) {
                *block = self.message(message)?;
            }
        }
        let mut fbb = FlatBufferBuilder::new();
        let dictionaries = fbb.create_vector(&dictionaries);
        let blocks: Vec<Block> = self.batches.iter().map(|batch| batch.block).collect();
        let batches = fbb.create_vector(&blocks);
        let mut numbering = DictionaryTracker::new(true);
        let schema =
            IpcSchemaEncoder::new().with_dictionary_tracker(&mut numbering).schema_to_fb_offset(&mut fbb, &self.schema);
        let mut footer = FooterBuilder::new(&mut fbb);
        footer.add_version(MetadataVersion::V5);
        footer.add_schema(schema);
        footer.add_dictionaries(dictionaries);
        footer.add_recordBatches(batches);
        let root = footer.finish();
        fbb.finish(root, None);
        let footer = fbb.finished_data();
        let stats = Stats {
            rows: u32::try_from(self.written.batches).unwrap_or(u32::MAX),
            flags: 0,
            first: self.written.first,
            last: self.written.last,
        };
        let mut bytes = Vec::with_capacity(frame::PREFIX + frame::TRAILER + footer.len() + 10);
        bytes.extend_from_slice(&frame::CONTINUATION);
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&frame::tail(stats, self.written.rows));
        bytes.extend_from_slice(footer);
        bytes.extend_from_slice(&i32::try_from(footer.len()).unwrap_or(i32::MAX).to_le_bytes());
        bytes.extend_from_slice(b"ARROW1");
        self.sink.write_all(&bytes)?;
        self.sink.flush()?;
        self.written.bytes += bytes.len() as u64;
        Ok(())
    }
}

/// Writes a whole recording into one sink.
pub struct Writer<S> {
    packer: Packer,
    output: RecordingFile<S>,
}

impl<S: Sink> Writer<S> {
    /// Begins a recording in an empty sink.
    ///
    /// # Errors
    /// [`WriteError::Io`] of the sink.
    pub fn new(sink: S, header: &RecordingHeader) -> Result<Self, WriteError> {
        let mut packer = Packer::new(header)?;
        let schema_message = packer.schema_message(header)?;
        let output = RecordingFile::begin(sink, schema_message, &mut packer)?;
        Ok(Self { packer, output })
    }

    /// Adds a step.
    ///
    /// # Errors
    /// [`WriteError::Io`] of the sink.
    pub fn step(&mut self, step: &TrackerStep) -> Result<(), WriteError> {
        let output = &mut self.output;
        self.packer.step(step, |packed| output.batch(&packed))
    }

    /// Writes the rows since the last batch as a batch.
    ///
    /// # Errors
    /// [`WriteError::Io`] of the sink.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        if let Some(packed) = self.packer.flush()? {
            self.output.batch(&packed)?;
        }
        self.output.flush()
    }

    /// Ends the file and returns what it holds.
    ///
    /// # Errors
    /// [`WriteError::Io`] of the sink.
    pub fn finish(mut self) -> Result<(Written, S), WriteError> {
        self.flush()?;
        self.output.finish(&mut self.packer)
    }
}

/// A file of these messages (flatbuffer and body each) with right checksums, so that tests and fuzzers reach the code
/// behind them.
#[cfg(any(test, feature = "testing"))]
pub fn seal_for_tests(messages: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut file = frame::MAGIC.to_vec();
    for (flatbuffer, body) in messages {
        file.extend_from_slice(&frame::head(flatbuffer, body, Stats::default()));
        file.extend_from_slice(body);
    }
    file
}
