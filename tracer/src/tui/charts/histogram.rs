//! A distribution of durations as a picture: in one line, or with a line per bucket.

use super::sparkline;
use tracer_core::layout::human::{brief, short};
use tracer_core::layout::text::{Paint, StyledLine, left};
use tracer_core::tracker::snapshot::detail::DurationHistogram;

/// `p50 2.1 ms  p99 8.4 ms  max 17 ms  n 2,561`.
pub fn summary(shape: &DurationHistogram) -> String {
    let summary = &shape.summary;
    let part = |name: &str, value: Option<f64>| value.map(|value| format!("{name} {}  ", brief(value)));
    let parts = [
        part("p50", summary.p50),
        part("p99", summary.p99),
        part("max", summary.max),
        Some(format!("n {}", short(summary.count))),
    ];
    parts.into_iter().flatten().collect()
}

/// One line: `label  0.2 ms ..:#: 20 ms  p50 ...`.
pub fn line(label: &str, shape: &DurationHistogram, unicode: bool) -> StyledLine {
    let mut cell = vec![(Paint::Dim, left(label, 14))];
    let (Some(first), Some(last)) = (shape.buckets.first(), shape.buckets.last()) else {
        cell.push((Paint::Dim, "none yet".into()));
        return cell;
    };
    let counts: Vec<u64> = shape.buckets.iter().map(|bucket| bucket.count).collect();
    cell.push((Paint::Dim, format!("{:>6} ", brief(first.upto_ms))));
    cell.push((Paint::Strong, sparkline::line(&counts, unicode)));
    cell.push((Paint::Dim, format!(" {}  ", brief(last.upto_ms))));
    cell.push((Paint::Plain, summary(shape)));
    cell
}

/// A heading and a line per bucket, at most `height` lines of `width` columns. The longest durations share the last line if
/// there are more buckets than lines.
pub fn lines(label: &str, shape: &DurationHistogram, width: usize, height: usize, unicode: bool) -> Vec<StyledLine> {
    let mut lines = vec![vec![(Paint::Strong, format!("{label}  ")), (Paint::Dim, summary(shape))]];
    let room = height.saturating_sub(1);
    let most = shape.buckets.iter().map(|bucket| bucket.count).max().unwrap_or(0);
    let hidden = shape.buckets.len().saturating_sub(room);
    let shown = if hidden > 0 { room.saturating_sub(1) } else { room };
    let letter = if unicode { "\u{2588}" } else { "#" };
    for bucket in shape.buckets.iter().take(shown) {
        let full = width.saturating_sub(22);
        let cells = usize::try_from(u128::from(bucket.count) * full as u128 / u128::from(most.max(1))).unwrap_or(0);
        let cells = if bucket.count > 0 { cells.max(1) } else { 0 };
        lines.push(vec![
            (Paint::Dim, format!("<= {:>7} ", brief(bucket.upto_ms))),
            (Paint::Plain, format!("{:>9} ", short(bucket.count))),
            (Paint::Strong, letter.repeat(cells)),
        ]);
    }
    if hidden > 0 && room > 0 {
        let rest: u64 = shape.buckets.iter().skip(shown).map(|bucket| bucket.count).sum();
        lines.push(vec![(Paint::Dim, format!("longer     {:>9}", short(rest)))]);
    }
    lines
}
