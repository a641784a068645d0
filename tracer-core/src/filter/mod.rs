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
//! Not for: choosing what is traced. Filters apply to what is shown; occupancy always counts the ports of all workloads.

mod net;
mod parse;
mod snapshot;
mod subject;

use self::net::EndpointPattern;
pub use self::parse::{FilterError, MAX_DEPTH, MAX_FILTER_CHARS};
pub use self::snapshot::SnapshotFilter;
pub use self::subject::Subject;
use crate::event::TcpState;
use crate::tracker::snapshot::Failure;

/// A parsed filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    node: Node,
    text: Box<str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Or(Vec<Node>),
    And(Vec<Node>),
    Not(Box<Node>),
    Test(Test),
}

/// One comparison for equality; `!=` is [`Node::Not`] around it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Comm(Glob),
    Pid(u32),
    Unit(Glob),
    Container(Glob),
    Workload(Glob),
    Netns { inode: Option<u32>, name: Glob },
    Src(EndpointPattern),
    Dst(EndpointPattern),
    State(TcpState),
    Errno(Glob),
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

impl Node {
    /// `None` = unknown.
    fn holds(&self, subject: &Subject<'_>) -> Option<bool> {
        match self {
            Self::Or(nodes) => decided(nodes, subject, true),
            Self::And(nodes) => decided(nodes, subject, false),
            Self::Not(node) => node.holds(subject).map(|holds| !holds),
            Self::Test(test) => test.holds(subject),
        }
    }
}

/// The answer is `decisive` if one node gives it, else unknown if one node is unknown, else the opposite.
fn decided(nodes: &[Node], subject: &Subject<'_>, decisive: bool) -> Option<bool> {
    let mut answer = Some(!decisive);
    for node in nodes {
        match node.holds(subject) {
            Some(holds) if holds == decisive => return Some(decisive),
            Some(_) => {}
            None => answer = None,
        }
    }
    answer
}

impl Test {
    fn holds(&self, subject: &Subject<'_>) -> Option<bool> {
        match self {
            Self::Comm(glob) => subject.comm.map(|comm| glob.matches(comm)),
            Self::Pid(pid) => subject.pid.map(|found| found == *pid),
            Self::Unit(glob) => subject.unit.map(|unit| glob.matches(unit)),
            Self::Container(glob) => subject.container.map(|container| {
                let id = container.rsplit_once(':').map_or(container, |(_, id)| id);
                glob.matches(container) || glob.matches(id)
            }),
            Self::Workload(glob) => subject.workload.map(|workload| glob.matches(workload)),
            Self::Netns { inode, name } => {
                let by_inode = inode.and_then(|inode| subject.netns.map(|netns| netns.inode == inode));
                let by_name = subject.netns_name.map(|found| name.matches(found));
                match (by_inode, by_name) {
                    (Some(true), _) | (_, Some(true)) => Some(true),
                    // A namespace that has no name does not have this one.
                    (None, None) if inode.is_none() => subject.netns.map(|_| false),
                    (by_inode, by_name) => by_inode.or(by_name),
                }
            }
            Self::Src(pattern) => pattern.holds(subject.src_addr, subject.src_port),
            Self::Dst(pattern) => pattern.holds(subject.dst_addr, subject.dst_port),
            Self::State(state) => match (subject.state, subject.states) {
                (Some(found), _) => Some(found == *state),
                (None, all) => all.map(|all| all.has(*state)),
            },
            Self::Errno(glob) => subject.failures().map(|mut all| all.any(|failure| matches_failure(glob, failure))),
        }
    }
}

fn matches_failure(glob: &Glob, failure: Failure) -> bool {
    glob.matches(&failure.name())
}

/// A name with `*` for any characters.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Glob(String);

impl Glob {
    fn has_star(&self) -> bool {
        self.0.contains('*')
    }

    /// Linear in practice, at worst the product of both lengths; no recursion.
    fn matches(&self, text: &str) -> bool {
        let mut pieces = self.0.split('*');
        let Some(mut rest) = pieces.next().and_then(|first| text.strip_prefix(first)) else { return false };
        let Some(last) = pieces.next_back() else { return rest.is_empty() };
        for piece in pieces {
            // The leftmost match leaves the most text for the pieces after it.
            let Some(at) = rest.find(piece) else { return false };
            rest = rest.get(at + piece.len()..).unwrap_or_default();
        }
        rest.ends_with(last)
    }
}

#[cfg(test)]
mod tests;
