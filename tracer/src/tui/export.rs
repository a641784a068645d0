//! What is shown, as a text file for a ticket: the screen, then its tables with all their rows.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::PathBuf;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::app::App;
use super::options::RenderOptions;
use super::render::table::TextTable;
use super::screen;

/// Columns and lines of the screen in the file.
const SCREEN: (u16, u16) = (120, 40);
/// Rows of a table; a port range has more, and nobody reads them in a ticket.
const MAX_ROWS: usize = 2_000;
/// Files of one second before giving up.
const MAX_TRIES: u32 = 100;

/// The file that was written, in the working directory.
pub fn write(app: &App, options: RenderOptions) -> io::Result<PathBuf> {
    let text = text(app, options);
    let time = app.trace.date_time(app.frame.snapshot.now).replace(['-', ':'], "").replace(' ', "-");
    let name = format!("portchurn-{}-{time}", app.page().name());
    for number in 1..MAX_TRIES {
        let name = if number == 1 { format!("{name}.txt") } else { format!("{name}-{number}.txt") };
        let mut options = OpenOptions::new();
        // Never over something that is there, be it a link.
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        match options.open(&name) {
            Ok(mut file) => {
                file.write_all(text.as_bytes())?;
                return std::path::absolute(name);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{name}.txt and its followers exist")))
}

/// The screen and the tables of the page.
pub fn text(app: &App, options: RenderOptions) -> String {
    let options = RenderOptions { colour: false, ..options };
    let mut buffer = Buffer::empty(Rect::new(0, 0, SCREEN.0, SCREEN.1));
    screen::draw(app, options, &mut buffer);
    let mut out = screen(&buffer);
    for &pane in app.page().panes() {
        let rows = app.rows.shown(pane);
        if rows.is_empty() {
            continue;
        }
        out.push('\n');
        out += &app.rows.visit(
            &app.row_input(),
            pane,
            TextTable { rows, context: app.cell_context(options), limit: MAX_ROWS },
        );
    }
    out
}

/// The letters of a screen, without the keys' line at its bottom.
fn screen(buffer: &Buffer) -> String {
    let area = buffer.area;
    let lines = (area.y..area.bottom().saturating_sub(1)).map(|y| {
        let line: String =
            (area.x..area.right()).filter_map(|x| buffer.cell((x, y))).map(ratatui::buffer::Cell::symbol).collect();
        line.trim_end().to_owned()
    });
    let mut lines: Vec<String> = lines.collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines.join("\n") + "\n"
}
