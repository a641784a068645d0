//! Messages of an Arrow file with a checksum each, so that a reader needs neither the footer nor trust.
//!
//! ```text
//! file     "ARROW1\0\0"  frame(schema)  frame(dictionary)*  (frame(addition)* frame(batch))*  frame(dictionary)*
//!          end of stream  tail  footer  length  "ARROW1"
//! frame    ff ff ff ff | length of metadata | flatbuffer, padding, trailer | body
//! trailer  48 bytes in the padding that Arrow allows behind a message's flatbuffer, so other programs do not see it
//! addition addresses that are new, for the dictionary of a column. At the end stand these dictionaries once more, whole: the footer
//!          names those, because readers that begin with the footer want one each
//! tail     48 bytes between the stream and the footer, where Arrow readers do not look
//! ```
//!
//! Not for: what a message holds.

use std::hash::Hasher as _;

use twox_hash::XxHash3_64;

/// First bytes of every Arrow file, padded to 8.
pub const MAGIC: [u8; 8] = *b"ARROW1\0\0";
/// Before the length of every message.
pub const CONTINUATION: [u8; 4] = [0xff; 4];
/// Continuation and length.
pub const PREFIX: usize = 8;
pub const TRAILER: usize = 48;
const FRAME_MAGIC: [u8; 4] = *b"PCB1";
const TAIL_MAGIC: [u8; 4] = *b"PCE1";

/// Metadata of one message. A batch's is 3 KiB; the schema's holds the header, which grows with the degradations of a host.
pub const MAX_METADATA: usize = 1 << 20;
/// Body of one message. The writer cuts batches at [`super::MAX_TEXT`] of text and [`super::BATCH_ROWS`] rows of about 100 bytes.
pub const MAX_BODY: usize = 64 << 20;

/// What a message holds, for those who skip it.
pub mod flags {
    /// Processes, limits or reserved ports.
    pub const FACTS: u32 = 1;
    /// The beginning of a list of sockets.
    pub const BASELINE: u32 = 2;
    /// Words or addresses that the batches behind need.
    pub const DICTIONARY: u32 = 4;
}

/// What a frame says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub rows: u32,
    /// [`flags`].
    pub flags: u32,
    /// Earliest and latest time of the rows: nanoseconds since 1970.
    pub first: i64,
    pub last: i64,
}

/// A trailer as read. Its own fields are guarded by `own`, the whole frame by `checksum`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    pub stats: Stats,
    pub body: u64,
    pub checksum: u64,
}

/// Bytes of a message in front of its body.
pub fn head(flatbuffer: &[u8], body: &[u8], stats: Stats) -> Vec<u8> {
    let padded = flatbuffer.len().next_multiple_of(8);
    let mut head = Vec::with_capacity(PREFIX + padded + TRAILER);
    head.extend_from_slice(&CONTINUATION);
    // A flatbuffer is below 2 GiB by its own rules.
    let length = i32::try_from(padded + TRAILER).unwrap_or(i32::MAX);
    head.extend_from_slice(&length.to_le_bytes());
    head.extend_from_slice(flatbuffer);
    head.resize(PREFIX + padded, 0);
    head.extend_from_slice(&sealed(FRAME_MAGIC, stats, body.len() as u64));
    let checksum = checksum(&head, body);
    head.extend_from_slice(&checksum.to_le_bytes());
    head
}

/// The bytes between stream and footer: what the file held in all.
pub fn tail(stats: Stats, messages: u64) -> [u8; TRAILER] {
    let mut out = [0; TRAILER];
    let (front, back) = out.split_at_mut(TRAILER - 8);
    front.copy_from_slice(&sealed(TAIL_MAGIC, stats, messages));
    back.copy_from_slice(&checksum(front, &[]).to_le_bytes());
    out
}

/// Everything of a trailer but the checksum of the frame.
fn sealed(magic: [u8; 4], stats: Stats, number: u64) -> [u8; TRAILER - 8] {
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
    let own = own(&out[..at]);
    out[at..].copy_from_slice(&own);
    out
}

/// Guards a trailer on its own: where the rest of the frame is missing, its times are still worth telling.
fn own(bytes: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = checksum(bytes, &[]).to_le_bytes();
    [a, b, c, d]
}

fn checksum(head: &[u8], body: &[u8]) -> u64 {
    let mut hasher = XxHash3_64::with_seed(0);
    hasher.write(head);
    hasher.write(body);
    hasher.finish()
}

fn parse(magic: [u8; 4], bytes: &[u8]) -> Option<Trailer> {
    let bytes: &[u8; TRAILER] = bytes.first_chunk()?;
    let word = |at: usize| bytes.get(at..at + 4)?.first_chunk().copied().map(u32::from_le_bytes);
    let long = |at: usize| bytes.get(at..at + 8)?.first_chunk().copied().map(i64::from_le_bytes);
    if bytes.get(..4)? != magic || bytes.get(36..40)? != own(bytes.get(..36)?) {
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

/// Is this frame as it was written? `metadata` is what follows the prefix.
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

/// The latest time that any whole trailer or tail within `bytes` tells of, for saying how much is missing.
pub fn latest(bytes: &[u8]) -> Option<i64> {
    let starts = bytes.windows(4).enumerate().filter(|(_, word)| *word == FRAME_MAGIC || *word == TAIL_MAGIC);
    starts
        .filter_map(|(at, _)| {
            let rest = bytes.get(at..)?;
            let trailer = parse(FRAME_MAGIC, rest).or_else(|| parse(TAIL_MAGIC, rest))?;
            (trailer.stats.rows > 0).then_some(trailer.stats.last)
        })
        .max()
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
        assert_eq!(latest(&frame), Some(stats.last));
        // The prefix was compared by whoever read so many bytes because of it.
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
