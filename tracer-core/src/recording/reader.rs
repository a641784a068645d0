//! Reads a recording from anything that yields bytes, to its end or to the first damage.
//!
//! The footer is not needed and its absence is not an error: it is what a crash leaves. Every frame is verified before anything
//! of it is believed; behind the first one that is not as it was written nothing is replayed, and [`Damage`] says how much that is.
//!
//! Not for: positions (`source::replay`), meaning (`decode`).

use std::io::{self, Read};

use arrow_array::RecordBatch;
use arrow_schema::{Schema, SchemaRef};
use thiserror::Error;

use super::frame::{self, PREFIX, Stats, TRAILER, Trailer, flags};
use super::message::{self, MessageContent, Messages};
use super::schema::{HEADER_KEY, VERSION_KEY};
use super::{RecordedStep, RecordingHeader, VERSION, decode};
use crate::event::Ktime;

/// Bytes read at a time while looking for what lies behind a damage.
const CHUNK: usize = 1 << 16;

/// Of a frame that is all there.
const NO_TRAILER: &str = "a batch's checksum is missing or damaged";

/// Why a file is not read at all.
#[derive(Debug, Error)]
pub enum ReadError {
    #[error("it cannot be read")]
    Io(#[from] io::Error),
    #[error("the file is empty: nothing was recorded, or it is still being created")]
    Empty,
    #[error("this is no recording: it does not begin like an Arrow file (`ARROW1`)")]
    NotArrow,
    #[error("this is an Arrow file of another program: it has no metadata `{VERSION_KEY}`")]
    NotOurs,
    #[error(
        "the recording has format version {found} and this portchurn reads up to {VERSION}: use the version that wrote it, or a newer one"
    )]
    TooNew { found: u32 },
    #[error("the recording has format version {found}, which no portchurn has ever written")]
    UnknownVersion { found: String },
    #[error(
        "the recording has no checksums where it begins: another program has written it anew, or it is damaged there; nothing in it can be verified, so use the original"
    )]
    Unverifiable,
    #[error("the file ends or is damaged before its first event: {0}")]
    NoHeader(String),
}

/// What could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where the intact part ends.
    pub at: u64,
    /// Bytes from there to the end of the file.
    pub bytes: u64,
    /// How much later than the last intact row the file went on, as far as it still tells; `None` if it does not.
    pub nanos: Option<u64>,
    pub why: String,
}

/// A position in a file: that of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPosition {
    pub offset: u64,
    pub rows: u32,
    pub first: Ktime,
    pub last: Ktime,
    /// Names and limits are in it.
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
    /// Words and addresses up to here have been read.
    dictionaries_end: u64,
    decoder: decode::Decoder,
    damage: Option<Damage>,
    /// Time of the last row of the last intact batch.
    last: Option<i64>,
    finished: bool,
}

enum RawFrame {
    Whole {
        metadata: Vec<u8>,
        body: Vec<u8>,
        trailer: Trailer,
    },
    /// The end of the stream was marked.
    End,
    /// So many bytes were there, and this is what is wrong.
    Broken(Vec<u8>, String),
}

impl<R: Read> Reader<R> {
    /// Reads what the file says about itself.
    ///
    /// # Errors
    /// [`ReadError`]: it is no recording, or one of a newer version.
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

    pub fn header(&self) -> &RecordingHeader {
        &self.header
    }

    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// What could not be read; known once the end was reached.
    pub fn damage(&self) -> Option<&Damage> {
        self.damage.as_ref()
    }

    /// Rows that made no sense although their batch was intact: of a kind that is newer than this program.
    pub fn bad_rows(&self) -> u64 {
        self.decoder.bad_rows
    }

    /// Bytes consumed so far.
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Everything that was consumed has been told: reading can go on from here without what came before.
    pub fn is_between_batches(&self) -> bool {
        self.decoder.is_used_up()
    }

    /// The next thing that the tracker was fed; `None` at the end or at the first damage.
    ///
    /// # Errors
    /// The bytes could not be read (which is not the same as their being wrong).
    pub fn next_step(&mut self) -> io::Result<Option<RecordedStep>> {
        loop {
            if let Some(step) = self.decoder.next() {
                return Ok(Some(step));
            }
            if !self.feed()? {
                return Ok(None);
            }
        }
    }

    /// All that [`Self::next_step`] would return from here on, to `each`: a step less to move around for those who want them all.
    ///
    /// # Errors
    /// As there.
    pub fn for_each(&mut self, mut each: impl FnMut(&RecordedStep)) -> io::Result<()> {
        loop {
            while let Some(step) = self.decoder.next() {
                each(&step);
            }
            if !self.feed()? {
                return Ok(());
            }
        }
    }

    /// Gives the decoder the next batch. False if there is none.
    fn feed(&mut self) -> io::Result<bool> {
        let Some((batch, _)) = self.next_batch()? else { return Ok(false) };
        if self.decoder.feed(&batch) {
            return Ok(true);
        }
        self.stop_at_damage(&[], self.at, "its columns are not those of its version".into())?;
        Ok(false)
    }

    /// The next intact batch as it is in the file.
    ///
    /// # Errors
    /// The bytes could not be read.
    pub fn next_batch(&mut self) -> io::Result<Option<(RecordBatch, Stats)>> {
        while !self.finished && self.damage.is_none() {
            let start = self.at;
            match read_frame(&mut self.input, &mut self.at)? {
                RawFrame::End => self.end(start)?,
                RawFrame::Broken(bytes, why) => self.stop_at_damage(&bytes, start, why)?,
                // Read out of turn.
                RawFrame::Whole { trailer, .. }
                    if trailer.stats.flags & flags::DICTIONARY != 0 && start < self.dictionaries_end => {}
                RawFrame::Whole { metadata, body, trailer } => match self.messages.read(&metadata, body) {
                    Ok(MessageContent::Batch(batch)) => {
                        self.last = Some(self.last.unwrap_or(i64::MIN).max(trailer.stats.last));
                        return Ok(Some((batch, trailer.stats)));
                    }
                    Ok(MessageContent::Dictionary) => self.dictionaries_end = self.dictionaries_end.max(self.at),
                    Err(error) => self.stop_at_damage(&[], start, error.to_string())?,
                },
            }
        }
        Ok(None)
    }

    /// The stream is over; what follows is for other programs, and worth a look whether they can read it.
    fn end(&mut self, start: u64) -> io::Result<()> {
        self.finished = true;
        let mut rest = vec![0; TRAILER];
        let found = fill(&mut self.input, &mut rest)?;
        self.at += found as u64;
        if frame::read_tail(&rest).is_none() {
            rest.truncate(found);
            return self.stop_at_damage(&rest, start, "the tail behind the last batch is damaged or missing".into());
        }
        // Of the footer only the last bytes are looked at: all that it says, the frames have said.
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
            self.damage = Some(Damage {
                at: start,
                bytes: self.at - start,
                nanos: Some(0),
                why: "the footer is cut off or damaged; every event is there, but other programs cannot open the file"
                    .into(),
            });
        }
        Ok(())
    }

    /// Nothing from `start` on is believed. Looks through the rest for how much that is.
    fn stop_at_damage(&mut self, read: &[u8], start: u64, why: String) -> io::Result<()> {
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
        let begin = self.header.offset().wrapping_add(self.header.begin_ns.cast_signed());
        let nanos = latest.map(|latest| u64::try_from(latest.saturating_sub(self.last.unwrap_or(begin))).unwrap_or(0));
        self.damage = Some(Damage { at: start, bytes: self.at - start, nanos, why });
        Ok(())
    }
}

impl<R: Read + io::Seek> Reader<R> {
    /// Where the batches are, from their trailers alone: of the bodies only words and addresses are read, so that each batch can be
    /// read out of turn. Ends at the first frame that makes no sense. The reader goes on where it was.
    ///
    /// # Errors
    /// The input could not be read.
    pub fn positions(&mut self) -> io::Result<Vec<BatchPosition>> {
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

    /// Reads the words or addresses at `at`. False if they are damaged.
    fn read_dictionary(&mut self, at: u64) -> io::Result<bool> {
        self.input.seek(io::SeekFrom::Start(at))?;
        let mut end = at;
        let RawFrame::Whole { metadata, body, .. } = read_frame(&mut self.input, &mut end)? else { return Ok(false) };
        self.dictionaries_end = end;
        Ok(self.messages.read(&metadata, body).is_ok())
    }

    /// The trailer of the frame at `at`, and how long the frame is.
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

    /// What is in the batch at `position`, read out of turn. Lists of sockets that it does not hold whole are left out.
    ///
    /// # Errors
    /// The input could not be read.
    pub fn steps_of(&mut self, position: &BatchPosition) -> io::Result<Vec<RecordedStep>> {
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

    /// Reading goes on with the batch at `position`, whose predecessors count as read.
    ///
    /// # Errors
    /// The input could not be moved.
    pub fn go_to(&mut self, position: &BatchPosition) -> io::Result<()> {
        // The words come before the first batch and must have been read.
        if self.last.is_none() && self.damage.is_none() && !self.finished {
            self.next_batch()?;
        }
        self.return_to(position.offset, self.decoder.bad_rows)
    }

    /// Reading goes on at a position at which it was between batches before, and had found so many bad rows.
    ///
    /// # Errors
    /// The input could not be moved.
    pub fn return_to(&mut self, position: u64, bad_rows: u64) -> io::Result<()> {
        self.input.seek(io::SeekFrom::Start(position))?;
        self.at = position;
        (self.damage, self.finished) = (None, false);
        self.decoder.reset();
        self.decoder.bad_rows = bad_rows;
        Ok(())
    }
}

/// The schema of a recording.
fn read_schema(input: &mut impl Read, at: &mut u64) -> Result<Schema, ReadError> {
    let mut found = read_frame(input, at)?;
    // Other programs align their first message to 64 bytes.
    while matches!(&found, RawFrame::Broken(bytes, _) if *bytes == [0; PREFIX] && *at <= 64) {
        found = read_frame(input, at)?;
    }
    let (metadata, why) = match found {
        RawFrame::Whole { metadata, .. } => (metadata, None),
        RawFrame::End => return Err(ReadError::NoHeader("no schema".into())),
        // Other programs' files have no trailer, and a newer version may have another one.
        RawFrame::Broken(bytes, why) => (bytes.get(PREFIX..).unwrap_or_default().to_vec(), Some(why)),
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

fn read_frame(input: &mut impl Read, at: &mut u64) -> io::Result<RawFrame> {
    let mut bytes = vec![0; PREFIX];
    let found = fill(input, &mut bytes)?;
    *at += found as u64;
    bytes.truncate(found);
    let Some(&prefix) = bytes.first_chunk::<PREFIX>() else {
        let why = if found == 0 { "the file ends without a footer" } else { "the file ends in the middle of a batch" };
        return Ok(RawFrame::Broken(bytes, why.into()));
    };
    let length = match metadata_length(prefix) {
        Ok(Some(length)) => length,
        Ok(None) => return Ok(RawFrame::End),
        Err(why) => return Ok(RawFrame::Broken(bytes, why)),
    };
    let cut = "the file ends in the middle of a batch";
    let mut metadata = Vec::new();
    *at += read_at_most(input, &mut metadata, length)?;
    if metadata.len() < length {
        bytes.append(&mut metadata);
        return Ok(RawFrame::Broken(bytes, cut.into()));
    }
    let broken = |mut bytes: Vec<u8>, metadata: &[u8], body: &[u8], why: &str| {
        bytes.extend_from_slice(metadata);
        bytes.extend_from_slice(body);
        Ok(RawFrame::Broken(bytes, why.into()))
    };
    let Some(trailer) = frame::trailer(&metadata) else {
        return broken(bytes, &metadata, &[], NO_TRAILER);
    };
    let length = usize::try_from(trailer.body).unwrap_or(usize::MAX);
    if length > frame::MAX_BODY {
        return broken(bytes, &metadata, &[], "a batch claims an impossible length");
    }
    let mut body = Vec::new();
    *at += read_at_most(input, &mut body, length)?;
    if body.len() < length {
        return broken(bytes, &metadata, &body, cut);
    }
    if !frame::intact(&metadata, &body, &trailer) {
        return broken(bytes, &metadata, &body, "a batch is not as it was written (its checksum differs)");
    }
    Ok(RawFrame::Whole { metadata, body, trailer })
}

/// Appends up to `length` bytes. Memory is taken as bytes arrive: a length is only a claim.
fn read_at_most(input: &mut impl Read, out: &mut Vec<u8>, length: usize) -> io::Result<u64> {
    out.reserve(length.min(CHUNK));
    input.take(length as u64).read_to_end(out).map(|found| found as u64)
}

/// Fills `buffer` as far as the input goes.
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
