//! Where packed batches go: into one file, into one file after the other, or into memory until a trigger.
//!
//! A file that starts in the middle of a trace begins with the names and limits known by then, and with lists of what is open then and
//! who opened it, so that each file can be understood alone.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::outcome::RecordingOutcome;
use crate::cli::{FlightWindow, RotationBounds};
use tracer_core::recording::header::RecordedTrigger;
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

/// What a flight recorder holds is written in pieces of this size, each synced, so that between two of them the recorder takes what has
/// come meanwhile: the queue to it is full after half a second.
const PIECE: u64 = 2 << 20;
/// A flight recorder holds this many lists of what is open in the time before its trigger: its files begin with one.
const LISTS_HELD: u32 = 4;
/// Lists are not made more often than this, whatever `--before` is.
const LEAST_BETWEEN_LISTS: Duration = Duration::from_secs(2);

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
    finished: Vec<(PathBuf, Written)>,
    /// A flight recorder had to drop batches that were inside its window.
    cut_short: bool,
    /// Files that were removed because the disk was full.
    made_room: u32,
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
    /// Bytes of the present file behind its first lists of what was open.
    introduced: Option<u64>,
}

/// A batch in the memory of a flight recorder.
struct HeldBatch {
    packed: PackedBatch,
    facts: Vec<TrackerStep>,
    /// It begins with lists of what is open.
    opens: bool,
}

#[expect(clippy::struct_excessive_bools, reason = "each says one independent thing")]
struct Flight {
    window: FlightWindow,
    /// The trigger may replace what is at the path.
    force: bool,
    /// After its window it waits for the next trigger.
    rearm: bool,
    /// Oldest first. After a trigger, what is not in the file yet.
    held: VecDeque<HeldBatch>,
    /// Bytes of `held`.
    bytes: u64,
    /// The next batch begins with lists of what is open.
    opens: bool,
    /// When such lists were last held.
    listed: Option<Instant>,
    /// After the trigger: the file, its path, and the time in nanoseconds since 1970 at which the window ends.
    output: Option<(RecordingFile<File>, PathBuf, i64)>,
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
        Ok(Self::new(path, header, SinkState::One(output)))
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
    ) -> Result<Self, WriteError> {
        let mut packer = Packer::new(header)?;
        let output = RecordingFile::begin(file, packer.schema_message(header)?, &mut packer)?;
        let rotation = Rotation { bounds, number: 1, output, files: VecDeque::new(), introduced: Some(0) };
        Ok(Self::new(path, header, SinkState::Rotation(rotation)))
    }

    /// Holds batches in memory until [`Self::trigger`] writes them to `path`; `force` allows the trigger to replace what is there. With
    /// `rearm` it goes on to hold batches after that, and the next trigger writes another file.
    pub fn flight(path: &Path, header: &RecordingHeader, window: FlightWindow, force: bool, rearm: bool) -> Self {
        let flight = Flight {
            window,
            force,
            rearm,
            held: VecDeque::new(),
            bytes: 0,
            opens: false,
            listed: None,
            output: None,
            complete: false,
        };
        Self::new(path, header, SinkState::Flight(flight))
    }

    fn new(path: &Path, header: &RecordingHeader, state: SinkState) -> Self {
        Self {
            path: path.into(),
            header: header.clone(),
            state,
            known: Facts::default(),
            finished: Vec::new(),
            cut_short: false,
            made_room: 0,
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

    /// A flight recorder has written its whole window, and does not wait for another trigger.
    pub fn is_complete(&self) -> bool {
        matches!(&self.state, SinkState::Flight(flight) if flight.complete && !flight.rearm)
    }

    /// Windows that a flight recorder has written.
    pub fn windows(&self) -> u32 {
        u32::try_from(self.finished.len()).unwrap_or(u32::MAX)
    }

    /// The end of what a flight recorder writes, in `CLOCK_MONOTONIC` nanoseconds; `None` if it is not triggered, and of any other.
    pub fn window_end(&self) -> Option<u64> {
        let SinkState::Flight(Flight { output: Some((_, _, until)), .. }) = &self.state else { return None };
        Some(until.wrapping_sub(self.header.offset()).cast_unsigned())
    }

    /// Lists of what is open are wanted, for [`Self::open`].
    pub fn wants_lists(&self) -> bool {
        match &self.state {
            SinkState::Rotation(rotation) => rotation.is_due(),
            SinkState::Flight(flight) => {
                let every = (flight.window.before / LISTS_HELD).max(LEAST_BETWEEN_LISTS);
                flight.output.is_none() && flight.listed.is_none_or(|listed| listed.elapsed() >= every)
            }
            SinkState::One(_) | SinkState::Closed => false,
        }
    }

    /// Bytes of all files so far; before the trigger of a flight recorder, bytes in memory.
    pub fn bytes(&self) -> u64 {
        match &self.state {
            SinkState::One(output) => output.written().bytes,
            SinkState::Rotation(rotation) => {
                rotation.output.written().bytes + rotation.files.iter().map(|(_, written)| written.bytes).sum::<u64>()
            }
            SinkState::Flight(flight) => {
                flight.output.as_ref().map_or(flight.bytes, |(output, ..)| output.written().bytes)
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
                loop {
                    match write_and_sync(&mut rotation.output, &packed, &mut self.synced) {
                        Err(error) if is_full(&error) && rotation.make_room()? => self.made_room += 1,
                        result => break result?,
                    }
                }
                rotation.introduced.get_or_insert(rotation.output.written().bytes);
                Ok(())
            }
            SinkState::Flight(flight) => {
                let opens = std::mem::take(&mut flight.opens);
                let horizon = packed.stats.last.saturating_sub(nanos(flight.window.before));
                flight.bytes += packed.bytes();
                flight.held.push_back(HeldBatch { packed, facts, opens });
                if flight.output.is_none() {
                    self.cut_short |= flight.forget(horizon, &mut self.known);
                    return Ok(());
                }
                // What is held is written in its order.
                if flight.held.len() == 1 { self.write_held() } else { Ok(()) }
            }
            SinkState::Closed => Ok(()),
        }
    }

    /// Removes files beyond the bounds, and ends the file of a flight recorder that has its whole window. The packer must be empty.
    ///
    /// A flight recorder that has met more addresses than one file can hold drops its batches and begins again.
    ///
    /// # Errors
    /// [`WriteError`]: a file could not be ended or removed.
    pub fn tidy(&mut self, packer: &mut Packer) -> Result<(), WriteError> {
        match &mut self.state {
            // The present file has grown and counts too.
            SinkState::Rotation(rotation) => rotation.retain(rotation.output.written().last),
            SinkState::Flight(flight) if packer.is_full_of_addresses() && flight.output.is_none() => {
                // Later batches could not be in one file with those that are held.
                for fact in flight.held.drain(..).flat_map(|held| held.facts) {
                    self.known.take(fact);
                }
                (flight.bytes, flight.listed, self.cut_short) = (0, None, true);
                *packer = Packer::new(&self.header)?;
                Ok(())
            }
            SinkState::Flight(flight) if flight.complete && flight.rearm => {
                if let Some((output, path, _)) = flight.output.take() {
                    self.finished.push((path, output.finish(packer)?.0));
                    *packer = Packer::new(&self.header)?;
                }
                (flight.complete, flight.listed) = (false, None);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Lists of what is open at `now` are what comes next. A rotation whose file is large or old enough ends it and begins the next one
    /// with a fresh packer. The packer must be empty: a list of sockets that is divided between two files can be read from neither.
    ///
    /// # Errors
    /// [`WriteError`]: a file could not be created, written, ended or removed.
    pub fn open(&mut self, packer: &mut Packer) -> Result<(), WriteError> {
        match &mut self.state {
            SinkState::Rotation(rotation) if rotation.is_due() => self.next_part(packer),
            SinkState::Flight(flight) => {
                flight.opens = true;
                flight.listed = Some(Instant::now());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn next_part(&mut self, packer: &mut Packer) -> Result<(), WriteError> {
        let SinkState::Rotation(rotation) = &mut self.state else { return Ok(()) };
        let written = rotation.output.written();
        let begin = written.last.wrapping_sub(self.header.offset());
        let header = RecordingHeader { continued: true, begin_ns: begin.cast_unsigned(), ..self.header.clone() };
        let (number, mut fresh, mut next) = loop {
            let (number, file) = first_free(rotation.number + 1, |number| part_path(&self.path, number))?;
            let mut fresh = Packer::new(&self.header)?;
            let schema_message = fresh.schema_message(&header)?;
            let begun = RecordingFile::begin(file, schema_message, &mut fresh).and_then(|mut next| {
                write_known_facts(&self.known, &mut next, &mut fresh)?;
                Ok(next)
            });
            match begun {
                Ok(next) => break (number, fresh, next),
                Err(error) => {
                    // It is ours, and not whole.
                    let _ = fs::remove_file(part_path(&self.path, number));
                    if !is_full(&error) {
                        return Err(error);
                    }
                    if !rotation.make_room()? {
                        // The present part goes on as long as it can.
                        return Ok(());
                    }
                    self.made_room += 1;
                }
            }
        };
        std::mem::swap(&mut rotation.output, &mut next);
        std::mem::swap(packer, &mut fresh);
        rotation.files.push_back((part_path(&self.path, rotation.number), next.finish(&mut fresh)?.0));
        (rotation.number, rotation.introduced) = (number, None);
        rotation.retain(written.last)
    }

    /// Writes a piece of what a triggered flight recorder holds.
    ///
    /// # Errors
    /// [`WriteError`]: the file could not be written.
    pub fn write_held(&mut self) -> Result<(), WriteError> {
        let SinkState::Flight(flight) = &mut self.state else { return Ok(()) };
        let Some((output, _, until)) = &mut flight.output else { return Ok(()) };
        let begin = output.written().bytes;
        while let Some(HeldBatch { packed, facts, .. }) = flight.held.pop_front() {
            flight.bytes -= packed.bytes();
            output.batch(&packed)?;
            for fact in facts {
                self.known.take(fact);
            }
            flight.complete |= packed.stats.last >= *until;
            if output.written().bytes - begin >= PIECE {
                break;
            }
        }
        output.flush()?;
        if !flight.held.is_empty() || self.synced.elapsed() >= SYNC_EVERY {
            output.sync()?;
            self.synced = Instant::now();
        }
        Ok(())
    }

    /// A triggered flight recorder still holds something.
    pub fn holds_more(&self) -> bool {
        matches!(&self.state, SinkState::Flight(flight) if flight.output.is_some() && !flight.held.is_empty())
    }

    /// Begins a file of what a flight recorder holds and of what comes until the end of its window. [`Self::write_held`] writes it.
    ///
    /// # Errors
    /// [`WriteError`]: the file could not be created or written.
    pub fn trigger(&mut self, trigger: RecordedTrigger, packer: &mut Packer) -> Result<(), WriteError> {
        let SinkState::Flight(flight) = &mut self.state else { return Ok(()) };
        if flight.output.is_some() {
            return Ok(());
        }
        let (path, file) = if flight.force && self.finished.is_empty() {
            (self.path.clone(), create(&self.path, true)?)
        } else {
            // Hours may have passed since the path was tried. What others have put there since is not replaced.
            let name = |number| if number == 0 { self.path.clone() } else { part_path(&self.path, number) };
            let (number, file) = first_free(0, name)?;
            (name(number), file)
        };
        let first = flight.held.front().map(|held| held.packed.stats.first);
        let begin =
            first.map_or(self.header.begin_ns, |first| first.wrapping_sub(self.header.offset()).cast_unsigned());
        let until =
            self.header.offset().wrapping_add_unsigned(trigger.ktime_ns).saturating_add(nanos(flight.window.after));
        // The recording begins with its first event: the names before it are older and would stretch the window.
        let header = RecordingHeader {
            continued: begin > self.header.begin_ns,
            begin_ns: begin,
            trigger: Some(trigger),
            ..self.header.clone()
        };
        let mut output = RecordingFile::begin(file, packer.schema_message(&header)?, packer)?;
        write_known_facts(&self.known, &mut output, packer)?;
        flight.output = Some((output, path, until));
        self.write_held()
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
                if let Some((mut output, path, _)) = flight.output {
                    let mut written = Ok(());
                    for held in &flight.held {
                        written = written.and_then(|()| output.batch(&held.packed));
                    }
                    self.finished.push((path, output.finish(packer)?.0));
                    written?;
                }
            }
            SinkState::Closed => {}
        }
        Ok(RecordingOutcome {
            files: std::mem::take(&mut self.finished),
            trouble: None,
            cut_short: self.cut_short,
            made_room: self.made_room,
        })
    }
}

impl Flight {
    /// Forgets what is before `horizon`, but for the last lists of what was open before it, and what is too much. True if that was
    /// behind `horizon`.
    fn forget(&mut self, horizon: i64, known: &mut Facts) -> bool {
        let mut cut_short = false;
        // The file may begin with these lists instead.
        let begins = self.held.iter().rposition(|held| held.opens && held.packed.stats.last < horizon).unwrap_or(0);
        let listless = !self.held.iter().any(|held| held.opens);
        let mut passed = 0;
        while let Some(HeldBatch { packed, .. }) = self.held.front()
            && (passed < begins || listless && packed.stats.last < horizon || self.bytes > FLIGHT_BYTES)
        {
            cut_short |= packed.stats.last >= horizon;
            self.bytes -= packed.bytes();
            passed += 1;
            for fact in self.held.pop_front().into_iter().flat_map(|held| held.facts) {
                known.take(fact);
            }
        }
        cut_short
    }
}

impl Rotation {
    /// The present file is large or old enough.
    fn is_due(&self) -> bool {
        let written = self.output.written();
        // What every part begins with is no reason to begin the next one.
        let Some(introduced) = self.introduced else { return false };
        let large = self.bounds.size.is_some_and(|size| written.bytes.saturating_sub(introduced) >= size / PARTS);
        let long = written.last.saturating_sub(written.first);
        large || self.bounds.age.is_some_and(|age| long >= nanos(age) / nanos_parts())
    }

    /// Removes the oldest file, because the disk is full. False if there is none but the present one.
    fn make_room(&mut self) -> io::Result<bool> {
        let Some((oldest, _)) = self.files.pop_front() else { return Ok(false) };
        match fs::remove_file(oldest) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(true),
        }
    }

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

fn is_full(error: &WriteError) -> bool {
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
    matches!(error, WriteError::Io(error) if full.contains(&error.kind()))
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

fn nanos_parts() -> i64 {
    i64::try_from(PARTS).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_core::event::{Baseline, Event, Ktime, Netns};
    use tracer_core::replay::Replay;

    /// Between the start and the trigger hours may pass, and the trigger comes once.
    #[test]
    fn a_flight_recorder_writes_beside_what_somebody_has_put_in_its_place() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.arrow");
        let header = RecordingHeader::default();
        let window = FlightWindow { before: Duration::from_mins(1), after: Duration::ZERO };
        let written = |force| {
            let mut packer = Packer::new(&header).expect("a header");
            let mut sink = RecordingSink::flight(&path, &header, window, force, false);
            sink.trigger(RecordedTrigger::default(), &mut packer).expect("room");
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

    fn tick(second: u64) -> TrackerStep {
        TrackerStep::Advance(Ktime(second * 1_000_000_000))
    }

    fn list(second: u64) -> Event {
        let ktime = Ktime(second * 1_000_000_000);
        Event::Baseline(Baseline {
            netns: Netns::of_inode(1),
            began: ktime,
            ended: ktime,
            initial: true,
            rows: [].into(),
        })
    }

    fn put(sink: &mut RecordingSink, packer: &mut Packer, step: &TrackerStep) {
        packer.step(step, |_| Ok(())).expect("room");
        let packed = packer.flush().expect("room").expect("a batch");
        sink.put(packed, Vec::new()).expect("room");
        sink.tidy(packer).expect("room");
    }

    fn steps(path: &Path) -> Vec<TrackerStep> {
        let mut replay = Replay::open(path).expect("a recording");
        let mut steps = Vec::new();
        replay.for_each(|step| steps.push(step.clone())).expect("readable");
        assert_eq!(replay.damage(), None);
        steps
    }

    /// Nothing is missing around the trigger, in each of the files, and each begins with a list of what was open.
    #[test]
    fn a_flight_recorder_waits_for_the_next_incident_and_loses_nothing_around_each() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.arrow");
        let header = RecordingHeader::default();
        let window = FlightWindow { before: Duration::from_secs(10), after: Duration::from_secs(5) };
        let mut packer = Packer::new(&header).expect("a header");
        let mut sink = RecordingSink::flight(&path, &header, window, false, true);
        for second in 0..200 {
            if second % 3 == 0 {
                sink.open(&mut packer).expect("room");
                put(&mut sink, &mut packer, &TrackerStep::Event(list(second)));
            }
            put(&mut sink, &mut packer, &tick(second));
            if second == 50 || second == 52 || second == 120 {
                let trigger = RecordedTrigger { what: "exhaustion".into(), ktime_ns: second * 1_000_000_000 };
                sink.trigger(trigger, &mut packer).expect("room");
            }
        }
        assert_eq!(sink.windows(), 2);
        let files: Vec<_> = sink.finish(&mut packer).expect("room").files.into_iter().map(|(path, _)| path).collect();
        assert_eq!(files, [path.clone(), part_path(&path, 1)]);
        for (file, incident) in files.iter().zip([50, 120]) {
            let steps = steps(file);
            assert!(matches!(steps.first(), Some(TrackerStep::Event(Event::Baseline(_)))), "{:?}", steps.first());
            let ticks: Vec<_> = steps.iter().filter(|step| matches!(step, TrackerStep::Advance(_))).cloned().collect();
            let first = ticks.first().and_then(TrackerStep::ktime).expect("a tick").0 / 1_000_000_000;
            assert!((incident - 13..=incident - 10).contains(&first), "{first} of {incident}");
            assert_eq!(ticks, (first..=incident + 5).map(tick).collect::<Vec<_>>());
            let header = Replay::open(file).expect("a recording").header().clone();
            let trigger = header.trigger.expect("it was triggered");
            assert_eq!((trigger.what.as_str(), trigger.ktime_ns), ("exhaustion", incident * 1_000_000_000));
        }
    }

    #[test]
    fn a_part_begins_with_the_lists_that_ended_the_one_before() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.arrow");
        let header = RecordingHeader::default();
        let bounds = RotationBounds { size: None, age: Some(Duration::from_secs(40)) };
        let file = create(&part_path(&path, 1), true).expect("a file");
        let mut packer = Packer::new(&header).expect("a header");
        let mut sink = RecordingSink::rotation(&path, file, &header, bounds).expect("room");
        for second in 0..30 {
            put(&mut sink, &mut packer, &tick(second));
            if sink.wants_lists() {
                sink.open(&mut packer).expect("room");
                put(&mut sink, &mut packer, &TrackerStep::Event(list(second)));
            }
        }
        let files = sink.finish(&mut packer).expect("room").files;
        assert_eq!(files.len(), 3);
        for (number, (file, _)) in files.iter().enumerate().skip(1) {
            let begins = steps(file);
            assert!(matches!(begins.first(), Some(TrackerStep::Event(Event::Baseline(_)))), "{number}: {begins:?}");
        }
        let ticks =
            files.iter().flat_map(|(file, _)| steps(file)).filter(|step| matches!(step, TrackerStep::Advance(_)));
        assert_eq!(ticks.collect::<Vec<_>>(), (0..30).map(tick).collect::<Vec<_>>(), "none twice, none missing");
    }
}
