//! Distributions of durations: a line each, or side by side with a line per bucket.

use ratatui::layout::Rect;

use super::canvas::Canvas;
use crate::tui::charts::histogram;
use tracer_core::tracker::snapshot::detail::DurationHistogram;

/// Lines of a distribution with a line per bucket.
const HEIGHT: u16 = 10;

/// Draws labelled distributions: side by side with a line per bucket if there is room for `tall` ones, else a line each. Returns
/// the lines used.
pub fn draw(canvas: &mut Canvas<'_>, area: Rect, tall: bool, distributions: &[(&str, &DurationHistogram)]) -> u16 {
    let unicode = canvas.options.unicode;
    if !tall {
        for (index, (label, distribution)) in distributions.iter().enumerate() {
            let y = area.y + u16::try_from(index).unwrap_or(0);
            canvas.line(area, y, &histogram::line(label, distribution, unicode));
        }
        return u16::try_from(distributions.len()).unwrap_or(0);
    }
    let count = u16::try_from(distributions.len()).unwrap_or(1).max(1);
    let width = area.width / count;
    let mut most = 0;
    for (index, (label, distribution)) in distributions.iter().enumerate() {
        let x = area.x + width * u16::try_from(index).unwrap_or(0);
        let column = Rect { x, width: width.saturating_sub(2), ..area };
        let lines = histogram::lines(label, distribution, usize::from(column.width), usize::from(HEIGHT), unicode);
        for (line, cell) in lines.iter().enumerate() {
            canvas.line(column, area.y + u16::try_from(line).unwrap_or(0), cell);
        }
        most = most.max(u16::try_from(lines.len()).unwrap_or(0));
    }
    most + 1
}
