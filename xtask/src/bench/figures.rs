//! The figures that the measuring programs printed: keys and samples.

use std::collections::BTreeMap;

use serde::Deserialize;

/// One line of a measuring program.
#[derive(Deserialize)]
struct FigureLine {
    key: String,
    samples: Vec<f64>,
}

/// The figures of one run: the samples of every line, by key.
#[derive(Debug, Default)]
pub struct Figures(BTreeMap<String, Vec<Vec<f64>>>);

impl Figures {
    /// Adds the figure of a line; ignores lines of other forms.
    pub fn read(&mut self, line: &str) {
        if let Ok(FigureLine { key, samples }) = serde_json::from_str(line) {
            self.add(key, samples);
        }
    }

    pub fn add(&mut self, key: String, samples: Vec<f64>) {
        self.0.entry(key).or_default().push(samples);
    }

    /// Samples of a key, one list per line.
    pub fn lines(&self, key: &str) -> &[Vec<f64>] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// The keys that begin so, without that begin, and the first line of each.
    pub fn beginning<'a>(&'a self, begin: &'a str) -> impl Iterator<Item = (&'a str, &'a [f64])> {
        let of = move |(key, lines): (&'a String, &'a Vec<Vec<f64>>)| {
            Some((key.strip_prefix(begin)?, lines.first()?.as_slice()))
        };
        self.0.iter().filter_map(of)
    }

    /// All samples of a key.
    pub fn samples(&self, key: &str) -> Option<Vec<f64>> {
        let samples: Vec<f64> = self.lines(key).concat();
        (!samples.is_empty()).then_some(samples)
    }

    /// `a / b`, round by round.
    pub fn ratio(&self, a: &str, b: &str) -> Option<Vec<f64>> {
        let (a, b) = (self.samples(a)?, self.samples(b)?);
        Some(a.iter().zip(&b).map(|(a, b)| a / b).collect())
    }
}

/// The median: of an even number of samples the mean of the two in the middle.
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), middle.checked_sub(1).and_then(|below| sorted.get(below))) {
        (Some(above), Some(below)) if sorted.len().is_multiple_of(2) => f64::midpoint(*above, *below),
        (Some(middle), _) => *middle,
        (None, _) => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_with_a_key_and_samples_are_figures() {
        let mut figures = Figures::default();
        figures.read("running 3 benches");
        figures.read(r#"{"key":"a","samples":[4.0,9.0]}"#);
        figures.read(r#"{"key":"b","samples":[2.0,3.0]}"#);
        assert_eq!(figures.ratio("a", "b"), Some(vec![2.0, 3.0]));
        assert_eq!(figures.samples("c"), None);
    }

    #[test]
    fn the_median_is_the_middle() {
        for (samples, expected) in [(&[3.0, 1.0, 2.0][..], 2.0), (&[1.0, 4.0, 2.0, 3.0], 2.5), (&[7.0], 7.0)] {
            assert!((median(samples) - expected).abs() < 1e-9, "{samples:?}");
        }
    }
}
