//! Occupancy of a destination as a bar: what holds the ports, and where the present rate leads to.

use tracer_core::layout::occupancy_bar::{self, PortGroups, letters};
use tracer_core::layout::text::{Paint, StyledLine, styled_letters};
use tracer_core::tracker::snapshot::Destination;

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
    let ports = &destination.ports;
    let groups = PortGroups::new(&ports.by_state, ports.in_use, ports.capacity);
    let pieces = occupancy_bar::bar(groups, cells, unicode);
    let mut row: Vec<(Paint, char)> =
        pieces.iter().flat_map(|(paint, text)| text.chars().map(|letter| (*paint, letter))).collect();
    // A range without a port that connect() can get has neither used nor free ones.
    let [.., free] = letters(unicode);
    row.resize(cells, (Paint::Dim, free));
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

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_core::event::TcpState;
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
