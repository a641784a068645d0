//! A line that is being typed.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What the line is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptPurpose {
    Filter,
    /// A time to go to.
    Seek,
}

/// What a key did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptResult {
    Unchanged,
    Changed,
    Submitted,
    Cancelled,
}

/// Characters of a line: as long as a filter may be.
const MAX_CHARS: usize = tracer_core::filter::MAX_FILTER_CHARS;

/// The line, its cursor, and what is wrong with it.
#[derive(Clone, Debug)]
pub struct Prompt {
    pub purpose: PromptPurpose,
    text: Vec<char>,
    cursor: usize,
    /// What is wrong, and at which character (from 0) if that is known.
    pub error: Option<(String, Option<usize>)>,
}

impl Prompt {
    pub fn new(purpose: PromptPurpose, text: &str) -> Self {
        let text: Vec<char> = text.chars().collect();
        Self { purpose, cursor: text.len(), text, error: None }
    }

    pub fn text(&self) -> String {
        self.text.iter().collect()
    }

    /// Characters before the cursor.
    pub fn cursor(&self) -> usize {
        self.cursor
    }

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
