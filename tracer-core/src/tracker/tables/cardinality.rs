//! How many different things there were, in a kilobyte, however many there were.

use std::hash::{BuildHasher as _, Hash};

use rustc_hash::FxBuildHasher;

/// Two to this power registers: the estimate is within 3 % mostly, and nearly exact up to some hundred.
const BITS: u32 = 10;
const REGISTERS: usize = 1 << BITS;

/// A `HyperLogLog` sketch (Flajolet et al. 2007), for a number that people read.
#[derive(Clone, Debug, Default)]
pub struct Cardinality {
    registers: Option<Box<[u8; REGISTERS]>>,
}

impl Cardinality {
    /// Notes one of the things, whether or not it was noted before.
    pub fn note(&mut self, thing: &impl Hash) {
        // The hash of `rustc_hash` is good in its upper bits only; the finisher of splitmix64 spreads it.
        let mut hash = FxBuildHasher.hash_one(thing);
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^= hash >> 31;
        let registers = self.registers.get_or_insert_with(|| Box::new([0; REGISTERS]));
        let register = usize::try_from(hash >> (64 - BITS)).unwrap_or(0);
        let rank = u8::try_from((hash << BITS).leading_zeros().min(64 - BITS) + 1).unwrap_or(u8::MAX);
        if let Some(register) = registers.get_mut(register) {
            *register = (*register).max(rank);
        }
    }

    /// Notes everything that `other` has noted.
    pub fn merge(&mut self, other: &Self) {
        let Some(others) = &other.registers else { return };
        let registers = self.registers.get_or_insert_with(|| Box::new([0; REGISTERS]));
        for (own, other) in registers.iter_mut().zip(others.iter()) {
            *own = (*own).max(*other);
        }
    }

    /// About how many there were.
    pub fn estimate(&self) -> u64 {
        let Some(registers) = &self.registers else { return 0 };
        let count = REGISTERS as f64;
        let sum: f64 = registers.iter().map(|&rank| 2_f64.powi(-i32::from(rank))).sum();
        let raw = 0.7213 / (1.0 + 1.079 / count) * count * count / sum;
        let untouched = |rank: &&u8| **rank == 0;
        let zeros = registers.iter().filter(untouched).count();
        // Few: by the registers that none has met.
        let estimate = if raw <= 2.5 * count && zeros > 0 { count * (count / zeros as f64).ln() } else { raw };
        std::time::Duration::try_from_secs_f64(estimate.round()).map_or(u64::MAX, |whole| whole.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_within_a_tenth_and_repetitions_count_once() {
        for count in [0_u32, 1, 100, 4_500, 250_000] {
            let mut sketch = Cardinality::default();
            for thing in (0..count).chain(0..count.min(1_000)) {
                sketch.note(&(thing, 443_u16));
            }
            let (estimate, exact) = (sketch.estimate() as f64, f64::from(count));
            assert!((estimate - exact).abs() <= exact * 0.1, "{estimate} of {exact}");
        }
    }
}
