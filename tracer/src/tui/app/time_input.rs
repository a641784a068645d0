//! The time that somebody types after `t`.

use jiff::civil::Time;
use jiff::{SignedDuration, Timestamp};

use super::App;
use tracer_core::event::Ktime;

/// `14:02:30` (of the day that is shown), `+90s`, `-5m`, `5m ago` (before the present position), RFC 3339, or a percentage.
pub fn instant(text: &str, app: &App) -> Result<Ktime, String> {
    const EXPECTED: &str = "expected a time such as 14:02:30, +90s, -5m, 3m ago, 40% or 2026-03-14T14:02:30Z";
    let text = text.trim();
    let frame = app.newest();
    let replay = frame.status.replay.as_ref().ok_or("there is no recording to move in")?;
    let (now, clock) = (frame.snapshot.now, app.trace.clock);
    let within = |at: Ktime| at.min(replay.end).max(replay.start);
    if let Some(percent) = text.strip_suffix('%') {
        let percent: u64 = percent.trim().parse().ok().filter(|&percent| percent <= 100).ok_or(EXPECTED)?;
        let length = u128::from(replay.end.since(replay.start));
        return Ok(replay.start.plus(u64::try_from(length * u128::from(percent) / 100).unwrap_or(u64::MAX)));
    }
    let (back, amount) = match (text.strip_suffix("ago"), text.strip_prefix('+'), text.strip_prefix('-')) {
        (Some(amount), None, None) | (None, None, Some(amount)) => (true, Some(amount)),
        (None, Some(amount), None) => (false, Some(amount)),
        _ => (false, None),
    };
    if let Some(amount) = amount {
        let amount: SignedDuration = amount.trim().parse().map_err(|_| EXPECTED)?;
        let nanos = u64::try_from(amount.as_nanos()).map_err(|_| EXPECTED)?;
        return Ok(within(if back { Ktime(now.0.saturating_sub(nanos)) } else { now.plus(nanos) }));
    }
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Ok(within(clock.to_ktime(timestamp)));
    }
    let time: Time = text.parse().map_err(|_| EXPECTED)?;
    let zone = &app.trace.zone;
    let day = zone.to_datetime(clock.to_timestamp(now)).date();
    let zoned = day.to_datetime(time).to_zoned(zone.clone()).map_err(|_| EXPECTED)?;
    Ok(within(clock.to_ktime(zoned.timestamp())))
}
