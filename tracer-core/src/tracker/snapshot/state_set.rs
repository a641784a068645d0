//! A set of TCP states, as small as a number.

use crate::event::TcpState;

/// The states that some flows are in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateSet(u16);

impl StateSet {
    /// Adds a state.
    pub fn add(&mut self, state: TcpState) {
        self.0 |= bit(state);
    }

    /// Is the state in the set?
    pub fn has(self, state: TcpState) -> bool {
        self.0 & bit(state) != 0
    }
}

impl FromIterator<TcpState> for StateSet {
    fn from_iter<I: IntoIterator<Item = TcpState>>(states: I) -> Self {
        let mut all = Self::default();
        states.into_iter().for_each(|state| all.add(state));
        all
    }
}

fn bit(state: TcpState) -> u16 {
    1 << state as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_a_place_of_its_own() {
        for state in TcpState::ALL {
            let others: StateSet = TcpState::ALL.into_iter().filter(|other| *other != state).collect();
            assert!(!others.has(state) && StateSet::from_iter([state]).has(state), "{state:?}");
        }
    }
}
