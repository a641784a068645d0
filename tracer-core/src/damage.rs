//! What of a recording could not be read, with the same words and codes for every reader.
//!
//! A number is true or it is the least that is known, and then [`Damage::at_least`] says so. Not for: finding damage,
//! which `recording` does, or events that were lost before they were written
//! ([`Lost`](crate::tracker::snapshot::Lost)).

use std::fmt;

use serde::Serialize;

use crate::clock::Clock;
use crate::event::Ktime;
use crate::layout::human::{bytes, plural, seconds};

/// Gaps that are kept one by one; of later ones only the sums.
const MAX_GAPS: usize = 64;

/// What is wrong with a file. What is worse compares greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DamageKind {
    /// Every event is there, but the footer is not: only other programs miss it.
    NoFooter,
    /// The file ends behind a whole batch and has no end: it is being written, or its writer was killed.
    Unfinished,
    /// The file ends in the middle of a batch.
    CutOff,
    /// Bytes are not as they were written.
    Corrupt,
}

impl DamageKind {
    /// The name in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoFooter => "no-footer",
            Self::Unfinished => "unfinished",
            Self::CutOff => "cut-off",
            Self::Corrupt => "corrupt",
        }
    }
}

impl fmt::Display for DamageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A stretch of time of which events are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DamageGap {
    /// The latest event before it.
    pub from: Ktime,
    /// The first event behind it, or the latest instant that is known to have had events. `from` if none is known.
    pub to: Ktime,
}

/// The part of a file, or of several, that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The worst that is wrong.
    pub kind: DamageKind,
    /// What is wrong there, as the beginning of a sentence.
    pub why: String,
    /// Places at which something is wrong.
    pub places: u64,
    /// Byte at which the first of them begins.
    pub at: u64,
    /// Bytes that are there and could not be used.
    pub bytes: u64,
    /// Rows that are missing.
    pub rows: u64,
    /// Nanoseconds of the gaps together.
    pub nanos: u64,
    /// `rows` and `nanos` are the least: how much more is missing is not known.
    pub at_least: bool,
    /// The end of the recording is missing.
    pub end_missing: bool,
    /// The gaps in their order, the first `MAX_GAPS` of them.
    pub gaps: Vec<DamageGap>,
}

impl Damage {
    /// Nothing is missing so far at a place of this kind.
    pub fn new(kind: DamageKind, why: impl Into<String>, at: u64) -> Self {
        Self {
            kind,
            why: why.into(),
            places: 1,
            at,
            bytes: 0,
            rows: 0,
            nanos: 0,
            at_least: false,
            end_missing: false,
            gaps: Vec::new(),
        }
    }

    /// Events are missing, or may be: what the rest of the recording shows is no all-clear.
    pub fn loses_events(&self) -> bool {
        self.rows > 0 || self.at_least || self.end_missing
    }

    /// Adds a gap.
    pub fn gap(&mut self, gap: DamageGap) {
        self.nanos = self.nanos.saturating_add(gap.to.since(gap.from));
        if self.gaps.len() < MAX_GAPS {
            self.gaps.push(gap);
        }
    }

    /// Adds what is wrong at a later place, or in a later file. The words stay those of the worst.
    pub fn merge(&mut self, later: Self) {
        if later.kind > self.kind {
            (self.kind, self.why, self.at) = (later.kind, later.why, later.at);
        }
        self.places = self.places.saturating_add(later.places);
        self.bytes = self.bytes.saturating_add(later.bytes);
        self.rows = self.rows.saturating_add(later.rows);
        self.nanos = self.nanos.saturating_add(later.nanos);
        self.at_least |= later.at_least;
        self.end_missing |= later.end_missing;
        let room = MAX_GAPS.saturating_sub(self.gaps.len());
        self.gaps.extend(later.gaps.into_iter().take(room));
    }

    /// How much is missing: `at least 16,384 rows and 2.1 s`; what is not known is not named.
    pub fn amount(&self) -> String {
        let mut parts = Vec::new();
        if self.rows > 0 {
            parts.push(plural(self.rows, "row"));
        }
        if self.nanos > 0 {
            parts.push(seconds(self.nanos as f64 / 1e9));
        }
        match (parts.is_empty(), self.at_least || self.end_missing) {
            (true, true) => "an unknown number of rows".into(),
            (true, false) => "no row".into(),
            (false, true) => format!("at least {}", parts.join(" and ")),
            (false, false) => parts.join(" and "),
        }
    }

    /// The form that every JSON document has, with wall times by `clock`.
    pub fn fields(&self, clock: &Clock) -> DamageFields<'_> {
        DamageFields {
            kind: self.kind,
            why: &self.why,
            places: self.places,
            at_byte: self.at,
            bytes: self.bytes,
            rows: self.rows,
            seconds: self.nanos as f64 / 1e9,
            at_least: self.at_least,
            end_missing: self.end_missing,
            gaps: self
                .gaps
                .iter()
                .map(|gap| GapFields { from: clock.rfc3339(gap.from), to: clock.rfc3339(gap.to) })
                .collect(),
        }
    }
}

/// One sentence without its full stop.
impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)?;
        if self.places > 1 {
            write!(f, " (the worst of {} places)", self.places)?;
        }
        match self.kind {
            DamageKind::NoFooter => Ok(()),
            DamageKind::Unfinished => f.write_str("; every event up to there was read, and what came later is unknown"),
            DamageKind::CutOff | DamageKind::Corrupt => {
                let verb = if self.rows == 1 && self.nanos == 0 && !self.at_least { "is" } else { "are" };
                let (amount, unused) = (self.amount(), bytes(self.bytes));
                write!(f, "; {amount} {verb} missing ({unused} at byte {} could not be used)", self.at)?;
                let too = self.end_missing && self.kind == DamageKind::Corrupt;
                f.write_str(if too { "; the end of the file is missing too" } else { "" })
            }
        }
    }
}

/// [`Damage`] in JSON.
#[derive(Clone, Debug, Serialize)]
pub struct DamageFields<'a> {
    kind: DamageKind,
    why: &'a str,
    places: u64,
    at_byte: u64,
    bytes: u64,
    rows: u64,
    seconds: f64,
    at_least: bool,
    end_missing: bool,
    gaps: Vec<GapFields>,
}

#[derive(Clone, Debug, Serialize)]
struct GapFields {
    from: String,
    to: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_not_known_is_never_called_one() {
        let mut cut = Damage::new(DamageKind::CutOff, "the file ends in the middle of a batch", 900);
        (cut.at_least, cut.end_missing, cut.bytes) = (true, true, 51_200);
        assert_eq!(cut.amount(), "an unknown number of rows");
        (cut.rows, cut.nanos) = (1_200, 100_000_000);
        assert_eq!(cut.amount(), "at least 1,200 rows and 0.1 s");
        let mut whole = Damage { at_least: false, end_missing: false, ..cut.clone() };
        assert_eq!(whole.amount(), "1,200 rows and 0.1 s");
        whole.merge(cut);
        assert!(whole.at_least && whole.end_missing && whole.loses_events());
        assert_eq!((whole.places, whole.rows), (2, 2_400));
        assert!(!Damage::new(DamageKind::NoFooter, "no footer", 0).loses_events());
    }

    #[test]
    fn gaps_are_bounded_and_their_sum_is_not() {
        let mut damage = Damage::new(DamageKind::Corrupt, "a batch differs", 0);
        for second in 0..1_000 {
            damage.gap(DamageGap {
                from: Ktime(second * 2_000_000_000),
                to: Ktime(second * 2_000_000_000 + 1_000_000_000),
            });
        }
        assert_eq!((damage.gaps.len(), damage.nanos), (MAX_GAPS, 1_000 * 1_000_000_000));
    }
}
