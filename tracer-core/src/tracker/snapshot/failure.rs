//! Why connects fail, and how many did for which reason.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};

use crate::errno;

/// Why a connect (or a bind to port 0) failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    /// No free port towards this destination from this source: the disease.
    PortsExhausted,
    /// No free port in the range that the socket had confined itself to (`IP_LOCAL_PORT_RANGE`). Says nothing of the namespace's ports.
    OwnRangeExhausted,
    /// The socket was bound to a port before connect() and this exact 4-tuple is in use.
    TupleTaken,
    /// No usable local address (IPv6 without any source, bind to a foreign address).
    NoLocalAddress,
    /// bind(port 0) found no free port for its source address (`EADDRINUSE`).
    BindExhausted,
    /// The application closed the socket before the handshake was over.
    Aborted,
    /// Any other errno, positive.
    Errno(u16),
    /// Failed inside connect() with an errno that nobody saw (no syscall hook).
    Unknown,
}

impl Failure {
    /// A name for reports: the errno's where that says the whole truth, else one of our own.
    pub fn name(self) -> Cow<'static, str> {
        match self {
            Self::PortsExhausted | Self::OwnRangeExhausted => "EADDRNOTAVAIL".into(),
            Self::TupleTaken => "TUPLE_TAKEN".into(),
            Self::NoLocalAddress => "NO_LOCAL_ADDRESS".into(),
            Self::BindExhausted => "BIND_EXHAUSTED".into(),
            Self::Aborted => "ABORTED".into(),
            Self::Unknown => "UNKNOWN".into(),
            // The plain name says exhaustion and nothing else.
            Self::Errno(errno::EADDRNOTAVAIL) => "EADDRNOTAVAIL_OTHER".into(),
            Self::Errno(errno) => errno::name(errno),
        }
    }

    /// Did the socket fail for lack of a local port?
    pub fn is_without_port(self) -> bool {
        matches!(self, Self::PortsExhausted | Self::OwnRangeExhausted | Self::BindExhausted)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name())
    }
}

impl Serialize for Failure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name())
    }
}

/// Failed connects and binds by reason. Sums end at `u64::MAX`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FailureCounts(BTreeMap<Failure, u64>);

/// By name; reasons of one name are one sum.
impl Serialize for FailureCounts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.by_name())
    }
}

impl FailureCounts {
    /// Counts one more failure.
    pub fn count(&mut self, failure: Failure) {
        self.add(failure, 1);
    }

    /// Counts `more` failures for one reason.
    pub fn add(&mut self, failure: Failure, more: u64) {
        let count = self.0.entry(failure).or_default();
        *count = count.saturating_add(more);
    }

    /// Counts what `other` has counted.
    pub fn merge(&mut self, other: &Self) {
        for (failure, count) in other.iter() {
            self.add(failure, count);
        }
    }

    /// Failures for this reason.
    pub fn of(&self, failure: Failure) -> u64 {
        self.0.get(&failure).copied().unwrap_or(0)
    }

    /// Failures for any reason.
    pub fn total(&self) -> u64 {
        self.sum(|_| true)
    }

    /// Failures for lack of a local port, of connect() and of bind() to port 0.
    pub fn without_port(&self) -> u64 {
        self.sum(Failure::is_without_port)
    }

    /// Failures for any reason but the lack of a local port.
    pub fn for_other_reasons(&self) -> u64 {
        self.sum(|failure| !failure.is_without_port())
    }

    /// Has nothing failed?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each reason with its count, in the order of [`Failure`].
    pub fn iter(&self) -> impl Iterator<Item = (Failure, u64)> {
        self.0.iter().map(|(failure, count)| (*failure, *count))
    }

    /// Each name with its count, in the order of [`Failure`]. Reasons of one name are one sum.
    pub fn by_name(&self) -> Vec<(Cow<'static, str>, u64)> {
        let mut names: Vec<(Cow<'static, str>, u64)> = Vec::with_capacity(self.0.len());
        for (failure, count) in self.iter() {
            let name = failure.name();
            match names.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum = sum.saturating_add(count),
                None => names.push((name, count)),
            }
        }
        names
    }

    fn sum(&self, counts: impl Fn(Failure) -> bool) -> u64 {
        let counted = self.iter().filter(|(failure, _)| counts(*failure));
        counted.fold(0, |sum, (_, count)| sum.saturating_add(count))
    }
}

impl<const N: usize> From<[(Failure, u64); N]> for FailureCounts {
    fn from(counts: [(Failure, u64); N]) -> Self {
        Self(counts.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bind_that_finds_no_port_is_a_lack_of_ports_too() {
        let counts = FailureCounts::from([
            (Failure::PortsExhausted, 1),
            (Failure::BindExhausted, 2),
            (Failure::TupleTaken, 4),
            (Failure::Errno(errno::ECONNREFUSED), 8),
        ]);
        assert_eq!((counts.without_port(), counts.for_other_reasons(), counts.total()), (3, 12, 15));
        assert_eq!((counts.of(Failure::TupleTaken), counts.of(Failure::Aborted)), (4, 0));
    }

    #[test]
    fn sums_end_at_the_largest_number() {
        let mut counts = FailureCounts::from([(Failure::PortsExhausted, u64::MAX), (Failure::BindExhausted, u64::MAX)]);
        assert_eq!((counts.without_port(), counts.total()), (u64::MAX, u64::MAX));
        counts.merge(&FailureCounts::from([(Failure::PortsExhausted, 1)]));
        assert_eq!(counts.of(Failure::PortsExhausted), u64::MAX);
    }

    #[test]
    fn only_exhaustion_has_the_plain_name() {
        assert_eq!(Failure::PortsExhausted.name(), "EADDRNOTAVAIL");
        assert_eq!(Failure::Errno(errno::EADDRNOTAVAIL).name(), "EADDRNOTAVAIL_OTHER");
        assert_eq!(Failure::Errno(92).name(), "ENOPROTOOPT");
    }
}
