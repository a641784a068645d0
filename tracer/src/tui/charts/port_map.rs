//! The whole ephemeral range towards one destination as one picture.
//!
//! connect() goes through the ports of the range's first parity and takes the other half only when none of those is left
//! (net/ipv4/inet_hashtables.c `__inet_hash_connect`), so the two halves are drawn apart: one sees the first fill, then the
//! second, and the offset wander around the range. Each cell stands for the same number of neighbouring ports of one half.
//! What they are is told by the letters, what they mean by colour too: full blocks are ESTABLISHED, dots `TIME_WAIT`.

use tracer_core::event::TcpState;
use tracer_core::layout::text::{Paint, StyledLine, styled_letters};
use tracer_core::tracker::snapshot::detail::DestinationDetail;

/// What a port is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Free,
    Established,
    TimeWait,
    Other,
    Blocked,
}

/// Columns at the left: which half, and its port number.
const LABEL: usize = 10;
/// connect() tries the first half first.
const HALVES: [&str; 2] = ["1st", "2nd"];

/// The picture: lines, and how many ports a cell stands for.
pub struct Map {
    pub lines: Vec<StyledLine>,
    pub ports_per_cell: usize,
    /// Free, established, `TIME_WAIT`, other, blocked.
    pub counts: [usize; 5],
}

/// As many lines as `height` allows, fewer if one port per cell needs no more. `None` if the range is unknown.
pub fn map(detail: &DestinationDetail, width: usize, height: usize, unicode: bool) -> Option<Map> {
    let (low, high) = detail.range?;
    let uses = uses(detail, low, high);
    let columns = width.saturating_sub(LABEL + 1);
    let rows = height / 2;
    let ports_of_half = uses.len() / 2;
    if columns == 0 || rows == 0 || ports_of_half == 0 {
        return None;
    }
    let per_cell = ports_of_half.div_ceil(columns * rows).max(1);
    let mut lines = Vec::new();
    for (parity, half) in HALVES.into_iter().enumerate() {
        let ports: Vec<Use> = uses.iter().skip(parity).step_by(2).copied().collect();
        for (row, ports) in ports.chunks(per_cell * columns).enumerate() {
            let first = usize::from(low) + parity + row * per_cell * columns * 2;
            let cells = ports.chunks(per_cell).map(|ports| cell(ports, unicode));
            let name = if row == 0 { half } else { "" };
            let mut line: StyledLine = vec![(Paint::Dim, format!("{name:<3} {first:>6} "))];
            line.extend(styled_letters(cells.collect()));
            lines.push(line);
        }
    }
    let count = |of: Use| uses.iter().filter(|&&used| used == of).count();
    let counts = [Use::Free, Use::Established, Use::TimeWait, Use::Other, Use::Blocked].map(count);
    Some(Map { lines, ports_per_cell: per_cell, counts })
}

/// Port by port, the even part of the range.
fn uses(detail: &DestinationDetail, low: u16, high: u16) -> Vec<Use> {
    let size = (usize::from(high) + 1).saturating_sub(usize::from(low)) & !1;
    let mut uses = vec![Use::Free; size];
    let mut mark = |port: u16, to: Use| {
        if let Some(slot) = usize::from(port).checked_sub(usize::from(low)).and_then(|index| uses.get_mut(index)) {
            *slot = to;
        }
    };
    for &port in detail.blocked.iter().chain(&detail.reserved) {
        mark(port, Use::Blocked);
    }
    for port in &detail.used {
        let to = match port.state {
            TcpState::Established => Use::Established,
            TcpState::TimeWait => Use::TimeWait,
            _ => Use::Other,
        };
        mark(port.port, to);
    }
    uses
}

/// The letter of a few ports: by what most of the used ones are, as full as they are used.
fn cell(ports: &[Use], unicode: bool) -> (Paint, char) {
    let count = |of: Use| ports.iter().filter(|&&used| used == of).count();
    let blocked = count(Use::Blocked);
    let parts = [
        (count(Use::Established), Paint::Good, Use::Established),
        (count(Use::TimeWait), Paint::Warn, Use::TimeWait),
        (count(Use::Other), Paint::Strong, Use::Other),
    ];
    let used: usize = parts.iter().map(|part| part.0).sum();
    if used == 0 {
        return if blocked == ports.len() { (Paint::Bad, 'x') } else { (Paint::Dim, free(unicode)) };
    }
    let (_, paint, most) = parts.into_iter().max_by_key(|part| part.0).unwrap_or(parts[0]);
    let eighths = (used * 8).div_ceil((ports.len() - blocked).max(1)).clamp(1, 8);
    (paint, letter(most, eighths, unicode))
}

pub fn free(unicode: bool) -> char {
    if unicode { '\u{b7}' } else { '.' }
}

/// `eighths` from 1 to 8.
fn letter(used: Use, eighths: usize, unicode: bool) -> char {
    const BLOCKS: [char; 8] =
        ['\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}'];
    const BRAILLE: [char; 8] =
        ['\u{2840}', '\u{28c0}', '\u{28c4}', '\u{28e4}', '\u{28e6}', '\u{28f6}', '\u{28f7}', '\u{28ff}'];
    let at = |letters: &[char; 8]| letters.get(eighths - 1).copied().unwrap_or('?');
    match (used, unicode, eighths > 4) {
        (Use::Established, true, _) => at(&BLOCKS),
        (Use::TimeWait, true, _) => at(&BRAILLE),
        (_, true, false) => '\u{2591}',
        (_, true, true) => '\u{2592}',
        (Use::Established, false, false) => 'o',
        (Use::Established, false, true) => '#',
        (Use::TimeWait, false, false) => '-',
        (Use::TimeWait, false, true) => '=',
        (_, false, _) => '+',
    }
}

/// Letters of the legend: established, `TIME_WAIT`, other, free.
pub fn legend(unicode: bool) -> [char; 4] {
    [Use::Established, Use::TimeWait, Use::Other]
        .map(|used| letter(used, 8, unicode))
        .into_iter()
        .chain([free(unicode)])
        .collect::<Vec<_>>()
        .try_into()
        .unwrap_or(['?'; 4])
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracer_core::event::{DestinationKey, Netns};
    use tracer_core::report::sample::addr;
    use tracer_core::tracker::snapshot::detail::{DurationHistogram, PortUse};

    fn detail(range: (u16, u16), used: &[(u16, TcpState)]) -> DestinationDetail {
        DestinationDetail {
            key: DestinationKey {
                netns: Netns::of_inode(1),
                local_addr: addr("10.0.0.1"),
                remote_addr: addr("10.0.0.2"),
                remote_port: 443,
            },
            range: Some(range),
            used: used.iter().map(|&(port, state)| PortUse { port, state, owner: 0, since: None }).collect(),
            owners: Vec::new(),
            blocked: Vec::new(),
            reserved: Vec::new(),
            lifetime: DurationHistogram::default(),
            connect: DurationHistogram::default(),
            port_search: DurationHistogram::default(),
        }
    }

    fn drawn(detail: &DestinationDetail, width: usize, height: usize) -> Vec<String> {
        let map = map(detail, width, height, false).expect("a map");
        map.lines.iter().map(|line| line.iter().map(|(_, text)| text.as_str()).collect()).collect()
    }

    #[test]
    fn the_halves_of_the_range_are_apart() {
        let even: Vec<_> = (0..8).map(|port| (40_000 + 2 * port, TcpState::TimeWait)).collect();
        let mut detail = detail((40_000, 40_015), &even);
        detail.used[0].state = TcpState::Established;
        detail.blocked = vec![40_003];
        detail.reserved = vec![40_001];
        assert_eq!(drawn(&detail, 40, 8), ["1st  40000 #=======", "2nd  40001 xx......"]);
    }

    #[test]
    fn a_cell_of_many_ports_is_as_full_as_they_are() {
        let detail = detail((40_000, 40_063), &[(40_000, TcpState::Established), (40_062, TcpState::CloseWait)]);
        assert_eq!(drawn(&detail, 19, 2), ["1st  40000 o......+", "2nd  40001 ........"]);
        // An odd range loses its last port, as connect() does.
        let mut odd = detail.clone();
        odd.range = Some((40_000, 40_064));
        assert_eq!(drawn(&odd, 19, 2), drawn(&detail, 19, 2));
    }

    #[test]
    fn every_port_of_the_largest_range_has_its_place() {
        let all: Vec<_> = (1_024..=u16::MAX).map(|port| (port, TcpState::TimeWait)).collect();
        let detail = detail((1_024, u16::MAX), &all);
        for (width, height) in [(13, 2), (80, 6), (200, 20)] {
            let map = map(&detail, width, height, true).expect("a map");
            assert!(map.lines.len() <= height);
            assert_eq!(map.counts, [0, 0, 64_512, 0, 0]);
            let cells: usize =
                map.lines.iter().map(|line| line[1..].iter().map(|(_, t)| t.chars().count()).sum::<usize>()).sum();
            assert!(cells * map.ports_per_cell >= 64_512);
        }
        assert!(map(&detail, 5, 6, true).is_none());
    }
}
