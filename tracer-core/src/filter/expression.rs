//! A parsed filter as a tree, and how the tree answers.

use std::collections::BTreeSet;

use super::net::EndpointPattern;
use super::subject::Subject;
use crate::event::TcpState;
use crate::tracker::snapshot::Failure;

/// One part of a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Or(Vec<Node>),
    And(Vec<Node>),
    Not(Box<Node>),
    Test(Test),
}

/// One comparison for equality; `!=` is [`Node::Not`] around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Test {
    Comm(Glob),
    Pid(u32),
    Unit(Glob),
    Container(Glob),
    Pod(Glob),
    Workload(Glob),
    Netns { inode: Option<u32>, name: Glob },
    Src(EndpointPattern),
    Dst(EndpointPattern),
    State(TcpState),
    Orphan,
    HalfClosed,
    Errno(Glob),
}

impl Node {
    /// `None` = unknown.
    pub(super) fn holds(&self, subject: &Subject<'_>) -> Option<bool> {
        match self {
            Self::Or(nodes) => decided(nodes, subject, true),
            Self::And(nodes) => decided(nodes, subject, false),
            Self::Not(node) => node.holds(subject).map(|holds| !holds),
            Self::Test(test) => test.holds(subject),
        }
    }
}

impl Node {
    /// Adds all comparisons to `tests`. As deep as the filter is nested, which has a bound.
    pub(super) fn tests<'a>(&'a self, tests: &mut Vec<&'a Test>) {
        match self {
            Self::Or(nodes) | Self::And(nodes) => nodes.iter().for_each(|node| node.tests(tests)),
            Self::Not(node) => node.tests(tests),
            Self::Test(test) => tests.push(test),
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
    pub(super) fn holds(&self, subject: &Subject<'_>) -> Option<bool> {
        match self {
            Self::Comm(glob) => subject.comm.map(|comm| glob.matches(comm)),
            Self::Pid(pid) => subject.pid.map(|found| found == *pid),
            Self::Unit(glob) => subject.unit.map(|unit| glob.matches(unit)),
            Self::Container(glob) => subject.container.map(|container| {
                let id = container.rsplit_once(':').map_or(container, |(_, id)| id);
                glob.matches(container) || glob.matches(id)
            }),
            // `shop/api` is a pod with all of its containers.
            Self::Pod(glob) => subject.pod.map(|pod| {
                let of_container = pod.splitn(3, '/').nth(2).map(|container| pod.len() - container.len() - 1);
                glob.matches(pod) || of_container.and_then(|end| pod.get(..end)).is_some_and(|pod| glob.matches(pod))
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
            Self::Orphan => in_fin_wait2(subject, subject.orphan),
            Self::HalfClosed => in_fin_wait2(subject, subject.half_closed),
            Self::Errno(glob) => subject.failures().map(|mut all| all.any(|failure| matches_failure(glob, failure))),
        }
    }
}

/// Names that stand beside one that was not seen.
const NAMES_TOLD: usize = 4;

impl Test {
    /// A sentence for a name that none of `everything` has, with the names that there are; `None` for what is no name.
    pub(super) fn not_seen(&self, everything: &[Subject<'_>]) -> Option<String> {
        type NameOf = for<'a> fn(&Subject<'a>) -> Option<&'a str>;
        let (kind, value, names): (_, _, Option<NameOf>) = match self {
            Self::Comm(glob) => ("process of the name", &glob.0, Some(|subject| subject.comm)),
            Self::Unit(glob) => ("unit", &glob.0, Some(|subject| subject.unit)),
            Self::Container(glob) => ("container", &glob.0, Some(|subject| subject.container)),
            Self::Pod(glob) => ("pod", &glob.0, Some(|subject| subject.pod)),
            Self::Workload(glob) => ("workload", &glob.0, Some(|subject| subject.workload)),
            Self::Netns { name, .. } => ("network namespace", &name.0, Some(|subject| subject.netns_name)),
            Self::Pid(pid) => ("process", &pid.to_string(), None),
            Self::Src(_) | Self::Dst(_) | Self::State(_) | Self::Orphan | Self::HalfClosed | Self::Errno(_) => {
                return None;
            }
        };
        let there: BTreeSet<&str> = names.map_or_else(BTreeSet::new, |of| everything.iter().filter_map(of).collect());
        let mut told: Vec<String> = there.iter().take(NAMES_TOLD).map(|name| format!("`{name}`")).collect();
        match there.len().saturating_sub(NAMES_TOLD) {
            0 => {}
            more => told.push(format!("{more} more")),
        }
        let seen = if told.is_empty() { String::new() } else { format!("; there are {}", told.join(", ")) };
        Some(format!("no {kind} `{value}` was seen{seen}"))
    }
}

/// `FIN_WAIT2` has two kinds of sockets. What is in another state is of neither.
fn in_fin_wait2(subject: &Subject<'_>, known: Option<bool>) -> Option<bool> {
    let elsewhere = subject.state.is_some_and(|state| state != TcpState::FinWait2);
    known.or(elsewhere.then_some(false))
}

pub(super) fn matches_failure(glob: &Glob, failure: Failure) -> bool {
    glob.matches(&failure.name())
}

/// A name with `*` for any characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glob(pub(super) String);

impl Glob {
    pub(crate) fn new(pattern: &str) -> Self {
        Self(pattern.into())
    }

    pub(super) fn has_star(&self) -> bool {
        self.0.contains('*')
    }

    /// Linear in practice, at worst the product of both lengths; no recursion.
    pub(crate) fn matches(&self, text: &str) -> bool {
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
