//! Several recordings as one: the parts of a rotation in their order, and which file belongs to which boot.
//!
//! A name stands for a file, for the recordings in a directory (`*.arrow`), for those that a pattern matches (`*` in the last part of the
//! path), or for the parts of a rotation (`incident.arrow` for `incident.000001.arrow` and so on). Files of one boot of one host share a
//! clock and become one [`RecordingSeries`]; those of others are kept apart. One file is open at a time.
//!
//! Not for: one file ([`Replay`]), or what its events mean.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::clock::Clock;
use crate::damage::{Damage, DamageKind};
use crate::event::{Event, Ktime, LossCounts};
use crate::filter::Glob;
use crate::recording::RecordingHeader;
use crate::replay::{Mark, Replay, ReplayError, Span};
use crate::step::TrackerStep;

/// Files of one command. Their headers are held, about a kilobyte each.
const MAX_FILES: usize = 16_384;
/// The clock of a recording moves several times a second: this long without a row, nothing was recorded.
const GAP_NANOS: u64 = 2_000_000_000;
/// Neighbouring parts overlap a little, because events of two CPUs are out of order.
const OVERLAP_NANOS: u64 = 1_000_000_000;
/// Gaps kept one by one; of later ones only the sum.
const MAX_GAPS: usize = 64;
/// How the names of recordings end.
const EXTENSION: &str = "arrow";
/// Digits of the number in the name of a rotation's part.
const PART_DIGITS: usize = 6;

/// Why recordings cannot be read together.
#[derive(Debug, Error)]
pub enum SeriesError {
    /// A file cannot be read.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// A directory could not be listed.
    #[error("{}", path.display())]
    List {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// No file matches a name.
    #[error("{}: no recording (*.{EXTENSION}) is there", path.display())]
    Nothing {
        /// The directory or pattern.
        path: PathBuf,
    },
    /// There are too many files.
    #[error("more than {MAX_FILES} files: name those of the time in question")]
    TooMany,
    /// A pipe is one of several inputs.
    #[error("{} cannot be read together with other files, because it has no positions: save it to a file", path.display())]
    Pipe {
        /// The pipe.
        path: PathBuf,
    },
    /// Two files of one boot record the same time.
    #[error(
        "{} and {} record the same time of the same host, which would count twice: name one of them",
        first.display(),
        second.display()
    )]
    Overlap {
        /// The file that begins earlier.
        first: PathBuf,
        /// The other one.
        second: PathBuf,
    },
}

/// Time between two parts of which nothing is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartGap {
    /// The last row before it.
    pub from: Ktime,
    /// The beginning of the next part.
    pub to: Ktime,
}

impl PartGap {
    /// Its length, nanoseconds.
    pub fn nanos(&self) -> u64 {
        self.to.since(self.from)
    }
}

/// One file.
#[derive(Clone, Debug)]
struct Part {
    path: PathBuf,
    header: RecordingHeader,
    /// `None` of a pipe, and of a file without rows.
    span: Option<Span>,
}

impl Part {
    fn begin(&self) -> Ktime {
        self.span.map_or(Ktime(self.header.begin_ns), |span| span.first)
    }

    fn end(&self) -> Ktime {
        self.span.map_or(Ktime(self.header.begin_ns), |span| span.last)
    }
}

/// Recordings of one boot of one host, read one after the other.
pub struct RecordingSeries {
    parts: Vec<Part>,
    /// The part that is read now, and its reader.
    at: usize,
    replay: Replay,
    gaps: Vec<PartGap>,
    gap_nanos: u64,
    /// Of files that are no recordings, and of the parts that were read to their end.
    damage: Option<Damage>,
    bad_rows: u64,
    /// Losses of the recorders whose parts were read before: another recorder counts from zero.
    lost_before: LossCounts,
    lost: LossCounts,
}

/// A position between two batches of a series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeriesMark {
    part: usize,
    mark: Mark,
}

/// The files that `names` stand for, each once, in order of names.
///
/// # Errors
/// [`SeriesError::List`], [`SeriesError::Nothing`], [`SeriesError::TooMany`].
pub fn files(names: &[PathBuf]) -> Result<Vec<PathBuf>, SeriesError> {
    let mut files = Vec::new();
    for name in names {
        let found = files_of(name)?;
        files.extend(found);
        if files.len() > MAX_FILES {
            return Err(SeriesError::TooMany);
        }
    }
    let mut known = std::collections::BTreeSet::new();
    files.retain(|file| known.insert(file.clone()));
    Ok(files)
}

fn files_of(name: &Path) -> Result<Vec<PathBuf>, SeriesError> {
    if name == Path::new("-") {
        return Ok(vec![name.into()]);
    }
    let nothing = || SeriesError::Nothing { path: name.into() };
    if fs::metadata(name).is_ok_and(|found| found.is_dir()) {
        let found = listed(name, |file| Path::new(file).extension().is_some_and(|end| end == EXTENSION))?;
        return if found.is_empty() { Err(nothing()) } else { Ok(found) };
    }
    if fs::metadata(name).is_ok() {
        return Ok(vec![name.into()]);
    }
    let directory = name.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    let (Some(file), Some(stem)) = (name.file_name().and_then(|file| file.to_str()), name.file_stem()) else {
        return Ok(vec![name.into()]);
    };
    if file.contains('*') {
        let pattern = Glob::new(file);
        let found = listed(directory, |file| pattern.matches(file))?;
        return if found.is_empty() { Err(nothing()) } else { Ok(found) };
    }
    // `-o incident.arrow` with a bound has written `incident.000001.arrow` and so on.
    let stem = stem.to_string_lossy();
    let is_part = |file: &str| {
        let file = Path::new(file);
        let number = file.file_stem().and_then(|stem| stem.to_str());
        let number = number.and_then(|number| number.strip_prefix(&*stem)?.strip_prefix('.'));
        file.extension() == name.extension()
            && number.is_some_and(|digits| digits.len() >= PART_DIGITS && digits.bytes().all(|b| b.is_ascii_digit()))
    };
    let parts = if directory.is_dir() { listed(directory, is_part)? } else { Vec::new() };
    // What is not there is told by whoever opens it.
    Ok(if parts.is_empty() { vec![name.into()] } else { parts })
}

/// The files of a directory whose names `keeps` keeps, in order of names.
fn listed(directory: &Path, keeps: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, SeriesError> {
    let list = |source| SeriesError::List { path: directory.into(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(list)? {
        let entry = entry.map_err(list)?;
        if entry.file_name().to_str().is_some_and(&keeps) && entry.path().is_file() {
            found.push(if directory == Path::new(".") { entry.file_name().into() } else { entry.path() });
        }
        if found.len() > MAX_FILES {
            return Err(SeriesError::TooMany);
        }
    }
    found.sort();
    Ok(found)
}

/// Opens everything that `names` stand for: a series for each boot of each host, in order of their beginnings.
///
/// Of several files those that are no recordings are left out, which is damage.
///
/// # Errors
/// [`SeriesError`]: every variant is possible and says what to do.
pub fn open(names: &[PathBuf]) -> Result<Vec<RecordingSeries>, SeriesError> {
    let files = files(names)?;
    if let [only] = &files[..] {
        return Ok(vec![RecordingSeries::one(only)?]);
    }
    if let Some(path) = files.iter().find(|path| **path == Path::new("-")) {
        return Err(SeriesError::Pipe { path: path.clone() });
    }
    let (mut boots, mut refused) = (BTreeMap::<_, Vec<Part>>::new(), Vec::new());
    for path in files {
        let opened = Replay::open(&path).and_then(|mut replay| Ok((replay.span()?, replay.is_file(), replay)));
        match opened {
            Ok((_, false, _)) => return Err(SeriesError::Pipe { path }),
            Ok((span, true, replay)) => {
                let header = replay.header().clone();
                let host = &header.host;
                // Without the id of a boot only the files of one recorder are known to share a clock.
                let anchor = host.boot_id.is_none().then_some(header.anchor.unix_ns);
                let boot = (host.hostname.clone(), host.boot_id.clone(), anchor);
                boots.entry(boot).or_default().push(Part { path, header, span });
            }
            Err(error) => refused.push((path, error)),
        }
    }
    if boots.is_empty()
        && let Some((_, error)) = refused.pop()
    {
        return Err(error.into());
    }
    let mut all: Vec<RecordingSeries> = boots.into_values().map(RecordingSeries::of).collect::<Result<_, _>>()?;
    all.sort_by_key(|series| series.header().clock().to_timestamp(series.begin()));
    // Whose they are is not known; the first series tells.
    if let Some(first) = all.first_mut() {
        for (path, error) in refused {
            let why = format!("{} is left out: {}", path.display(), root(&error));
            let mut missing = Damage::new(DamageKind::Corrupt, why, 0);
            missing.at_least = true;
            missing.bytes = fs::metadata(&path).map_or(0, |file| file.len());
            first.damage = Some(merged(first.damage.take(), missing));
        }
    }
    Ok(all)
}

/// The innermost error: the outer ones only name the file.
fn root(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn merged(damage: Option<Damage>, later: Damage) -> Damage {
    match damage {
        None => later,
        Some(mut damage) => {
            damage.merge(later);
            damage
        }
    }
}

impl RecordingSeries {
    /// A single file, a named pipe, or stdin if `path` is `-`.
    ///
    /// # Errors
    /// [`ReplayError`] of [`Replay::open`] and [`Replay::span`].
    pub fn one(path: &Path) -> Result<Self, ReplayError> {
        let mut replay = Replay::open(path)?;
        let span = replay.span()?;
        let part = Part { path: path.into(), header: replay.header().clone(), span };
        Ok(Self::new(vec![part], replay))
    }

    fn of(mut parts: Vec<Part>) -> Result<Self, SeriesError> {
        parts.sort_by_key(|part| (part.begin(), part.end()));
        for pair in parts.windows(2) {
            let [first, second] = pair else { continue };
            let empty = first.span.is_none() || second.span.is_none();
            if !empty && second.begin().plus(OVERLAP_NANOS) < first.end() {
                return Err(SeriesError::Overlap { first: first.path.clone(), second: second.path.clone() });
            }
            // The same file twice, or a copy of it.
            if !empty && first.span == second.span && first.header == second.header {
                return Err(SeriesError::Overlap { first: first.path.clone(), second: second.path.clone() });
            }
        }
        // The caller has put at least one part in.
        let replay = Replay::open(parts.first().map_or(Path::new("-"), |part| &part.path))?;
        Ok(Self::new(parts, replay))
    }

    fn new(parts: Vec<Part>, replay: Replay) -> Self {
        let (mut gaps, mut gap_nanos) = (Vec::new(), 0_u64);
        for pair in parts.windows(2) {
            let [before, after] = pair else { continue };
            let gap = PartGap { from: before.end(), to: after.begin() };
            if gap.nanos() > GAP_NANOS {
                gap_nanos = gap_nanos.saturating_add(gap.nanos());
                if gaps.len() < MAX_GAPS {
                    gaps.push(gap);
                }
            }
        }
        let (lost_before, lost) = Default::default();
        Self { parts, at: 0, replay, gaps, gap_nanos, damage: None, bad_rows: 0, lost_before, lost }
    }

    /// The header of the first part.
    pub fn header(&self) -> &RecordingHeader {
        self.parts.first().map_or_else(|| self.replay.header(), |part| &part.header)
    }

    /// The clock of the first part.
    pub fn clock(&self) -> Clock {
        self.header().clock()
    }

    /// When observation began.
    pub fn begin(&self) -> Ktime {
        Ktime(self.header().begin_ns)
    }

    /// The names of the files, in the order of their times.
    pub fn paths(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.parts.iter().map(|part| &*part.path)
    }

    /// The name in messages: that of the file, or of the first one and how many more there are.
    pub fn name(&self) -> String {
        let first = self.parts.first().map(|part| part.path.display().to_string()).unwrap_or_default();
        match self.parts.len() {
            0 | 1 => first,
            parts => format!("{first} and {} more", parts - 1),
        }
    }

    /// Times between parts of which nothing is recorded, in their order and bounded, and all of them together in nanoseconds.
    pub fn gaps(&self) -> (&[PartGap], u64) {
        (&self.gaps, self.gap_nanos)
    }

    /// First and last time; `None` of a pipe, and of recordings without rows.
    pub fn span(&self) -> Option<Span> {
        let spans = || self.parts.iter().filter_map(|part| part.span);
        let first = spans().map(|span| span.first).min()?;
        Some(Span { first: first.min(self.begin()), last: spans().map(|span| span.last).max()? })
    }

    /// What could not be read; complete once [`Self::next_step`] has returned `None`.
    pub fn damage(&self) -> Option<Damage> {
        match (self.damage.clone(), self.damage_here()) {
            (damage, Some(here)) => Some(merged(damage, here)),
            (damage, None) => damage,
        }
    }

    fn damage_here(&self) -> Option<Damage> {
        let mut damage = self.replay.damage()?;
        if self.parts.len() > 1 {
            let path = self.parts.get(self.at).map(|part| part.path.display().to_string()).unwrap_or_default();
            damage.why = format!("{path}: {}", damage.why);
        }
        Some(damage)
    }

    /// Rows so far that made no sense to this version and were left out.
    pub fn bad_rows(&self) -> u64 {
        self.bad_rows + self.replay.bad_rows()
    }

    /// Sentences on what could not be read; complete once the end has been reached.
    pub fn warnings(&self) -> Vec<String> {
        let damage = self.damage().map(|damage| match self.parts.len() {
            1 => format!("{}: {damage}", self.name()),
            _ => damage.to_string(),
        });
        let bad_rows = (self.bad_rows() > 0).then(|| {
            format!("{}: {} rows make no sense to this version and were left out", self.name(), self.bad_rows())
        });
        damage.into_iter().chain(bad_rows).collect()
    }

    /// The next thing that the tracker was fed; `None` at the end of the last part.
    ///
    /// # Errors
    /// [`ReplayError`]: a part can no longer be opened, or its bytes could not be read.
    pub fn next_step(&mut self) -> Result<Option<TrackerStep>, ReplayError> {
        loop {
            if let Some(step) = self.replay.next_step()? {
                return Ok(Some(self.with_all_losses(step)));
            }
            if !self.next_part()? {
                return Ok(None);
            }
        }
    }

    /// Goes to the beginning of the next part. False behind the last one.
    fn next_part(&mut self) -> Result<bool, ReplayError> {
        let Some(next) = self.parts.get(self.at + 1) else { return Ok(false) };
        let replay = Replay::open(&next.path)?;
        if next.header.anchor != self.replay.header().anchor {
            // Another recorder: its losses are counted from zero.
            self.lost_before = self.lost;
        }
        self.damage = self.damage();
        self.bad_rows = self.bad_rows();
        self.replay = replay;
        self.at += 1;
        Ok(true)
    }

    fn with_all_losses(&mut self, step: TrackerStep) -> TrackerStep {
        let TrackerStep::Event(Event::Loss(counts)) = step else { return step };
        self.lost = counts.plus(&self.lost_before);
        TrackerStep::Event(Event::Loss(self.lost))
    }

    /// Goes to `to`, for a new tracker, as [`Replay::seek`] does: at a list of sockets, in an earlier part if the one of that time has none
    /// before it. Returns the time of that list, or the beginning of observation.
    ///
    /// # Errors
    /// [`ReplayError`] of [`Replay::seek`].
    pub fn seek(&mut self, to: Ktime) -> Result<Ktime, ReplayError> {
        let behind = self.parts.partition_point(|part| part.begin() < to);
        let mut target = behind.saturating_sub(1);
        loop {
            let Some(part) = self.parts.get(target) else { return self.replay.seek(to) };
            if self.parts.len() > 1 {
                self.replay = Replay::open(&part.path)?;
            }
            (self.at, self.damage, self.bad_rows) = (target, self.damage.take(), 0);
            (self.lost, self.lost_before) = Default::default();
            let from = self.replay.seek(to)?;
            if from > part.begin() || target == 0 {
                return Ok(from);
            }
            target -= 1;
        }
    }

    /// The present position, if reading can come back to it.
    pub fn mark(&self) -> Option<SeriesMark> {
        self.replay.mark().map(|mark| SeriesMark { part: self.at, mark })
    }

    /// Goes back to `mark`.
    ///
    /// # Errors
    /// [`ReplayError`] of [`Replay::return_to`] and [`Replay::open`].
    pub fn return_to(&mut self, mark: SeriesMark) -> Result<(), ReplayError> {
        if mark.part != self.at
            && let Some(part) = self.parts.get(mark.part)
        {
            self.replay = Replay::open(&part.path)?;
            self.at = mark.part;
        }
        self.replay.return_to(mark.mark)
    }

    /// Goes to the beginning.
    ///
    /// # Errors
    /// [`ReplayError`] of [`Replay::open`].
    pub fn restart(&mut self) -> Result<(), ReplayError> {
        let Some(first) = self.parts.first() else { return Ok(()) };
        self.replay = Replay::open(&first.path)?;
        (self.at, self.bad_rows) = (0, 0);
        (self.lost, self.lost_before) = Default::default();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
