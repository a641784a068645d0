//! Conclusions as values: what is wrong, how bad it is, and what would help.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::event::Ktime;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Critical,
    Warning,
    Info,
}

/// One thing to do about a finding.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Advice {
    /// The action, as a command or a change to make.
    #[serde(rename = "do")]
    pub action: String,
    pub why: String,
    /// What will be different, with numbers where they are known.
    pub expected: String,
}

/// A conclusion worth a sentence.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    /// Stable identifier, e.g. `port-exhaustion`.
    pub id: &'static str,
    pub severity: Severity,
    /// One sentence with the numbers in it.
    pub summary: String,
    #[serde(skip)]
    pub since: Option<Ktime>,
    /// The facts behind it, machine-readable.
    pub evidence: BTreeMap<&'static str, serde_json::Value>,
    pub advice: Vec<Advice>,
}
