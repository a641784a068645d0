//! The traffic program: runs a [`Script`] of real socket operations and logs what each system call returned.
//!
//! A tracer can be checked only against traffic whose exact course is known: socket, thread, errno and time of every
//! call. No ordinary client logs that. This program draws no conclusions and knows nothing about the tracer.

#![deny(unsafe_code)]

mod client;
mod log;
mod raw;
mod relay;
mod server;
mod sockets;

use std::ffi::CString;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};
use portchurn_tests::script::{LoggedCall, Script, ScriptStep};

use crate::log::Logger;
use crate::sockets::HeldSockets;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("churn: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    // The traffic must not outlive its test.
    prctl::set_pdeathsig(Signal::SIGKILL).context("PR_SET_PDEATHSIG")?;
    let script = std::env::args().nth(1).context("usage: churn SCRIPT (one JSON object)")?;
    let script: Script = serde_json::from_str(&script).context("the script")?;
    if let Some(comm) = &script.comm {
        prctl::set_name(&CString::new(comm.as_str())?).context("PR_SET_NAME")?;
    }
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    let logger = Logger::open(&script.log, script.buffered)?;
    let mut held = HeldSockets::default();
    steps(&script.steps, &logger, &mut held)?;
    logger.mark(LoggedCall::Done)?;
    logger.flush()
}

fn steps(steps: &[ScriptStep], logger: &Logger, held: &mut HeldSockets) -> Result<()> {
    steps.iter().try_for_each(|one| step(one, logger, held).with_context(|| format!("{one:?}")))
}

fn step(step: &ScriptStep, logger: &Logger, held: &mut HeldSockets) -> Result<()> {
    match step {
        ScriptStep::Connect { to, times, via, bind, reuse_addr, then, pause_us } => {
            let plan = client::ConnectPlan { via: *via, bind: *bind, reuse_addr: *reuse_addr, then: *then };
            let mut connector = client::Connector::new(*via)?;
            for to in to.iter().cycle().take(usize::try_from(*times)?) {
                client::connect(*to, &plan, &mut connector, logger, held)?;
                pause(Duration::from_micros(*pause_us));
            }
            Ok(())
        }
        ScriptStep::CloseHeld { then } => held.close(*then, logger),
        ScriptStep::RetryOneSocket { to, times, pause_us } => {
            client::retry(*to, *times, Duration::from_micros(*pause_us), logger, held)
        }
        ScriptStep::Abandon { to, times, after_ms } => {
            (0..*times).try_for_each(|_| client::abandon(*to, Duration::from_millis(*after_ms), logger))
        }
        ScriptStep::Bind { addr, times, reuse_addr } => {
            (0..*times).try_for_each(|_| client::bind(*addr, *reuse_addr, logger, held))
        }
        ScriptStep::Listen { addr, backlog } => {
            held.listeners.push(server::listen(*addr, *backlog, logger)?);
            Ok(())
        }
        ScriptStep::CloseListeners => {
            held.listeners.clear();
            Ok(())
        }
        ScriptStep::Serve { addr, manner } => {
            server::serve(&server::listen(*addr, server::BACKLOG, logger)?, *manner, logger)
        }
        ScriptStep::Prefork { addr, workers, manner } => {
            let listener = server::listen(*addr, server::BACKLOG, logger)?;
            let work = || server::serve(&listener, *manner, logger);
            let children = (0..*workers).map(|_| fork(logger, &work)).collect::<Result<Vec<_>>>()?;
            children.into_iter().try_for_each(reap)
        }
        ScriptStep::Threads { count, steps: own } => std::thread::scope(|scope| {
            let run = || -> Result<()> {
                let mut held = HeldSockets::default();
                steps(own, logger, &mut held)
            };
            let threads: Vec<_> = (0..*count).map(|_| scope.spawn(run)).collect();
            threads.into_iter().try_for_each(|thread| match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        }),
        ScriptStep::Fork { count, at_once, steps: own } => {
            let work = || -> Result<()> {
                let mut held = HeldSockets::default();
                steps(own, logger, &mut held)
            };
            let mut children = Vec::new();
            for _ in 0..*count {
                let child = fork(logger, &work)?;
                if *at_once {
                    children.push(child);
                } else {
                    reap(child)?;
                }
            }
            children.into_iter().try_for_each(reap)
        }
        ScriptStep::WaitFor { file } => wait_for(file, logger),
        ScriptStep::Relay { left, right, delay_ms } => {
            relay::run(left, right, Duration::from_millis(*delay_ms), logger)
        }
    }
}

/// Runs `work` in a forked child, which exits afterwards.
fn fork(logger: &Logger, work: &dyn Fn() -> Result<()>) -> Result<Pid> {
    // Otherwise both processes would write the buffered lines.
    logger.flush()?;
    match raw::fork()? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let outcome = prctl::set_pdeathsig(Signal::SIGKILL)
                .context("PR_SET_PDEATHSIG")
                .and_then(|()| work())
                .and_then(|()| logger.mark(LoggedCall::Done))
                .and_then(|()| logger.flush());
            if let Err(error) = &outcome {
                eprintln!("churn, child: {error:#}");
            }
            std::process::exit(i32::from(outcome.is_err()))
        }
    }
}

fn reap(child: Pid) -> Result<()> {
    let status = waitpid(child, None)?;
    ensure!(matches!(status, WaitStatus::Exited(_, 0)), "child: {status:?}");
    Ok(())
}

fn wait_for(file: &Path, logger: &Logger) -> Result<()> {
    logger.mark(LoggedCall::Waiting)?;
    logger.flush()?;
    while !file.exists() {
        pause(Duration::from_millis(1));
    }
    Ok(())
}

fn pause(time: Duration) {
    if !time.is_zero() {
        std::thread::sleep(time);
    }
}
