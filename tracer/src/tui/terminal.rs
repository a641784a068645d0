//! The terminal: takes it over, draws frames, reads keys, and gives it back however the view ends.
//!
//! It is given back on return, on an error, on a panic of any thread (the panic hook runs before the message is printed, so that
//! the message can be read), and when the publisher of the frames goes away, which is what a signal leads to. After SIGKILL it is
//! not given back.

use std::io::{self, Write};
use std::path::Path;
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

/// New frames are drawn at most this often: nobody reads faster, and an ssh connection may be slow.
const FRAME_EVERY: Duration = Duration::from_millis(100);
/// Keys are answered sooner; a key that is held down is not drawn for every repetition.
const KEY_EVERY: Duration = Duration::from_millis(20);
/// The longest wait for a key before looking for a frame.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The same while the answer to an order is expected.
const LOOK_FOR_ANSWER_EVERY: Duration = Duration::from_millis(5);
/// An answer is expected for this long after the order.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);
/// Keys that are handled before the screen is drawn: pasted text must not keep it waiting for ever.
const MAX_BURST: usize = 256;

/// The terminal is in raw mode and shows the view.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Gives the terminal back when dropped.
struct TerminalGuard;

impl TerminalGuard {
    fn take() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let previous = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                give_back();
                previous(panic);
            }));
        });
        let guard = Self;
        take_over()?;
        Ok(guard)
    }
}

fn take_over() -> io::Result<()> {
    enable_raw_mode()?;
    TAKEN.store(true, Ordering::SeqCst);
    execute!(io::stdout(), EnterAlternateScreen, EnableMouseCapture, Hide)
}

/// Gives the terminal to the shell and stops the whole process, collection included, until `fg`. What the kernel writes meanwhile waits in
/// the ring buffer, or is lost and counted.
fn suspend() -> io::Result<()> {
    give_back();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(0), nix::sys::signal::Signal::SIGTSTP)?;
    take_over()
}

impl Drop for TerminalGuard {
    fn drop(&mut self) {
        give_back();
    }
}

/// Gives the terminal back, unless that has been done: the guard, the panic hook and a caller that cannot wait may all call this.
pub fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        // Errors mean that the terminal is gone.
        let _ = execute!(io::stdout(), DisableMouseCapture, LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

/// A source of key presses and clicks.
pub trait KeySource {
    /// Waits for an event, at most `wait`. True if there is one.
    ///
    /// # Errors
    /// The terminal cannot be read.
    fn poll(&mut self, wait: Duration) -> io::Result<bool>;

    /// Takes the next event, waiting for it if there is none.
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

/// Shows frames and takes keys until the user quits or the publisher goes away.
///
/// # Errors
/// The terminal cannot be read or written.
pub fn run(viewer: &Viewer, app: App, options: RenderOptions) -> io::Result<()> {
    let _guard = TerminalGuard::take()?;
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
    let mut changes = Changes { frame: false, key: true, answered_by: None };
    let mut drawn = Instant::now();
    loop {
        if keys.poll(changes.wait(drawn, Instant::now()))? {
            for _ in 0..MAX_BURST {
                let effects = input(&mut app, &keys.read()?);
                changes.key = true;
                for effect in effects {
                    if matches!(effect, Effect::Order(_)) {
                        changes.answered_by = Some(Instant::now() + ANSWER_WITHIN);
                    }
                    if effect == Effect::Suspend {
                        suspend()?;
                        terminal.clear()?;
                    } else if apply(effect, &mut app, viewer, options)? {
                        return Ok(());
                    }
                }
                if !keys.poll(Duration::ZERO)? {
                    break;
                }
            }
        }
        if let Some(frame) = viewer.latest() {
            changes.frame |= app.accept(frame);
        }
        if viewer.is_closed() || !ours() {
            return Ok(());
        }
        if changes.due(drawn, Instant::now()).is_some_and(|due| due <= Instant::now()) {
            draw(&mut terminal, &mut app, options)?;
            drawn = Instant::now();
            changes = Changes { frame: false, key: false, ..changes };
        }
    }
}

/// What has happened since the screen was drawn.
struct Changes {
    /// A frame came.
    frame: bool,
    /// A key was pressed, or the size changed.
    key: bool,
    /// Until then the next frame may be the answer to an order and is drawn as soon as a key is.
    answered_by: Option<Instant>,
}

impl Changes {
    /// When the screen has to be drawn again.
    fn due(&self, drawn: Instant, now: Instant) -> Option<Instant> {
        match (self.key, self.frame) {
            (true, _) => Some(drawn + KEY_EVERY),
            (false, true) if self.awaits_answer(now) => Some(drawn + KEY_EVERY),
            (false, true) => Some(drawn + FRAME_EVERY),
            (false, false) => None,
        }
    }

    /// How long to wait for a key before looking for a frame.
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

/// Carries out an effect. True if it ends the view.
fn apply(effect: Effect, app: &mut App, viewer: &Viewer, options: RenderOptions) -> io::Result<bool> {
    match effect {
        Effect::Quit => return Ok(true),
        Effect::Suspend => {}
        Effect::Order(order) => {
            if !viewer.give_order(order) {
                app.message = Some("busy: press the key again".into());
            }
        }
        Effect::Export => {
            app.message = Some(match export::write(Path::new("."), app, options) {
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
        let due = |frame, key, answered_by| Changes { frame, key, answered_by }.due(now, now).map(|due| due - now);
        assert_eq!(due(false, false, None), None, "nothing to draw");
        assert_eq!(due(true, false, None), Some(FRAME_EVERY));
        assert_eq!(due(true, true, None), Some(KEY_EVERY));
        assert_eq!(due(true, false, Some(now + ANSWER_WITHIN)), Some(KEY_EVERY));
        assert_eq!(due(true, false, Some(now)), Some(FRAME_EVERY), "no answer came");
    }
}
