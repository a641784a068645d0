//! A recording as a source of steps, with positions in time.
//!
//! Reading from the beginning to the end is exact. [`Replay::seek`] is not: of everything before the target it reads
//! only names and limits, then continues from the nearest list of sockets. So the tracker knows which sockets were
//! open, but not what had happened to them. The return value says where reading began.
//!
//! Not for: waiting. [`Pacer`] tells when a step is due, and the caller waits.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use thiserror::Error;

use crate::clock::Clock;
use crate::damage::Damage;
use crate::event::{Event, Ktime, Netns};
use crate::recording::{BatchIndex, ReadError, Reader, RecordingHeader, UnusedRows};
use crate::step::TrackerStep;

/// Bytes of the buffer between the file and the reader, which reads frames in pieces.
const BUFFER: usize = 1 << 18;
/// Facts that [`Facts`] keeps. The tracker keeps no more names of processes either.
const MAX_FACTS: usize = 1 << 16;

/// Why a recording cannot be replayed.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// The file could not be opened.
    #[error("{}", named(path))]
    Open {
        /// The path that was given, `-` for stdin.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The path is a directory.
    #[error("{} is a directory; a recording is a file", path.display())]
    Directory {
        /// The path that was given, `-` for stdin.
        path: PathBuf,
    },
    /// The file is no recording that this version reads, or reading it failed.
    #[error("{}", named(path))]
    Read {
        /// The path that was given, `-` for stdin.
        path: PathBuf,
        /// What is wrong with it.
        source: ReadError,
    },
    /// The input is a pipe, which can only be read from its beginning to its end.
    #[error("{} cannot be searched (a pipe has only one direction): replay it from its beginning, or save it to a file", path.display())]
    NoSeek {
        /// The path that was given, `-` for stdin.
        path: PathBuf,
    },
}

/// The name of the input in messages.
fn named(path: &Path) -> String {
    if path == Path::new("-") { "stdin".into() } else { path.display().to_string() }
}

/// First and last time in a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The beginning of observation, or the first row if that is earlier.
    pub first: Ktime,
    /// The latest row.
    pub last: Ktime,
}

enum ReplayInput {
    File(Box<Reader<BufReader<File>>>),
    Pipe(Box<Reader<BufReader<Box<dyn Read + Send>>>>),
}

/// A position between two batches of a file, of [`Replay::mark`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    position: u64,
    /// Rows up to here that are in no step.
    unused: UnusedRows,
}

/// An open recording.
pub struct Replay {
    path: PathBuf,
    input: ReplayInput,
    /// Of a file: where its batches are, once that was needed.
    index: Option<BatchIndex>,
    /// Facts from before the target of a seek, which come before the next step of the file.
    ahead: VecDeque<TrackerStep>,
}

impl Replay {
    /// Opens a file, a named pipe, or stdin if `path` is `-`.
    ///
    /// # Errors
    /// [`ReplayError::Open`] if it cannot be opened, [`ReplayError::Directory`] if it is one, [`ReplayError::Read`] if
    /// it is no recording that this version reads.
    pub fn open(path: &Path) -> Result<Self, ReplayError> {
        let path_buf = || path.to_path_buf();
        let read = |source| ReplayError::Read { path: path_buf(), source };
        let pipe = |input: Box<dyn Read + Send>| {
            Reader::open(BufReader::with_capacity(BUFFER, input)).map(|reader| ReplayInput::Pipe(Box::new(reader)))
        };
        let input = if path == Path::new("-") {
            pipe(Box::new(io::stdin())).map_err(read)?
        } else {
            let open = |source| ReplayError::Open { path: path_buf(), source };
            let kind = fs::metadata(path).map_err(open)?;
            if kind.is_dir() {
                return Err(ReplayError::Directory { path: path_buf() });
            }
            let file = File::open(path).map_err(open)?;
            if kind.is_file() {
                let reader = Reader::open_file(BufReader::with_capacity(BUFFER, file)).map_err(read)?;
                ReplayInput::File(Box::new(reader))
            } else {
                pipe(Box::new(file)).map_err(read)?
            }
        };
        Ok(Self { path: path_buf(), input, index: None, ahead: VecDeque::new() })
    }

    /// The header of the recording.
    pub fn header(&self) -> &RecordingHeader {
        match &self.input {
            ReplayInput::File(reader) => reader.header(),
            ReplayInput::Pipe(reader) => reader.header(),
        }
    }

    /// The clock of the recording.
    pub fn clock(&self) -> Clock {
        self.header().clock()
    }

    /// It is a file, not a pipe: it has positions.
    pub fn is_file(&self) -> bool {
        matches!(self.input, ReplayInput::File(_))
    }

    /// When observation began.
    pub fn begin(&self) -> Ktime {
        Ktime(self.header().begin_ns)
    }

    /// What could not be read; complete once [`Self::next_step`] has returned `None`.
    pub fn damage(&self) -> Option<Damage> {
        match &self.input {
            ReplayInput::File(reader) => reader.damage(),
            ReplayInput::Pipe(reader) => reader.damage(),
        }
    }

    /// Rows so far that made no sense to this version and were left out.
    pub fn bad_rows(&self) -> u64 {
        match &self.input {
            ReplayInput::File(reader) => reader.unused_rows().bad,
            ReplayInput::Pipe(reader) => reader.unused_rows().bad,
        }
    }

    /// The next thing that the tracker was fed; `None` at the end. What could not be read is passed over.
    ///
    /// # Errors
    /// [`ReplayError::Read`] if the input fails.
    pub fn next_step(&mut self) -> Result<Option<TrackerStep>, ReplayError> {
        if let Some(step) = self.ahead.pop_front() {
            return Ok(Some(step));
        }
        let step = match &mut self.input {
            ReplayInput::File(reader) => reader.next_step(),
            ReplayInput::Pipe(reader) => reader.next_step(),
        };
        step.map_err(|source| ReplayError::Read { path: self.path.clone(), source: source.into() })
    }

    /// Calls `each` with every step that [`Self::next_step`] would return from here on. It is faster, because no step
    /// is moved.
    ///
    /// # Errors
    /// [`ReplayError::Read`] if the input fails.
    pub fn for_each(&mut self, mut each: impl FnMut(&TrackerStep)) -> Result<(), ReplayError> {
        self.ahead.drain(..).for_each(|step| each(&step));
        let end = match &mut self.input {
            ReplayInput::File(reader) => reader.for_each(each),
            ReplayInput::Pipe(reader) => reader.for_each(each),
        };
        end.map_err(|source| ReplayError::Read { path: self.path.clone(), source: source.into() })
    }

    /// First and last time; `None` of a pipe, which has to be read for that, and of a recording without rows.
    ///
    /// # Errors
    /// [`ReplayError::Open`] or [`ReplayError::Read`] if the file can no longer be read, or has been replaced since it
    /// was opened.
    pub fn span(&mut self) -> Result<Option<Span>, ReplayError> {
        if matches!(self.input, ReplayInput::Pipe(_)) {
            return Ok(None);
        }
        let begin = self.begin();
        let last = self.index()?.batches.iter().map(|position| position.last).max();
        Ok(last.map(|last| Span { first: begin.min(last), last }))
    }

    /// Goes to `to`, for a new tracker: the next steps are the names and limits known until then, followed by
    /// everything from the nearest list of sockets that begins before `to`. Returns the time of that list, or the
    /// beginning of observation.
    ///
    /// # Errors
    /// [`ReplayError::NoSeek`] of a pipe; [`ReplayError::Open`] or [`ReplayError::Read`] if the file can no longer be
    /// read, or has been replaced since it was opened.
    pub fn seek(&mut self, to: Ktime) -> Result<Ktime, ReplayError> {
        let begin = self.begin();
        let path = self.path.clone();
        let read = |source: io::Error| ReplayError::Read { path: path.clone(), source: source.into() };
        self.index()?;
        let index = self.index.as_ref().ok_or(ReplayError::NoSeek { path: path.clone() })?;
        let positions = &index.batches;
        let ReplayInput::File(reader) = &mut self.input else { return Err(ReplayError::NoSeek { path }) };
        self.ahead.clear();
        // The times of neighbouring batches overlap a little, because events of two CPUs are out of order.
        let target = positions.partition_point(|position| position.last < to);
        let start =
            (0..=target).rev().find(|&at| positions.get(at).is_some_and(|position| position.baseline)).unwrap_or(0);
        let mut facts = Facts::default();
        for position in positions.iter().take(start).filter(|position| position.facts) {
            for step in reader.steps_of(index, position).map_err(read)? {
                facts.take(step);
            }
        }
        self.ahead = facts.steps();
        if let Some(position) = positions.get(start) {
            reader.go_to(index, position).map_err(read)?;
        }
        Ok(if start == 0 { begin } else { positions.get(start).map_or(begin, |position| position.first) })
    }

    /// The present position, if reading can come back to it: in a file, between two batches.
    pub fn mark(&self) -> Option<Mark> {
        match &self.input {
            ReplayInput::File(reader) if self.ahead.is_empty() && reader.is_between_batches() => {
                Some(Mark { position: reader.position(), unused: reader.unused_rows() })
            }
            ReplayInput::File(_) | ReplayInput::Pipe(_) => None,
        }
    }

    /// Goes back to `mark`: the next step is the one that was next when the mark was taken.
    ///
    /// # Errors
    /// [`ReplayError::NoSeek`] of a pipe, [`ReplayError::Read`] if the file cannot be read.
    pub fn return_to(&mut self, mark: Mark) -> Result<(), ReplayError> {
        let read = |source: io::Error| ReplayError::Read { path: self.path.clone(), source: source.into() };
        let ReplayInput::File(reader) = &mut self.input else {
            return Err(ReplayError::NoSeek { path: self.path.clone() });
        };
        self.ahead.clear();
        reader.return_to(mark.position, mark.unused).map_err(read)
    }

    /// Where the batches are, read from the file the first time.
    fn index(&mut self) -> Result<&BatchIndex, ReplayError> {
        if matches!(self.input, ReplayInput::Pipe(_)) {
            return Err(ReplayError::NoSeek { path: self.path.clone() });
        }
        if self.index.is_none() {
            let read = |source: ReadError| ReplayError::Read { path: self.path.clone(), source };
            let open = |source| ReplayError::Open { path: self.path.clone(), source };
            // Without a buffer: of each batch only prefix and trailer are read, 56 bytes.
            let mut reader = Reader::open(File::open(&self.path).map_err(open)?).map_err(read)?;
            if reader.header() != self.header() {
                return Err(open(io::Error::other("the file has been replaced by another since it was opened")));
            }
            self.index = Some(reader.batch_index().map_err(|error| read(error.into()))?);
        }
        self.index.as_ref().ok_or_else(|| ReplayError::NoSeek { path: self.path.clone() })
    }
}

/// Collects the facts that stay true after the events around them: names of processes, limits of namespaces, totals of
/// loss.
#[derive(Debug, Default)]
pub struct Facts {
    /// The latest step of each subject, with the number of facts taken before it.
    known: FxHashMap<FactSubject, (u64, TrackerStep)>,
    /// Facts taken so far.
    taken: u64,
}

/// What a fact is about. A younger fact about the same replaces the older one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum FactSubject {
    Process(u32),
    /// A namespace has two sources that each know a part; the flag is true of the one that knows its cookie.
    Netns(Netns, bool),
    ReservedPorts(Netns),
    Loss,
}

impl FactSubject {
    fn of(step: &TrackerStep) -> Option<Self> {
        let TrackerStep::Event(event) = step else { return None };
        Some(match event {
            Event::Process(facts) => Self::Process(facts.pid),
            Event::Netns(facts) => Self::Netns(facts.netns, facts.cookie.is_some()),
            Event::ReservedPorts(_, netns, _) => Self::ReservedPorts(*netns),
            Event::Loss(_) => Self::Loss,
            _ => return None,
        })
    }
}

impl Facts {
    /// Whether `step` is such a fact.
    pub fn is_one(step: &TrackerStep) -> bool {
        FactSubject::of(step).is_some()
    }

    /// Keeps `step` if it is such a fact. It replaces an older one about the same.
    pub fn take(&mut self, step: TrackerStep) {
        let Some(subject) = FactSubject::of(&step) else { return };
        self.taken += 1;
        self.known.insert(subject, (self.taken, step));
        if self.known.len() > MAX_FACTS {
            // The older half of the processes is dropped.
            let young = self.taken - MAX_FACTS as u64 / 2;
            self.known.retain(|subject, (taken, _)| *taken > young || !matches!(subject, FactSubject::Process(_)));
        }
    }

    /// The facts in the order in which they were taken.
    pub fn steps(&self) -> VecDeque<TrackerStep> {
        let mut known: Vec<_> = self.known.values().collect();
        known.sort_unstable_by_key(|(taken, _)| *taken);
        known.into_iter().map(|(_, step)| step.clone()).collect()
    }
}

/// How fast to replay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// Seconds of the recording per second.
    Times(f64),
    /// As fast as possible.
    Max,
}

impl Speed {
    /// The speeds that the keys for slower and faster go through.
    const STEPS: [f64; 8] = [0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0, 600.0];

    /// The next speed, faster or slower; the slowest has no slower one.
    #[must_use]
    pub fn next(self, faster: bool) -> Self {
        let times = match self {
            Self::Times(times) => times,
            Self::Max => f64::INFINITY,
        };
        let mut steps = Self::STEPS.into_iter();
        if faster {
            steps.find(|step| *step > times).map_or(Self::Max, Self::Times)
        } else {
            steps.rfind(|step| *step < times).map_or(self, Self::Times)
        }
    }
}

impl std::fmt::Display for Speed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Times(times) => write!(f, "{times}x"),
            Self::Max => f.write_str("max"),
        }
    }
}

/// A text that is no speed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected a factor such as 1, 10 or 0.5, or max")]
pub struct InvalidSpeed;

impl std::str::FromStr for Speed {
    type Err = InvalidSpeed;

    /// `max`, or a factor from 0.001 to 1,000,000 with or without an `x` behind it.
    fn from_str(text: &str) -> Result<Self, InvalidSpeed> {
        if text == "max" {
            return Ok(Self::Max);
        }
        let times = text.strip_suffix('x').unwrap_or(text).parse::<f64>().ok();
        times.filter(|times| (0.001..=1_000_000.0).contains(times)).map(Self::Times).ok_or(InvalidSpeed)
    }
}

/// Tells when a step is due.
#[derive(Clone, Copy, Debug)]
pub struct Pacer {
    speed: Speed,
    origin: Option<(Ktime, Instant)>,
}

impl Pacer {
    /// Replays at this speed.
    pub fn new(speed: Speed) -> Self {
        Self { speed, origin: None }
    }

    /// Makes `at` due at `now`: at the beginning, at the end of a pause, or when the speed changes.
    pub fn start(&mut self, at: Ktime, now: Instant) {
        self.origin = Some((at, now));
    }

    /// The instant at which `at` is due. The first call makes its `at` due at once.
    pub fn due(&mut self, at: Ktime, now: Instant) -> Instant {
        let Speed::Times(times) = self.speed else { return now };
        let (from, began) = *self.origin.get_or_insert((at, now));
        Duration::try_from_secs_f64(at.seconds_since(from) / times).map_or(now, |wait| began + wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Addr, Baseline, Endpoint, FlowKey, NetnsFacts, SocketCookie, SocketEvent, SocketId};
    use crate::recording::{Writer, create};

    #[test]
    fn speeds_scale_the_wait_and_max_never_waits() {
        let now = Instant::now();
        let mut pacer = Pacer::new("10".parse().expect("a speed"));
        assert_eq!(pacer.due(Ktime(5_000_000_000), now), now);
        assert_eq!(pacer.due(Ktime(15_000_000_000), now), now + Duration::from_secs(1));
        assert_eq!(pacer.due(Ktime(1), now), now, "out of order is not earlier than the beginning");
        assert_eq!(Pacer::new(Speed::Max).due(Ktime(u64::MAX), now), now);
        for wrong in ["0", "-1", "NaN", "inf", "fast", ""] {
            assert!(wrong.parse::<Speed>().is_err(), "{wrong}");
        }
        assert_eq!("2x".parse(), Ok(Speed::Times(2.0)));
    }

    #[test]
    fn the_next_speed_stops_at_either_end() {
        assert_eq!(Speed::Times(0.1).next(false), Speed::Times(0.1));
        assert_eq!(Speed::Max.next(true), Speed::Max);
        assert_eq!(Speed::Times(600.0).next(true).next(false), Speed::Times(600.0));
        // Given on the command line, between two steps.
        assert_eq!(Speed::Times(7.0).next(true), Speed::Times(10.0));
        assert_eq!(Speed::Times(7.0).next(false), Speed::Times(5.0));
    }

    /// Ends of sockets that were each connected to a server of its own, a list of sockets in every other batch.
    fn growing(path: &Path, batches: u32) -> Vec<TrackerStep> {
        let second = |number: u32| Ktime(u64::from(number + 1) * 1_000_000_000);
        let server = |number: u32| Endpoint {
            addr: Addr::from(std::net::IpAddr::from((0x0b00_0000 + number).to_be_bytes())),
            port: 443,
        };
        let client = Endpoint { addr: Addr::from(std::net::IpAddr::from([10, 0, 0, 1])), port: 40_000 };
        let key = |number| FlowKey { netns: Netns::of_inode(1), device: 0, local: client, remote: server(number) };
        let header = RecordingHeader { begin_ns: 1, ..RecordingHeader::default() };
        let mut writer = Writer::new(create(path, true).expect("a file"), &header).expect("a header");
        let mut steps = Vec::new();
        for batch in 0..batches {
            let mut group = Vec::new();
            if batch % 2 == 0 {
                let (began, ended) = (second(batch), second(batch));
                let list = Baseline { netns: Netns::of_inode(1), began, ended, initial: batch == 0, rows: [].into() };
                group.push(TrackerStep::Event(Event::Baseline(list)));
            }
            group.push(TrackerStep::Event(Event::Netns(Box::new(NetnsFacts {
                ktime: second(batch),
                netns: Netns::of_inode(batch),
                ..NetnsFacts::default()
            }))));
            for number in [batch, batch / 2] {
                group.push(TrackerStep::Event(Event::Released(SocketEvent {
                    ktime: second(batch),
                    id: SocketId { cookie: SocketCookie::new(u64::from(batch) + 1), sock: 0 },
                    key: key(number),
                    pid: 7,
                    tid: 7,
                    named: None,
                    listener: None,
                })));
            }
            group.push(TrackerStep::Advance(second(batch)));
            for step in &group {
                writer.step(step).expect("room");
            }
            writer.flush().expect("room");
            steps.extend(group);
        }
        writer.finish().expect("room");
        steps
    }

    /// A seek once said "Value at position 2951 out of bounds" of every file whose addresses do not all stand in its first
    /// batch: the reader that learnt them was not the one that was asked for the rows.
    #[test]
    fn a_seek_knows_the_addresses_that_came_in_between() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("growing.arrow");
        let steps = growing(&path, 12);
        let rest = |replay: &mut Replay| {
            let mut rest = Vec::new();
            replay.for_each(|step| rest.push(step.clone())).expect("readable");
            assert_eq!((replay.damage(), replay.bad_rows()), (None, 0));
            rest
        };
        for to in 1..=12_u64 {
            let mut replay = Replay::open(&path).expect("a recording");
            let from = replay.seek(Ktime(to * 1_000_000_000)).expect("a file");
            let found = rest(&mut replay);
            let events = |steps: &[TrackerStep]| -> Vec<TrackerStep> {
                let facts = steps.iter().filter(|step| !Facts::is_one(step));
                facts.filter(|step| step.ktime() >= Some(from)).cloned().collect()
            };
            assert_eq!(events(&found), events(&steps), "{to}");
            // Every namespace is known, those of the batches passed over too.
            assert_eq!(found.iter().filter(|step| Facts::is_one(step)).count(), 12, "{to}");
        }
        // Forth, back and forth again, with one reader.
        let mut replay = Replay::open(&path).expect("a recording");
        for to in [11_u64, 3, 9, 1, 12] {
            replay.seek(Ktime(to * 1_000_000_000)).expect("a file");
            let found = rest(&mut replay);
            assert_eq!(found.last(), steps.last(), "{to}");
            assert!(found.len() >= 2, "{to}");
        }
    }
}
