//! Occupancy of a destination as a bar: what holds the ports, and where the present rate leads to.

use tracer_core::event::TcpState;
use tracer_core::layout::text::{Paint, StyledLine, styled_letters};
use tracer_core::tracker::snapshot::Destination;

/// Letters of a bar: established, `TIME_WAIT`, other, free. The same as the report's.
pub fn letters(unicode: bool) -> [char; 4] {
    if unicode { ['\u{2588}', '\u{2593}', '\u{2592}', '\u{b7}'] } else { ['#', '=', '+', '.'] }
}

/// Established, `TIME_WAIT`, other, free.
pub fn groups(destination: &Destination) -> [u32; 4] {
    let of = |state| destination.ports.by_state.get(&state).copied().unwrap_or(0);
    let (established, time_wait, in_use) =
        (of(TcpState::Established), of(TcpState::TimeWait), destination.ports.in_use);
    let other = in_use.saturating_sub(established).saturating_sub(time_wait);
    [established, time_wait, other, destination.ports.capacity.unwrap_or(0).saturating_sub(in_use)]
}

/// The share of the capacity that would be in use for good at the present rate; above 1 it runs out.
pub fn settles_at(destination: &Destination) -> Option<f64> {
    let bears = destination.sustainable_per_second.filter(|bears| bears.is_finite() && *bears > 0.0)?;
    let share = destination.connects_per_second / bears;
    (destination.ports.capacity.is_some() && share > 0.0 && share.is_finite()).then_some(share)
}

/// The bar in pieces, `width` columns with its brackets. Whatever is not zero shows in at least one cell; `|` marks where the
/// present rate settles, `>` in place of the closing bracket that this lies beyond.
pub fn bar(destination: &Destination, width: usize, unicode: bool) -> StyledLine {
    let cells = width.saturating_sub(2);
    if destination.ports.capacity.is_none() || cells == 0 {
        return vec![(Paint::Dim, format!("[{}]", " ".repeat(cells)))];
    }
    let paints = [Paint::Good, Paint::Warn, Paint::Strong, Paint::Dim];
    let mut row: Vec<(Paint, char)> = paints
        .into_iter()
        .zip(letters(unicode))
        .zip(share(groups(destination), cells))
        .flat_map(|(drawn, count)| std::iter::repeat_n(drawn, count))
        .collect();
    let settles = settles_at(destination);
    let mark = settles
        .filter(|share| *share < 1.0)
        .and_then(|share| (0..cells).rev().find(|&cell| (cell as f64) <= share * cells as f64));
    if let Some(cell) = mark.and_then(|mark| row.get_mut(mark)) {
        *cell = (Paint::Strong, if unicode { '\u{2502}' } else { '|' });
    }
    let end = if settles.is_some_and(|share| share >= 1.0) { (Paint::Bad, '>') } else { (Paint::Plain, ']') };
    row.insert(0, (Paint::Plain, '['));
    row.push(end);
    styled_letters(row)
}

/// Divides `cells` in proportion: every part gets its whole share, at least 1 if it is not 0; the largest part evens out.
fn share(parts: [u32; 4], cells: usize) -> [usize; 4] {
    let total: u64 = parts.iter().map(|&part| u64::from(part)).sum();
    if total == 0 {
        return [0, 0, 0, cells];
    }
    let whole = |part: u32| usize::try_from(u64::from(part) * cells as u64 / total).unwrap_or(cells);
    let mut shares = parts.map(|part| if part == 0 { 0 } else { whole(part).max(1) });
    let given: usize = shares.iter().sum();
    if let Some(most) = shares.iter_mut().max() {
        *most = (*most + cells).saturating_sub(given);
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_core::report::sample;

    fn text(destination: &Destination, width: usize) -> String {
        bar(destination, width, false).into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn the_mark_stands_where_the_rate_leads_to() {
        let mut destination = sample::forecast().destinations.remove(0);
        assert!(text(&destination, 20).ends_with('>'), "24.4 of 16.9/s lead beyond the end");
        destination.connects_per_second = destination.sustainable_per_second.expect("known") / 2.0;
        assert_eq!(text(&destination, 22).find('|'), Some(11));
        destination.connects_per_second = 0.0;
        assert!(!text(&destination, 22).contains('|'));
        destination.ports.capacity = None;
        assert_eq!(text(&destination, 6), "[    ]");
    }

    #[test]
    fn bars_are_as_wide_as_asked_and_show_what_is_there() {
        let mut destination = sample::exhaustion().destinations.remove(0);
        for width in [4, 11, 40] {
            assert_eq!(text(&destination, width).chars().count(), width);
        }
        destination.ports.in_use = 1;
        destination.ports.by_state = [(TcpState::Established, 1)].into();
        assert!(text(&destination, 40).contains('#'));
    }
}
