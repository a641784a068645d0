//! The full-screen view of a live trace or of a recording. Frames come in through a [`channel`], orders go out through it; nothing
//! here depends on where the frames come from.
//!
//! [`app`] holds what the user is looking at and draws nothing; it turns a key or a click into an [`app::Effect`].
//! `screen` draws one frame and the app's state into cells, with the pages of `views`, the widgets of `render` and the pictures
//! of `charts`. [`terminal`] owns the terminal, reads keys, calls `screen` and carries out effects. So keys are tested without a
//! terminal, screens without a kernel, and both without time.
//!
//! Not for: conclusions (the tracker's), pacing and privileges (`run`'s).

pub mod app;
mod cells;
pub mod channel;
mod charts;
mod columns;
mod export;
mod hit_map;
mod keys;
mod options;
mod page;
mod prompt;
mod render;
mod row_filter;
mod row_input;
mod rows;
pub mod screen;
pub mod terminal;
mod views;

pub use options::{RenderOptions, TraceInfo};

#[cfg(test)]
mod tests;
