//! Occupancy of a port range as a bar. Its letters carry the meaning, so that the bar reads the same without colours. Not for: the
//! numbers beside it.

use std::collections::BTreeMap;

use super::text::{Paint, StyledLine};
use crate::event::TcpState;

/// Ports towards one destination, in the three groups that ask for different cures, and those that are free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortGroups {
    /// Held by open connections.
    pub established: u32,
    /// Held by `TIME_WAIT`.
    pub time_wait: u32,
    /// Held in any other state.
    pub other: u32,
    /// Free, as far as the capacity is known.
    pub free: u32,
}

impl PortGroups {
    /// Groups the ports by state; `in_use` counts all that are held. An unknown capacity leaves none free.
    pub fn new(by_state: &BTreeMap<TcpState, u32>, in_use: u32, capacity: Option<u32>) -> Self {
        let of = |state| by_state.get(&state).copied().unwrap_or(0);
        let (established, time_wait) = (of(TcpState::Established), of(TcpState::TimeWait));
        Self {
            established,
            time_wait,
            other: in_use.saturating_sub(established).saturating_sub(time_wait),
            free: capacity.unwrap_or(0).saturating_sub(in_use),
        }
    }

    fn parts(self) -> [u32; 4] {
        [self.established, self.time_wait, self.other, self.free]
    }
}

/// The letters of a bar: established, `TIME_WAIT`, other, free.
pub fn letters(unicode: bool) -> [char; 4] {
    if unicode { ['\u{2588}', '\u{2593}', '\u{2592}', '\u{b7}'] } else { ['#', '=', '+', '.'] }
}

/// The bar, `cells` columns wide. A group that is not empty has at least one cell; if all are empty, so is the bar.
pub fn bar(groups: PortGroups, cells: usize, unicode: bool) -> StyledLine {
    let paints = [Paint::Good, Paint::Warn, Paint::Strong, Paint::Dim];
    paints
        .into_iter()
        .zip(letters(unicode))
        .zip(share(groups.parts(), cells))
        .filter(|&(_, cells)| cells > 0)
        .map(|((paint, letter), cells)| (paint, std::iter::repeat_n(letter, cells).collect()))
        .collect()
}

/// Divides `cells` in proportion: each part gets its share without the fraction, at least 1 if it is not 0; the largest part evens
/// out.
fn share(parts: [u32; 4], cells: usize) -> [usize; 4] {
    let total: u64 = parts.iter().map(|&part| u64::from(part)).sum();
    if total == 0 {
        return [0; 4];
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

    fn drawn(established: u32, time_wait: u32, other: u32, free: u32) -> String {
        let groups = PortGroups { established, time_wait, other, free };
        bar(groups, 44, false).into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn every_bar_is_full_width_and_shows_what_is_there() {
        for parts in [[1, 0, 0, 0], [0, 1, 0, u32::MAX], [42, 982, 0, 0], [1, 1, 1, 1_000_000], [u32::MAX; 4]] {
            let text = drawn(parts[0], parts[1], parts[2], parts[3]);
            assert_eq!(text.len(), 44, "{parts:?}");
            for (part, letter) in parts.into_iter().zip(letters(false)) {
                assert_eq!(text.contains(letter), part > 0, "{parts:?} {letter}");
            }
        }
        assert_eq!(drawn(0, 0, 0, 0), "");
        assert_eq!(drawn(25, 0, 0, 25), "#".repeat(22) + &".".repeat(22));
    }

    #[test]
    fn other_is_what_no_group_has() {
        let by_state = BTreeMap::from([(TcpState::Established, 3), (TcpState::TimeWait, 4), (TcpState::CloseWait, 5)]);
        let groups = PortGroups::new(&by_state, 12, Some(10));
        assert_eq!(groups, PortGroups { established: 3, time_wait: 4, other: 5, free: 0 });
    }
}
