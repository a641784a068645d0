//! The one filter grammar, for every command that shows something.
//!
//! ```text
//! filter     = term { "or" term }
//! term       = factor { "and" factor }
//! factor     = "not" factor | "(" filter ")" | comparison
//! comparison = field ( "=" | "!=" ) value
//! field      = comm | pid | unit | container | workload | netns | src | dst | state | errno
//! ```
//!
//! A value runs to the next blank or parenthesis; in double quotes it may hold both (`workload="php-fpm: pool www"`, `\"` and `\\` inside).
//! In names `*` stands for any characters. Keywords, states and reasons may be written in any case.
//!
//! **What is not known does not match.** A comparison with a field that a [`Subject`] does not have is unknown, its negation is unknown
//! too, and unknown at the end is no match: neither `unit=a.service` nor `unit!=a.service` nor `not unit=a.service` shows a flow
//! of an unknown owner. `or` with something that is true is true, `and` with something that is false is false (Kleene's logic).
//!
//! **A sum of flows matches if one of them does.** A destination or a workload is in every state that one of its flows is in, and has failed
//! for every reason that one of its connects has failed for.
//!
//! `state=orphan` and `state=half_closed` are the two kinds of `FIN_WAIT2`: closed by this side while the peer is silent, and shut down by
//! a process that keeps the descriptor.
//!
//! **A filter narrows everything that is shown** ([`Filter::narrow`]): rows, sums, findings with their advice, and what the first sentence
//! says. What is outside is counted, and a name that nothing in the whole trace has is said.
//!
//! Not for: choosing what is traced. Occupancy always counts the ports of all workloads, because they are in use whoever holds them.

mod expression;
mod narrow;
mod net;
mod parse;
mod subject;

pub(crate) use self::expression::Glob;
use self::expression::Node;
pub use self::narrow::{SnapshotFilter, notices};
pub use self::parse::{FilterError, MAX_DEPTH, MAX_FILTER_CHARS};
pub use self::subject::Subject;

/// A parsed filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    node: Node,
    text: Box<str>,
}

impl Filter {
    /// Parses what a user typed.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        Ok(Self { node: parse::parse(text)?, text: text.into() })
    }

    /// What the user typed.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Does the filter show `subject`?
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        self.node.holds(subject) == Some(true)
    }
}

impl std::str::FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests;
