//! Ports in use towards each destination that has no row of its own, so that one that fills is noticed.

use std::collections::hash_map::Entry;

use rustc_hash::FxHashMap;

use crate::event::DestinationKey;

/// Destinations followed here, about 64 bytes each: 4 MiB. With more of them in use at once, one more is noticed when it fails.
const MAX_FOLLOWED: usize = 65_536;

/// The counts.
#[derive(Clone, Debug, Default)]
pub struct RestPorts {
    held: FxHashMap<DestinationKey, u32>,
}

impl RestPorts {
    /// A port more is in use. Returns how many are now; 0 if nobody counts.
    pub fn up(&mut self, key: DestinationKey) -> u32 {
        let room = self.held.len() < MAX_FOLLOWED;
        match self.held.entry(key) {
            Entry::Occupied(mut held) => {
                *held.get_mut() += 1;
                *held.get()
            }
            Entry::Vacant(free) if room => *free.insert(1),
            Entry::Vacant(_) => 0,
        }
    }

    /// A port less is in use.
    pub fn down(&mut self, key: &DestinationKey) {
        if let Some(held) = self.held.get_mut(key) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(key);
            }
        }
    }

    /// A destination comes that has so many ports in use.
    pub fn enter(&mut self, key: DestinationKey, held: u32) {
        if held > 0 && self.held.len() < MAX_FOLLOWED {
            *self.held.entry(key).or_default() += held;
        }
    }

    /// Ports of the destination are counted in a rest, as far as is known.
    pub fn has(&self, key: &DestinationKey) -> bool {
        // Beyond the bound nobody knows: then a walk looks.
        self.held.contains_key(key) || self.held.len() >= MAX_FOLLOWED
    }
}
