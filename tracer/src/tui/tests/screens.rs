//! Every page as text. The snapshots have no colours, because a screen must say everything without them.

use ratatui::style::Color;

use super::*;

macro_rules! shows {
    ($name:literal, $stage:expr) => {
        insta::assert_snapshot!($name, $stage.screen())
    };
}

fn at(mut stage: Stage, keys: &[KeyCode]) -> Stage {
    stage.screen();
    for key in keys {
        stage.press(*key);
    }
    stage
}

use KeyCode::{Char, Enter, Tab};

#[test]
fn overview() {
    shows!("overview_exhaustion_80x24", Stage::exhaustion());
    shows!("overview_exhaustion_200x50", Stage::exhaustion().sized(200, 50));
    shows!("overview_exhaustion_60x15", Stage::exhaustion().sized(60, 15));
    shows!("overview_exhaustion_ascii", Stage::exhaustion().options(ASCII));
    shows!("overview_empty", Stage::new(Snapshot::default(), HostFacts::default()));
    shows!("overview_quiet", Stage::new(sample::quiet(), sample::host()));
    shows!("overview_forecast", Stage::new(sample::forecast(), sample::host()));
    shows!("overview_lossy_and_degraded", Stage::new(sample::lossy(), sample::degraded_host()));
    shows!("overview_close_wait", Stage::new(sample::close_wait_leak(), sample::host()));
    shows!("overview_replay", Stage::replay());
    shows!("too_small", Stage::exhaustion().sized(59, 15));
}

#[test]
fn drilled_down() {
    let destination = [Tab, Enter];
    shows!("destination_80x24", at(Stage::exhaustion(), &destination));
    shows!("destination_200x50", at(Stage::exhaustion().sized(200, 50), &destination));
    shows!("destination_60x15", at(Stage::exhaustion().sized(60, 15), &destination));
    shows!("destination_ascii", at(Stage::exhaustion().options(ASCII), &destination));
    shows!("destination_capacity_unknown", at(Stage::new(sample::lossy(), sample::degraded_host()), &destination));
    shows!("workload_80x24", at(Stage::exhaustion(), &[Enter]));
    shows!("workload_200x50", at(Stage::exhaustion().sized(200, 50), &[Enter]));
    shows!("flow", at(Stage::exhaustion(), &[Tab, Enter, Tab, Enter]));
}

#[test]
fn findings_and_failures() {
    shows!("findings_80x24", at(Stage::exhaustion(), &[Char('2')]));
    shows!("findings_200x50", at(Stage::exhaustion().sized(200, 50), &[Char('2')]));
    shows!("findings_none", at(Stage::new(sample::quiet(), sample::host()), &[Char('2')]));
    shows!("findings_lossy", at(Stage::new(sample::lossy(), sample::degraded_host()).sized(100, 40), &[Char('2')]));
    shows!("failures_80x24", at(Stage::exhaustion(), &[Char('3')]));
    shows!("failures_200x50", at(Stage::exhaustion().sized(200, 50), &[Char('3')]));
    let mut none = Stage::new(sample::quiet(), sample::host());
    let frame = Frame { snapshot: sample::quiet(), ..Frame::default() };
    none.app.accept(Arc::new(frame));
    shows!("failures_none", at(none, &[Char('3')]));
}

#[test]
fn overlays() {
    shows!("help", at(Stage::exhaustion().sized(80, 40), &[Char('?')]));
    shows!("help_80x24", at(Stage::exhaustion(), &[Char('?')]));
    let mut filter = at(Stage::exhaustion(), &[Char('/')]);
    filter.type_text("workload=pool*");
    shows!("filter_typed", filter);
    filter.type_text(" and prot=443");
    shows!("filter_wrong", filter);
    let mut recording = Stage::exhaustion();
    recording.with_status(recording_status());
    shows!("quit_while_recording", at(recording, &[Char('q')]));
    shows!("go_to_a_time", at(Stage::replay(), &[Char('t')]));
}

#[test]
fn no_screen_breaks_whatever_a_host_is_like() {
    let tabs = [Char('1'), Char('2'), Char('3')];
    for (name, snapshot, host) in sample::all() {
        for size in [(60, 15), (80, 24), (133, 43), (300, 100)] {
            for options in [UNICODE, ASCII] {
                let mut stage = Stage::new(snapshot.clone(), host.clone()).sized(size.0, size.1).options(options);
                for tab in tabs {
                    stage.press(tab);
                    for key in [Enter, Tab, Enter, Tab, Enter] {
                        stage.press(key);
                        let screen = stage.screen();
                        assert!(!screen.contains('\u{1b}'), "{name}: {screen}");
                        assert!(stage.options.unicode || screen.is_ascii(), "{name}: {screen}");
                    }
                }
            }
        }
    }
}

#[test]
fn without_colour_a_screen_has_none_and_says_the_same() {
    let plain = RenderOptions { colour: false, ..UNICODE };
    let mut stages = [Stage::exhaustion(), Stage::exhaustion().options(plain)];
    let [coloured, plain] = stages.each_mut().map(Stage::buffer);
    let colours = |buffer: &Buffer| buffer.content().iter().any(|cell| cell.fg != Color::Reset);
    assert!(colours(&coloured) && !colours(&plain));
    let letters = |buffer: &Buffer| buffer.content().iter().map(|cell| cell.symbol().to_owned()).collect::<String>();
    assert_eq!(letters(&coloured), letters(&plain));
    // With a background colour of its own, text could not be read on some terminals.
    assert!(coloured.content().iter().all(|cell| cell.bg == Color::Reset));
}

#[test]
fn loss_is_red_and_named() {
    let mut stage = Stage::new(sample::lossy(), sample::degraded_host());
    let buffer = stage.buffer();
    let top: String = (0..80).filter_map(|x| buffer.cell((x, 0))).map(ratatui::buffer::Cell::symbol).collect();
    let at = u16::try_from(top.find("LOST").expect("said in the header")).expect("on the screen");
    assert_eq!(buffer.cell((at, 0)).map(|cell| cell.fg), Some(Color::Red), "{top}");
    // On the narrowest terminal, and for every kind of loss.
    let mut snapshot = sample::exhaustion();
    snapshot.events.lost = Lost { other_runs: 7, ..Lost::default() };
    let mut narrow = Stage::new(snapshot, sample::degraded_host()).sized(60, 15);
    narrow.with_status(recording_status());
    assert!(narrow.screen().contains("LOST up to 7"), "{}", narrow.screen());
}
