//! The line in which a filter or a time is typed.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptPurpose {
    Filter,
    /// A position of the replay.
    Seek,
}

/// What a key press did to the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptResult {
    /// The text is as before; the cursor may have moved.
    Unchanged,
    /// The text is another.
    Changed,
    /// Enter.
    Submitted,
    /// Esc or Ctrl-C.
    Cancelled,
}

/// Characters that a line may have: as many as a filter may have.
const MAX_CHARS: usize = tracer_core::filter::MAX_FILTER_CHARS;

/// The line with its cursor.
#[derive(Clone, Debug)]
pub struct Prompt {
    /// What is typed.
    pub purpose: PromptPurpose,
    text: Vec<char>,
    cursor: usize,
    /// What is wrong with the text, and at which character (from 0) if that is known.
    pub error: Option<(String, Option<usize>)>,
}

impl Prompt {
    /// A line with this text and the cursor at its end.
    pub fn new(purpose: PromptPurpose, text: &str) -> Self {
        let text: Vec<char> = text.chars().collect();
        Self { purpose, cursor: text.len(), text, error: None }
    }

    /// The text so far.
    pub fn text(&self) -> String {
        self.text.iter().collect()
    }

    /// Characters before the cursor.
    pub fn cursor(&self) -> usize {
        self.cursor
    }

    /// Edits the line as a shell does.
    pub fn key(&mut self, key: &KeyEvent) -> PromptResult {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Enter => return PromptResult::Submitted,
            KeyCode::Esc => return PromptResult::Cancelled,
            KeyCode::Char('c') if control => return PromptResult::Cancelled,
            KeyCode::Char('u') if control => {
                self.text.drain(..self.cursor);
                self.cursor = 0;
            }
            KeyCode::Char('w') if control => {
                let word = |c: &char| !c.is_whitespace();
                let end = self.text[..self.cursor].iter().rposition(word).map_or(0, |last| last + 1);
                let begin = self.text[..end].iter().rposition(|c| c.is_whitespace()).map_or(0, |blank| blank + 1);
                self.text.drain(begin..self.cursor);
                self.cursor = begin;
            }
            KeyCode::Char('a') if control => return self.go(0),
            KeyCode::Char('e') if control => return self.go(self.text.len()),
            KeyCode::Home => return self.go(0),
            KeyCode::End => return self.go(self.text.len()),
            KeyCode::Left => return self.go(self.cursor.saturating_sub(1)),
            KeyCode::Right => return self.go((self.cursor + 1).min(self.text.len())),
            KeyCode::Backspace if self.cursor > 0 => {
                self.cursor -= 1;
                self.text.remove(self.cursor);
            }
            KeyCode::Delete if self.cursor < self.text.len() => {
                self.text.remove(self.cursor);
            }
            KeyCode::Char(c) if !control && !c.is_control() && self.text.len() < MAX_CHARS => {
                self.text.insert(self.cursor, c);
                self.cursor += 1;
            }
            _ => return PromptResult::Unchanged,
        }
        PromptResult::Changed
    }

    fn go(&mut self, to: usize) -> PromptResult {
        self.cursor = to;
        PromptResult::Unchanged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &[(KeyCode, KeyModifiers)]) -> String {
        let mut prompt = Prompt::new(PromptPurpose::Filter, "");
        for &(code, modifiers) in keys {
            prompt.key(&KeyEvent::new(code, modifiers));
        }
        prompt.text()
    }

    fn text(text: &str) -> Vec<(KeyCode, KeyModifiers)> {
        text.chars().map(|c| (KeyCode::Char(c), KeyModifiers::NONE)).collect()
    }

    #[test]
    fn a_line_is_edited_as_in_a_shell() {
        let control = |c| (KeyCode::Char(c), KeyModifiers::CONTROL);
        let plain = |code| (code, KeyModifiers::NONE);
        assert_eq!(typed(&[text("pid=12"), vec![control('w')]].concat()), "");
        assert_eq!(typed(&[text("a b  "), vec![control('w')]].concat()), "a ");
        assert_eq!(typed(&[text("abc"), vec![plain(KeyCode::Left), control('u')]].concat()), "c");
        assert_eq!(typed(&[text("ac"), vec![plain(KeyCode::Left)], text("b")].concat()), "abc");
        assert_eq!(typed(&[text("\u{e9}x"), vec![plain(KeyCode::Home), plain(KeyCode::Delete)]].concat()), "x");
        assert_eq!(typed(&[vec![plain(KeyCode::Backspace)], text("a")].concat()), "a");
    }
}
