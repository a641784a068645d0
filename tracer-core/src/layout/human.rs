//! Numbers, rates, sizes and durations for people. Not for: JSON, which gets the numbers as they are.

/// From this on a number does not fit into a table's column and is abbreviated (`18.4E`).
const FULL_BELOW: u64 = 10_000_000;

/// `1,204`, all digits.
pub fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1,204`, at most nine columns: from ten million on `18.4E`.
pub fn short(value: u64) -> String {
    if value < FULL_BELOW { number(value) } else { scaled(value as f64) }
}

/// A number of which only the bounds are known, each written by `number`: `93` where both are the same, `93 to 100`, `up to 7`
/// where the lower one is 0.
pub fn between(least: u64, most: u64, number: impl Fn(u64) -> String) -> String {
    match (least, most) {
        (least, most) if least >= most => number(least),
        (0, most) => format!("up to {}", number(most)),
        (least, most) => format!("{} to {}", number(least), number(most)),
    }
}

/// Three digits and a letter.
fn scaled(value: f64) -> String {
    let mut value = value;
    for unit in ["", "k", "M", "G", "T", "P"] {
        if value < 999.5 {
            return format!("{value:.*}{unit}", usize::from(value < 99.95));
        }
        value /= 1_000.0;
    }
    format!("{value:.1}E")
}

/// Per second: `0.03`, `16.1`, `463`, `12.3k`. `-` for what is no number.
pub fn rate(value: f64) -> String {
    if !value.is_finite() {
        return "-".into();
    }
    match value {
        v if v < 0.005 => "0".into(),
        v if v < 0.995 => format!("{v:.2}"),
        v if v < 99.95 => format!("{v:.1}"),
        v if v < 9_999.5 => format!("{v:.0}"),
        v => scaled(v),
    }
}

/// `1 connect`, `1,204 connects`.
pub fn plural(count: u64, singular: &str) -> String {
    format!("{} {singular}{}", number(count), if count == 1 { "" } else { "s" })
}

/// `1 connect`, `1204 connects`: digits without separators, for the sentences of findings, which scripts search too.
pub fn plain_plural(count: u64, singular: &str) -> String {
    format!("{count} {singular}{}", if count == 1 { "" } else { "s" })
}

/// `4.2/s`, `463/s`, for the sentences of findings.
pub fn per_second(rate: f64) -> String {
    if rate < 10.0 { format!("{rate:.1}/s") } else { format!("{rate:.0}/s") }
}

/// When something comes: `40 to 60 s` between the two ends, `about 50 s, not before 40 s` if the later end is open, `about 50 s` if no end
/// is known or the ends are the same when rounded.
pub fn rough_interval(seconds: f64, soonest: Option<f64>, latest: Option<f64>) -> String {
    let about = rough_seconds(seconds);
    match (soonest.map(rough_seconds), latest.map(rough_seconds)) {
        (Some(from), Some(to)) if from != to => match (from.strip_suffix(" s"), to.strip_suffix(" s")) {
            (Some(number), Some(_)) => format!("{number} to {to}"),
            _ => format!("{from} to {to}"),
        },
        (Some(from), None) if from != about => format!("about {about}, not before {from}"),
        _ => format!("about {about}"),
    }
}

/// Seconds in one unit, for the sentences of findings: `50 us`, `4.0 ms`, `90 s`, `5 min`, `2.1 h`.
pub fn rough_seconds(seconds: f64) -> String {
    if seconds < 1e-3 {
        format!("{:.0} us", seconds * 1e6)
    } else if seconds < 0.01 {
        format!("{:.1} ms", seconds * 1e3)
    } else if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1e3)
    } else if seconds < 120.0 {
        format!("{seconds:.0} s")
    } else if seconds < 7_200.0 {
        format!("{:.0} min", seconds / 60.0)
    } else {
        format!("{:.1} h", seconds / 3_600.0)
    }
}

/// Bytes: `12 B`, `3.4 kB`, `5.6 MB`, `1.23 GB`, in powers of ten.
pub fn bytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// Milliseconds in one unit, for columns: `50 us`, `2.1 ms`, `412 ms`, `61 s`, `10 min`, `2.1 h`, `5.2 d`.
pub fn brief(value: f64) -> String {
    /// The unit, its length in milliseconds, and the milliseconds from which on the next unit reads better.
    const UNITS: [(&str, f64, f64); 5] =
        [("us", 0.001, 0.0995), ("ms", 1.0, 999.5), ("s", 1e3, 119.5e3), ("min", 6e4, 6.6e6), ("h", 3.6e6, 172.8e6)];
    if !value.is_finite() {
        return "-".into();
    }
    let (unit, size) = UNITS.into_iter().find(|unit| value < unit.2).map_or(("d", 86.4e6), |unit| (unit.0, unit.1));
    let count = value / size;
    if count >= 9_999.5 {
        return format!("{} {unit}", scaled(count));
    }
    let text = format!("{count:.*}", usize::from(count < 9.95));
    format!("{} {unit}", text.strip_suffix(".0").unwrap_or(&text))
}

/// Seconds in two units: `39 s`, `2 min 5 s`, `2 h 3 min`, `5 d 4 h`; more than ten years in years.
pub fn seconds(value: f64) -> String {
    if !value.is_finite() {
        return "-".into();
    }
    if value < 9.95 {
        let text = format!("{value:.1}");
        return format!("{} s", text.strip_suffix(".0").unwrap_or(&text));
    }
    if value > 365.0 * 86_400.0 * 10.0 {
        return format!("{} years", scaled(value / (365.25 * 86_400.0)));
    }
    let total = value.round();
    let part = |unit: f64, of: f64| ((total % of) / unit).floor();
    let two = |big: f64, name: &str, small: f64, small_name: &str| {
        if small > 0.0 { format!("{big} {name} {small} {small_name}") } else { format!("{big} {name}") }
    };
    match total {
        t if t < 60.0 => format!("{t} s"),
        t if t < 3_600.0 => two((t / 60.0).floor(), "min", part(1.0, 60.0), "s"),
        t if t < 86_400.0 => two((t / 3_600.0).floor(), "h", part(60.0, 3_600.0), "min"),
        t => two((t / 86_400.0).floor(), "d", part(3_600.0, 86_400.0), "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_one_unit_where_they_can() {
        assert_eq!(rough_interval(50.0, Some(40.2), Some(59.9)), "40 to 60 s");
        assert_eq!(rough_interval(110.0, Some(90.0), Some(150.0)), "90 s to 2 min");
        assert_eq!(rough_interval(50.0, Some(40.0), None), "about 50 s, not before 40 s");
        assert_eq!(rough_interval(50.0, Some(50.1), Some(50.2)), "about 50 s");
        assert_eq!(rough_interval(50.0, None, None), "about 50 s");
    }

    #[test]
    fn numbers() {
        assert_eq!(number(0), "0");
        assert_eq!(number(999), "999");
        assert_eq!(number(1_204), "1,204");
        assert_eq!(number(u64::MAX), "18,446,744,073,709,551,615");
        assert_eq!(short(9_999_999), "9,999,999");
        assert_eq!(short(10_000_000), "10.0M");
        assert_eq!(short(u64::MAX), "18.4E");
        assert_eq!(short(999_960_000), "1.0G");
        assert_eq!(between(0, 0, number), "0");
        assert_eq!(between(1_234, 1_234, number), "1,234");
        assert_eq!(between(1, 1_234, number), "1 to 1,234");
        assert_eq!(between(0, 1_234, number), "up to 1,234");
        assert_eq!(plural(1, "connect"), "1 connect");
        assert_eq!(plural(0, "connect"), "0 connects");
    }

    #[test]
    fn sentences() {
        assert_eq!((plain_plural(1, "bind"), plain_plural(1_204, "bind")), ("1 bind".into(), "1204 binds".into()));
        assert_eq!((per_second(4.21), per_second(463.2)), ("4.2/s".into(), "463/s".into()));
        for (value, text) in [
            (5e-5, "50 us"),
            (0.004, "4.0 ms"),
            (0.412, "412 ms"),
            (90.0, "90 s"),
            (300.0, "5 min"),
            (7_560.0, "2.1 h"),
        ] {
            assert_eq!(rough_seconds(value), text);
        }
    }

    #[test]
    fn sizes() {
        for (value, text) in
            [(0, "0 B"), (999, "999 B"), (3_400, "3.4 kB"), (5_600_000, "5.6 MB"), (1_234_000_000, "1.23 GB")]
        {
            assert_eq!(bytes(value), text);
        }
    }

    #[test]
    fn rates() {
        for (value, text) in
            [(0.0, "0"), (0.03, "0.03"), (0.999, "1.0"), (16.1, "16.1"), (463.0, "463"), (12_345.0, "12.3k")]
        {
            assert_eq!(rate(value), text);
        }
        assert_eq!(rate(f64::NAN), "-");
    }

    #[test]
    fn durations() {
        for (value, text) in [
            (0.0, "0 us"),
            (0.05, "50 us"),
            (0.42, "0.4 ms"),
            (412.0, "412 ms"),
            (1_240.0, "1.2 s"),
            (61_000.0, "61 s"),
            (612_000.0, "10 min"),
            (7_384_000.0, "2.1 h"),
            (446_400_000.0, "5.2 d"),
            (1e15, "11.6M d"),
            (f64::NAN, "-"),
        ] {
            assert_eq!(brief(value), text);
        }
        for (value, text) in [
            (0.0, "0 s"),
            (39.1, "39 s"),
            (59.7, "1 min"),
            (125.0, "2 min 5 s"),
            (3_600.0, "1 h"),
            (7_384.0, "2 h 3 min"),
            (86_399.9, "1 d"),
            (446_400.0, "5 d 4 h"),
            (f64::INFINITY, "-"),
        ] {
            assert_eq!(seconds(value), text);
        }
    }
}
