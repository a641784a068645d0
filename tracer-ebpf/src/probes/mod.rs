//! The programs, one file per hook family.

mod calls;
mod connecting;
mod sockets;
mod state;
mod time_wait;
