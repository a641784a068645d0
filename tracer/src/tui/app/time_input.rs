//! The time that somebody types after `t`.

use super::App;
use tracer_core::event::Ktime;
use tracer_core::replay::Span;
use tracer_core::time_input::{TimeInput, TimeReference};

/// Where to go for what was typed: `14:02:30` (of the day that is shown), `+90s`, `-5m`, `5m ago` (before the present position),
/// RFC 3339, or a percentage.
///
/// # Errors
/// A sentence for the prompt: the text is no time, or there is no recording.
pub fn instant(text: &str, app: &App) -> Result<Ktime, String> {
    const EXPECTED: &str = "expected a time such as 14:02:30, +90s, -5m, 3m ago, 40% or 2026-03-14T14:02:30Z";
    let frame = app.newest();
    let replay = frame.status.replay.as_ref().ok_or("there is no recording to move in")?;
    let about = TimeReference {
        span: Span { first: replay.start, last: replay.end },
        position: Some(frame.snapshot.now),
        clock: app.trace.clock,
        zone: &app.trace.zone,
    };
    let at = TimeInput::parse(text).ok_or(EXPECTED)?.ktime(&about);
    Ok(at.min(replay.end).max(replay.start))
}
