//! Writes a recording, batch by batch, so that whatever happens to the program leaves a file that reads to its last batch.
//!
//! Not for: threads and queues (`run::recorder`), rotation, or deciding when a batch is due; the caller knows the time.

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
use super::{RecordedStep, RecordingHeader, VERSION, schema};

/// Level 1 packs churn as small as 3 does, in half the time.
const LEVEL: i32 = 1;
/// Arrow's least alignment; compressed buffers are copied out anyway.
const ALIGNMENT: usize = 8;

/// Why a recording cannot go on.
#[derive(Debug, Error)]
pub enum WriteError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("building a batch: {0}")]
    Arrow(#[from] ArrowError),
}

/// Where the bytes go. A writer that failed in the middle of a message takes back what it wrote of it.
pub trait Sink: Write + Seek {
    /// Cuts everything off behind `length`.
    ///
    /// # Errors
    /// The file system refused.
    fn cut(&mut self, length: u64) -> io::Result<()>;

    /// Waits until a power cut cannot take away what was written.
    ///
    /// # Errors
    /// The device refused, or nobody will ever find what was written: the file has lost its name.
    fn sync(&mut self) -> io::Result<()>;
}

impl Sink for File {
    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)?;
        self.seek(SeekFrom::Start(length)).map(drop)
    }

    fn sync(&mut self) -> io::Result<()> {
        match self.sync_data() {
            // What the path leads to need not be on a disk.
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
    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.get_mut().truncate(usize::try_from(length).unwrap_or(usize::MAX));
        self.set_position(length);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Creates a file that only its owner reads, and whose name survives a power cut.
///
/// # Errors
/// It exists and `force` was not given, or the file system refused.
pub fn create(path: &Path, force: bool) -> io::Result<File> {
    let unfit = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    let special = "a recording needs a file that can be cut back when the disk is full; this is none";
    if path == Path::new("-") {
        return unfit(special);
    }
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => return unfit("this is a directory; a recording is a file"),
        Ok(found) if !found.is_file() && !found.is_symlink() => return unfit(special),
        // What is replaced is removed first, so that its rights are not inherited and whoever reads it goes on reading it.
        Ok(_) if force => fs::remove_file(path)?,
        Ok(_) | Err(_) => {}
    }
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Some file systems cannot; their names are as safe as they ever are.
    let _ = File::open(dir).and_then(|dir| dir.sync_all());
    Ok(file)
}

/// What has been written so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Bytes in the file.
    pub bytes: u64,
    pub rows: u64,
    pub batches: u64,
    /// Earliest and latest time of all rows: nanoseconds since 1970.
    pub first: i64,
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

/// A message ready to be written.
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

/// A batch ready to be written.
pub struct PackedBatch {
    pub stats: Stats,
    batch: EncodedMessage,
    /// The addresses that it is the first to have.
    additions: Vec<EncodedMessage>,
    /// Its number among the packer's batches.
    number: u64,
}

impl PackedBatch {
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
    /// What has been said of each dictionary.
    dictionaries: DictionaryTracker,
    /// Batches so far.
    packed: u64,
}

impl Packer {
    /// # Errors
    /// The schema could not be encoded, which no schema of ours causes.
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
            packed: 0,
        };
        packer.context.set_reserve_scratch(true);
        packer.dictionaries = packer.numbering();
        // Of the dictionaries that every file begins with: from now on what is new is an addition to them.
        let (batch, _) = packer.encoder.batch(&packer.schema)?;
        packer.pack(&batch, Stats::default())?;
        Ok(packer)
    }

    /// New addresses find no place any more.
    pub fn is_full_of_addresses(&self) -> bool {
        self.encoder.is_full_of_addresses()
    }

    /// Knows the dictionaries of the schema and has said nothing of any.
    fn numbering(&self) -> DictionaryTracker {
        let mut numbering = DictionaryTracker::new(true);
        self.generator.schema_to_bytes_with_dictionary_tracker(&self.schema, &mut numbering, &self.options);
        numbering
    }

    /// All dictionaries whole, as they are now, in the order of their columns. Rows under construction are lost.
    fn whole(&mut self, flags: u32) -> Result<Vec<EncodedMessage>, WriteError> {
        let (batch, _) = self.encoder.batch(&self.schema)?;
        let mut numbering = self.numbering();
        let (all, _) = self.generator.encode(&batch, &mut numbering, &self.options, &mut self.context)?;
        let stats = Stats { flags, ..Stats::default() };
        Ok(all.into_iter().map(|data| EncodedMessage::new(data, stats)).collect())
    }

    /// The first message of a file: the schema with this header.
    ///
    /// # Errors
    /// The header does not serialise, which none of ours causes.
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

    pub fn rows(&self) -> usize {
        self.encoder.rows()
    }

    /// Adds a step; batches that fill up on the way go to `packed`.
    ///
    /// # Errors
    /// A batch could not be built or `packed` refused it.
    pub fn step(
        &mut self,
        step: &RecordedStep,
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

    /// Packs what there is, even if it is little.
    ///
    /// # Errors
    /// The batch could not be built.
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
        let words = Stats { flags: frame::flags::DICTIONARY, ..Stats::default() };
        let additions = additions.into_iter().map(|data| EncodedMessage::new(data, words)).collect();
        self.packed += 1;
        Ok(PackedBatch { stats, batch: EncodedMessage::new(batch, stats), additions, number: self.packed })
    }
}

/// See [`Packer::schema_message`].
pub struct SchemaMessage {
    schema: SchemaRef,
    message: EncodedMessage,
}

/// One file.
pub struct RecordingFile<S> {
    sink: S,
    schema: SchemaRef,
    /// Where each dictionary is, in the order of their columns.
    dictionaries: Vec<Block>,
    batches: Vec<WrittenBatch>,
    written: Written,
    /// Batches of the packer up to here have their addresses in the dictionaries that the file began with.
    since: u64,
}

/// Where a batch is.
struct WrittenBatch {
    /// Where its additions begin, or itself.
    start: u64,
    block: Block,
    stats: Stats,
}

impl<S: Sink> RecordingFile<S> {
    /// Begins a file in an empty sink, with the packer's words and addresses of now. Rows under its construction are lost.
    ///
    /// # Errors
    /// The sink refused.
    pub fn begin(mut sink: S, schema_message: SchemaMessage, packer: &mut Packer) -> Result<Self, WriteError> {
        sink.write_all(&frame::MAGIC)?;
        let written = Written { bytes: frame::MAGIC.len() as u64, ..Written::default() };
        let schema = schema_message.schema;
        let since = packer.packed;
        let mut output = Self { sink, schema, dictionaries: Vec::new(), batches: Vec::new(), written, since };
        output.message(&schema_message.message)?;
        for words in packer.whole(frame::flags::DICTIONARY)? {
            let block = output.message(&words)?;
            output.dictionaries.push(block);
        }
        Ok(output)
    }

    fn message(&mut self, message: &EncodedMessage) -> Result<Block, WriteError> {
        self.sink.write_all(&message.head)?;
        self.sink.write_all(&message.body)?;
        // A file of 8 EiB and a batch of 2 GiB are both out of reach.
        let block = Block::new(
            i64::try_from(self.written.bytes).unwrap_or(i64::MAX),
            i32::try_from(message.head.len()).unwrap_or(i32::MAX),
            i64::try_from(message.body.len()).unwrap_or(i64::MAX),
        );
        self.written.bytes += message.bytes();
        Ok(block)
    }

    pub fn written(&self) -> Written {
        self.written
    }

    /// Adds a batch. After an error the file ends with the batch before, and [`Self::finish`] still makes it whole.
    ///
    /// # Errors
    /// The sink refused, for example because the disk is full.
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
                // If this fails too, the reader finds the damage.
                let _ = self.sink.cut(start);
                self.written.bytes = start;
                Err(error)
            }
        }
    }

    /// Hands everything to the operating system.
    ///
    /// # Errors
    /// The sink refused.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        Ok(self.sink.flush()?)
    }

    /// Waits until everything is on the disk.
    ///
    /// # Errors
    /// The sink refused.
    pub fn sync(&mut self) -> Result<(), WriteError> {
        Ok(self.sink.sync()?)
    }

    /// Ends the file with its dictionaries and footer, safe on the disk, giving up its last batches if that is what it takes to
    /// fit. Rows under the packer's construction are lost.
    ///
    /// # Errors
    /// The sink refused even then. Readers of ours read the file all the same.
    pub fn finish(mut self, packer: &mut Packer) -> Result<(Written, S), WriteError> {
        let whole = packer.whole(0)?;
        loop {
            let end = self.written.bytes;
            let Err(error) = self.end(&whole) else { break };
            self.sink.cut(end)?;
            let Some(last) = self.batches.pop() else { return Err(error) };
            self.written = Written { bytes: last.start, ..Written::default() };
            for batch in &self.batches {
                self.written.count(batch.stats);
            }
            self.sink.cut(self.written.bytes)?;
        }
        self.sync()?;
        Ok((self.written, self.sink))
    }

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

/// A whole recording into one sink: what tests, fixtures and exports need.
pub struct Writer<S> {
    packer: Packer,
    output: RecordingFile<S>,
}

impl<S: Sink> Writer<S> {
    /// # Errors
    /// The sink refused.
    pub fn new(sink: S, header: &RecordingHeader) -> Result<Self, WriteError> {
        let mut packer = Packer::new(header)?;
        let schema_message = packer.schema_message(header)?;
        let output = RecordingFile::begin(sink, schema_message, &mut packer)?;
        Ok(Self { packer, output })
    }

    /// Adds a step.
    ///
    /// # Errors
    /// The sink refused.
    pub fn step(&mut self, step: &RecordedStep) -> Result<(), WriteError> {
        let output = &mut self.output;
        self.packer.step(step, |packed| output.batch(&packed))
    }

    /// Ends the present batch.
    ///
    /// # Errors
    /// The sink refused.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        if let Some(packed) = self.packer.flush()? {
            self.output.batch(&packed)?;
        }
        self.output.flush()
    }

    /// Ends the file.
    ///
    /// # Errors
    /// The sink refused.
    pub fn finish(mut self) -> Result<(Written, S), WriteError> {
        self.flush()?;
        self.output.finish(&mut self.packer)
    }
}

/// A file of these messages (flatbuffer and body each), sealed as if a writer of ours had written them: what a test of the
/// reader needs to get behind the checksums.
#[cfg(any(test, feature = "testing"))]
pub fn seal_for_tests(messages: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut file = frame::MAGIC.to_vec();
    for (flatbuffer, body) in messages {
        file.extend_from_slice(&frame::head(flatbuffer, body, Stats::default()));
        file.extend_from_slice(body);
    }
    file
}
