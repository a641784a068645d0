//! Waits for the end of a trace: a signal, the end of its time, or a message from another thread.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Blocks until Ctrl-C, TERM or HUP, until `limit` has passed, until `done` has a message or no sender, or until `asked` has a message.
///
/// # Errors
/// [`std::io::Error`]: the signal handlers or the runtime could not be set up.
pub fn wait(limit: Option<Duration>, done: oneshot::Receiver<()>, asked: Option<oneshot::Receiver<()>>) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the signal runtime")?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).context("handling SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("handling SIGTERM")?;
        let mut hangup = signal(SignalKind::hangup()).context("handling SIGHUP")?;
        let timer = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        let asked = async {
            let called = match asked {
                Some(asked) => asked.await.is_ok(),
                None => false,
            };
            // A sender that is dropped without a message does not end the trace.
            if !called {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            () = timer => {}
            () = asked => {}
            _ = done => {}
        }
        Ok(())
    })
}
