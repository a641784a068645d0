//! What the demo's processes tell the parent, one line each on standard output. What the parent tells them are single words and a pid,
//! which `roles` reads.

use std::fmt;
use std::str::FromStr;

/// What a worker counted, from the results of its own system calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DemoCounts {
    /// Connects that succeeded.
    pub connected: u64,
    /// Connects that failed with `EADDRNOTAVAIL`: no port left.
    pub exhausted: u64,
    /// Other failures; 0 unless the machine is in trouble.
    pub other_errors: u64,
}

impl DemoCounts {
    /// The sum of both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            connected: self.connected + other.connected,
            exhausted: self.exhausted + other.exhausted,
            other_errors: self.other_errors + other.other_errors,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// The last instruction is done.
    Ready,
    Counts(DemoCounts),
    /// The traffic is over, and the process waits to be stopped.
    Done,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("ready"),
            Self::Counts(counts) => {
                write!(f, "counts {} {} {}", counts.connected, counts.exhausted, counts.other_errors)
            }
            Self::Done => f.write_str("done"),
        }
    }
}

impl FromStr for Line {
    type Err = anyhow::Error;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["ready"] => Ok(Self::Ready),
            ["done"] => Ok(Self::Done),
            ["counts", connected, exhausted, other] => Ok(Self::Counts(DemoCounts {
                connected: connected.parse()?,
                exhausted: exhausted.parse()?,
                other_errors: other.parse()?,
            })),
            _ => anyhow::bail!("a line that no role writes: {line:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_survive_the_pipe() {
        let counts = DemoCounts { connected: 1000, exhausted: 812, other_errors: 3 };
        for line in [Line::Ready, Line::Done, Line::Counts(counts)] {
            assert_eq!(line.to_string().parse::<Line>().expect("a line of ours"), line);
        }
    }

    #[test]
    fn other_lines_are_refused() {
        for line in ["", "counts 1 2", "counts 1 2 -3", "ready now"] {
            assert!(line.parse::<Line>().is_err(), "{line}");
        }
    }
}
