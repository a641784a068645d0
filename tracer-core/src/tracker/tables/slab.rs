//! The table of tables: entries keep their index while they live, and a freed index is used again under a new generation.
//!
//! A reference that outlives its entry therefore finds nothing, never the entry that came after. Every table of the tracker whose
//! entries are referred to from elsewhere is a [`Slab`].

use std::fmt;
use std::hash::{BuildHasher as _, Hash, Hasher};
use std::marker::PhantomData;
use std::num::NonZeroU32;

use rustc_hash::FxBuildHasher;

/// A hash for hashbrown, which takes the bucket from the low bits and a tag from the upper seven.
///
/// Numbers of one `block` that differ in their low `bits` get neighbouring buckets in ascending order, and tags of their own. Different
/// blocks are spread over the whole table.
pub fn hash_in_blocks(block: u64, number: u64, bits: u32) -> u64 {
    let low = (1 << bits) - 1;
    (FxBuildHasher.hash_one(block) & !low | number & low) ^ number << 57
}

/// A reference to an entry of a `Slab<T>`. An `Option` of it takes no more room than the reference itself, 8 bytes.
pub struct Ref<T> {
    /// Place in the slab.
    pub index: u32,
    generation: NonZeroU32,
    entry: PhantomData<fn() -> T>,
}

impl<T> Ref<T> {
    const fn new(index: u32, generation: NonZeroU32) -> Self {
        Self { index, generation, entry: PhantomData }
    }

    /// Refers to nothing that any slab holds.
    pub fn nothing() -> Self {
        Self::new(0, NonZeroU32::MAX)
    }

    fn parts(self) -> (u32, NonZeroU32) {
        (self.index, self.generation)
    }
}

impl<T> Clone for Ref<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Ref<T> {}

impl<T> PartialEq for Ref<T> {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl<T> Eq for Ref<T> {}

impl<T> PartialOrd for Ref<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Ref<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.parts().cmp(&other.parts())
    }
}

impl<T> Hash for Ref<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.generation.get()) << 32 | u64::from(self.index));
    }
}

impl<T> fmt::Debug for Ref<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.index, self.generation)
    }
}

#[derive(Clone, Debug)]
struct Slot<T> {
    generation: NonZeroU32,
    value: Option<T>,
}

/// The table. At its limit [`Slab::insert`] refuses.
#[derive(Clone, Debug)]
pub struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    limit: usize,
}

impl<T> Slab<T> {
    /// An empty table for at most `limit` entries.
    pub fn new(limit: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), limit }
    }

    /// An empty table that only [`Slab::push`] adds to.
    pub fn unlimited() -> Self {
        Self::new(usize::MAX)
    }

    /// Entries held.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Places, free ones included.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Adds an entry. `None` if the table is at its limit.
    pub fn insert(&mut self, value: T) -> Option<Ref<T>> {
        (self.len() < self.limit).then(|| self.push(value))
    }

    /// Adds an entry beyond any limit, for tables that bound themselves by other means.
    pub fn push(&mut self, value: T) -> Ref<T> {
        if let Some(index) = self.free.pop()
            && let Some(slot) = usize::try_from(index).ok().and_then(|index| self.slots.get_mut(index))
        {
            slot.value = Some(value);
            return Ref::new(index, slot.generation);
        }
        // Four thousand million entries do not fit into memory.
        let index = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        let generation = NonZeroU32::MIN;
        self.slots.push(Slot { generation, value: Some(value) });
        Ref::new(index, generation)
    }

    fn slot(&self, index: u32) -> Option<&Slot<T>> {
        self.slots.get(usize::try_from(index).ok()?)
    }

    /// The entry, unless it has been removed.
    pub fn get(&self, at: Ref<T>) -> Option<&T> {
        self.slot(at.index).filter(|slot| slot.generation == at.generation)?.value.as_ref()
    }

    /// The entry that is at `index` now.
    pub fn at(&self, index: u32) -> Option<(Ref<T>, &T)> {
        let slot = self.slot(index)?;
        Some((Ref::new(index, slot.generation), slot.value.as_ref()?))
    }

    /// The entry, unless it has been removed.
    pub fn get_mut(&mut self, at: Ref<T>) -> Option<&mut T> {
        let slot = self.slots.get_mut(usize::try_from(at.index).ok()?)?;
        if slot.generation == at.generation { slot.value.as_mut() } else { None }
    }

    /// Takes the entry out; its index may be used again.
    pub fn remove(&mut self, at: Ref<T>) -> Option<T> {
        let slot = self.slots.get_mut(usize::try_from(at.index).ok()?)?;
        if slot.generation != at.generation {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = slot.generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        self.free.push(at.index);
        Some(value)
    }

    /// All entries, by ascending index.
    pub fn iter(&self) -> impl Iterator<Item = (Ref<T>, &T)> {
        self.slots.iter().enumerate().filter_map(|(index, slot)| {
            let at = Ref::new(u32::try_from(index).ok()?, slot.generation);
            Some((at, slot.value.as_ref()?))
        })
    }

    /// Changes all entries, by ascending index.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().filter_map(|slot| slot.value.as_mut())
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

    #[test]
    fn an_optional_reference_takes_no_more_room() {
        assert_eq!((size_of::<Ref<String>>(), size_of::<Option<Ref<String>>>()), (8, 8));
    }
}
