//! A row of numbers as a row of heights.

/// Heights, lowest first; the first one is "nothing".
fn steps(unicode: bool) -> &'static [char] {
    if unicode {
        &[' ', '\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}']
    } else {
        &[' ', '.', ':', '-', '=', '+', '*', '#']
    }
}

/// One letter per value, the highest one full. Anything above zero shows.
pub fn line(values: &[u64], unicode: bool) -> String {
    let steps = steps(unicode);
    let top = values.iter().copied().max().unwrap_or(0);
    let levels = steps.len() as u64 - 1;
    let level =
        |value: u64| if top == 0 { 0 } else { (u128::from(value) * u128::from(levels)).div_ceil(u128::from(top)) };
    values
        .iter()
        .map(|&value| usize::try_from(level(value)).ok().and_then(|level| steps.get(level)).copied().unwrap_or(' '))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_happened_shows() {
        assert_eq!(line(&[0, 1, 1000, 500], false), " .#=");
        assert_eq!(line(&[0, 0], false), "  ");
        assert_eq!(line(&[u64::MAX, 1], true), "\u{2588}\u{2581}");
        assert_eq!(line(&[], true), "");
    }
}
