//! The whole ephemeral range towards one destination as one picture.
//!
//! connect() tries the ports of one parity first and takes the other half only when none of those is left
//! (net/ipv4/inet_hashtables.c, `__inet_hash_connect`). The two halves are therefore drawn apart: the first fills, then the
//! second, and the search's offset wanders around the range. Each cell stands for the same number of neighbouring ports of one
//! half. Its letter says what most of them are used for and how many are: blocks are `ESTABLISHED`, dots `TIME_WAIT`.

use tracer_core::event::TcpState;
use tracer_core::layout::text::{Paint, StyledLine, styled_letters};
use tracer_core::tracker::snapshot::detail::DestinationDetail;

/// What a port is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PortUsage {
    Free,
    Established,
    TimeWait,
    Other,
    Blocked,
}

/// Columns at the left of each line: which half it is of, and its first port.
const LABEL: usize = 10;
/// connect() tries the first half first.
const HALVES: [&str; 2] = ["1st", "2nd"];

/// The picture with what its legend needs.
pub struct PortMap {
    /// The lines of the first half, then those of the second.
    pub lines: Vec<StyledLine>,
    /// How many ports a cell stands for.
    pub ports_per_cell: usize,
    /// Ports that are free, established, in `TIME_WAIT`, in another state, blocked.
    pub counts: [usize; 5],
}

/// A map of at most `height` lines of `width` columns; fewer lines if one port per cell needs no more. `None` if the range is
/// unknown or there is no room.
pub fn map(detail: &DestinationDetail, width: usize, height: usize, unicode: bool) -> Option<PortMap> {
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
        let ports: Vec<PortUsage> = uses.iter().skip(parity).step_by(2).copied().collect();
        for (row, ports) in ports.chunks(per_cell * columns).enumerate() {
            let first = usize::from(low) + parity + row * per_cell * columns * 2;
            let cells = ports.chunks(per_cell).map(|ports| cell(ports, unicode));
            let name = if row == 0 { half } else { "" };
            let mut line: StyledLine = vec![(Paint::Dim, format!("{name:<3} {first:>6} "))];
            line.extend(styled_letters(cells.collect()));
            lines.push(line);
        }
    }
    let count = |of: PortUsage| uses.iter().filter(|&&used| used == of).count();
    let counts =
        [PortUsage::Free, PortUsage::Established, PortUsage::TimeWait, PortUsage::Other, PortUsage::Blocked].map(count);
    Some(PortMap { lines, ports_per_cell: per_cell, counts })
}

/// The use of each port of the range; the last port of an odd range is left out, as connect() leaves it out.
fn uses(detail: &DestinationDetail, low: u16, high: u16) -> Vec<PortUsage> {
    let size = (usize::from(high) + 1).saturating_sub(usize::from(low)) & !1;
    let mut uses = vec![PortUsage::Free; size];
    let mut mark = |port: u16, to: PortUsage| {
        if let Some(slot) = usize::from(port).checked_sub(usize::from(low)).and_then(|index| uses.get_mut(index)) {
            *slot = to;
        }
    };
    for &port in detail.blocked.iter().chain(&detail.reserved) {
        mark(port, PortUsage::Blocked);
    }
    for port in &detail.used {
        let to = match port.state {
            TcpState::Established => PortUsage::Established,
            TcpState::TimeWait => PortUsage::TimeWait,
            _ => PortUsage::Other,
        };
        mark(port.port, to);
    }
    uses
}

/// The letter of neighbouring ports: for what most of them are used, and as full as they are used.
fn cell(ports: &[PortUsage], unicode: bool) -> (Paint, char) {
    let count = |of: PortUsage| ports.iter().filter(|&&used| used == of).count();
    let blocked = count(PortUsage::Blocked);
    let parts = [
        (count(PortUsage::Established), Paint::Good, PortUsage::Established),
        (count(PortUsage::TimeWait), Paint::Warn, PortUsage::TimeWait),
        (count(PortUsage::Other), Paint::Strong, PortUsage::Other),
    ];
    let used: usize = parts.iter().map(|part| part.0).sum();
    if used == 0 {
        return if blocked == ports.len() { (Paint::Bad, 'x') } else { (Paint::Dim, free(unicode)) };
    }
    let (_, paint, most) = parts.into_iter().max_by_key(|part| part.0).unwrap_or(parts[0]);
    let eighths = (used * 8).div_ceil((ports.len() - blocked).max(1)).clamp(1, 8);
    (paint, letter(most, eighths, unicode))
}

/// The letter of free ports.
fn free(unicode: bool) -> char {
    if unicode { '\u{b7}' } else { '.' }
}

/// The letter for ports of which so many eighths (1 to 8) are used.
fn letter(used: PortUsage, eighths: usize, unicode: bool) -> char {
    const BLOCKS: [char; 8] =
        ['\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}'];
    const BRAILLE: [char; 8] =
        ['\u{2840}', '\u{28c0}', '\u{28c4}', '\u{28e4}', '\u{28e6}', '\u{28f6}', '\u{28f7}', '\u{28ff}'];
    let at = |letters: &[char; 8]| letters.get(eighths - 1).copied().unwrap_or('?');
    match (used, unicode, eighths > 4) {
        (PortUsage::Established, true, _) => at(&BLOCKS),
        (PortUsage::TimeWait, true, _) => at(&BRAILLE),
        (_, true, false) => '\u{2591}',
        (_, true, true) => '\u{2592}',
        (PortUsage::Established, false, false) => 'o',
        (PortUsage::Established, false, true) => '#',
        (PortUsage::TimeWait, false, false) => '-',
        (PortUsage::TimeWait, false, true) => '=',
        (_, false, _) => '+',
    }
}

/// Letters of the legend: established, `TIME_WAIT`, other, free.
pub fn legend(unicode: bool) -> [char; 4] {
    let [established, time_wait, other] =
        [PortUsage::Established, PortUsage::TimeWait, PortUsage::Other].map(|used| letter(used, 8, unicode));
    [established, time_wait, other, free(unicode)]
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
