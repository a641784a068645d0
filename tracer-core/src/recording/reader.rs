//! Reads a recording from anything that yields bytes.
//!
//! The reader needs no footer: a writer that crashed leaves none. It verifies every frame before it uses anything in
//! it. A frame that is not as it was written is passed over, reading goes on with the next whole one, and [`Damage`]
//! says how much is missing.
//!
//! Not for: positions in time ([`crate::replay`]) or the meaning of rows (`decode`).

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::ops::Range;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use thiserror::Error;

use super::frame::{self, PREFIX, Stats, TRAILER, Trailer, flags};
use super::frame_source::{BrokenFrame, FrameSource, NO_TRAILER, PassedOver, RawFrame, metadata_length};
use super::message::{self, MessageContent, Messages, StreamSchema};
use super::schema::{HEADER_KEY, VERSION_KEY};
use super::{RecordingHeader, VERSION, decode};
use crate::damage::{Damage, DamageGap, DamageKind};
use crate::event::Ktime;
use crate::foreign_text;
use crate::step::TrackerStep;

/// Bytes of a version that no portchurn has written, for the message about it.
const MAX_VERSION: usize = 24;
/// Damaged places that are told apart. Reading may meet each of them more than once.
const MAX_PLACES: usize = 1 << 16;
/// What is lost with a footer.
const EVERYTHING: &str = "every event is there, but other programs may not open the file";
/// Several recordings came as one input, and a clock goes with each.
const ANOTHER_RECORDING: &str =
    "another recording follows the first one and was not read: name the files instead of joining them";
/// What is wrong with a file that lacks it.
const NO_FOOTER: &str =
    "the footer is cut off or damaged; every event is there, but other programs cannot open the file";

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
    #[error("the recording has format version {found:?}, which no portchurn has ever written")]
    UnknownVersion {
        /// The version of the file, as it is written there, cut at a few characters.
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

/// Where everything is in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BatchIndex {
    /// The batches, in their order.
    pub batches: Vec<BatchPosition>,
    /// Bytes at which the dictionaries and additions begin that batches need, in their order.
    dictionaries: Vec<u64>,
    /// Bytes at which the whole dictionaries begin that stand behind the last batch.
    repeated: Vec<u64>,
}

/// Rows that were read and are in no step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnusedRows {
    /// They make no sense to this version.
    pub bad: u64,
    /// They need something that could not be read.
    pub lost: u64,
}

/// Reads a recording from its beginning.
pub struct Reader<R> {
    source: FrameSource<R>,
    header: RecordingHeader,
    schema: SchemaRef,
    messages: Messages,
    /// Dictionaries and additions up to this byte have been read.
    dictionaries_end: u64,
    decoder: decode::Decoder,
    /// What is wrong at `places`.
    damage: Option<Damage>,
    places: BTreeSet<u64>,
    /// Rows may be missing before the next batch: the latest time that is known of them, or of those before them.
    open_gap: Option<i64>,
    /// Latest time in the batches so far: nanoseconds since 1970.
    last: Option<i64>,
    /// Rows of the batches so far; `None` if reading has not come here from the beginning.
    rows: Option<u64>,
    /// The dictionaries that stand behind the last batch were met.
    ending: bool,
    /// What the end of the file says about the whole.
    tail: Option<Trailer>,
    finished: bool,
    /// Learns the addresses of a lost addition from the end of the file, where that can be reached.
    recover: Option<fn(&mut Self) -> io::Result<()>>,
}

impl<R: Read> Reader<R> {
    /// Reads the schema and the header.
    ///
    /// # Errors
    /// [`ReadError`]: every variant is possible and says why `input` is no recording that this version reads.
    pub fn open(input: R) -> Result<Self, ReadError> {
        let mut source = FrameSource::new(input);
        let mut magic = [0; frame::MAGIC.len()];
        match source.fill(&mut magic)? {
            0 => return Err(ReadError::Empty),
            _ if magic != frame::MAGIC => return Err(ReadError::NotArrow),
            _ => {}
        }
        let schema = read_schema(&mut source)?;
        let header = schema.schema.metadata().get(HEADER_KEY).map_or("", String::as_str);
        let header: RecordingHeader = foreign_text::from_json(header, foreign_text::MAX_BYTES)
            .map_err(|error| ReadError::NoHeader(format!("its header: {error}")))?;
        Ok(Self {
            source,
            decoder: decode::Decoder::new(header.offset(), header.continued),
            messages: Messages::new(&schema),
            dictionaries_end: 0,
            header,
            schema: SchemaRef::new(schema.schema),
            damage: None,
            places: BTreeSet::new(),
            open_gap: None,
            last: None,
            rows: Some(0),
            ending: false,
            tail: None,
            finished: false,
            recover: None,
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

    /// What could not be read so far; complete once [`Self::next_step`] has returned `None`.
    pub fn damage(&self) -> Option<Damage> {
        let mut damage = self.damage.clone()?;
        if let Some(known) = self.open_gap.filter(|_| self.finished) {
            let until = self.tail.map_or(known, |tail| known.max(tail.stats.last));
            damage.gap(self.gap_until(until));
        }
        if let (Some(read), Some(tail)) = (self.rows, self.tail) {
            (damage.rows, damage.at_least) = (tail.body.saturating_sub(read), false);
        }
        damage.rows += self.decoder.lost_rows;
        if damage.kind == DamageKind::Corrupt && damage.rows == 0 && !damage.at_least && !damage.end_missing {
            damage.kind = DamageKind::NoFooter;
            damage.why = format!("{}; {EVERYTHING}", damage.why);
        }
        Some(damage)
    }

    /// Rows so far that are in no step although their batch was intact.
    pub fn unused_rows(&self) -> UnusedRows {
        UnusedRows { bad: self.decoder.bad_rows, lost: self.decoder.lost_rows }
    }

    /// Bytes consumed so far.
    pub fn position(&self) -> u64 {
        self.source.at()
    }

    /// Every row that was consumed has been returned: reading can go on from [`Self::position`] without the bytes
    /// before it.
    pub fn is_between_batches(&self) -> bool {
        self.decoder.is_used_up()
    }

    /// The next thing that the tracker was fed; `None` at the end.
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
        while let Some(batch) = self.next_batch()? {
            let start = self.source.at();
            if self.decoder.feed(&batch, self.messages.lists()) {
                return Ok(true);
            }
            let rows = batch.num_rows() as u64;
            let passed = PassedOver { rows, exact: true, batches: true, ..PassedOver::default() };
            self.rows = self.rows.map(|read| read.saturating_sub(rows));
            self.miss(start, DamageKind::Corrupt, "the columns of a batch are not those of its version", passed)?;
        }
        if self.damage.is_some() {
            self.decoder.interrupt();
        }
        Ok(false)
    }

    /// The next batch of the file; `None` at the end.
    fn next_batch(&mut self) -> io::Result<Option<RecordBatch>> {
        while !self.finished {
            let start = self.source.at();
            match self.source.next_frame()? {
                RawFrame::End => self.end(start)?,
                RawFrame::Broken(broken) => self.pass_over(start, broken)?,
                // Read before, by `go_to`.
                RawFrame::Whole { trailer, .. } if is_dictionary(&trailer) && start < self.dictionaries_end => {}
                RawFrame::Whole { metadata, body, trailer } => {
                    match self.messages.read(&metadata, body, words(&trailer)) {
                        Ok(MessageContent::Batch(batch)) => {
                            self.close_gap(trailer.stats.first);
                            self.last = Some(self.last.unwrap_or(i64::MIN).max(trailer.stats.last));
                            self.rows = self.rows.map(|rows| rows + u64::from(trailer.stats.rows));
                            return Ok(Some(batch));
                        }
                        Ok(MessageContent::Dictionary) if is_dictionary(&trailer) => {
                            self.dictionaries_end = self.dictionaries_end.max(self.source.at());
                        }
                        Ok(MessageContent::Dictionary) => self.ending |= self.last.is_some(),
                        Err(error) => {
                            let passed = PassedOver::frame(self.source.at() - start, &trailer.stats);
                            self.miss(start, DamageKind::Corrupt, error.to_string(), passed)?;
                        }
                    }
                }
            }
        }
        Ok(None)
    }

    /// Goes on behind something that is no frame.
    fn pass_over(&mut self, start: u64, broken: BrokenFrame) -> io::Result<()> {
        let (mut kind, why) = (broken.kind, broken.why);
        // A dictionary behind the last batch, of which the stream has no need.
        let repeated = self.last.is_some() && broken.trailer.is_some_and(|trailer| trailer.stats == Stats::default());
        if kind == DamageKind::Unfinished {
            self.finished = true;
            if self.ending {
                self.miss(start, DamageKind::NoFooter, NO_FOOTER, PassedOver { exact: true, ..PassedOver::default() })?;
            } else {
                self.miss(start, kind, why, PassedOver { batches: true, ..PassedOver::default() })?;
            }
            return Ok(());
        }
        let mut passed = self.source.pass_over(broken)?;
        if passed.found && kind == DamageKind::CutOff {
            // Its length was damaged.
            kind = DamageKind::Corrupt;
        }
        if repeated && (passed.exact || !passed.found) {
            (passed.batches, passed.dictionaries, passed.exact) = (false, false, true);
        }
        if !passed.found && (repeated || self.ending) {
            self.finished = true;
            (passed.batches, passed.exact) = (false, true);
            return self.miss(start, DamageKind::NoFooter, NO_FOOTER, passed);
        }
        self.finished = !passed.found && kind == DamageKind::CutOff;
        self.miss(start, kind, why, passed)?;
        Ok(())
    }

    /// Notes that something is missing at byte `start`.
    fn miss(&mut self, start: u64, kind: DamageKind, why: impl Into<String>, passed: PassedOver) -> io::Result<()> {
        if passed.dictionaries && self.source.at() > self.dictionaries_end {
            self.messages.addition_lost();
            if let Some(recover) = self.recover.take() {
                recover(self)?;
            }
        }
        if passed.batches {
            self.decoder.interrupt();
        }
        // Reading may come here again.
        if self.places.len() >= MAX_PLACES || !self.places.insert(start) {
            return Ok(());
        }
        if passed.batches {
            let latest = passed.latest.unwrap_or(i64::MIN).max(self.latest());
            self.open_gap = self.open_gap.max(Some(latest));
        }
        let mut damage = Damage::new(kind, why, start);
        (damage.bytes, damage.rows, damage.at_least) = (passed.bytes, passed.rows, !passed.exact);
        damage.end_missing = matches!(kind, DamageKind::CutOff | DamageKind::Unfinished);
        match &mut self.damage {
            Some(known) => known.merge(damage),
            None => self.damage = Some(damage),
        }
        Ok(())
    }

    /// The latest time so far, nanoseconds since 1970: that of a row, or the beginning of observation.
    fn latest(&self) -> i64 {
        self.last.unwrap_or_else(|| self.header.offset().wrapping_add(self.header.begin_ns.cast_signed()))
    }

    /// The gap from the latest time so far to `until` in nanoseconds since 1970.
    fn gap_until(&self, until: i64) -> DamageGap {
        let ktime = |time: i64| Ktime(time.wrapping_sub(self.header.offset()).cast_unsigned());
        let from = self.latest();
        DamageGap { from: ktime(from), to: ktime(until.max(from)) }
    }

    fn close_gap(&mut self, next: i64) {
        if self.open_gap.take().is_some() {
            let gap = self.gap_until(next);
            if let Some(damage) = &mut self.damage {
                damage.gap(gap);
            }
        }
    }

    /// Looks behind the end of the stream, whether other programs can read the footer there. `start` is the byte of the
    /// end marker.
    fn end(&mut self, start: u64) -> io::Result<()> {
        let Some(tail) = frame::read_tail(self.source.peek(TRAILER)?) else {
            let passed = self.source.find_frame()?;
            if passed.found {
                self.miss(start, DamageKind::Corrupt, "where a batch should begin is something else", passed)?;
            } else {
                self.finished = true;
                let passed = PassedOver { bytes: self.source.at() - start, exact: true, ..PassedOver::default() };
                self.miss(start, DamageKind::NoFooter, NO_FOOTER, passed)?;
            }
            return Ok(());
        };
        (self.finished, self.tail) = (true, Some(tail));
        // The frames have held everything that the footer repeats, so its last bytes suffice.
        let (last, again) = self.source.last_bytes(frame::MAGIC.len(), (b"ARROW1", &frame::MAGIC))?;
        if let Some(again) = again {
            // It counts the rows of the first one alone.
            self.tail = None;
            let passed = PassedOver { bytes: self.source.at() - again, ..PassedOver::default() };
            return self.miss(again, DamageKind::Corrupt, ANOTHER_RECORDING, passed);
        }
        if last.ends_with(b"ARROW1") {
            return Ok(());
        }
        let passed = PassedOver { bytes: self.source.at() - start, exact: true, ..PassedOver::default() };
        self.miss(start, DamageKind::NoFooter, NO_FOOTER, passed)?;
        Ok(())
    }
}

impl<R: Read + io::Seek> Reader<R> {
    /// As [`Reader::open`], of an input in which lost addresses can be found in another place.
    ///
    /// # Errors
    /// [`ReadError`]: every variant is possible and says why `input` is no recording that this version reads.
    pub fn open_file(input: R) -> Result<Self, ReadError> {
        let mut reader = Self::open(input)?;
        reader.recover = Some(Self::recover_lists);
        Ok(reader)
    }

    /// Reads the whole dictionaries behind the last batch, if the file has its end. Reading then goes on where it was.
    fn recover_lists(&mut self) -> io::Result<()> {
        let here = self.source.at();
        for at in self.batch_index()?.repeated {
            self.source.go_to(at)?;
            if let RawFrame::Whole { metadata, body, .. } = self.source.next_frame()?
                && self.messages.read(&metadata, body, None).is_ok()
            {
                // The additions before are parts of it.
                self.dictionaries_end = self.dictionaries_end.max(at);
            }
        }
        self.source.go_to(here)
    }

    /// Where everything is. Only trailers are read, no batch. The reader then continues where it was.
    ///
    /// # Errors
    /// [`io::Error`] of the input.
    pub fn batch_index(&mut self) -> io::Result<BatchIndex> {
        let here = self.source.at();
        let mut at = frame::MAGIC.len() as u64;
        let mut index = BatchIndex::default();
        loop {
            let (trailer, length) = match self.trailer_at(at)? {
                TrailerAt::Frame(trailer, length) => (trailer, length),
                TrailerAt::End => break,
                TrailerAt::Broken => {
                    self.source.go_to(at)?;
                    if !self.source.find_frame()?.found {
                        break;
                    }
                    at = self.source.at();
                    continue;
                }
            };
            let Stats { rows, flags: held, first, last } = trailer.stats;
            if is_dictionary(&trailer) {
                index.dictionaries.push(at);
            } else if rows == 0 && !index.batches.is_empty() {
                index.repeated.push(at);
            } else if rows > 0 {
                let ktime = |time: i64| Ktime(time.wrapping_sub(self.header.offset()).cast_unsigned());
                index.batches.push(BatchPosition {
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
        self.source.go_to(here)?;
        Ok(index)
    }

    /// The trailer of the frame at byte `at`.
    fn trailer_at(&mut self, at: u64) -> io::Result<TrailerAt> {
        self.source.go_to(at)?;
        let mut prefix = [0; PREFIX];
        if self.source.fill(&mut prefix)? < PREFIX {
            return Ok(TrailerAt::End);
        }
        let length = match metadata_length(prefix) {
            Ok(Some(length)) => (PREFIX + length) as u64,
            Ok(None) => return Ok(TrailerAt::End),
            Err(_) => return Ok(TrailerAt::Broken),
        };
        self.source.go_to((at + length).saturating_sub(TRAILER as u64))?;
        let mut trailer = [0; TRAILER];
        self.source.fill(&mut trailer)?;
        let trailer = frame::trailer(&trailer);
        Ok(trailer.map_or(TrailerAt::Broken, |trailer| TrailerAt::Frame(trailer, length + trailer.body)))
    }

    /// The steps of the batch at `position` of `index`, read out of turn. Lists of sockets that it does not hold whole
    /// are left out.
    ///
    /// # Errors
    /// [`io::Error`] of the input.
    pub fn steps_of(&mut self, index: &BatchIndex, position: &BatchPosition) -> io::Result<Vec<TrackerStep>> {
        self.go_to(index, position)?;
        let unused = self.unused_rows();
        let mut steps = Vec::new();
        if let Some(batch) = self.next_batch()?
            && self.decoder.feed(&batch, self.messages.lists())
        {
            steps.extend(std::iter::from_fn(|| self.decoder.next()));
        }
        self.decoder.reset();
        (self.decoder.bad_rows, self.decoder.lost_rows) = (unused.bad, unused.lost);
        Ok(steps)
    }

    /// Continues with the batch at `position` of `index`.
    ///
    /// # Errors
    /// [`io::Error`] of the input.
    pub fn go_to(&mut self, index: &BatchIndex, position: &BatchPosition) -> io::Result<()> {
        let missing = index.dictionaries.iter().filter(|at| (self.dictionaries_end..position.offset).contains(*at));
        for &at in missing.collect::<Vec<_>>() {
            self.source.go_to(at)?;
            let read = match self.source.next_frame()? {
                RawFrame::Whole { metadata, body, trailer } => {
                    self.messages.read(&metadata, body, words(&trailer)).map(drop).map_err(|error| error.to_string())
                }
                RawFrame::Broken(broken) => Err(broken.why.to_owned()),
                RawFrame::End => Ok(()),
            };
            if let Err(why) = read {
                let bytes = self.source.at() - at;
                let passed = PassedOver { bytes, dictionaries: true, exact: true, ..PassedOver::default() };
                self.miss(at, DamageKind::Corrupt, why, passed)?;
            }
            self.dictionaries_end = self.dictionaries_end.max(self.source.at());
        }
        self.return_to(position.offset, self.unused_rows())
    }

    /// Continues at the byte `position`, at which the reader was between two batches before and had found `unused`.
    ///
    /// # Errors
    /// [`io::Error`] of the input.
    pub fn return_to(&mut self, position: u64, unused: UnusedRows) -> io::Result<()> {
        self.source.go_to(position)?;
        (self.open_gap, self.rows, self.ending, self.finished) = (None, None, false, false);
        self.decoder.reset();
        (self.decoder.bad_rows, self.decoder.lost_rows) = (unused.bad, unused.lost);
        Ok(())
    }
}

/// What stands at a byte at which a frame may begin.
enum TrailerAt {
    /// A frame, with its trailer and its bytes.
    Frame(Trailer, u64),
    /// The end of the stream or of the file.
    End,
    /// Something else.
    Broken,
}

fn is_dictionary(trailer: &Trailer) -> bool {
    trailer.stats.flags & flags::DICTIONARY != 0
}

/// The numbers of the words of a dictionary, if its trailer tells them.
fn words(trailer: &Trailer) -> Option<Range<usize>> {
    let Stats { first, last, .. } = trailer.stats;
    (is_dictionary(trailer) && last > 0)
        .then(|| usize::try_from(first).ok().zip(usize::try_from(last).ok()))?
        .map(|(first, last)| first..last)
}

/// Reads the first message of a recording: its schema.
fn read_schema<R: Read>(source: &mut FrameSource<R>) -> Result<StreamSchema, ReadError> {
    let mut found = source.next_frame()?;
    // Other programs align their first message to 64 bytes.
    while matches!(&found, RawFrame::Broken(broken) if broken.bytes == [0; PREFIX] && source.at() <= 64) {
        found = source.next_frame()?;
    }
    let (metadata, why) = match found {
        RawFrame::Whole { metadata, .. } => (metadata, None),
        RawFrame::End => return Err(ReadError::NoHeader("no schema".into())),
        // A file of another program has no trailer, and a newer version may have another kind.
        RawFrame::Broken(broken) => (broken.bytes.get(PREFIX..).unwrap_or_default().to_vec(), Some(broken.why)),
    };
    let schema = match (message::schema(&metadata), why) {
        (Ok(schema), _) => schema,
        (Err(_), Some(why)) => return Err(ReadError::NoHeader(why.into())),
        (Err(error), None) => return Err(ReadError::NoHeader(error.to_string())),
    };
    let metadata = schema.schema.metadata();
    let Some(version) = metadata.get(VERSION_KEY) else {
        return Err(why
            .filter(|_| metadata.contains_key(HEADER_KEY))
            .map_or(ReadError::NotOurs, |why| ReadError::NoHeader(why.into())));
    };
    match (version.parse::<u32>(), why) {
        (Ok(found), _) if found > VERSION => Err(ReadError::TooNew { found }),
        (Ok(1..=VERSION), None) => Ok(schema),
        (Ok(1..=VERSION), Some(NO_TRAILER)) => Err(ReadError::Unverifiable),
        (Ok(1..=VERSION), Some(why)) => Err(ReadError::NoHeader(why.into())),
        (_, _) => {
            Err(ReadError::UnknownVersion { found: foreign_text::clean_up_to(version, MAX_VERSION).into_owned() })
        }
    }
}
