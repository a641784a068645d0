//! Where packed batches go: into one file, into one file after the other, or into memory until a trigger.
//!
//! A file that starts in the middle of a trace begins with the names and limits known by then, so that each file can be understood alone.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::outcome::RecordingOutcome;
use crate::cli::{FlightWindow, RotationBounds};
use crate::run::session::BaselineRequest;
use tracer_core::recording::writer::{PackedBatch, Packer, RecordingFile};
use tracer_core::recording::{RecordingHeader, WriteError, Written, create};
use tracer_core::replay::Facts;
use tracer_core::step::TrackerStep;

/// A rotation keeps about this many files, so that retention removes a quarter of the recording at a time.
const PARTS: u64 = 4;
/// Bytes that a row of connection churn takes in a file, more or less; bounds the rows of a batch by the size of a part.
const ROW_BYTES: u64 = 16;
/// Smaller batches pack badly: a header alone is 3 KiB.
const LEAST_ROWS: u64 = 4096;
/// A file is synced with the first batch after this long. A power cut takes away this and the age of a batch.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// Packed batches that a flight recorder holds: more than six million events of churn.
pub const FLIGHT_BYTES: u64 = 64 << 20;

/// Names that are tried when others have created files under the first ones since the recording began.
const MAX_TRIES: u32 = 1_000;

enum SinkState {
    One(RecordingFile<File>),
    Rotation(Rotation),
    Flight(Flight),
    /// Batches are dropped.
    Closed,
}

/// Takes the batches of one recording and puts them where its target wants them.
pub struct RecordingSink {
    path: PathBuf,
    header: RecordingHeader,
    state: SinkState,
    /// Names and limits of the batches that are in no file that is still to be begun.
    known: Facts,
    request_baseline: Option<Sender<BaselineRequest>>,
    finished: Vec<(PathBuf, Written)>,
    /// A flight recorder had to drop batches that were inside its window.
    cut_short: bool,
    /// When the present file was last synced.
    synced: Instant,
}

struct Rotation {
    bounds: RotationBounds,
    /// Number of the present file.
    number: u32,
    output: RecordingFile<File>,
    /// Finished files, oldest first.
    files: VecDeque<(PathBuf, Written)>,
}

struct Flight {
    window: FlightWindow,
    /// The trigger may replace what is at the path.
    force: bool,
    /// Batches with the facts in them, oldest first.
    held: VecDeque<(PackedBatch, Vec<TrackerStep>)>,
    /// Bytes of `held`.
    bytes: u64,
    /// After the trigger: the file, and the time in nanoseconds since 1970 at which the window ends.
    output: Option<(RecordingFile<File>, i64)>,
    complete: bool,
}

/// `trace.arrow` as `trace.000001.arrow`.
pub fn part_path(path: &Path, number: u32) -> PathBuf {
    let extension =
        path.extension().map_or_else(|| "arrow".into(), |extension| extension.to_string_lossy().into_owned());
    path.with_extension(format!("{number:06}.{extension}"))
}

/// Is this the name of a part of `path`?
pub fn is_part(path: &Path, name: &std::ffi::OsStr) -> bool {
    // From the millionth part on, the number has seven digits.
    let number = |name: &str| name.rsplit('.').nth(1)?.parse::<u32>().ok();
    name.to_str().and_then(number).is_some_and(|number| part_path(path, number).file_name() == Some(name))
}

impl RecordingSink {
    /// Writes into `file`, which lies at `path`.
    ///
    /// # Errors
    /// [`WriteError`]: the header could not be encoded or written.
    pub fn one(path: &Path, file: File, header: &RecordingHeader) -> Result<Self, WriteError> {
        let mut packer = Packer::new(header)?;
        let output = RecordingFile::begin(file, packer.schema_message(header)?, &mut packer)?;
        Ok(Self::new(path, header, SinkState::One(output), None))
    }

    /// Writes one file after the other, of which `file` is the first part of `path`.
    ///
    /// # Errors
    /// [`WriteError`]: the header could not be encoded or written.
    pub fn rotation(
        path: &Path,
        file: File,
        header: &RecordingHeader,
        bounds: RotationBounds,
        request_baseline: Sender<BaselineRequest>,
    ) -> Result<Self, WriteError> {
        let mut packer = Packer::new(header)?;
        let output = RecordingFile::begin(file, packer.schema_message(header)?, &mut packer)?;
        let rotation = Rotation { bounds, number: 1, output, files: VecDeque::new() };
        Ok(Self::new(path, header, SinkState::Rotation(rotation), Some(request_baseline)))
    }

    /// Holds batches in memory until [`Self::trigger`] writes them to `path`; `force` allows the trigger to replace what is there.
    pub fn flight(
        path: &Path,
        header: &RecordingHeader,
        window: FlightWindow,
        force: bool,
        request_baseline: Sender<BaselineRequest>,
    ) -> Self {
        let flight = Flight { window, force, held: VecDeque::new(), bytes: 0, output: None, complete: false };
        Self::new(path, header, SinkState::Flight(flight), Some(request_baseline))
    }

    fn new(
        path: &Path,
        header: &RecordingHeader,
        state: SinkState,
        request_baseline: Option<Sender<BaselineRequest>>,
    ) -> Self {
        Self {
            path: path.into(),
            header: header.clone(),
            state,
            known: Facts::default(),
            request_baseline,
            finished: Vec::new(),
            cut_short: false,
            synced: Instant::now(),
        }
    }

    /// Whether [`Self::put`] needs the facts of a batch: only a sink that starts files in the middle does.
    pub fn wants_facts(&self) -> bool {
        !matches!(self.state, SinkState::One(_))
    }

    /// Most rows of a batch. A file ends between two batches, so a batch must not be larger than a part.
    pub fn batch_rows(&self) -> usize {
        let size = match &self.state {
            SinkState::Rotation(rotation) => rotation.bounds.size,
            _ => None,
        };
        let part = size.map(|size| (size / PARTS / ROW_BYTES).max(LEAST_ROWS));
        part.and_then(|rows| usize::try_from(rows).ok()).unwrap_or(usize::MAX)
    }

    /// A flight recorder has written its whole window.
    pub fn is_complete(&self) -> bool {
        matches!(&self.state, SinkState::Flight(flight) if flight.complete)
    }

    /// Bytes of all files so far; before the trigger of a flight recorder, bytes in memory.
    pub fn bytes(&self) -> u64 {
        match &self.state {
            SinkState::One(output) => output.written().bytes,
            SinkState::Rotation(rotation) => {
                rotation.output.written().bytes + rotation.files.iter().map(|(_, written)| written.bytes).sum::<u64>()
            }
            SinkState::Flight(flight) => {
                flight.output.as_ref().map_or(flight.bytes, |(output, _)| output.written().bytes)
            }
            SinkState::Closed => 0,
        }
    }

    /// Takes a batch and the facts in it.
    ///
    /// # Errors
    /// [`WriteError`]: the batch could not be written. Earlier batches are still readable.
    pub fn put(&mut self, packed: PackedBatch, facts: Vec<TrackerStep>) -> Result<(), WriteError> {
        match &mut self.state {
            SinkState::One(output) => write_and_sync(output, &packed, &mut self.synced),
            SinkState::Rotation(rotation) => {
                for fact in facts {
                    self.known.take(fact);
                }
                write_and_sync(&mut rotation.output, &packed, &mut self.synced)
            }
            SinkState::Flight(flight) => {
                if let Some((output, until)) = &mut flight.output {
                    flight.complete = packed.stats.last >= *until;
                    return write_and_sync(output, &packed, &mut self.synced);
                }
                let horizon = packed.stats.last.saturating_sub(nanos(flight.window.before));
                flight.bytes += packed.bytes();
                flight.held.push_back((packed, facts));
                while let Some((oldest, _)) = flight.held.front()
                    && (oldest.stats.last < horizon || flight.bytes > FLIGHT_BYTES)
                {
                    self.cut_short |= oldest.stats.last >= horizon;
                    flight.bytes -= oldest.bytes();
                    for fact in flight.held.pop_front().into_iter().flat_map(|(_, facts)| facts) {
                        self.known.take(fact);
                    }
                }
                Ok(())
            }
            SinkState::Closed => Ok(()),
        }
    }

    /// Ends a file that is large or old enough, removes files beyond the bounds, and begins the next file with a fresh packer. The packer
    /// must be empty: a list of sockets that is divided between two files can be read from neither.
    ///
    /// A flight recorder that has met more addresses than one file can hold drops its batches and begins again.
    ///
    /// # Errors
    /// [`WriteError`]: a file could not be created, written, ended or removed.
    pub fn rotate(&mut self, packer: &mut Packer) -> Result<(), WriteError> {
        let rotation = match &mut self.state {
            SinkState::Rotation(rotation) => rotation,
            SinkState::Flight(flight) if packer.is_full_of_addresses() && flight.output.is_none() => {
                // Later batches could not be in one file with those that are held.
                for fact in flight.held.drain(..).flat_map(|(_, facts)| facts) {
                    self.known.take(fact);
                }
                (flight.bytes, self.cut_short) = (0, true);
                *packer = Packer::new(&self.header)?;
                return Ok(());
            }
            _ => return Ok(()),
        };
        let (bounds, written) = (rotation.bounds, rotation.output.written());
        let large = bounds.size.is_some_and(|size| written.bytes >= size / PARTS);
        let long = written.last.saturating_sub(written.first);
        let old = bounds.age.is_some_and(|age| long >= nanos(age) / nanos_parts());
        if !large && !old {
            // The present file has grown and counts too.
            return rotation.retain(written.last);
        }
        let (number, file) = first_free(rotation.number + 1, |number| part_path(&self.path, number))?;
        let begin = written.last.wrapping_sub(self.header.offset());
        let header = RecordingHeader { continued: true, begin_ns: begin.cast_unsigned(), ..self.header.clone() };
        let mut fresh = Packer::new(&self.header)?;
        let schema_message = fresh.schema_message(&header)?;
        let output = std::mem::replace(&mut rotation.output, RecordingFile::begin(file, schema_message, &mut fresh)?);
        let ended = output.finish(packer)?.0;
        *packer = fresh;
        rotation.files.push_back((part_path(&self.path, rotation.number), ended));
        rotation.number = number;
        rotation.retain(written.last)?;
        write_known_facts(&self.known, &mut rotation.output, packer)?;
        self.request_baseline();
        Ok(())
    }

    /// Writes the batches that a flight recorder holds and makes it write from here on until the end of its window.
    ///
    /// # Errors
    /// [`WriteError`]: the file could not be created or written.
    pub fn trigger(&mut self, packer: &mut Packer) -> Result<(), WriteError> {
        let SinkState::Flight(flight) = &mut self.state else { return Ok(()) };
        if flight.output.is_some() {
            return Ok(());
        }
        let file = if flight.force {
            create(&self.path, true)?
        } else {
            // Hours may have passed since the path was tried. What others have put there since is not replaced.
            let name = |number| if number == 0 { self.path.clone() } else { part_path(&self.path, number) };
            let (number, file) = first_free(0, name)?;
            self.path = name(number);
            file
        };
        let first = flight.held.front().map(|(packed, _)| packed.stats.first);
        let last = flight.held.back().map(|(packed, _)| packed.stats.last);
        let begin =
            first.map_or(self.header.begin_ns, |first| first.wrapping_sub(self.header.offset()).cast_unsigned());
        // The recording begins with its first event: the names before it are older and would stretch the window.
        let header =
            RecordingHeader { continued: begin > self.header.begin_ns, begin_ns: begin, ..self.header.clone() };
        let mut output = RecordingFile::begin(file, packer.schema_message(&header)?, packer)?;
        write_known_facts(&self.known, &mut output, packer)?;
        for (packed, _) in flight.held.drain(..) {
            output.batch(&packed)?;
        }
        output.flush()?;
        output.sync()?;
        flight.bytes = 0;
        flight.output = Some((output, last.unwrap_or_default().saturating_add(nanos(flight.window.after))));
        self.request_baseline();
        Ok(())
    }

    fn request_baseline(&self) {
        if let Some(request_baseline) = &self.request_baseline {
            // Fails at the end of a trace, which comes with a list of sockets of its own.
            let _ = request_baseline.send(BaselineRequest::WithOwners);
        }
    }

    /// Ends the present file. Later batches are dropped.
    ///
    /// # Errors
    /// [`WriteError`]: the end of the file could not be written. `portchurn` reads a file without its end, other Arrow readers do not.
    pub fn finish(&mut self, packer: &mut Packer) -> Result<RecordingOutcome, WriteError> {
        match std::mem::replace(&mut self.state, SinkState::Closed) {
            SinkState::One(output) => self.finished.push((self.path.clone(), output.finish(packer)?.0)),
            SinkState::Rotation(rotation) => {
                self.finished.extend(rotation.files);
                self.finished.push((part_path(&self.path, rotation.number), rotation.output.finish(packer)?.0));
            }
            SinkState::Flight(flight) => {
                if let Some((output, _)) = flight.output {
                    self.finished.push((self.path.clone(), output.finish(packer)?.0));
                }
            }
            SinkState::Closed => {}
        }
        Ok(RecordingOutcome { files: std::mem::take(&mut self.finished), trouble: None, cut_short: self.cut_short })
    }
}

impl Rotation {
    /// Removes the oldest files until the rest is within the bounds; `now`: nanoseconds since 1970.
    fn retain(&mut self, now: i64) -> Result<(), WriteError> {
        let total = |rotation: &Self| {
            rotation.output.written().bytes + rotation.files.iter().map(|(_, written)| written.bytes).sum::<u64>()
        };
        while let Some((path, written)) = self.files.front() {
            let large = self.bounds.size.is_some_and(|size| total(self) > size);
            let old = self.bounds.age.is_some_and(|age| now.saturating_sub(written.last) > nanos(age));
            if !large && !old {
                break;
            }
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => self.files.pop_front(),
            };
        }
        Ok(())
    }
}

/// Creates the first file from number `first` on that does not exist yet. Returns its number too.
fn first_free(first: u32, name: impl Fn(u32) -> PathBuf) -> io::Result<(u32, File)> {
    let mut number = first;
    loop {
        match create(&name(number), false) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < first + MAX_TRIES => number += 1,
            created => return created.map(|file| (number, file)),
        }
    }
}

/// Writes what was known before the first batch of a file.
fn write_known_facts(known: &Facts, output: &mut RecordingFile<File>, packer: &mut Packer) -> Result<(), WriteError> {
    for step in known.steps() {
        packer.step(&step, |packed| output.batch(&packed))?;
    }
    packer.flush()?.map_or(Ok(()), |packed| output.batch(&packed))
}

/// Adds a batch, and syncs the file if that is due.
fn write_and_sync(
    output: &mut RecordingFile<File>,
    packed: &PackedBatch,
    synced: &mut Instant,
) -> Result<(), WriteError> {
    output.batch(packed)?;
    output.flush()?;
    if synced.elapsed() >= SYNC_EVERY {
        output.sync()?;
        // After the sync, so that a slow disk is not asked again at once.
        *synced = Instant::now();
    }
    Ok(())
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

fn nanos_parts() -> i64 {
    i64::try_from(PARTS).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Between the start and the trigger hours may pass, and the trigger comes once.
    #[test]
    fn a_flight_recorder_writes_beside_what_somebody_has_put_in_its_place() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.arrow");
        let header = RecordingHeader::default();
        let window = FlightWindow { before: Duration::from_mins(1), after: Duration::ZERO };
        let written = |force| {
            let (request_baseline, _requests) = mpsc::channel();
            let mut packer = Packer::new(&header).expect("a header");
            let mut sink = RecordingSink::flight(&path, &header, window, force, request_baseline);
            sink.trigger(&mut packer).expect("room");
            let files = sink.finish(&mut packer).expect("room").files;
            files.into_iter().map(|(path, _)| path).collect::<Vec<_>>()
        };
        let theirs = [path.clone(), part_path(&path, 1)];
        for theirs in &theirs {
            fs::write(theirs, "theirs").expect("written");
        }
        assert_eq!(written(false), [part_path(&path, 2)]);
        assert!(theirs.iter().all(|theirs| fs::read(theirs).is_ok_and(|bytes| bytes == b"theirs")));
        assert_eq!(written(true), std::slice::from_ref(&path));
        assert!(fs::read(&path).expect("ours").starts_with(b"ARROW1"));
    }
}
