//! How complete a snapshot is: what was read, and what was lost on the way.

use serde::Serialize;

use crate::event::Ktime;
use crate::layout::human::plural;

/// How complete the picture is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EventCounts {
    /// Events ingested.
    pub read: u64,
    /// Events lost on the way, by the place where they were lost.
    pub lost: Lost,
    /// Records that could not be decoded.
    pub skipped: u64,
    /// Entries thrown out because a table was at its bound.
    pub evicted: u64,
    /// Flows and `TIME_WAIT` entries set right after a loss, by a later transition or by `sock_diag`.
    pub repaired: u64,
    /// Transitions written twice by the rescue chain and recognised.
    pub duplicates: u64,
    /// How far the tracker is behind the events, milliseconds; `None` = not measured: it reads a recording.
    pub lag_ms: Option<u64>,
    /// How far it has been behind at most.
    pub lag_peak_ms: Option<u64>,
    /// Steps of flows and lines that were left out so that the tracker could catch up. Counts are whole.
    pub details_skipped: u64,
}

/// What of its recording a snapshot is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WindowCoverage {
    /// Files that were read as one.
    pub files: u64,
    /// First and last instant of the recording, where the snapshot is about a part of it.
    pub part_of: Option<(Ktime, Ktime)>,
    /// Where reading began: what was open at the start of the window is known from a list of sockets not older than this.
    pub known_from: Option<Ktime>,
    /// Times inside the window of which nothing is recorded, because a file is missing: begin and end of each, bounded.
    pub gaps: Vec<(Ktime, Ktime)>,
    /// All such times together, nanoseconds.
    pub gap_nanos: u64,
}

/// Where events were lost.
///
/// One number for all of it would be wrong: a skipped run of a program beside the chain need not have had a record to write, and
/// nearly none has (most timers are none of TCP's). So there are two sums, [`certain`](Self::certain) and
/// [`upper_bound`](Self::upper_bound), and no other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// Records that found the ring buffer full.
    pub ring_full: u64,
    /// State transitions that every link of the chain missed.
    pub missed_runs: u64,
    /// Skipped runs of the programs beside the chain (timers, system calls): at most so many of their records are lost.
    pub other_runs: u64,
    /// Events that the recorder could not write.
    pub recorder: u64,
}

impl Lost {
    /// Events that are certainly lost.
    pub fn certain(&self) -> u64 {
        self.ring_full.saturating_add(self.missed_runs).saturating_add(self.recorder)
    }

    /// What was lost, in words: `3 events: the kernel buffer was full; at most 12 more: probes that did not run`.
    pub fn words(&self) -> String {
        let counts = [
            (self.ring_full, "", "the kernel buffer was full"),
            (self.missed_runs, "", "transitions that no probe saw"),
            (self.recorder, "", "not written by the recorder"),
            (self.other_runs, "at most ", "probe runs that the kernel skipped"),
        ];
        let told = counts.into_iter().filter(|(count, ..)| *count > 0);
        let told: Vec<String> =
            told.map(|(count, most, why)| format!("{most}{} lost ({why})", plural(count, "event"))).collect();
        if told.is_empty() { "nothing lost".into() } else { told.join(", ") }
    }

    /// Events that may be lost: [`certain`](Self::certain) and every skipped run of the programs beside the chain.
    pub fn upper_bound(&self) -> u64 {
        self.certain().saturating_add(self.other_runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skipped_run_beside_the_chain_may_be_a_loss_and_is_not_certainly_one() {
        let lost = Lost { ring_full: 1, missed_runs: 2, other_runs: 4, recorder: 8 };
        assert_eq!((lost.certain(), lost.upper_bound()), (11, 15));
        let all = Lost { ring_full: u64::MAX, missed_runs: 1, other_runs: u64::MAX, recorder: 1 };
        assert_eq!((all.certain(), all.upper_bound()), (u64::MAX, u64::MAX));
    }
}
