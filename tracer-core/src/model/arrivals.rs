//! How many connects come in the next seconds, from how many came in the last two minutes.
//!
//! The history is cut into segments in which the rate is constant or changes in a straight line. Where the present segment began is
//! not known for sure, so every begin is a hypothesis with the probability that the data give it (Bayesian change-point detection,
//! Fearnhead 2006, with closed-form evidence of a linear model). A load that repeats itself (cron, batches) is recognised by its
//! autocorrelation and is taken out before. A load that changes too often to be followed is described by its mean and by how much it
//! swings over ten seconds.

/// Seconds of history that a trend is drawn from. Two lives of a minisocket: what is older says nothing of the ports in use now.
pub const HISTORY_SECONDS: usize = 124;
/// A change of the rate about once a minute is expected before the data say more.
const CHANGES_PER_SECOND: f64 = 1.0 / 60.0;
/// Begins of the last so many seconds are told apart to the second, earlier ones to four.
const FINE_SECONDS: usize = 24;
const COARSE_STEP: usize = 4;
/// A straight line needs so many seconds.
const LINE_SECONDS: usize = 4;
/// A line is a bit less likely than a constant rate, before the data say more.
const LINE_PRIOR: f64 = 0.4;
/// A slope of so much of the mean rate in a second is nothing unusual.
const SLOPE_PRIOR: f64 = 0.05;
/// The rate is never trusted to swing less than this, as variance per connect; 1 is Poisson.
const MIN_DISPERSION: f64 = 0.2;
/// From so many changes in the history on the next one cannot be far.
const RESTLESS_CHANGES: usize = 7;
/// A cycle has this many seconds, up to a minute, and is seen twice.
const CYCLE_SECONDS: std::ops::RangeInclusive<usize> = 4..=61;
const CYCLE_REPEATS: usize = 2;
/// The least correlation between a cycle and the next.
const CYCLE_CORRELATION: f64 = 0.6;
/// How a trend ends: after it has lasted L seconds it lasts t more with probability (L / (L + t)) to this power. Below 1 because a
/// cause (a deploy, a queue that fills) acts for longer than the seconds in which it shows.
const TREND_PERSISTENCE: f64 = 0.35;
/// In this share of futures the rate goes back to the mean of the history when its trend ends: what rose may have been a wave.
const BACK_SHARE: f64 = 0.2;
/// Seconds over which the swing of a restless load is measured.
const SWING_SECONDS: usize = 10;

/// Since when the present segment is, and what it says of the future.
#[derive(Clone, Copy, Debug)]
struct Hypothesis {
    weight: f64,
    /// Seconds since the segment began.
    length: f64,
    mean: f64,
    mean_variance: f64,
    slope: f64,
    slope_variance: f64,
}

/// What the next seconds bring.
#[derive(Clone, Debug)]
pub struct ArrivalTrend {
    hypotheses: Vec<Hypothesis>,
    /// Of the whole history.
    mean: f64,
    dispersion: f64,
    /// What the cycle adds in the seconds to come, one whole cycle; empty without one.
    cycle: Vec<f64>,
}

/// One possible future: a rate that changes in a straight line for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ArrivalPath {
    /// Connects per second now.
    pub rate: f64,
    /// Change of the rate per second.
    pub slope: f64,
    /// Seconds after which the rate stays as it is then ...
    pub trend_seconds: f64,
    /// ... or becomes this one.
    pub back_to: Option<f64>,
}

impl ArrivalPath {
    /// Connects per second after so many seconds, as long as the rate does not go back.
    pub fn rate_after(&self, seconds: f64) -> f64 {
        (self.rate + self.slope * seconds.min(self.trend_seconds)).max(0.0)
    }
}

impl ArrivalTrend {
    /// From the connects of the last whole seconds, oldest first. `None` without any second or any connect.
    pub fn of(seconds: &[u32]) -> Option<Self> {
        let recent = &seconds[seconds.len().saturating_sub(HISTORY_SECONDS)..];
        // The idle time before the first connect is no history of this load.
        let begin = recent.iter().position(|&count| count > 0)?;
        let mut history: Vec<f64> = recent[begin..].iter().map(|&count| f64::from(count)).collect();
        let cycle = take_out_cycle(&mut history);
        let dispersion = dispersion(&history);
        let sums = Sums::of(&history, dispersion);
        let mean = sums.mean;
        let (hypotheses, changes) = segments(&sums);
        if changes >= RESTLESS_CHANGES {
            let dispersion = swing(&history).max(dispersion);
            let sums = Sums::of(&history, dispersion);
            return Some(Self { hypotheses: sums.hypotheses(0, history.len(), 0.0), mean, dispersion, cycle });
        }
        Some(Self { hypotheses, mean, dispersion, cycle })
    }

    /// Variance of the connects of a second per connect.
    pub fn dispersion(&self) -> f64 {
        self.dispersion
    }

    /// What the cycle adds in the seconds to come, over and over again; empty without one.
    pub fn cycle(&self) -> &[f64] {
        &self.cycle
    }

    /// One possible future, from three uniform numbers in 0..1 and two standard normal ones.
    pub fn path(&self, [pick, end, back]: [f64; 3], [level, slope]: [f64; 2]) -> ArrivalPath {
        let mut left = pick * self.hypotheses.iter().map(|hypothesis| hypothesis.weight).sum::<f64>();
        let mut chosen = self.hypotheses.last();
        for hypothesis in &self.hypotheses {
            left -= hypothesis.weight;
            if left <= 0.0 {
                chosen = Some(hypothesis);
                break;
            }
        }
        let Some(h) = chosen else { return ArrivalPath { rate: 0.0, slope: 0.0, trend_seconds: 0.0, back_to: None } };
        let slope = h.slope + slope * h.slope_variance.sqrt();
        let mean = h.mean + level * h.mean_variance.sqrt();
        let lasts = h.length * ((1.0 - end).max(1e-6).powf(-1.0 / TREND_PERSISTENCE) - 1.0);
        let rate = (mean + slope * h.length / 2.0).max(0.0);
        // A rate does not fall below nothing.
        let to_zero = if slope < 0.0 { rate / -slope } else { f64::INFINITY };
        let back_to = (back < BACK_SHARE).then_some(self.mean);
        ArrivalPath { rate, slope, trend_seconds: lasts.min(to_zero), back_to }
    }
}

/// Running sums, from which the evidence of any segment follows in constant time.
struct Sums {
    /// Of y, y squared, and t times y, over the seconds before the index.
    y: Vec<f64>,
    yy: Vec<f64>,
    ty: Vec<f64>,
    /// Mean of the whole history.
    mean: f64,
    dispersion: f64,
}

/// What a straight line makes of a segment.
struct Fit {
    constant: f64,
    line: Option<f64>,
    mean: f64,
    mean_variance: f64,
    slope: f64,
    slope_variance: f64,
}

impl Sums {
    fn of(history: &[f64], dispersion: f64) -> Self {
        let mut sums = Self { y: vec![0.0], yy: vec![0.0], ty: vec![0.0], mean: 0.0, dispersion };
        let (mut y, mut yy, mut ty) = (0.0, 0.0, 0.0);
        for (t, count) in history.iter().enumerate() {
            y += count;
            yy += count * count;
            ty += (t as f64 + 0.5) * count;
            sums.y.push(y);
            sums.yy.push(yy);
            sums.ty.push(ty);
        }
        sums.mean = (y / history.len().max(1) as f64).max(0.1);
        sums
    }

    fn len(&self) -> usize {
        self.y.len() - 1
    }

    /// The logarithms of the evidence for a constant rate and for a line in the seconds `from..to`, and the fitted line.
    fn fit(&self, from: usize, to: usize) -> Fit {
        let n = (to - from) as f64;
        let sum = self.y[to] - self.y[from];
        let mean = sum / n;
        let squares = (self.yy[to] - self.yy[from] - sum * mean).max(0.0);
        let variance = self.dispersion * mean.abs().max(0.3 * self.mean) + 0.1;
        // The rate may have been anything up to twice the mean.
        let prior = self.mean * self.mean;
        let off = mean - self.mean;
        let constant = -0.5
            * (n * (std::f64::consts::TAU * variance).ln()
                + (1.0 + n * prior / variance).ln()
                + squares / variance
                + n * off * off / (variance + n * prior));
        let middle = f64::midpoint(from as f64, to as f64);
        let stt = n * (n * n - 1.0) / 12.0;
        let sty = self.ty[to] - self.ty[from] - middle * sum;
        let slope_prior = (SLOPE_PRIOR * self.mean).powi(2);
        let precision = stt / variance + 1.0 / slope_prior;
        let explained = sty / variance;
        let line = constant - 0.5 * (precision * slope_prior).ln() + 0.5 * explained * explained / precision;
        Fit {
            constant,
            line: (to - from >= LINE_SECONDS).then_some(line),
            mean,
            mean_variance: variance / n,
            slope: explained / precision,
            slope_variance: 1.0 / precision,
        }
    }

    fn evidence(&self, from: usize, to: usize) -> f64 {
        let Fit { constant, line, .. } = self.fit(from, to);
        match line {
            Some(line) => ln_add(constant + (1.0 - LINE_PRIOR).ln(), line + LINE_PRIOR.ln()),
            None => constant,
        }
    }

    /// The two readings of a segment that lasts to now: constant, and a line. `weight` is a logarithm.
    fn hypotheses(&self, from: usize, to: usize, weight: f64) -> Vec<Hypothesis> {
        let fit = self.fit(from, to);
        let best = fit.line.map_or(fit.constant, |line| line.max(fit.constant));
        let length = (to - from) as f64;
        let (mean, mean_variance) = (fit.mean, fit.mean_variance);
        let level = Hypothesis {
            weight: (weight + fit.constant - best).exp() * (1.0 - LINE_PRIOR),
            length,
            mean,
            mean_variance,
            slope: 0.0,
            slope_variance: 0.0,
        };
        let line = fit.line.map(|line| Hypothesis {
            weight: (weight + line - best).exp() * LINE_PRIOR,
            slope: fit.slope,
            slope_variance: fit.slope_variance,
            ..level
        });
        let sum = level.weight + line.map_or(0.0, |line| line.weight);
        let share = |hypothesis: Hypothesis| Hypothesis {
            weight: weight.exp() * hypothesis.weight / sum.max(f64::MIN_POSITIVE),
            ..hypothesis
        };
        [Some(level), line].into_iter().flatten().map(share).collect()
    }
}

/// The hypotheses about the present segment, and how many changes the likeliest history has.
fn segments(sums: &Sums) -> (Vec<Hypothesis>, usize) {
    let n = sums.len();
    let fine = n.saturating_sub(FINE_SECONDS);
    let mut cuts: Vec<usize> = (0..fine).step_by(COARSE_STEP).collect();
    cuts.extend(fine..=n);
    let change = CHANGES_PER_SECOND.ln();
    // Of the data before each cut: the evidence, that of the likeliest history, and the number of changes in it.
    let mut before: Vec<(f64, f64, usize)> = vec![(0.0, 0.0, 0)];
    let mut last = Vec::new();
    for (index, &to) in cuts.iter().enumerate().skip(1) {
        let (mut total, mut best) = (f64::NEG_INFINITY, (f64::NEG_INFINITY, 0));
        for (&from, &(all, likeliest, changes)) in cuts[..index].iter().zip(&before) {
            let here = sums.evidence(from, to) + if from == 0 { 0.0 } else { change };
            total = ln_add(total, all + here);
            if likeliest + here > best.0 {
                best = (likeliest + here, changes + usize::from(from > 0));
            }
            if to == n {
                last.push((from, all + here));
            }
        }
        before.push((total, best.0, best.1));
    }
    let (total, _, changes) = before.last().copied().unwrap_or_default();
    let hypotheses = last
        .into_iter()
        .map(|(from, weight)| (from, weight - total))
        .filter(|&(_, weight)| weight > -7.0)
        .flat_map(|(from, weight)| sums.hypotheses(from, n, weight))
        .collect();
    (hypotheses, changes)
}

fn ln_add(a: f64, b: f64) -> f64 {
    let (high, low) = if a > b { (a, b) } else { (b, a) };
    if low == f64::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

/// From the differences of neighbours, which neither a trend nor a step changes much. The largest fifth is left out: steps are in it.
fn dispersion(history: &[f64]) -> f64 {
    // The mean of the lower four fifths of a chi-squared distribution with one degree of freedom.
    const LOWER_MEAN: f64 = 0.437;
    let mean = history.iter().sum::<f64>() / history.len().max(1) as f64;
    let mut squares: Vec<f64> = history.windows(2).map(|pair| (pair[1] - pair[0]).powi(2)).collect();
    if squares.len() < 4 {
        return 1.0;
    }
    squares.sort_by(f64::total_cmp);
    squares.truncate(squares.len() * 4 / 5);
    let lower = squares.iter().sum::<f64>() / squares.len() as f64;
    (lower / (2.0 * LOWER_MEAN * mean.max(0.1))).max(MIN_DISPERSION)
}

/// Variance per connect of the sums of ten seconds.
fn swing(history: &[f64]) -> f64 {
    let sums: Vec<f64> = history.windows(SWING_SECONDS).map(|window| window.iter().sum()).collect();
    let n = sums.len().max(1) as f64;
    let mean = sums.iter().sum::<f64>() / n;
    sums.iter().map(|sum| (sum - mean).powi(2)).sum::<f64>() / n / mean.max(0.1)
}

/// Finds a cycle, takes it out of the history, and returns what it adds in the seconds to come.
fn take_out_cycle(history: &mut [f64]) -> Vec<f64> {
    let n = history.len();
    let (mean, slope) = line_through(history);
    let line = |t: usize| mean + slope * (t as f64 - (n as f64 - 1.0) / 2.0);
    let rest: Vec<f64> = history.iter().enumerate().map(|(t, count)| count - line(t)).collect();
    let correlation = |lag: usize| {
        let (mut product, mut early, mut late) = (0.0, 0.0, 0.0);
        for (a, b) in rest.iter().zip(&rest[lag..]) {
            product += a * b;
            early += a * a;
            late += b * b;
        }
        product / (early * late).sqrt().max(f64::MIN_POSITIVE)
    };
    let longest = (*CYCLE_SECONDS.end() + 1).min(n / CYCLE_REPEATS);
    let alike: Vec<f64> = (0..=longest).map(correlation).collect();
    let mut dip = 1.0_f64;
    let mut peaks: Vec<(usize, f64)> = Vec::new();
    for lag in 1..longest {
        let here = alike[lag];
        dip = dip.min(here);
        // Neighbours are alike in a slow change too; a cycle comes back after it was gone.
        let back = here >= CYCLE_CORRELATION && dip < here / 2.0;
        if back && CYCLE_SECONDS.contains(&lag) && here >= alike[lag - 1] && here >= alike[lag + 1] {
            peaks.push((lag, here));
        }
    }
    let best = peaks.iter().map(|&(_, here)| here).fold(0.0, f64::max);
    // A multiple of the cycle is as good, and later.
    let Some(&(period, _)) = peaks.iter().find(|(_, here)| *here >= best - 0.1) else { return Vec::new() };
    // Seconds of the same phase tell the trend, which a line through parts of cycles does not.
    let growth = history[..n - period].iter().zip(&history[period..]).map(|(a, b)| b - a).sum::<f64>()
        / ((n - period) * period) as f64;
    let rest: Vec<f64> = history.iter().enumerate().map(|(t, count)| count - growth * t as f64).collect();
    let mut profile = vec![0.0; period];
    for (phase, mean) in profile.iter_mut().enumerate() {
        // From the end backwards, so that phase 0 is the second to come.
        let same: Vec<f64> =
            (1..).map_while(|turn| (n + phase).checked_sub(turn * period)).map(|at| rest[at]).collect();
        *mean = same.iter().sum::<f64>() / same.len().max(1) as f64;
    }
    let offset = profile.iter().sum::<f64>() / period as f64;
    for value in &mut profile {
        *value -= offset;
    }
    for (t, count) in history.iter_mut().enumerate() {
        let phase = (t + period - n % period) % period;
        *count -= profile[phase];
    }
    profile
}

/// Mean and slope of the straight line through the history.
fn line_through(history: &[f64]) -> (f64, f64) {
    let n = history.len() as f64;
    let mean = history.iter().sum::<f64>() / n;
    let middle = (n - 1.0) / 2.0;
    let sty: f64 = history.iter().enumerate().map(|(t, count)| (t as f64 - middle) * count).sum();
    let stt = n * (n * n - 1.0) / 12.0;
    (mean, if stt > 0.0 { sty / stt } else { 0.0 })
}

#[cfg(test)]
mod tests;
