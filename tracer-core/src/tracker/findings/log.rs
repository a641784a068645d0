//! The life of findings: when each began, how bad it got, when it ended.
//!
//! Rules say what holds at an instant. This module joins what they say at successive judgements: a finding begins when its rule first
//! says so, stays while the rule repeats it, and is over when the rule has not said so for [`HOLD_NANOS`]. Then it keeps the words and
//! the numbers of its worst instant, because who holds the ports after a storm says nothing about the storm.

use std::collections::{BTreeMap, VecDeque};

use crate::event::Ktime;
use crate::tracker::snapshot::{Finding, FindingId, FindingLife, FindingState, FindingSubject, Peak, Severity};

/// A finding that has not held for this long is over. Long enough that failures of a client which tries again every few seconds are one
/// incident, short enough that nobody acts on what has passed.
const HOLD_NANOS: u64 = 10_000_000_000;
/// Active findings of one id that are followed. A host that fails towards a thousand destinations has one problem: the worst are followed,
/// the rest is counted.
const MAX_ACTIVE_PER_ID: usize = 32;
/// Findings listed of one id that hold at once; the last of them says how many more there are, and how much they add up to.
pub const MAX_LISTED_PER_ID: usize = 5;
/// Findings that are over and remembered, some kilobytes each: more than anybody reads of one trace.
const MAX_PAST: usize = 64;
/// What began within this of the begin of the trace may have begun before it.
const START_NANOS: u64 = 1_500_000_000;

/// What a finding is about: this stays while its numbers change.
type Identity = (FindingId, FindingSubject);

/// A finding that holds.
#[derive(Clone, Debug)]
struct Active {
    began: Ktime,
    /// When its rule last said so.
    held: Ktime,
    peak: Peak,
    /// As of its most telling moment.
    worst: Finding,
    /// As of the last time that it held.
    latest: Finding,
    severity: Severity,
    /// What had been counted before it began.
    before: Option<u64>,
}

impl Active {
    fn new(now: Ktime, found: Finding, ended_with: Option<u64>) -> Self {
        let measure = found.measure;
        let peak = Peak { value: measure.value, unit: measure.unit, at: now };
        let before = measure.total.map(|total| total.saturating_sub(measure.recent).max(ended_with.unwrap_or(0)));
        Self {
            began: found.since.unwrap_or(now),
            held: found.until.unwrap_or(now),
            peak,
            severity: found.severity,
            worst: found.clone(),
            latest: found,
            before,
        }
    }

    fn holds(&mut self, now: Ktime, found: Finding) {
        self.held = found.until.unwrap_or(now).max(self.held);
        self.severity = self.severity.min(found.severity);
        let measure = found.measure;
        if measure.value >= self.peak.value {
            self.peak = Peak { value: measure.value, unit: measure.unit, at: now };
        }
        if measure.weight >= self.worst.measure.weight {
            self.worst = found.clone();
        }
        self.latest = found;
    }

    fn life(&self, state: FindingState) -> FindingLife {
        FindingLife {
            state,
            began: Some(self.began),
            ended: (state == FindingState::Past).then_some(self.held),
            peak: Some(self.peak),
            total: self.latest.measure.total.zip(self.before).map(|(total, before)| total.saturating_sub(before)),
        }
    }

    /// The finding as it is told while it holds.
    fn present(&self, start: Ktime) -> Finding {
        Finding { since: self.since(start), life: self.life(FindingState::Active), ..self.latest.clone() }
    }

    /// The finding as it is told once it is over.
    fn past(&self, start: Ktime) -> Finding {
        let mut finding = self.worst.clone();
        if !finding.past.is_empty() {
            finding.summary = std::mem::take(&mut finding.past);
        }
        finding.severity = self.severity;
        finding.since = self.since(start);
        finding.life = self.life(FindingState::Past);
        finding.measure.total = self.latest.measure.total;
        finding
    }

    fn since(&self, start: Ktime) -> Option<Ktime> {
        (self.worst.since.is_some() || self.began.since(start) > START_NANOS).then_some(self.began)
    }
}

/// The findings that hold, and those that are over.
#[derive(Clone, Debug, Default)]
pub struct FindingLog {
    active: BTreeMap<Identity, Active>,
    /// Oldest first.
    past: VecDeque<Finding>,
    forgotten: u64,
    /// Found at the last judgement and not followed: how many, and the sum of their measures.
    others: BTreeMap<FindingId, (u64, f64)>,
    start: Ktime,
}

impl FindingLog {
    /// Takes what the rules say at `now`. Returns the findings that have begun to hold or are over since the last time.
    pub fn judge(&mut self, start: Ktime, now: Ktime, found: Vec<Finding>) -> Vec<Finding> {
        self.start = start;
        let mut changes = Vec::new();
        self.end_overdue(now, &found, &mut changes);
        self.others.clear();
        let mut by_id: BTreeMap<FindingId, Vec<Finding>> = BTreeMap::new();
        for finding in found {
            by_id.entry(finding.id).or_default().push(finding);
        }
        for (id, mut all) in by_id {
            // Stable: those of one size stay in the order of the rule. What is followed stays followed.
            all.sort_by(|a, b| a.severity.cmp(&b.severity).then_with(|| b.measure.value.total_cmp(&a.measure.value)));
            let mut room =
                MAX_ACTIVE_PER_ID.saturating_sub(self.active.keys().filter(|(active, _)| *active == id).count());
            for finding in all {
                let identity = (id, finding.subject.clone());
                if let Some(active) = self.active.get_mut(&identity) {
                    active.holds(now, finding);
                } else if room > 0 || self.yields(id, &finding) {
                    room = room.saturating_sub(1);
                    let active = Active::new(now, finding, self.ended_with(&identity));
                    changes.push(active.present(start));
                    self.active.insert(identity, active);
                } else {
                    let others = self.others.entry(id).or_default();
                    others.0 += 1;
                    others.1 += finding.measure.value;
                }
            }
        }
        changes
    }

    /// All places of this id are taken: the least of them makes way for one that is more severe, or twice as large, and is one of the rest
    /// from now on. Anybody can make many small findings, and none of them may hide the one that matters.
    fn yields(&mut self, id: FindingId, newcomer: &Finding) -> bool {
        let of_id = self.active.iter().filter(|((of, _), _)| *of == id);
        let least = of_id.max_by(|(_, a), (_, b)| {
            let size = |of: &Active| of.latest.measure.value;
            a.latest.severity.cmp(&b.latest.severity).then_with(|| size(b).total_cmp(&size(a)))
        });
        let Some((identity, least)) = least else { return false };
        let (severity, value) = (least.latest.severity, least.latest.measure.value);
        let larger = severity == newcomer.severity && newcomer.measure.value > 2.0 * value;
        if newcomer.severity >= severity && !larger {
            return false;
        }
        let others = self.others.entry(id).or_default();
        others.0 += 1;
        others.1 += value;
        let identity = identity.clone();
        self.active.remove(&identity);
        true
    }

    /// What the latest past finding of this identity had counted when it ended.
    fn ended_with(&self, (id, subject): &Identity) -> Option<u64> {
        let same = |past: &&Finding| past.id == *id && past.subject == *subject;
        self.past.iter().rev().find(same)?.measure.total
    }

    /// Ends what has not held for long enough, and forecasts that have come true.
    fn end_overdue(&mut self, now: Ktime, found: &[Finding], changes: &mut Vec<Finding>) {
        let start = self.start;
        let came_true = |(id, subject): &Identity| {
            *id == FindingId::PortExhaustionSoon
                && found.iter().any(|found| found.id == FindingId::PortExhaustion && found.subject == *subject)
        };
        let over: Vec<Identity> = self
            .active
            .iter()
            .filter(|(identity, active)| now.since(active.held) >= HOLD_NANOS || came_true(identity))
            .map(|(identity, _)| identity.clone())
            .collect();
        for identity in over {
            let Some(active) = self.active.remove(&identity) else { continue };
            let past = active.past(start);
            changes.push(past.clone());
            if self.past.len() == MAX_PAST {
                self.past.pop_front();
                self.forgotten += 1;
            }
            self.past.push_back(past);
        }
    }

    /// Those that hold, most severe first, then those that are over, latest first.
    pub fn findings(&self) -> Vec<Finding> {
        let mut list: Vec<Finding> = Vec::new();
        for id in FindingId::ALL {
            let mut active: Vec<&Active> =
                self.active.iter().filter(|((of, _), _)| *of == id).map(|(_, active)| active).collect();
            active.sort_by(|a, b| {
                let size = |of: &Active| of.latest.measure.value;
                a.latest.severity.cmp(&b.latest.severity).then_with(|| size(b).total_cmp(&size(a)))
            });
            let hidden = active.split_off(active.len().min(MAX_LISTED_PER_ID));
            let (untold, sum) = self.others.get(&id).copied().unwrap_or_default();
            let others = hidden.len() as u64 + untold;
            let sum: f64 = hidden.iter().map(|active| active.latest.measure.value).sum::<f64>() + sum;
            list.extend(active.into_iter().map(|active| active.present(self.start)));
            if let Some(last) = list.last_mut().filter(|_| others > 0) {
                let unit = last.measure.unit;
                let together = if unit.is_empty() { String::new() } else { format!(", together {sum:.0} {unit}") };
                last.summary = format!("{} {others} more like this{together}.", last.summary);
                last.evidence.insert("others", others.into());
                last.evidence.insert("others_sum", sum.into());
            }
        }
        // Stable: findings of one severity keep the order of the ids.
        list.sort_by_key(|finding| finding.severity);
        list.extend(self.past.iter().rev().cloned());
        list
    }

    /// Findings that are over and were forgotten.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::tracker::snapshot::Measure;

    const SECOND: u64 = 1_000_000_000;

    fn found(workload: &str, value: f64) -> Finding {
        Finding {
            past: format!("was {value}"),
            measure: Measure { value, unit: "sockets", weight: value, total: None, recent: 0 },
            ..Finding::new(
                FindingId::CloseWaitLeak,
                FindingSubject::Workload(Arc::from(workload)),
                Severity::Warning,
                format!("is {value}"),
            )
        }
    }

    /// Judges once a second; `found` are the values from the first second on, 0 = not found.
    fn after(values: &[f64]) -> FindingLog {
        let mut log = FindingLog::default();
        for (second, &value) in (1_u64..).zip(values) {
            let found = if value > 0.0 { vec![found("a", value)] } else { Vec::new() };
            log.judge(Ktime(0), Ktime(second * SECOND), found);
        }
        log
    }

    #[test]
    fn a_finding_begins_peaks_and_ends_once() {
        let mut values = vec![0.0, 0.0, 3.0, 9.0, 0.0, 4.0];
        let log = after(&values);
        let [now] = &log.findings()[..] else { panic!("{log:?}") };
        assert_eq!(
            (now.life.state, now.life.began, now.life.ended),
            (FindingState::Active, Some(Ktime(3 * SECOND)), None)
        );
        assert_eq!(now.summary, "is 4");
        values.extend([0.0; 9]);
        assert!(after(&values).findings()[0].is_active(), "not yet: it may come again");
        values.push(0.0);
        let log = after(&values);
        let [past] = &log.findings()[..] else { panic!("{log:?}") };
        let peak = Peak { value: 9.0, unit: "sockets", at: Ktime(4 * SECOND) };
        assert_eq!((past.life.state, past.life.ended), (FindingState::Past, Some(Ktime(6 * SECOND))));
        assert_eq!((past.life.peak, past.summary.as_str()), (Some(peak), "was 9"));
    }

    #[test]
    fn what_is_counted_belongs_to_one_episode() {
        let counted = |total, recent| Finding {
            measure: Measure { value: 1.0, unit: "failures/min", weight: 1.0, total: Some(total), recent },
            ..found("a", 1.0)
        };
        let mut log = FindingLog::default();
        log.judge(Ktime(0), Ktime(5 * SECOND), vec![counted(12, 2)]);
        log.judge(Ktime(0), Ktime(6 * SECOND), vec![counted(15, 3)]);
        assert_eq!(log.findings()[0].life.total, Some(5));
        log.judge(Ktime(0), Ktime(60 * SECOND), Vec::new());
        log.judge(Ktime(0), Ktime(70 * SECOND), vec![counted(16, 4)]);
        let totals: Vec<_> = log.findings().iter().map(|finding| finding.life.total).collect();
        assert_eq!(totals, [Some(1), Some(5)], "the second episode has one more, whatever its window shows");
    }

    #[test]
    fn a_forecast_that_has_come_true_is_over() {
        let place = FindingSubject::Workload(Arc::from("a"));
        let of = |id| Finding::new(id, place.clone(), Severity::Critical, String::new());
        let mut log = FindingLog::default();
        log.judge(Ktime(0), Ktime(SECOND), vec![of(FindingId::PortExhaustionSoon)]);
        log.judge(Ktime(0), Ktime(2 * SECOND), vec![of(FindingId::PortExhaustion)]);
        let told: Vec<_> = log.findings().iter().map(|finding| (finding.id, finding.is_active())).collect();
        assert_eq!(told, [(FindingId::PortExhaustion, true), (FindingId::PortExhaustionSoon, false)]);
    }

    #[test]
    fn the_past_is_bounded_and_says_what_it_forgot() {
        let mut log = FindingLog::default();
        for at in 0..100 {
            log.judge(Ktime(0), Ktime(at * 20 * SECOND), vec![found("a", 1.0)]);
        }
        assert_eq!((log.findings().len() - 1, log.forgotten()), (MAX_PAST, 99 - MAX_PAST as u64));
    }

    /// A user who failed towards 4,500 destinations in ranges of his own kept all places, and the exhaustion after that had none.
    #[test]
    fn many_small_findings_hide_none_that_matters() {
        let mut log = FindingLog::default();
        let small = |number: u32| Finding { severity: Severity::Warning, ..found(&number.to_string(), 1.0) };
        let many: Vec<_> = (0..100).map(small).collect();
        log.judge(Ktime(0), Ktime(SECOND), many.clone());
        let real = Finding { severity: Severity::Critical, ..found("real", 1.0) };
        let begun = log.judge(Ktime(0), Ktime(2 * SECOND), many.iter().cloned().chain([real]).collect());
        assert_eq!(begun.iter().map(|finding| &*finding.summary).collect::<Vec<_>>(), ["is 1"]);
        let listed = log.findings();
        assert_eq!((listed[0].severity, log.active.len()), (Severity::Critical, MAX_ACTIVE_PER_ID));
        let large = Finding { severity: Severity::Warning, ..found("large", 9.0) };
        log.judge(Ktime(0), Ktime(3 * SECOND), vec![large]);
        assert!(log.findings().iter().any(|finding| finding.summary.starts_with("is 9")), "{:?}", log.findings());
    }

    #[test]
    fn the_worst_are_listed_and_the_rest_is_summed() {
        let mut log = FindingLog::default();
        let many: Vec<_> = (1..=100).map(|value| found(&value.to_string(), f64::from(value))).collect();
        log.judge(Ktime(0), Ktime(SECOND), many);
        let listed = log.findings();
        assert_eq!((listed.len(), listed[0].summary.as_str()), (MAX_LISTED_PER_ID, "is 100"));
        assert_eq!(log.active.len(), MAX_ACTIVE_PER_ID);
        let last = listed.last().expect("listed");
        assert_eq!(last.summary, "is 96 95 more like this, together 4560 sockets.");
        assert_eq!(last.evidence.get("others"), Some(&95.into()));
    }
}
