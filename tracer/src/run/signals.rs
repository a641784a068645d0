//! Ctrl-C, TERM and HUP: the first asks a command to end, the second ends the process at once.

use std::convert::Infallible;

use anyhow::{Context as _, Result};
use nix::libc::{SIGHUP, SIGINT, SIGTERM};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::privileges;
use super::stop::{Stop, end_process};

/// What a shell adds to the number of the signal that ended a command.
pub const SIGNAL_BASE: u8 = 128;

/// Watches for signals from here on, on a thread that needs no capability. A HUP that this process was started to ignore stays ignored
/// (nohup(1)).
///
/// # Errors
/// The handlers or the thread could not be set up.
pub fn watch() -> Result<Stop> {
    let stop = Stop::default();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the signal runtime")?;
    let mut handled = vec![SIGINT, SIGTERM];
    if !hangup_is_ignored(&std::fs::read_to_string("/proc/self/status").unwrap_or_default()) {
        handled.push(SIGHUP);
    }
    let entered = runtime.enter();
    let signals = handled
        .into_iter()
        .map(|number| Ok((number, signal(SignalKind::from_raw(number)).context("handling signals")?)))
        .collect::<Result<Vec<_>>>()?;
    drop(entered);
    let asked = stop.clone();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            privileges::drop_all();
            runtime.block_on(async {
                let mut tasks = tokio::task::JoinSet::new();
                for (number, signal) in signals {
                    tasks.spawn(obey(signal, number, asked.clone()));
                }
                // They never end.
                tasks.join_next().await;
            });
        })
        .context("starting the thread that waits for signals")?;
    Ok(stop)
}

async fn obey(mut signal: Signal, number: i32, stop: Stop) -> Infallible {
    let code = SIGNAL_BASE.saturating_add(u8::try_from(number).unwrap_or(0));
    loop {
        if signal.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        if stop.is_signalled() {
            end_process(code);
        }
        stop.signal(code);
    }
}

/// The mask of ignored signals in /proc/PID/status has bit 0 for signal 1, HUP.
fn hangup_is_ignored(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_of_nohup_is_known_by_its_mask() {
        assert!(hangup_is_ignored("Name:\tx\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n"));
        assert!(!hangup_is_ignored("SigIgn:\t0000000000001000\n"));
        assert!(!hangup_is_ignored(""));
    }
}
