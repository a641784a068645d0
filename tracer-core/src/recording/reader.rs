//! Reads a recording from anything that yields bytes, to its end or to the first damage.
//!
//! The reader needs no footer: a writer that crashed leaves none. It verifies every frame before it uses anything in
//! it. After the first frame that is not as it was written it returns no more steps, and [`Damage`] says how much is
//! missing.
//!
//! Not for: positions in time ([`crate::replay`]) or the meaning of rows (`decode`).

use std::io::{self, Read};

use arrow_array::RecordBatch;
use arrow_schema::{Schema, SchemaRef};
use thiserror::Error;

use super::frame::{self, PREFIX, Stats, TRAILER, Trailer, flags};
use super::message::{self, MessageContent, Messages};
use super::schema::{HEADER_KEY, VERSION_KEY};
use super::{RecordingHeader, VERSION, decode};
use crate::damage::{Damage, DamageGap, DamageKind};
use crate::event::Ktime;
use crate::step::TrackerStep;

/// Bytes read at a time when only the end of the input matters.
const CHUNK: usize = 1 << 16;

/// Why a complete frame cannot be verified.
const NO_TRAILER: &str = "a batch's checksum is missing or damaged";
/// What is wrong with a file of which only a part was copied, or whose writer died while it wrote.
const CUT_OFF: &str = "the file ends in the middle of a batch";

/// Why a file is not read at all.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The input failed.
    #[error("it cannot be read")]
    Io(#[from] io::Error),
    /// The input has no bytes.
    #[error("the file is empty: nothing was recorded, or it is still being created")]
    Empty,
    /// The input does not begin like an Arrow file.
    #[error("this is no recording: it does not begin like an Arrow file (`ARROW1`)")]
    NotArrow,
    /// The schema has no format version.
    #[error("this is an Arrow file of another program: it has no metadata `{VERSION_KEY}`")]
    NotOurs,
    /// The format version is newer than [`VERSION`].
    #[error(
        "the recording has format version {found} and this portchurn reads up to {VERSION}: use the version that wrote it, or a newer one"
    )]
    TooNew {
        /// The version of the file.
        found: u32,
    },
    /// The format version is none that was ever written.
    #[error("the recording has format version {found}, which no portchurn has ever written")]
    UnknownVersion {
        /// The version of the file, as it is written there.
        found: String,
    },
    /// The schema has no checksum.
    #[error(
        "the recording has no checksums where it begins: another program has written it anew, or it is damaged there; nothing in it can be verified, so use the original"
    )]
    Unverifiable,
    /// The schema or the header is incomplete or damaged.
    #[error("the file ends or is damaged before its first event: {0}")]
    NoHeader(String),
}

/// Where a batch is, and what its trailer says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPosition {
    /// Byte at which its frame begins.
    pub offset: u64,
    /// Its rows.
    pub rows: u32,
    /// Earliest time of its rows.
    pub first: Ktime,
    /// Latest time of its rows.
    pub last: Ktime,
    /// It holds names, limits or counts of loss.
    pub facts: bool,
    /// A list of sockets begins in it.
    pub baseline: bool,
}

/// Reads a recording from its beginning.
pub struct Reader<R> {
    input: R,
    /// Bytes consumed.
    at: u64,
    header: RecordingHeader,
    schema: SchemaRef,
    messages: Messages,
    /// Dictionaries and additions up to this byte have been read.
    dictionaries_end: u64,
    decoder: decode::Decoder,
    damage: Option<Damage>,
    /// Latest time in the batches so far: nanoseconds since 1970.
    last: Option<i64>,
    finished: bool,
}

/// A frame as bytes.
enum RawFrame {
    /// Its checksum was right.
    Whole { metadata: Vec<u8>, body: Vec<u8>, trailer: Trailer },
    /// The marker of the end of the stream.
    End,
    /// The bytes that could be read, and what is wrong.
    Broken(Vec<u8>, DamageKind, String),
}

impl<R: Read> Reader<R> {
    /// Reads the schema and the header.
    ///
    /// # Errors
    /// [`ReadError`]: every variant is possible and says why `input` is no recording that this version reads.
    pub fn open(mut input: R) -> Result<Self, ReadError> {
        let mut magic = [0; frame::MAGIC.len()];
        match fill(&mut input, &mut magic)? {
            0 => return Err(ReadError::Empty),
            _ if magic != frame::MAGIC => return Err(ReadError::NotArrow),
            _ => {}
        }
        let mut at = frame::MAGIC.len() as u64;
        let schema = read_schema(&mut input, &mut at)?;
        let header = schema.metadata().get(HEADER_KEY).map_or("", String::as_str);
        let header: RecordingHeader =
            serde_json::from_str(header).map_err(|error| ReadError::NoHeader(format!("its header: {error}")))?;
        let schema = SchemaRef::new(schema);
        Ok(Self {
            input,
            at,
            decoder: decode::Decoder::new(header.offset(), header.continued),
            messages: Messages::new(SchemaRef::clone(&schema)),
            dictionaries_end: 0,
            header,
            schema,
            damage: None,
            last: None,
            finished: false,
        })
    }

    /// The header of the file.
    pub fn header(&self) -> &RecordingHeader {
        &self.header
    }

    /// The schema of the file, with its metadata.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// What could not be read; complete once [`Self::next_step`] has returned `None`.
    pub fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref()
    }

    /// Rows so far that made no sense although their batch was intact: their kind is newer than this program, or a
    /// value is missing.
    pub fn bad_rows(&self) -> u64 {
        self.decoder.bad_rows
    }

    /// Bytes consumed so far.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Every row that was consumed has been returned: reading can go on from [`Self::position`] without the bytes
    /// before it.
    pub fn is_between_batches(&self) -> bool {
        self.decoder.is_used_up()
    }

    /// The next thing that the tracker was fed; `None` at the end or at the first damage.
    ///
    /// # Errors
    /// [`io::Error`] of the input. Wrong bytes are no error but [`Damage`].
    pub fn next_step(&mut self) -> io::Result<Option<TrackerStep>> {
        loop {
            if let Some(step) = self.decoder.next() {
                return Ok(Some(step));
            }
            if !self.feed()? {
                return Ok(None);
            }
        }
    }

    /// Calls `each` with every step that [`Self::next_step`] would return from here on. It is faster, because no step
    /// is moved.
    ///
    /// # Errors
    /// [`io::Error`] of the input.
    pub fn for_each(&mut self, mut each: impl FnMut(&TrackerStep)) -> io::Result<()> {
        loop {
            while let Some(step) = self.decoder.next() {
                each(&step);
            }
            if !self.feed()? {
                return Ok(());
            }
        }
    }

    /// Hands the decoder the next batch. False if there is none.
    fn feed(&mut self) -> io::Result<bool> {
        let Some((batch, _)) = self.next_batch()? else { return Ok(false) };
        if self.decoder.feed(&batch) {
            return Ok(true);
        }
        self.stop_at_damage(&[], self.at, DamageKind::Corrupt, "its columns are not those of its version".into())?;
        Ok(false)
    }

    /// The next batch of the file, with the statistics of its trailer; `None` at the end or at the first damage.
    ///
    /// # Errors
    /// [`io::Error`] of the input. Wrong bytes are no error but [`Damage`].
    pub fn next_batch(&mut self) -> io::Result<Option<(RecordBatch, Stats)>> {
        while !self.finished && self.damage.is_none() {
            let start = self.at;
            match read_frame(&mut self.input, &mut self.at)? {
                RawFrame::End => self.end(start)?,
                RawFrame::Broken(bytes, kind, why) => self.stop_at_damage(&bytes, start, kind, why)?,
                // Read before, by `batch_positions`.
                RawFrame::Whole { trailer, .. }
                    if trailer.stats.flags & flags::DICTIONARY != 0 && start < self.dictionaries_end => {}
                RawFrame::Whole { metadata, body, trailer } => match self.messages.read(&metadata, body) {
                    Ok(MessageContent::Batch(batch)) => {
                        self.last = Some(self.last.unwrap_or(i64::MIN).max(trailer.stats.last));
                        return Ok(Some((batch, trailer.stats)));
                    }
                    Ok(MessageContent::Dictionary) => self.dictionaries_end = self.dictionaries_end.max(self.at),
                    Err(error) => self.stop_at_damage(&[], start, DamageKind::Corrupt, error.to_string())?,
                },
            }
        }
        Ok(None)
    }

    /// Looks behind the end of the stream, whether other programs can read the footer there. `start` is the byte of the
    /// end marker.
    fn end(&mut self, start: u64) -> io::Result<()> {
        self.finished = true;
        let mut rest = vec![0; TRAILER];
        let found = fill(&mut self.input, &mut rest)?;
        self.at += found as u64;
        if frame::read_tail(&rest).is_none() {
            rest.truncate(found);
            let why = "the tail behind the last batch is damaged or missing".into();
            return self.stop_at_damage(&rest, start, DamageKind::Unfinished, why);
        }
        // The frames have held everything that the footer repeats, so its last bytes suffice.
        let mut end = Vec::new();
        let mut chunk = vec![0; CHUNK];
        loop {
            let found = fill(&mut self.input, &mut chunk)?;
            self.at += found as u64;
            end.extend_from_slice(chunk.get(..found).unwrap_or_default());
            end.drain(..end.len().saturating_sub(frame::MAGIC.len()));
            if found < chunk.len() {
                break;
            }
        }
        if !end.ends_with(b"ARROW1") {
            let why = "the footer is cut off or damaged; every event is there, but other programs cannot open the file";
            let mut damage = Damage::new(DamageKind::NoFooter, why, start);
            damage.bytes = self.at - start;
            self.damage = Some(damage);
        }
        Ok(())
    }

    /// Ends reading at the byte `start`, and searches the rest of the input for times that say how much is missing.
    /// `read` are the bytes after `start` that were read already.
    fn stop_at_damage(&mut self, read: &[u8], start: u64, kind: DamageKind, why: String) -> io::Result<()> {
        let mut window = read.to_vec();
        let mut latest = frame::latest(&window);
        let mut chunk = vec![0; CHUNK];
        loop {
            let found = fill(&mut self.input, &mut chunk)?;
            self.at += found as u64;
            // A trailer may lie across two chunks.
            window.drain(..window.len().saturating_sub(TRAILER));
            window.extend_from_slice(chunk.get(..found).unwrap_or_default());
            latest = latest.max(frame::latest(&window));
            if found < chunk.len() {
                break;
            }
        }
        let ktime = |time: i64| Ktime(time.wrapping_sub(self.header.offset()).cast_unsigned());
        let from = self.last.map_or(Ktime(self.header.begin_ns), ktime);
        let mut damage = Damage::new(kind, why, start);
        (damage.bytes, damage.at_least, damage.end_missing) = (self.at - start, true, true);
        damage.gap(DamageGap { from, to: latest.map_or(from, ktime).max(from) });
        self.damage = Some(damage);
        Ok(())
    }
}

impl<R: Read + io::Seek> Reader<R> {
    /// The positions of all batches up to the first damaged frame. Only trailers and dictionaries are read, no batch;
    /// afterwards each batch can be read out of turn. The reader then continues where it was.
    ///
    /// # Errors
    /// [`io::Error`] of the input.
    pub fn batch_positions(&mut self) -> io::Result<Vec<BatchPosition>> {
        let here = self.input.stream_position()?;
        let mut at = frame::MAGIC.len() as u64;
        let mut positions = Vec::new();
        while let Some((trailer, length)) = self.read_trailer(at)? {
            let Stats { rows, flags: held, first, last } = trailer.stats;
            if held & flags::DICTIONARY != 0 && at >= self.dictionaries_end && !self.read_dictionary(at)? {
                break;
            }
            if rows > 0 {
                let ktime = |time: i64| Ktime(time.wrapping_sub(self.header.offset()).cast_unsigned());
                positions.push(BatchPosition {
                    offset: at,
                    rows,
                    first: ktime(first),
                    last: ktime(last),
                    facts: held & flags::FACTS != 0,
                    baseline: held & flags::BASELINE != 0,
                });
            }
            at = at.saturating_add(length);
        }
        self.input.seek(io::SeekFrom::Start(here))?;
        Ok(positions)
    }

    /// Reads the dictionary at byte `at`. False if it is damaged.
    fn read_dictionary(&mut self, at: u64) -> io::Result<bool> {
        self.input.seek(io::SeekFrom::Start(at))?;
        let mut end = at;
        let RawFrame::Whole { metadata, body, .. } = read_frame(&mut self.input, &mut end)? else { return Ok(false) };
        self.dictionaries_end = end;
        Ok(self.messages.read(&metadata, body).is_ok())
    }

    /// The trailer of the frame at byte `at` and the bytes of the frame; `None` if there is no frame.
    fn read_trailer(&mut self, at: u64) -> io::Result<Option<(Trailer, u64)>> {
        self.input.seek(io::SeekFrom::Start(at))?;
        let mut prefix = [0; PREFIX];
        if fill(&mut self.input, &mut prefix)? < PREFIX {
            return Ok(None);
        }
        let Some(length) = metadata_length(prefix).ok().flatten() else { return Ok(None) };
        let behind = at + PREFIX as u64 + length as u64;
        self.input.seek(io::SeekFrom::Start(behind.saturating_sub(TRAILER as u64)))?;
        let mut trailer = [0; TRAILER];
        if fill(&mut self.input, &mut trailer)? < TRAILER {
            return Ok(None);
        }
        Ok(frame::trailer(&trailer).map(|trailer| (trailer, (PREFIX + length) as u64 + trailer.body)))
    }

    /// The steps of the batch at `position`, read out of turn. Lists of sockets that it does not hold whole are left
    /// out.
    ///
    /// # Errors
    /// [`io::Error`] of the input.
    pub fn steps_of(&mut self, position: &BatchPosition) -> io::Result<Vec<TrackerStep>> {
        self.go_to(position)?;
        let bad_rows = self.decoder.bad_rows;
        let mut steps = Vec::new();
        if let Some((batch, _)) = self.next_batch()?
            && self.decoder.feed(&batch)
        {
            steps.extend(std::iter::from_fn(|| self.decoder.next()));
        }
        self.decoder.reset();
        self.decoder.bad_rows = bad_rows;
        Ok(steps)
    }

    /// Continues with the batch at `position`.
    ///
    /// # Errors
    /// [`io::Error`] of the input.
    pub fn go_to(&mut self, position: &BatchPosition) -> io::Result<()> {
        // The dictionaries come before the first batch and must have been read.
        if self.last.is_none() && self.damage.is_none() && !self.finished {
            self.next_batch()?;
        }
        self.return_to(position.offset, self.decoder.bad_rows)
    }

    /// Continues at the byte `position`, at which the reader was between two batches before and had found `bad_rows`.
    ///
    /// # Errors
    /// [`io::Error`] of the input.
    pub fn return_to(&mut self, position: u64, bad_rows: u64) -> io::Result<()> {
        self.input.seek(io::SeekFrom::Start(position))?;
        self.at = position;
        (self.damage, self.finished) = (None, false);
        self.decoder.reset();
        self.decoder.bad_rows = bad_rows;
        Ok(())
    }
}

/// Reads the first message of a recording: its schema.
fn read_schema(input: &mut impl Read, at: &mut u64) -> Result<Schema, ReadError> {
    let mut found = read_frame(input, at)?;
    // Other programs align their first message to 64 bytes.
    while matches!(&found, RawFrame::Broken(bytes, ..) if *bytes == [0; PREFIX] && *at <= 64) {
        found = read_frame(input, at)?;
    }
    let (metadata, why) = match found {
        RawFrame::Whole { metadata, .. } => (metadata, None),
        RawFrame::End => return Err(ReadError::NoHeader("no schema".into())),
        // A file of another program has no trailer, and a newer version may have another kind.
        RawFrame::Broken(bytes, _, why) => (bytes.get(PREFIX..).unwrap_or_default().to_vec(), Some(why)),
    };
    let schema = match (message::schema(&metadata), &why) {
        (Ok(schema), _) => schema,
        (Err(_), Some(why)) => return Err(ReadError::NoHeader(why.clone())),
        (Err(error), None) => return Err(ReadError::NoHeader(error.to_string())),
    };
    let Some(version) = schema.metadata().get(VERSION_KEY) else {
        return Err(why
            .filter(|_| schema.metadata().contains_key(HEADER_KEY))
            .map_or(ReadError::NotOurs, ReadError::NoHeader));
    };
    match (version.parse::<u32>(), why) {
        (Ok(found), _) if found > VERSION => Err(ReadError::TooNew { found }),
        (Ok(1..=VERSION), None) => Ok(schema),
        (Ok(1..=VERSION), Some(why)) if why == NO_TRAILER => Err(ReadError::Unverifiable),
        (Ok(1..=VERSION), Some(why)) => Err(ReadError::NoHeader(why)),
        (_, _) => Err(ReadError::UnknownVersion { found: version.clone() }),
    }
}

/// Length of a message's metadata; `None` marks the end of the stream.
fn metadata_length(prefix: [u8; PREFIX]) -> Result<Option<usize>, String> {
    let Some(length) = prefix.strip_prefix(&frame::CONTINUATION).and_then(|length| length.first_chunk()) else {
        return Err("where a batch should begin is something else".into());
    };
    match usize::try_from(i32::from_le_bytes(*length)) {
        Ok(0) => Ok(None),
        Ok(length) if length <= frame::MAX_METADATA => Ok(Some(length)),
        _ => Err("a batch claims to have metadata of an impossible length".into()),
    }
}

/// Reads the next frame and verifies it.
fn read_frame(input: &mut impl Read, at: &mut u64) -> io::Result<RawFrame> {
    let mut bytes = vec![0; PREFIX];
    let found = fill(input, &mut bytes)?;
    *at += found as u64;
    bytes.truncate(found);
    let Some(&prefix) = bytes.first_chunk::<PREFIX>() else {
        return Ok(if found == 0 {
            let why = "the file has no end: it is being written, or its writer was killed";
            RawFrame::Broken(bytes, DamageKind::Unfinished, why.into())
        } else {
            RawFrame::Broken(bytes, DamageKind::CutOff, CUT_OFF.into())
        });
    };
    let length = match metadata_length(prefix) {
        Ok(Some(length)) => length,
        Ok(None) => return Ok(RawFrame::End),
        Err(why) => return Ok(RawFrame::Broken(bytes, DamageKind::Corrupt, why)),
    };
    let mut metadata = Vec::new();
    *at += read_at_most(input, &mut metadata, length)?;
    if metadata.len() < length {
        bytes.append(&mut metadata);
        return Ok(RawFrame::Broken(bytes, DamageKind::CutOff, CUT_OFF.into()));
    }
    let broken = |mut bytes: Vec<u8>, metadata: &[u8], body: &[u8], kind, why: &str| {
        bytes.extend_from_slice(metadata);
        bytes.extend_from_slice(body);
        Ok(RawFrame::Broken(bytes, kind, why.into()))
    };
    let Some(trailer) = frame::trailer(&metadata) else {
        return broken(bytes, &metadata, &[], DamageKind::Corrupt, NO_TRAILER);
    };
    let length = usize::try_from(trailer.body).unwrap_or(usize::MAX);
    if length > frame::MAX_BODY {
        return broken(bytes, &metadata, &[], DamageKind::Corrupt, "a batch claims an impossible length");
    }
    let mut body = Vec::new();
    *at += read_at_most(input, &mut body, length)?;
    if body.len() < length {
        return broken(bytes, &metadata, &body, DamageKind::CutOff, CUT_OFF);
    }
    if !frame::intact(&metadata, &body, &trailer) {
        return broken(
            bytes,
            &metadata,
            &body,
            DamageKind::Corrupt,
            "a batch is not as it was written (its checksum differs)",
        );
    }
    Ok(RawFrame::Whole { metadata, body, trailer })
}

/// Appends up to `length` bytes to `out` and returns how many. Memory is allocated as bytes arrive, because a damaged
/// file may claim any length.
fn read_at_most(input: &mut impl Read, out: &mut Vec<u8>, length: usize) -> io::Result<u64> {
    out.reserve(length.min(CHUNK));
    input.take(length as u64).read_to_end(out).map(|found| found as u64)
}

/// Fills `buffer` from `input` and returns how many bytes there were.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(found) => filled += found,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
