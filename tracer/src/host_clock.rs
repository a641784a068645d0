//! The clocks of this host: the one that stamps events, and its offset from wall time.

use nix::time::ClockId;
use tracer_core::clock::Clock;
use tracer_core::event::Ktime;

/// The anchor of this host at this moment: `CLOCK_REALTIME` against the mean of two `CLOCK_MONOTONIC` reads around it.
///
/// Of a few samples the one with the shortest time between its reads is taken, because the thread may be preempted in the middle of any.
///
/// # Errors
/// [`nix::Error`]: `clock_gettime` failed.
pub fn sample() -> nix::Result<Clock> {
    /// The first reads are slow (cold vDSO pages); from the third on the bracket is about half a microsecond.
    const SAMPLES: usize = 5;
    let mut best: Option<(u64, Clock)> = None;
    for _ in 0..SAMPLES {
        let before = nanos(ClockId::CLOCK_MONOTONIC)?;
        let wall = nanos(ClockId::CLOCK_REALTIME)?;
        let after = nanos(ClockId::CLOCK_MONOTONIC)?;
        let width = after.saturating_sub(before);
        if best.is_none_or(|(least, _)| width < least) {
            best = Some((width, Clock::new(Ktime(before + width / 2), i64::try_from(wall).unwrap_or(i64::MAX))));
        }
    }
    best.map(|(_, clock)| clock).ok_or(nix::Error::EINVAL)
}

/// `CLOCK_MONOTONIC` now, the clock that stamps events. The call cannot fail on Linux; 0 if it does, which moves no clock.
pub fn now() -> Ktime {
    nanos(ClockId::CLOCK_MONOTONIC).map(Ktime).unwrap_or_default()
}

/// A clock's reading. Both clocks used here are never negative on Linux: the kernel refuses to set them before 1970.
fn nanos(clock: ClockId) -> nix::Result<u64> {
    let now = clock.now()?;
    let (seconds, rest) = (u64::try_from(now.tv_sec()), u64::try_from(now.tv_nsec()));
    Ok(seconds.unwrap_or(0) * 1_000_000_000 + rest.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sampled_anchor_agrees_with_the_system() {
        let clock = sample().expect("clocks can be read");
        let wall = clock.to_timestamp(now());
        let off = jiff::Timestamp::now().duration_since(wall).abs();
        assert!(off < jiff::SignedDuration::from_secs(1), "off by {off}");
    }
}
