//! Height shared between the tables of a page.

/// Divides `height` lines between two tables with so many rows. A table that needs less than half gets what it needs and the
/// other one the rest; else each gets half.
pub fn divide(height: u16, first: usize, second: usize) -> (u16, u16) {
    let half = height / 2;
    let need = |rows: usize| u16::try_from(rows.saturating_add(1)).unwrap_or(u16::MAX).max(2);
    let (first, second) = (need(first), need(second));
    if first <= half {
        (first, height - first)
    } else if second <= height - half {
        (height - second, second)
    } else {
        (half, height - half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_tables_share_what_there_is() {
        assert_eq!(divide(20, 3, 100), (4, 16));
        assert_eq!(divide(20, 100, 3), (16, 4));
        assert_eq!(divide(21, 100, 100), (10, 11));
        assert_eq!(divide(20, 0, 0), (2, 18));
    }
}
