//! `portchurn`: parse, run, print the error chain once, exit code.

#![cfg_attr(not(test), deny(clippy::print_stderr))]

use std::process::ExitCode;

use anyhow::Result;
use tracer::cli::{self, Command, exit};
use tracer::demo;
use tracer::run;
use tracer::stdio;

fn main() -> ExitCode {
    if let Some(code) = role() {
        return code;
    }
    let code = cli::parse().map_err(Into::into).and_then(|command| {
        stdio::init_log();
        run(&command)
    });
    ExitCode::from(code.unwrap_or_else(|error| {
        stdio::say(format_args!("{error:#}"));
        failure_code(&error)
    }))
}

fn run(command: &Command) -> Result<u8> {
    match command {
        Command::Live(config) => run::view::live(config)?,
        Command::Stream(config) => run::stream::run(config)?,
        Command::Report(config) => run::report::run(config)?,
        Command::Record(config) => return run::record::run(config),
        Command::ReplayScreen(config) => run::view::replay(config)?,
        Command::ReplayLines(config) => run::replay_lines::run(config)?,
        Command::Export(config) => run::export::run(config)?,
        Command::Diff(config) => run::diff::run(config)?,
        Command::Check(config) => return run::check::run(config),
        Command::Info(config) => run::info::run(config)?,
        Command::Doctor(config) => return run::doctor::print(config),
        Command::Demo => run::demo::run()?,
        Command::Version { verbose } => run::version::print(*verbose)?,
    }
    Ok(exit::OK)
}

fn failure_code(error: &anyhow::Error) -> u8 {
    if error.is::<cli::UsageError>() {
        exit::USAGE
    } else if error.is::<run::StartError>() {
        exit::REFUSED
    } else {
        exit::FAILED
    }
}

/// The demo starts this executable again for its workload. `None` if this process is no part of a demo.
fn role() -> Option<ExitCode> {
    let arguments: Vec<String> =
        std::env::args_os().skip(1).map(|argument| argument.to_string_lossy().into_owned()).collect();
    let (demo::ROLE, role) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest))? else { return None };
    Some(match demo::role_main(role) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            stdio::say_line(format_args!("portchurn demo: {error:#}"));
            ExitCode::from(exit::FAILED)
        }
    })
}
