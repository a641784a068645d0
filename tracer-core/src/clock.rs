//! Converts the instants of events into wall time.
//!
//! Events carry [`Ktime`] only, because NTP and `date -s` move the wall clock of a host during a trace, which must not
//! reorder events. People need wall time. A [`Clock`] converts with one anchor, and a recording stores the anchor, so
//! that a replay shows the times of the incident.
//!
//! Not for: reading the present time. The tracker gets the time as an argument.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::event::Ktime;

/// One instant on two clocks, the anchor, from which every other conversion follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    ktime: Ktime,
    unix_nanos: i64,
}

impl Clock {
    /// A clock with the anchor `ktime` = `unix_nanos` nanoseconds after 1970-01-01T00:00:00Z.
    pub const fn new(ktime: Ktime, unix_nanos: i64) -> Self {
        Self { ktime, unix_nanos }
    }

    /// The anchor as it was given, for storing.
    pub const fn anchor(self) -> (Ktime, i64) {
        (self.ktime, self.unix_nanos)
    }

    /// Wall time of `ktime`. An instant out of the range of [`Timestamp`], which only a damaged record has, becomes its
    /// last or first.
    pub fn to_timestamp(self, ktime: Ktime) -> Timestamp {
        let nanos = i128::from(self.unix_nanos) + i128::from(ktime.0) - i128::from(self.ktime.0);
        Timestamp::from_nanosecond(nanos).unwrap_or(if nanos < 0 { Timestamp::MIN } else { Timestamp::MAX })
    }

    /// The instant of a wall time; clamped to the range of [`Ktime`].
    pub fn to_ktime(self, timestamp: Timestamp) -> Ktime {
        let nanos = timestamp.as_nanosecond() - i128::from(self.unix_nanos) + i128::from(self.ktime.0);
        Ktime(u64::try_from(nanos).unwrap_or(if nanos < 0 { 0 } else { u64::MAX }))
    }

    /// `2026-03-14T02:11:07.000000123Z`: always nine digits, always UTC.
    pub fn rfc3339(self, ktime: Ktime) -> String {
        format!("{:.9}", self.to_timestamp(ktime))
    }

    /// `03:11:07.123` in `zone`.
    pub fn time_of_day(self, ktime: Ktime, zone: &TimeZone) -> String {
        zone.to_datetime(self.to_timestamp(ktime)).strftime("%H:%M:%S.%3f").to_string()
    }

    /// `2026-03-14 03:11:07` in `zone`.
    pub fn date_time(self, ktime: Ktime, zone: &TimeZone) -> String {
        zone.to_datetime(self.to_timestamp(ktime)).strftime("%Y-%m-%d %H:%M:%S").to_string()
    }

    /// `03:11:07` in `zone`, with its date in front if the day is not that of `today`.
    pub fn time_or_date(self, ktime: Ktime, today: Ktime, zone: &TimeZone) -> String {
        let full = self.date_time(ktime, zone);
        match (full.split_once(' '), self.date_time(today, zone).split_once(' ')) {
            (Some((day, time)), Some((same, _))) if day == same => time.to_owned(),
            _ => full,
        }
    }

    /// Abbreviation or offset of `zone` at `ktime`: `UTC`, `CET`, `+0530`.
    pub fn zone_name(self, ktime: Ktime, zone: &TimeZone) -> String {
        zone.to_offset_info(self.to_timestamp(ktime)).abbreviation().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOCK: Clock = Clock::new(Ktime(5_000_000_000), 1_773_454_267_000_000_000);

    #[test]
    fn times_have_nine_digits_and_end_in_z() {
        assert_eq!(CLOCK.rfc3339(Ktime(5_000_000_000)), "2026-03-14T02:11:07.000000000Z");
        assert_eq!(CLOCK.rfc3339(Ktime(5_000_000_001)), "2026-03-14T02:11:07.000000001Z");
        assert_eq!(CLOCK.rfc3339(Ktime(4_999_999_999)), "2026-03-14T02:11:06.999999999Z");
    }

    #[test]
    fn instants_go_there_and_back() {
        for nanos in [0, 1, 4_999_999_999, 5_000_000_000, 86_400_000_000_123] {
            assert_eq!(CLOCK.to_ktime(CLOCK.to_timestamp(Ktime(nanos))), Ktime(nanos));
        }
        assert_eq!(CLOCK.to_ktime(Timestamp::UNIX_EPOCH), Ktime(0), "before this host was up");
        assert_eq!(CLOCK.anchor(), (Ktime(5_000_000_000), 1_773_454_267_000_000_000));
    }

    #[test]
    fn absurd_instants_do_not_panic() {
        for clock in [CLOCK, Clock::new(Ktime(u64::MAX), i64::MIN), Clock::new(Ktime(0), i64::MAX)] {
            for ktime in [Ktime(0), Ktime(u64::MAX)] {
                assert!(clock.rfc3339(ktime).ends_with('Z'));
                clock.to_ktime(Timestamp::MIN);
                clock.to_ktime(Timestamp::MAX);
            }
        }
    }

    #[test]
    fn people_read_their_own_zone_and_a_date_only_where_it_differs() {
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let (now, before) = (Ktime(5_123_456_789), Ktime(0));
        assert_eq!(CLOCK.time_of_day(now, &zone), "03:11:07.123");
        assert_eq!(CLOCK.time_or_date(before, now, &zone), "03:11:02");
        let later = Ktime(86_400_000_000_000);
        assert_eq!(CLOCK.time_or_date(before, later, &zone), "2026-03-14 03:11:02");
        assert_eq!(CLOCK.zone_name(now, &TimeZone::UTC), "UTC");
    }
}
