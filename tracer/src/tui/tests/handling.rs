//! Keys and clicks: what they lead to.

use crossterm::event::{MouseButton, MouseEvent, MouseEventKind};

use super::*;
use crate::tui::channel::ViewOrder;
use crate::tui::page::{Page, Pane};
use tracer_core::tracker::snapshot::detail::DetailRequest;

use KeyCode::{Backspace, Char, Enter, Esc, Tab};

fn orders(effects: &[Effect]) -> Vec<&ViewOrder> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Order(order) => Some(order),
            _ => None,
        })
        .collect()
}

fn click(stage: &mut Stage, x: u16, y: u16, kind: MouseEventKind) -> Vec<Effect> {
    let event = MouseEvent { kind, column: x, row: y, modifiers: KeyModifiers::NONE };
    let effects = stage.app.mouse(&event);
    stage.screen();
    effects
}

fn line_with(stage: &mut Stage, text: &str) -> u16 {
    let screen = stage.screen();
    let line = screen.lines().position(|line| line.contains(text)).unwrap_or_else(|| panic!("{text}: {screen}"));
    u16::try_from(line).expect("on the screen")
}

#[test]
fn going_in_asks_for_details_once_and_coming_out_for_none() {
    let mut stage = Stage::exhaustion();
    stage.press(Tab);
    let request = DetailRequest { destination: Some(place()), ..DetailRequest::default() };
    assert_eq!(orders(&stage.press(Enter)), [&ViewOrder::Details(request)]);
    assert_eq!(*stage.app.page(), Page::Destination(place()));
    assert!(stage.press(Char('j')).is_empty());
    assert_eq!(orders(&stage.press(Esc)), [&ViewOrder::Details(DetailRequest::default())]);
    assert_eq!(stage.app.pane(), Pane::Destinations, "where one came from is still selected");
}

#[test]
fn the_way_from_workload_to_flow_and_back() {
    let mut stage = Stage::exhaustion();
    for key in [Enter, Tab, Enter, Tab, Enter] {
        stage.press(key);
    }
    assert_eq!(*stage.app.page(), Page::Flow(flow(40_000)));
    for _ in 0..3 {
        stage.press(Char('h'));
    }
    assert_eq!(*stage.app.page(), Page::Overview);
    // Esc on the overview does nothing; above all it does not end the view.
    assert!(stage.press(Esc).is_empty());
}

#[test]
fn a_selected_row_is_followed_when_the_order_changes() {
    let mut stage = Stage::exhaustion();
    stage.press(Char('j'));
    assert_eq!(stage.app.cursor(Pane::Workloads).index, 1);
    let mut snapshot = sample::exhaustion();
    snapshot.workloads.swap(0, 1);
    stage.app.accept(Arc::new(Frame { snapshot, ..Frame::default() }));
    assert_eq!(stage.app.cursor(Pane::Workloads).index, 0);
    stage.press(Enter);
    assert_eq!(*stage.app.page(), Page::Workload("pool.service".into()));
}

#[test]
fn sorting_goes_through_the_columns_and_back() {
    let mut stage = Stage::exhaustion().sized(200, 50);
    let first = |stage: &Stage| stage.app.rows.shown(Pane::Workloads).to_vec();
    let unsorted = first(&stage);
    stage.press(Char('s'));
    assert!(stage.screen().contains("WORKLOADv"));
    assert_eq!(first(&stage), [0, 1], "by name");
    stage.press(Char('S'));
    assert_eq!(first(&stage), [1, 0]);
    assert!(stage.screen().contains("sorted by WORKLOAD, reversed"), "said where the column may be hidden");
    let columns = stage.app.rows.sortable(&stage.app.row_input(), Pane::Workloads).len();
    for _ in 0..columns {
        stage.press(Char('s'));
        let sorted = stage.app.sort(Pane::Workloads).column.is_some();
        let screen = stage.screen();
        let heading = screen.lines().find(|line| line.starts_with('*')).expect("a heading");
        assert_eq!(heading.contains(['v', '^']), sorted, "the order shows: {heading}");
    }
    assert_eq!(first(&stage), unsorted);
    assert_eq!(stage.app.sort(Pane::Workloads).column, None);
}

fn shown_workloads(stage: &Stage) -> Vec<String> {
    let workloads = &stage.app.frame.snapshot.workloads;
    stage.app.rows.shown(Pane::Workloads).iter().map(|&index| workloads[index].name.to_string()).collect()
}

#[test]
fn a_filter_works_while_it_is_typed_and_a_wrong_one_leaves_the_last() {
    let mut stage = Stage::exhaustion();
    stage.press(Char('/'));
    stage.type_text("workload=pool*");
    assert_eq!(shown_workloads(&stage), ["pool.service"]);
    assert_eq!(stage.app.rows.shown(Pane::Destinations), [0], "what pool.service talks to");
    assert_eq!((stage.app.rows.shown(Pane::Workloads).len(), stage.app.rows.unfiltered(Pane::Workloads)), (1, 2));
    let failed = stage.app.frame.snapshot.destinations[0].failed.without_port();
    assert_eq!(failed, 104, "the numbers are of what is inside");
    stage.type_text(" and");
    assert_eq!(shown_workloads(&stage), ["pool.service"]);
    assert!(stage.press(Enter).is_empty() && stage.app.overlay.is_some(), "a wrong filter is not taken");
    stage.press(Esc);
    assert_eq!(stage.app.rows.shown(Pane::Workloads).len(), 2, "as it was before");
    stage.press(Char('/'));
    stage.type_text("pid=4211");
    stage.press(Enter);
    assert_eq!(
        (shown_workloads(&stage), stage.app.filter_text.as_str()),
        (vec!["bypass.service".to_owned()], "pid=4211")
    );
    // Letters typed into the line are not taken as keys, and an empty line is no filter.
    stage.press(Char('/'));
    for _ in 0..8 {
        stage.press(Backspace);
    }
    stage.press(Enter);
    assert!(stage.app.filter().is_none());
}

#[test]
fn a_state_keeps_who_has_flows_in_it_and_the_destinations_of_these() {
    let mut stage = Stage::exhaustion();
    let shown = |stage: &mut Stage, filter: &str| {
        stage.press(Char('/'));
        for _ in 0..40 {
            stage.press(Backspace);
        }
        stage.type_text(filter);
        stage.press(Enter);
        (shown_workloads(stage).join(" "), stage.app.rows.shown(Pane::Destinations).len())
    };
    assert_eq!(shown(&mut stage, "state=time_wait"), ("bypass.service".into(), 1));
    assert_eq!(shown(&mut stage, "state=established"), ("pool.service".into(), 1));
    assert_eq!(shown(&mut stage, "state=established and workload=bypass*"), (String::new(), 0));
    assert_eq!(shown(&mut stage, "state=close_wait"), (String::new(), 0));
    // The rows of the workload's page are filtered, too.
    shown(&mut stage, "state=time_wait");
    stage.press(Enter);
    assert_eq!(stage.app.rows.shown(Pane::Processes).len(), 2);
    assert_eq!(stage.app.rows.shown(Pane::Towards).len(), 2);
}

#[test]
fn the_flows_of_a_destination_are_filtered_by_state_and_owner() {
    let mut stage = Stage::exhaustion();
    for key in [Tab, Enter, Char('/')] {
        stage.press(key);
    }
    stage.type_text("state=established and pid=4001");
    let detail = stage.app.destination_detail(&place()).expect("told");
    let established = detail.used.iter().filter(|port| port.state == TcpState::Established).count();
    assert!(established > 0);
    assert_eq!(stage.app.rows.shown(Pane::Flows).len(), established);
}

#[test]
fn a_paused_live_view_stands_still_and_resumes_at_now() {
    let mut stage = Stage::exhaustion();
    assert!(stage.press(Char(' ')).is_empty(), "nobody else is stopped");
    assert!(stage.screen().contains("PAUSED"));
    stage.app.accept(Arc::new(Frame { snapshot: sample::quiet(), ..Frame::default() }));
    assert!(stage.screen().contains("bypass.service"));
    stage.press(Char(' '));
    assert!(stage.screen().contains("backup.service") && !stage.screen().contains("bypass.service"));
}

#[test]
fn what_is_drilled_into_while_paused_still_comes() {
    let mut stage = Stage::exhaustion();
    let full = Arc::clone(&stage.app.frame);
    stage.app.accept(Arc::new(Frame { details: Details::default(), ..(*full).clone() }));
    for key in [Char(' '), Tab, Enter] {
        stage.press(key);
    }
    assert!(stage.screen().contains("being looked up"));
    stage.app.accept(full);
    assert!(stage.screen().contains("1st  40000"), "{}", stage.screen());
}

#[test]
fn a_replay_is_steered_by_orders() {
    let mut stage = Stage::replay();
    let now = stage.app.frame.snapshot.now;
    for (key, order) in [
        (Char(' '), ViewOrder::Pause(false)),
        (Char(']'), ViewOrder::Speed(Speed::Times(60.0))),
        (Char('['), ViewOrder::Speed(Speed::Times(5.0))),
        (Char(','), ViewOrder::Step(-1)),
        (Char('.'), ViewOrder::Step(1)),
        (Char('n'), ViewOrder::NextMark),
    ] {
        assert_eq!(stage.press(key), [Effect::Order(order)], "{key:?}");
    }
    assert!(stage.press(Char('r')).is_empty(), "a recording of a recording is a copy");
    let at = |seconds| START.plus(seconds * SECOND);
    for (typed, expected) in [
        ("+10s", now.plus(10 * SECOND)),
        ("5s ago", Ktime(now.0 - 5 * SECOND)),
        ("-1h", START),
        ("50%", at(60)),
        ("03:11:17", at(10)),
        ("2026-03-14T03:11:09Z", at(2)),
        ("23:00", at(120)),
    ] {
        stage.press(Char('t'));
        stage.type_text(typed);
        assert_eq!(stage.press(Enter), [Effect::Order(ViewOrder::Seek(expected))], "{typed}");
    }
    stage.press(Char('t'));
    stage.type_text("soon");
    assert!(stage.press(Enter).is_empty());
    assert!(stage.screen().contains("expected a time"));
}

#[test]
fn quitting_asks_only_while_recording() {
    let mut stage = Stage::exhaustion();
    assert_eq!(stage.press(Char('q')), [Effect::Quit]);
    stage.with_status(recording_status());
    assert!(stage.press(Char('q')).is_empty());
    assert!(stage.press(Char('n')).is_empty(), "no");
    assert!(stage.app.overlay.is_none());
    let interrupt = KeyEvent::new(Char('c'), KeyModifiers::CONTROL);
    assert!(stage.app.key(&interrupt).is_empty());
    assert_eq!(stage.press(Char('y')), [Effect::Quit]);
}

#[test]
fn r_starts_a_recording_and_stops_it() {
    let mut stage = Stage::exhaustion();
    assert_eq!(stage.press(Char('r')), [Effect::Order(ViewOrder::Record(true))]);
    stage.with_status(recording_status());
    assert!(stage.screen().contains("REC 30 s 3.1 MB"), "{}", stage.screen());
    assert_eq!(stage.press(Char('r')), [Effect::Order(ViewOrder::Record(false))]);
}

#[test]
fn a_copied_row_is_its_cells() {
    let mut stage = Stage::exhaustion();
    stage.press(Tab);
    let effects = stage.press(Char('y'));
    let [Effect::Copy(text)] = effects.as_slice() else { panic!("{effects:?}") };
    assert!(text.starts_with("! 10.66.0.2:8443\t10.66.0.1\t"), "{text}");
    assert!(text.contains("\t1,024\t"), "{text}");
    assert!(stage.screen().contains("copied: ! 10.66.0.2:8443  10.66.0.1  "), "{}", stage.screen());
    let mut empty = Stage::new(Snapshot::default(), HostFacts::default());
    assert!(empty.press(Char('y')).is_empty());
    assert!(empty.screen().contains("no row to copy"), "{}", empty.screen());
}

#[test]
fn the_mouse_selects_enters_and_scrolls() {
    let mut stage = Stage::exhaustion();
    let left = MouseEventKind::Down(MouseButton::Left);
    let row = line_with(&mut stage, "pool.service  ");
    click(&mut stage, 10, row, left);
    assert_eq!(stage.app.cursor(Pane::Workloads).index, 1);
    click(&mut stage, 10, row, left);
    assert_eq!(*stage.app.page(), Page::Workload("pool.service".into()));
    let tabs = line_with(&mut stage, "3 Failures");
    let column = stage.screen().lines().nth(usize::from(tabs)).and_then(|line| line.find("3 Failures"));
    click(&mut stage, u16::try_from(column.expect("shown")).expect("small"), tabs, left);
    assert_eq!(*stage.app.page(), Page::Failures);
    let table = line_with(&mut stage, "TIME ");
    click(&mut stage, 5, table + 2, MouseEventKind::ScrollDown);
    assert_eq!(stage.app.cursor(Pane::Failures).index, 3);
    // A click beside all tables.
    assert!(click(&mut stage, 79, 23, left).is_empty());
}

#[test]
fn a_finding_leads_to_whom_it_is_about() {
    let mut stage = Stage::exhaustion();
    stage.press(Char('2'));
    stage.press(Enter);
    assert_eq!(*stage.app.page(), Page::Destination(place()));
}

#[test]
fn an_export_has_the_screen_and_every_row() {
    let mut stage = Stage::exhaustion();
    assert_eq!(stage.press(Char('e')), [Effect::Export]);
    stage.press(Char('3'));
    let text = crate::tui::export::text(&stage.app, ASCII);
    assert!(text.contains("HELD AT THAT INSTANT"));
    assert!(text.matches("4211").count() + text.matches("4001").count() >= 40, "{text}");
    assert!(text.lines().all(|line| line == line.trim_end()));
}

#[test]
fn an_export_never_replaces_a_file() {
    let stage = Stage::exhaustion();
    let dir = std::env::temp_dir().join(format!("portchurn-export-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("a directory");
    let write = || crate::tui::export::write(&dir, &stage.app, ASCII).expect("written");
    let (first, second) = (write(), write());
    let name = |path: &std::path::Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    assert_eq!(name(&first).as_deref(), Some("portchurn-overview-20260314-031137.txt"));
    assert_eq!(name(&second).as_deref(), Some("portchurn-overview-20260314-031137-2.txt"));
    for path in [first, second] {
        let text = std::fs::read_to_string(&path).expect("a file");
        assert_eq!(text, crate::tui::export::text(&stage.app, ASCII));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(&path).expect("a file").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "names of a host are nobody else's business");
        }
    }
    std::fs::remove_dir_all(&dir).expect("removed");
}

#[test]
fn the_wheel_scrolls_the_help_no_further_than_its_end() {
    let mut stage = Stage::exhaustion();
    stage.press(Char('?'));
    for _ in 0..100 {
        click(&mut stage, 10, 10, MouseEventKind::ScrollDown);
    }
    let end = stage.screen();
    for _ in 0..10 {
        click(&mut stage, 10, 10, MouseEventKind::ScrollUp);
    }
    assert_ne!(stage.screen(), end, "ten turns back leave the end");
}

#[test]
fn help_lists_every_key() {
    let mut stage = Stage::exhaustion().sized(100, 60);
    stage.press(Char('?'));
    let screen = stage.screen();
    for binding in crate::tui::keys::BINDINGS {
        assert!(screen.contains(binding.label) && screen.contains(binding.help), "{}", binding.label);
    }
    stage.press(Esc);
    assert!(stage.app.overlay.is_none());
}

/// Enter said yes, and a long path pushed the question off the screen.
#[test]
fn the_question_before_quitting_stays_on_the_screen_and_only_y_says_yes() {
    let mut stage = Stage::exhaustion();
    let path = "/var/lib/portchurn/".to_owned() + &"a-directory-with-a-long-name/".repeat(20) + "incident.arrow";
    let mut status = recording_status();
    if let Some(recording) = &mut status.recording {
        recording.path = path.into();
    }
    stage.with_status(status);
    for key in [Enter, Esc, Char('n'), Char(' '), Char('q')] {
        stage.press(Char('q'));
        let screen = stage.screen();
        assert!(screen.contains("Stop the recording and quit? y yes, any other key no"), "{screen}");
        assert_eq!(stage.press(key), [], "{key:?}");
        assert!(stage.app.overlay.is_none(), "{key:?}");
    }
    stage.press(Char('q'));
    assert_eq!(stage.press(Char('y')), [Effect::Quit]);
}

#[test]
fn ctrl_z_suspends_whatever_covers_the_page() {
    let mut stage = Stage::exhaustion();
    let key = KeyEvent::new(Char('z'), KeyModifiers::CONTROL);
    assert_eq!(stage.app.key(&key), [Effect::Suspend]);
    stage.press(Char('/'));
    assert_eq!(stage.app.key(&key), [Effect::Suspend]);
    assert!(stage.app.overlay.is_some(), "the line that is typed is still there");
}

/// An incident that was over stayed on top in red, above one that was filling up.
#[test]
fn what_is_over_stands_below_what_is_now_and_n_goes_from_one_to_the_next() {
    let mut stage = Stage::new(sample::over(), sample::host());
    let screen = stage.screen();
    assert!(screen.contains("WARNING   Local ports towards 10.66.0.3:8443 run out"), "{screen}");
    assert!(screen.contains("FINDINGS  1 now, 1 over"), "{screen}");
    stage.press(Char('n'));
    let screen = stage.screen();
    assert!(screen.contains("> WARNING  now") && screen.contains("  CRITICAL over"), "{screen}");
    stage.press(Char('n'));
    let screen = stage.screen();
    assert!(screen.contains("> CRITICAL over"), "{screen}");
    assert!(screen.contains("03:11:19 to 03:13:48, at its worst 841 failures/min, 1,204 in all"), "{screen}");
    assert!(!screen.contains('{') && !screen.contains('"'), "no JSON: {screen}");
    stage.press(Char('n'));
    assert!(stage.screen().contains("> WARNING  now"), "from the last to the first");
}
