//! The programs, one file per hook family.

mod calls;
mod connecting;
mod state;
mod time_wait;
