//! Parses the text of a filter. Every error has its column and says what would have been right there.

use unicode_width::UnicodeWidthStr as _;

use tracer_common::COMM_BYTES;

use super::expression::{Glob, Node, Test, matches_failure};
use super::net::{self, EndpointPattern};
use crate::errno;
use crate::event::TcpState;
use crate::names::cgroup::SHORT_ID_DIGITS;
use crate::tracker::snapshot::Failure;

/// Nesting of `not` and parentheses, bounded because the parser recurses.
pub const MAX_DEPTH: usize = 64;
/// Characters of a filter. A list of a few hundred pids fits.
pub const MAX_FILTER_CHARS: usize = 8_192;
const FIELDS: &str = "comm, pid, unit, container, pod, workload, netns, src, dst, state, errno";
/// Reasons that have a name of this project instead of an errno's.
const REASONS: [Failure; 6] = [
    Failure::PortsExhausted,
    Failure::TupleTaken,
    Failure::NoLocalAddress,
    Failure::BindExhausted,
    Failure::Aborted,
    Failure::Unknown,
];

/// A filter that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("filter, column {column}: expected {expected}, found {found}")]
pub struct FilterError {
    /// Character of the filter, from 1.
    pub column: usize,
    /// What would have been right there.
    pub expected: String,
    /// What stands there.
    pub found: String,
}

impl FilterError {
    /// What is wrong, and below it the filter with a mark under the character where it is, for a terminal. Whatever stands before the
    /// message, the mark is in its place.
    pub fn marked(&self, filter: &str) -> String {
        let shown: String =
            filter.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
        let before: String = shown.chars().take(self.column.saturating_sub(1)).collect();
        let blanks = " ".repeat(before.width());
        format!("the filter has {} where {} is expected\n  {shown}\n  {blanks}^", self.found, self.expected)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Open,
    Close,
    Equal,
    NotEqual,
    /// Text and whether any of it was quoted: a quoted `and` is a value.
    Word(String, bool),
    End,
}

impl Token {
    fn describe(&self) -> String {
        match self {
            Self::Open => "`(`".into(),
            Self::Close => "`)`".into(),
            Self::Equal => "`=`".into(),
            Self::NotEqual => "`!=`".into(),
            Self::Word(word, _) => format!("`{}`", word.escape_debug()),
            Self::End => "the end".into(),
        }
    }

    fn is_keyword(&self, keyword: &str) -> bool {
        matches!(self, Self::Word(word, false) if word.eq_ignore_ascii_case(keyword))
    }
}

pub(super) fn parse(text: &str) -> Result<Node, FilterError> {
    let chars: Vec<char> = text.chars().collect();
    if chars.len() > MAX_FILTER_CHARS {
        return Err(FilterError {
            column: MAX_FILTER_CHARS + 1,
            expected: format!("at most {MAX_FILTER_CHARS} characters"),
            found: format!("{} characters", chars.len()),
        });
    }
    let mut parser = Parser { chars, at: 0, token: Token::End, column: 1, depth: 0 };
    parser.advance()?;
    let node = parser.either()?;
    if parser.token == Token::End { Ok(node) } else { Err(parser.expected("`and`, `or` or the end")) }
}

struct Parser {
    chars: Vec<char>,
    /// Next character to read.
    at: usize,
    /// The present token, and the column where it begins.
    token: Token,
    column: usize,
    depth: usize,
}

impl Parser {
    fn expected(&self, expected: impl Into<String>) -> FilterError {
        FilterError { column: self.column, expected: expected.into(), found: self.token.describe() }
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn advance(&mut self) -> Result<(), FilterError> {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
        self.column = self.at + 1;
        let single = match self.peek() {
            None => Some(Token::End),
            Some('(') => Some(Token::Open),
            Some(')') => Some(Token::Close),
            Some('=') => Some(Token::Equal),
            Some('!') if self.chars.get(self.at + 1) == Some(&'=') => {
                self.at += 1;
                Some(Token::NotEqual)
            }
            Some(_) => None,
        };
        self.token = match single {
            Some(token) => {
                self.at += 1;
                token
            }
            None => self.word(|c| c == '=' || c == '!')?,
        };
        Ok(())
    }

    /// A value may hold `=` and `!`, unlike the name of a field.
    fn value(&mut self) -> Result<(), FilterError> {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
        self.column = self.at + 1;
        self.token = match self.peek() {
            None => Token::End,
            Some('(') => Token::Open,
            Some(')') => Token::Close,
            Some(_) => self.word(|_| false)?,
        };
        Ok(())
    }

    fn word(&mut self, ends: impl Fn(char) -> bool) -> Result<Token, FilterError> {
        let mut word = String::new();
        let mut quoted = false;
        while let Some(c) = self.peek() {
            if c == '"' {
                quoted = true;
                self.quoted(&mut word)?;
            } else if c.is_whitespace() || c == '(' || c == ')' || (ends(c) && !word.is_empty()) {
                break;
            } else {
                word.push(c);
                self.at += 1;
            }
        }
        Ok(Token::Word(word, quoted))
    }

    fn quoted(&mut self, word: &mut String) -> Result<(), FilterError> {
        let began = self.at + 1;
        self.at += 1;
        while let Some(c) = self.peek() {
            self.at += 1;
            match c {
                '"' => return Ok(()),
                '\\' => {
                    word.extend(self.peek());
                    self.at += 1;
                }
                c => word.push(c),
            }
        }
        Err(FilterError { column: began, expected: "a closing `\"`".into(), found: "the end".into() })
    }

    fn either(&mut self) -> Result<Node, FilterError> {
        let mut nodes = vec![self.both()?];
        while self.token.is_keyword("or") {
            self.advance()?;
            nodes.push(self.both()?);
        }
        Ok(flat(nodes, Node::Or))
    }

    fn both(&mut self) -> Result<Node, FilterError> {
        let mut nodes = vec![self.factor()?];
        while self.token.is_keyword("and") {
            self.advance()?;
            nodes.push(self.factor()?);
        }
        Ok(flat(nodes, Node::And))
    }

    fn factor(&mut self) -> Result<Node, FilterError> {
        if self.depth == MAX_DEPTH {
            return Err(self.expected(format!("at most {MAX_DEPTH} levels of `not` and `(`")));
        }
        self.depth += 1;
        let node = if self.token.is_keyword("not") {
            self.advance()?;
            Node::Not(Box::new(self.factor()?))
        } else if self.token == Token::Open {
            self.advance()?;
            let node = self.either()?;
            if self.token != Token::Close {
                return Err(self.expected("`and`, `or` or `)`"));
            }
            self.advance()?;
            node
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(node)
    }

    fn comparison(&mut self) -> Result<Node, FilterError> {
        let field = match &self.token {
            Token::Word(field, false) => field.to_ascii_lowercase(),
            _ => return Err(self.expected(format!("`not`, `(` or a field ({FIELDS})"))),
        };
        let parse = parser_of(&field).ok_or_else(|| self.expected(format!("a field ({FIELDS})")))?;
        self.advance()?;
        let negated = match self.token {
            Token::Equal => false,
            Token::NotEqual => true,
            _ => return Err(self.expected(format!("`=` or `!=` after `{field}`"))),
        };
        self.value()?;
        let test = match &self.token {
            Token::Word(value, _) => parse(value).map_err(|expected| self.expected(expected))?,
            _ => return Err(self.expected(format!("a value for `{field}`"))),
        };
        self.advance()?;
        let test = Node::Test(test);
        Ok(if negated { Node::Not(Box::new(test)) } else { test })
    }
}

fn flat(mut nodes: Vec<Node>, join: fn(Vec<Node>) -> Node) -> Node {
    match (nodes.pop(), nodes.is_empty()) {
        (Some(only), true) => only,
        (last, _) => {
            nodes.extend(last);
            join(nodes)
        }
    }
}

/// Parses a value; the error says what was expected instead.
type ValueParser = fn(&str) -> Result<Test, String>;

fn parser_of(field: &str) -> Option<ValueParser> {
    Some(match field {
        "comm" => |value| {
            let mut name = glob(value)?.0;
            // The kernel keeps 15 bytes of a name; a longer one would never match.
            if !name.contains('*') {
                let end = (0..COMM_BYTES).rev().find(|&end| name.is_char_boundary(end)).unwrap_or(0);
                name.truncate(end);
            }
            Ok(Test::Comm(Glob(name)))
        },
        "pid" => |value| value.parse().map(Test::Pid).map_err(|_| "a process id".into()),
        "unit" => |value| {
            let mut name = glob(value)?;
            // systemctl completes names the same way.
            if !name.has_star() && !name.0.contains('.') {
                name.0.push_str(".service");
            }
            Ok(Test::Unit(name))
        },
        "container" => |value| {
            let mut name = glob(value)?;
            // A whole id, as `docker ps --no-trunc` prints it: a container is known by the first digits.
            let begin = name.0.rfind(':').map_or(0, |colon| colon + 1);
            let id = name.0.get(begin..).unwrap_or_default();
            if id.len() > SHORT_ID_DIGITS && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                name.0.truncate(begin + SHORT_ID_DIGITS);
            }
            Ok(Test::Container(name))
        },
        "pod" => |value| glob(value).map(Test::Pod),
        "workload" => |value| glob(value).map(Test::Workload),
        "netns" => |value| Ok(Test::Netns { inode: value.parse().ok(), name: glob(value)? }),
        "src" => |value| EndpointPattern::parse(value).map(Test::Src).ok_or_else(|| net::EXPECTED.into()),
        "dst" => |value| EndpointPattern::parse(value).map(Test::Dst).ok_or_else(|| net::EXPECTED.into()),
        "state" => state,
        "errno" => reason,
        _ => return None,
    })
}

fn glob(value: &str) -> Result<Glob, String> {
    if value.is_empty() { Err("a name, with `*` for any characters".into()) } else { Ok(Glob(value.into())) }
}

/// A TCP state in the kernel's spelling or in that of `ss`, with dashes and `ESTAB`, or one of the two kinds of `FIN_WAIT2`.
fn state(value: &str) -> Result<Test, String> {
    let name = value.to_ascii_uppercase().replace('-', "_");
    let name = match name.as_str() {
        "ESTAB" => "ESTABLISHED",
        "CLOSED" => "CLOSE",
        "ORPHAN" => return Ok(Test::Orphan),
        "HALF_CLOSED" => return Ok(Test::HalfClosed),
        name => name,
    };
    let found = TcpState::ALL.into_iter().find(|state| state.name() == name);
    found
        .map(Test::State)
        .ok_or_else(|| format!("a state ({}, orphan, half_closed)", TcpState::ALL.map(TcpState::name).join(", ")))
}

/// The name of a reason, with `*`, or the number of an errno.
fn reason(value: &str) -> Result<Test, String> {
    let known = || REASONS.into_iter().chain((1..=errno::MAX).map(Failure::Errno));
    let name = value.to_ascii_uppercase();
    let name = match value.parse().ok().or_else(|| errno::from_name(&name)) {
        // connect() reports more than one reason so; this is the one that has the plain name.
        Some(errno::EADDRNOTAVAIL) => Failure::PortsExhausted.name().into(),
        Some(number) => Failure::Errno(number).name().into(),
        None => name,
    };
    let glob = Glob(name);
    if known().any(|failure| matches_failure(&glob, failure)) {
        return Ok(Test::Errno(glob));
    }
    let reasons = REASONS.map(Failure::name);
    Err(format!("a reason ({}), an errno (ECONNREFUSED) or its number", reasons.join(", ")))
}
