//! Where packed batches go: one file, a file after the other, or memory until it is known that they matter.
//!
//! Files that start in the middle begin with the names and limits known by then, so that each tells its story alone.

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
use tracer_core::recording::{RecordedStep, RecordingHeader, WriteError, Written, create};
use tracer_core::replay::Facts;

/// A rotation keeps about this many files: retention throws away a quarter at a time.
const PARTS: u64 = 4;
/// What a row of connection churn takes in a file, more or less: how much of a part a batch may be.
const ROW_BYTES: u64 = 16;
/// Smaller batches pack badly: a header alone is 3 KiB.
const LEAST_ROWS: u64 = 4096;
/// A file is put onto the disk this often, with the first batch after that long: what a power cut takes away is this and the age
/// of a batch.
const SYNC_EVERY: Duration = Duration::from_secs(1);
/// Packed batches that a flight recorder holds: more than six million events of churn.
pub const FLIGHT_BYTES: u64 = 64 << 20;

/// Names that are tried where somebody has put something in the way since the recording began.
const MAX_TRIES: u32 = 1_000;

enum SinkState {
    One(RecordingFile<File>),
    Rotation(Rotation),
    Flight(Flight),
    /// Nothing more is taken.
    Closed,
}

/// See the module.
pub struct RecordingSink {
    path: PathBuf,
    header: RecordingHeader,
    state: SinkState,
    known: Facts,
    request_baseline: Option<Sender<BaselineRequest>>,
    done: Vec<(PathBuf, Written)>,
    cut_short: bool,
    /// When the file in the making was last put onto the disk.
    synced: Instant,
}

struct Rotation {
    bounds: RotationBounds,
    number: u32,
    output: RecordingFile<File>,
    /// Files that are finished, oldest first.
    files: VecDeque<(PathBuf, Written)>,
}

struct Flight {
    window: FlightWindow,
    /// What is at the path may be replaced.
    force: bool,
    held: VecDeque<(PackedBatch, Vec<RecordedStep>)>,
    bytes: u64,
    /// Once it happened: the file, and the time in nanoseconds since 1970 at which it is complete.
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
    // Of a million parts the last ones have seven digits.
    let number = |name: &str| name.rsplit('.').nth(1)?.parse::<u32>().ok();
    name.to_str().and_then(number).is_some_and(|number| part_path(path, number).file_name() == Some(name))
}

impl RecordingSink {
    /// One file.
    ///
    /// # Errors
    /// It could not be begun.
    pub fn one(path: &Path, file: File, header: &RecordingHeader) -> Result<Self, WriteError> {
        let mut packer = Packer::new(header)?;
        let output = RecordingFile::begin(file, packer.schema_message(header)?, &mut packer)?;
        Ok(Self::new(path, header, SinkState::One(output), None))
    }

    /// A file after the other, of which `file` is the first.
    ///
    /// # Errors
    /// It could not be begun.
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

    /// Nothing, until [`Self::trigger`]; `force` replaces what is at the path then.
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
            done: Vec::new(),
            cut_short: false,
            synced: Instant::now(),
        }
    }

    /// Does anybody care for the facts in a batch?
    pub fn wants_facts(&self) -> bool {
        !matches!(self.state, SinkState::One(_))
    }

    /// Rows after which a batch must not wait any longer: a file ends between two batches, so one batch must not be more than
    /// a part.
    pub fn batch_rows(&self) -> usize {
        let size = match &self.state {
            SinkState::Rotation(rotation) => rotation.bounds.size,
            _ => None,
        };
        let part = size.map(|size| (size / PARTS / ROW_BYTES).max(LEAST_ROWS));
        part.and_then(|rows| usize::try_from(rows).ok()).unwrap_or(usize::MAX)
    }

    /// Has everything that was asked for been kept?
    pub fn has_enough(&self) -> bool {
        matches!(&self.state, SinkState::Flight(flight) if flight.complete)
    }

    /// Bytes of all files so far; of a flight recorder that waits, bytes in memory.
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

    /// Takes a batch, whose facts are `facts`.
    ///
    /// # Errors
    /// The disk refused. What was there before is still whole.
    pub fn put(&mut self, packed: PackedBatch, facts: Vec<RecordedStep>) -> Result<(), WriteError> {
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

    /// Closes the file that is large or old enough, throws away what is beyond the bounds, and begins the next with a fresh packer.
    /// Nothing must be left in the old one: a list of sockets that went on in the next file would be lost to both. A flight recorder
    /// that has met more addresses than a file can have begins anew, too.
    ///
    /// # Errors
    /// The disk refused.
    pub fn rotate(&mut self, packer: &mut Packer) -> Result<(), WriteError> {
        let rotation = match &mut self.state {
            SinkState::Rotation(rotation) => rotation,
            SinkState::Flight(flight) if packer.is_full_of_addresses() && flight.output.is_none() => {
                // What comes could not stand in one file with what is held.
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
            // The file in the making counts too.
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

    /// What the flight recorder waits for has happened: writes what it holds and goes on writing for a while.
    ///
    /// # Errors
    /// The disk refused.
    pub fn trigger(&mut self, packer: &mut Packer) -> Result<(), WriteError> {
        let SinkState::Flight(flight) = &mut self.state else { return Ok(()) };
        if flight.output.is_some() {
            return Ok(());
        }
        let file = if flight.force {
            create(&self.path, true)?
        } else {
            // What happened and what somebody has put there since are both worth keeping.
            let name = |number| if number == 0 { self.path.clone() } else { part_path(&self.path, number) };
            let (number, file) = first_free(0, name)?;
            self.path = name(number);
            file
        };
        let first = flight.held.front().map(|(packed, _)| packed.stats.first);
        let last = flight.held.back().map(|(packed, _)| packed.stats.last);
        let begin =
            first.map_or(self.header.begin_ns, |first| first.wrapping_sub(self.header.offset()).cast_unsigned());
        // Names that are older than the events would stretch the window.
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
            // Nobody there any more: the trace is ending, with a list of sockets of its own.
            let _ = request_baseline.send(BaselineRequest::WithOwners);
        }
    }

    /// Ends the files.
    ///
    /// # Errors
    /// A file could not be ended. Readers of ours read it all the same.
    pub fn finish(&mut self, packer: &mut Packer) -> Result<RecordingOutcome, WriteError> {
        match std::mem::replace(&mut self.state, SinkState::Closed) {
            SinkState::One(output) => self.done.push((self.path.clone(), output.finish(packer)?.0)),
            SinkState::Rotation(rotation) => {
                self.done.extend(rotation.files);
                self.done.push((part_path(&self.path, rotation.number), rotation.output.finish(packer)?.0));
            }
            SinkState::Flight(flight) => {
                if let Some((output, _)) = flight.output {
                    self.done.push((self.path.clone(), output.finish(packer)?.0));
                }
            }
            SinkState::Closed => {}
        }
        Ok(RecordingOutcome { files: std::mem::take(&mut self.done), trouble: None, cut_short: self.cut_short })
    }
}

impl Rotation {
    /// Removes the oldest files until the rest is within the bounds.
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

/// The first file from number `first` on that can be made without replacing another.
fn first_free(first: u32, name: impl Fn(u32) -> PathBuf) -> io::Result<(u32, File)> {
    let mut number = first;
    loop {
        match create(&name(number), false) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < first + MAX_TRIES => number += 1,
            made => return made.map(|file| (number, file)),
        }
    }
}

/// What was known before the first row.
fn write_known_facts(known: &Facts, output: &mut RecordingFile<File>, packer: &mut Packer) -> Result<(), WriteError> {
    for step in known.steps() {
        packer.step(&step, |packed| output.batch(&packed))?;
    }
    packer.flush()?.map_or(Ok(()), |packed| output.batch(&packed))
}

/// Adds a batch and sees to it that it gets onto the disk in time.
fn write_and_sync(
    output: &mut RecordingFile<File>,
    packed: &PackedBatch,
    synced: &mut Instant,
) -> Result<(), WriteError> {
    output.batch(packed)?;
    output.flush()?;
    if synced.elapsed() >= SYNC_EVERY {
        output.sync()?;
        // Not before: a slow disk is not asked again at once.
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

    /// What it waits for happens once; hours may have passed.
    #[test]
    fn a_flight_recorder_writes_beside_what_somebody_has_put_in_its_place() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.arrow");
        let header = RecordingHeader::default();
        let window = FlightWindow { before: Duration::from_secs(60), after: Duration::ZERO };
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
