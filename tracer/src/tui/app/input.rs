//! Keys and clicks: what they change in the app, and which effects they ask for.

use std::sync::Arc;

use crossterm::event::{KeyCode, KeyEvent, MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::Position;

use super::{App, Effect, Overlay, time_input};
use crate::tui::channel::ViewOrder;
use crate::tui::keys::{self, Action};
use crate::tui::options::RenderOptions;
use crate::tui::page::{Page, Pane, Sort};
use crate::tui::prompt::{Prompt, PromptPurpose, PromptResult};
use tracer_core::filter::Filter;
use tracer_core::tracker::snapshot::detail::DetailRequest;

/// Rows that one turn of the wheel moves.
const WHEEL_ROWS: isize = 3;
/// Lines by which the help can be scrolled. More than any terminal needs, few enough to get back from.
const MAX_HELP_LINE: usize = keys::BINDINGS.len();

impl App {
    /// Handles a key press.
    pub fn key(&mut self, key: &KeyEvent) -> Vec<Effect> {
        self.message = None;
        if keys::is_suspend(key) {
            return vec![Effect::Suspend];
        }
        let effects = match self.overlay.take() {
            None => match keys::action(key, self.replaying()) {
                Some(action) => self.act(action),
                None => Vec::new(),
            },
            Some(Overlay::Help(line)) => {
                self.help_key(key, line);
                Vec::new()
            }
            Some(Overlay::Quit) => match key.code {
                KeyCode::Char('y' | 'Y') => vec![Effect::Quit],
                _ => Vec::new(),
            },
            Some(Overlay::Prompt(prompt)) => self.prompt_key(prompt, key),
        };
        self.with_detail_request(effects)
    }

    /// Handles a click or a turn of the wheel.
    pub fn mouse(&mut self, event: &MouseEvent) -> Vec<Effect> {
        let at = Position::new(event.column, event.row);
        let wheel = match event.kind {
            MouseEventKind::ScrollDown => WHEEL_ROWS,
            MouseEventKind::ScrollUp => -WHEEL_ROWS,
            MouseEventKind::Down(MouseButton::Left) => 0,
            _ => return Vec::new(),
        };
        if let Some(Overlay::Help(line)) = &mut self.overlay {
            *line = line.saturating_add_signed(wheel).min(MAX_HELP_LINE);
            return Vec::new();
        }
        if self.overlay.is_some() {
            return Vec::new();
        }
        self.message = None;
        let tab = self.hits.tabs.iter().find(|(area, _)| area.contains(at)).map(|(_, tab)| *tab);
        if let Some(tab) = tab.filter(|_| wheel == 0) {
            let effects = self.act(Action::Tab(tab));
            return self.with_detail_request(effects);
        }
        let Some(hit) = self.hits.tables.iter().find(|hit| hit.area.contains(at)).copied() else { return Vec::new() };
        if let Some(index) = self.page().panes().iter().position(|pane| *pane == hit.pane) {
            self.current_mut().pane = index;
        }
        if wheel != 0 {
            self.step(wheel);
        } else if hit.rows.contains(at) {
            let index = hit.offset + usize::from(at.y - hit.rows.y);
            if index < self.rows.shown(hit.pane).len() {
                let again = self.cursor(hit.pane).index == index && self.cursor(hit.pane).id.is_some();
                self.select(hit.pane, index);
                if again {
                    self.enter();
                }
            }
        }
        self.with_detail_request(Vec::new())
    }

    /// Adds the order for the details of the present page, if the page has changed.
    fn with_detail_request(&mut self, mut effects: Vec<Effect>) -> Vec<Effect> {
        let mut request = DetailRequest::default();
        match self.page() {
            Page::Workload(name) => request.workload = Some(Arc::clone(name)),
            Page::Destination(place) => request.destination = Some(*place),
            Page::Flow(key) => request.flow = Some(*key),
            Page::Overview | Page::Findings | Page::Failures => {}
        }
        if request != self.requested {
            self.requested = request.clone();
            effects.push(Effect::Order(ViewOrder::Details(request)));
        }
        effects
    }

    fn act(&mut self, action: Action) -> Vec<Effect> {
        match action {
            Action::Up => self.step(-1),
            Action::Down => self.step(1),
            Action::PageUp | Action::PageDown => self.turn_page(action == Action::PageDown),
            Action::First => self.step(isize::MIN / 2),
            Action::Last => self.step(isize::MAX / 2),
            Action::Enter => self.enter(),
            Action::Back => self.leave(),
            Action::NextPane => self.turn(1),
            Action::PreviousPane => self.turn(-1),
            Action::Tab(tab) => self.go(tab),
            Action::Sort => self.sort_next(),
            Action::Reverse => {
                let pane = self.pane();
                let sort = self.sort(pane);
                self.set_sort(pane, Sort { reversed: !sort.reversed, ..sort });
            }
            Action::Filter => {
                self.filter_before = (self.filter.clone(), self.filter_text.clone());
                self.overlay = Some(Overlay::Prompt(Prompt::new(PromptPurpose::Filter, &self.filter_text)));
            }
            Action::Seek => self.overlay = Some(Overlay::Prompt(Prompt::new(PromptPurpose::Seek, ""))),
            Action::Help => self.overlay = Some(Overlay::Help(0)),
            Action::Pause => return self.pause(),
            Action::Slower | Action::Faster => {
                if let Some(replay) = &self.newest().status.replay {
                    return order(ViewOrder::Speed(replay.speed.next(action == Action::Faster)));
                }
            }
            Action::StepBack => return order(ViewOrder::Step(-1)),
            Action::StepForward => return order(ViewOrder::Step(1)),
            Action::NextMark => return order(ViewOrder::NextMark),
            Action::NextFinding => self.next_finding(),
            Action::Record => return order(ViewOrder::Record(self.newest().status.recording.is_none())),
            Action::Export => return vec![Effect::Export],
            Action::Copy => return self.copy(),
            Action::Quit => return self.quit(),
        }
        Vec::new()
    }

    /// Goes to the page of the findings, and there to the next one; after the last one comes the first.
    fn next_finding(&mut self) {
        if *self.page() != Page::Findings {
            return self.go(1);
        }
        let index = self.cursor(Pane::Findings).index + 1;
        self.select(Pane::Findings, if index < self.rows.shown(Pane::Findings).len() { index } else { 0 });
    }

    fn pause(&mut self) -> Vec<Effect> {
        if let Some(replay) = &self.frame.status.replay {
            return order(ViewOrder::Pause(!replay.paused));
        }
        self.paused = !self.paused;
        if let Some(newest) = self.pending.take().filter(|_| !self.paused) {
            self.whole = newest;
        }
        self.refresh();
        Vec::new()
    }

    fn quit(&mut self) -> Vec<Effect> {
        if self.newest().status.recording.is_some() {
            self.overlay = Some(Overlay::Quit);
            return Vec::new();
        }
        vec![Effect::Quit]
    }

    fn copy(&mut self) -> Vec<Effect> {
        let pane = self.pane();
        let options = RenderOptions { colour: false, unicode: true };
        let context = self.cell_context(options);
        match self.rows.text_of(&self.row_input(), context, pane, self.cursor(pane).index) {
            Some(text) => {
                self.message = Some(format!("copied: {}", text.replace('\t', "  ")));
                vec![Effect::Copy(text)]
            }
            None => {
                self.message = Some("there is no row to copy".into());
                Vec::new()
            }
        }
    }

    fn help_key(&mut self, key: &KeyEvent, line: usize) {
        let line = match keys::action(key, self.replaying()) {
            Some(Action::Down) => line + 1,
            Some(Action::Up) => line.saturating_sub(1),
            Some(Action::PageDown) => line + 10,
            Some(Action::PageUp) => line.saturating_sub(10),
            _ => return,
        };
        self.overlay = Some(Overlay::Help(line.min(MAX_HELP_LINE)));
    }

    fn prompt_key(&mut self, mut prompt: Prompt, key: &KeyEvent) -> Vec<Effect> {
        let typed = prompt.key(key);
        match (prompt.purpose, typed) {
            (PromptPurpose::Filter, PromptResult::Changed) => {
                self.filter_as_typed(&mut prompt);
                self.overlay = Some(Overlay::Prompt(prompt));
            }
            (PromptPurpose::Filter, PromptResult::Submitted) if prompt.error.is_none() => {
                self.filter_text = prompt.text();
            }
            (PromptPurpose::Filter, PromptResult::Cancelled) => {
                (self.filter, self.filter_text) = std::mem::take(&mut self.filter_before);
                self.refresh();
            }
            (PromptPurpose::Seek, PromptResult::Submitted) => match time_input::instant(&prompt.text(), self) {
                Ok(at) => return order(ViewOrder::Seek(at)),
                Err(error) => {
                    prompt.error = Some((error, None));
                    self.overlay = Some(Overlay::Prompt(prompt));
                }
            },
            (PromptPurpose::Seek, PromptResult::Cancelled) => {}
            (_, PromptResult::Unchanged | PromptResult::Changed | PromptResult::Submitted) => {
                if typed == PromptResult::Changed {
                    prompt.error = None;
                }
                self.overlay = Some(Overlay::Prompt(prompt));
            }
        }
        Vec::new()
    }

    /// Applies the filter if it can be parsed, so that it works while it is typed; else the last one stays.
    fn filter_as_typed(&mut self, prompt: &mut Prompt) {
        let text = prompt.text();
        if text.trim().is_empty() {
            prompt.error = None;
            self.filter = None;
        } else {
            match Filter::parse(&text) {
                Ok(filter) => {
                    prompt.error = None;
                    self.filter = Some(filter);
                }
                Err(error) => {
                    let at = error.column.saturating_sub(1);
                    prompt.error = Some((format!("found {}, expected {}", error.found, error.expected), Some(at)));
                    return;
                }
            }
        }
        self.refresh();
    }
}

fn order(order: ViewOrder) -> Vec<Effect> {
    vec![Effect::Order(order)]
}
