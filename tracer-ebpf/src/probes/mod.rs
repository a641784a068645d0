//! The programs, one file per hook family.

mod calls;
mod state;
mod time_wait;
