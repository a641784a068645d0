//! Numbers over time as heights.

/// Letters of growing height; the first one stands for zero.
fn steps(unicode: bool) -> &'static [char] {
    if unicode {
        &[' ', '\u{2581}', '\u{2582}', '\u{2583}', '\u{2584}', '\u{2585}', '\u{2586}', '\u{2587}', '\u{2588}']
    } else {
        &[' ', '.', ':', '-', '=', '+', '*', '#']
    }
}

/// One letter per value, relative to the largest one. Anything above zero shows.
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

/// The same with `height` lines, the topmost first.
pub fn chart(values: &[u64], height: usize, unicode: bool) -> Vec<String> {
    let steps = steps(unicode);
    let top = u128::from(values.iter().copied().max().unwrap_or(0).max(1));
    let full = steps.len() - 1;
    let levels = (full * height) as u128;
    let level = |value: u64| usize::try_from((u128::from(value) * levels).div_ceil(top)).unwrap_or(0);
    (0..height)
        .rev()
        .map(|line| {
            let letter = |&value: &u64| steps.get(level(value).saturating_sub(line * full).min(full));
            values.iter().map(|value| letter(value).copied().unwrap_or(' ')).collect()
        })
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

    #[test]
    fn a_chart_stands_on_its_lowest_line() {
        assert_eq!(chart(&[0, 1, 7, 14], 2, false), ["   #", " .##"]);
        assert_eq!(chart(&[0], 1, true), [" "]);
    }
}
