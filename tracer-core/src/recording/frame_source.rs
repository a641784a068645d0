//! Frames from anything that yields bytes, and the next whole frame behind bytes that are none.
//!
//! A frame is handed out only if its checksum is right. Not for: what a frame holds (`message`), or what it means that
//! one is missing (`reader`).

use std::io::{self, Read, Seek, SeekFrom};

use super::frame::{self, PREFIX, Stats, TRAILER, Trailer, flags};
use crate::damage::DamageKind;

/// Bytes read at a time when the next frame is searched.
const CHUNK: usize = 1 << 16;
/// Frames that begin and end like frames and are none, at most, in one file. Only a file made for it has more, and each
/// costs the checksum of up to [`frame::MAX_BODY`].
const MAX_TRIES: u32 = 1_024;

/// Why a complete frame cannot be verified.
pub const NO_TRAILER: &str = "a batch's checksum is missing or damaged";
/// What is wrong with a file of which only a part was copied, or whose writer died while it wrote.
const CUT_OFF: &str = "the file ends in the middle of a batch";

/// A frame as bytes.
pub enum RawFrame {
    /// Its checksum was right.
    Whole { metadata: Vec<u8>, body: Vec<u8>, trailer: Trailer },
    /// The marker of the end of the stream.
    End,
    /// Something else.
    Broken(BrokenFrame),
}

/// Bytes at a place where a frame should be.
pub struct BrokenFrame {
    /// Those that could be read of it.
    pub bytes: Vec<u8>,
    /// What is wrong.
    pub kind: DamageKind,
    /// The same as the beginning of a sentence.
    pub why: &'static str,
    /// What the frame says about itself, if that much is right.
    pub trailer: Option<Trailer>,
    /// It has the length that it says.
    complete: bool,
}

/// Bytes that were passed over on the way to the next frame.
#[expect(clippy::struct_excessive_bools, reason = "four answers that do not depend on one another")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PassedOver {
    /// How many.
    pub bytes: u64,
    /// Rows that were in them, at least.
    pub rows: u64,
    /// Latest time of these rows: nanoseconds since 1970.
    pub latest: Option<i64>,
    /// `rows` is exact.
    pub exact: bool,
    /// Additions to dictionaries are among them, or may be.
    pub dictionaries: bool,
    /// Rows are among them, or may be.
    pub batches: bool,
    /// A frame or the end of the stream follows, not the end of the input.
    pub found: bool,
}

/// Reads frames one after the other.
pub struct FrameSource<R> {
    input: R,
    /// Bytes that were read before they were needed.
    ahead: Vec<u8>,
    /// How many of `ahead` are consumed.
    consumed: usize,
    at: u64,
    tries: u32,
}

impl<R: Read> Read for FrameSource<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let ahead = self.ahead.get(self.consumed..).unwrap_or_default();
        let found = if ahead.is_empty() {
            self.input.read(out)?
        } else {
            let length = ahead.len().min(out.len());
            for (to, from) in out.iter_mut().zip(ahead) {
                *to = *from;
            }
            self.consumed += length;
            length
        };
        self.at += found as u64;
        Ok(found)
    }
}

impl<R: Read> FrameSource<R> {
    /// Reads from the first byte of `input`.
    pub fn new(input: R) -> Self {
        Self { input, ahead: Vec::new(), consumed: 0, at: 0, tries: MAX_TRIES }
    }

    /// Bytes consumed.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Fills `buffer` and returns how many bytes there were.
    pub fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.read(rest) {
                Ok(0) => break,
                Ok(found) => filled += found,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// Appends up to `length` bytes to `out`. Memory is allocated as bytes arrive, because a damaged file may claim any
    /// length.
    fn read_at_most(&mut self, out: &mut Vec<u8>, length: usize) -> io::Result<()> {
        out.reserve(length.min(CHUNK));
        self.take(length as u64).read_to_end(out).map(drop)
    }

    /// The next bytes, up to `length` and maybe more, without consuming them.
    pub fn peek(&mut self, length: usize) -> io::Result<&[u8]> {
        let there = self.ahead.len() - self.consumed;
        if there < length {
            self.ahead.drain(..self.consumed);
            self.consumed = 0;
            let missing = (length - there).max(CHUNK) as u64;
            (&mut self.input).take(missing).read_to_end(&mut self.ahead)?;
        }
        Ok(self.ahead.get(self.consumed..).unwrap_or_default())
    }

    /// Consumes bytes that were peeked at.
    fn consume(&mut self, length: usize) {
        let length = length.min(self.ahead.len() - self.consumed);
        self.consumed += length;
        self.at += length as u64;
    }

    /// Takes back what was consumed last.
    fn give_back(&mut self, mut bytes: Vec<u8>) {
        self.at -= bytes.len() as u64;
        bytes.extend_from_slice(self.ahead.get(self.consumed..).unwrap_or_default());
        (self.ahead, self.consumed) = (bytes, 0);
    }

    /// Consumes everything. Returns the last bytes, up to `length`, and the position behind the first place at which `end` is followed by
    /// `begin`, if there is one.
    pub fn last_bytes(&mut self, length: usize, (end, begin): (&[u8], &[u8])) -> io::Result<(Vec<u8>, Option<u64>)> {
        let seam = [end, begin].concat();
        let (mut last, mut again) = (Vec::new(), None);
        loop {
            let behind = self.at();
            let chunk = self.peek(CHUNK)?;
            let found = chunk.len();
            let kept = last.len() as u64;
            last.extend_from_slice(chunk);
            if again.is_none() {
                let place = last.windows(seam.len()).position(|window| window == seam);
                again = place.map(|place| (behind + place as u64 + end.len() as u64).saturating_sub(kept));
            }
            last.drain(..last.len().saturating_sub(length.max(seam.len())));
            self.consume(found);
            if found == 0 {
                last.drain(..last.len().saturating_sub(length));
                return Ok((last, again));
            }
        }
    }

    /// Reads the next frame and verifies it.
    ///
    /// # Errors
    /// [`io::Error`] of the input.
    pub fn next_frame(&mut self) -> io::Result<RawFrame> {
        let broken =
            |bytes, kind, why| Ok(RawFrame::Broken(BrokenFrame { bytes, kind, why, trailer: None, complete: false }));
        let mut bytes = vec![0; PREFIX];
        let found = self.fill(&mut bytes)?;
        bytes.truncate(found);
        let Some(&prefix) = bytes.first_chunk::<PREFIX>() else {
            return if found == 0 {
                broken(
                    bytes,
                    DamageKind::Unfinished,
                    "the file has no end: it is being written, or its writer was killed",
                )
            } else {
                broken(bytes, DamageKind::CutOff, CUT_OFF)
            };
        };
        let length = match metadata_length(prefix) {
            Ok(Some(length)) => length,
            Ok(None) => return Ok(RawFrame::End),
            Err(why) => return broken(bytes, DamageKind::Corrupt, why),
        };
        let mut metadata = Vec::new();
        self.read_at_most(&mut metadata, length)?;
        if metadata.len() < length {
            bytes.append(&mut metadata);
            return broken(bytes, DamageKind::CutOff, CUT_OFF);
        }
        let Some(trailer) = frame::trailer(&metadata) else {
            bytes.append(&mut metadata);
            return broken(bytes, DamageKind::Corrupt, NO_TRAILER);
        };
        let length = usize::try_from(trailer.body).unwrap_or(usize::MAX);
        let mut body = Vec::new();
        let why = if length > frame::MAX_BODY {
            (DamageKind::Corrupt, "a batch claims an impossible length")
        } else {
            self.read_at_most(&mut body, length)?;
            if frame::intact(&metadata, &body, &trailer) {
                return Ok(RawFrame::Whole { metadata, body, trailer });
            }
            if body.len() < length {
                (DamageKind::CutOff, CUT_OFF)
            } else {
                (DamageKind::Corrupt, "a batch is not as it was written (its checksum differs)")
            }
        };
        bytes.append(&mut metadata);
        let complete = body.len() == length;
        bytes.append(&mut body);
        let (kind, why) = why;
        Ok(RawFrame::Broken(BrokenFrame { bytes, kind, why, trailer: Some(trailer), complete }))
    }

    /// Goes on to the next whole frame, to the end of the stream, or to the end of the input.
    ///
    /// # Errors
    /// [`io::Error`] of the input.
    pub fn pass_over(&mut self, broken: BrokenFrame) -> io::Result<PassedOver> {
        // Nearly always the next frame is where it should be.
        if broken.complete
            && let Some(trailer) = broken.trailer
        {
            let next = self.peek(PREFIX)?.first_chunk().map(|prefix| metadata_length(*prefix).is_ok());
            if next.unwrap_or(true) {
                let passed = PassedOver::frame(broken.bytes.len() as u64, &trailer.stats);
                return Ok(PassedOver { found: next.is_some(), ..passed });
            }
        }
        self.give_back(broken.bytes);
        self.find_frame()
    }

    /// Searches the next whole frame behind the present byte.
    ///
    /// # Errors
    /// [`io::Error`] of the input.
    pub fn find_frame(&mut self) -> io::Result<PassedOver> {
        let mut passed = PassedOver { dictionaries: true, batches: true, ..PassedOver::default() };
        let begin = self.at;
        let mut only = None;
        let mut trailers = 0;
        let mut step = 1;
        loop {
            // A trailer may lie across two chunks.
            let offset = self.at - begin;
            for (at, trailer) in frame::trailers(self.peek(step + TRAILER)?, step) {
                trailers += 1;
                passed.note(&trailer.stats);
                only = Some((offset + (at + TRAILER) as u64 + trailer.body, trailer.stats));
            }
            self.consume(step);
            if self.is_at_frame()? {
                passed.found = true;
                break;
            }
            let ahead = self.peek(CHUNK)?;
            if ahead.is_empty() {
                break;
            }
            let next = ahead.windows(frame::CONTINUATION.len()).skip(1).position(|word| word == frame::CONTINUATION);
            step = match next {
                Some(before) => before + 1,
                // The last bytes may be the beginning of the word.
                None if ahead.len() >= CHUNK => ahead.len() - frame::CONTINUATION.len(),
                None => ahead.len(),
            };
        }
        passed.bytes = self.at - begin;
        if trailers == 1
            && let Some((end, stats)) = only
            && end == passed.bytes
        {
            // It was one frame.
            passed.exact = true;
            passed.dictionaries = stats.flags & flags::DICTIONARY != 0;
            passed.batches = stats.rows > 0;
        }
        Ok(passed)
    }

    /// Whether a whole frame or the end of the stream begins here.
    fn is_at_frame(&mut self) -> io::Result<bool> {
        let Some(prefix) = self.peek(PREFIX)?.first_chunk::<PREFIX>().copied() else { return Ok(false) };
        let length = match metadata_length(prefix) {
            Ok(Some(length)) => length,
            Ok(None) => {
                let tail = self.peek(PREFIX + TRAILER)?.get(PREFIX..).unwrap_or_default();
                return Ok(frame::read_tail(tail).is_some());
            }
            Err(_) => return Ok(false),
        };
        let metadata = PREFIX..PREFIX + length;
        let Some(trailer) = self.peek(metadata.end)?.get(metadata.clone()).and_then(frame::trailer) else {
            return Ok(false);
        };
        let end = usize::try_from(trailer.body).ok().filter(|body| *body <= frame::MAX_BODY);
        let Some(end) = end.map(|body| metadata.end + body) else { return Ok(false) };
        let Some(left) = self.tries.checked_sub(1) else { return Ok(false) };
        let bytes = self.peek(end)?;
        let parts = bytes.get(metadata.clone()).zip(bytes.get(metadata.end..end));
        let intact = parts.is_some_and(|(metadata, body)| frame::intact(metadata, body, &trailer));
        if !intact {
            self.tries = left;
        }
        Ok(intact)
    }
}

impl<R: Read + Seek> FrameSource<R> {
    /// Continues at byte `at`.
    ///
    /// # Errors
    /// [`io::Error`] of the input.
    pub fn go_to(&mut self, at: u64) -> io::Result<()> {
        self.input.seek(SeekFrom::Start(at))?;
        self.ahead.clear();
        (self.consumed, self.at) = (0, at);
        Ok(())
    }
}

impl PassedOver {
    /// One frame of so many bytes.
    pub fn frame(bytes: u64, stats: &Stats) -> Self {
        let mut passed = Self { bytes, exact: true, found: true, ..Self::default() };
        passed.note(stats);
        passed
    }

    fn note(&mut self, stats: &Stats) {
        self.dictionaries |= stats.flags & flags::DICTIONARY != 0;
        self.batches |= stats.rows > 0;
        self.rows += u64::from(stats.rows);
        if stats.rows > 0 {
            self.latest = self.latest.max(Some(stats.last));
        }
    }
}

/// Length of a message's metadata; `None` marks the end of the stream.
pub fn metadata_length(prefix: [u8; PREFIX]) -> Result<Option<usize>, &'static str> {
    let Some(length) = prefix.strip_prefix(&frame::CONTINUATION).and_then(|length| length.first_chunk()) else {
        return Err("where a batch should begin is something else");
    };
    match usize::try_from(i32::from_le_bytes(*length)) {
        Ok(0) => Ok(None),
        Ok(length) if length <= frame::MAX_METADATA => Ok(Some(length)),
        _ => Err("a batch claims to have metadata of an impossible length"),
    }
}
