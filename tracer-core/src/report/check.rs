//! Conditions on what the tracker concluded, for CI and cron: does one hold, and what shows it?
//!
//! Pure: one snapshot in, an answer out. A condition on an unknown number does not hold.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use serde_json::{Value, json};

use crate::tracker::snapshot::{FindingId, Snapshot};

/// What can be compared with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Metric {
    Occupancy,
    Ttx,
    Failed,
    Errors,
    TimeWait,
    CloseWait,
    ConnectsPerSecond,
    Lost,
    Repaired,
}

const METRICS: [(&str, Metric); 9] = [
    ("occupancy", Metric::Occupancy),
    ("ttx", Metric::Ttx),
    ("failed", Metric::Failed),
    ("errors", Metric::Errors),
    ("time_wait", Metric::TimeWait),
    ("close_wait", Metric::CloseWait),
    ("connects_per_second", Metric::ConnectsPerSecond),
    ("lost", Metric::Lost),
    ("repaired", Metric::Repaired),
];

#[derive(Clone, Debug, PartialEq)]
enum Predicate {
    Finding(FindingId),
    Compared { metric: Metric, above: bool, with: f64 },
}

/// One condition: the id of a finding, or a metric compared with a number.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    text: String,
    predicate: Predicate,
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl FromStr for Condition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let Some(at) = text.find(['>', '<']) else {
            let predicate = text.parse().map(Predicate::Finding).map_err(|_| {
                format!(
                    "`{text}` is no finding; expected one of {}, or a number compared with > or <",
                    FindingId::ALL.map(FindingId::as_str).join(", ")
                )
            })?;
            return Ok(Self { text, predicate });
        };
        let (name, rest) = text.split_at(at);
        let above = rest.starts_with('>');
        let number = rest.get(1..).unwrap_or_default();
        let metric = METRICS.iter().find(|(known, _)| *known == name).map(|(_, metric)| *metric).ok_or_else(|| {
            format!("`{name}` cannot be compared; expected one of {}", METRICS.map(|(name, _)| name).join(", "))
        })?;
        let with = match metric {
            Metric::Occupancy if number.parse().is_ok_and(|share: f64| share > 1.0) => Err(format!(
                "occupancy is a share of the ports, at most 1, so `{text}` says nothing: write `occupancy{}{number}%`",
                if above { '>' } else { '<' }
            )),
            Metric::Ttx => number
                .parse::<jiff::SignedDuration>()
                .map(|duration| duration.as_secs_f64())
                .map_err(|_| format!("`{number}` is no duration such as 90s or 10m")),
            _ => match number.strip_suffix('%') {
                Some(percent) => percent.parse::<f64>().map(|percent| percent / 100.0),
                None => number.parse::<f64>(),
            }
            .ok()
            .filter(|number| number.is_finite())
            .ok_or_else(|| format!("`{number}` is no number")),
        }?;
        Ok(Self { predicate: Predicate::Compared { metric, above, with }, text })
    }
}

/// A condition that holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Held {
    /// The condition, as it was written without blanks.
    pub condition: String,
    /// What shows it, in one sentence.
    pub what: String,
    /// What shows it, for machines.
    pub evidence: Value,
}

impl Condition {
    /// What shows that the condition holds, worst first; empty if it does not.
    pub fn holds(&self, snapshot: &Snapshot) -> Vec<Held> {
        match &self.predicate {
            Predicate::Finding(id) => snapshot
                .findings
                .iter()
                .filter(|finding| finding.id == *id)
                .map(|finding| {
                    let over = if finding.is_active() { "" } else { "over: " };
                    self.held(format!("{over}{}", finding.summary), json!(finding.evidence))
                })
                .collect(),
            Predicate::Compared { metric, above, with } => {
                let mut values: Vec<_> = values(*metric, snapshot)
                    .into_iter()
                    .filter(|(value, ..)| if *above { value > with } else { value < with })
                    .collect();
                values.sort_by(
                    |(left, ..), (right, ..)| {
                        if *above { right.total_cmp(left) } else { left.total_cmp(right) }
                    },
                );
                values
                    .into_iter()
                    .map(|(value, whose)| {
                        let what = if whose.is_empty() { format!("{value}") } else { format!("{value} {whose}") };
                        self.held(what, json!({ "value": value, "of": whose }))
                    })
                    .collect()
            }
        }
    }

    fn held(&self, what: String, evidence: Value) -> Held {
        Held { condition: self.text.clone(), what, evidence }
    }
}

/// The values of a metric, each with what has it.
fn values(metric: Metric, snapshot: &Snapshot) -> Vec<(f64, String)> {
    let destinations = || {
        snapshot.destinations.iter().map(|dest| {
            let remote = crate::event::Endpoint { addr: dest.remote_addr, port: dest.remote_port };
            (dest, format!("towards {remote} from {}", dest.local_addr))
        })
    };
    let workloads = || snapshot.workloads.iter().map(|workload| (workload, format!("of workload {}", workload.name)));
    match metric {
        Metric::Occupancy => destinations()
            .filter_map(|(dest, whose)| {
                let capacity = dest.ports.capacity.filter(|capacity| *capacity > 0)?;
                Some((f64::from(dest.ports.peak) / f64::from(capacity), whose))
            })
            .collect(),
        Metric::Ttx => destinations()
            .filter_map(|(dest, whose)| Some((dest.seconds_to_exhaustion?, format!("s {whose}"))))
            .collect(),
        Metric::Failed => workloads().map(|(workload, whose)| (workload.failed.without_port() as f64, whose)).collect(),
        Metric::Errors => workloads().map(|(workload, whose)| (workload.failed.total() as f64, whose)).collect(),
        Metric::TimeWait => workloads().map(|(workload, whose)| (workload.time_wait.peak as f64, whose)).collect(),
        Metric::CloseWait => workloads().map(|(workload, whose)| (workload.close_wait.peak as f64, whose)).collect(),
        Metric::ConnectsPerSecond => {
            let seconds = snapshot.recorded_seconds();
            workloads()
                .filter(|_| seconds > 0.0)
                .map(|(workload, whose)| (workload.connects as f64 / seconds, whose))
                .collect()
        }
        Metric::Lost => {
            vec![(snapshot.events.lost.certain() as f64, "events".into())]
        }
        Metric::Repaired => vec![(snapshot.events.repaired as f64, "flows".into())],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn holds(condition: &str, snapshot: &Snapshot) -> usize {
        condition.parse::<Condition>().expect(condition).holds(snapshot).len()
    }

    #[test]
    fn conditions_hold_of_an_incident_and_not_of_a_quiet_host() {
        let incident = sample::exhaustion();
        for condition in ["port-exhaustion", "occupancy > 0.8", "occupancy>80%", "failed>0", "errors>0"] {
            assert!(holds(condition, &incident) > 0, "{condition}");
        }
        let wrong = "occupancy>80".parse::<Condition>().expect_err("a share is at most 1");
        assert!(wrong.contains("write `occupancy>80%`"), "{wrong}");
        let quiet = Snapshot::default();
        for condition in ["port-exhaustion", "occupancy>0", "ttx<10m", "failed>0", "lost>0"] {
            assert_eq!(holds(condition, &quiet), 0, "{condition}");
        }
    }

    #[test]
    fn durations_are_read_as_such_and_nonsense_is_told_what_is_expected() {
        let kind = |text: &str| text.parse::<Condition>().map(|condition| condition.predicate);
        assert_eq!(kind("ttx<10m"), Ok(Predicate::Compared { metric: Metric::Ttx, above: false, with: 600.0 }));
        for wrong in ["", "exhaustion", "ttx<soon", "occupancy>NaN", "load>1", "failed>"] {
            assert!(kind(wrong).is_err(), "{wrong}");
        }
        assert!(kind("exhaustion").expect_err("none").contains("port-exhaustion"));
    }
}
