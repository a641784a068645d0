//! Frames: the messages of an Arrow file with a checksum each, so that a reader can verify each message and needs no
//! footer.
//!
//! ```text
//! file     "ARROW1\0\0"  frame(schema)  frame(dictionary)*  (frame(addition)* frame(batch))*  frame(dictionary)*
//!          end of stream  tail  footer  length  "ARROW1"
//! frame    ff ff ff ff | length of metadata | flatbuffer, padding, trailer | body
//! trailer  48 bytes in the padding that Arrow allows behind a message's flatbuffer, so other programs pass over it
//! addition new addresses for the dictionary of a column. These dictionaries are written once more, whole, at the end of the stream:
//!          the footer names those, because readers that begin with the footer expect one dictionary per column
//! tail     48 bytes between the stream and the footer, where Arrow readers do not look
//! ```
//!
//! Not for: the contents of a message, which `message` reads.

use std::hash::Hasher as _;

use twox_hash::XxHash3_64;

/// First bytes of every Arrow file, padded to 8.
pub const MAGIC: [u8; 8] = *b"ARROW1\0\0";
/// Before the length of every message.
pub const CONTINUATION: [u8; 4] = [0xff; 4];
/// Continuation and length.
pub const PREFIX: usize = 8;
/// Bytes of a trailer and of the tail.
pub const TRAILER: usize = 48;
const FRAME_MAGIC: [u8; 4] = *b"PCB1";
const TAIL_MAGIC: [u8; 4] = *b"PCE1";

/// Bytes of metadata of one message, at most. Those of a batch take 3 KiB; those of the schema hold the header, which
/// grows with the degradations of the host.
pub const MAX_METADATA: usize = 1 << 20;
/// Bytes of the body of one message, at most. The writer cuts batches at [`super::MAX_TEXT`] of text and
/// [`super::BATCH_ROWS`] rows of about 100 bytes.
pub const MAX_BODY: usize = 64 << 20;

/// What a message holds, so that a reader knows which messages it may skip.
pub mod flags {
    /// Names of processes, limits, reserved ports or counts of loss.
    pub const FACTS: u32 = 1;
    /// The beginning of a list of sockets.
    pub const BASELINE: u32 = 2;
    /// A dictionary, or an addition to one, that later batches need.
    pub const DICTIONARY: u32 = 4;
}

/// What a trailer says about its frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Rows of the batch.
    pub rows: u32,
    /// Bits of [`flags`].
    pub flags: u32,
    /// Earliest time of the rows: nanoseconds since 1970. Of a dictionary, the number of its first word.
    pub first: i64,
    /// Latest time of the rows: nanoseconds since 1970. Of a dictionary, the number behind its last word; 0 in files
    /// that do not tell.
    pub last: i64,
}

/// A trailer as read. A check of its own guards its fields, and `checksum` the whole frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// What the frame holds.
    pub stats: Stats,
    /// Bytes of the body.
    pub body: u64,
    /// XXH3-64 of the frame up to here and of its body.
    pub checksum: u64,
}

/// The bytes of a frame in front of its body: prefix, flatbuffer, padding and trailer.
pub fn head(flatbuffer: &[u8], body: &[u8], stats: Stats) -> Vec<u8> {
    let padded = flatbuffer.len().next_multiple_of(8);
    let mut head = Vec::with_capacity(PREFIX + padded + TRAILER);
    head.extend_from_slice(&CONTINUATION);
    // A flatbuffer is below 2 GiB by its own rules.
    let length = i32::try_from(padded + TRAILER).unwrap_or(i32::MAX);
    head.extend_from_slice(&length.to_le_bytes());
    head.extend_from_slice(flatbuffer);
    head.resize(PREFIX + padded, 0);
    head.extend_from_slice(&trailer_fields(FRAME_MAGIC, stats, body.len() as u64));
    let checksum = checksum(&head, body);
    head.extend_from_slice(&checksum.to_le_bytes());
    head
}

/// The bytes between stream and footer: `stats` and the number of messages of the whole file.
pub fn tail(stats: Stats, messages: u64) -> [u8; TRAILER] {
    let mut out = [0; TRAILER];
    let (front, back) = out.split_at_mut(TRAILER - 8);
    front.copy_from_slice(&trailer_fields(TAIL_MAGIC, stats, messages));
    back.copy_from_slice(&checksum(front, &[]).to_le_bytes());
    out
}

/// A trailer without the checksum of its frame.
fn trailer_fields(magic: [u8; 4], stats: Stats, number: u64) -> [u8; TRAILER - 8] {
    let mut out = [0; TRAILER - 8];
    let mut at = 0;
    for bytes in [
        &magic[..],
        &stats.rows.to_le_bytes(),
        &stats.first.to_le_bytes(),
        &stats.last.to_le_bytes(),
        &number.to_le_bytes(),
        &stats.flags.to_le_bytes(),
    ] {
        out[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    }
    let check = fields_check(&out[..at]);
    out[at..].copy_from_slice(&check);
    out
}

/// The check that guards the fields of a trailer alone: if the rest of the frame is missing, its times still say how
/// much that is.
fn fields_check(bytes: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = checksum(bytes, &[]).to_le_bytes();
    [a, b, c, d]
}

fn checksum(head: &[u8], body: &[u8]) -> u64 {
    let mut hasher = XxHash3_64::with_seed(0);
    hasher.write(head);
    hasher.write(body);
    hasher.finish()
}

/// The trailer at the start of `bytes`; `None` if there is none or its fields are damaged.
fn parse(magic: [u8; 4], bytes: &[u8]) -> Option<Trailer> {
    let bytes: &[u8; TRAILER] = bytes.first_chunk()?;
    let word = |at: usize| bytes.get(at..at + 4)?.first_chunk().copied().map(u32::from_le_bytes);
    let long = |at: usize| bytes.get(at..at + 8)?.first_chunk().copied().map(i64::from_le_bytes);
    if bytes.get(..4)? != magic || bytes.get(36..40)? != fields_check(bytes.get(..36)?) {
        return None;
    }
    Some(Trailer {
        stats: Stats { rows: word(4)?, first: long(8)?, last: long(16)?, flags: word(32)? },
        body: u64::from_le_bytes(*bytes.get(24..32)?.first_chunk()?),
        checksum: u64::from_le_bytes(*bytes.last_chunk()?),
    })
}

/// The trailer at the end of a message's metadata.
pub fn trailer(metadata: &[u8]) -> Option<Trailer> {
    parse(FRAME_MAGIC, metadata.last_chunk::<TRAILER>()?)
}

/// The tail of a finished file at the start of `bytes`, with its own checksum verified.
pub fn read_tail(bytes: &[u8]) -> Option<Trailer> {
    let tail = parse(TAIL_MAGIC, bytes)?;
    (tail.checksum == checksum(bytes.get(..TRAILER - 8)?, &[])).then_some(tail)
}

/// Whether a frame is as it was written. `metadata` are the bytes between its prefix and its body.
pub fn intact(metadata: &[u8], body: &[u8], trailer: &Trailer) -> bool {
    let Some(guarded) = metadata.len().checked_sub(8).and_then(|length| metadata.get(..length)) else { return false };
    let Ok(length) = i32::try_from(metadata.len()) else { return false };
    let mut hasher = XxHash3_64::with_seed(0);
    hasher.write(&CONTINUATION);
    hasher.write(&length.to_le_bytes());
    hasher.write(guarded);
    hasher.write(body);
    trailer.body == body.len() as u64 && hasher.finish() == trailer.checksum
}

/// The trailers that begin in the first `most` of `bytes`, and where: how much of a recording is missing there.
pub fn trailers(bytes: &[u8], most: usize) -> impl Iterator<Item = (usize, Trailer)> + '_ {
    let starts = bytes.windows(FRAME_MAGIC.len()).take(most).enumerate().filter(|(_, word)| *word == FRAME_MAGIC);
    starts.filter_map(|(at, _)| Some((at, parse(FRAME_MAGIC, bytes.get(at..)?)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_of_a_frame_is_noticed() {
        let stats = Stats { rows: 7, flags: flags::FACTS, first: -3, last: 1_773_454_267_000_000_000 };
        let body = *b"sixteen bytes ..";
        let head = head(b"flatbuffer", &body, stats);
        let check = |frame: &[u8]| {
            let (metadata, body) = frame[PREFIX..].split_at(head.len() - PREFIX);
            trailer(metadata).filter(|trailer| intact(metadata, body, trailer)).map(|trailer| trailer.stats)
        };
        let mut frame = [&head[..], &body].concat();
        assert_eq!(check(&frame), Some(stats));
        let found: Vec<_> = trailers(&frame, frame.len()).map(|(_, trailer)| trailer.stats).collect();
        assert_eq!(found, [stats]);
        // The reader has compared the prefix before it reads the rest.
        for bit in PREFIX * 8..frame.len() * 8 {
            frame[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(check(&frame), None, "bit {bit}");
            frame[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn the_tail_guards_itself() {
        let stats = Stats { rows: 9, flags: 0, first: 1, last: 2 };
        let mut bytes = tail(stats, 3);
        assert_eq!(read_tail(&bytes).map(|tail| (tail.stats, tail.body)), Some((stats, 3)));
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read_tail(&bytes), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
