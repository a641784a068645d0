//! The request to end a command: by a signal, by the end of its time, or by a thread that has no more to do.
//!
//! Everything that a command does after the request has a limit of its own, so that the command ends within two seconds on a loaded host.
//! What cannot be given a limit (a write to a pipe that nobody reads, the verifier) is cut off by [`Patience`]. A second signal ends the
//! process at once.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::privileges;
use crate::cli::exit;
use crate::host_clock;
use crate::tui::terminal;
use tracer_core::event::Ktime;

/// How often the end of somebody's patience is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A terminal that does not take its last escape sequences within this time has gone.
const TERMINAL_LIMIT: Duration = Duration::from_millis(200);

/// How long a command may go on after it was asked to end, before the process is ended for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Patience {
    /// It has nothing that is worth waiting for: programs are being loaded, or it writes lines, and a reader that takes no more must not
    /// hold it up.
    Short,
    /// It ends by itself, with a report or a file that must be whole.
    #[default]
    Unlimited,
}

impl Patience {
    fn limit(self) -> Option<Duration> {
        match self {
            // After that the kernel detaches the programs of a process that is gone, which takes up to 0.6 s on a loaded host.
            Self::Short => Some(Duration::from_millis(1_200)),
            Self::Unlimited => None,
        }
    }
}

/// When the end was asked for, on both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// For limits of what happens afterwards.
    pub at: Instant,
    /// The same instant on the clock of records.
    pub ktime: Ktime,
}

#[derive(Debug, Default)]
struct State {
    asked: Option<Asked>,
    /// By a signal, and not only by the end of the time or by a thread.
    signalled: bool,
    patience: Patience,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// The request, shared by the threads of a command.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<Shared>);

impl Stop {
    /// Asks for the end. Only the first request counts.
    pub fn ask(&self) {
        self.ask_with(self.state(), exit::FAILED);
    }

    /// Asks for the end because of a signal. `code` is the exit code of a process that somebody loses patience with.
    pub fn signal(&self, code: u8) {
        let mut state = self.state();
        state.signalled = true;
        self.ask_with(state, code);
    }

    /// A signal asked for the end.
    pub fn is_signalled(&self) -> bool {
        self.state().signalled
    }

    fn ask_with(&self, mut state: MutexGuard<'_, State>, code: u8) {
        if state.asked.is_none() {
            state.asked = Some(Asked { at: Instant::now(), ktime: host_clock::now() });
            let stop = self.clone();
            // Without the thread a second signal still ends the process.
            let _ = std::thread::Builder::new().name("patience".into()).spawn(move || stop.enforce(code));
        }
        self.0.changed.notify_all();
    }

    /// When the end was asked for; `None` if it was not.
    pub fn asked(&self) -> Option<Asked> {
        self.state().asked
    }

    /// True once the end was asked for.
    pub fn is_asked(&self) -> bool {
        self.asked().is_some()
    }

    /// Sets what happens to a command that goes on after the request.
    pub fn set_patience(&self, patience: Patience) {
        self.state().patience = patience;
    }

    /// Waits until the end is asked for, at most for `limit`. True if it was.
    pub fn wait_at_most(&self, limit: Duration) -> bool {
        let asked = self.0.changed.wait_timeout_while(self.state(), limit, |state| state.asked.is_none());
        asked.unwrap_or_else(PoisonError::into_inner).0.asked.is_some()
    }

    /// Waits until the end is asked for; asks for it after `limit`.
    pub fn wait(&self, limit: Option<Duration>) {
        match limit {
            Some(limit) => {
                if !self.wait_at_most(limit) {
                    self.ask();
                }
            }
            None => {
                let asked = self.0.changed.wait_while(self.state(), |state| state.asked.is_none());
                drop(asked.unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the process when the patience is over.
    fn enforce(&self, code: u8) {
        privileges::drop_all();
        loop {
            std::thread::sleep(LOOK_EVERY);
            let state = self.state();
            let over = state.asked.zip(state.patience.limit()).is_some_and(|(asked, limit)| asked.at.elapsed() > limit);
            drop(state);
            if over {
                end_process(code);
            }
        }
    }
}

/// Ends the process without waiting for any thread; a terminal that still answers gets its modes back.
pub fn end_process(code: u8) -> ! {
    let (done, given_back) = std::sync::mpsc::channel();
    let helper = std::thread::Builder::new().name("farewell".into()).spawn(move || {
        terminal::give_back();
        // The receiver may have stopped waiting.
        let _ = done.send(());
    });
    if helper.is_ok() {
        let _ = given_back.recv_timeout(TERMINAL_LIMIT);
    }
    std::process::exit(i32::from(code))
}
