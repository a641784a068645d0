//! The terminal: taken over, given back however this ends, read and drawn in between.
//!
//! Given back means: on return, on an error, on a panic of any thread (the hook runs before the message is printed, so that it
//! can be read), and when whoever publishes goes away, which is what a signal leads to. Only kill -9 is beyond us.

use std::io::{self, Stdout, Write as _};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossterm::clipboard::CopyToClipboard;
use crossterm::cursor::{Hide, Show};
use crossterm::event::{self, DisableMouseCapture, EnableMouseCapture, Event, KeyEventKind};
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use crossterm::{execute, queue};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;

use super::app::{App, Effect};
use super::feed::Viewer;
use super::{Look, export, render};

/// New frames are drawn at most this often: nobody reads faster, and ssh lines are narrow.
const FRAME_EVERY: Duration = Duration::from_millis(100);
/// Keys are answered sooner, yet a key held down does not make us draw for every repetition.
const KEY_EVERY: Duration = Duration::from_millis(20);
/// Longest wait for a key before looking for a frame.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Keys taken at once before drawing: pasted text must not keep the screen waiting.
const MAX_BURST: usize = 256;

/// The terminal is ours.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Gives the terminal back when dropped.
struct Guard;

impl Guard {
    fn take() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let previous = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                give_back();
                previous(panic);
            }));
        });
        enable_raw_mode()?;
        TAKEN.store(true, Ordering::SeqCst);
        let guard = Self;
        execute!(io::stdout(), EnterAlternateScreen, EnableMouseCapture, Hide)?;
        Ok(guard)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        give_back();
    }
}

/// Once, whoever comes first.
pub fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        // A terminal that is gone cannot be given back.
        let _ = execute!(io::stdout(), DisableMouseCapture, LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

/// Shows frames and takes keys until the user quits or nobody publishes any more.
///
/// # Errors
/// The terminal cannot be read or written.
pub fn run(viewer: &Viewer, mut app: App, look: &Look) -> io::Result<()> {
    let guard = Guard::take()?;
    let mut terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
    let mut pending = Pending { since: None, key: true };
    let mut drawn = Instant::now();
    loop {
        let wait = pending.due(drawn).map_or(LOOK_EVERY, |due| due.saturating_duration_since(Instant::now()));
        if event::poll(wait.min(LOOK_EVERY))? {
            for _ in 0..MAX_BURST {
                let effects = input(&mut app, &event::read()?);
                pending.key = true;
                for effect in effects {
                    if carry_out(effect, &mut app, viewer, look)? {
                        drop(guard);
                        return Ok(());
                    }
                }
                if !event::poll(Duration::ZERO)? {
                    break;
                }
            }
        }
        if let Some(frame) = viewer.latest()
            && app.accept(frame)
        {
            pending.since.get_or_insert_with(Instant::now);
        }
        if viewer.over() || !TAKEN.load(Ordering::SeqCst) {
            return Ok(());
        }
        if pending.due(drawn).is_some_and(|due| due <= Instant::now()) {
            draw(&mut terminal, &mut app, look)?;
            drawn = Instant::now();
            pending = Pending { since: None, key: false };
        }
    }
}

/// What has not been drawn yet.
struct Pending {
    /// A frame came.
    since: Option<Instant>,
    /// A key was pressed, or the size changed.
    key: bool,
}

impl Pending {
    fn due(&self, drawn: Instant) -> Option<Instant> {
        match (self.key, self.since) {
            (true, _) => Some(drawn + KEY_EVERY),
            (false, Some(_)) => Some(drawn + FRAME_EVERY),
            (false, None) => None,
        }
    }
}

fn draw(terminal: &mut Terminal<CrosstermBackend<Stdout>>, app: &mut App, look: &Look) -> io::Result<()> {
    let mut drawn = render::Drawn::default();
    terminal.draw(|frame| {
        drawn = render::draw(app, look, frame.buffer_mut());
        if let Some(cursor) = drawn.cursor {
            frame.set_cursor_position(cursor);
        }
    })?;
    app.drawn(drawn.hits);
    Ok(())
}

fn input(app: &mut App, event: &Event) -> Vec<Effect> {
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => app.key(key),
        Event::Mouse(mouse) => app.mouse(mouse),
        _ => Vec::new(),
    }
}

/// True if it was to quit.
fn carry_out(effect: Effect, app: &mut App, viewer: &Viewer, look: &Look) -> io::Result<bool> {
    match effect {
        Effect::Quit => return Ok(true),
        Effect::Order(order) => {
            if !viewer.order(order) {
                app.message = Some("busy: press the key again".into());
            }
        }
        Effect::Export => {
            app.message = Some(match export::write(app, look) {
                Ok(path) => format!("written: {}", path.display()),
                Err(error) => format!("not written: {error}"),
            });
        }
        Effect::Copy(text) => {
            let mut out = io::stdout();
            queue!(out, CopyToClipboard::to_clipboard_from(text))?;
            out.flush()?;
        }
    }
    Ok(false)
}
