//! Times as people type them about a recording, on the command line and in the full-screen view: `3m ago`, `14:02`, `40%`, RFC 3339.

use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};

use crate::clock::Clock;
use crate::event::Ktime;
use crate::replay::Span;

/// What was typed, before it is known what it refers to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum TimeInput {
    /// `3m ago` or `-3m`: nanoseconds before the position.
    Back(u64),
    /// `+90s`: nanoseconds after the position.
    Forward(u64),
    /// `14:02` or `14:02:30`.
    TimeOfDay(Time),
    /// `2026-03-14T14:02:00Z`.
    At(Timestamp),
    /// `40%` of the recording; at most 100.
    Percent(u8),
}

/// What a typed time refers to.
#[derive(Clone, Copy, Debug)]
pub struct TimeReference<'a> {
    /// First and last time of the recording.
    pub span: Span,
    /// Where the reader is; `None` before a replay has begun. Then time is counted back from the end and forward from the beginning.
    pub position: Option<Ktime>,
    /// The clock of the recording.
    pub clock: Clock,
    /// The reader's zone, which times of day are in.
    pub zone: &'a TimeZone,
}

impl TimeInput {
    /// Reads what was typed; `None` if it is no time.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Some(percent) = text.strip_suffix('%') {
            return percent.trim().parse().ok().filter(|&percent| percent <= 100).map(Self::Percent);
        }
        if let Some(amount) = text.strip_suffix("ago").or_else(|| text.strip_prefix('-')) {
            return nanos(amount).map(Self::Back);
        }
        if let Some(amount) = text.strip_prefix('+') {
            return nanos(amount).map(Self::Forward);
        }
        text.parse().map(Self::At).or_else(|_| text.parse().map(Self::TimeOfDay)).ok()
    }

    /// The instant, which may lie outside of the recording.
    ///
    /// A time of day is that of the day at the position; before a replay has begun it is the first such time within the recording, or
    /// that of the recording's first day if there is none.
    pub fn ktime(self, about: &TimeReference<'_>) -> Ktime {
        let TimeReference { span, position, clock, .. } = *about;
        match self {
            Self::Back(nanos) => Ktime(position.unwrap_or(span.last).0.saturating_sub(nanos)),
            Self::Forward(nanos) => position.unwrap_or(span.first).plus(nanos),
            Self::At(at) => clock.to_ktime(at),
            Self::TimeOfDay(time) => about.time_of_day(time),
            Self::Percent(percent) => {
                let part = u128::from(span.last.since(span.first)) * u128::from(percent) / 100;
                span.first.plus(u64::try_from(part).unwrap_or(u64::MAX))
            }
        }
    }
}

impl TimeReference<'_> {
    fn time_of_day(&self, time: Time) -> Ktime {
        let day = self.zone.to_datetime(self.clock.to_timestamp(self.position.unwrap_or(self.span.first))).date();
        // Only the last days of a calendar lack a time of day.
        let at = |day: Date| {
            let zoned = day.to_datetime(time).to_zoned(self.zone.clone()).ok();
            zoned.map(|at| self.clock.to_ktime(at.timestamp()))
        };
        let (today, tomorrow) = (at(day), day.checked_add(1.day()).ok().and_then(at));
        let inside = |at: &Ktime| (self.span.first..=self.span.last).contains(at);
        match self.position {
            Some(_) => today,
            None => [today, tomorrow].into_iter().flatten().find(inside).or(today),
        }
        .unwrap_or(self.span.first)
    }
}

/// Nanoseconds of a duration that is not negative.
fn nanos(text: &str) -> Option<u64> {
    let duration: SignedDuration = text.trim().parse().ok()?;
    u64::try_from(duration.as_nanos()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-03-14T02:11:07Z at the fifth second, until two hours later.
    const CLOCK: Clock = Clock::new(Ktime(5_000_000_000), 1_773_454_267_000_000_000);
    const SPAN: Span = Span { first: Ktime(5_000_000_000), last: Ktime(7_205_000_000_000) };

    /// Seconds from the beginning.
    fn second(text: &str, position: Option<Ktime>, zone: &TimeZone) -> i64 {
        let about = TimeReference { span: SPAN, position, clock: CLOCK, zone };
        let ktime = TimeInput::parse(text).expect(text).ktime(&about);
        i64::try_from(ktime.0 / 1_000_000_000).expect("small") - 5
    }

    #[test]
    fn times_are_about_the_recording_not_about_now() {
        let utc = TimeZone::UTC;
        let begin = |text| second(text, None, &utc);
        assert_eq!((begin("2h ago"), begin("90s ago"), begin("-90s"), begin("+90s")), (0, 7_110, 7_110, 90));
        assert_eq!((begin("02:12"), begin("02:11:10"), begin("25%")), (53, 3, 1_800));
        assert_eq!(begin("2026-03-14T02:12:07Z"), 60);
        assert_eq!(second("03:12", None, &TimeZone::fixed(jiff::tz::offset(1))), 53, "in the reader's zone");
    }

    #[test]
    fn in_the_middle_of_a_recording_times_count_from_there() {
        let utc = TimeZone::UTC;
        let middle = |text| second(text, Some(Ktime(605_000_000_000)), &utc);
        assert_eq!((middle("5m ago"), middle("-5m"), middle("+90s")), (300, 300, 690));
        assert_eq!((middle("02:12:07"), middle("50%")), (60, 3_600));
    }

    #[test]
    fn a_time_of_day_behind_midnight_is_the_next_days() {
        // 23:11 local of the day before, so that 00:30 lies behind midnight.
        let zone = TimeZone::fixed(jiff::tz::offset(-3));
        assert_eq!(second("00:30", None, &zone), 3_600 + 18 * 60 + 53);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for wrong in ["", "soon", "ago", "-3m ago", "--3m", "+-3m", "25:00", "101%", "-1%", "%"] {
            assert_eq!(TimeInput::parse(wrong), None, "{wrong}");
        }
    }
}
