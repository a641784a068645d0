//! Times as people type them about a recording: `3m ago`, `14:02`, RFC 3339.

use jiff::civil::Time;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};

use tracer_core::clock::Clock;
use tracer_core::event::Ktime;
use tracer_core::replay::Span;

/// What was typed, before it is known what it is about.
#[derive(Clone, Debug, PartialEq)]
pub enum When {
    /// Before the end.
    Ago(SignedDuration),
    /// The first such time of day in the recording, or the nearest before it.
    TimeOfDay(Time),
    At(Timestamp),
}

impl std::str::FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some(ago) = text.strip_suffix("ago") {
            let duration = ago.trim().parse::<SignedDuration>().ok().filter(|ago| !ago.is_negative());
            return duration.map(Self::Ago).ok_or_else(|| expected(text));
        }
        if let Ok(at) = text.parse() {
            return Ok(Self::At(at));
        }
        text.parse().map(Self::TimeOfDay).map_err(|_| expected(text))
    }
}

fn expected(text: &str) -> String {
    format!("`{text}` is no time: expected 3m ago (before the end), 14:02, 14:02:30 or 2026-03-14T14:02:00Z")
}

impl When {
    /// The instant, in a recording of this span.
    pub fn ktime(&self, span: Span, clock: Clock, zone: &TimeZone) -> Ktime {
        match self {
            Self::Ago(ago) => Ktime(span.last.0.saturating_sub(u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX))),
            Self::At(at) => clock.to_ktime(*at),
            Self::TimeOfDay(time) => {
                let first = clock.to_timestamp(span.first).to_zoned(zone.clone());
                let day = first.date();
                let at = |day: jiff::civil::Date| {
                    day.to_datetime(*time).to_zoned(zone.clone()).ok().map(|at| at.timestamp())
                };
                let today = at(day);
                let tomorrow = day.checked_add(1.day()).ok().and_then(at);
                let last = clock.to_timestamp(span.last);
                let inside = [today, tomorrow].into_iter().flatten().find(|at| (first.timestamp()..=last).contains(at));
                clock.to_ktime(inside.or(today).unwrap_or_else(|| first.timestamp()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-03-14T02:11:07Z at the fifth second, until two hours later.
    const CLOCK: Clock = Clock::new(Ktime(5_000_000_000), 1_773_454_267_000_000_000);
    const SPAN: Span = Span { first: Ktime(5_000_000_000), last: Ktime(7_205_000_000_000) };

    fn second(text: &str, zone: &TimeZone) -> i64 {
        let ktime = text.parse::<When>().expect(text).ktime(SPAN, CLOCK, zone);
        i64::try_from(ktime.0 / 1_000_000_000).expect("small") - 5
    }

    #[test]
    fn times_are_about_the_recording_not_about_now() {
        let utc = TimeZone::UTC;
        assert_eq!(second("2h ago", &utc), 0);
        assert_eq!(second("90s ago", &utc), 7_110);
        assert_eq!(second("02:12", &utc), 53);
        assert_eq!(second("02:11:10", &utc), 3);
        assert_eq!(second("2026-03-14T02:12:07Z", &utc), 60);
        assert_eq!(second("03:12", &TimeZone::fixed(jiff::tz::offset(1))), 53, "in the reader's zone");
    }

    #[test]
    fn a_time_of_day_behind_midnight_is_the_next_days() {
        // 23:11 local of the day before, so that 00:30 lies behind midnight.
        let zone = TimeZone::fixed(jiff::tz::offset(-3));
        assert_eq!(second("00:30", &zone), 3_600 + 18 * 60 + 53);
    }

    #[test]
    fn what_is_no_time_is_told_what_is_one() {
        for wrong in ["", "soon", "ago", "-3m ago", "25:00"] {
            assert!(wrong.parse::<When>().is_err(), "{wrong}");
        }
    }
}
