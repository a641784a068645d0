//! Text for people, whatever view it is in: numbers, durations, colours, columns. Not for: what is said.

pub mod human;
pub mod occupancy_bar;
pub mod text;
pub mod text_page;
