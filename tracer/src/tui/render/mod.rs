//! Widgets: what several pages draw onto the [`canvas::Canvas`]. They know neither the app nor the pages.
//!
//! ratatui has a table, a sparkline and a histogram too. These are our own, because an export writes the same cells into a
//! file, because a terminal without Unicode gets ASCII letters, and because only the rows on the screen are made.

pub mod canvas;
pub mod distributions;
pub mod split;
pub mod table;
