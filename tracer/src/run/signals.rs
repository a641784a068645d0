//! Waits for what ends a trace: a signal, the time that was asked for, or the other side hanging up.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Blocks until Ctrl-C, TERM, HUP, the end of `limit`, `done`, or `asked`.
///
/// # Errors
/// Signal handlers or the runtime could not be set up.
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
            // A sender that is gone without a word asks for nothing.
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
