//! One whole screen: which view draws which page, with the header above, the keys below and an overlay on top.
//!
//! Drawing changes nothing in the app.

use ratatui::buffer::Buffer;
use ratatui::layout::{Position, Rect};

use super::app::App;
use super::hit_map::HitMap;
use super::options::RenderOptions;
use super::page::Page;
use super::render::canvas::Canvas;
use super::views;
use tracer_core::layout::text::Paint;

/// Columns that a terminal must have.
const MIN_WIDTH: u16 = 60;
/// Lines that a terminal must have.
const MIN_HEIGHT: u16 = 15;

/// What the app and the terminal need to know of a screen that was drawn.
#[derive(Debug, Default)]
pub struct ScreenLayout {
    /// Where its parts are.
    pub hits: HitMap,
    /// Where the terminal's cursor stands, while something is being typed.
    pub cursor: Option<Position>,
}

/// Draws the whole screen into `buffer`.
pub fn draw(app: &App, options: RenderOptions, buffer: &mut Buffer) -> ScreenLayout {
    let area = buffer.area;
    let mut canvas = Canvas { buffer, options, hits: HitMap::default(), cursor: None };
    if area.width < MIN_WIDTH || area.height < MIN_HEIGHT {
        let text = format!(
            "This terminal has {}x{} characters; portchurn needs {MIN_WIDTH}x{MIN_HEIGHT}. Make it larger, or use `portchurn stream`. q quits.",
            area.width, area.height
        );
        canvas.paragraph(area, &Vec::new(), Paint::Plain, &text);
        return ScreenLayout::default();
    }
    let used = views::header::draw(&mut canvas, app, area);
    let footer = Rect { y: area.bottom() - 1, height: 1, ..area };
    let body = Rect { y: area.y + used, height: area.height - used - 1, ..area };
    match app.page() {
        Page::Overview => views::overview::draw(&mut canvas, app, body),
        Page::Findings => views::findings::draw(&mut canvas, app, body),
        Page::Failures => views::failures::draw(&mut canvas, app, body),
        Page::Workload(name) => views::workload::draw(&mut canvas, app, body, name),
        Page::Destination(place) => views::destination::draw(&mut canvas, app, body, place),
        Page::Flow(key) => views::flow::draw(&mut canvas, app, body, key),
    }
    views::header::footer(&mut canvas, app, footer);
    views::overlay::draw(&mut canvas, app, area);
    ScreenLayout { hits: canvas.hits, cursor: canvas.cursor }
}
