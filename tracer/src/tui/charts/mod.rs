//! Numbers as pictures of letters: pure functions from figures to styled lines, for screen and export.
//!
//! ratatui has a sparkline and bars too. These are our own, because a terminal without Unicode gets ASCII letters, because an
//! export writes the same lines into a file, and because anything above zero must show, however small it is.

pub mod bar;
pub mod histogram;
pub mod port_map;
pub mod sparkline;
