//! The terminal: taken over, given back however this ends, read and drawn in between.
//!
//! Given back means: on return, on an error, on a panic of any thread (the hook runs before the message is printed, so that it
//! can be read), and when whoever publishes goes away, which is what a signal leads to. Only kill -9 is beyond us.

use std::io::{self, Write};
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
use super::channel::Viewer;
use super::options::RenderOptions;
use super::{export, screen};

/// New frames are drawn at most this often: nobody reads faster, and ssh lines are narrow.
const FRAME_EVERY: Duration = Duration::from_millis(100);
/// Keys are answered sooner, yet a key held down does not make us draw for every repetition.
const KEY_EVERY: Duration = Duration::from_millis(20);
/// Longest wait for a key before looking for a frame.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The same while what a key asked the other side for is on its way; so long is it waited for.
const LOOK_FOR_ANSWER_EVERY: Duration = Duration::from_millis(5);
const ANSWER_WITHIN: Duration = Duration::from_millis(300);
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

/// Where keys come from.
pub trait KeySource {
    /// Waits for one, at most so long.
    ///
    /// # Errors
    /// The terminal cannot be read.
    fn poll(&mut self, wait: Duration) -> io::Result<bool>;

    /// Takes it.
    ///
    /// # Errors
    /// The terminal cannot be read.
    fn read(&mut self) -> io::Result<Event>;
}

struct Keyboard;

impl KeySource for Keyboard {
    fn poll(&mut self, wait: Duration) -> io::Result<bool> {
        event::poll(wait)
    }

    fn read(&mut self) -> io::Result<Event> {
        event::read()
    }
}

/// Shows frames and takes keys until the user quits or nobody publishes any more.
///
/// # Errors
/// The terminal cannot be read or written.
pub fn run(viewer: &Viewer, app: App, options: RenderOptions) -> io::Result<()> {
    let _guard = Guard::take()?;
    let terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
    run_on(viewer, app, options, terminal, Keyboard, || TAKEN.load(Ordering::SeqCst))
}

/// Like [`run`], on a terminal that somebody else has set up, for as long as `ours` says that it may be used.
///
/// # Errors
/// The keys cannot be read, or the terminal cannot be written.
pub fn run_on<W: Write>(
    viewer: &Viewer,
    mut app: App,
    options: RenderOptions,
    mut terminal: Terminal<CrosstermBackend<W>>,
    mut keys: impl KeySource,
    ours: impl Fn() -> bool,
) -> io::Result<()> {
    let mut pending = Pending { frame: false, key: true, answered_by: None };
    let mut drawn = Instant::now();
    loop {
        if keys.poll(pending.wait(drawn, Instant::now()))? {
            for _ in 0..MAX_BURST {
                let effects = input(&mut app, &keys.read()?);
                pending.key = true;
                for effect in effects {
                    if matches!(effect, Effect::Order(_)) {
                        pending.answered_by = Some(Instant::now() + ANSWER_WITHIN);
                    }
                    if carry_out(effect, &mut app, viewer, options)? {
                        return Ok(());
                    }
                }
                if !keys.poll(Duration::ZERO)? {
                    break;
                }
            }
        }
        if let Some(frame) = viewer.latest() {
            pending.frame |= app.accept(frame);
        }
        if viewer.is_closed() || !ours() {
            return Ok(());
        }
        if pending.due(drawn, Instant::now()).is_some_and(|due| due <= Instant::now()) {
            draw(&mut terminal, &mut app, options)?;
            drawn = Instant::now();
            pending = Pending { frame: false, key: false, ..pending };
        }
    }
}

/// What has not been drawn yet.
struct Pending {
    /// A frame came.
    frame: bool,
    /// A key was pressed, or the size changed.
    key: bool,
    /// Until then one of the next frames may be the answer to a key, which nobody likes to wait for.
    answered_by: Option<Instant>,
}

impl Pending {
    fn due(&self, drawn: Instant, now: Instant) -> Option<Instant> {
        match (self.key, self.frame) {
            (true, _) => Some(drawn + KEY_EVERY),
            (false, true) if self.awaits_answer(now) => Some(drawn + KEY_EVERY),
            (false, true) => Some(drawn + FRAME_EVERY),
            (false, false) => None,
        }
    }

    /// How long to wait for keys before looking for a frame.
    fn wait(&self, drawn: Instant, now: Instant) -> Duration {
        let look = if self.awaits_answer(now) { LOOK_FOR_ANSWER_EVERY } else { LOOK_EVERY };
        self.due(drawn, now).map_or(look, |due| due.saturating_duration_since(now)).min(look)
    }

    fn awaits_answer(&self, now: Instant) -> bool {
        self.answered_by.is_some_and(|until| now < until)
    }
}

fn draw<W: Write>(
    terminal: &mut Terminal<CrosstermBackend<W>>,
    app: &mut App,
    options: RenderOptions,
) -> io::Result<()> {
    let mut drawn = screen::ScreenLayout::default();
    terminal.draw(|frame| {
        drawn = screen::draw(app, options, frame.buffer_mut());
        if let Some(cursor) = drawn.cursor {
            frame.set_cursor_position(cursor);
        }
    })?;
    app.set_hit_map(drawn.hits);
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
fn carry_out(effect: Effect, app: &mut App, viewer: &Viewer, options: RenderOptions) -> io::Result<bool> {
    match effect {
        Effect::Quit => return Ok(true),
        Effect::Order(order) => {
            if !viewer.give_order(order) {
                app.message = Some("busy: press the key again".into());
            }
        }
        Effect::Export => {
            app.message = Some(match export::write(app, options) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_wait_their_turn_but_keys_and_their_answers_do_not() {
        let now = Instant::now();
        let due = |frame, key, answered_by| Pending { frame, key, answered_by }.due(now, now).map(|due| due - now);
        assert_eq!(due(false, false, None), None, "nothing to draw");
        assert_eq!(due(true, false, None), Some(FRAME_EVERY));
        assert_eq!(due(true, true, None), Some(KEY_EVERY));
        assert_eq!(due(true, false, Some(now + ANSWER_WITHIN)), Some(KEY_EVERY));
        assert_eq!(due(true, false, Some(now)), Some(FRAME_EVERY), "no answer came");
    }
}
