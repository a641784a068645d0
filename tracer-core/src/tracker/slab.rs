//! A table whose entries keep their index while they live; freed places are used again under a new generation, so that a
//! stale reference finds nothing instead of a stranger.

use std::hash::BuildHasher as _;

use rustc_hash::FxBuildHasher;

/// A hash for hashbrown, which takes the low bits for the place and the upper seven for a tag: things of one `block` lie side by side in
/// the order of the low `bits` of their `number`, each with a tag of its own; blocks lie anywhere.
pub fn hash_in_blocks(block: u64, number: u64, bits: u32) -> u64 {
    let low = (1 << bits) - 1;
    (FxBuildHasher.hash_one(block) & !low | number & low) ^ number << 57
}

/// A reference into a [`Slab`] that notices when the entry has been replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ref {
    pub index: u32,
    generation: u32,
}

#[derive(Clone, Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// The table. Bounded: at `limit` entries [`Slab::insert`] refuses.
#[derive(Clone, Debug)]
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    limit: usize,
}

impl<T> Slab<T> {
    pub fn new(limit: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), limit }
    }

    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// `None` if the table is at its bound.
    pub fn insert(&mut self, value: T) -> Option<Ref> {
        if let Some(index) = self.free.pop() {
            let slot = self.slots.get_mut(usize::try_from(index).ok()?)?;
            slot.value = Some(value);
            return Some(Ref { index, generation: slot.generation });
        }
        if self.slots.len() >= self.limit {
            return None;
        }
        let index = u32::try_from(self.slots.len()).ok()?;
        self.slots.push(Slot { generation: 0, value: Some(value) });
        Some(Ref { index, generation: 0 })
    }

    fn slot(&self, index: u32) -> Option<&Slot<T>> {
        self.slots.get(usize::try_from(index).ok()?)
    }

    pub fn get(&self, at: Ref) -> Option<&T> {
        self.slot(at.index).filter(|slot| slot.generation == at.generation)?.value.as_ref()
    }

    /// What is at an index now.
    pub fn at(&self, index: u32) -> Option<(Ref, &T)> {
        let slot = self.slot(index)?;
        Some((Ref { index, generation: slot.generation }, slot.value.as_ref()?))
    }

    pub fn get_mut(&mut self, at: Ref) -> Option<&mut T> {
        let slot = self.slots.get_mut(usize::try_from(at.index).ok()?)?;
        if slot.generation == at.generation { slot.value.as_mut() } else { None }
    }

    pub fn remove(&mut self, at: Ref) -> Option<T> {
        let slot = self.slots.get_mut(usize::try_from(at.index).ok()?)?;
        if slot.generation != at.generation {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(at.index);
        Some(value)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Ref, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let at = Ref { index: u32::try_from(index).ok()?, generation: slot.generation };
            Some((at, slot.value.as_ref()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_reference_finds_nothing() {
        let mut slab = Slab::new(2);
        let a = slab.insert('a').expect("room");
        let b = slab.insert('b').expect("room");
        assert_eq!(slab.insert('c'), None);
        assert_eq!(slab.remove(a), Some('a'));
        let c = slab.insert('c').expect("room again");
        assert_eq!(c.index, a.index);
        assert_eq!(slab.remove(a), None);
        assert_eq!((slab.get(a), slab.get(b), slab.get(c)), (None, Some(&'b'), Some(&'c')));
        assert_eq!((slab.len(), slab.iter().count()), (2, 2));
    }
}
