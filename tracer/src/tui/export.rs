//! A page as a text file for a ticket: the screen, then its tables with all their rows.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use super::app::App;
use super::options::RenderOptions;
use super::render::table::TextTable;
use super::screen;

/// Columns and lines that the screen has in the file.
const SCREEN: (u16, u16) = (120, 40);
/// Rows of a table in the file. A full port range has 64,512, which nobody reads in a ticket.
const MAX_ROWS: usize = 2_000;
/// Files with the time of one second that are written before giving up.
const MAX_TRIES: u32 = 100;

/// Writes the page into a new file in `dir` and returns its path.
///
/// # Errors
/// The file cannot be created or written, or [`MAX_TRIES`] files of this second exist.
pub fn write(dir: &Path, app: &App, options: RenderOptions) -> io::Result<PathBuf> {
    let text = text(app, options);
    let time = app.trace.date_time(app.frame.snapshot.now).replace(['-', ':'], "").replace(' ', "-");
    let name = format!("portchurn-{}-{time}", app.page().name());
    for number in 1..=MAX_TRIES {
        let path = dir.join(if number == 1 { format!("{name}.txt") } else { format!("{name}-{number}.txt") });
        let mut options = OpenOptions::new();
        // `create_new` overwrites no file and follows no link.
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        match options.open(&path) {
            Ok(mut file) => {
                file.write_all(text.as_bytes())?;
                return std::path::absolute(path);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{name}.txt and its followers exist")))
}

/// The text of the file: the screen without colours, and the tables of the page.
pub fn text(app: &App, options: RenderOptions) -> String {
    let options = RenderOptions { colour: false, ..options };
    let mut buffer = Buffer::empty(Rect::new(0, 0, SCREEN.0, SCREEN.1));
    screen::draw(app, options, &mut buffer);
    let mut out = letters(&buffer);
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

/// The letters of a screen, without the line of the keys at its bottom.
fn letters(buffer: &Buffer) -> String {
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
