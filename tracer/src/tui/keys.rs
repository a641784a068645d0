//! The keys: one table, which decides what a key press means and from which the help is printed.
//!
//! Not for: what an action changes (`app`).

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What a key press asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    /// Open the page of the selected row.
    Enter,
    /// Go back to the page before.
    Back,
    NextPane,
    PreviousPane,
    /// Go to the tab with this index in [`super::page::Page::TABS`].
    Tab(usize),
    Sort,
    Reverse,
    Filter,
    Pause,
    Slower,
    Faster,
    StepBack,
    StepForward,
    Seek,
    NextMark,
    /// To the next finding.
    NextFinding,
    Record,
    Export,
    Copy,
    Help,
    Quit,
}

/// In which views a key works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingScope {
    Both,
    Live,
    Replay,
}

/// One line of help.
pub struct Binding {
    /// The keys as the help names them. Empty: the help has them in the line before.
    pub label: &'static str,
    keys: &'static [KeyCode],
    /// What the keys do.
    pub action: Action,
    /// Where they do it.
    pub scope: BindingScope,
    /// What the help says about them.
    pub help: &'static str,
}

macro_rules! bindings {
    ($($label:literal [$($key:expr),+] $action:expr, $scope:ident, $help:literal;)+) => {
        &[$(Binding { label: $label, keys: &[$($key),+], action: $action, scope: BindingScope::$scope, help: $help }),+]
    };
}

use KeyCode::{BackTab, Char, Down, End, Enter, Esc, F, Home, Left, PageDown, PageUp, Right, Tab, Up};

/// Every key of the view.
pub const BINDINGS: &[Binding] = bindings! {
    "Up k" [Up, Char('k')] Action::Up, Both, "one row up";
    "Down j" [Down, Char('j')] Action::Down, Both, "one row down";
    "PgUp PgDn" [PageUp] Action::PageUp, Both, "a page of rows";
    "" [PageDown] Action::PageDown, Both, "";
    "Home g" [Home, Char('g')] Action::First, Both, "first row";
    "End G" [End, Char('G')] Action::Last, Both, "last row";
    "Enter Right l" [Enter, Right, Char('l')] Action::Enter, Both, "into the row: workload, destination, flow";
    "Esc Left h" [Esc, Left, Char('h'), KeyCode::Backspace] Action::Back, Both, "back out";
    "Tab" [Tab] Action::NextPane, Both, "next table of the page (Shift-Tab: previous)";
    "" [BackTab] Action::PreviousPane, Both, "";
    "1" [Char('1')] Action::Tab(0), Both, "overview";
    "2" [Char('2')] Action::Tab(1), Both, "findings: evidence and advice (live: n goes to the next)";
    "3" [Char('3')] Action::Tab(2), Both, "failures, each with who held the ports then";
    "s" [Char('s')] Action::Sort, Both, "sort by the next column";
    "S" [Char('S')] Action::Reverse, Both, "reverse the order";
    "/" [Char('/')] Action::Filter, Both, "filter: comm=php* and dst=:443 (Enter keeps, Esc drops)";
    "Space" [Char(' ')] Action::Pause, Both, "pause; live: collection goes on, resume jumps to now";
    "[" [Char('[')] Action::Slower, Replay, "slower";
    "]" [Char(']')] Action::Faster, Replay, "faster";
    "," [Char(',')] Action::StepBack, Replay, "one second back";
    "." [Char('.')] Action::StepForward, Replay, "one second on";
    "t" [Char('t')] Action::Seek, Replay, "go to a time: 14:02:30, 3m ago, +90s";
    "n" [Char('n')] Action::NextMark, Replay, "on to the next failure or finding";
    "" [Char('n')] Action::NextFinding, Live, "";
    "r" [Char('r')] Action::Record, Live, "start or stop a recording";
    "e" [Char('e')] Action::Export, Both, "export what is shown into a file";
    "y" [Char('y')] Action::Copy, Both, "copy the row (OSC 52; tmux: set-clipboard on)";
    "?" [Char('?'), F(1)] Action::Help, Both, "this help";
    "q Ctrl-C" [Char('q')] Action::Quit, Both, "quit (asks while recording); Ctrl-Z suspends";
};

/// The action of a key press while no text is being typed. `replay`: the view is one of a recording.
pub fn action(key: &KeyEvent, replay: bool) -> Option<Action> {
    if is_interrupt(key) {
        return Some(Action::Quit);
    }
    if key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT | KeyModifiers::SUPER) {
        return None;
    }
    let here = |scope| match scope {
        BindingScope::Both => true,
        BindingScope::Live => !replay,
        BindingScope::Replay => replay,
    };
    BINDINGS.iter().find(|binding| here(binding.scope) && binding.keys.contains(&key.code)).map(|found| found.action)
}

/// Ctrl-Z, which stops a program only where the terminal is not in raw mode.
pub fn is_suspend(key: &KeyEvent) -> bool {
    key.code == Char('z') && key.modifiers.contains(KeyModifiers::CONTROL)
}

/// Ctrl-C, which is a key press like others while the terminal is in raw mode.
pub fn is_interrupt(key: &KeyEvent) -> bool {
    key.code == Char('c') && key.modifiers.contains(KeyModifiers::CONTROL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(code: KeyCode) -> KeyEvent {
        KeyEvent::new(code, KeyModifiers::NONE)
    }

    #[test]
    fn no_key_means_two_things() {
        for replay in [false, true] {
            let mut seen = Vec::new();
            for binding in BINDINGS {
                let other = if replay { BindingScope::Live } else { BindingScope::Replay };
                for key in binding.keys.iter().filter(|_| binding.scope != other) {
                    assert!(!seen.contains(key), "{key:?}");
                    seen.push(*key);
                    assert_eq!(action(&press(*key), replay), Some(binding.action));
                }
            }
        }
    }

    #[test]
    fn the_keys_of_a_replay_do_nothing_live_and_the_other_way_round() {
        assert_eq!(action(&press(Char('t')), false), None);
        assert_eq!(action(&press(Char('r')), true), None);
        assert_eq!(action(&press(Char('r')), false), Some(Action::Record));
    }

    #[test]
    fn control_characters_are_no_letters() {
        let control = |c| KeyEvent::new(Char(c), KeyModifiers::CONTROL);
        assert_eq!(action(&control('c'), false), Some(Action::Quit));
        assert_eq!(action(&control('s'), false), None);
    }
}
