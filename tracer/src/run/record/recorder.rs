//! The recorder's thread: decodes the inputs of the tracker a second time, packs them and writes them.
//!
//! Decoding twice is cheaper than handing a million events through a queue, and keeps the work off the tracker's thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::outcome::RecordingOutcome;
use super::sink::RecordingSink;
use super::tee::{RecorderCommand, RecorderProgress, RecorderTee};
use tracer_core::input::TrackerInput;
use tracer_core::recording::writer::{PackedBatch, Packer};
use tracer_core::recording::{RecordingHeader, WriteError};
use tracer_core::step::TrackerStep;

/// Inputs of up to 256 KiB between tracker and recorder: 16 MiB, half a second of the fastest churn measured.
const COMMANDS: usize = 64;
/// A batch is written when it is full or this old. A crash takes away this much.
pub const BATCH_AGE: Duration = Duration::from_secs(2);

/// A recorder on its thread.
pub struct Recorder {
    thread: JoinHandle<Result<RecordingOutcome, WriteError>>,
    pub progress: Arc<RecorderProgress>,
}

impl Recorder {
    /// Starts the thread, and returns the tee that hands inputs to it.
    ///
    /// # Errors
    /// The header could not be encoded ([`WriteError`]), or the thread could not be started.
    pub fn start(header: &RecordingHeader, sink: RecordingSink) -> Result<(Self, RecorderTee)> {
        let packer = Packer::new(header).context("preparing the recording")?;
        let (sender, commands) = mpsc::sync_channel(COMMANDS);
        let progress = Arc::new(RecorderProgress::default());
        let batch_rows = sink.batch_rows();
        let worker =
            Worker { packer, sink, batch_rows, progress: Arc::clone(&progress), facts: Vec::new(), since: None };
        let thread = std::thread::Builder::new()
            .name("recorder".into())
            .spawn(move || worker.run(&commands))
            .context("starting the recorder thread")?;
        let tee = RecorderTee::new(sender, Arc::clone(&progress));
        Ok((Self { thread, progress }, tee))
    }

    /// Everything is written: [`Self::join`] will not wait.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until everything is written. The tee must be closed, or the recorder goes on waiting for inputs.
    ///
    /// # Errors
    /// The recorder could not end its file ([`WriteError`]), or it panicked.
    pub fn join(self) -> Result<RecordingOutcome> {
        let outcome = self.thread.join().map_err(|_| anyhow::anyhow!("the recorder thread panicked"))?;
        outcome.context("ending the recording")
    }
}

struct Worker {
    packer: Packer,
    sink: RecordingSink,
    batch_rows: usize,
    progress: Arc<RecorderProgress>,
    /// Names and limits in the present batch, for a sink that starts files in the middle.
    facts: Vec<TrackerStep>,
    /// When the present batch got its first row.
    since: Option<Instant>,
}

impl Worker {
    fn run(mut self, commands: &Receiver<RecorderCommand>) -> Result<RecordingOutcome, WriteError> {
        let trouble = self.work(commands).err();
        self.progress.ended.store(true, Ordering::Relaxed);
        let mut outcome = self.sink.finish(&mut self.packer)?;
        outcome.trouble = trouble;
        Ok(outcome)
    }

    fn work(&mut self, commands: &Receiver<RecorderCommand>) -> Result<(), WriteError> {
        loop {
            // What comes meanwhile goes first: the queue must not fill up.
            while self.sink.holds_more() {
                match commands.try_recv() {
                    Ok(command) => self.obey(command)?,
                    Err(_) => self.sink.write_held()?,
                }
            }
            if self.sink.is_complete() {
                return Ok(());
            }
            let wait = self.since.map_or(BATCH_AGE, |since| BATCH_AGE.saturating_sub(since.elapsed()));
            match commands.recv_timeout(wait) {
                Ok(command) => self.obey(command)?,
                Err(RecvTimeoutError::Timeout) => self.flush()?,
                Err(RecvTimeoutError::Disconnected) => return self.flush(),
            }
            if self.since.is_some_and(|since| since.elapsed() >= BATCH_AGE) {
                self.flush()?;
            }
            if self.sink.is_complete() {
                return Ok(());
            }
        }
    }

    fn obey(&mut self, command: RecorderCommand) -> Result<(), WriteError> {
        match command {
            RecorderCommand::Input(input) => self.write(input),
            RecorderCommand::Trigger(trigger) => {
                self.flush()?;
                self.sink.trigger(trigger, &mut self.packer)?;
                self.show_window();
                Ok(())
            }
            RecorderCommand::Open(lists) => {
                self.flush()?;
                self.sink.open(&mut self.packer)?;
                for list in lists {
                    self.step(TrackerStep::Event(list))?;
                }
                self.flush()
            }
        }
    }

    /// Tells the tracker's thread what the recorder waits for.
    fn show_window(&self) {
        let Self { progress, sink, .. } = self;
        progress.window_end.store(sink.window_end().unwrap_or(u64::MAX), Ordering::Relaxed);
        progress.windows.store(sink.windows(), Ordering::Relaxed);
        if sink.wants_lists() {
            progress.wants_lists.store(true, Ordering::Relaxed);
        }
    }

    fn write(&mut self, input: TrackerInput) -> Result<(), WriteError> {
        let mut trouble = None;
        input.into_steps(|step| {
            if trouble.is_none() {
                trouble = self.step(step).err();
            }
        });
        trouble.map_or(Ok(()), Err)
    }

    fn step(&mut self, step: TrackerStep) -> Result<(), WriteError> {
        let mut full = Vec::new();
        self.packer.step(&step, |packed| {
            full.push(packed);
            Ok(())
        })?;
        if self.sink.wants_facts() && tracer_core::replay::Facts::is_one(&step) {
            self.facts.push(step);
        }
        if self.since.is_none() {
            self.since = Some(Instant::now());
        }
        let filled = !full.is_empty();
        for packed in full {
            self.put(packed)?;
        }
        // The rest of a list of sockets that filled a batch must not get into another file.
        if self.packer.rows() >= self.batch_rows || filled && self.packer.rows() > 0 {
            return self.flush();
        }
        if filled { self.tidy() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        let Some(packed) = self.packer.flush()? else { return Ok(()) };
        self.put(packed)?;
        self.tidy()
    }

    fn tidy(&mut self) -> Result<(), WriteError> {
        self.sink.tidy(&mut self.packer)?;
        self.show_window();
        Ok(())
    }

    fn put(&mut self, packed: PackedBatch) -> Result<(), WriteError> {
        self.since = None;
        let facts = std::mem::take(&mut self.facts);
        self.sink.put(packed, facts)?;
        self.progress.bytes.store(self.sink.bytes(), Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::RotationBounds;
    use crate::run::record::sink::part_path;
    use tracer_core::event::{
        Addr, Baseline, Endpoint, Event, FlowKey, Ktime, Netns, SocketCookie, SocketRow, TcpState,
    };
    use tracer_core::replay::Replay;

    /// A namespace that is full of TIME_WAITs has lists of several batches.
    #[test]
    fn a_list_of_sockets_is_never_spread_over_two_files() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.arrow");
        let header = RecordingHeader::default();
        let file = tracer_core::recording::create(&part_path(&path, 1), true).expect("a file");
        // Each list of sockets is larger than a part and smaller than all parts together.
        let sink = RecordingSink::rotation(&path, file, &header, RotationBounds { size: Some(3 << 20), age: None });
        let mut worker = Worker {
            packer: Packer::new(&header).expect("a header"),
            batch_rows: usize::MAX,
            sink: sink.expect("a file"),
            progress: Arc::default(),
            facts: Vec::new(),
            since: None,
        };
        let row = |number: u32| {
            let endpoint = |port| Endpoint { addr: Addr::UNSPECIFIED, port };
            let port = u16::try_from(number % 60_000).expect("a port");
            SocketRow {
                sock: 0,
                cookie: SocketCookie::new(u64::from(number) * 7_919 + 1),
                key: FlowKey { netns: Netns::of_inode(1), device: 0, local: endpoint(port), remote: endpoint(443) },
                state: TcpState::Established,
                minisocket: false,
                remaining: Some(u64::from(number) * 104_729),
                owner: Some(number),
                named: None,
                closed: None,
                timestamps: None,
                has_descriptor: None,
                queue: None,
            }
        };
        for round in 1..=3 {
            let rows = (0..131_500).map(row).collect();
            let (began, ended) = (Ktime(round), Ktime(round));
            let list = Baseline { netns: Netns::of_inode(1), began, ended, initial: false, rows };
            worker.step(TrackerStep::Event(Event::Baseline(list))).expect("room");
        }
        let outcome = worker.sink.finish(&mut worker.packer).expect("room");
        let mut lists = 0;
        for (path, _) in &outcome.files {
            let mut replay = Replay::open(path).expect("a recording");
            while let Some(step) = replay.next_step().expect("readable") {
                lists += u32::from(matches!(step, TrackerStep::Event(Event::Baseline(_))));
            }
            assert_eq!((replay.bad_rows(), replay.damage()), (0, None), "{}", path.display());
        }
        assert!(lists >= 1, "the last list at least fits");
    }
}
