//! A position shows the same whichever way the player came to it.

use std::fs::File;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::cli::RecordingInput;
use tracer_core::recording::{Reader, Writer};
use tracer_core::synthetic::{RecordedChurn, header};

const CONNECTIONS: u64 = 6_000;
const BATCH: usize = 500;
const SPACING: u64 = 1_000;

struct Recorded {
    /// Holds the file.
    _dir: TempDir,
    path: PathBuf,
}

impl Recorded {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.arrow");
        let mut writer = Writer::new(File::create(&path).expect("a file"), &header()).expect("a recording");
        for (number, step) in RecordedChurn::new(CONNECTIONS).enumerate() {
            writer.step(&step).expect("written");
            // Batches as small as those of a live recording.
            if number % BATCH == 0 {
                writer.flush().expect("written");
            }
        }
        writer.finish().expect("written");
        Self { _dir: dir, path }
    }

    fn config(&self) -> ReplayConfig {
        ReplayConfig {
            input: RecordingInput { names: vec![self.path.clone()], ..RecordingInput::default() },
            speed: Speed::Max,
        }
    }
}

/// Takes `player` to `to`. Returns what the screen would show there, and how many steps were read on the way.
fn arrive(player: &mut Player<'_>, to: Ktime) -> (String, u64) {
    player.go(to).expect("a way");
    let before = player.checkpoints.steps();
    while player.target.is_some() {
        player.advance().expect("read");
    }
    let shown = format!("{:?} {:?}", player.tracker.snapshot(), player.tracker.details(&player.schedule.details));
    (shown, player.checkpoints.steps() - before)
}

#[test]
fn going_back_reads_little_again_and_shows_what_reading_from_the_beginning_shows() {
    let recorded = Recorded::new();
    let config = recorded.config();
    let player = || {
        let mut player = Player::open(&config).expect("a recording");
        player.checkpoints = Checkpoints::every(SPACING);
        player
    };
    let mut there = player();
    let (begin, length) = (there.start, there.end.since(there.start));
    let at = |part: u64| begin.plus(length * part / 100);
    let (_, all) = arrive(&mut there, at(95));
    // Back, further back, and to the end.
    for (part, bound) in [(94, all / 4), (80, all / 2), (79, all / 4), (30, all), (100, all)] {
        let (shown, read) = arrive(&mut there, at(part));
        let (expected, whole) = arrive(&mut player(), at(part));
        assert!(shown == expected, "{part} %:\n{shown}\n{expected}");
        assert!(read < bound && read < whole, "{part} %: {read} of {whole} steps read again");
    }
}

#[test]
fn at_the_end_nothing_is_waited_for_and_a_jump_from_there_stays_where_it_led() {
    let recorded = Recorded::new();
    let config = recorded.config();
    let mut player = Player::open(&config).expect("a recording");
    while !player.ended {
        player.advance().expect("read");
    }
    for order in [ViewOrder::Step(1), ViewOrder::Seek(player.end.plus(SECOND)), ViewOrder::NextMark] {
        player.handle_order(order.clone()).expect("obeyed");
        assert!(player.target.is_none(), "{order:?}");
        assert_eq!(player.status().note.as_deref(), Some(THE_END), "{order:?}");
    }
    let middle = player.start.plus(player.end.since(player.start) / 2);
    player.handle_order(ViewOrder::Seek(middle)).expect("obeyed");
    while player.target.is_some() {
        player.advance().expect("read");
    }
    assert!(player.paused && !player.ended && player.tracker.now() < player.end);
}

#[test]
fn where_the_file_cannot_be_read_any_more_is_the_end_and_the_rest_a_gap() {
    let recorded = Recorded::new();
    let file = File::options().write(true).open(&recorded.path).expect("the file");
    let mut reader = Reader::open(File::open(&recorded.path).expect("the file")).expect("a recording");
    let places = reader.batch_index().expect("readable").batches;
    let [.., cut, next] = places[..] else { panic!("{places:?}") };
    // In the middle of a batch, the times of which stand before its rows.
    file.set_len(next.offset - (next.offset - cut.offset) / 4).expect("cut");
    let config = recorded.config();
    let mut player = Player::open(&config).expect("a recording");
    while !player.ended {
        player.advance().expect("read");
    }
    let (now, status) = (player.tracker.now(), player.status());
    let replay = status.replay.expect("a replay");
    assert!(replay.ended && status.note.is_some_and(|note| note.contains("missing")));
    assert_eq!(replay.gaps.last(), Some(&(now, replay.end)));
}
